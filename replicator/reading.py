"""Reads one version of an object in windows of bounded size."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator

from replicator.model import MiB, ObjectState
from replicator.store import Data, Pin, SourceStore, Span

WINDOW = 8 * MiB
"""Bytes of one ranged read of a stream."""


class SourceTrust:
    """Whether a source's ETags have been seen to be digests of its bytes.

    Once one has, bytes that do not fit their ETag are wrong, however often they are read alike.
    """

    def __init__(self) -> None:
        self.proved = False


def pin_of(state: ObjectState) -> Pin:
    """Holds a read to exactly this version."""
    return Pin(state.etag, state.version_id)


async def read_windows(
    source: SourceStore, key: str, state: ObjectState, *, offset: int = 0, size: int | None = None
) -> AsyncIterator[Data]:
    """Yields `size` bytes from `offset` on, WINDOW bytes at a time, all of the version `state`.

    The next window is fetched while the last one is used.
    """
    end = state.size if size is None else offset + size
    pin = pin_of(state)

    async def window(first: int) -> Data:
        last = min(first + WINDOW, end) - 1
        return (await source.fetch(key, limit=last - first + 1, span=Span(first, last), pin=pin)).data

    coming = asyncio.create_task(window(offset)) if offset < end else None
    try:
        for following in range(offset + WINDOW, end + WINDOW, WINDOW):
            if coming is None:
                return
            data = await coming
            coming = asyncio.create_task(window(following)) if following < end else None
            yield data
    finally:
        if coming is not None:
            coming.cancel()


async def digest_of(
    source: SourceStore, key: str, state: ObjectState, *, offset: int = 0, size: int | None = None
) -> bytes:
    """MD5 of those bytes, read for nothing else."""
    digest = hashlib.md5(usedforsecurity=False)
    async for data in read_windows(source, key, state, offset=offset, size=size):
        digest.update(data)
    return digest.digest()
