"""One database of entries. Whatever is wrong with it is `Away`: in one line, without a secret, for the caller to bear.

A connection belongs to the process that made it: after a fork each opens its own at its next use. Threads take turns.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from sqlalchemy import ColumnElement, Connection, Engine, and_, bindparam, delete, literal_column, make_url, or_, select
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from replicator.catalogue.engines import open_engine, transaction
from replicator.catalogue.entries import Entry, State
from replicator.catalogue.place import path_of, shown
from replicator.catalogue.schema import bring_up_to_date
from replicator.catalogue.tables import (
    end_of,
    entries,
    entry_in,
    insert_into,
    moment,
    routes,
    row_of,
    storable,
    storable_key,
    upsert,
)
from replicator.errors import ConfigurationError, ReplicatorError

Result = TypeVar("Result")

PAGE = 1000
"""Rows that are read or moved at once."""


class Away(ReplicatorError):
    """A database cannot be used now: not there, locked, full, too slow, or not what this program can use."""

    def __init__(self, reason: str, database: Database) -> None:
        super().__init__(reason)
        self.reason = reason
        self.database = database


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which entries of a route. since: what was done since then (epoch). deleted: what is gone as well."""

    prefix: str = ""
    failed: bool = False
    since: float | None = None
    deleted: bool = False


class Database:
    """The tables at one URL. Opened at its first use; every method raises Away."""

    def __init__(self, url: str) -> None:
        self.name = shown(url)
        self._url = url
        parts = make_url(url)
        self._secrets = [text for text in (parts.password, *map(str, parts.query.values())) if text]
        self._path = path_of(url)
        self._lock = threading.RLock()
        self._engine: Engine | None = None
        self._owner = 0
        self._inherited: list[Engine] = []
        self._routes: dict[str, int] = {}

    @property
    def is_file(self) -> bool:
        """Whether it is in SQLite."""
        return self._path is not None

    def is_made(self) -> bool:
        """Whether its file is there."""
        return self._path is not None and self._path.exists()

    def record(self, given: Sequence[Entry], *, unless_newer: bool = False) -> None:
        """Puts entries in the place of those of the same route and key; the last of a key counts.

        All or none. Idempotent. unless_newer: not of those that were recorded later.
        """
        # In one order, or two who record the same keys could wait for each other.
        ordered = sorted(given, key=lambda entry: (entry.route, entry.key))

        names = {entry.route: storable_key(entry.route) for entry in ordered}

        def write(connection: Connection) -> dict[str, int]:
            ids = self._route_ids(connection, sorted(set(names.values())))
            numbers = {route: ids[name] for route, name in names.items()}
            rows = [row_of(entry, numbers[entry.route]) for entry in ordered]
            connection.execute(upsert(connection.dialect, unless_newer=unless_newer), rows)
            return ids

        if ordered:
            self._routes |= self.do(write, writes=True)

    def versions(
        self, route: str, after: str, upto: str | None, *, limit: int, believable: bool
    ) -> dict[str, tuple[str, str] | None]:
        """The (version, ETag) of keys in (after, upto], in order: at most `limit` of them.

        believable: only of what was uploaded and is to be believed; else of all, None of the others.
        """
        column = entries.c
        pair = and_(column.state == State.UPLOADED.value, column.version.is_not(None), column.etag.is_not(None))

        def read(connection: Connection) -> dict[str, tuple[str, str] | None]:
            between = [_of_route(route), column.key > storable(after)]
            if upto is not None:
                between.append(column.key <= storable(upto))
            if believable:
                between.append(pair)
            rows = select(column.key, column.version, column.etag, pair.label("pair")).where(*between)
            found = connection.execute(rows.order_by(column.key).limit(limit))
            return {key: (version, etag) if is_pair else None for key, version, etag, is_pair in found}

        return self.do(read)

    def has_moved(self, route: str, key: str) -> bool:
        """Whether a file was moved to this key, and not uploaded since; or, if it ends with "/", to one below it."""
        column = entries.c
        below = and_(column.key > storable(key), column.key < storable(f"{key}\U0010ffff"))
        one = below if key.endswith("/") else column.key == storable(key)
        wanted = select(column.key).where(_of_route(route), one, column.moved_at.is_not(None)).limit(1)
        return self.do(lambda connection: connection.execute(wanted).first() is not None)

    def is_copy(self, route: str, key: str) -> bool:
        """Whether a key was uploaded, and neither its file nor its object removed since."""
        column = entries.c
        there = or_(column.state == State.UPLOADED.value, column.uploaded_at.is_not(None))
        kept = (there, column.moved_at.is_(None), column.state != State.DELETED.value)
        wanted = select(column.key).where(_of_route(route), column.key == storable(key), *kept).limit(1)
        return self.do(lambda connection: connection.execute(wanted).first() is not None)

    def routes(self) -> dict[str, int]:
        """The numbers of all routes, in the order of their names. Makes no catalogue where there is none."""
        found = self.do(lambda connection: list(connection.execute(select(routes.c.name, routes.c.id))), create=False)
        return dict(sorted((name, number) for name, number in found))

    def find(self, route: str, number: int, wanted: Wanted) -> Iterator[Entry]:
        """The entries of a route in the order of their keys, read in pages: nothing is held up between two."""
        conditions = [entries.c.route_id == number, *_conditions(wanted)]
        page = select(entries).order_by(entries.c.key).limit(PAGE)
        beyond: list[ColumnElement[bool]] = []
        while True:
            statement = page.where(*conditions, *beyond)
            found = self.do(lambda connection, now=statement: connection.execute(now).all(), create=False)  # type: ignore[misc]
            for row in found:
                yield entry_in(row, route)
            if len(found) < PAGE:
                return
            beyond = [entries.c.key > found[-1].key]

    @contextmanager
    def taking(self) -> Iterator[list[Entry]]:
        """Some entries, which are no longer here when the block has ended well. Nobody else takes or changes them."""
        with self._explained(), transaction(self._opened(create=True), writes=True) as connection:
            joined = select(entries, routes.c.name.label("route")).join(routes).order_by(routes.c.name, entries.c.key)
            found = connection.execute(joined.limit(PAGE)).all()
            yield [entry_in(row, row.route) for row in found]
            if found:
                one = and_(entries.c.route_id == bindparam("number"), entries.c.key == bindparam("one"))
                connection.execute(delete(entries).where(one), [{"number": r.route_id, "one": r.key} for r in found])

    def close(self) -> None:
        """Ends the connection, if it is this process's. It may be used again."""
        if self._engine is not None and self._owner == os.getpid():
            self._engine.dispose()
        elif self._engine is not None:
            self._inherited.append(self._engine)  # not closed, nor forgotten: it is the parent's
        self._engine = None
        self._routes = {}

    def _route_ids(self, connection: Connection, names: Sequence[str]) -> dict[str, int]:
        unknown = [name for name in names if name not in self._routes]
        if not unknown:
            return self._routes
        new = insert_into(routes, connection.dialect).on_conflict_do_nothing()
        connection.execute(new, [{"name": name} for name in unknown])
        found = connection.execute(select(routes.c.name, routes.c.id).where(routes.c.name.in_(unknown)))
        return {**self._routes, **{row.name: row.id for row in found}}

    def do(self, work: Callable[[Connection], Result], *, writes: bool = False, create: bool = True) -> Result:
        """Does it in a transaction; once more, if the connection had died since its last use: then it may count twice.

        writes: it changes something. create: make the catalogue where there is none.
        """
        with self._explained():
            engine = self._opened(create=create)
            try:
                with transaction(engine, writes=writes) as connection:
                    return work(connection)
            except DBAPIError as error:
                if not error.connection_invalidated:
                    raise
            with transaction(engine, writes=writes) as connection:
                return work(connection)

    def _opened(self, *, create: bool) -> Engine:
        if self._owner != os.getpid():
            self.close()
        if self._engine is None:
            engine = open_engine(self._url, create=create)
            try:
                bring_up_to_date(engine, create=create)
            except BaseException:
                engine.dispose()
                raise
            self._engine, self._owner = engine, os.getpid()
        return self._engine

    @contextmanager
    def _explained(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except (SQLAlchemyError, OSError, ConfigurationError) as error:
                self.close()  # what is wrong may be the connection, or the tables may have gone
                raise Away(self._words(error), self) from error

    def _words(self, error: Exception) -> str:
        """One line that a person understands, without what the URL had to hide."""
        cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
        lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
        text = lines[0] if lines else type(cause).__name__
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def _of_route(route: str) -> ColumnElement[bool]:
    return entries.c.route_id == select(routes.c.id).where(routes.c.name == storable_key(route)).scalar_subquery()


def _conditions(wanted: Wanted) -> Iterator[ColumnElement[bool]]:
    column = entries.c
    if wanted.prefix:
        prefix = storable(wanted.prefix)
        yield column.key >= prefix
        end = end_of(prefix)
        if end is not None:
            yield column.key < end
    if wanted.failed:
        yield column.state == literal_column("'failed'")  # SQLite finds the index of these by the word alone
    if not wanted.deleted:
        yield column.state != State.DELETED.value
    if wanted.since is not None:
        since: datetime = moment(wanted.since)
        done = column.state.in_((State.UPLOADED.value, State.MOVED.value))
        yield or_(and_(done, column.uploaded_at >= since), and_(~done, column.recorded_at >= since))
