"""Events as the Lambda gets them: duplicates, no order, poison.

python -m tests.benchmarks.lambda_events FILE    gives the handler every batch of a file, as Lambda's runtime does
"""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path

from tests.lambda_pump import Context, load_app

BATCH = 50
"""As of the mapping: infra/templates/mirror.yaml."""
SECONDS = 300.0


def write_batches(
    path: Path, *, bucket: str, key_of: Callable[[int], str], objects: int, events: int, poison: int, arn: str
) -> None:
    """Writes a batch of messages to a line."""
    told = _bodies(bucket, key_of, objects, events, poison)
    with path.open("w") as file:
        for start in range(0, len(told), BATCH):
            records = [_message(start + n, body, arn) for n, body in enumerate(told[start : start + BATCH])]
            file.write(json.dumps({"Records": records}) + "\n")


def _bodies(bucket: str, key_of: Callable[[int], str], objects: int, events: int, poison: int) -> list[str]:
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


def _message(number: int, body: str, arn: str) -> dict[str, object]:
    return {
        "messageId": str(number),
        "receiptHandle": str(number),
        "body": body,
        "attributes": {"ApproximateReceiveCount": "1"},
        "eventSource": "aws:sqs",
        "eventSourceARN": arn,
        "awsRegion": "us-east-1",
    }


def main() -> None:
    app = load_app(os.environ)
    with Path(sys.argv[1]).open() as file:
        for line in file:
            try:
                app.mirror(json.loads(line), Context(SECONDS))
            except app.SomeMessagesFailed:
                continue


if __name__ == "__main__":
    main()
