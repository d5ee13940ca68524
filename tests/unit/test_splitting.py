"""Where a range is cut: at a key that is there, strictly inside, with few requests, whatever the keys look like."""

from __future__ import annotations

import asyncio
from bisect import bisect_right

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from replicator.bulk.splitting import LONGEST, MOST_BRANCHES, find_split, honours_start
from replicator.errors import AccessDenied, Transient, UntrustworthyListing
from tests.fakes.memory import Bucket, MemoryStore

MOST_REQUESTS = 60


def store_of(keys):
    bucket = Bucket()
    for key in keys:
        bucket.write(key, b"")
    return MemoryStore(bucket)


def rest_of(keys, after, upto):
    return sorted(key for key in keys if key > after and (upto is None or key < upto))


async def split(keys, after, upto=None):
    """A split and how many keys come before and after it; checks what holds for every one."""
    store = store_of(keys)
    at = await find_split(store, after, upto)
    assert len(store.calls) < MOST_REQUESTS
    rest = rest_of(keys, after, upto)
    if at is None:
        return None, len(rest), 0
    assert at in keys, "a key that no store has to understand"
    assert after < at
    assert upto is None or at < upto
    before = bisect_right(rest, at)
    return at, before, len(rest) - before


FLAT = [f"{n:05}" for n in range(3000)]
DEEP = [f"a/b/c/d/{n % 10}/{n % 7}/{n:05}/e/f/g/{n}" for n in range(3000)]
COMMON = [f"one/very/long/prefix/that/all/of/them/share/{n:05}" for n in range(3000)]
UNICODE = [f"日本/{chr(0x3041 + n % 60)}/é\U0001f600{n:04}" for n in range(3000)]
HASHED = [f"{n * 2654435761 % (1 << 32):08x}" for n in range(3000)]
DATES = [f"logs/2026/{n // 300 + 1:02}/{n // 10 % 30 + 1:02}/{n:05}.gz" for n in range(3000)]
SHAPES = {
    "flat": FLAT,
    "deep": DEEP,
    "one common prefix": COMMON,
    "unicode": UNICODE,
    "hashed": HASHED,
    "by date": DATES,
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("listed", [1, 10])
async def test_what_is_left_is_cut_into_two_parts_worth_having(shape, listed):
    keys = sorted(set(SHAPES[shape]))
    _, before, behind = await split(keys, keys[listed - 1])
    assert min(before, behind) >= len(keys) / 20


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("listed", [1000, 2000, 2900])
async def test_what_is_left_of_a_range_is_cut_too(shape, listed):
    keys = sorted(set(SHAPES[shape]))
    at, _, _ = await split(keys, keys[listed - 1])
    assert at is not None


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_range_with_an_end_is_cut_before_it(shape):
    keys = sorted(set(SHAPES[shape]))
    _, before, behind = await split(keys, keys[100], keys[1500])
    assert min(before, behind) >= 1


async def test_repeated_cuts_make_small_pieces_of_a_large_range():
    """As a run does: the longest piece is cut after a page of it was listed."""
    keys = sorted(DATES)
    pieces = [(0, len(keys))]
    for _ in range(24):
        longest = max(pieces, key=lambda piece: piece[1] - piece[0])
        low, high = longest
        upto = keys[high - 1] if high < len(keys) else None
        at, _, _ = await split(keys, keys[low + 20], upto)
        assert at is not None
        cut = keys.index(at) + 1
        pieces.remove(longest)
        pieces += [(low, cut), (cut, high)]
    assert max(high - low for low, high in pieces) <= len(keys) / 8


async def test_at_the_beginning_of_a_range_nothing_is_known_and_nothing_cut():
    assert await split(FLAT, "") == (None, len(FLAT), 0)


@pytest.mark.parametrize(
    ("keys", "after", "upto"),
    [
        ([], "a", None),
        (["a"], "a", None),
        (["a", "b"], "b", None),
        (["a", "b"], "a", "b"),
        (["a", "b", "c"], "a", "b"),
        (["a", "ab", "abc", "abcd"], "abcd", None),
        (FLAT, FLAT[-1], None),
        (FLAT, "\U0010fffd", None),
        (FLAT, FLAT[7], FLAT[8]),
    ],
)
async def test_where_nothing_is_left_nothing_is_cut(keys, after, upto):
    assert await split(keys, after, upto) == (None, 0, 0)


async def test_one_key_that_is_left_is_cut_off_or_not_but_nothing_else_happens():
    at, _, _ = await split(["a/1", "a/2", "b"], "a/2")
    assert at in (None, "b")


async def test_keys_that_are_the_beginning_of_others_are_cut_where_they_branch():
    keys = sorted([f"{'x' * n}" for n in range(1, 40)] + [f"{'x' * n}y" for n in range(1, 40)])
    at, before, _ = await split(keys, "x" * 20)
    assert at is not None
    assert before > 1


@pytest.mark.parametrize("suffix", ["", "/", "/z"])
async def test_a_key_like_a_directory_does_not_hide_what_is_beside_it(suffix):
    keys = sorted(["dir" + suffix, *[f"dir/{n:03}" for n in range(100)], *[f"other {n:03}" for n in range(100)]])
    at, before, behind = await split(keys, "dir" + suffix)
    assert at is not None
    assert at > "dir/099"


@pytest.mark.parametrize("heavy", ["a", "m", "z"])
async def test_skewed_keys_are_cut_somewhere_and_the_heavy_part_again_later(heavy):
    keys = sorted([f"{letter}/1" for letter in "abcdefghijklmnopqrstuvwxyz"] + [f"{heavy}/{n:05}" for n in range(2000)])
    after, upto = keys[0], None
    sizes = []
    for _ in range(12):
        at, before, behind = await split(keys, after, upto)
        if at is None:
            break
        sizes.append(max(before, behind))
        if before >= behind:  # go on where there is more, after a page was listed there
            upto = at
            after = rest_of(keys, after, upto)[min(10, before - 2)]
        else:
            after = rest_of(keys, at, upto)[min(10, behind - 1)]
    assert sizes[-1] < 1000


@pytest.mark.parametrize("last", ["\U0010ffff", "\U0010fffe", "\U0010fffd", "\uffff"])
async def test_keys_with_the_last_characters_there_are_do_not_lead_astray(last):
    keys = sorted([f"a{last}{n}" for n in range(10)] + [f"{last}{n}" for n in range(10)] + ["b", "c", last, last * 3])
    for after in keys:
        for upto in (None, keys[-1], keys[-5]):
            await split(keys, after, upto)


async def test_more_branches_than_are_looked_at_do_not_cost_more_requests():
    keys = sorted(f"p/{chr(0x4E00 + n)}/{m}" for n in range(500) for m in range(3))
    _, before, behind = await split(keys, keys[0])
    assert before > MOST_BRANCHES
    assert behind > before


@pytest.mark.parametrize("length", [LONGEST - 5, LONGEST, 1019, 1024])
async def test_very_long_keys_are_neither_an_error_nor_a_start_that_is_too_long(length):
    keys = sorted(f"{n:04}" + "x" * (length - 4) for n in range(200))
    store = store_of(keys)
    started = []
    begin = store.list_pages

    def list_pages(*, after="", page_size=3):
        started.append(after)
        return begin(after=after, page_size=page_size)

    store.list_pages = list_pages
    await find_split(store, keys[3], None)
    assert all(len(after.encode()) <= LONGEST for after in started)


async def test_long_keys_that_branch_early_are_cut():
    keys = sorted(f"{n:04}" + "x" * 1020 for n in range(200))
    at, before, behind = await split(keys, keys[3])
    assert at is not None
    assert min(before, behind) >= 10


async def test_long_keys_that_branch_late_take_few_requests():
    keys = sorted("x" * 900 + f"{n:04}" for n in range(200))
    _, before, behind = await split(keys, keys[3])
    assert min(before, behind) >= 10


@pytest.mark.parametrize("error", [Transient, AccessDenied])
async def test_errors_of_the_store_are_passed_on(error):
    async def step(operation, key):
        raise error(operation, key, "no")

    with pytest.raises(error):
        await find_split(MemoryStore(step=step), "a", None)


TEXT = st.text("ab/é\U0001f600\U0010fffd\U0010fffe\U0010ffff", min_size=1, max_size=5)


@settings(max_examples=600)
@given(st.sets(TEXT, max_size=60), TEXT, st.none() | TEXT)
@example({"a\U0010ffff1", "a\U0010ffff5", "a\U0010ffff9"}, "a\U0010ffff5", None)
def test_a_split_is_a_key_strictly_inside_whatever_the_keys(keys, after, upto):
    asyncio.run(split(keys, after, upto))


@settings(max_examples=300)
@given(st.sets(st.text("abc/", min_size=1, max_size=6), min_size=2, max_size=60), st.data())
def test_where_two_keys_branch_beyond_a_listed_one_there_is_a_split(keys, data):
    ordered = sorted(keys)
    after = data.draw(st.sampled_from(ordered))
    beyond = [key for key in ordered if key > after and not key.startswith(after)]
    at, _, _ = asyncio.run(split(keys, after))
    assert (at is not None) == bool(beyond)


# Whether a store can begin in the middle


async def test_a_store_that_lists_from_a_key_honours_it_though_nothing_is_there():
    assert await honours_start(store_of(FLAT), "00500")
    assert await honours_start(store_of([]), "00500")


async def test_a_store_that_refuses_to_begin_in_the_middle_does_not():
    async def step(operation, key):
        raise UntrustworthyListing(operation, key, "begins with what was to be skipped")

    assert not await honours_start(MemoryStore(step=step), "a")


async def test_asking_whether_a_start_is_honoured_takes_one_request():
    store = store_of(FLAT)
    await honours_start(store, "00500")
    assert len(store.calls) == 1
