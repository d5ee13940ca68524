"""Queues by their URLs, and the topics of Ceph RGW by which it calls an HTTP endpoint."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import dataclass, field

from replicator.aws.bucket import BotoNotifications, translated
from replicator.aws.clients import Clients
from replicator.errors import ConfigurationError, Rejected
from replicator.notifications import has_password, shown


def queue_arn(url: str, region: str, clients: Clients) -> str:
    """The ARN of a queue. Raises ConfigurationError when the queue or the permission is missing."""
    with closing(clients.sqs(url, region)) as sqs, translated("GetQueueAttributes", shown(url)):
        try:
            return sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        except sqs.exceptions.QueueDoesNotExist as error:
            raise ConfigurationError(f"{shown(url)}: there is no such queue") from error


@dataclass(frozen=True, slots=True)
class Call:
    """What a topic does: the URL that it calls, and whether it keeps what was not taken there."""

    url: str = field(repr=False)
    persistent: bool


class Topics:
    """The topics of one Ceph RGW, which it has behind SNS's requests at its own endpoint."""

    def __init__(self, bucket: BotoNotifications, clients: Clients) -> None:
        self._endpoint = bucket.endpoint
        self._sns = clients.topics(bucket.endpoint, bucket.region)

    def __enter__(self) -> Topics:
        return self

    def __exit__(self, *_: object) -> None:
        self._sns.close()

    def check(self, url: str) -> None:
        """Raises ConfigurationError for a URL that RGW would refuse with no more than its number."""
        if has_password(url) and not self._endpoint.startswith("https://"):
            raise ConfigurationError(
                f"{shown(url)}: Ceph RGW takes a user and password only when asked over https: give its https:// "
                "endpoint, or put a token into the query, as http://HOST/events?token=..."
            )

    def call(self, arn: str) -> Call | None:
        """What a topic does; None if there is no such topic."""
        try:
            with translated("GetTopicAttributes", arn):
                endpoint = json.loads(self._sns.get_topic_attributes(TopicArn=arn)["Attributes"]["EndPoint"])
        except Rejected as refusal:
            if refusal.code not in ("NoSuchEntity", "NotFound"):
                raise
            return None
        return Call(str(endpoint.get("EndpointAddress")), endpoint.get("Persistent") == "true")

    def make(self, name: str, call: Call) -> str:
        """Makes a topic, or changes the one with this name; returns its ARN. Idempotent.

        What a bucket's entry calls is changed only when the entry is written again; and what waits in a persistent
        topic is sent to where it should have gone, for ever.
        """
        attributes = {"push-endpoint": call.url}
        if call.persistent:
            attributes["persistent"] = "true"
        with translated("CreateTopic", name):
            return str(self._sns.create_topic(Name=name, Attributes=attributes)["TopicArn"])

    def remove(self, arn: str) -> None:
        """Removes a topic, and what it has not delivered yet. Idempotent."""
        with translated("DeleteTopic", arn):
            self._sns.delete_topic(TopicArn=arn)
