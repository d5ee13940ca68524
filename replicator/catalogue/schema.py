"""The version of the tables: looked at when a database is opened, and brought up to date by whoever comes first."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError, ProgrammingError

from replicator.catalogue.engines import transaction
from replicator.catalogue.place import NO_CATALOGUE
from replicator.errors import ConfigurationError

HEAD = "0002"
"""The revision that this program needs: the last in migrations/versions. They are numbered."""

VERSION_TABLE = "catalogue_version"
"""Not Alembic's usual name: the database may belong to a program with migrations of its own."""

SCRIPTS = Path(__file__).parent / "migrations"

LOCK = 0x52504C43
"""Of PostgreSQL: held by whoever migrates."""

_PATIENCE = 10.0
"""Seconds to wait for others that open the same new file."""


def bring_up_to_date(engine: Engine, *, create: bool, scripts: Path = SCRIPTS, head: str = HEAD) -> None:
    """Makes the tables what this program needs. Idempotent; any number of programs may do it at once.

    create: also where there are none. Raises ConfigurationError where there are none or newer ones, SQLAlchemyError
    otherwise. One query, and no import of Alembic, when there is nothing to do.
    """
    found = _revision(engine)
    if found == head:
        return
    if found is None and not create:
        raise ConfigurationError(NO_CATALOGUE)
    if found is not None and found > head:
        raise ConfigurationError(f"the catalogue is of a newer version ({found}, here {head}): upgrade this program")
    if engine.dialect.name == "sqlite":
        _write_ahead(engine)
    with transaction(engine, writes=True, cut_off=False) as connection:
        if connection.dialect.name == "postgresql":
            _take_over(connection)
        _migrate(connection, scripts)


def _revision(engine: Engine) -> str | None:
    """The revision that a database is at; None when it has no catalogue."""
    try:
        return _read_revision(engine)
    except (OperationalError, ProgrammingError):
        with transaction(engine) as connection:
            there = connection.dialect.has_table(connection, VERSION_TABLE)
        # Somebody may have made it in between; if something else was wrong, it is wrong again.
        return _read_revision(engine) if there else None


def _read_revision(engine: Engine) -> str | None:
    with transaction(engine) as connection:
        return connection.execute(text(f"select version_num from {VERSION_TABLE}")).scalar()  # noqa: S608 - ours


def _take_over(connection: Connection) -> None:
    """Waits for others no longer than for any statement; what follows may take its time."""
    connection.execute(text("select pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
    connection.execute(text("set local statement_timeout = 0"))
    encoding = connection.execute(text("show server_encoding")).scalar()
    if encoding != "UTF8":
        raise ConfigurationError(f"the database has the encoding {encoding}, which cannot hold all keys: make it UTF8")


def _write_ahead(engine: Engine) -> None:
    """Lets readers read while one writes. SQLite does not wait by itself when several switch a new file."""
    until = time.monotonic() + _PATIENCE
    while True:
        with engine.connect() as connection:
            driver = connection.connection.dbapi_connection
            assert driver is not None  # noqa: S101 - narrows the type
            try:
                driver.cursor().execute("pragma journal_mode = wal")
            except sqlite3.OperationalError:
                if time.monotonic() > until:
                    raise
            else:
                return
        time.sleep(0.05)


def _migrate(connection: Connection, scripts: Path) -> None:
    """Runs what is missing, in the transaction of the connection; nothing if others did meanwhile."""
    from alembic import command  # a quarter of a second, for something that is hardly ever needed
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(scripts).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    config.attributes["version_table"] = VERSION_TABLE
    try:
        command.upgrade(config, "head")
    except CommandError as error:  # a revision that is not among the scripts
        raise ConfigurationError(f"the catalogue cannot be brought up to date: {error}") from error
