"""Where the catalogue is: option and environment -> URL. Opens nothing.

| first that is given           | meaning                                                                      |
|-------------------------------|------------------------------------------------------------------------------|
| --catalog                     | postgresql://USER:PASSWORD@HOST:PORT/NAME, sqlite:///PATH, or a path in .db  |
| DATABASE_URL                  | the same                                                                     |
| DB_HOST, DB_PORT, DB_NAME,    | PostgreSQL; without DB_USER and DB_PASSWORD what libpq takes, as PGPASSWORD  |
| DB_USER, DB_PASSWORD          |                                                                              |
| nothing                       | SQLite in $XDG_STATE_HOME/replicator/catalog.db, or ~/.local/state/...       |
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from replicator.errors import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy import URL

NO_CATALOGUE = (
    "there is no catalogue yet: a run that is given it makes one; that of a service is where its XDG_STATE_HOME says "
    "(infra/: /var/lib)"
)

POSTGRESQL = "postgresql+psycopg"
SQLITE = "sqlite"

_DRIVERS = {"postgres": POSTGRESQL, "postgresql": POSTGRESQL, POSTGRESQL: POSTGRESQL, SQLITE: SQLITE}
_SUFFIXES = (".db", ".sqlite")
_FORMS = "postgresql://USER:PASSWORD@HOST/NAME, sqlite:///PATH, or a path that ends in .db or .sqlite"


def catalogue_url(option: str | None, environment: Mapping[str, str]) -> str:
    """The URL of the catalogue, with its password: not to be shown (shown() is). option: of --catalog.

    Raises ConfigurationError, which repeats nothing of a URL.
    """
    if option:
        return _full(_parsed(option, "--catalog"))
    if text := environment.get("DATABASE_URL", "").strip():
        return _full(_parsed(text, "DATABASE_URL"))
    if environment.get("DB_HOST", "").strip():
        return _full(_from_parts(environment))
    return _full(_sqlite(_default_path(environment)))


def is_configured(option: str | None, environment: Mapping[str, str]) -> bool:
    """Whether a catalogue is asked for, rather than the one that there is by default."""
    return bool(option) or any(environment.get(name, "").strip() for name in ("DATABASE_URL", "DB_HOST"))


def shown(url: str) -> str:
    """The place as it may be told: without user, password and parameters."""
    from sqlalchemy import make_url

    parts = make_url(url)
    if parts.drivername == SQLITE:
        return parts.database or ""
    host = f"[{parts.host}]" if ":" in (parts.host or "") else parts.host or ""
    port = f":{parts.port}" if parts.port else ""
    return f"postgresql://{host}{port}/{parts.database or ''}"


def path_of(url: str) -> Path | None:
    """The file of a catalogue in SQLite; None for PostgreSQL."""
    from sqlalchemy import make_url

    parts = make_url(url)
    return Path(parts.database) if parts.drivername == SQLITE and parts.database else None


def url_of(path: Path) -> str:
    """The URL of a catalogue in a file."""
    return _full(_sqlite(path))


def state_folder(environment: Mapping[str, str]) -> Path | None:
    """Where the default catalogue is, and whatever else is remembered from run to run; None if HOME is not set."""
    try:
        return _default_path(environment).parent
    except ConfigurationError:
        return None


def spool_path(url: str, environment: Mapping[str, str]) -> Path | None:
    """The file for what the catalogue at that URL does not take."""
    folder = state_folder(environment)
    return None if folder is None else folder / f"spool-{zlib.crc32(shown(url).encode()):08x}.db"


def _parsed(text: str, name: str) -> URL:
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    if "://" not in text and text.endswith(_SUFFIXES):
        return _sqlite(Path(text).expanduser())
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):  # their texts repeat what may be a part of a password
        raise ConfigurationError(f"{name}: is no URL of a database: give {_FORMS}") from None
    driver = _DRIVERS.get(url.drivername)
    if driver is None:
        raise ConfigurationError(f"{name}: {url.drivername} is not supported: give {_FORMS}")
    problem = _problem_of_file(url, text) if driver == SQLITE else _problem_of_server(url, text)
    if problem:
        raise ConfigurationError(f"{name}: {problem}")
    return url.set(drivername=driver)


def _problem_of_file(url: URL, text: str) -> str:
    if url.host or "?" in text:
        return "write sqlite:////absolute/path or sqlite:///relative/path, and nothing after it"
    if not url.database or url.database == ":memory:":
        return "a catalogue in memory would be forgotten: give sqlite:///PATH"
    return ""


def _problem_of_server(url: URL, text: str) -> str:
    if text.count("@") > 1:
        return (
            "has more than one '@': write those of the password as %40, or use DB_HOST, DB_NAME, DB_USER, DB_PASSWORD"
        )
    if url.port is not None and not 0 < url.port < 65536:
        return "the port must be from 1 to 65535"
    return "" if url.database else "names no database: write postgresql://HOST/NAME"


def _from_parts(environment: Mapping[str, str]) -> URL:
    from sqlalchemy import URL

    name, port = environment.get("DB_NAME", "").strip(), environment.get("DB_PORT", "").strip()
    if not name:
        raise ConfigurationError("DB_NAME is not set: DB_HOST needs the name of a database beside it")
    if port and not (port.isascii() and port.isdecimal() and 0 < int(port[:9]) < 65536):
        raise ConfigurationError(f"DB_PORT={port[:40]!r}: must be a whole number from 1 to 65535")
    return URL.create(
        POSTGRESQL,
        username=environment.get("DB_USER", "").strip() or None,
        password=environment.get("DB_PASSWORD") or None,
        host=environment["DB_HOST"].strip(),
        port=int(port) if port else None,
        database=name,
    )


def _default_path(environment: Mapping[str, str]) -> Path:
    state = Path(environment.get("XDG_STATE_HOME", ""))
    if state.is_absolute():
        return state / "replicator" / "catalog.db"
    if not environment.get("HOME"):
        raise ConfigurationError("HOME is not set: say where the catalogue is with --catalog or DATABASE_URL")
    return Path(environment["HOME"]) / ".local" / "state" / "replicator" / "catalog.db"


def _sqlite(path: Path) -> URL:
    from sqlalchemy import URL

    return URL.create(SQLITE, database=str(path))


def _full(url: URL) -> str:
    return url.render_as_string(hide_password=False)
