"""Runs the same coroutine several times at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


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
