"""What a webhook was told, in words of our own. Pure.

What goes into the queue is written here, from the names and times that replicator.events found, and always begins with
"Records". So nobody can send a work item (replicator.items) through a webhook, however it is disguised: as a field
beside others, behind a blank, nested. A body with thousands of records becomes several messages, one that names a key
twice names it once, and what else a sender wrote is not kept, but for the size and MD5 of a new object.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import quote_plus

from replicator.errors import PoisonMessage
from replicator.events import ChangedKey, parse_message
from replicator.items import KIND
from replicator.multipart import is_md5
from replicator.queues.queue import Outgoing

RECORDS_EACH = 25
"""Records of one message: with the longest names, every character of them encoded, it is still taken by SQS."""

LONGEST_BUCKET = 300
"""Characters: RGW puts the name of a tenant before that of a bucket."""

LONGEST_EVENT = 100
LARGEST_SET_ASIDE = 64 * 1024


@dataclass(frozen=True, slots=True)
class Taken:
    """What a notification says. set_aside: why records could not be understood, each in a message of its own.

    ignored: why there are no messages, None if there are any.
    """

    messages: tuple[Outgoing, ...] = ()
    changes: tuple[ChangedKey, ...] = ()
    set_aside: tuple[str, ...] = ()
    ignored: str | None = None


def document_in(body: str | bytes) -> Mapping[str, object]:
    """The object of JSON in a body, which is UTF-8. Raises PoisonMessage, and nothing else."""
    try:
        text = body if isinstance(body, str) else body.decode("utf-8-sig")
        document = json.loads(text, parse_constant=_refuse_constant)
    except UnicodeDecodeError:
        raise PoisonMessage("not UTF-8") from None
    except json.JSONDecodeError as error:
        raise PoisonMessage(f"not JSON: {error.msg} at character {error.pos}") from None
    except (ValueError, RecursionError):
        raise PoisonMessage("not JSON that can be read: nested too deeply, or a number that is none") from None
    if not isinstance(document, Mapping):
        raise PoisonMessage(f"not an object but {type(document).__name__}")
    return document


def take(document: Mapping[str, object]) -> Taken:
    """Restates a notification. Raises PoisonMessage for what is none.

    Where records of a store cannot be understood, they are set aside and the others are taken: stores send again what
    was refused, some for ever, and hold back what comes after it.
    """
    if KIND in document:
        raise PoisonMessage(f"has the field {KIND!r}: work items are not taken from outside")
    try:
        notification = parse_message(document)
        return Taken(restate(notification.changes), notification.changes, ignored=notification.ignored)
    except PoisonMessage:
        records = document.get("Records")
        if not isinstance(records, list) or not records or not all(_is_of_store(one) for one in records):
            raise
    return _take_apart(records)


def restate(changes: Iterable[ChangedKey]) -> tuple[Outgoing, ...]:
    """Messages that name the same keys, each of one bucket. Every candidate of a change becomes a record.

    Raises PoisonMessage for the name of a bucket that can be none.
    """
    by_bucket: dict[str, dict[str, str]] = {}
    for change in changes:
        if len(change.bucket) > LONGEST_BUCKET:
            raise PoisonMessage(f"the name of a bucket has more than {LONGEST_BUCKET} characters")
        keys = by_bucket.setdefault(change.bucket, {})
        keys.update((key, _record(change, key)) for key in change.candidates)
    return tuple(
        Outgoing(f'{{"Records":[{",".join(records[begin : begin + RECORDS_EACH])}]}}')
        for records in (list(keys.values()) for keys in by_bucket.values())
        for begin in range(0, len(records), RECORDS_EACH)
    )


def _record(change: ChangedKey, key: str) -> str:
    """As AWS would tell of it, since what AWS sends has one meaning only."""
    told: dict[str, object] = {"key": quote_plus(key, safe="/")}
    if change.size is not None and is_md5(change.etag):  # the short way of converging asks for no other objects
        told |= {"size": change.size, "eTag": change.etag}
    return json.dumps(
        {
            "eventSource": "aws:s3",
            "eventName": f"Webhook:{change.event[:LONGEST_EVENT]}",
            "eventTime": change.time.isoformat() if change.time is not None else "",
            "s3": {"bucket": {"name": change.bucket}, "object": told},
        },
        separators=(",", ":"),
    )


def _is_of_store(record: object) -> bool:
    """Whether it means to tell of an object, rather than to be of a table or another queue."""
    return isinstance(record, Mapping) and "s3" in record


def _take_apart(records: list[Mapping[str, object]]) -> Taken:
    changes: list[ChangedKey] = []
    aside: list[Outgoing] = []
    for record in records:
        try:
            told = parse_message({"Records": [record]}).changes
            restate(told)
        except PoisonMessage as error:
            aside.append(Outgoing(_as_it_came(record), reason=f"poison: {error.reason}"))
        else:
            changes += told
    return Taken((*restate(changes), *aside), tuple(changes), tuple(message.reason for message in aside))


def _as_it_came(record: Mapping[str, object]) -> str:
    """In a message that whoever reads it cannot understand either, so that a person gets to see it."""
    try:
        body = json.dumps({"Records": [record]}, allow_nan=False, separators=(",", ":"))
    except (ValueError, RecursionError):
        raise PoisonMessage("a record has a number that is none, or is nested too deeply") from None
    if len(body) > LARGEST_SET_ASIDE:
        raise PoisonMessage(f"a record of more than {LARGEST_SET_ASIDE} bytes cannot be understood")
    return body


def _refuse_constant(name: str) -> float:
    """NaN and Infinity are read by Python but are not JSON."""
    raise ValueError(name)
