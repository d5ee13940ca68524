"""The long-running push: one event loop that looks at everything now and then, and at what changes at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

from replicator.budget import ByteBudget
from replicator.bulk.checkpoint import open_checkpoint
from replicator.bulk.crew import LocalCrew
from replicator.bulk.engine import Migration
from replicator.bulk.report import Report
from replicator.bulk.tally import Tally
from replicator.bulk.worker import Send, Worker
from replicator.converge import Converger
from replicator.directory.store import DirectoryStore
from replicator.logs import logger
from replicator.model import Deletes, Did
from replicator.push.disks import check_disks
from replicator.push.moving import SettledFiles, prepare_folder, tidy_folder
from replicator.push.notify import hints_of
from replicator.push.opening import Push, job_of
from replicator.push.settle import Settle
from replicator.push.watching import Looked, Watch, Watched, pause
from replicator.s3.store import S3Store
from replicator.settings import PushSettings

LEAST_PAUSE = 0.2
"""Seconds between two walks through a folder whose files are moved."""


class Agent:
    """Pushes one folder for as long as it is not cancelled.

    state: where the disks that were there are remembered. every: seconds between looks at everything.
    """

    def __init__(
        self,
        settings: PushSettings,
        push: Push,
        source: DirectoryStore,
        targets: list[S3Store],
        *,
        state: Path | None,
        every: float,
        report: Report,
        watched: Watched,
    ) -> None:
        self._settings, self._push = settings, push
        self._source, self._targets = source, targets
        self._state = state
        self._every, self._report, self._watched = every, report, watched

    async def mirror(self) -> None:
        """Keeps the bucket equal to the folder."""
        plan, budget = self._push.plan, ByteBudget(self._settings.memory)
        mirroring = Converger(self._source, self._targets, deletes=Deletes.MIRROR, budget=budget, trash=plan.trash)
        keeping = Converger(self._source, self._targets, deletes=Deletes.KEEP, budget=budget)
        await Watch(
            self._source,
            self._targets[0],
            hints=partial(hints_of, self._push.origin.base.path),
            converge=lambda key, deletes: (mirroring if deletes else keeping).converge(key),
            rescan=self._look,
            chosen=plan.keys.includes,
            limit=plan.max_delete,
            every=self._every,
            report=self._report,
            concurrency=self._settings.concurrency,
            watched=self._watched,
        ).run()

    async def move(self, settle: Settle) -> None:
        """Moves every file away when it is settled."""
        changed = asyncio.Event()
        listening = asyncio.create_task(self._listen(changed))
        failures = 0
        try:
            while True:
                began, due = time.monotonic(), float("inf")
                changed.clear()
                try:
                    due = await self._move_settled(settle)
                    failures = 0
                    self._watched.passed(time.monotonic() - began)
                    self._watched.well(None)
                except Exception as error:  # noqa: BLE001 - whatever it is, the watch goes on
                    failures += 1
                    due = time.time() + pause(failures)
                    logger.error("%s", error)
                    self._watched.well(str(error))
                await self._wait(changed, due, settle.seconds)
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    async def _wait(self, changed: asyncio.Event, due: float, settle: float) -> None:
        """Until the first file that is known is settled, or one that changes now."""
        seconds = max(LEAST_PAUSE, min(due - time.time(), self._every))
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await changed.wait()
            await asyncio.sleep(max(LEAST_PAUSE, min(settle, due - time.time())))

    async def _listen(self, changed: asyncio.Event) -> None:
        while True:
            try:
                async for hints in hints_of(self._push.origin.base.path):
                    if hints:
                        self._watched.events(len(hints))
                        changed.set()
            except OSError as error:
                logger.warning("cannot watch the folder: %s; tried again in %.0f s", error, pause(1))
            changed.set()
            await asyncio.sleep(pause(1))

    async def _look(self, deleted: int) -> Looked:
        """Makes everything equal. deleted: what counts against the limit already. Raises ReplicatorError."""
        check_disks(self._push.origin.base, self._state)
        tally = Tally()
        tally.deleted[self._targets[0].name] = deleted
        try:
            async with self._migration(tally) as run:
                await run.run()
        finally:
            await asyncio.to_thread(self._report.flush)
        objects = tally.counts.targets[0] if tally.counts.targets else 0
        return Looked(objects, tally.did[Did.DELETED])

    async def _move_settled(self, settle: Settle) -> float:
        """Moves what is settled; when the next file will be. Raises ReplicatorError."""
        base = self._push.origin.base
        folders = await asyncio.to_thread(prepare_folder, base, settle.seconds)
        files = SettledFiles(base, settle, self._push.plan.keys.includes)
        try:
            async with self._migration(Tally(), keys=files.keys()) as run:
                await run.run()
        finally:
            await asyncio.to_thread(self._report.flush)
        await asyncio.to_thread(tidy_folder, base, folders, self._push.origin.has_moved)
        return files.next

    @asynccontextmanager
    async def _migration(
        self, tally: Tally, keys: AsyncIterator[Sequence[str]] | None = None
    ) -> AsyncIterator[Migration]:
        with open_checkpoint(None, self._push.origin.route) as checkpoint:
            async with LocalCrew(self._open_worker) as crew:
                yield Migration(
                    self._source,
                    self._targets,
                    self._push.plan,
                    crew=crew,
                    checkpoint=checkpoint,
                    report=self._report,
                    tally=tally,
                    keys=keys,
                )

    @asynccontextmanager
    async def _open_worker(self, send: Send) -> AsyncIterator[Worker]:
        job = job_of(self._push, self._source, self._targets, memory=self._settings.memory)
        yield Worker(self._source, self._targets, job, send, concurrency=self._settings.concurrency)
