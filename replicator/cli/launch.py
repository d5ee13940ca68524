"""Starts what a run consists of: limits that processes share, worker processes or a worker of its own."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

from replicator.bulk.crew import Crew, LocalCrew
from replicator.bulk.jobs import MigrationJob
from replicator.bulk.plan import Plan, trash_of_run
from replicator.bulk.processes import ProcessCrew, fork_workers
from replicator.bulk.worker import Send, Worker
from replicator.cli.loop import loop_factory
from replicator.errors import ConfigurationError
from replicator.model import MiB
from replicator.s3.opening import open_stores
from replicator.s3.pace import Limits
from replicator.settings import Settings, Work

Some = TypeVar("Some", bound=Work)

LEAST_MEMORY = 16 * MiB
"""Bytes of objects that a process holds at once in any case."""


def cpus() -> int:
    """The CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def trash_of(text: str | None) -> str:
    """Where this run puts what it deletes, below the prefix of --trash; "" without. Raises ConfigurationError.

    What is deleted in one run must not replace what was deleted in another, in the same second.
    """
    if text is None:
        return ""
    prefix = text.strip("/")
    if not prefix:
        raise ConfigurationError(f"--trash {text!r}: give a prefix below the target")
    return trash_of_run(f"{prefix}/", datetime.now(UTC), secrets.token_hex(3))


@contextmanager
def shared_limits(work: Work) -> Iterator[Limits | None]:
    """What the endpoints may be asked, in a place that all processes share; None for as much as they bear."""
    if work.max_rps is None and work.bandwidth is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="replicator-") as directory:
        yield Limits(Path(directory), work.max_rps, work.bandwidth)


@contextmanager
def open_crew(work: Some, open_worker: Callable[[Some, Send], AbstractAsyncContextManager[Worker]]) -> Iterator[Crew]:
    """The workers of a run, which share its concurrency and memory. Call it before there is an event loop.

    open_worker: opens one with its share; has to be picklable where processes cannot be forked.
    """
    count = min(work.processes, work.concurrency)
    mine = replace(
        work,
        concurrency=-(-work.concurrency // count),
        memory=max(LEAST_MEMORY, work.memory // count),
    )
    opening = partial(open_worker, mine)
    if count == 1:
        yield LocalCrew(opening)
        return
    with fork_workers(count, opening, loop_factory()) as forked:
        yield ProcessCrew(forked)


@asynccontextmanager
async def open_worker(
    settings: Settings, send: Send, *, plan: Plan, limits: Limits | None, name_in_sync: bool
) -> AsyncIterator[Worker]:
    """A worker with stores of its own."""
    async with open_stores(settings, limits=limits) as (source, targets):
        job = MigrationJob(source, targets, plan, memory=settings.memory, name_in_sync=name_in_sync)
        yield Worker(source, targets, job, send, concurrency=settings.concurrency)
