"""Events through the Lambda's handler, and the same objects by a bulk run: both make the target equal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3

from tests.benchmarks.buckets import SOURCE, Targets, fill, key_of
from tests.benchmarks.field import Field
from tests.benchmarks.lambda_events import write_batches
from tests.benchmarks.measure import Bench, Peer, Prepared, alternate
from tests.benchmarks.tables import Result
from tests.servers import Endpoint, moto, rclone

OBJECTS, SIZE = 9_000, 4096
EVENTS, POISON = 10_000, 50


@dataclass(frozen=True, slots=True)
class Handler:
    """The handler in a process of its own, fed with events; its queue settles what failed.

    batches: a file for the events.
    """

    field: Field
    sqs: Endpoint
    batches: Path

    def peer(self) -> Peer:
        def prepare(number: int) -> Prepared:
            arn = self._queue(f"changes-{number}")
            write_batches(
                self.batches, bucket=SOURCE, key_of=key_of, objects=OBJECTS, events=EVENTS, poison=POISON, arn=arn
            )
            command = [sys.executable, "-m", "tests.benchmarks.lambda_events", str(self.batches)]
            keys = {
                f"{side}_{name}": value
                for side, endpoint in (("SOURCE", self.field.here), ("TARGET", self.field.there))
                for name, value in (
                    ("ENDPOINT", endpoint.url),
                    ("ACCESS_KEY_ID", endpoint.access_key),
                    ("SECRET_ACCESS_KEY", endpoint.secret_key),
                )
            }
            buckets = {"SOURCE_BUCKET": SOURCE, "TARGET_BUCKET": self.field.target(), "DELETES": "mirror"}
            sqs = {
                "AWS_ENDPOINT_URL_SQS": self.sqs.url,
                "AWS_ACCESS_KEY_ID": self.sqs.access_key,
                "AWS_SECRET_ACCESS_KEY": self.sqs.secret_key,
                "AWS_DEFAULT_REGION": self.sqs.region,
            }
            return command, {**keys, **buckets, **sqs}

        return Peer("events through the Lambda's handler", prepare, OBJECTS)

    def _queue(self, name: str) -> str:
        sqs = boto3.client(
            "sqs",
            endpoint_url=self.sqs.url,
            region_name=self.sqs.region,
            aws_access_key_id=self.sqs.access_key,
            aws_secret_access_key=self.sqs.secret_key,
        )
        url = sqs.create_queue(QueueName=name)["QueueUrl"]
        return sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]


def events(bench: Bench) -> Iterator[Result]:
    with (
        rclone.serve(bench.folder("here")) as here,
        rclone.serve(bench.folder("there")) as there,
        moto.serve(bench.folder("sqs")) as sqs,
    ):
        fill(here, OBJECTS, SIZE)
        field = Field(here=here, there=there, target=Targets(there), work=OBJECTS)
        peers = [field.ours("--processes 1"), Handler(field, sqs, bench.folder("events") / "batches").peer()]
        alternate(peers, bench.runs)
        title = f"{OBJECTS:,} objects of {SIZE // 1024} KiB: a bulk run, and {EVENTS:,} events about them, some twice"
        yield Result("events", f"{title}, {POISON} poison", "objects", peers)
