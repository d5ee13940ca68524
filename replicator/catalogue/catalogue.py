"""The catalogue as runs use it: never a reason to stop. What cannot be recorded now is kept, and caught up later.

record ──▶ primary (PostgreSQL, or SQLite) ── is away ──▶ spool (SQLite, beside a server) ── is away ──▶ memory
              ▲                                              │                                             │
              └────────────── is back: caught up, the older first ◀────────────────────────────────────────┘
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self

from replicator.catalogue.database import PAGE, Away, Database, Wanted
from replicator.catalogue.entries import Entry
from replicator.catalogue.place import url_of
from replicator.errors import ConfigurationError, ReplicatorError

RETRY_SECONDS = 30.0
"""For which a database that is away is left alone: each try may take seconds."""

BATCH = 2000
"""Entries of one transaction."""

KEPT = 100_000
"""Entries in memory at the most."""

PAGES = 20
"""Pages of the spool that are caught up by one call, which somebody waits for."""


def open_catalogue(
    url: str,
    *,
    spool: Path | None = None,
    clock: Callable[[], float] = time.monotonic,
    warn: Callable[[str], None],
) -> Catalogue:
    """The catalogue at a URL of catalogue_url(). Connects to nothing yet, and so may be done before a fork.

    spool: file for what a server does not take; not used for SQLite, which is a file itself. clock: seconds, to wait
    by. warn: takes a line that is said once for each outage.
    """
    primary = Database(url)
    beside = Database(url_of(spool)) if spool is not None and not primary.is_file else None
    return Catalogue(primary, beside, clock=clock, warn=warn)


class Catalogue:
    """What became of every key.

    `record`, `known`, `has_moved`, `is_copy` and `close` never raise for a database that cannot be used. They may be
    called from any thread, and wait for the database: some milliseconds, seconds when it does not answer.
    """

    def __init__(
        self,
        primary: Database,
        spool: Database | None,
        *,
        clock: Callable[[], float],
        warn: Callable[[str], None],
        pages: int = PAGES,
    ) -> None:
        self._primary = primary
        self._spool = spool
        self._clock = clock
        self._owner = os.getpid()
        self._say = warn
        self._pages = pages
        self._lock = threading.Lock()
        self._away_until: float | None = None
        self._outage = False
        self._spooled = spool is not None and spool.is_made()
        self._kept: deque[Entry] = deque()
        self._lost = 0
        self._caught_up = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def is_away(self) -> bool:
        """Whether it could not be used when that was last tried."""
        return self._outage

    def record(self, entries: Sequence[Entry]) -> None:
        """Notes what became of keys, the last of a key counts; nothing given, it only catches up. Idempotent."""
        with self._lock:
            left = list(entries)

            def send() -> None:
                while left:
                    self._primary.record(left[:BATCH])
                    del left[:BATCH]

            if left or self._waits:
                self._attempt(send)
            if left:
                self._keep(left)

    def known(self, route: str, after: str, upto: str | None, *, limit: int = 10_000) -> dict[str, tuple[str, str]]:
        """The source's version and its ETag of the keys in (after, upto] that were uploaded and may be believed.

        In the order of keys, at most `limit`: there may be more, even after fewer. Nothing while it cannot be read.
        """
        with self._lock:
            found: dict[str, tuple[str, str] | None] = {}

            def read() -> None:
                found.update(self._primary.versions(route, after, upto, limit=limit, believable=True))

            if self._there:
                self._attempt(read)
            if self._spool is not None and self._spooled:
                found = self._with_spooled(self._spool, found, route, after, upto, limit)
            return {key: pair for key, pair in found.items() if pair is not None}

    def has_moved(self, route: str, key: str) -> bool:
        """Whether a file was moved to this key before; or, if it ends with "/", to one below it. False if unknown."""
        with self._lock:
            found = self._ask(lambda: self._primary.has_moved(route, key))
            if not found and self._spool is not None and self._spooled:
                with suppress(Away):
                    found = self._spool.has_moved(route, key)
            return found or any(entry.moved_at is not None and entry.tells_of(route, key) for entry in self._kept)

    def is_copy(self, route: str, key: str) -> bool:
        """Whether an object is known to be of a file that was uploaded and not removed since. False if unknown."""
        if self.has_moved(route, key):  # what waits to be caught up may know more
            return False
        with self._lock:
            return self._ask(lambda: self._primary.is_copy(route, key))

    def routes(self, text: str | None = None) -> list[str]:
        """The names of the routes, or of those with `text` in them; of one alone that is called so.

        Raises ConfigurationError when there is no catalogue, or it cannot be used.
        """
        return list(self._numbers(text))

    def find(self, route: str | None = None, wanted: Wanted | None = None) -> Iterator[Entry]:
        """Entries by route and key, read as they are taken. route: as in routes().

        Raises ConfigurationError as routes() does, and ReplicatorError when the database goes away meanwhile.
        """
        numbers = self._numbers(route)
        try:
            for name, number in numbers.items():
                yield from self._primary.find(name, number, wanted or Wanted())
        except Away as error:
            raise ReplicatorError(f"catalogue {self._primary.name}: {error}") from error

    def close(self) -> None:
        """Tries once more to catch up, and ends the connections. What is in the spool is for the next run."""
        self.record(())
        with self._lock:
            if self._kept or self._lost:
                count = len(self._kept) + self._lost
                self._warn(f"catalogue {self._primary.name}: {count:,} entries could not be recorded and are lost")
                self._kept.clear()
                self._lost = 0
            self._primary.close()
            if self._spool is not None:
                self._spool.close()

    def _numbers(self, text: str | None) -> dict[str, int]:
        try:
            numbers = self._primary.routes()
        except Away as error:
            raise ConfigurationError(f"catalogue {self._primary.name}: {error}") from error
        if text in numbers:
            return {text: numbers[text]}
        return {name: number for name, number in numbers.items() if text is None or text in name}

    def _warn(self, line: str) -> None:
        """Says it, unless this is a process that was forked: the one that opened it will find the same."""
        if os.getpid() == self._owner:
            self._say(line)

    @property
    def _there(self) -> bool:
        """Whether there is anything to read; nothing is made by reading."""
        return not self._primary.is_file or self._primary.is_made() or self._waits

    @property
    def _waits(self) -> bool:
        """Whether there may be something to catch up."""
        return self._spooled or bool(self._kept)

    def _ask(self, question: Callable[[], bool]) -> bool:
        """What the primary answers; False where there is nothing to read, or it is away."""
        answer = False

        def read() -> None:
            nonlocal answer
            answer = question()

        if self._there:
            self._attempt(read)
        return answer

    def _attempt(self, work: Callable[[], None]) -> None:
        """Catches up and does it, unless the primary is away, or turns out to be."""
        if self._away_until is not None and self._clock() < self._away_until:
            return
        try:
            self._catch_up()
            work()
        except Away as error:
            self._away_until = self._clock() + RETRY_SECONDS
            if not self._outage:
                self._outage = True
                self._warn(f"catalogue {self._primary.name} is away: {error}; uploads go on, it is caught up later")
            return
        self._away_until = None
        if (self._outage or self._caught_up) and not self._waits:
            lost = f", {self._lost:,} are lost" if self._lost else ""
            self._warn(f"catalogue {self._primary.name} is back: {self._caught_up:,} entries caught up{lost}")
            self._outage, self._caught_up, self._lost = False, 0, 0

    def _catch_up(self) -> None:
        """Moves what was kept into the primary, the older first. Raises Away; entries are never in neither."""
        if self._spool is not None and self._spooled:
            self._catch_up_spool(self._spool)
        while self._kept:
            batch = list(islice(self._kept, BATCH))
            self._primary.record(batch, unless_newer=True)
            for _ in batch:
                self._kept.popleft()
            self._caught_up += len(batch)

    def _catch_up_spool(self, spool: Database) -> None:
        for _ in range(self._pages):
            try:
                with spool.taking() as page:
                    self._primary.record(page, unless_newer=True)
            except Away as error:
                if error.database is not spool:
                    raise
                self._give_up_spool(spool, error)
                return
            self._caught_up += len(page)
            if len(page) < PAGE:
                self._spooled = False
                return

    def _give_up_spool(self, spool: Database, error: Away) -> None:
        self._spooled = False
        self._warn(f"catalogue's spool {spool.name} cannot be used: {error}; what is in it is for the next run")

    def _with_spooled(
        self,
        spool: Database,
        found: dict[str, tuple[str, str] | None],
        route: str,
        after: str,
        upto: str | None,
        limit: int,
    ) -> dict[str, tuple[str, str] | None]:
        """What was found, and over it what the spool has, up to where both are whole."""
        try:
            newer = spool.versions(route, after, upto, limit=limit, believable=False)
        except Away as error:
            self._give_up_spool(spool, error)
            return found
        merged = {**found, **newer}
        end = min((max(part) for part in (found, newer) if len(part) >= limit), default=None)
        return {key: merged[key] for key in sorted(merged)[:limit] if end is None or key <= end}

    def _keep(self, entries: Sequence[Entry]) -> None:
        """In the spool; in memory if there is none, and from the moment on at which it fails, to keep the order."""
        if self._spool is not None and not self._kept:
            try:
                self._spool.record(entries)
            except Away as error:
                self._warn(f"catalogue's spool {self._spool.name} cannot be used: {error}; entries are kept in memory")
            else:
                self._spooled = True
                return
        self._kept.extend(entries)
        excess = len(self._kept) - KEPT
        if excess > 0 and not self._lost:
            self._warn(f"catalogue {self._primary.name}: more than {KEPT:,} entries wait; the oldest are dropped")
        for _ in range(excess):
            self._kept.popleft()
            self._lost += 1
