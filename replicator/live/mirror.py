"""The live mirror of some routes: handles batches of messages, with stores that stay open between them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Protocol

from replicator.bulk.report import NoReport, Report
from replicator.converge import HELD
from replicator.errors import AccessDenied, PoisonMessage, QueueError
from replicator.events import ChangedKey, QueueMessage
from replicator.items import Item, KeysItem, PartsItem, encode
from replicator.live.batch import Handled, KeyTask, Task, handle_messages
from replicator.live.brake import DeleteBrake, DeleteCounter
from replicator.live.large import LEAST
from replicator.live.route import RouteWork
from replicator.model import Did, Listed, Outcome
from replicator.queues.opening import Queues
from replicator.queues.queue import Outgoing
from replicator.routes import routes_for
from replicator.s3.opening import open_stores
from replicator.settings import Settings
from replicator.store import ObjectStore, SourceStore

RESERVE = 10.0
"""Seconds before the end of an invocation at which converging stops, for the messages to be settled."""

FRESH = 30.0
"""Seconds for which credentials are not read anew: a single object may be refused for ever, whoever asks."""


class Opening(Protocol):
    """As open_stores of replicator.s3.opening."""

    def __call__(
        self, settings: Settings, *, read_secret: Callable[[str], str] | None
    ) -> AbstractAsyncContextManager[tuple[SourceStore, Sequence[ObjectStore]]]:
        """Source and targets, open for as long as the block runs. Raises ConfigurationError."""


class Mirror:
    """Mirrors what messages name.

    routes: each with a name of its own. queues: where work items and held deletes are sent. counter: of deletes, shared
    by all workers. report: told of the outcomes of ranges; those of keys are in what `handle` returns. read_secret:
    gives the text of a secret by its id. large_from: bytes from which objects are copied part by part by many. opening:
    of a route's source and targets. clock: seconds that only go forwards.

    Connections are opened by the first task that needs them; credentials that are refused are read anew after it.
    """

    def __init__(
        self,
        routes: Sequence[Settings],
        queues: Queues,
        counter: DeleteCounter,
        *,
        report: Report | None = None,
        read_secret: Callable[[str], str] | None = None,
        large_from: int = LEAST,
        opening: Opening = open_stores,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._routes = {route.name: route for route in routes}
        self._queues = queues
        self._report = report or NoReport()
        self._read_secret = read_secret
        self._large_from = large_from
        self._stores = opening
        self._clock = clock
        self._brakes = {
            route.name: DeleteBrake(
                counter,
                route.name,
                least=route.max_deletes_per_hour,
                share=route.delete_share,
                waiting=self._deletes_wait,
            )
            for route in routes
        }
        self._open: dict[str, _Opened] = {}
        self._opening = asyncio.Lock()

    async def handle(self, messages: Sequence[QueueMessage], *, seconds: float) -> list[Handled]:
        """Handles a batch; how each message ended, in order. seconds: until the caller must be done.

        Settles nothing. Deletes that are held back are in the hold queue when it returns; the messages of those that
        could not be put there have failed.
        """
        left = max(seconds - min(RESERVE, seconds / 4), 1.0)

        async def do(task: Task) -> list[Outcome]:
            return await self._do(task, left)

        handled = await handle_messages(messages, meant=self._meant, do=do, seconds=left)
        for brake in self._brakes.values():
            await brake.flush()
        return await self._hold(handled)

    async def converge(self, bucket: str, key: str, *, seconds: float) -> list[Outcome]:
        """Converges a key of a bucket on the routes that it is on; held deletes are in the hold queue when it returns.

        Raises PoisonMessage if it is on none, QueueError if a delete could not be held, TimeoutError.
        """
        tasks = self._meant(ChangedKey(bucket, (key,), "", None))
        if not tasks:
            raise PoisonMessage(f"no route takes the key {key!r} of bucket {bucket!r}")
        outcomes: list[Outcome] = []
        async with asyncio.timeout(seconds):
            for task in tasks:
                mine = await self._do(task, seconds)
                if any(outcome.did is Did.HELD for outcome in mine):
                    await self._park([task])
                outcomes += mine
        return outcomes

    async def close(self) -> None:
        """Notes what is left to note, and closes connections."""
        for brake in self._brakes.values():
            await brake.flush(last=True)
        for opened in self._open.values():
            await opened.stack.aclose()
        self._open.clear()

    def _meant(self, change: ChangedKey) -> list[KeyTask]:
        """The keys of routes that a change is about. Raises PoisonMessage for a bucket that is the source of none."""
        routes = tuple(self._routes.values())
        if not any(route.source.bucket == change.bucket for route in routes):
            known = ", ".join(sorted({repr(route.source.bucket) for route in routes}))
            raise PoisonMessage(f"is about bucket {change.bucket!r}, and mirrored here is {known}")
        return [
            KeyTask(route.name, key, guess=_guess(change, key))
            for candidate in change.candidates
            for route, key in routes_for(routes, change.bucket, candidate)
        ]

    async def _do(self, task: Task, seconds: float) -> list[Outcome]:
        if task.route not in self._routes:
            raise PoisonMessage(f"there is no route {task.route!r} here")
        source = self._routes[task.route].source.location
        if not isinstance(task, PartsItem) and task.source not in ("", source):
            raise PoisonMessage(f"route {task.route!r} begins at {source} here, and {task.source} is meant")
        async with self._opened(task.route) as opened:
            try:
                outcomes = await opened.work.do(task, seconds=seconds)
            except AccessDenied:
                self._forget(task.route, opened)
                raise
            if any(isinstance(outcome.failure, AccessDenied) for outcome in outcomes):
                self._forget(task.route, opened)
        return outcomes

    @asynccontextmanager
    async def _opened(self, name: str) -> AsyncIterator[_Opened]:
        """The route, open at least for the block. Raises ConfigurationError."""
        async with self._opening:
            opened = self._open.get(name)
            if opened is None:
                opened = self._open[name] = await self._open_route(self._routes[name])
        opened.users += 1
        try:
            yield opened
        finally:
            opened.users -= 1
            if opened.users == 0 and self._open.get(name) is not opened:
                await opened.stack.aclose()

    async def _open_route(self, route: Settings) -> _Opened:
        stack = AsyncExitStack()
        source, targets = await stack.enter_async_context(self._stores(route, read_secret=self._read_secret))
        work = RouteWork(
            route,
            source,
            targets,
            brake=self._brakes[route.name],
            send=self._send,
            report=self._report,
            large_from=self._large_from,
        )
        return _Opened(work, stack, self._clock())

    def _forget(self, name: str, opened: _Opened) -> None:
        """Has the next task open the route anew; what is open is closed by whoever uses it last."""
        if self._open.get(name) is opened and self._clock() - opened.since > FRESH:
            del self._open[name]

    async def _send(self, items: Sequence[Item]) -> None:
        outgoing = [Outgoing(encode(item)) for item in items]
        await asyncio.to_thread(self._queues.items.send, outgoing)

    async def _hold(self, handled: Sequence[Handled]) -> list[Handled]:
        """Puts deletes that were held back where they wait for a person; messages of which that fails have failed.

        Those of messages that failed anyway are not put there yet: they are asked for again.
        """
        held = dict.fromkeys(task for one in handled if one.error is None for task in one.held)
        try:
            await self._park(list(held))
        except QueueError as error:
            return [replace(one, error=one.error or str(error)) if one.held else one for one in handled]
        return list(handled)

    async def _deletes_wait(self) -> int:
        """How many deletes wait for a person, of whichever route. Raises QueueError."""
        return 0 if self._queues.held is None else sum(await asyncio.to_thread(self._queues.held.depth))

    async def _park(self, held: Sequence[KeyTask]) -> None:
        if not held:
            return
        if self._queues.held is None:
            raise QueueError(f"{HELD}, and there is no hold queue: set HOLD_QUEUE_URL, or raise MAX_DELETES_PER_HOUR")
        await asyncio.to_thread(self._queues.held.send, [self._parked(task) for task in held])

    def _parked(self, task: KeyTask) -> Outgoing:
        """Says of which source the key is: by the time it is released the route may begin elsewhere."""
        item = KeysItem(task.route, (task.key,), source=self._routes[task.route].source.location)
        return Outgoing(encode(item), reason=self._brakes[task.route].reason)


class _Opened:
    """A route that is open, since when, and how many tasks use it."""

    def __init__(self, work: RouteWork, stack: AsyncExitStack, since: float) -> None:
        self.work = work
        self.stack = stack
        self.since = since
        self.users = 0


def _guess(change: ChangedKey, key: str) -> Listed | None:
    """The object that an event tells of, for the shortest way of copying it; what counts is what the source says."""
    return Listed(key, change.size, change.etag, 0.0) if change.size is not None else None
