"""Cuts all keys of a source into ranges, to begin with: each cuts itself further where it turns out to be long."""

from __future__ import annotations

from collections import deque

from replicator.bulk.splitting import find_split
from replicator.bulk.tasks import Range
from replicator.store import SourceStore


async def cut_ranges(source: SourceStore, most: int) -> list[Range]:
    """Up to `most` ranges that are all keys together, in order. Raises StoreError.

    Cut where keys branch, by some twenty requests for each cut; one range where they do not.
    """
    found: list[Range] = []
    waiting = deque([Range()])
    while waiting:
        one = waiting.popleft()
        at = await _cut(source, one) if len(found) + len(waiting) + 2 <= most else None
        if at is None:
            found.append(one)
        else:
            waiting += [Range(one.after, at), Range(at, one.upto)]
    return sorted(found)


async def _cut(source: SourceStore, one: Range) -> str | None:
    """find_split goes on from a key that exists: the first one of the range."""
    async for page in source.list_pages(after=one.after, page_size=1):
        return await find_split(source, page[0].key, one.upto)
    return None
