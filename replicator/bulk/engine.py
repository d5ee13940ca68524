"""The local engine: passes over both listings until a pass finds nothing to do.

| listed at the source | listed at the target       | in a pass                                          |
|----------------------|----------------------------|----------------------------------------------------|
| yes                  | no                         | converge                                           |
| yes                  | same ETag, and not younger | in sync                                            |
| yes                  | otherwise                  | converge (looks at both)                           |
| no                   | yes                        | converge from the second pass on, if deletes are   |
|                      |                            | mirrored: all is copied before anything is deleted |

What changed since the run began is looked at again in every later pass, since its metadata may have been read before
and written after the change.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from replicator.budget import ByteBudget
from replicator.bulk.filters import KeyFilter
from replicator.bulk.prefetch import prefetch
from replicator.bulk.report import Report
from replicator.bulk.tally import Tally
from replicator.compare import listed_in_sync
from replicator.converge import DONE, Converger
from replicator.decide import Action, Do
from replicator.diff import Row, merge_pages
from replicator.errors import Refused, ReplicatorError
from replicator.model import Deletes, Did, Evidence, MiB, Outcome
from replicator.store import ObjectStore
from replicator.workers import run_workers

MOST_PASSES = 8
"""A source that is still changing after so many passes needs the live mirror."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is to do.

    concurrency: keys converged at once. memory: bytes of objects held at once. dry_run: only say what would be done.
    """

    deletes: Deletes = Deletes.KEEP
    concurrency: int = 64
    memory: int = 256 * MiB
    dry_run: bool = False
    deep: bool = False
    keys: KeyFilter = field(default_factory=KeyFilter)


class Migration:
    """One run from a source to its targets.

    clock: seconds since the epoch. Counts what it does in `tally`.
    """

    def __init__(
        self,
        source: ObjectStore,
        targets: Sequence[ObjectStore],
        plan: Plan,
        *,
        report: Report,
        tally: Tally,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._source = source
        self._targets = targets
        self._plan = plan
        self._report = report
        self._clock = clock
        self._began = 0.0
        self._listed = 0
        self.tally = tally
        self._converger = Converger(
            source, targets, deletes=plan.deletes, budget=ByteBudget(plan.memory), confirm=False
        )

    async def run(self) -> Tally:
        """Runs to the end: until a pass writes nothing, or makes no progress any more.

        Raises Refused before anything is deleted when the source lists nothing, and the StoreError of a listing that
        failed: then nothing was deleted either.
        """
        await self._source.check()
        self._began = self._clock() + self._source.clock_skew
        for _ in range(1 if self._plan.dry_run else MOST_PASSES):
            await self._pass()
            deletes_wait = self.tally.passes == 1 and self._mirrors_deletes and self.tally.extra > 0
            if not self.tally.pass_writes and not deletes_wait:
                break
        return self.tally

    @property
    def still_changing(self) -> bool:
        """Whether the last pass still found something to write."""
        return not self._plan.dry_run and self.tally.pass_writes > 0

    @property
    def _mirrors_deletes(self) -> bool:
        return self._plan.deletes is Deletes.MIRROR

    async def _pass(self) -> None:
        """Lists all sides once and converges what differs."""
        self.tally.start_pass()
        self._listed = 0
        work: asyncio.Queue[Row | None] = asyncio.Queue(4 * self._plan.concurrency)

        async def worker() -> None:
            while (row := await work.get()) is not None:
                await self._work(row)

        async def feed() -> None:
            async for rows in self._rows():
                for row in rows:
                    if self._needs_work(row):
                        await work.put(row)
            self.tally.listing_done = True
            for _ in range(self._plan.concurrency):
                await work.put(None)

        jobs = iter([feed] + [worker] * self._plan.concurrency)
        await run_workers(self._plan.concurrency + 1, lambda: next(jobs)())
        self._check_brake()

    def _rows(self) -> AsyncIterator[list[Row]]:
        sides = [prefetch(store.list_pages()) for store in (self._source, *self._targets)]
        return merge_pages(sides[0], sides[1:])

    def _needs_work(self, row: Row) -> bool:
        """Sorts a row by the table above; counts and reports what needs no work."""
        if not self._plan.keys.includes(row.key):
            return False
        entry = row.source
        if entry is None:
            self.tally.extra += 1
            return self._mirrors_deletes and (self.tally.passes > 1 or self._plan.dry_run)
        self._listed += 1
        every = self._plan.deep and self.tally.passes == 1
        since = self._began if self.tally.passes > 1 else None
        for store, target in zip(self._targets, row.targets, strict=True):
            skew = self._source.clock_skew - store.clock_skew
            if every or target is None or not listed_in_sync(entry, target, skew=skew, changed_since=since):
                self.tally.found_objects += 1
                self.tally.found_bytes += entry.size
                return True
        self.tally.compared += 1
        if self.tally.passes == 1:
            for store in self._targets:
                self._report.add(Outcome(row.key, store.name, Did.IN_SYNC, "same", Evidence.ETAG))
        return False

    async def _work(self, row: Row) -> None:
        outcomes = await (self._would(row) if self._plan.dry_run else self._converger.converge(row.key, row))
        if row.source is not None:
            self.tally.worked_bytes += row.source.size
            self.tally.compared += 1
        for outcome in outcomes:
            self.tally.add(outcome)
            if self.tally.passes == 1 or outcome.did is not Did.IN_SYNC:
                self._report.add(outcome)

    async def _would(self, row: Row) -> list[Outcome]:
        """The outcomes that converge would have, by looking only."""
        size = row.source.size if row.source is not None else 0
        if row.source is not None and not any(row.targets):
            actions = [Action(Do.COPY, "not at the target")] * len(self._targets)
        else:
            try:
                actions = await self._converger.look(row.key)
            except ReplicatorError as error:
                failed = (Did.FAILED, str(error))
                return [Outcome(row.key, store.name, *failed, failure=error) for store in self._targets]
        return [
            Outcome(
                row.key,
                store.name,
                DONE[action.do],
                action.reason,
                action.evidence,
                bytes=size if action.do is Do.COPY else 0,
                not_kept=action.not_kept,
            )
            for store, action in zip(self._targets, actions, strict=True)
        ]

    def _check_brake(self) -> None:
        """Holds deletes back when the source lists nothing: more often a wrong prefix or a lost policy than a wish."""
        if self._mirrors_deletes and self._listed == 0 and self.tally.extra > 0:
            raise Refused(
                f"{self._source.name} lists no object, the targets list {self.tally.extra}: nothing was deleted. "
                "Check the source's bucket and prefix; to empty a target on purpose, delete its objects there"
            )
