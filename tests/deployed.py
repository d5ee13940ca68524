"""The Lambda's functions between two stores, with what a deployment gives them: queues, the table of the brake, a log.
SQS and DynamoDB are moto's; Lambda's poller is played by tests.lambda_pump.
"""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus

import boto3
import pytest

from replicator.events import QueueMessage
from replicator.queues.sqs import SqsQueue
from tests.lambda_pump import Context, LambdaPump, load_app
from tests.runs import ROOT, run_command
from tests.servers import Endpoint
from tests.servers.lab import boto_client, new_bucket

if TYPE_CHECKING:
    import subprocess

    from mypy_boto3_s3 import S3Client

SCHEDULED = Path(__file__).parent / "events" / "eventbridge_scheduled.json"
SECONDS = 60.0
HOUR = 3600
COMMAND_SECONDS = 300.0


class Invoked:
    """The functions, with what they said and used: stdout is caught, as CloudWatch Logs does.

    used: invocations of `mirror`, seconds and seconds of CPU that they took together.
    """

    def __init__(self, app: ModuleType, said: io.StringIO) -> None:
        self._app = app
        self._said = said
        self.SomeMessagesFailed = app.SomeMessagesFailed
        self.used = 0, 0.0, 0.0

    def mirror(self, event: Mapping[str, object], context: Context) -> None:
        """As the app's."""
        began, used = time.monotonic(), time.process_time()
        try:
            with redirect_stdout(self._said):
                self._app.mirror(event, context)
        finally:
            count, seconds, cpu = self.used
            self.used = count + 1, seconds + time.monotonic() - began, cpu + time.process_time() - used

    def reconcile(self) -> None:
        """Plays the clock that EventBridge has for it."""
        with redirect_stdout(self._said):
            self._app.reconcile(json.loads(SCHEDULED.read_text()), Context(SECONDS))

    def batch(self, event: Mapping[str, object]) -> dict[str, Any]:
        """Plays S3 Batch Operations."""
        with redirect_stdout(self._said):
            answer: dict[str, Any] = self._app.batch(event, Context(SECONDS))
        return answer


class Deployed:
    """A source, a target, and the functions between them. Made by `deployed`.

    invoked: the functions. inbox, dead_letters, held, work: URLs of queues; the last is used with WORK_QUEUE_URL.
    counter: requests to DynamoDB, by operation.
    """

    def __init__(self, services: Endpoint, here: Endpoint, there: Endpoint, environment: pytest.MonkeyPatch) -> None:
        self._services = services
        self._environment = environment
        self.source, self.target = boto_client(here), boto_client(there)
        self.source_bucket, self.target_bucket = new_bucket(here), new_bucket(there)
        for name, value in self._access().items():
            environment.setenv(name, value)
        self.sqs = boto3.client("sqs")
        self.dynamodb = boto3.client("dynamodb")
        self.inbox, self.dead_letters, self.held, self.work = (self._new_queue() for _ in range(4))
        self.table = self._new_table()
        self._variables = self._settings(here, there)
        self._said = io.StringIO()
        self._handler: logging.Handler = logging.NullHandler()
        self._app: ModuleType | None = None
        self.counter: Counter[str] = Counter()

    def load(self, **settings: str) -> None:
        """Starts the functions anew, as sandboxes with these variables; an empty one is not set."""
        self.unload()
        for name, value in {**self._variables, **settings}.items():
            self._environment.setenv(name, value)
            if not value:
                self._environment.delenv(name)
        with redirect_stdout(io.StringIO()):  # to which powertools logs for good
            self._app = load_app({name: value for name, value in {**self._variables, **settings}.items() if value})
        self._handler = logging.StreamHandler(self._said)
        self._handler.setFormatter(self._app.logger.registered_formatter)
        self._app.logger.addHandler(self._handler)
        boto3.setup_default_session()  # of which the app makes its client of DynamoDB
        boto3._get_default_session().events.register("before-call.dynamodb", self._count)
        self.invoked = Invoked(self._app, self._said)
        self.pump, self.work_pump = (
            LambdaPump(self.sqs, queue, self.invoked, seconds=SECONDS)  # type: ignore[arg-type]
            for queue in (self.inbox, self.work)
        )

    def unload(self) -> None:
        """Ends the functions."""
        if self._app is not None:
            self._app.logger.removeHandler(self._handler)
            for queue in (self.pump.arn, self.work_pump.arn, self.inbox):
                self._app.the_mirror(queue).close()
        boto3.DEFAULT_SESSION = None
        self._app = None

    def close(self) -> None:
        """Ends all of it."""
        self.unload()
        for client in (self.source, self.target, self.sqs, self.dynamodb):
            client.close()

    # The stores

    def put(self, key: str, body: bytes) -> None:
        """Writes at the source. Nobody is told."""
        self.source.put_object(Bucket=self.source_bucket, Key=key, Body=body)

    def put_both(self, key: str, body: bytes) -> None:
        """As if it had been mirrored long ago."""
        self.put(key, body)
        self.target.put_object(Bucket=self.target_bucket, Key=key, Body=body)

    def remove(self, keys: Sequence[str]) -> None:
        """Removes at the source, a thousand with each request. Nobody is told."""
        for start in range(0, len(keys), 1000):
            objects: Any = [{"Key": key} for key in keys[start : start + 1000]]
            self.source.delete_objects(Bucket=self.source_bucket, Delete={"Objects": objects, "Quiet": True})

    def keys(self, side: str = "target") -> set[str]:
        """What is there."""
        client, bucket = (self.source, self.source_bucket) if side == "source" else (self.target, self.target_bucket)
        return set(_listed(client, bucket))

    def equal(self) -> bool:
        """Whether both sides list the same keys with the same ETags."""
        return _listed(self.source, self.source_bucket) == _listed(self.target, self.target_bucket)

    # The queues

    def tell(self, events: Sequence[tuple[str, str]]) -> None:
        """Sends notifications to the queue of changes: (name, as ObjectCreated:Put; key)."""
        self.deliver([self.told(name, key) for name, key in events])

    def told(self, name: str, key: str) -> str:
        """A notification, as S3 sends it."""
        entity = {"bucket": {"name": self.source_bucket}, "object": {"key": quote_plus(key), "sequencer": "0A1"}}
        record = {"eventVersion": "2.1", "eventSource": "aws:s3", "awsRegion": "us-east-1", "eventName": name}
        record["eventTime"] = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return json.dumps({"Records": [{**record, "s3": entity}]})

    def deliver(self, bodies: Sequence[str]) -> None:
        """Sends to the queue of changes."""
        for start in range(0, len(bodies), 10):
            entries: Any = [{"Id": str(n), "MessageBody": body} for n, body in enumerate(bodies[start : start + 10])]
            self.sqs.send_message_batch(QueueUrl=self.inbox, Entries=entries)

    def waiting(self, queue: str | None = None) -> int:
        """Messages of a queue, hidden ones too; of that of changes unless named."""
        names: Any = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.sqs.get_queue_attributes(QueueUrl=queue or self.inbox, AttributeNames=names)["Attributes"]
        return sum(int(count) for count in found.values())

    def messages(self, queue: str) -> list[QueueMessage]:
        """All that a queue gives; they are given again."""
        opened, found = SqsQueue(queue, self.sqs), dict[str, QueueMessage]()
        while batch := opened.receive(10, wait=0):
            found |= {one.message_id: one for one in batch}
        opened.put_off([(one, 0) for one in found.values()])
        return list(found.values())

    # What is said

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs `replicator ...` with the variables of the functions, and where the queue is."""
        variables = {**os.environ, "PYTHONPATH": str(ROOT), "QUEUE_URL": self.inbox}
        return run_command([sys.executable, "-m", "replicator", *arguments], variables, seconds=COMMAND_SECONDS)

    @property
    def log(self) -> str:
        """All that the functions have said."""
        return self._said.getvalue()

    def metrics(self) -> Counter[str]:
        """Sums of the metrics that CloudWatch finds in the log; each with the dimensions that alarms ask for."""
        sums: Counter[str] = Counter()
        for line in self.log.splitlines():
            document = json.loads(line)
            for one in document.get("_aws", {}).get("CloudWatchMetrics", []):
                assert (one["Namespace"], document["service"]) == ("BucketReplicator", "mirror")
                sums.update({metric["Name"]: sum(document[metric["Name"]]) for metric in one["Metrics"]})
        return sums

    def taken(self) -> list[int]:
        """Deletes that were taken of the budget of each hour, by the table."""
        rows = self.dynamodb.scan(TableName=self.table)["Items"]
        return [int(row["deletes"]["N"]) for row in rows if "deletes" in row]

    def _count(self, model: Any, **_: object) -> None:  # noqa: ANN401 - botocore's own
        self.counter[model.name] += 1

    def _access(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self._services.url,
            "AWS_ACCESS_KEY_ID": self._services.access_key,
            "AWS_SECRET_ACCESS_KEY": self._services.secret_key,
            "AWS_DEFAULT_REGION": self._services.region,
        }

    def _settings(self, here: Endpoint, there: Endpoint) -> dict[str, str]:
        return {
            "SOURCE_BUCKET": self.source_bucket,
            "TARGET_BUCKET": self.target_bucket,
            "SOURCE_ENDPOINT": here.url,
            "TARGET_ENDPOINT": there.url,
            "SOURCE_ACCESS_KEY_ID": here.access_key,
            "SOURCE_SECRET_ACCESS_KEY": here.secret_key,
            "TARGET_ACCESS_KEY_ID": there.access_key,
            "TARGET_SECRET_ACCESS_KEY": there.secret_key,
            "DELETES": "mirror",
            "QUEUE_URL": self.inbox,
            "DEAD_LETTERS_URL": self.dead_letters,
            "HOLD_QUEUE_URL": self.held,
            "WORK_QUEUE_URL": "",
            "BRAKE_TABLE": self.table,
            "RECONCILE": "rate(1 day)",
            "MAX_DELETES_PER_HOUR": "",
            "DELETE_SHARE": "",
            "DATABASE_URL": "",
        }

    def _new_queue(self) -> str:
        name = f"q-{uuid.uuid4().hex[:12]}"
        return self.sqs.create_queue(QueueName=name, Attributes={"VisibilityTimeout": str(HOUR)})["QueueUrl"]

    def _new_table(self) -> str:
        name = f"brake-{uuid.uuid4().hex[:12]}"
        self.dynamodb.create_table(
            TableName=name,
            AttributeDefinitions=[
                {"AttributeName": "route", "AttributeType": "S"},
                {"AttributeName": "hour", "AttributeType": "N"},
            ],
            KeySchema=[{"AttributeName": "route", "KeyType": "HASH"}, {"AttributeName": "hour", "KeyType": "RANGE"}],
            BillingMode="PAY_PER_REQUEST",
        )
        return name


@contextmanager
def deployed(services: Endpoint, here: Endpoint, there: Endpoint, **settings: str) -> Iterator[Deployed]:
    """The functions with these variables beside their usual ones; the environment is as before when the block ends."""
    with pytest.MonkeyPatch.context() as environment:
        found = Deployed(services, here, there, environment)
        try:
            found.load(**settings)
            yield found
        finally:
            found.close()


def stay_within_the_hour(seconds: float) -> None:
    """Waits for the next hour if this one has not so many seconds left: it would bring another budget for deletes."""
    left = HOUR - time.time() % HOUR
    if left < seconds:
        time.sleep(left + 1)


def _listed(client: S3Client, bucket: str) -> dict[str, str]:
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return {entry["Key"]: entry["ETag"] for page in pages for entry in page.get("Contents", [])}
