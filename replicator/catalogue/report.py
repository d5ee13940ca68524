"""A report that tells the catalogue (replicator.bulk.report)."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock
from typing import TYPE_CHECKING

from replicator.catalogue.entries import Entry, entry_of
from replicator.model import Outcome

if TYPE_CHECKING:
    from replicator.catalogue.catalogue import Catalogue

BATCH = 1000
"""Entries that are recorded at once."""


class CatalogueReport:
    """Records the outcomes of one route.

    target: leaves out those at other targets. told: hears after every try whether the catalogue takes what it is given.
    clock: seconds since the epoch.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        route: str,
        *,
        target: str | None = None,
        told: Callable[[bool], None] = lambda _: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._catalogue = catalogue
        self._route = route
        self._target = target
        self._told = told
        self._clock = clock
        self._waiting: list[Entry] = []
        self._one_at_a_time = Lock()

    def add(self, outcome: Outcome) -> None:
        """Notes an outcome; at every 1,000 waits for the database."""
        if self._target not in (None, outcome.target):
            return
        entry = entry_of(outcome, self._route, self._clock())
        if entry is not None:
            self._waiting.append(entry)
        if len(self._waiting) >= BATCH:
            self.flush()

    def flush(self) -> None:
        """Records what was noted since; what was kept in an outage is caught up."""
        with self._one_at_a_time:  # or an older word could be recorded after a newer one
            waiting = self._waiting[:]
            self._catalogue.record(waiting)
            del self._waiting[: len(waiting)]  # what was noted meanwhile stays
        self._told(not self._catalogue.is_away)
