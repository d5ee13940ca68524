"""Gives the Lambda's handler as many events as it is told, ten at a time, as SQS does: duplicates, no order, poison.

python -m tests.benchmarks.lambda_events OBJECTS EVENTS POISON QUEUE_ARN
"""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Iterator

from tests.benchmarks.buckets import key_of
from tests.lambda_pump import Context, load_app

BATCH = 10
SECONDS = 300.0


def bodies(bucket: str, objects: int, events: int, poison: int) -> list[str]:
    """Every object at least once, some twice or more, and messages that mean nothing, in no order."""
    draw = random.Random(5)
    numbers = [*range(objects), *(draw.randrange(objects) for _ in range(events - objects - poison))]
    told = [_told(bucket, key_of(number)) for number in numbers] + ["not JSON"] * poison
    draw.shuffle(told)
    return told


def _told(bucket: str, key: str) -> str:
    entity = {"bucket": {"name": bucket}, "object": {"key": key, "size": 4096, "eTag": "0" * 32, "sequencer": "0A1"}}
    record = {"eventVersion": "2.1", "eventSource": "aws:s3", "awsRegion": "us-east-1", "s3": entity}
    record |= {"eventTime": "2026-11-20T12:00:00.000Z", "eventName": "ObjectCreated:Put"}
    return json.dumps({"Records": [record]})


def batches(told: list[str], arn: str) -> Iterator[dict[str, object]]:
    for start in range(0, len(told), BATCH):
        yield {
            "Records": [
                {
                    "messageId": str(start + n),
                    "receiptHandle": str(start + n),
                    "body": body,
                    "attributes": {"ApproximateReceiveCount": "1"},
                    "eventSource": "aws:sqs",
                    "eventSourceARN": arn,
                    "awsRegion": "us-east-1",
                }
                for n, body in enumerate(told[start : start + BATCH])
            ]
        }


def main() -> None:
    objects, events, poison = (int(text) for text in sys.argv[1:4])
    app = load_app(os.environ)
    told = bodies(os.environ["SOURCE_BUCKET"], objects, events, poison)
    for event in batches(told, sys.argv[4]):
        try:
            app.mirror(event, Context(SECONDS))
        except app.SomeMessagesFailed:
            continue


if __name__ == "__main__":
    main()
