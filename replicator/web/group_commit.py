"""Puts what many requests bring at once into a queue with one call."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from replicator.errors import QueueError
from replicator.logs import logger
from replicator.queues.queue import Outgoing, Queue

MOST_AT_ONCE = 200
"""Messages of one call, unless one request brings more: a queue of SQS takes ten in a request."""


class GroupCommit:
    """Sends to one queue, one call after the other, in a thread. What comes during a call goes into the next."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        # Its own: the threads of the event loop may all be waiting for a queue to give them something.
        self._thread = ThreadPoolExecutor(1, "webhook")
        self._waiting: list[tuple[Sequence[Outgoing], asyncio.Future[BaseException | None]]] = []
        self._sending: asyncio.Task[None] | None = None

    async def send(self, messages: Sequence[Outgoing]) -> None:
        """They are durably in the queue when it returns. Equal messages of one call are sent once.

        Raises QueueError: any of them may be there, sending again is safe. May be cancelled, with the same meaning.
        """
        stored: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
        waiting = (messages, stored)
        self._waiting.append(waiting)
        if self._sending is None:
            self._sending = asyncio.create_task(self._send_all())
        try:
            error = await stored
        except asyncio.CancelledError:
            # While a queue hangs, those who have given up must not fill the memory.
            if waiting in self._waiting:
                self._waiting.remove(waiting)
            raise
        if error is not None:
            raise error

    def close(self) -> None:
        """Ends the thread when its call has ended. Idempotent."""
        self._thread.shutdown(wait=False)

    async def _send_all(self) -> None:
        try:
            while self._waiting:
                await self._send_some()
        finally:
            self._sending = None

    async def _send_some(self) -> None:
        messages: dict[Outgoing, None] = {}
        senders = []
        while self._waiting and (not messages or len(messages) + len(self._waiting[0][0]) <= MOST_AT_ONCE):
            theirs, stored = self._waiting.pop(0)
            messages |= dict.fromkeys(theirs)
            senders.append(stored)
        # Collected rather than caught: whatever it is, all who wait must hear of it.
        call = asyncio.get_running_loop().run_in_executor(self._thread, self._queue.send, list(messages))
        (error,) = await asyncio.gather(call, return_exceptions=True)
        if isinstance(error, QueueError):
            logger.warning("webhook: %d messages are not stored and have to be sent again: %s", len(messages), error)
        for stored in senders:
            if not stored.done():
                stored.set_result(error)
