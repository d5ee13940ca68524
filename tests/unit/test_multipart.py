"""Properties of the arithmetic of parts."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.model import GiB, MiB
from replicator.multipart import (
    MAX_PART,
    MAX_PARTS,
    MIN_PART,
    USUAL_PART_SIZES,
    Part,
    PartsProof,
    acceptable,
    composite_etag,
    default_layout,
    from_sizes,
    guess_layout,
    is_md5,
    judge_parts,
    layout_from_first,
    parts_of,
    promised_md5,
    uniform,
)

MD5 = st.binary(max_size=9).map(lambda data: hashlib.md5(data).hexdigest())


def tiles(layout, size):
    """Whether the parts are numbered from 1 and cover every byte exactly once, in order."""
    expected = 0
    for number, part in enumerate(layout, start=1):
        if (part.number, part.offset) != (number, expected) or part.size <= 0 or part.last != expected + part.size - 1:
            return False
        expected += part.size
    return expected == size


@given(st.integers(1, 10**6), st.integers(1, 10**6), st.data())
def test_uniform_parts_tile_the_object_exactly(part_size, count, data):
    count = min(count, 300)
    size = data.draw(st.integers((count - 1) * part_size + 1, count * part_size))
    layout = uniform(size, part_size)
    assert tiles(layout, size)
    assert len(layout) == count
    assert all(part.size == part_size for part in layout[:-1])


@pytest.mark.parametrize(("size", "part_size"), [(0, 5), (5, 0), (-1, 5), (5, -1)])
def test_nothing_cannot_be_cut(size, part_size):
    with pytest.raises(ValueError, match="cannot cut"):
        uniform(size, part_size)


@given(st.lists(st.integers(1, 10**10), max_size=50))
def test_parts_of_given_sizes_tile_their_sum(sizes):
    layout = from_sizes(sizes)
    assert tiles(layout, sum(sizes))
    assert [part.size for part in layout] == sizes


@given(st.integers(0, 10**9), st.integers(1, 200), st.integers(0, 10**9))
def test_a_layout_from_its_first_part_fits_or_is_none(size, count, first):
    layout = layout_from_first(size, count, first)
    possible = size > 0 and first > 0 and (count - 1) * first < size <= count * first
    assert (layout is not None) is possible
    if layout is not None:
        assert tiles(layout, size)
        assert len(layout) == count
        assert layout[0].size == min(first, size)


@given(st.integers(-1, 200 * GiB), st.integers(1, 2000))
def test_a_guessed_layout_has_as_many_parts_as_the_etag_says(size, count):
    layout = guess_layout(size, count)
    if layout is not None:
        assert len(layout) == count
        assert tiles(layout, size)


@given(st.integers(1, 3000), st.integers(1, 60))
def test_a_layout_is_guessed_whenever_there_is_a_uniform_one(size, count):
    possible = any(-(-size // part) == count for part in range(1, size + 1))
    assert (guess_layout(size, count) is not None) is possible


@given(st.sampled_from(USUAL_PART_SIZES), st.integers(4, 120), st.data())
def test_a_usual_part_size_is_found_again_unless_a_more_usual_one_fits(part_size, count, data):
    size = data.draw(st.integers((count - 1) * part_size + 1, count * part_size))
    fitting = [usual for usual in USUAL_PART_SIZES if -(-size // usual) == count]
    layout = guess_layout(size, count)
    assert layout == uniform(size, fitting[0])
    assert part_size in fitting


@pytest.mark.parametrize("megabytes", [8, 16, 5, 64])
@pytest.mark.parametrize("count", [4, 5, 17, 1000])
def test_the_most_usual_part_sizes_are_always_found_again(megabytes, count):
    for size in ((count - 1) * megabytes * MiB + 1, count * megabytes * MiB):
        assert guess_layout(size, count) == uniform(size, megabytes * MiB)


def test_an_unusual_size_in_whole_megabytes_is_guessed():
    assert guess_layout(7 * 37 * MiB, 7) == uniform(7 * 37 * MiB, 37 * MiB)


@given(st.integers(1, (5 * 1024 * GiB)), st.integers(1, 2 * GiB))
def test_a_layout_of_our_own_is_always_acceptable(size, part_size):
    layout = default_layout(size, part_size)
    assert acceptable(layout)
    assert sum(part.size for part in layout) == size


def test_a_layout_of_our_own_keeps_the_part_size_asked_for_where_it_can():
    assert default_layout(MAX_PARTS * 16 * MiB, 16 * MiB)[0].size == 16 * MiB
    assert default_layout(MAX_PARTS * 16 * MiB + 1, 16 * MiB)[0].size == 17 * MiB


REFUSED = {
    "no part": (),
    "a small part that is not the last": from_sizes([MIN_PART, MIN_PART - 1, MIN_PART]),
    "a part over 5 GiB": from_sizes([MAX_PART + 1]),
    "too many parts": from_sizes([MIN_PART] * (MAX_PARTS + 1)),
}


@pytest.mark.parametrize("layout", REFUSED.values(), ids=REFUSED.keys())
def test_what_s3_would_refuse_is_not_acceptable(layout):
    assert not acceptable(layout)


@pytest.mark.parametrize("sizes", [[1], [MIN_PART, 1], [MAX_PART, MAX_PART], [MIN_PART] * MAX_PARTS])
def test_the_limits_themselves_are_acceptable(sizes):
    assert acceptable(from_sizes(sizes))


@given(st.binary(min_size=1, max_size=200), st.integers(1, 50))
def test_a_composite_etag_is_the_md5_of_the_parts_md5s(data, part_size):
    cuts = [data[n : n + part_size] for n in range(0, len(data), part_size)]
    digests = [hashlib.md5(cut) for cut in cuts]
    expected = hashlib.md5(b"".join(digest.digest() for digest in digests)).hexdigest() + f"-{len(cuts)}"
    etag = composite_etag([digest.hexdigest() for digest in digests])
    assert etag == expected
    assert parts_of(etag) == len(cuts)


def test_a_composite_etag_of_known_parts():
    """5 MiB and 1 MiB of zeros; md5sum and xxd say the same."""
    assert (
        composite_etag(["5f363e0e58a95f06cbe9bbc662c5dfb6", "b6d81b360a5672d80c27430f39153e2c"])
        == "b7992ce8540773fdfcab72bd0e8c4c64-2"
    )


@given(st.lists(MD5, max_size=4), st.sampled_from(["", "x", "0" * 31, "0" * 33, "g" * 32, "0" * 32 + "-1"]), st.data())
def test_there_is_no_composite_etag_of_what_is_no_md5(etags, junk, data):
    etags.insert(data.draw(st.integers(0, len(etags))), junk)
    assert composite_etag(etags) is None


def test_there_is_no_composite_etag_of_no_parts():
    assert composite_etag([]) is None


@given(st.text())
def test_junk_is_understood_or_refused_but_never_raises(text):
    assert parts_of(text) is None or len(text) >= 34
    assert not is_md5(text) or len(bytes.fromhex(text)) == 16
    assert (promised_md5(text) is None) is not is_md5(text)


@given(MD5, st.integers(1, MAX_PARTS))
def test_the_number_of_parts_is_read_from_an_etag(digest, count):
    assert parts_of(f"{digest}-{count}") == count


HASH = "0" * 32


@pytest.mark.parametrize(
    "etag",
    [HASH, "", "-", "-1", f"{HASH}-", f"{HASH}-0", f"{HASH}-10001", f"{HASH}--1", f"{HASH}-1.5", f"{HASH}-+1"]
    + [f"{HASH}- 1", f"{HASH}-1 ", f"{HASH}-٣", f"{HASH}-²", f"{HASH}-1_0", f"{HASH[1:]}-1", f"{HASH}0-1", "v1-7"],
)
def test_any_other_etag_announces_no_parts(etag):
    assert parts_of(etag) is None


@pytest.mark.parametrize("etag", ["", "0" * 31, "0" * 33, "g" * 32, "٣" * 32, "０" * 32, " " * 32, "0x" + "0" * 30])
def test_any_other_etag_is_no_md5(etag):
    assert not is_md5(etag)
    assert promised_md5(etag) is None


def test_an_md5_in_capitals_is_one():
    assert promised_md5("AB" * 16) == b"\xab" * 16


def test_the_last_byte_of_a_part_is_included():
    assert Part(2, 10, 5).last == 14


ONE, TWO, OTHER = (hashlib.md5(text).digest() for text in (b"one", b"two", b"other"))
WHOLE = composite_etag([ONE.hex(), TWO.hex()])


@pytest.mark.parametrize(
    ("stored", "digests", "source", "proof"),
    [
        pytest.param([ONE, TWO], None, WHOLE, PartsProof.EQUAL, id="stored parts make the ETag"),
        pytest.param([ONE, TWO], [OTHER, OTHER], WHOLE, PartsProof.EQUAL, id="whatever the digests say"),
        pytest.param([ONE, OTHER], None, WHOLE, PartsProof.CORRUPTED, id="they do not, and no digests are known"),
        pytest.param([ONE, OTHER], [ONE, TWO], WHOLE, PartsProof.CORRUPTED, id="one part was stored wrong"),
        pytest.param([OTHER, OTHER], [ONE, TWO], WHOLE, PartsProof.DIGESTS, id="all differ: ETags of its own"),
        pytest.param([ONE, OTHER], [ONE, OTHER], WHOLE, PartsProof.READ_AGAIN, id="digests do not make it either"),
        pytest.param([TWO, ONE], [OTHER, OTHER], WHOLE, PartsProof.READ_AGAIN, id="neither, with ETags of its own"),
    ],
)
def test_parts_prove(stored, digests, source, proof):
    assert judge_parts([etag.hex() for etag in stored], digests, source) is proof
