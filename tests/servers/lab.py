"""Buckets on test servers, and stores on these buckets."""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config

from replicator.s3 import client as s3
from replicator.s3.signing import Keys
from replicator.s3.store import S3Store
from tests.servers import Endpoint

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_numbers = itertools.count()


def boto_client(endpoint: Endpoint) -> S3Client:
    """boto3's client of a test server, for what a test prepares or inspects by other means than ours."""
    return boto3.client(
        "s3",
        endpoint_url=endpoint.url,
        region_name=endpoint.region,
        aws_access_key_id=endpoint.access_key,
        aws_secret_access_key=endpoint.secret_key,
        config=Config(s3={"addressing_style": "path"}, request_checksum_calculation="when_required"),
    )


def new_bucket(endpoint: Endpoint) -> str:
    """Makes an empty bucket that no other test uses."""
    name = f"b{os.getpid()}-{next(_numbers)}"
    boto_client(endpoint).create_bucket(Bucket=name)
    return name


@asynccontextmanager
async def open_store(
    endpoint: Endpoint, bucket: str, prefix: str = "", *, retry: s3.Retry | None = None
) -> AsyncIterator[S3Store]:
    """Our store on a bucket of a test server."""
    keys = Keys(endpoint.access_key, endpoint.secret_key)
    where = s3.Endpoint(endpoint.url, endpoint.region)
    async with s3.S3Client(where, bucket, lambda: keys, retry=retry or s3.Retry(base=0.02)) as client:
        yield S3Store(client, prefix)
