"""connect and disconnect: has a bucket tell a queue, a topic, EventBridge or a webhook of its changes, or no longer."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from replicator.aws.bucket import BotoNotifications, Found
from replicator.aws.change import Change
from replicator.aws.clients import Clients
from replicator.aws.topics import Call, Topics, queue_arn
from replicator.errors import ConfigurationError, Refused
from replicator.notifications import Way, entry_for, shown, topic_name, way_to

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


def connect(
    s3_client: S3Client,
    bucket: str,
    destination: str,
    *,
    prefix: str = "",
    id: str,
    persistent: bool = True,
    dry_run: bool = False,
    clients: Clients | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> list[str]:
    """Has a bucket tell a destination of all that can change a copy. Idempotent; returns a line for each change.

    destination: as way_to reads it. prefix: only of keys that begin so. id: of our entry; an entry that has it is
    replaced. persistent: Ceph RGW keeps what a webhook did not take. clients: with the same keys as s3_client; boto3's
    own chain unless given. No line means that there was nothing to do, and that nothing was written.

    Raises Refused when another entry would overlap or others interfere, ConfigurationError when the destination or
    the permissions are wrong, StoreError when the store fails; nothing is changed then, unless the text says so.
    """
    way, at = way_to(destination), BotoNotifications(s3_client, bucket)
    change = Change(at, id, dry_run, sleep)
    clients = clients or Clients()
    if way is Way.QUEUE_URL:
        destination = queue_arn(destination, at.region, clients)
    found = at.read()
    if way is Way.EVENT_BRIDGE:
        if found.is_ceph:
            raise ConfigurationError(f"{bucket}: is at Ceph RGW, which has no EventBridge: give the URL of a webhook")
        return change.switch_event_bridge(on=True)
    if way is Way.WEBHOOK:
        if not found.is_ceph:
            raise ConfigurationError(
                f"{shown(destination)}: only Ceph RGW calls a URL that it is given, and {at.endpoint} is none: "
                "give the ARN of a queue or topic, or of a target that the store is configured with"
            )
        return _call(change, at, destination, prefix, found, clients, persistent=persistent)
    entry = entry_for(destination, id=id, prefix=prefix)
    if not found.is_ceph:
        return change.subscribe(entry)
    change.refuse_another_topic(found, entry.arn)
    return change.add(entry, found, again=False)


def _call(
    change: Change, at: BotoNotifications, url: str, prefix: str, found: Found, clients: Clients, *, persistent: bool
) -> list[str]:
    """Has Ceph RGW call a URL: by a topic of our own, and an entry for it."""
    name = topic_name(at.bucket, change.id)
    change.refuse_another_topic(found, f":{name}")
    with Topics(at, clients) as topics:
        topics.check(url)
        arn = next((one.arn for one in found.configuration.of(change.id)), None)
        wanted, now = Call(url, persistent), topics.call(arn) if arn else None
        if now is not None and now.persistent and now != wanted:
            raise Refused(
                f"topic {name}: calls {shown(now.url)} and keeps what was not taken there, which Ceph RGW would go on "
                "sending there for ever: give this one another --id and disconnect the old one afterwards"
            )
        if now != wanted:
            kept = "keeps what is not taken" if persistent else "loses what is not taken"
            change.said.append(f"topic {name}: calls {shown(url)} and {kept}")
            arn = arn if change.dry_run else topics.make(name, wanted)
    entry = entry_for(arn or f"arn:aws:sns:::{name}", id=change.id, prefix=prefix)
    return change.add(entry, found, again=now != wanted)


def disconnect(
    s3_client: S3Client,
    bucket: str,
    *,
    id: str,
    event_bridge: bool = False,
    dry_run: bool = False,
    clients: Clients | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> list[str]:
    """Takes out what connect put in, and nothing else. Idempotent; returns a line for each change.

    event_bridge: no longer tells EventBridge, instead of removing our entry; others may depend on it. The topic that
    was made for a webhook goes too, unless another entry of the bucket uses it. Raises as connect.
    """
    at = BotoNotifications(s3_client, bucket)
    change = Change(at, id, dry_run, sleep)
    if event_bridge:
        return change.switch_event_bridge(on=False)
    found = at.read()
    if not found.is_ceph:
        return change.unsubscribe()
    ours = {one.arn for one in found.configuration.of(id) if one.arn.endswith(f":{topic_name(bucket, id)}")}
    used = {one.arn for one in found.configuration.without(id).entries}
    change.drop(found)
    for arn in sorted(ours - used):
        change.said.append(f"topic {arn.rpartition(':')[2]}: removed")
        if not dry_run:
            with Topics(at, clients or Clients()) as topics:
                topics.remove(arn)
    return change.said
