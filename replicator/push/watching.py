"""Keeps a bucket in step with a folder: by what the file system tells, and by looking at everything now and then.

What the file system tells is a hint, as an event of a bucket is: the key is converged, and what counts is what is
there. Hints are lost when queues overflow, a disk is unmounted or a process stops; so everything is looked at when the
watch begins, after it was broken, and every so often.

Deletes that a hint leads to are held to the limit of a whole run. What is beyond it, and all of it when the folder
seems empty, is left to a look at everything, which has its brakes, and says what to do.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from replicator.bulk.brakes import MaxDelete
from replicator.bulk.plan import is_trashed
from replicator.bulk.report import Report
from replicator.directory.store import DirectoryStore
from replicator.errors import AccessDenied, NoSuchBucket, Refused, StoreError
from replicator.logs import logger
from replicator.model import Did, Outcome
from replicator.push.pending import Pending
from replicator.store import ObjectStore

FIRST_RETRY, LAST_RETRY = 2.5, 60.0
"""Seconds between tries of what concerns everything."""

FLUSH_EVERY = 1.0

LEAST_BETWEEN = 1.0
"""Seconds between two looks at everything, at least; more when a brake held one back."""

WINDOW = 600.0
"""Seconds in which no more is deleted than the limit says, by hints and looks together."""

BLIND_RESCAN = 60.0
"""Seconds between looks at everything while the file system tells nothing."""


def pause(failures: int) -> float:
    """Seconds to wait after so many failures in a row."""
    return min(LAST_RETRY, FIRST_RETRY * 2.0 ** min(failures, 16))


@dataclass(frozen=True, slots=True)
class Looked:
    """What a look at everything came to. objects: of the target. deleted: by it."""

    objects: int
    deleted: int


@dataclass(frozen=True, slots=True)
class Watched:
    """Who is told of the work.

    pending: keys that wait or are worked on. passed: seconds that a look at everything took. well: None, or why not.
    catalogue: whether it takes what it is given.
    """

    events: Callable[[int], None] = lambda _: None
    pending: Callable[[int], None] = lambda _: None
    passed: Callable[[float], None] = lambda _: None
    well: Callable[[str | None], None] = lambda _: None
    catalogue: Callable[[bool], None] = lambda _: None


class Watch:
    """One folder and its bucket, until it is cancelled.

    hints: begins to watch and yields the keys of what changes, with a "/" at the end where that may be true of all
    that is below, and "" for the folder itself; now and then nothing; raises OSError. converge: as of a Converger, told
    whether it may delete. rescan: looks at everything, told how many objects were deleted in this WINDOW; raises
    ReplicatorError. chosen: whether a key is to be looked at. limit: of the deletes in a WINDOW. every: seconds between
    two looks at everything.
    """

    def __init__(
        self,
        source: DirectoryStore,
        target: ObjectStore,
        *,
        hints: Callable[[], AsyncIterator[Sequence[str]]],
        converge: Callable[[str, bool], Awaitable[Sequence[Outcome]]],
        rescan: Callable[[int], Awaitable[Looked]],
        chosen: Callable[[str], bool],
        limit: MaxDelete,
        every: float,
        report: Report,
        concurrency: int,
        watched: Watched,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._source, self._target = source, target
        self._hints, self._converge, self._rescan = hints, converge, rescan
        self._chosen, self._limit, self._every = chosen, limit, every
        self._report, self._watched = report, watched
        self._clock, self._sleep = clock, sleep
        self._pending = Pending()
        self._busy: set[str] = set()
        self._hands = concurrency
        self._watching, self._look_now, self._something = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._blind = self._lost = False
        self._objects: int | None = None
        self._deleted = 0

    async def run(self) -> None:
        """Watches. Ends only by being cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen())
            group.create_task(self._look_at_everything())
            group.create_task(self._flush())
            while True:
                await self._wait_for_something()
                self._watched.pending(len(self._pending) + len(self._busy))
                for key, failures in self._pending.take(self._clock(), self._hands - len(self._busy)).items():
                    if key in self._busy:
                        self._pending.touched(key, self._clock())
                    else:
                        self._busy.add(key)
                        group.create_task(self._settle(key, failures))

    async def _wait_for_something(self) -> None:
        """Until a key is due, and there is a hand for it."""
        due = self._pending.next() if len(self._busy) < self._hands else None
        self._something.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(None if due is None else max(0.0, due - self._clock())):
                await self._something.wait()

    async def _listen(self) -> None:
        """Takes in hints; when the watch breaks, begins it anew and has everything looked at."""
        failures = 0
        while True:
            began = self._clock()
            try:
                async for hints in self._hints():
                    if self._blind:  # nobody has told what happened meanwhile
                        self._blind = False
                        self._look_now.set()
                    self._watching.set()
                    self._note(hints)
                    if self._lost:
                        break
            except OSError as error:
                logger.warning("cannot watch the folder: %s; it is looked at every %.0f s", error, self._blind_pause)
            failures = failures + 1 if self._clock() - began < LAST_RETRY else 0
            self._blind, self._lost = True, False
            self._watching.set()
            self._look_now.set()
            await self._sleep(min(pause(failures), self._blind_pause))

    @property
    def _blind_pause(self) -> float:
        return min(BLIND_RESCAN, self._every)

    def _note(self, hints: Sequence[str]) -> None:
        now = self._clock()
        for key in hints:
            if key:
                self._pending.touched(key, now)
            else:
                self._lost = True
        if hints:
            self._watched.events(len(hints))
            self._something.set()
        if self._pending.overflown:
            self._pending.reset()
            self._look_now.set()

    async def _look_at_everything(self) -> None:
        failures, counted_from = 0, self._clock()
        await self._watching.wait()
        while True:
            self._look_now.clear()
            began = self._clock()
            if began - counted_from >= WINDOW:
                self._deleted, counted_from = 0, began
            problem = await self._look()
            failures = 0 if problem is None else failures + 1
            if problem is None:
                self._watched.passed(self._clock() - began)
            self._watched.well(None if problem is None else str(problem))
            await self._sleep(LEAST_BETWEEN if problem is None else pause(failures))
            if problem is None or isinstance(problem, Refused):
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._blind_pause if self._blind else self._every):
                        await self._look_now.wait()

    async def _look(self) -> Exception | None:
        """Looks at everything once; what came in between, which is logged."""
        try:
            looked = await self._rescan(self._deleted)
        except Exception as error:  # noqa: BLE001 - whatever it is, the watch goes on
            self._lost = isinstance(error, NoSuchBucket)
            logger.error("%s", error)
            return error
        self._objects = looked.objects
        self._deleted += looked.deleted
        return None

    async def _flush(self) -> None:
        while True:
            await self._sleep(FLUSH_EVERY)
            try:
                await asyncio.to_thread(self._report.flush)  # a database may take its time
            except OSError as error:
                logger.error("the report cannot be written: %s", error)

    async def _settle(self, key: str, failures: int) -> None:
        """Brings a key, or all keys below a folder's, into step; if that fails it is tried again."""
        well = False
        try:
            well = await (self._tree(key) if key.endswith("/") else self._key(key))
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one key must not stop the others
            logger.warning("%s: %s; tried again later", key, error)
        finally:
            self._busy.discard(key)
            self._something.set()
        if not well:
            self._pending.failed(key, self._clock(), failures + 1)

    async def _tree(self, prefix: str) -> bool:
        """Has everything looked at that either side lists below a prefix, or reports why that cannot be listed."""
        try:
            await self._source.confirm_absent(prefix)
        except AccessDenied:
            return await self._converged(prefix, deletes=False)
        for store in (self._source, self._target):
            async for page in store.list_pages(after=prefix):
                below = [entry.key for entry in page if entry.key.startswith(prefix)]
                for key in below:
                    self._pending.touched(key, self._clock())
                if len(below) < len(page):
                    break
        return True

    async def _key(self, key: str) -> bool:
        if not self._chosen(key) or is_trashed(key):
            return True
        gone = await self._is_gone(key)
        if gone and not await self._may_delete():
            self._look_now.set()
            return True
        return await self._converged(key, deletes=gone)

    async def _converged(self, key: str, *, deletes: bool) -> bool:
        """Converges a key and reports it; whether that went well. deletes: one that is counted already."""
        outcomes = await self._converge(key, deletes)
        if deletes and not any(outcome.did is Did.DELETED for outcome in outcomes):
            self._deleted -= 1
        for outcome in outcomes:
            self._report.add(outcome)
        if not deletes and any(outcome.did is Did.KEPT for outcome in outcomes):  # it went after we had looked
            self._pending.touched(key, self._clock())
        if any(isinstance(outcome.failure, NoSuchBucket) for outcome in outcomes):  # which concerns everything
            self._look_now.set()
        return not any(outcome.did is Did.FAILED for outcome in outcomes)

    async def _is_gone(self, key: str) -> bool:
        try:
            await self._source.confirm_absent(key)
        except StoreError:  # it is there; or it cannot be told, which converge finds too, and reports
            return False
        return True

    async def _may_delete(self) -> bool:
        """Whether one more delete needs no word from a person. Counts it if so, before anybody else can ask."""
        if self._objects is None or not self._limit.allows(self._deleted + 1, self._objects):
            return False
        self._deleted += 1
        if await self._source.is_empty(self._chosen):
            self._deleted -= 1
            return False
        return True
