"""What a worker does with files: makes the bucket equal, or moves them there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from replicator.budget import ByteBudget
from replicator.bulk.jobs import MigrationJob
from replicator.bulk.sorting import SortedOut
from replicator.bulk.tasks import Pass
from replicator.compare import compare
from replicator.converge import Converger
from replicator.decide import NOT_AT_TARGET, Do
from replicator.diff import Row, Stretch
from replicator.directory.store import Activity, DirectoryStore
from replicator.errors import ChangedMeanwhile, Corrupted, NoSuchKey, NotAnObject, Rejected, StoreError
from replicator.model import Deletes, Did, Evidence, ObjectState, Outcome, Verdict, Version
from replicator.push.settle import Settle
from replicator.reading import digest_of
from replicator.store import ObjectStore

QUIET = 2.0
"""Seconds for which a file must have been left alone whose path tells a time that is over."""


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

    An object may be the only copy of a file that was moved away before, here or elsewhere. It is replaced by other
    bytes only if it is known not to be.

    settle: when a file is complete. is_copy: whether the object of a key is known to be of a file that was not removed
    since; may block. overwrite: any object is replaced. dry_run: only looks. clock: seconds since the epoch.
    """

    def __init__(
        self,
        source: DirectoryStore,
        target: ObjectStore,
        *,
        memory: int,
        settle: Settle,
        is_copy: Callable[[str], bool],
        overwrite: bool,
        dry_run: bool,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._source = source
        self._target = target
        self._settle = settle
        self._is_copy = is_copy
        self._overwrite = overwrite
        self._dry_run = dry_run
        self._clock = clock
        self._converger = Converger(
            source,
            [target],
            deletes=Deletes.KEEP,
            budget=ByteBudget(memory),
            check_replace=self._check_replace,
        )

    def sort_out(self, during: Pass, stretch: Stretch) -> SortedOut:
        """Files that are moved are named, not listed. Raises AssertionError."""
        raise AssertionError("files to be moved are named by their keys")

    async def work(self, row: Row, during: Pass) -> list[Outcome]:
        """Moves one file."""
        return [await self.move(row.key)]

    async def move(self, key: str) -> Outcome:
        """Uploads a file, unless it is being written, and removes it. Idempotent; raises nothing of a store."""
        try:
            if reason := await self._in_the_way(key):
                return Outcome(key, self._target.name, Did.KEPT, reason)
            if self._dry_run:
                return await self._look(key)
        except NoSuchKey:
            return Outcome(key, self._target.name, Did.IN_SYNC, "is gone")
        except NotAnObject as error:
            return Outcome(key, self._target.name, Did.SKIPPED, str(error), failure=error)
        except StoreError as error:
            return Outcome(key, self._target.name, Did.FAILED, str(error), failure=error)
        outcome = (await self._converger.converge(key))[0]
        if outcome.failure is not None or outcome.source is None:
            return outcome
        try:
            return await self._remove(outcome, outcome.source)
        except ChangedMeanwhile as error:
            return replace(outcome, reason=f"{outcome.reason}; left here: {error.detail}")
        except StoreError as error:
            return replace(outcome, did=Did.FAILED, reason=f"is uploaded, but not removed here: {error}", failure=error)

    async def _in_the_way(self, key: str) -> str:
        """Why a file has to wait, if it has. Raises StoreError."""
        found = await self._source.activity(key)
        if found.written:
            return "is still open for writing"
        age = self._clock() - max(found.modified, found.changed)
        if found.written is None and age < self._settle.seconds:
            return f"changed {age:.0f} s ago, and the system does not tell whether it is open for writing"
        if self._settle.settled_at(key, found.modified) > self._clock():
            return "has changed again"
        return "" if await self._stays_quiet(key, found) else "is being written, piece by piece"

    async def _stays_quiet(self, key: str, found: Activity) -> bool:
        """Waits until a file has been left alone for a moment, whatever the time in its path says; whether it was."""
        wait = min(QUIET, self._settle.seconds) - (self._clock() - found.modified)
        if not 0.0 < wait <= QUIET:
            return True
        await asyncio.sleep(wait)
        return await self._source.activity(key) == found

    async def _look(self, key: str) -> Outcome:
        """What would be done with a file that is complete. Raises StoreError."""
        _, (action,) = await self._converger.look(key)
        if action.do is Do.COPY and action != NOT_AT_TARGET:
            await self._check_replace(key)
        return Outcome(key, self._target.name, Did.MOVED, "settled")

    async def _check_replace(self, key: str) -> None:
        """Raises Rejected if the object of a key may be the only copy of something, unless that does not matter."""
        if not self._overwrite and not await asyncio.to_thread(self._is_copy, key):
            words = (
                "another object has this name, and may be the only copy of a file that was moved there before: the "
                "catalogue does not say that its file is still here; rename this one, or --overwrite"
            )
            raise Rejected("PutObject", key, words)

    async def _remove(self, outcome: Outcome, source: Version) -> Outcome:
        """Removes what is proved to be at the target. Raises StoreError when it is not, or not any more what it was."""
        key = outcome.key
        state = await self._source.head(key)
        if (state.version_id, state.etag) != (source.id, source.etag):
            raise ChangedMeanwhile("stat", key, "the file has changed since it was uploaded")
        if not await self._is_there(key, state):
            raise Corrupted("HeadObject", key, "the target does not hold what was uploaded")
        await self._source.remove(key, source.id)
        words = "uploaded" if outcome.did is not Did.IN_SYNC else "was there already"
        return replace(outcome, did=Did.MOVED, reason=f"{words}, and removed here")

    async def _is_there(self, key: str, state: ObjectState) -> bool:
        """Whether the target has these bytes. A stamp is the word of whoever wrote it: then they are read back."""
        there = await self._target.head(key)
        verdict, evidence = compare(state, there)
        if verdict is not Verdict.SAME or evidence is not Evidence.STAMP:
            return verdict is Verdict.SAME
        return await digest_of(self._target, key, there) == await digest_of(self._source, key, state)
