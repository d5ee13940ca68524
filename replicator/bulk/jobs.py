"""What a worker does with keys: sorts out which need work, and does it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from replicator.budget import ByteBudget
from replicator.bulk.plan import Plan
from replicator.bulk.sorting import SortedOut, Sorter
from replicator.bulk.tasks import Pass
from replicator.converge import DONE, Converger
from replicator.decide import NOT_AT_TARGET, Do
from replicator.diff import Row, Stretch
from replicator.errors import ReplicatorError
from replicator.model import Did, Listed, ObjectState, Outcome
from replicator.multipart import parts_of
from replicator.store import ObjectStore, SourceStore


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
        self._targets = targets
        self._plan = plan
        self._sorter = Sorter(source, targets, plan, name_in_sync=name_in_sync)
        self._converger = Converger(
            source,
            targets,
            deletes=plan.deletes,
            budget=ByteBudget(memory),
            confirm=plan.one_look,
            trash=plan.trash,
        )

    def sort_out(self, during: Pass, stretch: Stretch) -> SortedOut:
        """By the table of replicator.bulk.sorting."""
        return self._sorter.sort_out(during, stretch)

    async def work(self, row: Row, during: Pass) -> list[Outcome]:
        """Converges the key, or looks what that would do."""
        return await (self._would(row) if self._plan.dry_run else self._converged(row, during))

    async def _converged(self, row: Row, during: Pass) -> list[Outcome]:
        return await self._converger.converge(row.key, row, confirm=during.last)

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
