"""Merging listings gives what a dict would give, whatever the pages."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.diff import Row, merge_pages, merge_sorted
from replicator.errors import UntrustworthyListing
from replicator.model import Listed

KEYS = st.sampled_from(["", "a", "a-b", "a/", "a/b", "ä", "b", "b\x00", "\uffff", "😀", "z"]) | st.text(max_size=3)


@st.composite
def sides(draw):
    """One sorted listing, cut into pages; some of them empty."""
    keys = sorted(draw(st.sets(KEYS, max_size=12)))
    entries = [Listed(key, draw(st.integers(0, 3)), "etag", 0.0) for key in keys]
    pages, rest = [], entries
    while rest:
        cut = draw(st.integers(0, len(rest)))
        pages.append(rest[:cut])
        rest = rest[cut:]
    return pages + [[]] * draw(st.integers(0, 2))


async def paged(pages, *, error=None):
    for page in pages:
        await asyncio.sleep(0)
        yield list(page)
    if error is not None:
        raise error


def flat(pages):
    return [entry for page in pages for entry in page]


def reference(source, targets):
    """The straightforward merge: everything in dicts."""
    by_key = [{entry.key: entry for entry in flat(side)} for side in (source, *targets)]
    keys = sorted(set().union(*by_key))
    return [Row(key, by_key[0].get(key), tuple(side.get(key) for side in by_key[1:])) for key in keys]


async def rows_of(source, targets):
    return [row async for rows in merge_pages(source, targets) for row in rows]


@given(sides(), st.lists(sides(), max_size=3))
def test_pages_merge_as_dicts_do(source, targets):
    rows = asyncio.run(rows_of(paged(source), [paged(target) for target in targets]))
    assert rows == reference(source, targets)


@given(sides(), st.lists(sides(), max_size=3))
def test_every_key_comes_once_and_in_order(source, targets):
    keys = [row.key for row in asyncio.run(rows_of(paged(source), [paged(target) for target in targets]))]
    assert keys == sorted(set(keys))


@given(sides(), st.lists(sides(), max_size=3))
def test_sorted_lists_merge_as_dicts_do(source, targets):
    assert merge_sorted(flat(source), [flat(target) for target in targets]) == reference(source, targets)


@given(st.lists(sides(), min_size=1, max_size=4), st.data())
def test_a_listing_that_fails_never_looks_like_one_that_ended(listings, data):
    failing = data.draw(st.integers(0, len(listings) - 1))
    doubt = UntrustworthyListing("ListObjectsV2", "bucket", "made to fail")
    source, *targets = (
        paged(pages, error=doubt if number == failing else None) for number, pages in enumerate(listings)
    )
    seen = []

    async def merge():
        async for rows in merge_pages(source, targets):
            seen.extend(rows)

    with pytest.raises(UntrustworthyListing) as raised:
        asyncio.run(merge())
    assert raised.value is doubt
    whole = reference(listings[0], listings[1:])
    assert seen == whole[: len(seen)]


async def test_rows_come_before_the_listings_are_read_to_their_ends():
    read = []

    async def counting():
        for number in range(1000):
            read.append(number)
            yield [Listed(f"{number:04}", 0, "", 0.0)]

    merged = merge_pages(counting(), [])
    assert await anext(merged) == [Row("0000", Listed("0000", 0, "", 0.0), ())]
    assert len(read) == 1
    await merged.aclose()


async def test_one_page_of_each_side_is_held_even_if_one_runs_ahead():
    held = []

    async def ahead():
        for number in range(100):
            held.append(number)
            yield [Listed(f"z{number:04}", 0, "", 0.0)]

    merged = merge_pages(paged([[Listed(f"a{number:04}", 0, "", 0.0)] for number in range(50)]), [ahead()])
    for _ in range(50):
        assert all(row.targets == (None,) for row in await anext(merged))
    assert held == [0]
    await merged.aclose()


async def test_nothing_merges_to_nothing():
    assert await rows_of(paged([]), [paged([]), paged([[]])]) == []
