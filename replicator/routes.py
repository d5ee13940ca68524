"""The routes of a replicator.toml: which source goes to which targets, and which of them a key of an event is about.

Pure; docs/ROUTES.md shows a file. Values come from the route, else from the variables that README.md lists.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from replicator.errors import ConfigurationError
from replicator.filters import KeyFilter, Rule
from replicator.model import Deletes
from replicator.settings import DELETES_PER_HOUR, Settings, Work, note_brake, note_effort
from replicator.sides import Role, Side, note_side, overlaps
from replicator.storage_classes import StorageClasses, storage_classes_from
from replicator.tangles import tangles

_TOP = ("endpoints", "routes")
_ROUTE = ("source", "targets", "deletes", "keys", "max_deletes_per_hour", "delete_share", "storage_classes")
_TARGET = ("location", "storage_classes")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def read_routes(environment: Mapping[str, str], config: Mapping[str, object]) -> tuple[Settings, ...]:
    """The routes of a parsed replicator.toml in its order, or the one of the environment if it has none.

    Raises ConfigurationError with one line for each bad setting; values of secrets are not in it.
    """
    problems = _unknown("replicator.toml", config, _TOP)
    tables = config.get("routes", {})
    if not isinstance(tables, Mapping):
        problems.append("replicator.toml: routes must be tables: [routes.NAME]")
        tables = {}
    routes: list[Settings | None] = []
    if tables:
        routes = _Reader(environment, config, problems).read(tables)
    else:
        try:
            routes = [Settings.from_env(environment, config=config)]
        except ConfigurationError as error:
            problems.append(str(error))
    complete = tuple(route for route in routes if route is not None)
    problems += tangles(complete)
    if problems:
        raise ConfigurationError("\n".join(dict.fromkeys(problems)))
    return complete


def read_route(
    environment: Mapping[str, str], config: Mapping[str, object], name: str, *, deletes: Deletes | None = None
) -> Settings:
    """One route of a replicator.toml. Raises ConfigurationError, also for what is wrong with the others.

    deletes: instead of what the file says.
    """
    tables = config.get("routes")
    if not tables:
        raise ConfigurationError(
            f"{name}: there is no [routes.{name}], nor any other route, in the replicator.toml read"
        )
    routes = read_routes(environment, config)
    for route in routes:
        if route.name == name:
            chosen = replace(route, deletes=deletes or route.deletes)
            problems = tangles([chosen if one is route else one for one in routes])
            if problems:
                raise ConfigurationError("\n".join(problems))
            return chosen
    names = list(tables) if isinstance(tables, Mapping) else []
    raise ConfigurationError(f"{name}: replicator.toml has no [routes.{name}]{_meant(name, names)}")


def routes_for(routes: Sequence[Settings], bucket: str, key: str) -> list[tuple[Settings, str]]:
    """The routes that a key of an event is about, each with the key below its source's prefix.

    Events tell the name of a bucket and not its endpoint: every route whose source has that name is meant. That does
    no harm, since converging a key asks the route's own source what is there.
    """
    found = []
    for route in routes:
        source = route.source
        if source.bucket == bucket and key.startswith(source.prefix) and key != source.prefix:
            below = key[len(source.prefix) :]
            if route.keys.includes(below):
                found.append((route, below))
    return found


class _Reader:
    """Reads the tables of routes; what is wrong is noted in problems."""

    def __init__(self, environment: Mapping[str, str], config: Mapping[str, object], problems: list[str]) -> None:
        self._environment = environment
        self._config = config
        self._problems = problems

    def read(self, tables: Mapping[str, object]) -> list[Settings | None]:
        """A route for each table, None for those that are none."""
        effort = note_effort(self._environment, self._problems)
        brake = note_brake(self._environment, self._problems)
        self._problems += _alike(list(tables))
        return [self._route(name, table, effort, brake) for name, table in tables.items()]

    def _route(self, name: str, table: object, effort: Work, brake: Mapping[str, Any]) -> Settings | None:
        where = f"[routes.{name}]"
        if not _NAME.fullmatch(name):
            self._problems.append(f"{where}: a route's name has letters, digits, - and _, at most 64 of them")
        if not isinstance(table, Mapping):
            self._problems.append(f"{where}: must be a table with source and targets")
            return None
        self._problems += _unknown(where, table, _ROUTE)
        source = self._side("source", table.get("source"), f"{where} source")
        targets = self._targets(where, table)
        given = {**brake, **self._brake(where, table)}
        deletes, keys = self._deletes(where, table, effort.deletes), self._keys(where, table)
        if source is None or not targets:
            return None
        self._problems += [f"{where} {line}" for line in overlaps([source, *targets])]
        return Settings(
            name=name,
            source=source,
            targets=tuple(targets),
            deletes=deletes,
            keys=keys,
            concurrency=effort.concurrency,
            memory=effort.memory,
            processes=effort.processes,
            max_rps=effort.max_rps,
            bandwidth=effort.bandwidth,
            **given,
        )

    def _side(self, role: Role, location: object, where: str) -> Side | None:
        if not isinstance(location, str):
            self._problems.append(f'{where}: must be a location, as "s3://bucket/prefix" or "name:bucket/prefix"')
            return None
        return note_side(role, location, self._environment, self._config, self._problems, where)

    def _targets(self, where: str, table: Mapping[str, object]) -> list[Side]:
        given = table.get("targets", [])
        entries = given if isinstance(given, list) else [given]
        if not entries:
            self._problems.append(f"{where} targets: give one location or a list of them")
        classes = self._classes(where, table)
        sides = [self._target(f"{where} targets", entry, classes) for entry in entries]
        return [side for side in sides if side is not None]

    def _target(self, where: str, entry: object, classes: StorageClasses | None) -> Side | None:
        location = entry
        if isinstance(entry, Mapping):
            self._problems += _unknown(where, entry, _TARGET)
            location = entry.get("location")
            own = self._classes(where, entry)
            classes = classes if own is None else own
        side = self._side("target", location, where)
        return side if side is None or classes is None else replace(side, storage_classes=classes)

    def _classes(self, where: str, table: Mapping[str, object]) -> StorageClasses | None:
        """None where the table does not say: then it is what the variables say."""
        if "storage_classes" not in table:
            return None
        try:
            return storage_classes_from(table["storage_classes"], f"{where} storage_classes")
        except ConfigurationError as error:
            self._problems.append(str(error))
            return None

    def _deletes(self, where: str, table: Mapping[str, object], otherwise: Deletes) -> Deletes:
        given = table.get("deletes", otherwise.value)
        if given not in [choice.value for choice in Deletes]:
            self._problems.append(f'{where} deletes = {_shown(given)}: must be "mirror" or "keep"')
            return otherwise
        return Deletes(given)

    def _brake(self, where: str, table: Mapping[str, object]) -> dict[str, int | float]:
        given: dict[str, int | float] = {}
        most, share = table.get("max_deletes_per_hour"), table.get("delete_share")
        if type(most) is int and most in DELETES_PER_HOUR:
            given["max_deletes_per_hour"] = most
        elif most is not None:
            limits = f"from {DELETES_PER_HOUR.start} to {DELETES_PER_HOUR.stop - 1}"
            self._problems.append(f"{where} max_deletes_per_hour = {_shown(most)}: must be a whole number {limits}")
        if isinstance(share, (int, float)) and not isinstance(share, bool) and 0 <= share <= 1:
            given["delete_share"] = float(share)
        elif share is not None:
            self._problems.append(f"{where} delete_share = {_shown(share)}: must be a number from 0 to 1, as 0.1")
        return given

    def _keys(self, where: str, table: Mapping[str, object]) -> KeyFilter:
        given = table.get("keys", [])
        if not isinstance(given, list):
            self._problems.append(f'{where} keys: must be a list, as ["exclude *", "include *.jpg"]')
            return KeyFilter()
        rules = [rule for rule in (self._rule(where, text) for text in given) if rule is not None]
        if rules and rules[0].include:
            self._problems.append(
                f'{where} keys: begins with an "include", but all keys are included before: begin with "exclude *"'
            )
        return KeyFilter(rules)

    def _rule(self, where: str, text: object) -> Rule | None:
        word, blank, pattern = text.partition(" ") if isinstance(text, str) else ("", "", "")
        if word in ("include", "exclude") and pattern:
            return Rule(word == "include", pattern)
        wanted = '"include PATTERN" or "exclude PATTERN", of which the last that matches decides'
        other = "; in rclone's filters it is the first" if word in ("+", "-") and blank else ""
        self._problems.append(f"{where} keys: {_shown(text)}: must be {wanted}{other}")
        return None


def _unknown(where: str, table: Mapping[str, object], known: Sequence[str]) -> list[str]:
    """A line for each key that is none."""
    return [f"{where}: {key[:80]!r} is no setting{_meant(key, known)}" for key in table if key not in known]


def _alike(names: Sequence[str]) -> list[str]:
    """A line for each name that differs from one before it in capitals only: counters and metrics go by them."""
    first: dict[str, str] = {}
    return [
        f"[routes.{name}]: there is [routes.{first[name.lower()]}] already: give it a name of its own"
        for name in names
        if first.setdefault(name.lower(), name) != name
    ]


def _meant(given: str, known: Sequence[str]) -> str:
    """The nearest of what there is, else all of it."""
    from difflib import get_close_matches  # only for messages

    near = get_close_matches(given.lower(), known, n=1)
    return f": {near[0]!r} is meant?" if near else f": there are {', '.join(known)}"


def _shown(value: object) -> str:
    return repr(value)[:80]
