"""Verification: looks at every object of both sides and names every difference. Changes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from replicator.bulk.report import Report
from replicator.bulk.rows import included_rows
from replicator.bulk.tally import Tally
from replicator.converge import Converger
from replicator.decide import NOT_AT_TARGET, Action, Do
from replicator.diff import Row
from replicator.errors import ReplicatorError
from replicator.filters import KeyFilter
from replicator.model import Deletes, Did, Evidence, Outcome
from replicator.store import ObjectStore, SourceStore
from replicator.workers import work_through

DIFFERENCE = {
    Do.COPY: "differs",
    Do.METADATA: "differs",
    Do.TAGS: "differs",
    Do.DELETE: "only at the target",
}


@dataclass(slots=True)
class Findings:
    """What a verification found. Objects are counted once for each target.

    same: equal ones, by evidence. different: differences, by kind. failed: could not be compared. not_kept: equal but
    for what the target cannot hold.
    """

    same: Counter[Evidence] = field(default_factory=Counter)
    different: Counter[str] = field(default_factory=Counter)
    failed: int = 0
    not_kept: int = 0

    @property
    def equal(self) -> bool:
        """Whether everything was compared and nothing differs."""
        return not self.failed and not self.different


class Verification:
    """Compares a source with its targets, object by object: bytes by the strongest evidence, attributes and tags."""

    def __init__(
        self,
        source: SourceStore,
        targets: Sequence[ObjectStore],
        *,
        keys: KeyFilter,
        concurrency: int,
        report: Report,
        findings: Findings,
        tally: Tally,
    ) -> None:
        self._source = source
        self._targets = targets
        self._keys = keys
        self._concurrency = concurrency
        self._report = report
        self._findings = findings
        self._tally = tally
        self._looker = Converger(source, targets, deletes=Deletes.MIRROR)

    async def run(self) -> Findings:
        """Compares everything. Raises the StoreError of a listing that failed."""
        rows = included_rows(self._source, self._targets, self._keys)
        await work_through(rows, self._compare, concurrency=self._concurrency)
        return self._findings

    async def _compare(self, row: Row) -> None:
        self._tally.counts.source += 1
        try:
            _, actions = await self._looker.look(row.key)
        except ReplicatorError as error:
            self._findings.failed += len(self._targets)
            for store in self._targets:
                self._report.add(Outcome(row.key, store.name, Did.FAILED, str(error), failure=error))
            return
        for store, action in zip(self._targets, actions, strict=True):
            self._note(row.key, store, action)

    def _note(self, key: str, store: ObjectStore, action: Action) -> None:
        difference = DIFFERENCE.get(action.do)
        if difference is None:
            self._findings.same[action.evidence] += 1
            self._findings.not_kept += bool(action.not_kept)
            same = Outcome(key, store.name, Did.IN_SYNC, action.reason, action.evidence, not_kept=action.not_kept)
            self._report.add(same)
            return
        if action == NOT_AT_TARGET:
            difference = "missing at the target"
        self._findings.different[difference] += 1
        self._report.add(Outcome(key, store.name, Did.DIFFERS, f"{difference}: {action.reason}", action.evidence))
