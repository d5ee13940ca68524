"""Settles messages of an SQS queue: what is done is deleted, what failed comes again later.

That is done here, message by message, because Lambda does it only when the event source mapping was created with
FunctionResponseTypes, which `chalice deploy` does not do: without it, an invocation that returns deletes its whole
batch, and one that raises deletes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from replicator.events import QueueMessage
from replicator.live.batch import Handled

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

LONGEST_WAIT = 900
FIRST_WAIT = 10
BATCH = 10
"""SQS takes ten messages in one request."""


def backoff(receive_count: int) -> int:
    """Seconds until a failed message is tried again: 10, 20, 40 ... 900."""
    return min(LONGEST_WAIT, FIRST_WAIT << min(max(receive_count - 1, 0), 10))


class SqsQueue:
    """One queue, named by its ARN. client: a boto3 client of SQS; made when it is first needed unless given."""

    def __init__(self, arn: str, client: SQSClient | None = None) -> None:
        self._arn = arn
        self._client = client
        self._url: str | None = None

    def settle(self, handled: Sequence[Handled]) -> list[str]:
        """Deletes what is done and puts off what failed. Returns what SQS itself refused, in words.

        Idempotent; a refusal means no more than that a message comes again sooner or once more.
        """
        done = [one.message for one in handled if one.error is None]
        failed = [one.message for one in handled if one.error is not None]
        refused: list[str] = []
        for batch in _batches(done):
            entries = [{"Id": str(n), "ReceiptHandle": one.receipt_handle} for n, one in enumerate(batch)]
            answer = self._sqs().delete_message_batch(QueueUrl=self._queue_url(), Entries=entries)  # type: ignore[arg-type]
            refused += [f"delete: {entry.get('Message')}" for entry in answer.get("Failed", [])]
        for batch in _batches(failed):
            waits = [
                {"Id": str(n), "ReceiptHandle": one.receipt_handle, "VisibilityTimeout": backoff(one.receive_count)}
                for n, one in enumerate(batch)
            ]
            changed = self._sqs().change_message_visibility_batch(QueueUrl=self._queue_url(), Entries=waits)  # type: ignore[arg-type]
            refused += [f"put off: {entry.get('Message')}" for entry in changed.get("Failed", [])]
        return refused

    def _sqs(self) -> SQSClient:
        if self._client is None:
            import boto3

            self._client = boto3.client("sqs", region_name=self._arn.split(":")[3])
        return self._client

    def _queue_url(self) -> str:
        if self._url is None:
            account, name = self._arn.split(":")[4:6]
            self._url = self._sqs().get_queue_url(QueueName=name, QueueOwnerAWSAccountId=account)["QueueUrl"]
        return self._url


def _batches(messages: Sequence[QueueMessage]) -> list[Sequence[QueueMessage]]:
    return [messages[n : n + BATCH] for n in range(0, len(messages), BATCH)]
