"""Whole migrations: in one event loop for tests that have their stores at hand, or as the command that people run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

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

SECONDS = 60
"""After which a command that people run has not come to its end, or something that was to happen never will: on a quiet
machine it takes two.
"""

PROGRESS = re.compile(r'^\{"event": "progress", .*\}\n', re.MULTILINE)


def without_progress(said: str) -> str:
    """What a command said on stderr, but for the lines that tell every ten seconds how it goes: a slow machine's do."""
    return PROGRESS.sub("", said)


def run_command(
    command: Sequence[str | Path], variables: Mapping[str, str], *, seconds: float = SECONDS, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs a command of ours to its end, with these variables alone; never with a traceback. stderr has no progress."""
    done = subprocess.run(
        command,
        env=dict(variables),
        cwd=cwd,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=seconds,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    done.stderr = without_progress(done.stderr)
    return done


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
    source: str, target: str, *options: object, seconds: float = SECONDS, **variables: str
) -> subprocess.CompletedProcess[str]:
    """`replicator migrate from to`, run to its end between such endpoints."""
    command = [sys.executable, "-m", "replicator", "migrate", "from", "to", *map(str, options)]
    return run_command(command, {**variables_between(source, target), **variables}, seconds=seconds)


def children(process: subprocess.Popen[Any]) -> list[int]:
    """The processes that a process has started and not buried."""
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def lives(pid: int) -> bool:
    """Whether there is a process of that number that has not ended, buried or not."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False
