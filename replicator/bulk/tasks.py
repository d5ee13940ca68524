"""What a run hands to its workers, and what they send back. Values only; they travel between processes.

A worker sends in this order: what has to be deleted before the `Settled` that covers it, and `Finished` last. So when
the word that a range is settled arrives, everything that is known of it has arrived before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from replicator.model import Outcome


class Range(NamedTuple):
    """The keys after `after` up to and including `upto`; None: to the end."""

    after: str = ""
    upto: str | None = None

    def __str__(self) -> str:
        """In words, for messages."""
        start = f"after {self.after!a}" if self.after else "from the first"
        return f"{start} up to {self.upto!a}" if self.upto is not None else f"{start} on"


@dataclass(frozen=True, slots=True)
class Pass:
    """What holds for all ranges of a pass.

    number: from 1. changed_since: the source's time from which on objects are looked at in any case, or None.
    every: look at every object. last: no later pass would find what goes wrong in this one.
    """

    number: int = 1
    changed_since: float | None = None
    every: bool = False
    last: bool = False


@dataclass(slots=True)
class Counts:
    """What was seen in a stretch of keys. Exact: a stretch that is done again is not counted twice.

    source: objects listed there. targets, extra: objects listed at each target, and those of them that the source does
    not list.
    """

    source: int = 0
    targets: list[int] = field(default_factory=list)
    extra: list[int] = field(default_factory=list)

    def add(self, other: Counts) -> None:
        """Adds what was seen in another stretch."""
        self.source += other.source
        self.targets = _sums(self.targets, other.targets)
        self.extra = _sums(self.extra, other.extra)


def _sums(one: Sequence[int], other: Sequence[int]) -> list[int]:
    longest = max(len(one), len(other))
    padded = ([*numbers, *[0] * (longest - len(numbers))] for numbers in (one, other))
    return [a + b for a, b in zip(*padded, strict=True)]


# To a worker


@dataclass(frozen=True, slots=True)
class ScanTask:
    """List this range on all sides, and converge what differs."""

    id: int
    range: Range
    during: Pass


@dataclass(frozen=True, slots=True)
class KeysTask:
    """Converge these keys."""

    id: int
    keys: tuple[str, ...]
    during: Pass


@dataclass(frozen=True, slots=True)
class SplitTask:
    """Give away a part of the range that is being scanned under this id."""

    id: int


Task = ScanTask | KeysTask | SplitTask

# From a worker


@dataclass(frozen=True, slots=True)
class Gone:
    """Keys that only targets list, where deletes are mirrored."""

    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Settled:
    """Everything in the range up to and including `through` is done; counts: what was seen since the last word."""

    id: int
    through: str
    counts: Counts


@dataclass(frozen=True, slots=True)
class Split:
    """The range under this id now ends at `at`; what follows is somebody else's. None: it could not be split."""

    id: int
    at: str | None


@dataclass(frozen=True, slots=True)
class Finished:
    """The task is done, or could not be: error."""

    id: int
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What became of keys."""

    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True, slots=True)
class Pulse:
    """For the eye only: what happened since the last pulse.

    listed: objects of the source. pages: by task, how many. found, worked: bytes of objects that need work, and of
    those that had it. sent: bytes sent to targets. throttled: requests that a service refused as too many. limit:
    requests that may be in flight at the most throttled endpoint now.
    """

    listed: int = 0
    pages: tuple[tuple[int, int], ...] = ()
    found: int = 0
    worked: int = 0
    sent: int = 0
    throttled: int = 0
    limit: int = 0


Message = Gone | Settled | Split | Finished | Outcomes | Pulse
