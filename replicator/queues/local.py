"""Queues in a file of this machine, for `replicator serve` where there is no SQS. They behave as SQS does, but that:

- nothing is forgotten after some days;
- a receipt is void as soon as its message was given out again: whoever was too slow cannot delete what another one
  works on. So the time for a batch must be shorter than the visibility timeout;
- bodies may be of any size and have any characters;
- of the queues of changes and of work, a message that was received too often becomes a dead letter with a reason.

Times are those of the machine's clock, which may jump. Forwards, messages come too early, which is harmless.
Backwards, whatever was hidden by the later clock begins its time anew: no message is hidden longer than its own time,
counted from the jump. The latest time that was seen is in the file, so that a restart does not hide a jump.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from replicator.events import QueueMessage
from replicator.queues.database import QueueFile
from replicator.queues.queue import Depth, Outgoing

CHANGES = "changes"
DEAD_LETTERS = "dead letters"
HELD = "held"
WORK = "work"

VISIBILITY = 900.0
"""Seconds for which a message that was given out is hidden."""

RECEIVES = 12
"""How often a change is given out before it is a dead letter."""

MOST = 1000
LONGEST_POLL = 20.0

POLL = 0.2
"""Seconds between looks for what another process has sent."""

BYTES_AT_ONCE = 16 * 1024 * 1024
"""No more than about so many bytes of bodies are given out at once."""

RESOLUTION = 0.5
"""Seconds by which the latest time in the file may be behind."""

_RECEIPT = re.compile(r"([0-9]{1,18})-([0-9]{1,18})")

_Row = tuple[int, int, float, bytes, bytes]


class LocalQueue:
    """One of the queues of a file: as Queue, up to 1,000 messages at once. Methods may be called by several threads.

    name: CHANGES, WORK, DEAD_LETTERS or HELD. visibility: seconds, more than 0. receives: after so many a message
    moves to the dead letters; None: never. clock: seconds since the epoch.
    """

    def __init__(
        self,
        file: QueueFile,
        name: str,
        *,
        visibility: float = VISIBILITY,
        receives: int | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = f"{file.path}: {name}"
        self._file = file
        self._queue = name
        self._visibility = visibility
        self._receives = receives
        self._clock = clock

    def send(self, messages: Sequence[Outgoing]) -> None:
        """All of them or none, on the disk: as Queue."""
        if messages:
            self._file.commit(partial(self._insert, messages))
            self._file.announce()

    def receive(self, most: int, *, wait: float) -> list[QueueMessage]:
        """What is due, longest first: as Queue."""
        until = time.monotonic() + min(wait, LONGEST_POLL)
        while True:
            known = self._file.announced
            found = self._file.commit(partial(self._take, max(1, min(most, MOST))))
            left = until - time.monotonic()
            if found or left <= 0:
                return found
            self._file.wait_for_news(known, min(left, POLL))

    def delete(self, messages: Sequence[QueueMessage]) -> list[str]:
        """Refuses what was given out again meanwhile: as Queue."""
        return self._file.commit(partial(self._remove, messages)) if messages else []

    def put_off(self, messages: Sequence[tuple[QueueMessage, int]]) -> list[str]:
        """Refuses what was given out again meanwhile, or is deleted: as Queue."""
        if not messages:
            return []
        refused = self._file.commit(partial(self._hide, messages))
        self._file.announce()
        return refused

    def depth(self) -> Depth:
        """Exactly: as Queue."""
        return self._file.commit(self._count)

    def _insert(self, messages: Sequence[Outgoing], database: sqlite3.Connection) -> None:
        now = self._now(database)
        rows = [
            (self._queue, now + max(one.delay, 0), now, now, _bytes(one.reason), _bytes(one.body)) for one in messages
        ]
        database.executemany(
            "insert into messages (queue, due, since, receives, sent, reason, body) values (?, ?, ?, 0, ?, ?, ?)", rows
        )
        _remember(database, now)

    def _take(self, most: int, database: sqlite3.Connection) -> list[QueueMessage]:
        now = self._now(database)
        taken: list[QueueMessage] = []
        while rows := list(self._due(database, now, most - len(taken))):
            fresh = [row for row in rows if self._receives is None or row[1] < self._receives]
            if len(fresh) < len(rows):
                self._bury(database, now)
            database.executemany(
                "update messages set due = ?, since = ?, receives = receives + 1 where id = ?",
                [(now + self._visibility, now, row[0]) for row in fresh],
            )
            _remember(database, now)
            taken += [_message(row) for row in fresh]
            if len(fresh) == len(rows):
                break
        return taken

    def _due(self, database: sqlite3.Connection, now: float, most: int) -> Iterator[_Row]:
        found = database.execute(
            "select id, receives, sent, reason, body from messages where queue = ? and due <= ? order by due limit ?",
            (self._queue, now, most),
        )
        size = 0
        for row in found:
            yield row
            size += len(row[4])
            if size >= BYTES_AT_ONCE:
                break
        found.close()

    def _bury(self, database: sqlite3.Connection, now: float) -> None:
        reason = _bytes(f"received {self._receives} times and never settled")
        database.execute(
            "update messages set queue = ?, due = ?, since = ?, receives = 0, reason = ?"
            " where queue = ? and due <= ? and receives >= ?",
            (DEAD_LETTERS, now, now, reason, self._queue, now, self._receives),
        )

    def _remove(self, messages: Sequence[QueueMessage], database: sqlite3.Connection) -> list[str]:
        refused = []
        for one in messages:
            number, receives = _receipt(one)
            deleted = database.execute(
                "delete from messages where id = ? and receives = ? and queue = ?", (number, receives, self._queue)
            )
            if not deleted.rowcount and (problem := _problem(database, number)):
                refused.append(f"delete: message {one.message_id}: {problem}")
        return refused

    def _hide(self, messages: Sequence[tuple[QueueMessage, int]], database: sqlite3.Connection) -> list[str]:
        now = self._now(database)
        refused = []
        for one, seconds in messages:
            number, receives = _receipt(one)
            hidden = database.execute(
                "update messages set due = ?, since = ? where id = ? and receives = ? and queue = ?",
                (now + max(seconds, 0), now, number, receives, self._queue),
            )
            if not hidden.rowcount:
                problem = _problem(database, number) or "is deleted"
                refused.append(f"put off: message {one.message_id}: {problem}")
        _remember(database, now)
        return refused

    def _count(self, database: sqlite3.Connection) -> Depth:
        now = self._now(database)
        counted = database.execute(
            "select count(*), coalesce(sum(due > ? and receives), 0), coalesce(sum(due > ? and not receives), 0)"
            " from (select due, receives > 0 as receives from messages where queue = ?)",
            (now, now, self._queue),
        )
        every, in_flight, delayed = counted.fetchone()
        return Depth(every - in_flight - delayed, in_flight, delayed)

    def _now(self, database: sqlite3.Connection) -> float:
        """The time. When the clock went back, what was hidden by the later one begins to wait now."""
        now = self._clock()
        (latest,) = database.execute("select latest from clock").fetchone()
        if now < latest:
            database.execute("update messages set due = ? + (due - since), since = ? where since > ?", (now, now, now))
            database.execute("update clock set latest = ?", (now,))
        return now


def _remember(database: sqlite3.Connection, now: float) -> None:
    """Notes the time by which something was hidden; not every time, for that would be one more page to write."""
    database.execute("update clock set latest = ? where latest < ? - ?", (now, now, RESOLUTION))


def _message(row: _Row) -> QueueMessage:
    number, receives, sent, reason, body = row
    return QueueMessage(
        message_id=str(number),
        receipt_handle=f"{number}-{receives + 1}",
        body=body.decode("utf-8", "surrogatepass"),
        receive_count=receives + 1,
        reason=reason.decode("utf-8", "surrogatepass"),
        sent=sent,
    )


def _receipt(message: QueueMessage) -> tuple[int, int]:
    """(number of the message, how often it was given out by then); no message has the number 0."""
    found = _RECEIPT.fullmatch(message.receipt_handle)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _problem(database: sqlite3.Connection, number: int) -> str:
    """Why a receipt does not fit. Empty: its message is deleted."""
    if not number:
        return "is no receipt of this queue"
    found = database.execute("select 1 from messages where id = ?", (number,)).fetchone()
    return "was given out again, or is in another queue now" if found else ""


def _bytes(text: str) -> bytes:
    """As it is kept: with lone surrogates, which are no text for SQLite, and which JSON can name."""
    return text.encode("utf-8", "surrogatepass")
