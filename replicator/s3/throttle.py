"""Adaptive concurrency of one endpoint: additive increase, multiplicative decrease (AIMD); and its retry budget."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

CALM = 1.0
"""Seconds between two decreases: the answers to one burst of requests count once."""


class AdaptiveLimit:
    """Lets up to `limit` requests run at once; halves on throttling, grows by one per `limit` successes.

    ceiling: the most requests in flight, also at the start. clock: seconds, monotonic.
    """

    def __init__(self, ceiling: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.ceiling = ceiling
        self.limit = float(ceiling)
        self.in_flight = 0
        self.throttled = 0
        self._clock = clock
        self._last_decrease = float("-inf")
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def acquire(self) -> None:
        """Waits for a place, first come first served. Pair with `release`."""
        if not self._waiting and self.in_flight < int(self.limit):
            self.in_flight += 1
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self.in_flight -= 1
            self._wake()
            raise

    def release(self) -> None:
        """Gives the place back."""
        self.in_flight -= 1
        self._wake()

    def succeeded(self) -> None:
        """A request was served: allow a little more."""
        if self.limit < self.ceiling:
            self.limit = min(self.ceiling, self.limit + 1.0 / self.limit)

    def slowed_down(self) -> None:
        """The service asked for fewer requests: allow half as many."""
        self.throttled += 1
        now = self._clock()
        if now - self._last_decrease >= CALM:
            self._last_decrease = now
            self.limit = max(1.0, self.limit / 2)

    def _wake(self) -> None:
        while self._waiting and self.in_flight < int(self.limit):
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                self.in_flight += 1


RETRIES = 200
"""Retries that may be made without a success."""

EARNED = 0.5
"""Retries that a success allows."""


class RetryBudget:
    """Tells a few failures among many successes, which are best tried again soon, from a service that is down."""

    def __init__(self) -> None:
        self._left = float(RETRIES)

    def earn(self) -> None:
        """A request was served."""
        self._left = min(RETRIES, self._left + EARNED)

    def spend(self) -> bool:
        """A request is to be tried again: whether that is within the budget. If not, it should wait for long."""
        if self._left < 1:
            return False
        self._left -= 1
        return True
