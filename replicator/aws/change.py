"""A change of one bucket's notification configuration, made so that nothing of others is lost and nothing is believed.

S3 replaces the whole configuration at once and knows no conditions, so what others have there is read, written back
as it came, and looked at again afterwards. What somebody writes in the moment between the last look and the write is
lost all the same: S3 has no way to prevent it. Ceph RGW adds to what is there instead: there only our entry is written.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from replicator.aws.bucket import Found
from replicator.errors import ConfigurationError, Refused, Rejected, Transient
from replicator.notifications import ALWAYS, Configuration, Entry, does, is_minio, kinds_for, overlap

TRIES = 5
"""Times that a change begins anew because somebody else changed the configuration meanwhile."""

WAITS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds before each look at what became of a write: S3 may show what was there before for a while."""

_UNKNOWN_EVENT = ("InvalidArgument", "MalformedXML")
"""How stores refuse events that they do not know, and AWS destinations that it may not tell."""


class Notifications(Protocol):
    """The notification configuration of one bucket; see BotoNotifications."""

    bucket: str

    def read(self) -> Found: ...
    def write(self, configuration: Configuration, *, validate: bool = True) -> None: ...
    def remove(self, id: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Change:
    """A change of one bucket's configuration, and what to say of it.

    dry_run: only says what it would do. sleep: takes seconds.
    """

    at: Notifications
    id: str
    dry_run: bool = False
    sleep: Callable[[float], None] = time.sleep
    said: list[str] = field(default_factory=list)

    def subscribe(self, entry: Entry) -> list[str]:
        """Puts our entry in; returns what was changed. Raises Refused, ConfigurationError or StoreError."""
        wanted = [entry]  # after a store has refused some of its events, with those it knows

        def there(found: Configuration) -> bool:
            ours = found.of(self.id)
            return len(ours) == 1 and does(ours[0], wanted[0], fewer_events=is_minio(entry.arn))

        def put(found: Configuration) -> None:
            rest = found.without(self.id)
            wanted[0] = self._with_known_events(
                entry, lambda one: self.at.write(replace(rest, entries=(*rest.entries, one)))
            )

        def check(found: Configuration) -> None:
            hit = None if is_minio(entry.arn) else overlap(entry, found.without(self.id).entries)
            if hit is not None:
                raise Refused(_overlap_text(self.at.bucket, *hit))

        return self._edit(there, check, put, _subscribed(self.at.bucket, entry), self._others)

    def unsubscribe(self) -> list[str]:
        """Takes our entry out; returns what was changed."""
        return self._edit(
            lambda found: not found.of(self.id),
            lambda _: None,
            lambda found: self.at.write(found.without(self.id), validate=False),
            f"{self.at.bucket}: removed {self.id}",
            self._others,
        )

    def switch_event_bridge(self, *, on: bool) -> list[str]:
        """Tells EventBridge of everything, or of nothing."""
        return self._edit(
            lambda found: (found.event_bridge is not None) == on,
            lambda _: None,
            lambda found: self.at.write(replace(found, event_bridge={} if on else None), validate=False),
            f"{self.at.bucket}: {'tells' if on else 'no longer tells'} EventBridge of all its changes",
            lambda found: frozenset(entry.content for entry in found.entries),
        )

    def refuse_another_topic(self, found: Found, topic: str) -> None:
        """Raises Refused when our Id tells another topic: Ceph RGW would keep both. topic: how its ARN ends."""
        others = [one.arn for one in found.configuration.of(self.id) if not one.arn.endswith(topic)]
        if others:
            raise Refused(
                f"{self.at.bucket}: {self.id} tells {others[0]} already: give this one another --id and disconnect the "
                "old one afterwards, so that no change is missed between them"
            )

    def add(self, entry: Entry, found: Found, *, again: bool) -> list[str]:
        """Puts our entry in at Ceph RGW. again: although it is there, as its topic has changed.

        To be asked after refuse_another_topic.
        """
        if not again and any(does(one, entry, fewer_events=True) for one in found.configuration.of(self.id)):
            return self.said
        self.said.append(_subscribed(self.at.bucket, entry))
        if self.dry_run:
            return self.said
        known = self._with_known_events(entry, lambda one: self.at.write(Configuration((one,))), ceph=True)
        self._wait_until(lambda now: any(does(one, known) for one in now.of(self.id)))
        return self.said

    def drop(self, found: Found) -> list[str]:
        """Takes our entry out at Ceph RGW."""
        if not found.configuration.of(self.id):
            return self.said
        self.said.append(f"{self.at.bucket}: removed {self.id}")
        if not self.dry_run:
            for _ in found.configuration.of(self.id):  # each removal takes one of those with the same Id
                self.at.remove(self.id)
            self._wait_until(lambda now: not now.of(self.id))
        return self.said

    def _edit(
        self,
        there: Callable[[Configuration], bool],
        check: Callable[[Configuration], None],
        put: Callable[[Configuration], None],
        text: str,
        others: Callable[[Configuration], frozenset[str]],
    ) -> list[str]:
        """Reads, checks, writes back changed, and looks again, until what is wanted is there and nobody interfered.

        others: what of a configuration is not to be changed by this.
        """
        for _ in range(TRIES):
            found = self.at.read()
            if there(found.configuration):
                return self.said
            check(found.configuration)
            if found.lossy:
                raise Refused(_lossy_text(self.at.bucket, found.lossy))
            self._say(text)
            if self.dry_run:
                return self.said
            if others(self.at.read().configuration) == others(found.configuration):
                put(found.configuration)
                if self._seen(there, others, others(found.configuration)):
                    return self.said
            self._say(f"{self.at.bucket}: somebody else changed its notifications at the same time: looked again")
        raise Refused(
            f"{self.at.bucket}: somebody else keeps changing its notifications: run it again when they are done"
        )

    def _seen(
        self,
        there: Callable[[Configuration], bool],
        others: Callable[[Configuration], frozenset[str]],
        before: frozenset[str],
    ) -> bool:
        """Whether the write is there and all of the others' as it was; False when somebody wrote at the same time."""
        for wait in WAITS:
            self.sleep(wait)
            now = self.at.read().configuration
            if others(now) != before:
                return False
            if there(now):
                return True
        raise self._unseen()

    def _others(self, found: Configuration) -> frozenset[str]:
        return found.foreign(self.id)

    def _say(self, line: str) -> None:
        if line not in self.said:
            self.said.append(line)

    def _wait_until(self, there: Callable[[Configuration], bool]) -> None:
        for wait in WAITS:
            self.sleep(wait)
            if there(self.at.read().configuration):
                return
        raise self._unseen()

    def _unseen(self) -> Transient:
        detail = f"was accepted, but is not to be seen after {sum(WAITS):.0f} s: run it again"
        return Transient("PutBucketNotificationConfiguration", self.at.bucket, detail)

    def _with_known_events(self, entry: Entry, write: Callable[[Entry], None], *, ceph: bool = False) -> Entry:
        """Writes the entry with all events that the store knows, and returns it; says what will not be told."""
        try:
            write(entry)
        except Rejected as refusal:
            if refusal.code not in _UNKNOWN_EVENT:
                raise _explained(self.at.bucket, entry.arn, refusal, ceph=ceph) from refusal
        else:
            return entry
        known = entry.with_events(ALWAYS)
        try:
            write(known)
        except Rejected as refusal:
            raise _explained(self.at.bucket, entry.arn, refusal, ceph=ceph) from refusal
        for kind in kinds_for(entry.arn):
            for name in kind.names:
                more = known.with_events((*known.events, name))
                if _accepts(write, more):
                    known = more
                    break
            else:
                self._say(f"{self.at.bucket}: does not tell of {kind.what}: reconciliation has to find them")
        return known


def _accepts(write: Callable[[Entry], None], entry: Entry) -> bool:
    try:
        write(entry)
    except Rejected as refusal:
        if refusal.code not in _UNKNOWN_EVENT:
            raise
        return False
    return True


def _subscribed(bucket: str, entry: Entry) -> str:
    return f"s3://{bucket}/{entry.rule('prefix')}: tells {entry.arn} of its changes, as {entry.id}"


def _overlap_text(bucket: str, other: Entry, event: str) -> str:
    where = f"of keys under {other.rule('prefix')!r}" if other.rule("prefix") else "of all keys"
    return (
        f"{bucket}: its notification {other.id} already tells {other.arn} of {event} {where}, and S3 has one "
        "destination for an event on a key: remove it, or put an SNS topic or EventBridge between that feeds both"
    )


def _lossy_text(bucket: str, lossy: tuple[str, ...]) -> str:
    return (
        f"{bucket}: its notifications contain {', '.join(lossy)}, which this version does not know and would lose by "
        "writing them back: update it, or use the store's own tools"
    )


def _explained(bucket: str, arn: str, refusal: Rejected, *, ceph: bool) -> ConfigurationError:
    """What to do when a store does not take a destination, or one that others have there."""
    if is_minio(arn):
        hint = "is that target configured at the server?"
    elif ceph:
        hint = "Ceph RGW has topics only: give the ARN of one that these keys can see, or the URL of a webhook"
    else:
        action = "sqs:SendMessage" if arn.split(":")[2] == "sqs" else "sns:Publish"
        hint = (
            f"it must be in the bucket's region, its policy must let s3.amazonaws.com do {action} where aws:SourceArn "
            f"is arn:aws:s3:::{bucket}, and its KMS key, if any, kms:GenerateDataKey and kms:Decrypt; S3 tries the "
            "other destinations of the bucket too"
        )
    return ConfigurationError(f"{bucket}: cannot tell {arn}: {refusal.code}: {refusal.detail}: {hint}")
