"""Sorts out, by listings alone, which keys need work.

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

from replicator.bulk.plan import Plan, is_trashed
from replicator.bulk.tasks import Counts, Pass
from replicator.compare import listed_in_sync, pages_in_sync
from replicator.diff import Row, Stretch, merge_sorted
from replicator.model import Deletes, Did, Evidence, Outcome, Version
from replicator.store import ObjectStore, SourceStore


@dataclass(slots=True)
class SortedOut:
    """A stretch of keys: what was seen, what needs work, what only targets list, and what can be said already."""

    counts: Counts
    rows: list[Row] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)


class Sorter:
    """Sorts the keys of one source and its targets. name_in_sync: whether to report what needs no work, too."""

    def __init__(self, source: SourceStore, targets: Sequence[ObjectStore], plan: Plan, *, name_in_sync: bool) -> None:
        self._source = source
        self._targets = targets
        self._plan = plan
        self._name_in_sync = name_in_sync

    def sort_out(self, during: Pass, stretch: Stretch) -> SortedOut:
        """Sorts by the table above."""
        if self._all_in_sync(during, stretch):
            objects, others = len(stretch.source), len(self._targets)
            return SortedOut(Counts(objects, [objects] * others, [0] * others))
        rows = self._plan.keys.of(merge_sorted(stretch.source, stretch.targets))
        rows = [row for row in rows if row.source is not None or not is_trashed(row.key)]  # nor are they to be counted
        result = SortedOut(Counts(targets=[0] * len(self._targets), extra=[0] * len(self._targets)))
        skews = [self._source.clock_skew - store.clock_skew for store in self._targets]
        for row in rows:
            if row.source is None:
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
