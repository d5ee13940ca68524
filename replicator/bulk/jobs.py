"""What a worker does with keys: sorts out which need work, by their listings, and does it.

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

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from replicator.budget import ByteBudget
from replicator.bulk.plan import Plan, is_trashed
from replicator.bulk.tasks import Counts, Pass
from replicator.compare import listed_in_sync, pages_in_sync
from replicator.converge import DONE, Converger
from replicator.decide import NOT_AT_TARGET, Do
from replicator.diff import Row, Stretch, merge_sorted
from replicator.errors import ReplicatorError
from replicator.model import Deletes, Did, Evidence, Listed, ObjectState, Outcome, Version
from replicator.multipart import parts_of
from replicator.store import ObjectStore, SourceStore


@dataclass(slots=True)
class SortedOut:
    """A stretch of keys: what was seen, what needs work, what only targets list, and what can be said already."""

    counts: Counts
    rows: list[Row] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)


class Job(Protocol):
    """What a worker does with keys."""

    def sort_out(self, during: Pass, stretch: Stretch) -> SortedOut:
        """Decides by listings alone."""

    async def work(self, row: Row, during: Pass) -> list[Outcome]:
        """Does what is to be done for a key; one outcome for each target. Never raises a StoreError."""


class MigrationJob:
    """Makes the targets equal, or in a dry run says what would be done.

    name_in_sync: whether to report what needs no work, too.
    """

    def __init__(
        self, source: SourceStore, targets: Sequence[ObjectStore], plan: Plan, *, memory: int, name_in_sync: bool
    ) -> None:
        self._source = source
        self._targets = targets
        self._plan = plan
        self._name_in_sync = name_in_sync
        self._converger = Converger(
            source,
            targets,
            deletes=plan.deletes,
            budget=ByteBudget(memory),
            confirm=plan.one_look,
            trash=plan.trash,
        )

    def sort_out(self, during: Pass, stretch: Stretch) -> SortedOut:
        """Sorts by the table above."""
        if self._all_in_sync(during, stretch):
            objects, others = len(stretch.source), len(self._targets)
            return SortedOut(Counts(objects, [objects] * others, [0] * others))
        rows = self._plan.keys.of(merge_sorted(stretch.source, stretch.targets))
        result = SortedOut(Counts(targets=[0] * len(self._targets), extra=[0] * len(self._targets)))
        skews = [self._source.clock_skew - store.clock_skew for store in self._targets]
        for row in rows:
            if row.source is None:
                if not is_trashed(row.key):
                    self._note_gone(row, result)
            elif during.every or not all(
                target is not None and listed_in_sync(row.source, target, skew, during.changed_since)
                for target, skew in zip(row.targets, skews, strict=True)
            ):
                result.rows.append(row)
            elif self._name_in_sync and during.number == 1:
                seen = Version(row.source.size, row.source.etag, row.source.modified)
                result.outcomes += [
                    Outcome(row.key, store.name, Did.IN_SYNC, "same", Evidence.ETAG, source=seen)
                    for store in self._targets
                ]
        result.counts.source = sum(row.source is not None for row in rows)
        for n in range(len(self._targets)):
            result.counts.targets[n] = sum(row.targets[n] is not None for row in rows)
        return result

    def _all_in_sync(self, during: Pass, stretch: Stretch) -> bool:
        """Whether a glance at a whole stretch is enough: most stretches of most runs are in sync."""
        if during.every or (self._name_in_sync and during.number == 1) or not self._plan.keys.takes_all:
            return False
        return all(
            pages_in_sync(stretch.source, page, self._source.clock_skew - store.clock_skew, during.changed_since)
            for store, page in zip(self._targets, stretch.targets, strict=True)
        )

    def _note_gone(self, row: Row, result: SortedOut) -> None:
        for n, target in enumerate(row.targets):
            result.counts.extra[n] += target is not None
        if self._plan.deletes is Deletes.MIRROR:
            result.gone.append(row.key)

    async def work(self, row: Row, during: Pass) -> list[Outcome]:
        """Converges the key, or looks what that would do."""
        return await (self._would(row) if self._plan.dry_run else self._converger.converge(row.key, row))

    async def _would(self, row: Row) -> list[Outcome]:
        """The outcomes that converge would have, by looking only."""
        known: Listed | ObjectState | None = row.source
        actions = [NOT_AT_TARGET] * len(self._targets)
        if known is None or any(row.targets):
            try:
                source, actions = await self._converger.look(row.key)
            except ReplicatorError as error:
                failed = (Did.FAILED, str(error))
                return [Outcome(row.key, store.name, *failed, failure=error) for store in self._targets]
            known = source.state if source is not None else None
        return [
            Outcome(
                row.key,
                store.name,
                DONE[action.do],
                action.reason,
                action.evidence,
                bytes=known.size if known is not None and action.do is Do.COPY else 0,
                not_kept=action.not_kept,
                parts=(parts_of(known.etag) if known is not None else None) or 1,
            )
            for store, action in zip(self._targets, actions, strict=True)
        ]
