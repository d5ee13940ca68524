"""The local engine: passes over both listings until a pass finds nothing to do.

| listed at the source | listed at the target       | in a pass                                                     |
|----------------------|----------------------------|---------------------------------------------------------------|
| yes                  | no                         | converge                                                      |
| yes                  | same ETag, and not younger | in sync                                                       |
| yes                  | otherwise                  | converge (looks at both)                                      |
| no                   | yes                        | if deletes are mirrored: noted, and converged at the end of   |
|                      |                            | the pass, when all listings have come to their end in order   |

What changed since the run began is looked at again in every later pass, since its metadata may have been read before
and written after the change.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field

from replicator.budget import ByteBudget
from replicator.bulk.candidates import Candidates
from replicator.bulk.filters import KeyFilter
from replicator.bulk.report import Report
from replicator.bulk.rows import included_rows
from replicator.bulk.tally import Tally
from replicator.compare import listed_in_sync
from replicator.converge import DONE, Converger
from replicator.decide import NOT_AT_TARGET, Do
from replicator.diff import Row
from replicator.errors import Refused, ReplicatorError
from replicator.model import Deletes, Did, Evidence, MiB, Outcome
from replicator.store import ObjectStore
from replicator.workers import work_through

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
        """Runs to the end: until a pass writes nothing that helps.

        Raises Refused before anything is deleted when the source lists nothing, and the StoreError of a listing that
        failed: nothing is deleted in a pass whose listings did not come to their end.
        """
        await self._source.check()
        self._began = self._clock() + self._source.clock_skew
        for _ in range(1 if self._plan.dry_run else MOST_PASSES):
            with Candidates() as candidates:
                await self._pass(candidates)
            if not self.tally.pass_writes:
                break
        return self.tally

    @property
    def still_changing(self) -> bool:
        """Whether the last pass still found something to write."""
        return not self._plan.dry_run and self.tally.pass_writes > 0

    async def _pass(self, candidates: Candidates) -> None:
        """Lists all sides once and converges what differs; deletes come last."""
        self.tally.start_pass()
        self._listed = 0
        await work_through(self._differing(candidates), self._work, concurrency=self._plan.concurrency)
        self.tally.listing_done = True
        if candidates.count:
            self._check_brake(candidates.count)
            gone = (Row(key, None, ()) for key in candidates)
            await work_through(_each(gone), self._work, concurrency=self._plan.concurrency)

    async def _differing(self, candidates: Candidates) -> AsyncIterator[Row]:
        """The rows of the merged listings that need work now."""
        async for row in included_rows(self._source, self._targets, self._plan.keys):
            if self._needs_work(row, candidates):
                yield row

    def _needs_work(self, row: Row, candidates: Candidates) -> bool:
        """Sorts a row by the table above; notes what waits, counts and reports what needs no work."""
        entry = row.source
        if entry is None:
            self.tally.extra += 1
            if self._plan.deletes is Deletes.MIRROR:
                candidates.add(row.key)
            return False
        self._listed += 1
        every = self._plan.deep and (self.tally.passes == 1 or self.tally.failed_before > 0)
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
            actions = [NOT_AT_TARGET] * len(self._targets)
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

    def _check_brake(self, candidates: int) -> None:
        """Holds deletes back when the source lists nothing: more often a wrong prefix or a lost policy than a wish."""
        if self._listed == 0:
            raise Refused(
                f"{self._source.name} lists no object, the targets list {candidates}: nothing was deleted. Check the "
                "source's bucket and prefix; to empty a target on purpose, delete its objects there"
            )


async def _each(rows: Iterable[Row]) -> AsyncIterator[Row]:
    for row in rows:
        yield row
