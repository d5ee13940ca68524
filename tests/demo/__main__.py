"""Starts two S3 endpoints and a queue, migrates a bucket, then mirrors live changes through S3 -> SQS -> the Lambda.

Everything is real but the cloud: objects move over HTTP, notifications are S3's own, the handler is the Chalice app.
Leaves nothing behind.
"""

from __future__ import annotations

import logging
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import boto3

from tests.awkward import AWKWARD_KEYS
from tests.lambda_pump import LambdaPump, load_app
from tests.servers import Endpoint, moto
from tests.servers.lab import boto_client

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef
    from mypy_boto3_sqs import SQSClient

MiB = 1024 * 1024
PLAIN_OBJECTS = 240
SOURCE, TARGET = "demo-source", "demo-target"


def main() -> int:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="replicator-demo-") as scratch, servers(Path(scratch)) as (here, there):
        environment = variables(here, there)
        source, sqs = boto_client(here), queue_client(here)
        say(f"two S3 endpoints are up: {here.url} (with SQS) and {there.url}")
        source.create_bucket(Bucket=SOURCE)
        boto_client(there).create_bucket(Bucket=TARGET)
        queue_url = notify(source, sqs)
        count = fill(source)
        say(f"filled {SOURCE} with {count} objects: awkward keys, headers, metadata, tags, parts")

        run("migrate", environment)
        run("verify", environment)
        run("migrate", environment)

        sqs.purge_queue(QueueUrl=queue_url)
        changed = change(source)
        lag = mirror(sqs, queue_url, environment)
        say(f"mirrored {changed} changes through S3 -> SQS -> the Chalice handler in {lag:.1f} s")
        run("verify", environment)
    say(f"done in {time.monotonic() - began:.1f} s; the servers are stopped and nothing is left behind")
    return 0


def say(text: str) -> None:
    print(f"\n== {text}", flush=True)


@contextmanager
def servers(scratch: Path) -> Iterator[tuple[Endpoint, Endpoint]]:
    """Two independent S3 endpoints; the first has SQS, too."""
    (scratch / "here").mkdir()
    (scratch / "there").mkdir()
    with moto.serve(scratch / "here") as here, moto.serve(scratch / "there") as there:
        yield here, there


def variables(here: Endpoint, there: Endpoint) -> dict[str, str]:
    """The settings of README.md, as a container or a Lambda gets them."""
    return {
        "SOURCE_BUCKET": SOURCE,
        "TARGET_BUCKET": TARGET,
        "SOURCE_ENDPOINT": here.url,
        "TARGET_ENDPOINT": there.url,
        "AWS_ENDPOINT_URL_SQS": here.url,
        "AWS_ACCESS_KEY_ID": here.access_key,
        "AWS_SECRET_ACCESS_KEY": here.secret_key,
        "AWS_DEFAULT_REGION": here.region,
        "DELETES": "mirror",
    }


def queue_client(here: Endpoint) -> SQSClient:
    return boto3.client(
        "sqs",
        endpoint_url=here.url,
        region_name=here.region,
        aws_access_key_id=here.access_key,
        aws_secret_access_key=here.secret_key,
    )


def notify(source: S3Client, sqs: SQSClient) -> str:
    """Has the source bucket tell a queue of every change; the queue's URL."""
    url = sqs.create_queue(QueueName=f"replicator-{SOURCE}")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    source.put_bucket_notification_configuration(
        Bucket=SOURCE,
        NotificationConfiguration={
            "QueueConfigurations": [{"QueueArn": arn, "Events": ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]}]
        },
    )
    return url


def fill(source: S3Client) -> int:
    """Objects that tools stumble over, and a couple of hundred that they do not."""
    chooser = random.Random(7)
    keys = [key for key in AWKWARD_KEYS if "\n" not in key]  # moto takes no line breaks
    for key in keys:
        source.put_object(Bucket=SOURCE, Key=key, Body=key.encode(), Metadata={"note": "awkward"})
    for n in range(PLAIN_OBJECTS):
        body = chooser.randbytes(chooser.choice((0, 1, 500, 4096, 70_000)))
        source.put_object(Bucket=SOURCE, Key=f"plain/{n % 12:02}/{n:04}.bin", Body=body)
    source.put_object(
        Bucket=SOURCE,
        Key="dressed.html",
        Body=b"<p>hello</p>",
        ContentType="text/html; charset=utf-8",
        CacheControl="max-age=60",
        ContentDisposition="inline",
        Tagging="team=red&stage=demo",
    )
    source.put_object(Bucket=SOURCE, Key="nine MiB in one piece", Body=chooser.randbytes(9 * MiB))
    put_parts(source, "in parts", chooser.randbytes(11 * MiB), 5 * MiB)
    return len(keys) + PLAIN_OBJECTS + 3


def put_parts(source: S3Client, key: str, data: bytes, size: int) -> None:
    upload = source.create_multipart_upload(Bucket=SOURCE, Key=key)["UploadId"]
    parts: list[CompletedPartTypeDef] = []
    for number, offset in enumerate(range(0, len(data), size), start=1):
        body = data[offset : offset + size]
        part = source.upload_part(Bucket=SOURCE, Key=key, UploadId=upload, PartNumber=number, Body=body)
        parts.append({"PartNumber": number, "ETag": part["ETag"]})
    source.complete_multipart_upload(Bucket=SOURCE, Key=key, UploadId=upload, MultipartUpload={"Parts": parts})


def change(source: S3Client) -> int:
    """Adds, overwrites, re-labels and deletes while the mirror is on."""
    for n in range(30):
        source.put_object(Bucket=SOURCE, Key=f"live/new {n}", Body=b"new" * n)
    for n in range(0, 60, 2):
        source.put_object(Bucket=SOURCE, Key=f"plain/{n % 12:02}/{n:04}.bin", Body=b"overwritten")
    for n in range(1, 60, 2):
        source.delete_object(Bucket=SOURCE, Key=f"plain/{n % 12:02}/{n:04}.bin")
    source.put_object(Bucket=SOURCE, Key="dressed.html", Body=b"<p>hello</p>", ContentType="text/plain")
    put_parts(source, "in parts", b"again" * (2 * MiB), 5 * MiB)
    return 92


def mirror(sqs: SQSClient, queue_url: str, environment: dict[str, str]) -> float:
    """Feeds the queue to the handler until it is empty; seconds taken."""
    began = time.monotonic()
    logging.getLogger("replicator").setLevel(logging.WARNING)
    os.environ.update({"POWERTOOLS_LOG_LEVEL": "WARNING", "POWERTOOLS_METRICS_DISABLED": "true"})
    app = load_app(environment)
    pump = LambdaPump(sqs, queue_url, app)
    pump.drain()
    app.the_mirror(pump.arn).close()
    return time.monotonic() - began


def run(verb: str, environment: dict[str, str]) -> None:
    """Runs the command line as a user would; fails as it fails."""
    say(f"replicator {verb}")
    command = [sys.executable, "-m", "replicator", verb]
    subprocess.run(command, env={**os.environ, **environment}, check=True)


if __name__ == "__main__":
    sys.exit(main())
