"""Ranges of keys as work items: listed on both sides, merged, converged; as much as there is time for.

| what                          | becomes                                                                             |
|-------------------------------|-------------------------------------------------------------------------------------|
| a key that differs            | converged here                                                                      |
| one that failed, or is held   | in an item apart, which is tried again, and ends as a dead letter, or is parked     |
| one that only targets list    | in an item apart: converging asks the source for it, and the brake for the delete   |
| what the time is too short for| a range from the last key up to which everything is done                            |
| a range that turns out long   | two: what lies ahead is cut where its keys branch, and the far half is sent         |
| what is left where a listing  | a range, if anything was done or sent: done again as a whole, it would send the far |
| broke off                     | half once more, and that its own, and where requests often fail they would multiply |

All that is sent is sent before the message of the range is settled: whoever dies before has it done again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

from replicator.bulk.plan import Plan
from replicator.bulk.report import Report
from replicator.bulk.scan import Open, Scan
from replicator.bulk.sorting import Sorter
from replicator.bulk.splitting import find_split, honours_start
from replicator.bulk.tasks import Counts, Pass, Range
from replicator.converge import Converger
from replicator.diff import Row, Stretch
from replicator.errors import Refused, StoreError, TooLargeForNow, Transient
from replicator.filters import KeyFilter
from replicator.items import MOST_KEYS, Item, RangeItem, keys_items
from replicator.model import Did
from replicator.store import ObjectStore, SourceStore

SPLIT_EVERY = 8
"""Pages that are listed, of 1,000 keys, before what lies ahead is cut in two."""

RESERVE = 20.0
"""Seconds, but a quarter of the time at most, that are left for sending what could not be done."""

MOST_GIVEN = 10_000
"""Keys that may be done before one that was given out before them."""

Send = Callable[[Sequence[Item]], Awaitable[None]]


class Ranges:
    """Ranges of one route.

    converger: of its keys; its stores are listed. chosen: the keys that the route is about. send: sends work items.
    report: told of every outcome. concurrency: keys at once, of all ranges.
    """

    def __init__(
        self,
        converger: Converger,
        *,
        chosen: KeyFilter,
        send: Send,
        report: Report,
        concurrency: int,
    ) -> None:
        self.converger = converger
        self.source: SourceStore = converger.source
        self.targets: list[ObjectStore] = [publisher.target for publisher in converger.publishers]
        plan = Plan(deletes=converger.deletes, keys=chosen)
        self.sorter = Sorter(self.source, self.targets, plan, name_in_sync=False)
        self.send = send
        self.report = report
        self.room = asyncio.Semaphore(concurrency)

    async def work(self, item: RangeItem, *, seconds: float) -> None:
        """Does a range in the time given, and sends what is left.

        Raises QueueError, after which all of it is to be done again, StoreError when a listing broke off before
        anything was done, TooLargeForNow when the time was up before that, and Refused when there is nothing at the
        source and something at the targets.
        """
        await _Work(self, item, seconds).run()


class _Work:
    """One range on its way.

    given: keys that are being converged, in order, each until all before it are done. apart: those that get items of
    their own. done: the key up to which everything is done, or apart.
    """

    def __init__(self, ranges: Ranges, item: RangeItem, seconds: float) -> None:
        self._ranges = ranges
        self._item = item
        self._during = Pass(every=item.deep)
        self._given: deque[tuple[str, asyncio.Task[None]]] = deque()
        self._apart: list[str] = []
        self._source_has_objects = False
        self._done = item.after
        self._clock = asyncio.get_running_loop().time
        self._until = self._clock() + seconds - min(RESERVE, seconds / 4)

    async def run(self) -> None:
        ranges, item = self._ranges, self._item
        scan = Scan(ranges.source, ranges.targets, Range(item.after, item.upto))
        cut_short: StoreError | TooLargeForNow | None = None
        try:
            async with asyncio.timeout_at(self._until):
                await scan.run(partial(self._sort_out, scan), partial(self._give, scan.done))
        except TimeoutError:
            cut_short = TooLargeForNow(f"no key after {item.after!a} could be done in the time")
        except StoreError as error:
            cut_short = error
        finally:
            await self._end()
        self._note_done(scan)
        if isinstance(cut_short, StoreError) and not isinstance(cut_short, Transient):
            self._done = item.after  # a listing that is wrong here may have been wrong before
        if cut_short is not None and (self._done, scan.upto) == (item.after, item.upto):
            raise cut_short
        await self._send_apart(1)
        if cut_short is not None:
            await ranges.send([replace(item, after=self._done, upto=scan.upto)])

    async def _sort_out(self, scan: Scan, stretch: Stretch) -> tuple[Counts, list[Row]]:
        sorted_out = self._ranges.sorter.sort_out(self._during, stretch)
        self._source_has_objects = self._source_has_objects or bool(stretch.source)
        self._apart += sorted_out.gone
        self._note_done(scan)
        await self._send_apart(MOST_KEYS)
        if scan.pages % SPLIT_EVERY == 0:
            await self._split(scan)
        return sorted_out.counts, sorted_out.rows

    async def _give(self, done: Callable[[Open], None], row: Row, opened: Open) -> None:
        """Has a row converged as soon as there is room."""
        self._advance()
        if len(self._given) == MOST_GIVEN:
            await asyncio.wait([self._given[0][1]])
        await self._ranges.room.acquire()
        task = asyncio.create_task(self._converge(row))
        self._given.append((row.key, task))

        def ended(task: asyncio.Task[None]) -> None:
            self._ranges.room.release()
            if not task.cancelled():
                done(opened)

        task.add_done_callback(ended)

    async def _converge(self, row: Row) -> None:
        ranges = self._ranges
        outcomes = await ranges.converger.converge(row.key, row, seconds=self._until - self._clock())
        if any(outcome.did in (Did.FAILED, Did.HELD) for outcome in outcomes):
            self._apart.append(row.key)
        for outcome in outcomes:
            ranges.report.add(outcome)

    def _advance(self) -> None:
        """Lets go of what is done. Raises what a report raised."""
        while self._given and self._given[0][1].done():
            key, task = self._given.popleft()
            task.result()
            self._done = key

    async def _end(self) -> None:
        """Ends what is still being converged, having noted what is done."""
        try:
            self._advance()
        finally:
            for _, task in self._given:
                task.cancel()
            await asyncio.gather(*(task for _, task in self._given), return_exceptions=True)

    def _note_done(self, scan: Scan) -> None:
        settled = scan.take_settled()
        if settled is not None:
            self._done = max(self._done, settled[0])

    async def _send_apart(self, least: int) -> None:
        """Sends the keys that get items of their own, if there are so many. Raises Refused for an empty source."""
        if len(self._apart) < least:
            return
        if not self._source_has_objects:
            await self._check_not_empty()
        apart, self._apart = self._apart, []
        try:
            await self._ranges.send(list(keys_items(self._item.route, apart, self._item.source)))
        except BaseException:  # the time may be up, and nobody hear of how it ended: they are sent with what is left
            self._apart = apart + self._apart
            raise

    async def _check_not_empty(self) -> None:
        """A source that lists nothing at all is more likely unmounted, emptied by mistake or another one than meant."""
        async for _ in self._ranges.source.list_pages(page_size=1):
            self._source_has_objects = True
            return
        raise Refused(f"{self._ranges.source.name} lists no object at all: nothing is deleted at the targets")

    async def _split(self, scan: Scan) -> None:
        """Sends the far half of what lies ahead, if all sides can begin to list there.

        It is sent before this range ends there: cut off in between, it is done twice, and not left out.
        """
        with suppress(StoreError):
            at = await find_split(self._ranges.source, scan.position, scan.upto)
            if at is None or not all([await honours_start(store, at) for store in self._ranges.targets]):
                return
            await self._ranges.send([replace(self._item, after=at, upto=scan.upto)])
            scan.shorten(at)
