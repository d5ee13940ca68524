"""Gives one stream of chunks to several consumers at once; the slowest sets the pace, a failed one drops out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeVar

from replicator.store import Data

Result = TypeVar("Result")

AHEAD = 1
"""Datas that wait for each consumer beside the one it is working on."""


class _Lane:
    """What is on its way to one consumer: chunks, then None for the end or the reason why there is none."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Data | Exception | None] = asyncio.Queue(AHEAD)
        self.closed = False

    async def put(self, item: Data | Exception | None) -> None:
        if not self.closed:
            await self.queue.put(item)

    def close(self) -> None:
        """Takes no more; whoever waits in `put` goes on."""
        self.closed = True
        while not self.queue.empty():
            self.queue.get_nowait()

    async def chunks(self) -> AsyncIterator[Data]:
        while True:
            item = await self.queue.get()
            if isinstance(item, Exception):
                raise item
            if item is None:
                return
            yield item


async def broadcast(
    chunks: AsyncIterator[Data], consumers: Sequence[Callable[[AsyncIterator[Data]], Awaitable[Result]]]
) -> list[Result | Exception]:
    """Runs all consumers over the chunks; one result or exception for each, in order.

    An error of the stream itself reaches every consumer in place of its end, so that none takes a part for the whole.
    """
    lanes = [_Lane() for _ in consumers]

    async def consume(lane: _Lane, consumer: Callable[[AsyncIterator[Data]], Awaitable[Result]]) -> Result:
        try:
            return await consumer(lane.chunks())
        finally:
            lane.close()

    tasks = [asyncio.create_task(consume(*pair)) for pair in zip(lanes, consumers, strict=True)]
    try:
        await _feed(chunks, lanes)
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    results: list[Result | Exception] = []
    for outcome in outcomes:
        if isinstance(outcome, BaseException) and not isinstance(outcome, Exception):
            raise outcome
        results.append(outcome)
    return results


async def _feed(chunks: AsyncIterator[Data], lanes: Sequence[_Lane]) -> None:
    end: Exception | None = None
    try:
        async for chunk in chunks:
            for lane in lanes:
                await lane.put(chunk)
            if all(lane.closed for lane in lanes):
                return
    except Exception as error:  # noqa: BLE001 - handed to every consumer, which raises it
        end = error
    for lane in lanes:
        await lane.put(end)
