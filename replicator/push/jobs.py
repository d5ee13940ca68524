"""What a worker does with files: makes the bucket equal, or moves them there."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from replicator.budget import ByteBudget
from replicator.bulk.jobs import MigrationJob, SortedOut
from replicator.bulk.tasks import Pass
from replicator.compare import compare
from replicator.converge import Converger
from replicator.diff import Row, Stretch
from replicator.directory.store import DirectoryStore
from replicator.errors import ChangedMeanwhile, StoreError
from replicator.model import Deletes, Did, Outcome, Verdict
from replicator.store import ObjectStore


class MirrorJob:
    """A MigrationJob that first sees whether an object that is there was made of the same bytes in another way."""

    def __init__(self, source: DirectoryStore, job: MigrationJob) -> None:
        self._source = source
        self._job = job

    def sort_out(self, during: Pass, stretch: Stretch) -> SortedOut:
        """As the other."""
        return self._job.sort_out(during, stretch)

    async def work(self, row: Row, during: Pass) -> list[Outcome]:
        """As the other."""
        target = row.targets[0] if row.targets else None
        if row.source is not None and target is not None and target.size == row.source.size and not row.source.etag:
            with suppress(StoreError):  # converge finds the same, and says it
                await self._source.adopt(row.key, target.etag)
        return await self._job.work(row, during)


class MoveJob:
    """Uploads files, and removes each that is at the target as it was read, and has not changed since.

    dry_run: only looks.
    """

    def __init__(self, source: DirectoryStore, target: ObjectStore, *, memory: int, dry_run: bool) -> None:
        self._source = source
        self._target = target
        self._dry_run = dry_run
        self._converger = Converger(source, [target], deletes=Deletes.KEEP, budget=ByteBudget(memory))

    def sort_out(self, during: Pass, stretch: Stretch) -> SortedOut:
        """Files that are moved are named, not listed. Raises AssertionError."""
        raise AssertionError("files to be moved are named by their keys")

    async def work(self, row: Row, during: Pass) -> list[Outcome]:
        """Moves one file."""
        return [await self.move(row.key)]

    async def move(self, key: str) -> Outcome:
        """Uploads a file, unless it is being written, and removes it. Idempotent; raises nothing of a store."""
        with suppress(StoreError):  # converge finds the same, and says it
            if await self._source.is_being_written(key):
                return Outcome(key, self._target.name, Did.KEPT, "is still open for writing")
        if self._dry_run:
            return Outcome(key, self._target.name, Did.MOVED, "settled")
        outcome = (await self._converger.converge(key))[0]
        if outcome.failure is not None or outcome.source is None:
            return outcome
        try:
            return await self._remove(outcome)
        except ChangedMeanwhile as error:
            return replace(outcome, reason=f"{outcome.reason}; left here: {error.detail}")
        except StoreError as error:
            return replace(outcome, did=Did.FAILED, reason=f"is uploaded, but not removed here: {error}", failure=error)

    async def _remove(self, outcome: Outcome) -> Outcome:
        """Removes what is proved to be at the target. Raises StoreError when it is not, or not any more what it was."""
        key, source = outcome.key, outcome.source
        state = await self._source.head(key)
        if source is None or (state.version_id, state.etag) != (source.id, source.etag):
            raise ChangedMeanwhile("stat", key, "the file has changed since it was uploaded")
        there = await self._target.head(key)
        if compare(state, there).verdict is not Verdict.SAME:
            raise ChangedMeanwhile("HeadObject", key, "the target does not hold what was uploaded")
        await self._source.remove(key, source.id)
        words = "uploaded" if outcome.did is not Did.IN_SYNC else "was there already"
        return replace(outcome, did=Did.MOVED, reason=f"{words}, and removed here")
