"""What a run would ask of AWS, and what that costs there. Pure.

Prices are list prices of S3 Standard in us-east-1, in US dollars (aws.amazon.com/s3/pricing, November 2026): other
regions and classes differ, other vendors charge nothing or something else.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from replicator.copying import SMALL
from replicator.model import Did, GiB, Outcome
from replicator.reading import WINDOW

PER_WRITE = 0.005 / 1000
"""Dollars for a PUT, COPY, POST or LIST."""

PER_READ = 0.0004 / 1000
"""Dollars for a GET or HEAD. A DELETE costs nothing."""

TO_ANOTHER_REGION = 0.02
"""Dollars for a GiB from one region of AWS to another."""

TO_THE_INTERNET = ((10 * 1024, 0.09), (40 * 1024, 0.085), (100 * 1024, 0.07), (float("inf"), 0.05))
"""Steps of a month: so many GiB more, at so many dollars each."""

PAGE = 1000
"""Objects that one LIST tells."""

PASSES = 2
"""A run lists everything once more to see that nothing changed meanwhile."""


@dataclass(slots=True)
class Requests:
    """What is asked of source and targets together. reads: GET and HEAD. writes: PUT, COPY, POST and LIST."""

    reads: int = 0
    writes: int = 0
    deletes: int = 0
    copies: int = 0
    bytes: int = 0

    def add(self, outcome: Outcome, *, server_side: bool) -> None:
        """Counts what it takes to do what a dry run found. server_side: inside one service, without moving bytes."""
        if outcome.did is Did.COPIED:
            self.copies += 1
            self.bytes += outcome.bytes
            reads, writes = _copying(outcome.bytes, outcome.parts, server_side=server_side)
            self.reads += reads
            self.writes += writes
        elif outcome.did in (Did.METADATA, Did.TAGS):
            self.reads, self.writes = self.reads + 4, self.writes + 1
        elif outcome.did is Did.DELETED:
            self.reads, self.writes, self.deletes = self.reads + 2, self.writes + 1, self.deletes + 1

    def add_listings(self, objects: Iterable[int]) -> None:
        """Counts what it takes to list so many objects at each side, and once more."""
        self.writes += PASSES * sum(number // PAGE + 1 for number in objects)

    @property
    def price(self) -> float:
        """Dollars for the requests."""
        return self.reads * PER_READ + self.writes * PER_WRITE


def _copying(size: int, parts: int, *, server_side: bool) -> tuple[int, int]:
    """(reads, writes) that the copy of one object takes, as copying.py goes about it."""
    if parts > 1:  # looked at on both sides before and after; started, sent in parts, completed
        return 4 + (0 if server_side else parts), 2 + parts
    if server_side:
        return 1, 1
    if size <= SMALL:
        return 1, 1
    return 3 + -(-size // WINDOW), 1


def internet_price(size: int) -> float:
    """Dollars for sending so many bytes from AWS to elsewhere, within one month."""
    left, price = size / GiB, 0.0
    for step, dollars in TO_THE_INTERNET:
        part = min(left, step)
        price += part * dollars
        left -= part
    return price


def region_price(size: int) -> float:
    """Dollars for sending so many bytes from one region of AWS to another."""
    return size / GiB * TO_ANOTHER_REGION
