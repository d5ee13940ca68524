"""Fields of JSON documents that anybody may have written: each is of the type it has to be, or the document is poison.

Pure. `where` is what places a field in a reason, as "record 1: ". Whatever the document, the only exception is
PoisonMessage, with a reason that is one short line of printable characters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn

from replicator.errors import PoisonMessage
from replicator.model import LONGEST_KEY

_MAX_EXCERPT = 80  # characters of a document that a reason may show


def text_at(node: Mapping[str, object], path: str, where: str) -> str:
    """The text at a dotted path. Poison if missing, of another type, empty or not Unicode."""
    value = value_at(node, path)
    if value is None:
        poison(where, f"{path} is missing")
    if not isinstance(value, str):
        poison(where, f"{path} is not text but {kind_of(value)}")
    if not value:
        poison(where, f"{path} is empty")
    try:
        value.encode()
    except UnicodeEncodeError:
        poison(where, f"{path} has a lone surrogate, which is no character")
    return value


def value_at(node: Mapping[str, object], path: str) -> object:
    """Whatever is at a dotted path, None if there is nothing."""
    value: object = node
    for name in path.split("."):
        value = value.get(name) if isinstance(value, (dict, Mapping)) else None  # dict first: ten times as fast
    return value


def objects_in(node: Mapping[str, object], name: str, where: str, item: str) -> list[tuple[str, Mapping[str, object]]]:
    """The objects of the list in the field `name`, each with the words that place it in a reason.

    Poison if that is no list of objects, or empty. item: what one of them is called.
    """
    values = node.get(name)
    if not isinstance(values, list | tuple):
        poison(where, f"{name} is not a list but {kind_of(values)}")
    if not values:
        poison(where, f"{name} is empty")
    for index, value in enumerate(values):
        if not isinstance(value, Mapping):
            poison(where, f"{item} {index}: not an object but {kind_of(value)}")
    return [(f"{where}{item} {index}: ", value) for index, value in enumerate(values)]


def legal_keys(spellings: tuple[str, ...], told: str, where: str) -> tuple[str, ...]:
    """Keep the spellings that can be keys: an encoded form may be three times as long as its key. Poison if none."""
    legal = tuple(spelling for spelling in spellings if len(spelling.encode()) <= LONGEST_KEY)
    if not legal:
        poison(where, f"the key {shown(told)} is over {LONGEST_KEY} bytes")
    return legal


def kind_of(value: object) -> str:
    """The name of its type."""
    return type(value).__name__


def shown(text: str) -> str:
    """An excerpt that is short, of one line and printable."""
    return ascii(text[:_MAX_EXCERPT])[:_MAX_EXCERPT]


def poison(where: str, reason: str) -> NoReturn:
    """Raises PoisonMessage."""
    raise PoisonMessage(where + reason)
