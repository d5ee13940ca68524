"""A queue of SQS: docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from replicator.errors import QueueError
from replicator.events import QueueMessage
from replicator.queues.queue import Depth, Outgoing

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import MessageTypeDef, SendMessageBatchRequestEntryTypeDef

BATCH = 10
"""SQS takes ten messages in one request."""

LARGEST = 256 * 1024
"""Bytes of all messages in one request, which every queue takes."""

REASON = "Reason"
"""The message attribute that says why a message was set aside."""

LONGEST_REASON = 500
LONGEST_POLL = 20

CONNECTIONS = 32
"""Requests of one queue at the same time."""

ANY_REGION = "us-east-1"
"""For services beside AWS, which have none, but are signed for."""

_TEXT = "String"
_ATTRIBUTE = len(REASON) + len(_TEXT)
_REGION = re.compile(r"[a-z]+(?:-[a-z]+)+-[0-9]+")


class SqsQueue:
    """One queue, named by its URL or ARN. Methods may be called by several threads at once.

    client: a boto3 client of SQS; made when it is first needed unless given. endpoint: the URL of the service, if it
    is not what boto3 finds by itself.
    """

    def __init__(self, name: str, client: SQSClient | None = None, *, endpoint: str | None = None) -> None:
        self.name = name
        self._client = client
        self._endpoint = endpoint
        self._making = threading.Lock()
        self._url: str | None = None if name.startswith("arn:") else name

    def send(self, messages: Sequence[Outgoing]) -> None:
        """Sends in batches, of which some are sent when a later one fails: as Queue."""
        for entries in _batches_to_send(messages):
            with self._explained("send"):
                answer = self._sqs().send_message_batch(QueueUrl=self._queue_url(), Entries=entries)
            failed = answer.get("Failed", [])
            if failed:
                raise QueueError(f"{self.name}: send: {failed[0].get('Code')}: {failed[0].get('Message')}")

    def receive(self, most: int, *, wait: float) -> list[QueueMessage]:
        """Receives once, up to ten messages: as Queue."""
        with self._explained("receive"):
            answer = self._sqs().receive_message(
                QueueUrl=self._queue_url(),
                MaxNumberOfMessages=max(1, min(most, BATCH)),
                WaitTimeSeconds=int(min(wait, LONGEST_POLL)),
                MessageSystemAttributeNames=["ApproximateReceiveCount", "SentTimestamp"],
                MessageAttributeNames=[REASON],
            )
        return [self._message(one) for one in answer.get("Messages", [])]

    def delete(self, messages: Sequence[QueueMessage]) -> list[str]:
        """Deletes in batches: as Queue."""
        refused: list[str] = []
        for batch in _batches(messages):
            entries = [{"Id": str(n), "ReceiptHandle": one.receipt_handle} for n, one in enumerate(batch)]
            with self._explained("delete"):
                answer = self._sqs().delete_message_batch(QueueUrl=self._queue_url(), Entries=entries)  # type: ignore[arg-type]
            refused += [f"delete: {entry.get('Message')}" for entry in answer.get("Failed", [])]
        return refused

    def put_off(self, messages: Sequence[tuple[QueueMessage, int]]) -> list[str]:
        """Changes visibility in batches: as Queue."""
        refused: list[str] = []
        for batch in _batches(messages):
            entries: list[Any] = [
                {"Id": str(n), "ReceiptHandle": one.receipt_handle, "VisibilityTimeout": seconds}
                for n, (one, seconds) in enumerate(batch)
            ]
            with self._explained("put off"):
                answer = self._sqs().change_message_visibility_batch(QueueUrl=self._queue_url(), Entries=entries)
            refused += [f"put off: {entry.get('Message')}" for entry in answer.get("Failed", [])]
        return refused

    def depth(self) -> Depth:
        """The numbers that SQS calls approximate."""
        names = ("", "NotVisible", "Delayed")
        attributes: list[Any] = [f"ApproximateNumberOfMessages{name}" for name in names]
        with self._explained("depth"):
            answer = self._sqs().get_queue_attributes(QueueUrl=self._queue_url(), AttributeNames=attributes)
        return Depth(*(int(answer["Attributes"][name]) for name in attributes))

    def dead_letters(self) -> SqsQueue | None:
        """Where SQS moves what was received too often; None if it does not. Raises QueueError."""
        with self._explained("redrive policy"):
            answer = self._sqs().get_queue_attributes(QueueUrl=self._queue_url(), AttributeNames=["RedrivePolicy"])
        policy = answer.get("Attributes", {}).get("RedrivePolicy")
        return SqsQueue(json.loads(policy)["deadLetterTargetArn"], self._client) if policy else None

    def _message(self, one: MessageTypeDef) -> QueueMessage:
        attributes = one.get("Attributes", {})
        reason = one["MessageAttributes"].get(REASON) if "MessageAttributes" in one else None
        return QueueMessage(
            message_id=one["MessageId"],
            receipt_handle=one["ReceiptHandle"],
            body=one["Body"],
            receive_count=int(attributes.get("ApproximateReceiveCount", "1")),
            queue_arn=self.name if self.name.startswith("arn:") else "",
            reason=reason.get("StringValue", "") if reason is not None else "",
            sent=int(attributes["SentTimestamp"]) / 1000 if "SentTimestamp" in attributes else None,
        )

    @contextmanager
    def _explained(self, operation: str) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except (BotoCoreError, ClientError) as error:
            raise QueueError(f"{self.name}: {operation}: {error}") from error

    def _sqs(self) -> SQSClient:
        with self._making:  # a client may be shared by threads, what makes it may not
            if self._client is None:
                import boto3
                from botocore.config import Config

                session = boto3.session.Session()
                self._client = session.client(
                    "sqs",
                    region_name=_region(self.name) or session.region_name or (ANY_REGION if self._endpoint else None),
                    endpoint_url=self._endpoint,
                    config=Config(max_pool_connections=CONNECTIONS),
                )
            return self._client

    def _queue_url(self) -> str:
        if self._url is None:
            account, name = self.name.split(":")[4:6]
            self._url = self._sqs().get_queue_url(QueueName=name, QueueOwnerAWSAccountId=account)["QueueUrl"]
        return self._url


def _batches(messages: Sequence[Any]) -> list[Sequence[Any]]:
    return [messages[n : n + BATCH] for n in range(0, len(messages), BATCH)]


def _batches_to_send(messages: Sequence[Outgoing]) -> Iterator[list[SendMessageBatchRequestEntryTypeDef]]:
    """As many as fit into one request, by number and by size."""
    batch: list[SendMessageBatchRequestEntryTypeDef] = []
    size = 0
    for message in messages:
        reason = _reason(message)
        mine = _size(message.body) + (_size(reason) + _ATTRIBUTE if reason else 0)
        if batch and (len(batch) == BATCH or size + mine > LARGEST):
            yield batch
            batch, size = [], 0
        batch.append(_entry(len(batch), message, reason))
        size += mine
    if batch:
        yield batch


def _entry(number: int, message: Outgoing, reason: str) -> SendMessageBatchRequestEntryTypeDef:
    entry: SendMessageBatchRequestEntryTypeDef = {
        "Id": str(number),
        "MessageBody": message.body,
        "DelaySeconds": message.delay,
    }
    if reason:
        entry["MessageAttributes"] = {REASON: {"DataType": _TEXT, "StringValue": reason}}
    return entry


def _reason(message: Outgoing) -> str:
    """As SQS takes it: printable, and no longer than the body leaves room for, as it counts as a part of it."""
    room = LARGEST - _size(message.body) - _ATTRIBUTE
    return ascii(message.reason)[1:-1][: max(0, min(LONGEST_REASON, room))]


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _region(name: str) -> str | None:
    """The region that an ARN or the host of a URL of AWS names."""
    host = name.split("/")[2] if "://" in name else ""
    if host and "amazonaws.com" not in host:
        return None
    labels = name.split(":")[3:4] if not host else host.split(".")
    return next((label for label in labels if _REGION.fullmatch(label)), None)
