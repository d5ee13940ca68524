"""Which ranges wait, and which worker has which. Pure: it is told what happened and says what to do next.

| there is                                     | next                                                      |
|----------------------------------------------|-----------------------------------------------------------|
| a range waiting, and a worker with room      | the range goes to the worker that has the fewest          |
| no range waiting, and a worker with none     | the longest range that has listed a page is to be split   |
| no range waiting, and a worker with room     | the longest one that has listed LONG pages is to be split |
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from replicator.bulk.tasks import Range

LONG = 8
"""Pages a range must have listed since it began or was last split, to be split for the sake of a busy worker."""

SLOTS = 8
"""Ranges that a worker scans at once: a service answers with a page in 0.1 s, which take 0.01 s to go through."""


class Given(NamedTuple):
    """A range for a worker."""

    worker: int
    id: int
    range: Range


@dataclass(slots=True)
class Running:
    """A range at a worker.

    pages: listed since it began or was last asked to split. asked: whether it is asked now. refused: how often in a row
    it could not be split, which makes the next time come later.
    """

    worker: int
    range: Range
    pages: int = 0
    asked: bool = False
    refused: int = 0


class Schedule:
    """The ranges of one pass, each on its way from waiting to finished."""

    def __init__(self, ranges: Iterable[Range], workers: Iterable[int]) -> None:
        self._waiting = deque(ranges)
        self._workers = set(workers)
        self._running: dict[int, Running] = {}
        self._next_id = 0
        self.failed: list[Range] = []

    @property
    def done(self) -> bool:
        """Whether no range waits or runs."""
        return not self._waiting and not self._running

    def give(self) -> Given | None:
        """The next range to hand out, now running, or None."""
        load = self._load()
        worker = min(load, key=lambda one: (load[one], one), default=None)
        if worker is None or load[worker] >= SLOTS or not self._waiting:
            return None
        self._next_id += 1
        wanted = self._waiting.popleft()
        self._running[self._next_id] = Running(worker, wanted)
        return Given(worker, self._next_id, wanted)

    def ask(self) -> tuple[int, int] | None:
        """Worker and id of a range that should be split now, counted as asked; or None. One is asked at a time."""
        load = self._load()
        if self._waiting or not load or any(running.asked for running in self._running.values()):
            return None
        idle = min(load.values()) == 0
        if not idle and min(load.values()) >= SLOTS:
            return None
        longest = max(self._running, key=lambda number: self._running[number].pages, default=None)
        if longest is None or self._running[longest].pages < (1 if idle else LONG):
            return None
        running = self._running[longest]
        running.asked, running.pages = True, 0
        return running.worker, longest

    def listed(self, number: int, pages: int) -> None:
        """A range has listed pages."""
        if number in self._running:
            self._running[number].pages += pages

    def settled(self, number: int, through: str) -> Range | None:
        """A running range is done up to a key; what it was until now."""
        running = self._running.get(number)
        if running is None:
            return None
        before, running.range = running.range, Range(through, running.range.upto)
        return before

    def split(self, number: int, at: str | None) -> tuple[Range, Range, Range] | None:
        """An asked range was cut: what it was, what it is now, and what was cut off, which waits now."""
        running = self._running.get(number)
        if running is None:
            return None
        running.asked = False
        if at is None:
            running.pages = -(LONG << min(running.refused, 10))
            running.refused += 1
            return None
        running.refused = 0
        before = running.range
        rest = Range(at, before.upto)
        running.range = Range(before.after, at)
        self._waiting.append(rest)
        return before, running.range, rest

    def finished(self, number: int) -> Range | None:
        """A range is done; what was left of it."""
        running = self._running.pop(number, None)
        return running.range if running else None

    def fail(self, number: int) -> None:
        """A range could not be listed: it stays undone."""
        running = self._running.pop(number, None)
        if running is not None:
            self.failed.append(running.range)

    def lost(self, worker: int) -> int:
        """A worker is no more: its ranges wait again. Returns how many."""
        self._workers.discard(worker)
        mine = [number for number, running in self._running.items() if running.worker == worker]
        self._waiting.extend(self._running.pop(number).range for number in mine)
        return len(mine)

    def _load(self) -> dict[int, int]:
        load = dict.fromkeys(self._workers, 0)
        for running in self._running.values():
            load[running.worker] += 1
        return load
