"""When deletes are held back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.bulk.brakes import FEW, MaxDelete, check_deletes, parse_max_delete
from replicator.bulk.tasks import Counts
from replicator.errors import ConfigurationError, Refused

NAMES = ["memory://one/", "memory://two/"]

TABLE = {
    "the source lists nothing": (0, [10], [10], MaxDelete(), False),
    "the source lists nothing, and any number may go": (0, [10], [10], MaxDelete(percent=100), False),
    "the source lists nothing, and so many may go": (0, [10], [10], MaxDelete(objects=10), False),
    "nobody lists anything": (0, [0], [0], MaxDelete(), True),
    "nothing is listed at all": (0, [], [], MaxDelete(), True),
    "only the source lists something": (5, [0], [0], MaxDelete(objects=0), True),
    "nothing is too much": (10, [10], [0], MaxDelete(objects=0), True),
    "a few": (1, [101], [FEW], MaxDelete(), True),
    "one more than a few": (1, [102], [FEW + 1], MaxDelete(), False),
    "a tenth of many": (9000, [10_000], [1000], MaxDelete(), True),
    "more than a tenth of many": (9000, [10_000], [1001], MaxDelete(), False),
    "as many as allowed": (1, [10_000], [500], MaxDelete(objects=500), True),
    "one more than allowed": (1, [10_000], [501], MaxDelete(objects=500), False),
    "a number replaces the few": (1000, [1000], [1], MaxDelete(objects=0), False),
    "a number replaces the tenth": (90_000, [100_000], [101], MaxDelete(objects=100), False),
    "as large a share as allowed": (1, [1000], [25], MaxDelete(percent=2.5), True),
    "a larger share than allowed": (1, [1000], [26], MaxDelete(percent=2.5), False),
    "a share replaces the few": (1, [1000], [11], MaxDelete(percent=1), False),
    "everything, which was allowed": (1, [1000], [1000], MaxDelete(percent=100), True),
    "a share of nothing": (1000, [1000], [1], MaxDelete(percent=0), False),
    "both targets within": (1, [1000, 2000], [100, 200], MaxDelete(), True),
    "the second target beyond": (1, [1000, 1000], [0, 101], MaxDelete(), False),
    "the first target beyond": (1, [1000, 1000], [101, 0], MaxDelete(), False),
    "shares are of each target, not of all": (1, [10_000, 110], [0, 105], MaxDelete(), False),
}


@pytest.mark.parametrize("row", TABLE)
def test_deletes_are_allowed_or_refused(row):
    source, targets, extra, limit, allowed = TABLE[row]
    counts = Counts(source, targets, extra)
    names = NAMES[: len(targets)]
    if allowed:
        check_deletes(counts, names, "memory://from/", limit)
    else:
        with pytest.raises(Refused, match="nothing was deleted"):
            check_deletes(counts, names, "memory://from/", limit)


def test_a_refusal_names_the_target_the_numbers_and_the_way_on():
    with pytest.raises(Refused) as raised:
        check_deletes(Counts(9, [10, 20_000], [1, 3000]), NAMES, "memory://from/", MaxDelete())
    text = str(raised.value)
    assert "3,000 of the 20,000 objects at memory://two/ (15.0 %)" in text
    assert "--max-delete 3000;" in text
    check_deletes(Counts(9, [10, 20_000], [1, 3000]), NAMES, "memory://from/", parse_max_delete("3000"))


def test_an_empty_source_is_named_whatever_was_allowed():
    with pytest.raises(Refused, match=r"memory://from/ lists no object, the targets list 1,200"):
        check_deletes(Counts(0, [7, 1200], [7, 1200]), NAMES, "memory://from/", MaxDelete(objects=5000))


@pytest.mark.parametrize(
    ("before", "extra", "limit", "allowed"),
    [
        (60, 40, MaxDelete(), True),
        (60, 41, MaxDelete(), False),
        (500, 0, MaxDelete(objects=100), True),
        (99, 1, MaxDelete(objects=100), True),
        (100, 1, MaxDelete(objects=100), False),
        (50, 25, MaxDelete(percent=50), True),
        (50, 26, MaxDelete(percent=50), False),
    ],
)
def test_what_earlier_passes_deleted_counts_against_the_limit(before, extra, limit, allowed):
    counts = Counts(5, [150 - before], [extra])
    if allowed:
        check_deletes(counts, NAMES[:1], "from", limit, before=[before])
    else:
        with pytest.raises(Refused, match=f"say --max-delete {before + extra};"):
            check_deletes(counts, NAMES[:1], "from", limit, before=[before])


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6))
def test_what_is_allowed_stays_allowed_when_less_is_deleted_or_more_is_there(deletes, fewer, more):
    for limit in (MaxDelete(), MaxDelete(objects=500), MaxDelete(percent=2.5)):
        objects = deletes + more
        if limit.allows(deletes, objects):
            assert limit.allows(max(0, deletes - fewer), objects)
            assert limit.allows(deletes, objects + more)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", MaxDelete(objects=0)),
        ("500", MaxDelete(objects=500)),
        (" 7 ", MaxDelete(objects=7)),
        ("9" * 18, MaxDelete(objects=10**18 - 1)),
        ("0%", MaxDelete(percent=0.0)),
        ("2.5%", MaxDelete(percent=2.5)),
        ("100%", MaxDelete(percent=100.0)),
        ("100.0%", MaxDelete(percent=100.0)),
        ("0.000001%", MaxDelete(percent=0.000001)),
    ],
)
def test_a_limit_is_a_number_or_a_share(text, expected):
    assert parse_max_delete(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", " ", "%", "-1", "+1", "1.5", "1e3", "1,000", "1_000", "5 %", "101%", "100.1%", "-5%", ".5%", "5.%", "1%%",
     "inf%", "nan%", "all", "٣", "٣%", "1\n2", "9" * 19, "0x10"],
)  # fmt: skip
def test_anything_else_is_refused_by_name(text):
    with pytest.raises(ConfigurationError, match="--max-delete .* must be a number of objects") as raised:
        parse_max_delete(text)
    assert repr(text) in str(raised.value)


@given(st.text(max_size=8))
def test_no_text_is_an_error_of_another_kind(text):
    try:
        limit = parse_max_delete(text)
    except ConfigurationError:
        return
    assert (limit.objects is None) != (limit.percent is None)
