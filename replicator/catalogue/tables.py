"""The tables, and how an entry lies in them. What creates them is in migrations/, and must agree with this.

Keys are in the order of their bytes in UTF-8, which is S3's, in both databases. What PostgreSQL's text cannot hold is
replaced, so that one odd key never makes a batch fail: NUL by the picture of it (U+2400), lone surrogates (bytes in a
file's name that are no UTF-8) by their number, and what is longer than any bucket's key by its beginning and a digest.
Such a key keeps no version, as it may be mistaken for another.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any, overload

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    ForeignKey,
    Insert,
    Integer,
    MetaData,
    Table,
    Text,
    case,
    func,
    null,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Dialect, Row

from replicator.catalogue.entries import Entry, State
from replicator.model import LONGEST_KEY

LONGEST_ERROR = 1000

metadata = MetaData()

routes = Table(
    "catalogue_routes",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
)

entries = Table(
    "catalogue_entries",
    metadata,
    Column("route_id", Integer, ForeignKey("catalogue_routes.id"), primary_key=True),
    Column("key", Text().with_variant(postgresql.TEXT(collation="C"), "postgresql"), primary_key=True),
    Column("name", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("size", BigInteger),
    Column("etag", Text),
    Column("modified", DateTime(timezone=True)),
    Column("version", Text),
    Column("uploaded_at", DateTime(timezone=True)),
    Column("moved_at", DateTime(timezone=True)),
    Column("recorded_at", DateTime(timezone=True), nullable=False),
    Column("error", Text, nullable=False),
    sqlite_with_rowid=False,
)

delete_budgets = Table(
    "catalogue_delete_budgets",
    metadata,
    Column("route", Text, primary_key=True),
    Column("hour", Integer, primary_key=True),
    Column("deletes", BigInteger, nullable=False),
    Column("changes", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

_REPLACED = ("name", "state", "version", "recorded_at", "error")
_KEPT = ("size", "etag", "modified", "uploaded_at")
"""What stays as it was when an entry does not say."""


def insert_into(table: Table, dialect: Dialect) -> sqlite.Insert | postgresql.Insert:
    """An INSERT that knows ON CONFLICT."""
    return postgresql.insert(table) if dialect.name == "postgresql" else sqlite.insert(table)


def upsert(dialect: Dialect, *, unless_newer: bool) -> Insert:
    """Puts a row in the place of the one before. unless_newer: that one stays if it was recorded later."""
    statement = insert_into(entries, dialect)
    given = statement.excluded
    return statement.on_conflict_do_update(
        index_elements=[entries.c.route_id, entries.c.key],
        set_={
            **{name: given[name] for name in _REPLACED},
            **{name: func.coalesce(given[name], entries.c[name]) for name in _KEPT},
            # What was uploaded anew and is still here is the only copy of nothing.
            "moved_at": case(
                (given.state == State.UPLOADED.value, null()),
                else_=func.coalesce(given.moved_at, entries.c.moved_at),
            ),
        },
        where=given.recorded_at >= entries.c.recorded_at if unless_newer else None,
    )


def row_of(entry: Entry, route_id: int) -> dict[str, Any]:
    """An entry as the database takes it."""
    key = storable_key(entry.key)
    return {
        "route_id": route_id,
        "key": key,
        "name": key.rstrip("/").rpartition("/")[2] or key,
        "state": entry.state.value,
        "size": entry.size,
        "etag": storable(entry.etag),
        "modified": _moment(entry.modified),
        "version": storable(entry.version) if key == entry.key else None,
        "uploaded_at": _moment(entry.uploaded_at),
        "moved_at": _moment(entry.moved_at),
        "recorded_at": moment(entry.recorded_at),
        "error": storable(entry.error[:LONGEST_ERROR]),
    }


def entry_in(row: Row[Any], route: str) -> Entry:
    """The entry that a row of all columns holds."""
    return Entry(
        route=route,
        key=row.key,
        state=State(row.state),
        size=row.size,
        etag=row.etag,
        modified=_seconds(row.modified),
        version=row.version,
        uploaded_at=_seconds(row.uploaded_at),
        moved_at=_seconds(row.moved_at),
        recorded_at=_seconds(row.recorded_at) or 0.0,
        error=row.error,
    )


def storable_key(key: str) -> str:
    """The key, or the route, as it can be stored; see the top."""
    text = storable(key)
    encoded = text.encode()
    if len(encoded) <= LONGEST_KEY:
        return text
    digest = hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()[:16]
    return f"{encoded[: LONGEST_KEY - 32].decode(errors='ignore')}…{digest}"


def end_of(prefix: str) -> str | None:
    """The first text after all that begin with the prefix; None when there is none."""
    for at in range(len(prefix) - 1, -1, -1):
        code = ord(prefix[at]) + 1
        if code < 0x110000:
            return prefix[:at] + chr(0xE000 if 0xD800 <= code < 0xE000 else code)
    return None


def moment(seconds: float) -> datetime:
    """Seconds since the epoch as the databases compare them; those that no calendar has are the epoch."""
    return _moment(seconds) or datetime.fromtimestamp(0, UTC)


@overload
def storable(text: str) -> str: ...
@overload
def storable(text: str | None) -> str | None: ...
def storable(text: str | None) -> str | None:
    """The text without what PostgreSQL's cannot hold; other texts are as they were, and so is their order."""
    if text is None or (text.isascii() and "\0" not in text):
        return text
    return text.replace("\0", "\u2400").encode(errors="backslashreplace").decode()


def _moment(seconds: float | None) -> datetime | None:
    """None as well for a time that no calendar has: files can have them."""
    if seconds is None:
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _seconds(stored: datetime | None) -> float | None:
    if stored is None:
        return None
    return (stored if stored.tzinfo else stored.replace(tzinfo=UTC)).timestamp()  # SQLite has no time zones
