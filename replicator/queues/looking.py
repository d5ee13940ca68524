"""Looks through a queue of messages that were set aside, and takes none away but those that it is told are done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace

from replicator.errors import QueueError
from replicator.events import QueueMessage
from replicator.queues.queue import Queue

HELD_BACK = 300
"""Seconds for which a message that was looked at is kept from coming again, unless it is put back before."""

AT_ONCE = 10

PATIENCE = 5
"""How often a queue may give nothing but what it gave before."""

WAIT = 1.0
"""Seconds. A queue of SQS that is not waited for looks at a few of its machines only, and may find nothing there."""


class Look:
    """A look through a queue: made by looking().

    more: whether there were more messages than it was to look at; known at the end.
    """

    def __init__(self, queue: Queue, most: int, wait: float) -> None:
        self.more = False
        self._queue = queue
        self._most = most
        self._wait = wait
        self._seen: dict[str, QueueMessage] = {}
        self._done: set[str] = set()

    def batches(self) -> Iterator[list[QueueMessage]]:
        """Every message once, a few at a time. Raises QueueError."""
        while batch := self._fresh(min(AT_ONCE, self._most - len(self._seen))):
            yield batch
            if len(self._seen) >= self._most:
                self.more = bool(self._fresh(1))
                return

    def done(self, messages: Sequence[QueueMessage]) -> list[str]:
        """Deletes messages of a batch. Returns what the queue refused, in words. Raises QueueError."""
        refused = self._queue.delete(messages)
        self._done.update(one.message_id for one in messages)
        return refused

    def put_back(self) -> None:
        """All others may be given out again at once."""
        others = [(one, 0) for name, one in self._seen.items() if name not in self._done]
        with suppress(QueueError):  # they come back by themselves, a little later
            self._queue.put_off(others)

    def _fresh(self, most: int) -> list[QueueMessage]:
        """Messages that were not seen before; none as well if again and again only such come as were."""
        for _ in range(PATIENCE):
            received = self._queue.receive(most, wait=self._wait)
            fresh = [one for one in received if one.message_id not in self._seen]
            self._seen |= {one.message_id: replace(one, body="") for one in received}
            self._queue.put_off([(one, HELD_BACK) for one in received])
            if fresh or not received:
                return fresh
        return []


@contextmanager
def looking(queue: Queue, *, most: int, wait: float = WAIT) -> Iterator[Look]:
    """A look at up to so many messages, which are put back when the block ends, however it does.

    Whoever works on the queue meanwhile, or looks at it, does not see those that were looked at. wait: seconds to wait
    for a message before there is none.
    """
    look = Look(queue, most, wait)
    try:
        yield look
    finally:
        look.put_back()
