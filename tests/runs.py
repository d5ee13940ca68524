"""Whole migrations: in one event loop for tests that have their stores at hand, or as the command that people run."""

from __future__ import annotations

import os
import subprocess
import sys
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


ROOT = Path(__file__).parents[1]


def variables_between(source: str, target: str) -> dict[str, str]:
    """The environment for a command between two endpoints that take any keys."""
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "SOURCE_ENDPOINT": source,
        "TARGET_ENDPOINT": target,
        "AWS_ACCESS_KEY_ID": "any",
        "AWS_SECRET_ACCESS_KEY": "any",
    }


def migrate_between(
    source: str, target: str, *options: object, seconds: float = 60, **variables: str
) -> subprocess.CompletedProcess[str]:
    """`replicator migrate from to`, run to its end between such endpoints; never with a traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "replicator", "migrate", "from", "to", *map(str, options)],
        env={**variables_between(source, target), **variables},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done
