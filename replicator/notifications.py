"""Whom a bucket tells of its changes: what is ours in that, what is not, and what may not stand side by side.

A notification configuration is written as a whole, so all of it is read, our entry is put in, and the rest goes back as
it came. Pure: configurations are the dictionaries that boto3 reads and writes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Literal
from urllib.parse import urlsplit

from replicator.errors import ConfigurationError

List = Literal["QueueConfigurations", "TopicConfigurations", "LambdaFunctionConfigurations"]

_ARNS: dict[List, str] = {
    "QueueConfigurations": "QueueArn",
    "TopicConfigurations": "TopicArn",
    "LambdaFunctionConfigurations": "LambdaFunctionArn",
}

ALWAYS = ("s3:ObjectCreated:*", "s3:ObjectRemoved:*")
"""What every store with notifications tells; delete markers are among what is removed."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of change that not every store tells: what it is, and its names, the one of AWS first."""

    what: str
    names: tuple[str, ...]


_RESTORED = Kind("objects restored from an archive", ("s3:ObjectRestore:Completed",))

_KINDS = (
    Kind("expirations by lifecycle rules", ("s3:LifecycleExpiration:*", "s3:ObjectLifecycle:Expiration:*")),
    Kind("changes of tags", ("s3:ObjectTagging:*",)),
    _RESTORED,
)

# MinIO tells of tags as of created objects, and of expirations as of removed ones.
_KINDS_OF_MINIO = (
    Kind("expirations of delete markers", ("s3:LifecycleDelMarkerExpiration:Delete",)),
    _RESTORED,
)

_OURS = {*ALWAYS, *(name for kind in (*_KINDS, *_KINDS_OF_MINIO) for name in kind.names)}


@dataclass(frozen=True, slots=True)
class Entry:
    """One configuration: of what, of which keys, and to whom a bucket tells. raw: as boto3 has it."""

    of: List
    raw: Mapping[str, Any]

    @property
    def id(self) -> str:
        """Its Id; empty where a store gives none."""
        return str(self.raw.get("Id", ""))

    @property
    def arn(self) -> str:
        """Whom it tells."""
        return str(self.raw.get(_ARNS[self.of], ""))

    @property
    def events(self) -> tuple[str, ...]:
        """Of what it tells."""
        return tuple(self.raw.get("Events", ()))

    def rule(self, name: Literal["prefix", "suffix"]) -> str:
        """What the keys must begin or end with; AWS says Prefix where prefix was written."""
        rules = self.raw.get("Filter", {}).get("Key", {}).get("FilterRules", ())
        return next((str(rule.get("Value", "")) for rule in rules if str(rule.get("Name", "")).lower() == name), "")

    def with_events(self, events: tuple[str, ...]) -> Entry:
        """The same, of other events."""
        return replace(self, raw={**self.raw, "Events": list(events)})

    @property
    def content(self) -> str:
        """The same text for entries that mean the same, in whatever order and spelling a store gives them back."""
        rest = {name: value for name, value in self.raw.items() if name not in ("Events", "Filter")}
        keys = self.raw.get("Filter", {}).get("Key", {}).get("FilterRules", ())
        rules = sorted([str(rule.get("Name", "")).lower(), str(rule.get("Value", ""))] for rule in keys)
        return json.dumps([self.of, rest, sorted(self.events), rules], sort_keys=True)


@dataclass(frozen=True, slots=True)
class Configuration:
    """All that a bucket tells. event_bridge: None unless it tells EventBridge."""

    entries: tuple[Entry, ...] = ()
    event_bridge: Mapping[str, Any] | None = None

    @classmethod
    def from_answer(cls, answer: Mapping[str, Any]) -> Configuration:
        """From what GetBucketNotificationConfiguration answered."""
        entries = tuple(Entry(name, raw) for name in _ARNS for raw in answer.get(name, ()))
        return cls(entries, answer.get("EventBridgeConfiguration"))

    def as_request(self) -> dict[str, Any]:
        """What PutBucketNotificationConfiguration takes."""
        lists = {name: [dict(one.raw) for one in self.entries if one.of == name] for name in _ARNS}
        request: dict[str, Any] = {name: raws for name, raws in lists.items() if raws}
        if self.event_bridge is not None:
            request["EventBridgeConfiguration"] = dict(self.event_bridge)
        return request

    def of(self, id: str) -> tuple[Entry, ...]:
        """The entries with an Id: none, one, or more where a store does not keep Ids apart."""
        return tuple(entry for entry in self.entries if entry.id == id)

    def without(self, id: str) -> Configuration:
        """All but the entries with an Id."""
        return replace(self, entries=tuple(entry for entry in self.entries if entry.id != id))

    def foreign(self, id: str) -> frozenset[str]:
        """What is not ours, so that two readings can be compared."""
        rest = {entry.content for entry in self.without(id).entries}
        return frozenset(rest | ({"EventBridge"} if self.event_bridge is not None else set()))


class Way(Enum):
    """How a destination is reached."""

    ARN = "a queue or a topic, by its ARN"
    QUEUE_URL = "a queue of SQS, by its URL"
    WEBHOOK = "an HTTP endpoint, told through a topic of Ceph RGW"
    EVENT_BRIDGE = "EventBridge"


_ARN = re.compile(r"arn:([a-z0-9-]+):(sqs|sns):([a-z0-9-]*):([^:\s]*):([^\s]+)")
_QUEUE_PATH = re.compile(r"/[0-9]{12}/[A-Za-z0-9_-]+(\.fifo)?")


def way_to(destination: str) -> Way:
    """How to reach a destination as a person gives it. Raises ConfigurationError for what no bucket can tell.

    A URL whose path is an account's number and a name is a queue's; any other is a webhook.
    """
    if destination.upper() == "EVENTBRIDGE":
        return Way.EVENT_BRIDGE
    if destination.startswith(("http://", "https://")):
        return _way_to_url(destination)
    if destination.endswith(".fifo"):
        raise ConfigurationError(f"{destination}: buckets cannot tell FIFO queues and topics: give a standard one")
    if _ARN.fullmatch(destination):
        return Way.ARN
    raise ConfigurationError(
        "DESTINATION: is none that a bucket can tell: give the ARN of an SQS queue or SNS topic, the URL of a queue, "
        "EVENTBRIDGE, arn:minio:sqs:... for a target of MinIO, or the URL of a webhook for Ceph RGW"
    )


def _way_to_url(url: str) -> Way:
    try:
        parts = urlsplit(url)
        valid = bool(parts.hostname) and parts.port != 0 and url.isascii() and url.isprintable() and " " not in url
    except ValueError:
        valid = False
    if not valid:
        raise ConfigurationError("DESTINATION: is no URL of the form http(s)://HOST[:PORT][/PATH]")
    if not _QUEUE_PATH.fullmatch(parts.path):
        return Way.WEBHOOK
    if parts.path.endswith(".fifo"):
        raise ConfigurationError(f"{shown(url)}: buckets cannot tell FIFO queues: give a standard one")
    return Way.QUEUE_URL


def shown(url: str) -> str:
    """A URL for people: without what may be secret, its user, password and query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def has_password(url: str) -> bool:
    """Whether a URL names a user or a password."""
    return "@" in urlsplit(url).netloc


def is_minio(arn: str) -> bool:
    """Whether an ARN is of MinIO or its kin, which name themselves where AWS has a partition."""
    return not arn.split(":")[1].startswith("aws")


def kinds_for(arn: str) -> tuple[Kind, ...]:
    """What to ask for beyond ALWAYS when this is told. Changes of ACLs and transitions change no copy."""
    return _KINDS_OF_MINIO if is_minio(arn) else _KINDS


def entry_for(arn: str, *, id: str, prefix: str) -> Entry:
    """The entry that tells a queue or a topic of all that can change a copy."""
    events = [*ALWAYS, *(kind.names[0] for kind in kinds_for(arn))]
    of: List = "QueueConfigurations" if arn.split(":")[2] == "sqs" else "TopicConfigurations"
    raw: dict[str, Any] = {"Id": id, _ARNS[of]: arn, "Events": events}
    if prefix:
        raw["Filter"] = {"Key": {"FilterRules": [{"Name": "prefix", "Value": prefix}]}}
    return Entry(of, raw)


def does(found: Entry, wanted: Entry, *, fewer_events: bool = False) -> bool:
    """Whether an entry that was found tells what is wanted. fewer_events: a store that does not know them all."""
    alike = (found.of, found.id, found.rule("prefix"), found.rule("suffix")) == (
        wanted.of,
        wanted.id,
        wanted.rule("prefix"),
        wanted.rule("suffix"),
    )
    events = set(found.events)
    enough = events == set(wanted.events) or (fewer_events and set(ALWAYS) <= events <= _OURS)
    return alike and enough and same_arn(found.arn, wanted.arn)


def same_arn(one: str, other: str) -> bool:
    """Whether two ARNs name the same; MinIO fills in its region where none was given."""
    ones, others = one.split(":", 5), other.split(":", 5)
    if len(ones) != len(others) or (ones[3] and others[3] and ones[3] != others[3]):
        return False
    return ones[:3] + ones[4:] == others[:3] + others[4:]


def overlap(ours: Entry, others: Iterable[Entry]) -> tuple[Entry, str] | None:
    """The first entry that S3 would not have beside ours, and an event that both would tell; None if all may stay.

    S3 wants one destination for an event on a key: two entries may share an event only if no key can have both their
    prefixes and both their suffixes.
    """
    for other in others:
        if not _may_meet(ours, other):
            continue
        shared = [event for event in ours.events if any(_share(event, theirs) for theirs in other.events)]
        if shared:
            return other, shared[0]
    return None


def _may_meet(one: Entry, other: Entry) -> bool:
    first, second = one.rule("prefix"), other.rule("prefix")
    prefixes = first.startswith(second) or second.startswith(first)
    first, second = one.rule("suffix"), other.rule("suffix")
    return prefixes and (first.endswith(second) or second.endswith(first))


def _share(one: str, other: str) -> bool:
    """Whether two names of events cover a common one: s3:ObjectCreated:* and s3:ObjectCreated:Put do."""
    wide = [name.removesuffix("*") for name in (one, other) if name.endswith("*")]
    return one == other or any(one.startswith(start) and other.startswith(start) for start in wide)


def default_id(bucket: str, prefix: str) -> str:
    """The Id of our entry where none is given: the same for the same part of a bucket."""
    return f"replicator-{_digest(bucket, prefix)}"


def topic_name(bucket: str, id: str) -> str:
    """The name of the topic that is made at Ceph RGW for an entry: letters, digits and '-', and no other entry's."""
    return f"replicator-{re.sub('[^A-Za-z0-9-]', '-', bucket)}-{_digest(bucket, id)}"


def _digest(*parts: str) -> str:
    return hashlib.sha256("/".join(parts).encode()).hexdigest()[:10]


_KNOWN = {
    "QueueConfiguration",
    "TopicConfiguration",
    "CloudFunctionConfiguration",
    "EventBridgeConfiguration",
    *("Id", "Queue", "Topic", "CloudFunction", "Event", "Filter", "S3Key", "FilterRule", "Name", "Value"),
}


def unknown_elements(document: bytes) -> list[str]:
    """Names of elements of a configuration's XML that boto3 drops in silence, so that writing it back loses them."""
    names = re.findall(rb"<(?:[\w.-]+:)?([A-Za-z][\w.-]*)", document)
    return sorted({name.decode() for name in names[1:]} - _KNOWN)  # the outermost is called what a store likes
