"""Merges sorted listings into rows, in constant memory. Pure: it is given pages and gives pages.

Keys are compared as Python compares str, by code point, which is the same order as that of their UTF-8 bytes and so
the order that S3 promises ("a-b" before "a/b").
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import AsyncIterator, Sequence
from itertools import repeat
from typing import NamedTuple

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
    keys = [entry.key for entry in source]
    if all(keys == [entry.key for entry in side] for side in targets):  # most often: quicker by half
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

    def __init__(self, pages: AsyncIterator[list[Listed]]) -> None:
        self.pages = pages
        self.page: list[Listed] = []
        self.open = True

    async def fill(self) -> None:
        while self.open and not self.page:
            page = await anext(self.pages, None)
            self.open = page is not None
            self.page = page or []

    def take(self, bound: str) -> list[Listed]:
        """Removes and returns the entries with keys up to and including `bound`."""
        if self.page and self.page[-1].key <= bound:
            taken, self.page = self.page, []
            return taken
        cut = bisect_right(self.page, bound, key=_key)
        taken, self.page = self.page[:cut], self.page[cut:]
        return taken


def _key(entry: Listed) -> str:
    return entry.key


class Stretch(NamedTuple):
    """All that the sides list after the stretch before, up to and including the key `through`."""

    through: str
    source: list[Listed]
    targets: list[list[Listed]]

    def upto(self, key: str) -> Stretch:
        """The part of it up to and including `key`."""
        sides = [side[: bisect_right(side, key, key=_key)] for side in (self.source, *self.targets)]
        return Stretch(key, sides[0], sides[1:])


async def align_pages(
    source: AsyncIterator[list[Listed]], targets: Sequence[AsyncIterator[list[Listed]]]
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
        bound = min(page[-1].key for page in pages)
        taken = [side.take(bound) for side in sides]
        yield Stretch(bound, taken[0], taken[1:])


async def merge_pages(
    source: AsyncIterator[list[Listed]], targets: Sequence[AsyncIterator[list[Listed]]]
) -> AsyncIterator[list[Row]]:
    """The rows of paged listings, as align_pages cuts them."""
    async for stretch in align_pages(source, targets):
        yield merge_sorted(stretch.source, stretch.targets)
