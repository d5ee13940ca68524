"""Work items: what the queue engine sends to itself, beside the notifications of stores. Pure.

All are idempotent: one that is delivered twice, or long after, finds its work done, or does what is right by then.

| item        | says                                                        | sent by                          |
|-------------|-------------------------------------------------------------|----------------------------------|
| `KeysItem`  | converge these keys                                         | the brake, `release`, `PartsItem`|
| `RangeItem` | list both sides between two keys, converge what differs     | `migrate`, the schedule, a range |
| `PartsItem` | copy these parts of a large object into uploads that are    | whoever meets the object, and    |
|             | begun; whoever sees that all are there completes them       | the first of its items           |

They are JSON objects that begin with the field "replicator", which no store's notification has.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NoReturn

from replicator.errors import PoisonMessage
from replicator.multipart import Part

KIND = "replicator"

MOST_KEYS = 100
MOST_BYTES = 200_000
"""Of the keys in one item; a message of SQS has 256 KiB."""

_BEGINNING = f'{{"{KIND}":'


@dataclass(frozen=True, slots=True)
class KeysItem:
    """Converge these keys of a route. released: a person has let their deletes pass the brake. source: as RangeItem."""

    route: str
    keys: tuple[str, ...]
    released: bool = False
    source: str = ""


@dataclass(frozen=True, slots=True)
class RangeItem:
    """The keys after `after` up to and including `upto`; None: to the end. deep: look at every object.

    source: the location that the route is thought to begin at, "" for whatever it is: a worker whose route of that name
    begins elsewhere would do other work than was asked for.
    """

    route: str
    after: str = ""
    upto: str | None = None
    deep: bool = False
    source: str = ""


@dataclass(frozen=True, slots=True)
class PartsItem:
    """Some parts of the version `etag` of one object.

    uploads: (name of a target, id of its unfinished upload; "" where none could be begun). parts: to copy; empty: cut
    what is missing into items. count: of all parts of the object. stamped: targets where the parts' ETags prove nothing
    together: each part is proved by itself, and the copy carries a stamp. exact: the source is asked for the size of
    every part.
    """

    route: str
    key: str
    etag: str
    uploads: tuple[tuple[str, str], ...]
    parts: tuple[Part, ...]
    count: int
    stamped: tuple[str, ...] = ()
    exact: bool = False


Item = KeysItem | RangeItem | PartsItem


def encode(item: Item) -> str:
    """As the body of a message. ASCII, since SQS takes no control characters."""
    match item:
        case KeysItem():
            fields = {"route": item.route, "keys": list(item.keys), "released": item.released, "source": item.source}
            return json.dumps({KIND: "keys", **fields})
        case RangeItem():
            fields = {"route": item.route, "after": item.after, "upto": item.upto, "deep": item.deep}
            return json.dumps({KIND: "range", **fields, "source": item.source})
        case PartsItem():
            fields = {
                "route": item.route,
                "key": item.key,
                "etag": item.etag,
                "uploads": [list(one) for one in item.uploads],
                "parts": [[part.number, part.offset, part.size] for part in item.parts],
                "count": item.count,
                "stamped": list(item.stamped),
                "exact": item.exact,
            }
            return json.dumps({KIND: "parts", **fields})


def keys_items(route: str, keys: Iterable[str], source: str = "") -> Iterator[KeysItem]:
    """As many items as the keys need: each fits into a message, and is done within seconds."""
    piece: list[str] = []
    size = 0
    for key in keys:
        mine = len(json.dumps(key)) + 2
        if piece and (len(piece) == MOST_KEYS or size + mine > MOST_BYTES):
            yield KeysItem(route, tuple(piece), source=source)
            piece, size = [], 0
        piece.append(key)
        size += mine
    if piece:
        yield KeysItem(route, tuple(piece), source=source)


def is_item(body: str) -> bool:
    """Whether a message's body is one of ours, be it good or not."""
    return body.startswith(_BEGINNING)


def decode(body: str) -> Item:
    """The item in a body of which is_item is true. Raises PoisonMessage for one that cannot be read."""
    try:
        fields = _Fields(json.loads(body))
    except (ValueError, RecursionError):
        _poison("not JSON")
    match fields.text(KIND):
        case "keys":
            return KeysItem(
                fields.text("route"), fields.texts("keys"), fields.flag("released"), fields.text_or_none("source") or ""
            )
        case "range":
            return RangeItem(
                fields.text("route"),
                fields.text("after"),
                fields.text_or_none("upto"),
                fields.flag("deep"),
                fields.text_or_none("source") or "",
            )
        case "parts":
            return PartsItem(
                fields.text("route"),
                fields.text("key"),
                fields.text("etag"),
                fields.pairs("uploads"),
                fields.parts("parts"),
                fields.number("count"),
                fields.texts("stamped", empty=True),
                fields.flag("exact"),
            )
        case kind:
            return _poison(f"{KIND} is {kind[:40]!a}, which this version does not know")


class _Fields:
    """The fields of an item, each of the type it has to have."""

    def __init__(self, document: Mapping[str, object]) -> None:
        self._document = document

    def text_or_none(self, name: str) -> str | None:
        return None if self._document.get(name) is None else self.text(name)

    def text(self, name: str) -> str:
        value = self._document.get(name)
        return value if isinstance(value, str) else _poison(f"{name} is not text")

    def flag(self, name: str) -> bool:
        value = self._document.get(name, False)
        return value if isinstance(value, bool) else _poison(f"{name} is neither true nor false")

    def number(self, name: str) -> int:
        value = self._document.get(name)
        return value if isinstance(value, int) and value > 0 else _poison(f"{name} is no number above 0")

    def texts(self, name: str, *, empty: bool = False) -> tuple[str, ...]:
        values = self._list(name, empty=empty)
        return tuple(value if isinstance(value, str) else _poison(f"{name} has what is not text") for value in values)

    def pairs(self, name: str) -> tuple[tuple[str, str], ...]:
        found = []
        for value in self._list(name):
            match value:
                case [str(one), str(other)]:
                    found.append((one, other))
                case _:
                    _poison(f"{name} has what is no pair of texts")
        return tuple(found)

    def parts(self, name: str) -> tuple[Part, ...]:
        found = []
        for value in self._list(name, empty=True):
            match value:
                case [int(number), int(offset), int(size)] if number > 0 and offset >= 0 and size > 0:
                    found.append(Part(number, offset, size))
                case _:
                    _poison(f"{name} has what is no part")
        return tuple(found)

    def _list(self, name: str, *, empty: bool = False) -> list[object]:
        value = self._document.get(name)
        return value if isinstance(value, list) and (value or empty) else _poison(f"{name} is no list, or empty")


def _poison(reason: str) -> NoReturn:
    raise PoisonMessage(f"work item: {reason}")
