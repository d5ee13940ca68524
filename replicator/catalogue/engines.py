"""Connections to SQLite and PostgreSQL that end: nothing here waits longer than a run can bear."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url

from replicator.catalogue.place import NO_CATALOGUE, SQLITE
from replicator.errors import ConfigurationError

CONNECT_SECONDS = 3
STATEMENT_SECONDS = 5
HUNG_SECONDS = 10.0
"""After which a transaction with a server that says nothing at all is cut off."""

_WRITES = "replicator_writes"


def open_engine(url: str, *, create: bool) -> Engine:
    """An engine of one connection. create: make the directory and the file of SQLite, for their owner alone.

    Raises OSError for a file that is not there or cannot be made. Connects to nothing.
    """
    place = make_url(url)
    if place.drivername == SQLITE:
        path = Path(place.database or "")
        if create:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        elif not path.exists():
            raise ConfigurationError(NO_CATALOGUE)
        return _sqlite_engine(place)
    given = {"connect_timeout": CONNECT_SECONDS, "application_name": "replicator"}
    arguments = {name: value for name, value in given.items() if name not in place.query}
    return create_engine(place, pool_size=1, max_overflow=0, connect_args=arguments)


def _sqlite_engine(place: URL) -> Engine:
    engine = create_engine(place, pool_size=1, max_overflow=0, connect_args={"timeout": STATEMENT_SECONDS})

    @event.listens_for(engine, "connect")
    def set_up(connection: Any, _record: object) -> None:  # noqa: ANN401 - sqlite3's
        # The driver's own transactions begin as readers, and a reader that wants to write does not wait for others.
        connection.isolation_level = None
        connection.execute("pragma synchronous = normal")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get(_WRITES)
        connection.exec_driver_sql("begin immediate" if writes else "begin")

    return engine


@contextmanager
def transaction(engine: Engine, *, writes: bool = False, cut_off: bool = True) -> Iterator[Connection]:
    """A transaction that is committed when the block ends well. Raises SQLAlchemyError, in bounded time.

    cut_off: end the connection when the server is silent for HUNG_SECONDS.
    """
    with engine.connect().execution_options(**{_WRITES: writes}) as connection:
        if connection.dialect.name != "postgresql":
            with connection.begin():
                yield connection
            return
        with _cut_off(connection) if cut_off else nullcontext(), connection.begin():
            connection.exec_driver_sql(f"set local statement_timeout = '{STATEMENT_SECONDS}s'")
            yield connection


@contextmanager
def _cut_off(connection: Connection) -> Iterator[None]:
    """A statement_timeout needs a server that is awake; this does not."""
    timer = threading.Timer(HUNG_SECONDS, _shut, [connection.connection.dbapi_connection])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _shut(connection: Any) -> None:  # noqa: ANN401 - psycopg's
    with suppress(Exception), closing(socket.socket(fileno=os.dup(connection.fileno()))) as line:
        line.shutdown(socket.SHUT_RDWR)
