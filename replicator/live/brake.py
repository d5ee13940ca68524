"""The brake of the live mirror: how many deletes may pass in an hour before the others wait for a person.

| word    | meaning                                                                                              |
|---------|------------------------------------------------------------------------------------------------------|
| hour    | a clock hour of UTC, numbered since the epoch                                                        |
| recent  | keys that were changed at the targets, deletes apart, in this hour and the 23 before it              |
| budget  | of a route in an hour: max(least, share x recent); that of 1,000 keys, or a tenth of recent changes  |

The count is shared by all workers of a route, and never above the budget. A budget is not carried over, and what was
taken in one hour is not spent in the next: so in any sixty minutes, which touch two clock hours, at most the budgets of
these two pass, and no way of choosing the moment gets more. A count that cannot be reached lets no delete pass.

While more deletes wait for a person than the least budget of an hour, none passes: else those that wait would be found
again by every reconciliation, and done little by little without anybody's word. Fewer do not keep the brake shut, or it
would do so itself: what it does not let pass waits, too.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from threading import Lock
from typing import Protocol

from replicator.errors import ReplicatorError
from replicator.logs import logger

HOUR = 3600

RECENT_HOURS = 24

KEPT_HOURS = 48
"""For which a count is kept: workers' clocks need not agree."""

LARGEST_LOT = 25
"""Deletes that a worker takes of the budget at once. It begins with one and doubles: it wastes no more than it uses."""

CLOSED_SECONDS = 30.0
"""For which the count is left alone when it is spent, or could not be reached."""

NOTE_SECONDS = 10.0
"""Changes are noted at most so often."""

REMEMBERED = 10_000
"""Keys that were allowed and need not be counted again in their hour."""


class DeleteCounter(Protocol):
    """What all workers have taken of the budgets. Any thread may call it; it answers, or fails, within seconds.

    hour: since the epoch. Every method raises ReplicatorError when the count cannot be reached. What is older than a
    day is of no use any more and may go.
    """

    def take(self, route: str, hour: int, wanted: int, limit: int) -> int:
        """Takes up to `wanted` deletes of this hour and says how many it got: all takers together at most `limit`.

        Exact however many take at once. An answer that is lost may have taken: never more pass than are counted.
        """

    def note(self, route: str, hour: int, changes: int) -> None:
        """So many keys more were changed. When a connection breaks over it, they may be counted twice, or not."""

    def recent(self, route: str, first: int, last: int) -> int:
        """Changes that were noted in these hours, both included."""


class MemoryCounter:
    """The count of a single process.

    A restart forgets it: `least` deletes may pass again in the same hour, and no more than these until there are new
    changes. A process that is restarted over and over has no brake to speak of: give it a catalogue.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._taken: dict[tuple[str, int], int] = defaultdict(int)
        self._changes: dict[tuple[str, int], int] = defaultdict(int)

    def take(self, route: str, hour: int, wanted: int, limit: int) -> int:
        """As DeleteCounter."""
        with self._lock:
            granted = max(0, min(wanted, limit - self._taken[route, hour]))
            self._taken[route, hour] += granted
            self._forget(hour)
            return granted

    def note(self, route: str, hour: int, changes: int) -> None:
        """As DeleteCounter."""
        with self._lock:
            self._changes[route, hour] += changes
            self._forget(hour)

    def recent(self, route: str, first: int, last: int) -> int:
        """As DeleteCounter."""
        with self._lock:
            return sum(self._changes.get((route, hour), 0) for hour in range(first, last + 1))

    def _forget(self, hour: int) -> None:
        for rows in (self._taken, self._changes):
            for row in [row for row in rows if row[1] < hour - KEPT_HOURS]:
                del rows[row]


class DeleteBrake:
    """Says of each delete of one route whether it may be done now. For the coroutines of one event loop.

    least: deletes an hour that pass in any case. share: of the recent changes that pass as deletes. With 0 of both
    none passes. waiting: how many deletes wait for a person; raises ReplicatorError. clock: seconds since the epoch.
    """

    def __init__(
        self,
        counter: DeleteCounter,
        route: str,
        *,
        least: int = 1000,
        share: float = 0.1,
        waiting: Callable[[], Awaitable[int]] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._counter = counter
        self._route = route
        self._least = least
        self._share = share
        self._waiting = waiting
        self._clock = clock
        self._taking = asyncio.Lock()
        self._changes: dict[int, int] = {}
        self._note_after = 0.0
        self._reason = ""
        self._begin(-1)

    @property
    def reason(self) -> str:
        """Why the last delete that was not allowed has to wait: one line for its message."""
        return self._reason

    async def allows(self, key: str) -> bool:
        """Whether this delete may be done now; if not, it is to be parked, and `reason` says why.

        A key that was allowed once is allowed for the rest of the hour, so that tries again cost nothing. Never raises
        for a count that cannot be reached: then it is False.
        """
        if key in self._allowed and self._hour == self._now():
            return True
        if not self._spend():
            if self._is_closed():
                return False
            async with self._taking:
                while not self._spend():  # an hour that ends meanwhile takes its lot with it
                    if self._is_closed():
                        return False
                    await self._take()
        if len(self._allowed) < REMEMBERED:
            self._allowed.add(key)
        return True

    def changed(self, count: int) -> None:
        """So many keys were changed at the targets otherwise than by a delete. Asks nothing: flush() does."""
        if count > 0:
            hour = self._now()
            self._changes[hour] = self._changes.get(hour, 0) + count

    async def flush(self, *, last: bool = False) -> None:
        """Notes the changes, for all workers; to be called after each batch. last: even if it did so just now.

        Never raises for a count that cannot be reached: then the changes are kept for the next time. Those that a
        worker takes with it when it ends only make the budget smaller.
        """
        if not self._changes or (not last and self._clock() < self._note_after):
            return
        self._note_after = self._clock() + NOTE_SECONDS
        pending, self._changes = self._changes, {}
        try:
            while pending:
                hour = max(pending)
                if hour > self._now() - RECENT_HOURS:
                    await asyncio.to_thread(self._counter.note, self._route, hour, pending[hour])
                del pending[hour]
        except ReplicatorError as error:
            logger.warning("route %s: recent changes cannot be noted, to allow for deletes: %s", self._route, error)
        for hour, count in pending.items():
            self._changes[hour] = self._changes.get(hour, 0) + count

    def _now(self) -> int:
        return int(self._clock() // HOUR)

    def _begin(self, hour: int) -> None:
        """Begins a new hour with nothing."""
        self._hour = hour
        self._left = 0
        self._lot = 1
        self._limit = self._least
        self._closed_until = 0.0
        self._allowed: set[str] = set()

    def _spend(self) -> bool:
        """Uses one delete of this hour's lot, if there is one."""
        if self._hour != self._now():
            self._begin(self._now())
        if self._left == 0:
            return False
        self._left -= 1
        return True

    def _is_closed(self) -> bool:
        return self._clock() < self._closed_until

    async def _take(self) -> None:
        """Takes another lot, or closes. Whoever calls it holds the lock."""
        hour = self._hour
        try:
            if self._waiting is not None and await self._waiting() > self._least:
                self._close("more deletes wait for a person than an hour allows: see `replicator held`")
                return
            granted = await self._ask(hour)
        except ReplicatorError as error:
            self._close(f"the count of deletes cannot be reached, and none goes unchecked: {error}")
            return
        if hour != self._hour:
            return
        if granted:
            self._left += granted
            self._lot = min(2 * self._lot, LARGEST_LOT)
        else:
            since = datetime.fromtimestamp(hour * HOUR, UTC)
            self._close(f"more than {self._limit:,} deletes of route {self._route} since {since:%Y-%m-%d %H:%M} UTC")

    async def _ask(self, hour: int) -> int:
        """What the counter grants, by the limit as it was last known; if that is spent, by the limit as it is."""
        granted = await self._taken(hour)
        if granted or not self._share:
            return granted
        await self.flush(last=True)
        recent = await asyncio.to_thread(self._counter.recent, self._route, hour - RECENT_HOURS + 1, hour)
        limit = max(self._least, int(self._share * recent))
        if limit <= self._limit or hour != self._hour:
            return 0
        self._limit = limit
        return await self._taken(hour)

    async def _taken(self, hour: int) -> int:
        if self._limit < 1:
            return 0
        return await asyncio.to_thread(self._counter.take, self._route, hour, self._lot, self._limit)

    def _close(self, reason: str) -> None:
        if reason != self._reason:
            logger.warning("deletes are parked: %s", reason)
        self._reason = reason
        self._closed_until = self._clock() + CLOSED_SECONDS
