"""A whole migration in one event loop, for tests that have their stores at hand."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from replicator.bulk.checkpoint import open_checkpoint
from replicator.bulk.crew import LocalCrew
from replicator.bulk.engine import Migration
from replicator.bulk.jobs import MigrationJob
from replicator.bulk.plan import Plan
from replicator.bulk.report import NoReport, Report
from replicator.bulk.tally import Tally
from replicator.bulk.worker import Send, Worker
from replicator.model import MiB
from replicator.store import ObjectStore


@asynccontextmanager
async def migration(
    source: ObjectStore,
    targets: Sequence[ObjectStore],
    plan: Plan,
    *,
    concurrency: int = 4,
    report: Report | None = None,
    tally: Tally | None = None,
    state: Path | None = None,
    keys: AsyncIterator[Sequence[str]] | None = None,
    clock: Callable[[], float] = time.time,
) -> AsyncIterator[Migration]:
    """A migration that is ready to run; state: file of its checkpoint."""

    @asynccontextmanager
    async def open_worker(send: Send) -> AsyncIterator[Worker]:
        job = MigrationJob(source, targets, plan, memory=256 * MiB, name_in_sync=True)
        yield Worker(source, targets, job, send, concurrency=concurrency, clock=clock)

    with open_checkpoint(state, "a test") as checkpoint:
        async with LocalCrew(open_worker) as crew:
            yield Migration(
                source,
                targets,
                plan,
                crew=crew,
                checkpoint=checkpoint,
                report=report or NoReport(),
                tally=tally or Tally(),
                keys=keys,
                clock=clock,
            )
