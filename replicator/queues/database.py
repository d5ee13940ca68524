"""The file of SQLite that local queues are kept in: opened with care, written by many threads with few syncs.

What is committed is on the disk (synchronous = full). That takes a disk's time, so what threads want while one of
them waits for the disk is done together, in one transaction, by whichever of them comes next.

The file must be on a disk of this machine: SQLite's write-ahead log does not work over NFS and the like.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar, cast

from replicator.errors import ConfigurationError, QueueError

Result = TypeVar("Result")

Change = Callable[[sqlite3.Connection], Result]
"""What is done within a transaction that others may share. It raises nothing but errors of SQLite."""

OURS = 0x52505131
"""Marks a database as one of these; the last byte is the version of its tables."""

PATIENCE = 30.0
"""Seconds to wait for another process that has the file."""

LOG_KEPT = 16 * 1024 * 1024
"""Bytes of the write-ahead log that stay when more of it was needed."""

_TABLES = (
    # autoincrement: no two messages ever have the same number, so that an old receipt cannot fit a new message
    """create table if not exists messages (
        id integer primary key autoincrement, queue text not null, due real not null, since real not null,
        receives integer not null, sent real not null, reason blob not null, body blob not null)""",
    "create index if not exists messages_due on messages (queue, due, receives)",
    "create table if not exists clock (latest real not null)",
    "insert into clock select 0 where not exists (select * from clock)",
    f"pragma application_id = {OURS}",
)


class QueueFile:
    """The file, open. Its methods may be called by several threads at once, and several processes may have it open.

    create: makes the file if there is none. patience: seconds to wait for another process.
    Raises ConfigurationError, before anything is changed, for what is no such file or cannot be one.
    """

    def __init__(self, path: Path, *, create: bool = True, patience: float = PATIENCE) -> None:
        self.path = path
        self._database = _open(path, create=create, patience=patience)
        self._files = _files(path)
        self._turn = threading.Condition()
        self._waiting: list[_Work] = []
        self._at_work = False
        self._news = threading.Condition()
        self._announced = 0

    def commit(self, change: Change[Result]) -> Result:
        """Does it, and returns what it returned when that is on the disk. Raises QueueError if it may not be."""
        mine = _Work(change)
        with self._turn:
            self._waiting.append(mine)
            while self._at_work and not mine.done:
                self._turn.wait()
            if not mine.done:
                self._at_work = True
                batch, self._waiting = self._waiting, []
        if not mine.done:
            try:
                self._commit_together(batch)
            finally:
                with self._turn:
                    self._at_work = False
                    for work in batch:
                        work.done = True
                    self._turn.notify_all()
        if mine.failure is not None:
            raise QueueError(f"{self.path}: {mine.failure}: what it holds is safe") from mine.failure
        return cast(Result, mine.result)

    @property
    def announced(self) -> int:
        """How often this process announced news: for `wait_for_news`."""
        return self._announced

    def announce(self) -> None:
        """Wakes the threads that wait: there may be something for them."""
        with self._news:
            self._announced += 1
            self._news.notify_all()

    def wait_for_news(self, known: int, seconds: float) -> None:
        """Returns when something was announced since `announced` was `known`, or after so many seconds."""
        with self._news:
            if self._announced == known:
                self._news.wait(seconds)

    def close(self) -> None:
        """Waits for what is being committed. Whatever is asked for afterwards raises QueueError. Idempotent."""
        with self._turn:
            while self._at_work:
                self._turn.wait()
            self._database.close()
        self.announce()

    def _commit_together(self, batch: list[_Work]) -> None:
        failure: Exception | None = QueueError("interrupted")  # others must not take a Ctrl-C for success
        try:
            self._database.execute("begin immediate")
            for work in batch:
                work.result = work.change(self._database)
            self._database.execute("commit")
            self._check_files()
            failure = None
        except (sqlite3.Error, QueueError) as error:
            failure = error
        finally:
            for work in batch:
                work.failure = failure
            if failure is not None:
                with suppress(sqlite3.Error):
                    self._database.rollback()

    def _check_files(self) -> None:
        """SQLite would go on writing to files that were deleted, and end with them."""
        with suppress(OSError):
            if _files(self.path) == self._files:
                return
        raise QueueError("was removed or replaced while in use: end all that use it, and start them again")


class _Work:
    """What one thread wants committed."""

    def __init__(self, change: Change[Any]) -> None:
        self.change = change
        self.result: Any = None
        self.failure: Exception | None = None
        self.done = False


def _open(path: Path, *, create: bool, patience: float) -> sqlite3.Connection:
    there = os.path.exists(path)
    if there and not os.path.isfile(path):
        raise ConfigurationError(f"{path}: is no file: give the path of a file for the queues")
    if not there and not create:
        raise ConfigurationError(f"{path}: there are no queues in this place: is it the path that `serve` was given?")
    if not os.path.isdir(path.parent):
        raise ConfigurationError(f"{path}: there is no folder {path.parent}: make it first")
    try:
        place = f"{path.absolute().as_uri()}?mode={'rwc' if create else 'rw'}"
        database = sqlite3.connect(place, uri=True, timeout=patience, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise ConfigurationError(f"{path}: {error}: may it be written, and its folder?") from error
    try:
        _prepare(database, path, patience)
    except BaseException:
        database.close()
        raise
    return database


def _prepare(database: sqlite3.Connection, path: Path, patience: float) -> None:
    try:
        (mark,) = database.execute("pragma application_id").fetchone()
        (tables,) = database.execute("select count(*) from sqlite_master").fetchone()
        if tables and mark != OURS:
            raise ConfigurationError(f"{path}: is not a file of queues of this version: use another file")
        if _write_ahead(database, patience) != "wal":
            raise ConfigurationError(f"{path}: SQLite has no write-ahead log there: use a disk of this machine")
        for pragma in ("synchronous = full", "fullfsync = on", f"journal_size_limit = {LOG_KEPT}"):
            database.execute(f"pragma {pragma}")
        database.execute("begin immediate")
        for statement in _TABLES:
            database.execute(statement)
        database.execute("commit")
    except sqlite3.OperationalError as error:
        raise ConfigurationError(f"{path}: {error}: may it be written, and its folder?") from error
    except sqlite3.DatabaseError as error:
        raise ConfigurationError(f"{path}: {error}: give a file that does not exist yet, or one of queues") from error


def _write_ahead(database: sqlite3.Connection, patience: float) -> str:
    """Turns the log on. SQLite does not wait by itself for another process that does the same at this moment."""
    until = time.monotonic() + patience
    while True:
        try:
            return str(database.execute("pragma journal_mode = wal").fetchone()[0])
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
        time.sleep(0.02)


def _files(path: Path) -> list[tuple[int, int]]:
    """Which files are there now: the database and its log."""
    real = os.path.realpath(path)
    return [(found.st_dev, found.st_ino) for found in (os.stat(real), os.stat(f"{real}-wal"))]
