"""The state of a run, in SQLite: what is not yet done, what may have to be deleted, and the counters.

With a file, a run that was stopped or killed goes on where it was; without, the same database is temporary and goes
with the process. Everything in it may be lost or old without harm: a range that is done again finds its objects in
sync, and every delete is checked at the source before it is made.

Ranges are changed in the same transaction as the counters, and a transaction is committed every second or so: after
a kill the file shows the run as it was a moment before.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from replicator.bulk.tasks import Range
from replicator.errors import ConfigurationError, ReplicatorError

OURS = 0x52504C32
"""Marks a database as one of these; the last byte is the version of its tables and facts."""

BATCH = 256
"""Candidates that are read at once."""

_TABLES = """
create table if not exists facts (name text primary key, value text not null) without rowid;
create table if not exists ranges (after blob, upto blob, primary key (after, upto)) without rowid;
create table if not exists candidates (key blob primary key) without rowid;
create table if not exists failed (key blob, target text, primary key (key, target)) without rowid;
"""

_NAMES = ("ranges", "candidates", "failed")


class Checkpoint:
    """The database of one run. Every method raises ReplicatorError when it cannot be written."""

    def __init__(self, database: sqlite3.Connection, name: str) -> None:
        self._database = database
        self._name = name
        self._broken = False

    def resume(self) -> Mapping[str, Any] | None:
        """What `save` was last given, if that run had not come to its end."""
        facts = dict(self._run("select name, value from facts"))
        return json.loads(facts["saved"]) if "saved" in facts else None

    def start_pass(self) -> None:
        """All keys are to be listed, and nothing is to be deleted."""
        self._clear()
        self._run("insert into ranges values (?, ?)", *_row(Range()))

    def ranges(self) -> list[Range]:
        """What is not done, in order."""
        found = self._run("select after, upto from ranges order by after")
        return [Range(_text(after), _text(upto) or None) for after, upto in found]

    def replace(self, before: Range, now: Sequence[Range]) -> None:
        """What was to do for `before` is now to do for these."""
        self._run("delete from ranges where after = ? and upto = ?", *_row(before))
        for one in now:
            self._run("insert or replace into ranges values (?, ?)", *_row(one))

    def add_candidates(self, keys: Sequence[str]) -> None:
        """Notes keys that may have to be deleted."""
        with self._explained():
            self._database.executemany("insert or ignore into candidates values (?)", [(_bytes(key),) for key in keys])

    def candidates(self) -> Iterator[tuple[str, ...]]:
        """Batches of them, in order."""
        return self._batches("candidates")

    def add_failed(self, key: str, target: str) -> int:
        """Notes a key that is not as it should be there. How many that are more than before: 1, or 0."""
        return self._change("insert or ignore into failed values (?, ?)", _bytes(key), target)

    def remove_failed(self, key: str, target: str) -> int:
        """The key is as it should be, now. How many that are less than before: 1, or 0."""
        return self._change("delete from failed where key = ? and target = ?", _bytes(key), target)

    def failed(self) -> Iterator[tuple[str, ...]]:
        """Batches of the keys that are noted, in order."""
        return self._batches("failed")

    def _batches(self, table: str) -> Iterator[tuple[str, ...]]:
        last = b""
        statement = f"select distinct key from {table} where key > ? order by key limit ?"  # noqa: S608 - one of ours
        while found := self._run(statement, last, BATCH):
            last = found[-1][0]
            yield tuple(_text(key) for (key,) in found)

    def remove_candidates(self, keys: Sequence[str]) -> None:
        """They are dealt with."""
        with self._explained():
            self._database.executemany("delete from candidates where key = ?", [(_bytes(key),) for key in keys])

    def save(self, state: Mapping[str, Any]) -> None:
        """Commits everything so far, together with these facts.

        Nothing after a failure: what SQLite has rolled back is then not in the facts, which would be ahead of it.
        """
        if self._broken:
            return
        self._run("insert or replace into facts values ('saved', ?)", json.dumps(state))
        with self._explained():
            self._database.commit()

    def finish(self) -> None:
        """The run has come to its end: the next one begins anew."""
        self._clear()
        self._run("delete from facts where name = 'saved'")
        with self._explained():
            self._database.commit()

    def _clear(self) -> None:
        for table in _NAMES:
            self._run(f"delete from {table}")  # noqa: S608 - one of ours

    def _change(self, statement: str, *values: object) -> int:
        with self._explained():
            return self._database.execute(statement, values).rowcount

    def _run(self, statement: str, *values: object) -> list[Any]:
        with self._explained():
            return self._database.execute(statement, values).fetchall()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            self._broken = True
            raise ReplicatorError(f"{self._name}: {error}: what was done so far is safe, run again to go on") from error


@contextmanager
def open_checkpoint(path: Path | None, route: str) -> Iterator[Checkpoint]:
    """The state of a run: in a file, or for as long as the process lives.

    route: what the run is about, in words; a file that was made for something else is refused, and one in use.
    Raises ConfigurationError before anything is changed.
    """
    name = f"--state {path}" if path is not None else "temporary state"
    try:
        database = sqlite3.connect("" if path is None else path, timeout=1.0)
    except sqlite3.Error as error:
        raise ConfigurationError(f"{name}: {error}") from error
    try:
        _prepare(database, name, route)
        yield Checkpoint(database, name)
    finally:
        database.close()


def _prepare(database: sqlite3.Connection, name: str, route: str) -> None:
    try:
        database.execute("pragma locking_mode = exclusive")
        database.execute("pragma synchronous = normal")
        (mark,) = database.execute("pragma application_id").fetchone()
        (tables,) = database.execute("select count(*) from sqlite_master").fetchone()
        if tables and mark != OURS:
            raise ConfigurationError(f"{name}: is not the state of a run of this version: use another file")
        database.executescript(f"begin exclusive; {_TABLES} pragma application_id = {OURS}; commit")
        facts = dict(database.execute("select name, value from facts"))
    except sqlite3.OperationalError as error:
        hint = ": is it in use by another run?" if "locked" in str(error) else ""
        raise ConfigurationError(f"{name}: {error}{hint}") from error
    except sqlite3.DatabaseError as error:
        raise ConfigurationError(
            f"{name}: {error}: give a file that does not exist yet, or one of an earlier run"
        ) from error
    if "saved" in facts and facts.get("route") != route:
        raise ConfigurationError(f"{name}: belongs to {facts.get('route')}, which is not finished: use another file")
    database.execute("insert or replace into facts values ('route', ?)", (route,))
    database.commit()


def _row(wanted: Range) -> tuple[bytes, bytes]:
    """As it is kept; a range without an end has an empty one, which no key is."""
    return _bytes(wanted.after), _bytes(wanted.upto or "")


def _bytes(key: str) -> bytes:
    """As it is kept: the name of a file need not be UTF-8, and Python shows its other bytes as surrogates."""
    return key.encode("utf-8", "surrogateescape")


def _text(kept: bytes) -> str:
    return kept.decode("utf-8", "surrogateescape")
