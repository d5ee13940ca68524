"""The keys that a run is about: all sides' listings, read ahead, merged and filtered."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from replicator.bulk.prefetch import prefetch
from replicator.diff import Row, merge_pages
from replicator.filters import KeyFilter
from replicator.store import ObjectStore, SourceStore


async def included_rows(source: SourceStore, targets: Sequence[ObjectStore], keys: KeyFilter) -> AsyncIterator[Row]:
    """One row for every included key that any side lists, in order. Raises the StoreError of a listing that failed."""
    sides = [prefetch(store.list_pages()) for store in (source, *targets)]
    async for rows in merge_pages(sides[0], sides[1:]):
        for row in keys.of(rows):
            yield row
