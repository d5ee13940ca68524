"""Merges sorted listings into rows, in constant memory. Pure: it is given pages and gives pages.

Keys are compared as Python compares str, by code point, which is the same order as that of their UTF-8 bytes and so
the order that S3 promises ("a-b" before "a/b").
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import AsyncIterator, Sequence
from itertools import repeat
from typing import NamedTuple

from replicator.listed import keys_of
from replicator.model import Listed


class Row(NamedTuple):
    """One key with what each side lists for it: None where a side does not list it; at least one does."""

    key: str
    source: Listed | None
    targets: tuple[Listed | None, ...]


def merge_sorted(source: Sequence[Listed], targets: Sequence[Sequence[Listed]]) -> list[Row]:
    """One row for every key of any side, in ascending order.

    | source lists it | a target lists it | gives                       |
    |-----------------|-------------------|-----------------------------|
    | yes             | yes               | Row(key, entry, (entry,))   |
    | yes             | no                | Row(key, entry, (None,))    |
    | no              | yes               | Row(key, None, (entry,))    |
    """
    keys = list(keys_of(source))
    if all(keys == list(keys_of(side)) for side in targets):  # most often: quicker by half
        return list(map(Row, keys, source, zip(*targets, strict=True) if targets else repeat(())))
    nowhere = (None,) * len(targets)
    rows = {entry.key: Row(entry.key, entry, nowhere) for entry in source}
    for index, side in enumerate(targets):
        for entry in side:
            known = rows.get(entry.key)
            there = known.targets if known else nowhere
            there = (*there[:index], entry, *there[index + 1 :])
            rows[entry.key] = Row(entry.key, known.source if known else None, there)
    return [row for _, row in sorted(rows.items())]


class _Side:
    """One paged listing: the page at hand and whether more may follow."""

    __slots__ = ("open", "page", "pages")

    def __init__(self, pages: AsyncIterator[Sequence[Listed]]) -> None:
        self.pages = pages
        self.page: Sequence[Listed] = ()
        self.open = True

    async def fill(self) -> None:
        while self.open and not self.page:
            page = await anext(self.pages, None)
            self.open = page is not None
            self.page = page or ()

    def take(self, bound: str) -> Sequence[Listed]:
        """Removes and returns the entries with keys up to and including `bound`."""
        cut = bisect_right(keys_of(self.page), bound)
        if cut == len(self.page):
            taken, self.page = self.page, ()
        else:
            taken, self.page = self.page[:cut], self.page[cut:]
        return taken


class Stretch(NamedTuple):
    """All that the sides list after the stretch before, up to and including the key `through`."""

    through: str
    source: Sequence[Listed]
    targets: Sequence[Sequence[Listed]]

    def upto(self, key: str) -> Stretch:
        """The part of it up to and including `key`."""
        sides = [side[: bisect_right(keys_of(side), key)] for side in (self.source, *self.targets)]
        return Stretch(key, sides[0], sides[1:])


async def align_pages(
    source: AsyncIterator[Sequence[Listed]], targets: Sequence[AsyncIterator[Sequence[Listed]]]
) -> AsyncIterator[Stretch]:
    """Cuts paged listings, each strictly sorted by key, at the same keys; holds at most one page of each side.

    Raises whatever the listings raise: a listing that fails never looks like one that ended.
    """
    sides = [_Side(source), *(_Side(target) for target in targets)]
    while True:
        for side in sides:
            await side.fill()
        pages = [side.page for side in sides if side.page]
        if not pages:
            return
        # All sides are known up to the smallest of the last keys at hand; a side that has ended is known for ever.
        bound = min(keys_of(page)[-1] for page in pages)
        taken = [side.take(bound) for side in sides]
        yield Stretch(bound, taken[0], taken[1:])


async def merge_pages(
    source: AsyncIterator[Sequence[Listed]], targets: Sequence[AsyncIterator[Sequence[Listed]]]
) -> AsyncIterator[list[Row]]:
    """The rows of paged listings, as align_pages cuts them."""
    async for stretch in align_pages(source, targets):
        yield merge_sorted(stretch.source, stretch.targets)
