"""Does the tasks of a run in one event loop: several ranges at once, all their objects by one set of hands."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from replicator.bulk.jobs import Job
from replicator.bulk.scan import Open, Scan
from replicator.bulk.splitting import find_split, honours_start
from replicator.bulk.tasks import (
    Counts,
    Finished,
    Gone,
    KeysTask,
    Message,
    Outcomes,
    Pass,
    Pulse,
    ScanTask,
    Settled,
    Split,
    SplitTask,
    Task,
)
from replicator.diff import Row, Stretch
from replicator.errors import StoreError
from replicator.model import Outcome
from replicator.store import ObjectStore, SourceStore

TICK = 0.05
"""Seconds between two words to the parent."""

MOST_UNSAID = 5000
"""Outcomes and keys that may wait to be sent before those who make them stop."""

Send = Callable[[Message], Awaitable[None]]


@dataclass(slots=True)
class _Item:
    """A row in the queue, and whom to tell when it is done."""

    row: Row
    during: Pass
    done: Callable[[], None]


@dataclass(slots=True)
class _Unsaid:
    """What has happened since the last word."""

    outcomes: list[Outcome] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    listed: int = 0
    found: int = 0
    worked: int = 0


class Worker:
    """Runs tasks until it is cancelled.

    send: takes the messages in order; may wait. concurrency: rows worked on at once. clock: seconds since the epoch.
    """

    def __init__(
        self,
        source: SourceStore,
        targets: Sequence[ObjectStore],
        job: Job,
        send: Send,
        *,
        concurrency: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._source = source
        self._targets = targets
        self._job = job
        self._send = send
        self._concurrency = concurrency
        self._clock = clock
        self._queue: asyncio.Queue[_Item] = asyncio.Queue(4 * concurrency)
        self._scans: dict[int, Scan] = {}
        self._unsaid = _Unsaid()
        self._sent = self._throttled = 0
        self._saying = asyncio.Lock()
        self._told_pages: dict[int, int] = {}

    async def run(self, tasks: Callable[[], Awaitable[Task | None]]) -> None:
        """Takes tasks until there is None, and drops what is not done by then. Raises what broke it."""
        async with asyncio.TaskGroup() as group:
            running = {group.create_task(self._hand()) for _ in range(self._concurrency)}
            running.add(group.create_task(self._talk()))
            while (task := await tasks()) is not None:
                started = group.create_task(self._start(task))
                running.add(started)
                started.add_done_callback(running.discard)
            for one in running:
                one.cancel()

    async def _start(self, task: Task) -> None:
        if isinstance(task, SplitTask):
            await self._split(task)
            return
        error: Exception | None = None
        try:
            if isinstance(task, ScanTask):
                await self._scan(task)
            else:
                await self._keys(task)
        except StoreError as problem:
            error = problem
        await self._say()
        async with self._saying:
            self._scans.pop(task.id, None)
            await self._send(Finished(task.id, error))

    async def _scan(self, task: ScanTask) -> None:
        scan = self._scans[task.id] = Scan(self._source, self._targets, task.range, clock=self._clock)

        async def give(row: Row, opened: Open) -> None:
            self._unsaid.found += row.source.size if row.source else 0
            await self._queue.put(_Item(row, task.during, partial(scan.done, opened)))

        await scan.run(partial(self._sort_out, task.during), give)

    async def _keys(self, task: KeysTask) -> None:
        left = len(task.keys)
        all_done = asyncio.Event()

        def done() -> None:
            nonlocal left
            left -= 1
            if left == 0:
                all_done.set()

        for key in task.keys:
            await self._queue.put(_Item(Row(key, None, ()), task.during, done))
        await all_done.wait()

    async def _split(self, task: SplitTask) -> None:
        """Cuts a scan's range where its source's keys branch, if all sides can begin to list there."""
        scan = self._scans.get(task.id)
        at = await self._find_cut(scan) if scan is not None and not scan.listed_all else None
        async with self._saying:  # or the scan could be told finished before it is told how far it went
            cut = scan is not None and at is not None and scan.shorten(at)
            await self._send(Split(task.id, at if cut else None))

    async def _find_cut(self, scan: Scan) -> str | None:
        """A key at which the scan's range could be cut, now; None if there is none, or no asking for it."""
        try:
            at = await find_split(self._source, scan.position, scan.upto)
            if at is None or not all([await honours_start(store, at) for store in self._targets]):
                return None
        except StoreError:
            return None
        return at

    async def _sort_out(self, during: Pass, stretch: Stretch) -> tuple[Counts, list[Row]]:
        sorted_out = self._job.sort_out(during, stretch)
        unsaid = self._unsaid
        unsaid.gone += sorted_out.gone
        unsaid.outcomes += sorted_out.outcomes
        unsaid.listed += sorted_out.counts.source
        if len(unsaid.gone) + len(unsaid.outcomes) > MOST_UNSAID:
            await self._say()
        return sorted_out.counts, sorted_out.rows

    async def _hand(self) -> None:
        while True:
            item = await self._queue.get()
            outcomes = await self._job.work(item.row, item.during)
            unsaid = self._unsaid
            unsaid.outcomes += outcomes
            if item.row.source is not None:
                unsaid.worked += item.row.source.size
            item.done()
            if len(unsaid.outcomes) > MOST_UNSAID:
                await self._say()

    async def _talk(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            await self._say()

    async def _say(self) -> None:
        """Sends what has happened; what is settled last, since it rests on all the rest."""
        async with self._saying:
            unsaid, self._unsaid = self._unsaid, _Unsaid()
            settled = [(number, scan.take_settled()) for number, scan in self._scans.items()]
            if unsaid.gone:
                await self._send(Gone(tuple(unsaid.gone)))
            if unsaid.outcomes:
                await self._send(Outcomes(tuple(unsaid.outcomes)))
            for number, stretch in settled:
                if stretch is not None:
                    await self._send(Settled(number, *stretch))
            pulse = self._pulse(unsaid)
            if pulse is not None:
                await self._send(pulse)

    def _pulse(self, unsaid: _Unsaid) -> Pulse | None:
        loads = [store.load for store in (self._source, *self._targets)]
        sent, throttled = sum(load.sent for load in loads[1:]), sum(load.throttled for load in loads)
        pages = [(number, scan.pages - self._told_pages.get(number, 0)) for number, scan in self._scans.items()]
        self._told_pages = {number: scan.pages for number, scan in self._scans.items()}
        if (sent, throttled) == (self._sent, self._throttled) and not (
            unsaid.listed or unsaid.worked or any(n for _, n in pages)
        ):
            return None
        pulse = Pulse(
            listed=unsaid.listed,
            pages=tuple((number, count) for number, count in pages if count),
            found=unsaid.found,
            worked=unsaid.worked,
            sent=sent - self._sent,
            throttled=throttled - self._throttled,
            limit=min(load.limit for load in loads),
        )
        self._sent, self._throttled = sent, throttled
        return pulse
