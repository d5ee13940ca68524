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
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import NoReturn
from urllib.parse import unquote_plus

from replicator.errors import PoisonMessage

_MAX_DEPTH = 4  # documents inside each other, e.g. SNS envelope > EventBridge event is 2
_MAX_KEY_BYTES = 1024
_MAX_EXCERPT = 80  # characters of a message that a reason may show
_MAX_COUNT_DIGITS = 9

_AWS_S3 = "aws:s3"
_EVENTBRIDGE_S3 = "aws.s3"
_R2 = "r2"

# Not changes of an object. To answer a read by reading the source would raise the next such event, for ever.
_NO_CHANGE = ("ObjectAccessed:", "BucketCreated", "BucketRemoved")


@dataclass(frozen=True, slots=True)
class ChangedKey:
    """A key that may have changed.

    `candidates` are the spellings the key may have, one or more. Which is meant is not known, so each is to
    be converged; this is harmless, because converging asks the source what is there now.
    """

    bucket: str
    candidates: tuple[str, ...]
    event: str
    time: datetime | None


@dataclass(frozen=True, slots=True)
class Notification:
    """What a message says. `ignored` tells why a well-formed message names no key; None if it names any."""

    changes: tuple[ChangedKey, ...]
    ignored: str | None = None


@dataclass(frozen=True, slots=True)
class QueueMessage:
    """One message of the batch that Lambda reads from SQS. The body is as sent: it may be poison."""

    message_id: str
    receipt_handle: str
    body: str
    receive_count: int
    queue_arn: str


def parse_message(body: str | bytes | Mapping[str, object]) -> Notification:
    """Read one message in any known shape. Raises PoisonMessage, and nothing else."""
    return _parse(body, depth=1, where="")


def messages_of(event: Mapping[str, object]) -> tuple[QueueMessage, ...]:
    """Split a Lambda event from SQS into its messages. Raises PoisonMessage if it is not such an event."""
    if not isinstance(event, Mapping):
        _poison("", f"not an SQS batch but {_kind(event)}")
    records = _records(event.get("Records"), "")
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
            _poison(where, f"the key {_shown(key)} does not decode to UTF-8")
        return (key,)
    if source == _AWS_S3 or decoded == key:
        return (decoded,)
    return (key, decoded)


def _candidates(key: str, source: str, where: str) -> tuple[str, ...]:
    """Keep the spellings that can be keys: an encoded form may be three times as long as its key."""
    spellings = _spellings(key, source, where)
    legal = tuple(spelling for spelling in spellings if len(spelling.encode()) <= _MAX_KEY_BYTES)
    if not legal:
        _poison(where, f"the key {_shown(key)} is over {_MAX_KEY_BYTES} bytes")
    return legal


def _parse(body: object, *, depth: int, where: str) -> Notification:
    """Tell the shape of a document by the fields only that shape has, and read it."""
    if depth > _MAX_DEPTH:
        _poison(where, f"more than {_MAX_DEPTH} envelopes inside each other")
    document = _document(body, where)
    if "Records" in document:
        return _parse_records(document["Records"], depth=depth, where=where)
    if document.get("Event") == "s3:TestEvent":
        return Notification((), ignored="s3:TestEvent")
    if "Type" in document:
        return _parse_sns(document, depth=depth, where=where)
    if "detail-type" in document:
        return Notification((_eventbridge_change(document, where),))
    if "action" in document:
        return Notification((_r2_change(document, where),))
    names = ", ".join(name for name in islice(document, 5) if isinstance(name, str))
    return _poison(where, f"no known shape of notification, its fields are {_shown(names)}")


def _document(body: object, where: str) -> Mapping[str, object]:
    if isinstance(body, str | bytes):
        body = _from_json(body, where)
    if not isinstance(body, Mapping):
        _poison(where, f"not an object but {_kind(body)}")
    return body


def _from_json(text: str | bytes, where: str) -> object:
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        reason = f"not JSON: {error.msg} at character {error.pos}"
    except UnicodeDecodeError:
        reason = "not JSON: not Unicode text"
    except ValueError:
        reason = "not JSON: a number that cannot be read"
    except RecursionError:
        reason = "not JSON that can be read: nested too deeply"
    return _poison(where, reason)


def _refuse_constant(name: str) -> NoReturn:
    """NaN and Infinity are read by Python but are not JSON."""
    raise ValueError(name)


def _parse_sns(document: Mapping[str, object], *, depth: int, where: str) -> Notification:
    kind = _text(document, "Type", where)
    if kind != "Notification":  # e.g. SubscriptionConfirmation: somebody must act, so it must not vanish
        _poison(where, f"an SNS message of type {_shown(kind)}, not a notification")
    message = _text(document, "Message", where)
    return _parse(message, depth=depth + 1, where=f"{where}Message: ")


def _parse_records(records: object, *, depth: int, where: str) -> Notification:
    parts = [_parse_record(record, depth=depth, where=at) for at, record in _records(records, where)]
    changes = tuple(change for part in parts for change in part.changes)
    return Notification(changes, ignored=None if changes else parts[0].ignored)


def _parse_record(record: Mapping[str, object], *, depth: int, where: str) -> Notification:
    if "Sns" in record:  # SNS invokes a Lambda with a list of envelopes
        message = _text(record, "Sns.Message", where)
        return _parse(message, depth=depth + 1, where=f"{where}Sns.Message: ")
    source = _source(record, where)
    event = _text(record, "eventName", where).removeprefix("s3:")
    if event.startswith(_NO_CHANGE):
        return Notification((), ignored=f"{_shown(event)} is not a change of an object")
    key = _text(record, "s3.object.key", where)
    change = ChangedKey(
        bucket=_text(record, "s3.bucket.name", where),
        candidates=_candidates(key, source, f"{where}s3.object.key: "),
        event=event,
        time=_utc(record.get("eventTime")),
    )
    return Notification((change,))


def _source(record: Mapping[str, object], where: str) -> str:
    """Who tells. Some vendors do not say; another service of AWS (a table, a stream, a queue) is poison."""
    source = _text(record, "eventSource", where) if "eventSource" in record else ""
    if source.startswith("aws:") and source != _AWS_S3:
        _poison(where, f"eventSource is {_shown(source)}, not a bucket")
    return source


def _eventbridge_change(document: Mapping[str, object], where: str) -> ChangedKey:
    source = _text(document, "source", where)
    if source != _EVENTBRIDGE_S3:
        _poison(where, f"source is {_shown(source)}, not {_EVENTBRIDGE_S3}")
    key = _text(document, "detail.object.key", where)
    return ChangedKey(
        bucket=_text(document, "detail.bucket.name", where),
        candidates=_candidates(key, source, f"{where}detail.object.key: "),
        event=_text(document, "detail-type", where),
        time=_utc(document.get("time")),
    )


def _r2_change(document: Mapping[str, object], where: str) -> ChangedKey:
    return ChangedKey(
        bucket=_text(document, "bucket", where),
        candidates=_candidates(_text(document, "object.key", where), _R2, f"{where}object.key: "),
        event=_text(document, "action", where),
        time=_utc(document.get("eventTime")),
    )


def _queue_message(record: Mapping[str, object], where: str) -> QueueMessage:
    source = _text(record, "eventSource", where)
    if source != "aws:sqs":
        _poison(where, f"eventSource is {_shown(source)}, not aws:sqs")
    body = record.get("body")
    if not isinstance(body, str):
        _poison(where, "body is missing or not text")
    count = _text(record, "attributes.ApproximateReceiveCount", where)
    if not count.isdecimal() or len(count) > _MAX_COUNT_DIGITS:
        _poison(where, f"attributes.ApproximateReceiveCount is {_shown(count)}, not a count")
    return QueueMessage(
        message_id=_text(record, "messageId", where),
        receipt_handle=_text(record, "receiptHandle", where),
        body=body,
        receive_count=int(count),
        queue_arn=_text(record, "eventSourceARN", where),
    )


def _records(records: object, where: str) -> list[tuple[str, Mapping[str, object]]]:
    """The records, each with the words that place it in a reason."""
    if not isinstance(records, list | tuple):
        _poison(where, f"Records is not a list but {_kind(records)}")
    if not records:
        _poison(where, "Records is empty")
    for index, record in enumerate(records):
        if not isinstance(record, Mapping):
            _poison(where, f"record {index}: not an object but {_kind(record)}")
    return [(f"{where}record {index}: ", record) for index, record in enumerate(records)]


def _text(node: Mapping[str, object], path: str, where: str) -> str:
    """The text at a dotted path. Poison if missing, of another type, empty or not Unicode."""
    value: object = node
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    if value is None:
        _poison(where, f"{path} is missing")
    if not isinstance(value, str):
        _poison(where, f"{path} is not text but {_kind(value)}")
    if not value:
        _poison(where, f"{path} is empty")
    try:
        value.encode()
    except UnicodeEncodeError:
        _poison(where, f"{path} has a lone surrogate, which is no character")
    return value


def _utc(value: object) -> datetime | None:
    """A time for the lag metric; one that cannot be read is unknown, and no reason to lose a change."""
    if not isinstance(value, str):
        return None
    try:
        time = datetime.fromisoformat(value)
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _kind(value: object) -> str:
    return type(value).__name__


def _shown(text: str) -> str:
    """An excerpt that is short, of one line and printable."""
    return ascii(text[:_MAX_EXCERPT])[:_MAX_EXCERPT]


def _poison(where: str, reason: str) -> NoReturn:
    raise PoisonMessage(where + reason)
