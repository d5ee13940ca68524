"""Reads ahead in a listing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TypeVar

Item = TypeVar("Item")


async def prefetch(items: AsyncIterator[Item]) -> AsyncGenerator[Item, None]:
    """Yields the same items, with the next one already being fetched while one is used."""

    async def following() -> Item | None:
        return await anext(items, None)

    coming = asyncio.ensure_future(following())
    try:
        while (item := await coming) is not None:
            coming = asyncio.ensure_future(following())
            yield item
    finally:
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)
