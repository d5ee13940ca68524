"""The live mirror that `replicator serve` runs: what it is opened with, and what it tells of its work."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from replicator.bulk.report import Report, Reports
from replicator.catalogue.place import is_configured
from replicator.errors import QueueError
from replicator.live.batch import Handled
from replicator.live.counting import counter_for
from replicator.live.mirror import Mirror
from replicator.live.service import Service
from replicator.live.settling import is_final
from replicator.logs import logger
from replicator.model import Did, Outcome
from replicator.queues.opening import Queues
from replicator.s3.opening import check_sides
from replicator.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from replicator.metrics import Metrics

QUIET = frozenset({Did.IN_SYNC, Did.KEPT})
"""What is said at DEBUG only."""

COUNT_EVERY = 60.0
"""Seconds between two counts of the deletes that are held."""


class Telling:
    """Tells of what was handled: the log, and all reports. Is a Report, for outcomes that belong to no message."""

    def __init__(self, metrics: Metrics, reports: Sequence[Report]) -> None:
        self._metrics = metrics
        self._reports = Reports(*reports, metrics)

    async def __call__(self, handled: Sequence[Handled]) -> None:
        """Tells of a batch: once of each outcome, of however many messages it is."""
        for outcome in {id(outcome): outcome for one in handled for outcome in one.outcomes}.values():
            self.add(outcome)
        for one in handled:
            if one.error is not None:
                again = "failed for good" if is_final(one) else "tried again"
                logger.warning("message %s, %s: %s", one.message.message_id, again, one.error)
            if one.error is None and one.outcomes and one.changed is not None:
                self._metrics.lag((datetime.now(UTC) - one.changed).total_seconds())
        await asyncio.to_thread(self.flush)  # a database may take its time

    def add(self, outcome: Outcome) -> None:
        """Notes one outcome."""
        say = logger.debug if outcome.did in QUIET else logger.info
        say("%s: %s at %s (%s)", outcome.did.value, outcome.key, outcome.target, outcome.reason)
        self._reports.add(outcome)

    def flush(self) -> None:
        """As Report."""
        self._reports.flush()


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line asks for. batches: at once. drain: seconds that they have when the service is to end."""

    catalog: str | None
    batches: int
    drain: float


@asynccontextmanager
async def mirroring(
    routes: Sequence[Settings], queues: Queues, asked: Asked, metrics: Metrics
) -> AsyncIterator[Service]:
    """The service, ready to run. Raises ConfigurationError where a route's ends cannot be used."""
    for route in routes:
        await check_sides((route.source, *route.targets))
    with _catalogue(routes, asked.catalog) as recording:
        telling = Telling(metrics, recording)
        mirror = Mirror(routes, queues, counter_for(os.environ, asked.catalog), report=telling)
        counting = asyncio.create_task(_count_held(queues, metrics))
        try:
            yield Service(queues, mirror, told=telling, well=metrics.healthy, batches=asked.batches, drain=asked.drain)
        finally:
            counting.cancel()
            await mirror.close()
            await asyncio.to_thread(telling.flush)  # of ranges that were cut off


async def _count_held(queues: Queues, metrics: Metrics) -> None:
    """Tells now and then how many deletes wait for a person. What cannot be counted now is counted later."""
    while queues.held is not None:
        with suppress(QueueError):
            metrics.held(sum(await asyncio.to_thread(queues.held.depth)))
        await asyncio.sleep(COUNT_EVERY)


@contextmanager
def _catalogue(routes: Sequence[Settings], catalog: str | None) -> Iterator[Sequence[Report]]:
    if not is_configured(catalog, os.environ):
        yield ()
        return
    from replicator.catalogue.opening import catalogue_for, reports_for  # brings a database along

    with catalogue_for(catalog, os.environ) as catalogue:
        yield [report for route in routes for report in reports_for(catalogue, route)]
