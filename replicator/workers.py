"""Several workers at once, on the same work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

Item = TypeVar("Item")


async def run_workers(count: int, work: Callable[[], Awaitable[None]]) -> None:
    """Runs `count` workers to their end. The first error cancels the others and is raised as it is."""
    tasks = [asyncio.ensure_future(work()) for _ in range(count)]
    try:
        await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


async def work_through(
    items: AsyncIterator[Item], work: Callable[[Item], Awaitable[None]], *, concurrency: int
) -> None:
    """Does `work` for every item, `concurrency` of them at once, while the next items are fetched.

    The first error, of an item or of the iterator, cancels the rest and is raised.
    """
    waiting: asyncio.Queue[tuple[Item] | None] = asyncio.Queue(4 * concurrency)

    async def feed() -> None:
        async for item in items:
            await waiting.put((item,))
        for _ in range(concurrency):
            await waiting.put(None)

    async def worker() -> None:
        while (item := await waiting.get()) is not None:
            await work(item[0])

    jobs = iter([feed, *[worker] * concurrency])
    await run_workers(concurrency + 1, lambda: next(jobs)())
