"""Which storage class an object gets at a target, by the class that it has at the source. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from replicator.errors import ConfigurationError

STANDARD = "STANDARD"

ALL_OTHERS = "*"
"""Stands for every class of the source that is not named."""

_CLASS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""Looser than AWS's list: Ceph's administrators give names of their own."""


def class_of(storage_class: str) -> str:
    """A storage class as it is asked for: "" for the default, which some stores name and some do not."""
    return "" if storage_class == STANDARD else storage_class


@dataclass(frozen=True, slots=True)
class StorageClasses:
    """A target's map of storage classes.

    pairs: (class at the source, class at the target). Nothing is mapped unless it is named, or "*" is.
    """

    pairs: tuple[tuple[str, str], ...] = ()

    def wanted(self, storage_class: str) -> str | None:
        """The class to ask for at the target, "" for its default; None where the map says nothing.

        storage_class: what the source says, "" for its default.
        """
        given = dict(self.pairs)
        wanted = given.get(storage_class or STANDARD, given.get(ALL_OTHERS))
        return None if wanted is None else class_of(wanted)


AS_AT_THE_SOURCE = StorageClasses()
"""No map: every object is asked to have its source's class, and gets the default where that is refused."""


def parse_storage_classes(text: str, name: str) -> StorageClasses:
    """ "GLACIER=STANDARD_IA,*=STANDARD". name: of the setting, for messages. Raises ConfigurationError."""
    items = [item.strip() for item in text.split(",") if item.strip()]
    pairs = [
        (before.strip(), after.strip()) for before, equals, after in (one.partition("=") for one in items) if equals
    ]
    if len(pairs) < len(items):
        raise ConfigurationError(f"{name}={text[:80]!r}: must be CLASS=CLASS,... as GLACIER=STANDARD_IA,*=STANDARD")
    return _checked(pairs, name)


def storage_classes_from(table: object, name: str) -> StorageClasses:
    """The same from a table of the configuration. Raises ConfigurationError."""
    if not isinstance(table, Mapping) or not all(isinstance(value, str) for value in table.values()):
        raise ConfigurationError(f'{name}: must be a table of classes, as {{ GLACIER = "STANDARD_IA" }}')
    return _checked(table.items(), name)


def _checked(pairs: Iterable[tuple[str, str]], name: str) -> StorageClasses:
    """The map of these pairs. A class that is named twice, or has no name that a class can have, is refused."""
    given: dict[str, str] = {}
    for source, target in pairs:
        if source in given:
            raise ConfigurationError(f"{name}: {source} is mapped twice")
        for one in (source, target):
            if one not in ("", ALL_OTHERS) and not _CLASS.fullmatch(one):
                raise ConfigurationError(f"{name}: {one[:80]!r} is no storage class; those of AWS are as STANDARD_IA")
        if not source or target == ALL_OTHERS:
            raise ConfigurationError(
                f"{name}: {source} = {target!r}: give a class, or * for all others, and what it becomes"
            )
        given[source] = target
    return StorageClasses(tuple(given.items()))
