"""Notifications in, names of keys out.

Owns the shapes in which stores and queues tell of a change (S3, SNS, EventBridge, MinIO, Ceph RGW, R2, the
Lambda batch of SQS) and the question which keys a message may mean. Pure: no network, clock or environment.

An event is only a hint that a key may have changed. Nothing of its content is used but the bucket, the key,
the name of the event (for logs) and its time (for the lag metric): no size, ETag, version or sequencer.
Deletes, lifecycle, tagging, ACL and restore events all simply name their key.

Whatever the input, the only exception is PoisonMessage, with a reason of one line. A message is read whole or
not at all: one bad record makes it poison, for a record skipped in silence is a lost change.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import NoReturn
from urllib.parse import unquote_plus

from replicator.untrusted import kind_of, legal_keys, objects_in, poison, shown, text_at, value_at

_MAX_DEPTH = 4  # documents inside each other, e.g. SNS envelope > EventBridge event is 2
_MAX_COUNT_DIGITS = 9
_MAX_TIME_DIGITS = 15  # milliseconds until the year 33658

_AWS_S3 = "aws:s3"
_EVENTBRIDGE_S3 = "aws.s3"
_R2 = "r2"

# Not changes of an object. To answer a read by reading the source would raise the next such event, for ever.
_NO_CHANGE = ("ObjectAccessed:", "BucketCreated", "BucketRemoved")


@dataclass(frozen=True, slots=True)
class ChangedKey:
    """A key that may have changed.

    `candidates` are the spellings the key may have, one or more. Which is meant is not known, so each is to
    be converged; this is harmless, because converging asks the source what is there now. `size` (bytes) and `etag` are
    of the object that was made, as told, and only say which way of asking is likely to be the shortest.
    """

    bucket: str
    candidates: tuple[str, ...]
    event: str
    time: datetime | None
    size: int | None = field(default=None, compare=False)
    etag: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Notification:
    """What a message says. `ignored` tells why a well-formed message names no key; None if it names any."""

    changes: tuple[ChangedKey, ...]
    ignored: str | None = None


@dataclass(frozen=True, slots=True)
class QueueMessage:
    """One message of a queue. The body is as sent: it may be poison.

    receive_count: how often it was given out, this time included. queue_arn: "" for a queue that is not SQS's.
    reason: why it was set aside, "" if it was not. sent: when it was sent first, in seconds since the epoch, or None.
    """

    message_id: str
    receipt_handle: str
    body: str
    receive_count: int
    queue_arn: str = ""
    reason: str = ""
    sent: float | None = None


def parse_message(body: str | bytes | Mapping[str, object]) -> Notification:
    """Read one message in any known shape. Raises PoisonMessage, and nothing else."""
    return _parse(body, depth=1, where="")


def messages_of(event: Mapping[str, object]) -> tuple[QueueMessage, ...]:
    """Split a Lambda event from SQS into its messages. Raises PoisonMessage if it is not such an event."""
    if not isinstance(event, Mapping):
        poison("", f"not an SQS batch but {kind_of(event)}")
    records = objects_in(event, "Records", "", "record")
    return tuple(_queue_message(record, where) for where, record in records)


def _spellings(key: str, source: str, where: str) -> tuple[str, ...]:
    """Decide which keys of the store `key`, as told by `source`, may mean: literal first, no duplicates.

    | source              | literal | decoded | why                                                          |
    |---------------------|---------|---------|--------------------------------------------------------------|
    | aws:s3              |         |    x    | always form-encoded: ' ' is '+', '+' is %2B; documented      |
    | aws.s3, EventBridge |    x    |    x    | disputed: not documented; observers see plain keys, yet      |
    |                     |         |         | well-known libraries decode them                             |
    | minio:s3            |    x    |    x    | targets get encoded keys ('/' as %2F), listeners plain ones  |
    | ceph:s3             |    x    |    x    | plain in the releases seen; a newer one may do as AWS does   |
    | R2                  |    x    |    x    | not documented; the samples are plain                        |
    | any other           |    x    |    x    | unknown                                                      |

    "decoded" turns '+' and %XX into UTF-8. Where that fails the key was not encoded: only the literal is
    left, and nothing where the encoding is certain, which is poison.
    """
    try:
        decoded = unquote_plus(key, errors="strict")
    except UnicodeDecodeError:
        if source == _AWS_S3:
            poison(where, f"the key {shown(key)} does not decode to UTF-8")
        return (key,)
    if source == _AWS_S3 or decoded == key:
        return (decoded,)
    return (key, decoded)


def _candidates(key: str, source: str, where: str) -> tuple[str, ...]:
    return legal_keys(_spellings(key, source, where), key, where)


def _parse(body: object, *, depth: int, where: str) -> Notification:
    """Tell the shape of a document by the fields only that shape has, and read it."""
    if depth > _MAX_DEPTH:
        poison(where, f"more than {_MAX_DEPTH} envelopes inside each other")
    document = _document(body, where)
    if "Records" in document:
        return _parse_records(document, depth=depth, where=where)
    if document.get("Event") == "s3:TestEvent":
        return Notification((), ignored="s3:TestEvent")
    if "Type" in document:
        return _parse_sns(document, depth=depth, where=where)
    if "detail-type" in document:
        return Notification((_eventbridge_change(document, where),))
    if "action" in document:
        return Notification((_r2_change(document, where),))
    names = ", ".join(name for name in islice(document, 5) if isinstance(name, str))
    return poison(where, f"no known shape of notification, its fields are {shown(names)}")


def _document(body: object, where: str) -> Mapping[str, object]:
    if isinstance(body, str | bytes):
        body = _from_json(body, where)
    if not isinstance(body, Mapping):
        poison(where, f"not an object but {kind_of(body)}")
    return body


def _from_json(text: str | bytes, where: str) -> object:
    try:
        return _DECODER.decode(text if isinstance(text, str) else text.decode(json.detect_encoding(text)))
    except json.JSONDecodeError as error:
        reason = f"not JSON: {error.msg} at character {error.pos}"
    except UnicodeDecodeError:
        reason = "not JSON: not Unicode text"
    except ValueError:
        reason = "not JSON: a number that cannot be read"
    except RecursionError:
        reason = "not JSON that can be read: nested too deeply"
    return poison(where, reason)


def _refuse_constant(name: str) -> NoReturn:
    """NaN and Infinity are read by Python but are not JSON."""
    raise ValueError(name)


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
"""json.loads would make one for every message, which takes as long as the message."""


def _parse_sns(document: Mapping[str, object], *, depth: int, where: str) -> Notification:
    kind = text_at(document, "Type", where)
    if kind != "Notification":  # e.g. SubscriptionConfirmation: somebody must act, so it must not vanish
        poison(where, f"an SNS message of type {shown(kind)}, not a notification")
    message = text_at(document, "Message", where)
    return _parse(message, depth=depth + 1, where=f"{where}Message: ")


def _parse_records(document: Mapping[str, object], *, depth: int, where: str) -> Notification:
    records = objects_in(document, "Records", where, "record")
    parts = [_parse_record(record, depth=depth, where=at) for at, record in records]
    changes = tuple(change for part in parts for change in part.changes)
    return Notification(changes, ignored=None if changes else parts[0].ignored)


def _parse_record(record: Mapping[str, object], *, depth: int, where: str) -> Notification:
    if "Sns" in record:  # SNS invokes a Lambda with a list of envelopes
        message = text_at(record, "Sns.Message", where)
        return _parse(message, depth=depth + 1, where=f"{where}Sns.Message: ")
    source = _source(record, where)
    event = text_at(record, "eventName", where).removeprefix("s3:")
    if event.startswith(_NO_CHANGE):
        return Notification((), ignored=f"{shown(event)} is not a change of an object")
    key = text_at(record, "s3.object.key", where)
    change = ChangedKey(
        bucket=text_at(record, "s3.bucket.name", where),
        candidates=_candidates(key, source, f"{where}s3.object.key: "),
        event=event,
        time=_utc(record.get("eventTime")),
        size=_size_told(event, value_at(record, "s3.object.size")),
        etag=_etag_told(value_at(record, "s3.object.eTag")),
    )
    return Notification((change,))


def _source(record: Mapping[str, object], where: str) -> str:
    """Who tells. Some vendors do not say; another service of AWS (a table, a stream, a queue) is poison."""
    source = text_at(record, "eventSource", where) if "eventSource" in record else ""
    if source.startswith("aws:") and source != _AWS_S3:
        poison(where, f"eventSource is {shown(source)}, not a bucket")
    return source


def _eventbridge_change(document: Mapping[str, object], where: str) -> ChangedKey:
    source = text_at(document, "source", where)
    if source != _EVENTBRIDGE_S3:
        poison(where, f"source is {shown(source)}, not {_EVENTBRIDGE_S3}")
    key = text_at(document, "detail.object.key", where)
    return ChangedKey(
        bucket=text_at(document, "detail.bucket.name", where),
        candidates=_candidates(key, source, f"{where}detail.object.key: "),
        event=text_at(document, "detail-type", where),
        time=_utc(document.get("time")),
    )


def _size_told(event: str, value: object) -> int | None:
    """None where it says nothing about an object that is there now."""
    return value if "ObjectCreated:" in event and type(value) is int and value >= 0 else None


def _etag_told(value: object) -> str:
    return value if isinstance(value, str) else ""


def _r2_change(document: Mapping[str, object], where: str) -> ChangedKey:
    return ChangedKey(
        bucket=text_at(document, "bucket", where),
        candidates=_candidates(text_at(document, "object.key", where), _R2, f"{where}object.key: "),
        event=text_at(document, "action", where),
        time=_utc(document.get("eventTime")),
    )


def _queue_message(record: Mapping[str, object], where: str) -> QueueMessage:
    source = text_at(record, "eventSource", where)
    if source != "aws:sqs":
        poison(where, f"eventSource is {shown(source)}, not aws:sqs")
    body = record.get("body")
    if not isinstance(body, str):
        poison(where, "body is missing or not text")
    count = text_at(record, "attributes.ApproximateReceiveCount", where)
    if not count.isdecimal() or len(count) > _MAX_COUNT_DIGITS:
        poison(where, f"attributes.ApproximateReceiveCount is {shown(count)}, not a count")
    return QueueMessage(
        message_id=text_at(record, "messageId", where),
        receipt_handle=text_at(record, "receiptHandle", where),
        body=body,
        receive_count=int(count),
        queue_arn=text_at(record, "eventSourceARN", where),
        reason=_text_or_nothing(value_at(record, "messageAttributes.Reason.stringValue")),
        sent=_seconds(value_at(record, "attributes.SentTimestamp")),
    )


def _text_or_nothing(value: object) -> str:
    """What only explains a message: where it cannot be read, that is no reason to lose one."""
    return value if isinstance(value, str) else ""


def _seconds(milliseconds: object) -> float | None:
    """A time as SQS tells it; one that cannot be read is unknown."""
    if isinstance(milliseconds, str) and milliseconds.isdecimal() and len(milliseconds) <= _MAX_TIME_DIGITS:
        return int(milliseconds) / 1000
    return None


def _utc(value: object) -> datetime | None:
    """A time for the lag metric; one that cannot be read is unknown, and no reason to lose a change."""
    if not isinstance(value, str):
        return None
    try:
        time = datetime.fromisoformat(value)
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
