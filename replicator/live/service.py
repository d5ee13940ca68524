"""The live mirror outside Lambda: takes messages off its queues, many batches at once, until it is told to end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from replicator.errors import QueueError
from replicator.events import QueueMessage
from replicator.items import is_item
from replicator.live.batch import Handled
from replicator.live.mirror import Mirror
from replicator.live.settling import settle
from replicator.logs import logger
from replicator.queues.opening import Queues
from replicator.queues.queue import Queue

MOST_MESSAGES = 10
"""Taken at once. SQS gives ten."""

SECONDS = 300.0
"""For one batch: a range of keys that takes longer is cut, and a large object goes on from its parts."""

POLL = 3.0
"""Seconds that one look into an empty queue waits. Told to end, the service waits for it: what comes is put back."""

VISIBILITY = 60
"""Seconds for which messages at work are kept from others; they are kept again and again until it ends. So what a
service had that was killed comes again after a minute, however long it would have worked on it.
"""

KEEP_EVERY = VISIBILITY / 4
"""Seconds. A queue of SQS keeps messages for 30 at first, unless it is told otherwise."""

PAUSE = 5.0
"""Seconds after which a queue that did not answer is asked again."""


class Service:
    """Handles what the queues of changes and of work give, each with hands of its own: a change waits for no work item.

    told: of every message that was handled, before it is settled. well: of why a queue cannot be used, and of None when
    all can again. batches: of each queue that are handled at once. drain: seconds that batches at work have to end by
    themselves; what is left then is put back, for this service or another.
    """

    def __init__(
        self,
        queues: Queues,
        mirror: Mirror,
        *,
        told: Callable[[Sequence[Handled]], Awaitable[None]],
        well: Callable[[str | None], None] = lambda _: None,
        batches: int = 8,
        drain: float = 20.0,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._queues = queues
        self._mirror = mirror
        self._told = told
        self._well = well
        self._batches = batches
        self._drain = drain
        self._sleep = sleep
        self._at_work: set[asyncio.Task[None]] = set()
        self._problems: dict[tuple[str, str], str] = {}

    async def run(self, ended: asyncio.Event) -> None:
        """Runs until `ended` is set, and what was begun has ended or was put back.

        Cancelled, it puts back at once what is at work. Raises what handling died of, and ends as well before it does.
        """
        workers = [
            asyncio.create_task(self._work(queue, receiving, ended))
            for queue, receiving in ((one, asyncio.Lock()) for one in self._queues.served)
            for _ in range(self._batches)
        ]
        ending = asyncio.create_task(ended.wait())
        try:
            await asyncio.wait([ending, *workers], return_when=asyncio.FIRST_COMPLETED)
            ended.set()
            await asyncio.wait(workers, timeout=self._drain)
        finally:
            ended.set()
            for task in self._at_work:
                task.cancel()
            await _end_of([ending, *workers])
        for worker in workers:
            worker.result()

    async def _work(self, queue: Queue, receiving: asyncio.Lock, ended: asyncio.Event) -> None:
        """Is never cancelled, but what it handles: a thread that receives would go on, and nobody have what it got."""
        while not ended.is_set():
            async with receiving:  # one long poll is enough for an empty queue
                messages = [] if ended.is_set() else await self._receive(queue, ended)
            if ended.is_set():
                await self._put_back(queue, messages)
            elif messages:
                await self._handle_each(queue, _apart(messages))

    async def _receive(self, queue: Queue, ended: asyncio.Event) -> list[QueueMessage]:
        """Waits for messages; none, after a pause, if the queue cannot be used."""
        try:
            messages = await asyncio.to_thread(queue.receive, MOST_MESSAGES, wait=POLL)
        except QueueError as error:
            self._note(queue, "receive", error)
            await self._is_set_within(PAUSE, ended)
            return []
        self._note(queue, "receive", None)
        return messages

    async def _handle_each(self, queue: Queue, batches: Sequence[Sequence[QueueMessage]]) -> None:
        """Handles batches, and puts back those that were cancelled, or could not be handled."""
        tasks = {asyncio.create_task(self._handle(queue, batch)): batch for batch in batches}
        self._at_work.update(tasks)
        await asyncio.wait(tasks)
        self._at_work.difference_update(tasks)
        for task, batch in tasks.items():
            if task.cancelled() or task.exception() is not None:
                await self._put_back(queue, batch)
        for task in tasks:
            if not task.cancelled():
                task.result()

    async def _handle(self, queue: Queue, messages: Sequence[QueueMessage]) -> None:
        """Handles a batch and settles it."""
        done = asyncio.Event()
        keeping = asyncio.create_task(self._keep(queue, messages, done))
        try:
            handled = await self._mirror.handle(messages, seconds=SECONDS)
        finally:
            done.set()
            await keeping  # what it still asks for would undo what is asked for after it
        if (this := asyncio.current_task()) is not None:
            self._at_work.discard(this)  # what is done is settled, whatever comes
        await self._told(handled)
        await self._settle(queue, handled)

    async def _settle(self, queue: Queue, handled: Sequence[Handled]) -> None:
        try:
            refusals = await asyncio.to_thread(settle, queue, self._queues.dead_letters, handled)
        except QueueError as error:  # they come again by themselves
            self._note(queue, "settle", error)
            return
        self._note(queue, "settle", None)
        for refusal in refusals:
            logger.warning("a message comes again: %s", refusal)

    async def _keep(self, queue: Queue, messages: Sequence[QueueMessage], done: asyncio.Event) -> None:
        """Keeps messages from others for as long as they are at work."""
        while not await self._is_set_within(KEEP_EVERY, done):
            with suppress(QueueError):  # they come again, then, and are done twice
                await asyncio.to_thread(queue.put_off, [(one, VISIBILITY) for one in messages])

    async def _put_back(self, queue: Queue, messages: Sequence[QueueMessage]) -> None:
        if messages:
            with suppress(QueueError):  # they come again by themselves, later
                await asyncio.to_thread(queue.put_off, [(one, 0) for one in messages])

    async def _is_set_within(self, seconds: float, event: asyncio.Event) -> bool:
        """Waits for it, but no longer than that."""
        waiting = [asyncio.ensure_future(self._sleep(seconds)), asyncio.create_task(event.wait())]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waiting:
                one.cancel()
        return event.is_set()

    def _note(self, queue: Queue, doing: str, error: QueueError | None) -> None:
        """Tells of what cannot be done with a queue, once, and of its end."""
        before = next(iter(self._problems.values()), None)
        if error is None:
            self._problems.pop((queue.name, doing), None)
        else:
            self._problems[queue.name, doing] = str(error)
        now = next(iter(self._problems.values()), None)
        if now == before:
            return
        if now is None:
            logger.warning("the queue can be used again")
        else:
            logger.warning("the queue cannot be used, and is tried again: %s", now)
        self._well(now)


def _apart(messages: Sequence[QueueMessage]) -> list[list[QueueMessage]]:
    """The notifications together, and each work item by itself: it may take minutes, for which others need not wait."""
    told = [one for one in messages if not is_item(one.body)]
    return [*([told] if told else []), *([one] for one in messages if is_item(one.body))]


async def _end_of(tasks: Sequence[asyncio.Task[object]]) -> None:
    """Waits until they have ended, though it be cancelled meanwhile."""
    while not all(task.done() for task in tasks):
        with suppress(asyncio.CancelledError):
            await asyncio.wait(tasks)
