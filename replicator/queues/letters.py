"""What is in messages that were set aside: dead letters, and deletes that are held. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from replicator.errors import PoisonMessage
from replicator.events import QueueMessage, parse_message
from replicator.items import KeysItem, PartsItem, RangeItem, decode, is_item

EXCERPT = 80
"""Characters that are shown of a body that cannot be read."""


class Kind(Enum):
    """What a message is."""

    KEYS = "keys"
    RANGE = "range"
    PARTS = "parts"
    NOTIFICATION = "notification"
    POISON = "poison"


@dataclass(frozen=True, slots=True)
class Letter:
    """A message that was set aside, as it was read.

    route: "" unless it is a work item. source: as in KeysItem. bucket: "" unless a store's notification. keys: all
    that it may mean; a work item's are relative to the source's prefix, a notification's are whole. about: what there
    is to say instead of keys, in one line; of poison, why it cannot be read, and how it begins.
    """

    message: QueueMessage
    kind: Kind
    route: str = ""
    bucket: str = ""
    keys: tuple[str, ...] = ()
    about: str = ""
    source: str = ""

    @property
    def reason(self) -> str:
        """Why it was set aside, in one line."""
        if self.message.reason:
            return self.message.reason
        return f"not told: was given out {self.message.receive_count} times; the log says what went wrong"


def read_letter(message: QueueMessage) -> Letter:
    """Reads a message of any kind. Raises nothing: what cannot be read is poison."""
    try:
        return _item(message) if is_item(message.body) else _notification(message)
    except PoisonMessage as error:
        return Letter(message, Kind.POISON, about=f"{error.reason}; begins with {ascii(message.body[:EXCERPT])}")


def _item(message: QueueMessage) -> Letter:
    match decode(message.body):
        case KeysItem(route, keys, source=source):
            return Letter(message, Kind.KEYS, route, keys=keys, source=source)
        case RangeItem(route, after, upto):
            end = "the end" if upto is None else ascii(upto)
            return Letter(message, Kind.RANGE, route, about=f"every key after {after!a} up to {end}")
        case PartsItem(route, key, parts=parts):
            about = f"{len(parts) or 'all'} parts of a large object"
            return Letter(message, Kind.PARTS, route, keys=(key,), about=about)


def _notification(message: QueueMessage) -> Letter:
    told = parse_message(message.body)
    keys = dict.fromkeys(key for change in told.changes for key in change.candidates)
    buckets = dict.fromkeys(change.bucket for change in told.changes)
    return Letter(message, Kind.NOTIFICATION, bucket=", ".join(buckets), keys=tuple(keys), about=told.ignored or "")
