"""One route of the live mirror, with stores that are open: does what messages ask for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Sequence

from replicator.budget import ByteBudget
from replicator.bulk.report import Report
from replicator.converge import Converger
from replicator.items import Item, PartsItem, RangeItem
from replicator.live.batch import KeyTask, Task
from replicator.live.brake import DeleteBrake
from replicator.live.large import LargeObjects
from replicator.live.ranges import Ranges
from replicator.model import Did, Listed, Outcome
from replicator.settings import Settings
from replicator.store import ObjectStore, SourceStore

Send = Callable[[Sequence[Item]], Awaitable[None]]

CHANGES = frozenset({Did.COPIED, Did.METADATA, Did.TAGS, Did.BEGUN})
"""What counts as a change for the brake on deletes."""


class RouteWork:
    """Does the tasks of one route.

    brake: asked before deletes. send: sends work items. report: told of the outcomes of ranges. large_from: bytes from
    which objects are copied part by part by many. now: seconds since the epoch.
    """

    def __init__(
        self,
        settings: Settings,
        source: SourceStore,
        targets: Sequence[ObjectStore],
        *,
        brake: DeleteBrake,
        send: Send,
        report: Report,
        large_from: int,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.brake = brake
        self._report = report
        self._keys = settings.keys
        budget = ByteBudget(settings.memory)
        self._large = LargeObjects(settings.name, source, targets, budget=budget, send=send, least=large_from, now=now)
        self._converger = Converger(
            source,
            targets,
            deletes=settings.deletes,
            budget=budget,
            may_delete=brake.allows,
            hand_out=self._large,
        )
        self._ranges = Ranges(
            self._converger, chosen=settings.keys, send=send, report=self, concurrency=settings.concurrency
        )

    async def do(self, task: Task, *, seconds: float) -> list[Outcome]:
        """Does a task in that time; the outcomes of its keys, but for those of a range, which the report is told.

        Raises what LargeObjects.work and Ranges.work raise; what is wrong with a key is in its outcome.
        """
        match task:
            case KeyTask():
                return await self._key(task.key, seconds, guess=task.guess, released=task.released)
            case RangeItem():
                await self._ranges.work(task, seconds=seconds)
                await asyncio.to_thread(self._report.flush)  # a database may take its time
                return []
            case PartsItem():
                return await self._parts(task, seconds)

    def add(self, outcome: Outcome) -> None:
        """Notes an outcome of a range, for the brake too."""
        self.brake.changed(outcome.did in CHANGES)
        self._report.add(outcome)

    def flush(self) -> None:
        """As Report."""
        self._report.flush()

    async def _parts(self, item: PartsItem, seconds: float) -> list[Outcome]:
        worked = await self._large.work(item, seconds=seconds)
        outcomes = await self._key(item.key, seconds, targets=worked.converge) if worked.converge else []
        if worked.error is not None:
            raise worked.error
        return outcomes

    async def _key(
        self,
        key: str,
        seconds: float,
        *,
        guess: Listed | None = None,
        released: bool = False,
        targets: Collection[str] | None = None,
    ) -> list[Outcome]:
        if not self._keys.includes(key):
            return []
        outcomes = await self._converger.converge(key, guess=guess, seconds=seconds, released=released, targets=targets)
        self.brake.changed(any(outcome.did in CHANGES for outcome in outcomes))
        return outcomes
