"""The port of queues: what the live mirror needs of SQS, and of the file that takes its place.

A queue gives a message again when it was neither deleted nor put off within its visibility timeout; it may give one
twice, and in any order. Nothing is lost and nothing is promised beyond that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from replicator.events import QueueMessage

LONGEST_WAIT = 900
FIRST_WAIT = 10


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to send. delay: seconds until it is due, at most 900.

    body: 1 character to 256 KiB. SQS takes no control characters, halves of surrogate pairs, U+FFFE or U+FFFF: it
    refuses or replaces them, so who sends to it escapes them as JSON does. reason: why it was set aside, in one line;
    SQS has its first 500 characters, in ASCII, and fewer if the body leaves no room for them.
    """

    body: str
    reason: str = ""
    delay: int = 0


class Depth(NamedTuple):
    """About how many messages a queue has. waiting: to be given out. in_flight: given out. delayed: not yet due."""

    waiting: int
    in_flight: int
    delayed: int


class Queue(Protocol):
    """One queue. Every method may raise QueueError when it does not answer, or refuses the whole request.

    Methods may be called by several threads at once. They block: from an event loop, call them in threads.
    """

    @property
    def name(self) -> str:
        """As a person writes it."""

    def send(self, messages: Sequence[Outgoing]) -> None:
        """They are durably there when it returns. When it raises, any of them may be there: sending again is safe."""

    def receive(self, most: int, *, wait: float) -> list[QueueMessage]:
        """Up to `most` messages; waits so many seconds for the first, at most 20. Empty: there was none."""

    def delete(self, messages: Sequence[QueueMessage]) -> list[str]:
        """They are done. Returns what was refused, in words: such a message comes once more. Idempotent.

        A message that was given out again meanwhile may be refused, or stay without a word: work has to be done, and
        settled, within the visibility timeout. Who needs longer puts the message off, which extends it.
        """

    def put_off(self, messages: Sequence[tuple[QueueMessage, int]]) -> list[str]:
        """They are given out again after so many seconds from now, if not deleted; their receipts stay good till then.

        Returns what was refused, in words: what is deleted already, or was given out again meanwhile.
        """

    def depth(self) -> Depth:
        """How full it is, about."""


def backoff(receive_count: int) -> int:
    """Seconds until a failed message is tried again: 10, 20, 40 ... 900."""
    return min(LONGEST_WAIT, FIRST_WAIT << min(max(receive_count - 1, 0), 10))
