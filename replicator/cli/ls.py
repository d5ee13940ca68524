"""replicator ls: what the catalogue knows of every key. Asks no bucket."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from io import TextIOWrapper
from typing import TYPE_CHECKING

import click

from replicator.catalogue.entries import Entry, State
from replicator.durations import parse_duration
from replicator.errors import ConfigurationError
from replicator.logs import printable

if TYPE_CHECKING:
    from replicator.catalogue.catalogue import Catalogue
    from replicator.catalogue.database import Wanted

LineOf = Callable[[Entry], str]


@click.command()
@click.argument("prefix", default="")
@click.option("--catalog", metavar="URL", help="PostgreSQL, or a file.  [default: DATABASE_URL, DB_HOST, local file]")
@click.option("--route", metavar="TEXT", help="Only of routes with this in their names.")
@click.option("--failed", is_flag=True, help="Only what failed.")
@click.option("--all", "deleted", is_flag=True, help="Also what was deleted.")
@click.option("--since", metavar="TIME", help="Only what was done since: 24h, 2026-11-20, 2026-11-20T18:00.")
@click.option("--json", "as_json", is_flag=True, help="A line of JSON for each key.")
@click.option("-l", "--long", "long", is_flag=True, help="Also the source's last change, and the ETag.")
def ls(
    prefix: str,
    catalog: str | None,
    route: str | None,
    failed: bool,
    deleted: bool,
    since: str | None,
    as_json: bool,
    long: bool,
) -> int:
    """List what became of the keys that begin with PREFIX.

    For each: when it was uploaded (or failed, or was deleted), bytes, state, key. All of it is from the catalogue of
    earlier runs: no bucket is asked.
    """
    moment = None if since is None else _moment(since, time.time())
    # SQLAlchemy takes longer to import than all the rest together.
    from replicator.catalogue.catalogue import open_catalogue
    from replicator.catalogue.database import Wanted
    from replicator.catalogue.place import catalogue_url

    wanted = Wanted(prefix=prefix, failed=failed, since=moment, deleted=deleted)
    if isinstance(sys.stdout, TextIOWrapper):  # a terminal that is not in UTF-8 is no reason to fail
        sys.stdout.reconfigure(errors="backslashreplace")
    with open_catalogue(catalogue_url(catalog, os.environ), warn=lambda line: click.echo(line, err=True)) as catalogue:
        _print(catalogue, route, wanted, _json if as_json else _long if long else _short, headings=not as_json)
    return 0


def _print(catalogue: Catalogue, route: str | None, wanted: Wanted, line_of: LineOf, *, headings: bool) -> None:
    """Prints the entries of all routes, each under its name if there are several, as ls does with directories."""
    names = catalogue.routes(route)
    if route is not None and not names:
        known = "\n".join(f"  {printable(name)}" for name in catalogue.routes()) or "  (none)"
        raise ConfigurationError(f"--route {route!r}: is in the name of no route of the catalogue; there are:\n{known}")
    under = ""
    for name in names:
        for entry in catalogue.find(name, wanted):
            if headings and len(names) > 1 and under != name:
                sys.stdout.write(("\n" if under else "") + f"{printable(name)}:\n")
                under = name
            sys.stdout.write(line_of(entry) + "\n")


def _short(entry: Entry) -> str:
    error = f": {printable(entry.error)}" if entry.error else ""
    return f"{_local(_done_at(entry))} {_size(entry)} {entry.state.value:<8} {printable(entry.key)}{error}"


def _long(entry: Entry) -> str:
    error = f": {printable(entry.error)}" if entry.error else ""
    changed = "-" if entry.modified is None else _local(entry.modified)
    facts = f"{_local(_done_at(entry))} {_size(entry)} {entry.state.value:<8} {changed:<19} {entry.etag or '-':<34}"
    return f"{facts} {printable(entry.key)}{error}"


def _json(entry: Entry) -> str:
    return json.dumps(
        {
            "route": entry.route,
            "key": entry.key,
            "state": entry.state.value,
            "size": entry.size,
            "etag": entry.etag,
            "modified": _iso(entry.modified),
            "uploaded_at": _iso(entry.uploaded_at),
            "recorded_at": _iso(entry.recorded_at),
            "error": entry.error or None,
        }
    )


def _done_at(entry: Entry) -> float:
    """When what its state says was done; of what was found uploaded, when it was last found so."""
    uploaded = entry.uploaded_at if entry.state in (State.UPLOADED, State.MOVED) else None
    return entry.recorded_at if uploaded is None else uploaded


def _size(entry: Entry) -> str:
    return f"{'-' if entry.size is None else entry.size:>10}"


def _local(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _iso(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _moment(text: str, now: float) -> float:
    """Seconds since the epoch of a time, local unless it says, or of so long ago."""
    try:
        return datetime.fromisoformat(text.strip()).astimezone().timestamp()
    except (ValueError, OverflowError):
        pass
    try:
        return now - parse_duration(text, "--since")
    except ConfigurationError:
        raise ConfigurationError(
            f"--since {text!r}: must be so long ago, as 24h or 7d, or a time, as 2026-11-20 or 2026-11-20T18:00Z"
        ) from None
