"""Plays the part of Lambda's SQS poller: receives messages, invokes the handler, deletes what it returned from.

As AWS does without FunctionResponseTypes: a handler that returns has done its whole batch, one that raises has done
nothing of it, whatever it deleted or put off itself.
"""

from __future__ import annotations

import importlib
import os
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools import Metrics

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

SYNCER = Path(__file__).parent.parent / "syncer"


class Context:
    """What Lambda tells a handler about its invocation."""

    function_name = "mirror"
    memory_limit_in_mb = 1024
    invoked_function_arn = "arn:aws:lambda:us-east-1:123456789012:function:mirror"

    def __init__(self, seconds: float) -> None:
        self.aws_request_id = str(uuid.uuid4())
        self._seconds = seconds

    def get_remaining_time_in_millis(self) -> int:
        return int(self._seconds * 1000)


def load_app(environment: Mapping[str, str]) -> ModuleType:
    """Imports syncer/app.py afresh, as a new Lambda sandbox with these variables does."""
    os.environ.update(environment)
    if str(SYNCER) not in sys.path:
        sys.path.insert(0, str(SYNCER))
    for name in ("app", "chalicelib.deployment", "chalicelib"):
        sys.modules.pop(name, None)
    for shared in (Metrics().default_dimensions, Metrics().dimension_set):  # by all instances of a process
        shared.clear()
    return importlib.import_module("app")


class LambdaPump:
    """Feeds one queue to one handler."""

    def __init__(self, sqs: SQSClient, queue_url: str, app: ModuleType, *, seconds: float = 60.0) -> None:
        self._sqs = sqs
        self._url = queue_url
        attributes = sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])["Attributes"]
        self.arn = attributes["QueueArn"]
        self._app = app
        self._seconds = seconds
        self.received = 0
        self.failed_invocations = 0

    def pump(self) -> int:
        """Invokes the handler once, with up to ten messages; how many there were."""
        answer = self._sqs.receive_message(
            QueueUrl=self._url, MaxNumberOfMessages=10, AttributeNames=["ApproximateReceiveCount"]
        )
        messages = answer.get("Messages", [])
        if not messages:
            return 0
        self.received += len(messages)
        event = {"Records": [self._record(dict(message)) for message in messages]}
        try:
            self._app.mirror(event, Context(self._seconds))
        except self._app.SomeMessagesFailed:
            self.failed_invocations += 1
            return len(messages)
        for message in messages:
            self._sqs.delete_message(QueueUrl=self._url, ReceiptHandle=message["ReceiptHandle"])
        return len(messages)

    def drain(self) -> None:
        """Pumps until the queue gives nothing more."""
        while self.pump():
            pass

    def _record(self, message: dict[str, Any]) -> dict[str, object]:
        return {
            "messageId": message["MessageId"],
            "receiptHandle": message["ReceiptHandle"],
            "body": message["Body"],
            "attributes": {"ApproximateReceiveCount": message["Attributes"]["ApproximateReceiveCount"]},
            "eventSource": "aws:sqs",
            "eventSourceARN": self.arn,
            "awsRegion": "us-east-1",
        }
