"""Opens the two ends of a push, for whoever works on it: a process of its own, or the watch."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from replicator.bulk.jobs import MigrationJob
from replicator.bulk.plan import Plan
from replicator.bulk.worker import Send, Worker
from replicator.catalogue.catalogue import Catalogue
from replicator.directory.beneath import Base
from replicator.directory.store import DirectoryStore
from replicator.model import Attributes
from replicator.push.jobs import MirrorJob, MoveJob
from replicator.push.settle import Settle
from replicator.s3.opening import open_targets
from replicator.s3.pace import Limits
from replicator.s3.store import S3Store
from replicator.settings import PushSettings


@dataclass(frozen=True, slots=True)
class Origin:
    """What is pushed. common: attributes of all objects. route: what the catalogue calls it."""

    base: Base
    common: Attributes
    catalogue: Catalogue
    route: str

    def known(self, after: str, upto: str) -> Mapping[str, tuple[str, str]]:
        """What the catalogue has of these keys, for a DirectoryStore."""
        return self.catalogue.known(self.route, after, upto)

    def has_moved(self, key: str) -> bool:
        """Whether the catalogue says that a file was moved to this key, or, with "/" at its end, to one below it."""
        return self.catalogue.has_moved(self.route, key)

    def is_copy(self, key: str) -> bool:
        """Whether the catalogue says that this key was uploaded from here, and its file not removed since."""
        return self.catalogue.is_copy(self.route, key)


@dataclass(frozen=True, slots=True)
class Moving:
    """settle: when a file is complete. overwrite: also in the place of a file that was moved there before."""

    settle: Settle
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class Push:
    """All that a worker needs to know. moving: how files are moved; None if they are mirrored."""

    origin: Origin
    plan: Plan
    limits: Limits | None
    moving: Moving | None = None


@asynccontextmanager
async def open_ends(
    settings: PushSettings, origin: Origin, limits: Limits | None
) -> AsyncIterator[tuple[DirectoryStore, list[S3Store]]]:
    """The folder and its target. Raises ConfigurationError."""
    async with (
        DirectoryStore(origin.base, common=origin.common, known=origin) as source,
        open_targets(settings, limits=limits) as targets,
    ):
        yield source, targets


@asynccontextmanager
async def open_push_worker(settings: PushSettings, send: Send, *, push: Push) -> AsyncIterator[Worker]:
    """A worker with ends of its own."""
    async with open_ends(settings, push.origin, push.limits) as (source, targets):
        job = job_of(push, source, targets, memory=settings.memory)
        yield Worker(source, targets, job, send, concurrency=settings.concurrency)


def job_of(push: Push, source: DirectoryStore, targets: list[S3Store], *, memory: int) -> MirrorJob | MoveJob:
    """What is done with each file."""
    if push.moving is not None:
        return MoveJob(
            source,
            targets[0],
            memory=memory,
            settle=push.moving.settle,
            is_copy=push.origin.is_copy,
            overwrite=push.moving.overwrite,
            dry_run=push.plan.dry_run,
        )
    return MirrorJob(source, MigrationJob(source, targets, push.plan, memory=memory, name_in_sync=False))
