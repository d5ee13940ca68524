"""The live mirror outside Lambda: takes messages off a queue, many batches at once, until it is told to end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from replicator.errors import QueueError
from replicator.events import QueueMessage
from replicator.live.batch import Handled
from replicator.live.mirror import Mirror
from replicator.live.settling import settle
from replicator.logs import logger
from replicator.queues.opening import Queues

MOST_MESSAGES = 100
"""In one batch. SQS gives ten at once."""

SECONDS = 300.0
"""For one batch: a range of keys that takes longer is cut, and a large object goes on from its parts."""

POLL = 5.0
"""Seconds that one look into an empty queue waits. Told to end, the service waits for it."""

VISIBILITY = 60
"""Seconds for which messages at work are kept from others. They are kept again before it ends."""

PAUSE = 5.0
"""Seconds after which a queue that did not answer is asked again."""


class Service:
    """Handles what a queue gives.

    told: of every message that was handled. batches: that are handled at once. drain: seconds that batches at work have
    to end by themselves; what is left then comes again, to this service or another.
    """

    def __init__(
        self,
        queues: Queues,
        mirror: Mirror,
        *,
        told: Callable[[Sequence[Handled]], None],
        batches: int = 8,
        drain: float = 20.0,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._queues = queues
        self._mirror = mirror
        self._told = told
        self._batches = batches
        self._drain = drain
        self._sleep = sleep
        self._receiving = asyncio.Lock()
        self.unwell: str | None = None
        """Why the queue cannot be used now, if so."""

    async def run(self, ended: asyncio.Event) -> None:
        """Runs until `ended` is set, and what was begun has ended or was put back."""
        workers = [asyncio.create_task(self._work(ended)) for _ in range(self._batches)]
        ending = asyncio.create_task(ended.wait())
        try:
            await asyncio.wait([ending, *workers], return_when=asyncio.FIRST_EXCEPTION)
            await asyncio.wait(workers, timeout=self._drain + POLL)
        finally:
            ended.set()
            ending.cancel()
            for worker in workers:
                worker.cancel()
            ends = await asyncio.gather(*workers, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception):
                raise end

    async def _work(self, ended: asyncio.Event) -> None:
        while not ended.is_set():
            try:
                async with self._receiving:  # one long poll is enough for an empty queue
                    messages = [] if ended.is_set() else await self._receive()
                if messages and ended.is_set():
                    await self._put_back(messages)
                elif messages:
                    await self._handle(messages)
            except QueueError as error:
                await self._pause(error, ended)

    async def _receive(self) -> list[QueueMessage]:
        """Waits for messages. They are put back if it is cancelled while they are on their way."""
        receiving = asyncio.ensure_future(asyncio.to_thread(self._queues.changes.receive, MOST_MESSAGES, wait=POLL))
        try:
            messages = await asyncio.shield(receiving)
        except asyncio.CancelledError:
            await self._put_back(await receiving)
            raise
        self.unwell = None
        return messages

    async def _handle(self, messages: Sequence[QueueMessage]) -> None:
        """Handles a batch and settles it; puts it back when it is cancelled."""
        keeping = asyncio.create_task(self._keep(messages))
        try:
            handled = await self._mirror.handle(messages, seconds=SECONDS)
        except asyncio.CancelledError:
            await self._put_back(messages)
            raise
        finally:
            keeping.cancel()
        self._told(handled)
        for refusal in await asyncio.to_thread(settle, self._queues, handled):
            logger.warning("a message comes again: %s", refusal)

    async def _keep(self, messages: Sequence[QueueMessage]) -> None:
        """Keeps messages from others for as long as they are at work."""
        while True:
            await self._sleep(VISIBILITY / 4)
            with suppress(QueueError):  # they come again, then, and are done twice
                await asyncio.to_thread(self._queues.changes.put_off, [(one, VISIBILITY) for one in messages])

    async def _put_back(self, messages: Sequence[QueueMessage]) -> None:
        with suppress(QueueError):  # they come again by themselves, later
            await asyncio.to_thread(self._queues.changes.put_off, [(one, 0) for one in messages])

    async def _pause(self, error: QueueError, ended: asyncio.Event) -> None:
        if str(error) != self.unwell:
            logger.warning("the queue cannot be used, and is tried again: %s", error)
        self.unwell = str(error)
        with suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), PAUSE)
