"""Keys that are known to have changed, and when each is to be looked at. Pure."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

QUIET = 0.5
"""Seconds without a further change after which a file is pushed."""

LONGEST_WAIT = 10.0
"""Seconds after which one that changes all the time is pushed all the same."""

FIRST_RETRY, LAST_RETRY = 2.0, 300.0
"""Seconds between tries of a key that fails: doubled each time, up to the last."""

MOST = 100_000
"""Keys that are held; with more, all are let go, and everything has to be looked at."""


@dataclass(slots=True)
class _Wait:
    since: float
    due: float
    failures: int = 0


class Pending:
    """Times are in seconds of any clock that only goes forward.

    overflown: there were too many; whoever sees it looks at everything, and says so with `reset`.
    """

    def __init__(self) -> None:
        self._waits: dict[str, _Wait] = {}
        self._queue: list[tuple[float, str]] = []
        self.overflown = False

    def __len__(self) -> int:
        return len(self._waits)

    def touched(self, key: str, now: float) -> None:
        """The key has changed: it waits until that has not happened for QUIET, or until LONGEST_WAIT is over."""
        wait = self._waits.get(key)
        since = now if wait is None or wait.failures else wait.since
        self._put(key, _Wait(since, min(now + QUIET, since + LONGEST_WAIT)))

    def failed(self, key: str, now: float, failures: int) -> None:
        """It could not be brought into step, for so many times in a row. Not if it has changed since."""
        if key not in self._waits:
            seconds = min(LAST_RETRY, FIRST_RETRY * 2 ** min(failures - 1, 16))
            self._put(key, _Wait(now, now + seconds, failures))

    def take(self, now: float, most: int) -> dict[str, int]:
        """The keys that are due, at most so many, which wait no longer; and how often each has failed."""
        due: dict[str, int] = {}
        while len(due) < most and self._queue and self._queue[0][0] <= now:
            when, key = heapq.heappop(self._queue)
            wait = self._waits.get(key)
            if wait is not None and wait.due == when:
                due[key] = self._waits.pop(key).failures
        return due

    def next(self) -> float | None:
        """When the next one is due, at the earliest; None if none waits."""
        return self._queue[0][0] if self._queue else None

    def reset(self) -> None:
        """Everything is being looked at."""
        self.overflown = False

    def _put(self, key: str, wait: _Wait) -> None:
        if len(self._waits) >= MOST:
            self._waits.clear()
            self._queue.clear()
            self.overflown = True
            return
        self._waits[key] = wait
        heapq.heappush(self._queue, (wait.due, key))
