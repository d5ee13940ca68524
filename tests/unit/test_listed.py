"""Pages as columns give the same entries as entries, and a glance at two pages never says more than a look at each."""

from __future__ import annotations

import math
from bisect import bisect_right
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicator.compare import CLOCK_MARGIN, listed_in_sync, pages_in_sync
from replicator.errors import UntrustworthyListing
from replicator.listed import ListedPage, keys_of, timestamp
from replicator.model import Listed

START = datetime(2026, 11, 20, 23, 59, 50, tzinfo=UTC)
EPOCH = START.timestamp()


def text_of(millis):
    moment = START + timedelta(milliseconds=millis)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z"


def page_of(rows):
    """rows: (key, milliseconds, etag, size)."""
    keys, millis, etags, sizes = zip(*rows, strict=True) if rows else ((), (), (), ())
    return ListedPage(list(keys), [text_of(n) for n in millis], etags, [str(n) for n in sizes], [""] * len(keys))


ETAGS = st.sampled_from(["a" * 32, "b" * 32, "c-2"])
# Pages of which the smallest change makes them unequal, and whose times lie around the margin.
ROWS = st.lists(
    st.tuples(st.sampled_from("abcdefgh"), ETAGS, st.integers(0, 3)), max_size=6, unique_by=lambda row: row[0]
)


@st.composite
def two_pages(draw):
    rows = sorted(draw(ROWS))
    times = st.integers(0, 30_000) | st.sampled_from([0, 1999, 2000, 2001, 10_000])
    source = [(key, draw(times), etag, size) for key, etag, size in rows]
    later = draw(st.sampled_from([0, 0, 30_000, 40_000]))
    target = [(key, later + draw(times), etag, size) for key, etag, size in rows]
    change = draw(st.sampled_from(["no", "no", "no", "etag", "size", "key", "missing", "extra", "no etag"]))
    if rows and change != "no":
        n = draw(st.integers(0, len(rows) - 1))
        key, millis, etag, size = target[n]
        other = {"etag": (key, millis, "d" * 32, size), "size": (key, millis, etag, size + 1)}
        if change in other:
            target[n] = other[change]
        elif change == "key":
            target[n] = (key + "x", millis, etag, size)
        elif change == "missing":
            del target[n]
        elif change == "extra":
            target.insert(n + 1, (key + "x", millis, etag, size))
        else:
            source[n] = (source[n][0], source[n][1], "", size)
            target[n] = (key, millis, "", size)
    skew = draw(st.sampled_from([0.0, 2.0, -2.0, 100.0, -100.0]) | st.floats(-30, 30))
    since = draw(st.none() | st.sampled_from([EPOCH, EPOCH + 2, EPOCH + 100]) | st.floats(EPOCH, EPOCH + 60))
    return source, target, skew, since


def one_by_one(source, target, skew, since):
    """What a look at each pair says, in the words of listed_in_sync alone."""
    entries, others = list(source), {entry.key: entry for entry in target}
    return others.keys() == {entry.key for entry in entries} and all(
        listed_in_sync(entry, others[entry.key], skew, since) for entry in entries
    )


@settings(max_examples=1000)
@given(two_pages())
def test_pages_in_sync_at_a_glance_are_so_entry_by_entry(drawn):
    rows, others, skew, since = drawn
    source, target = page_of(rows), page_of(others)
    if pages_in_sync(source, target, skew, since):
        assert one_by_one(source, target, skew, since)


@settings(max_examples=1000)
@given(two_pages())
def test_a_glance_is_enough_where_each_side_was_written_at_one_time(drawn):
    """Then nothing is lost by it: it says just what all pairs say."""
    rows, others, skew, since = drawn
    source = page_of([(key, rows[0][1], etag, size) for key, _, etag, size in rows])
    target = page_of([(key, others[0][1], etag, size) for key, _, etag, size in others])
    assert pages_in_sync(source, target, skew, since) == one_by_one(source, target, skew, since)


@settings(max_examples=1000)
@given(two_pages())
def test_a_glance_says_what_the_youngest_and_the_oldest_say(drawn):
    rows, others, skew, since = drawn
    source, target = page_of(rows), page_of(others)
    same = [(row[0], *row[2:]) for row in rows] == [(row[0], *row[2:]) for row in others] and all(
        row[2] for row in rows
    )
    worst = same
    if same and rows:
        newest = max(source, key=lambda entry: entry.modified)
        oldest = min(target, key=lambda entry: entry.modified)
        pair = Listed("k", 1, "e", newest.modified), Listed("k", 1, "e", oldest.modified)
        worst = listed_in_sync(*pair, skew, since)
    assert pages_in_sync(source, target, skew, since) == worst


def test_a_glance_does_not_suffice_for_pages_that_are_no_columns():
    entry = Listed("k", 1, "e", EPOCH)
    assert not pages_in_sync([entry], [entry._replace(modified=EPOCH + 99)], 0.0, None)
    assert not pages_in_sync(page_of([("k", 0, "e", 1)]), [entry._replace(modified=EPOCH + 99)], 0.0, None)


@pytest.mark.parametrize(("later", "expected"), [(2000, False), (2001, True)])
def test_a_copy_has_to_be_younger_by_more_than_the_margin(later, expected):
    assert CLOCK_MARGIN == 2.0
    assert pages_in_sync(page_of([("k", 0, "e", 1)]), page_of([("k", later, "e", 1)]), 0.0, None) is expected


# Entries


@given(st.lists(st.tuples(st.text(max_size=3), st.integers(-(10**9), 10**9), ETAGS, st.integers(0, 2**60)), max_size=8))
def test_a_page_gives_the_entries_it_is_made_of(rows):
    page = page_of(rows)
    entries = [Listed(key, size, etag, EPOCH + millis / 1000) for key, millis, etag, size in rows]
    assert len(page) == len(entries)
    for found in (list(page), [page[n] for n in range(len(page))], [page[n - len(page)] for n in range(len(page))]):
        assert [entry._replace(modified=0) for entry in found] == [entry._replace(modified=0) for entry in entries]
        assert all(
            math.isclose(one.modified, other.modified, abs_tol=1e-6, rel_tol=0)
            for one, other in zip(found, entries, strict=True)
        )
    assert list(keys_of(page)) == [entry.key for entry in entries] == list(keys_of(entries))


@given(st.lists(st.text(max_size=3), unique=True, max_size=8), st.integers(-9, 9), st.integers(-9, 9))
def test_a_part_of_a_page_is_a_page(keys, low, high):
    page = page_of([(key, n, "e", n) for n, key in enumerate(sorted(keys))])
    part = page[low:high]
    assert isinstance(part, ListedPage)
    assert list(part) == list(page)[low:high]
    cut = bisect_right(keys_of(page), "m")
    assert [*page[:cut], *page[cut:]] == list(page)


def test_beyond_a_page_is_nothing():
    with pytest.raises(IndexError):
        page_of([("k", 0, "e", 1)])[1]


@given(st.lists(st.integers(0, 10**8), min_size=1, max_size=6))
def test_the_newest_and_the_oldest_are_those_of_the_entries(millis):
    page = page_of([(str(n), at, "e", 1) for n, at in enumerate(millis)])
    assert page.newest == max(entry.modified for entry in page)
    assert page.oldest == min(entry.modified for entry in page)


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        ("", ""),
        ("<StorageClass>GLACIER</StorageClass>", "GLACIER"),
        ("<Owner><ID>x</ID></Owner><StorageClass>STANDARD</StorageClass>", "STANDARD"),
        ("<StorageClass></StorageClass>", ""),
        ("<StorageClass/>", ""),
    ],
)
def test_the_storage_class_is_found_in_the_rest(rest, expected):
    page = ListedPage(["k"], [text_of(0)], ["e"], ["1"], [rest])
    assert (page[0].storage_class, next(iter(page)).storage_class) == (expected, expected)


# Times


@given(st.datetimes(datetime(1970, 1, 2), datetime(9999, 12, 30)))  # noqa: DTZ001 - as UTC below
def test_a_time_is_read_as_the_library_reads_it(moment):
    text = f"{moment.isoformat(timespec='milliseconds')}Z"
    assert math.isclose(timestamp(text), datetime.fromisoformat(text).timestamp(), rel_tol=0, abs_tol=1e-3 / 2)


@pytest.mark.parametrize(
    ("text", "millis"),
    [
        ("2026-11-20T23:59:59.999Z", 9999),
        ("2026-11-20T23:59:59Z", 9000),
        ("2026-11-21T00:59:59.500+01:00", 9500),
        ("2026-11-20T23:59:59.123456Z", 9123),
    ],
)
def test_times_of_other_forms_are_read_too(text, millis):
    assert timestamp(text) == pytest.approx(EPOCH + millis / 1000, abs=0.001)


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2026-13-20T23:59:59.999Z", "2026-11-20T23:60:59.999Z", "2026-11-20T23:59:61.999Z"]
)
def test_what_is_no_time_is_an_error_of_the_listing(text):
    with pytest.raises(ValueError, match="."):
        timestamp(text)
    page = ListedPage(["k"], [text], ["e"], ["1"], [""])
    for read in (lambda: page[0], lambda: list(page), lambda: page.newest, lambda: page.oldest):
        with pytest.raises(UntrustworthyListing, match="has the time"):
            read()
