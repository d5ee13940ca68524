"""Buckets for the peers: one that is filled, and an empty one for each run."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.servers import Endpoint
from tests.servers.lab import boto_client

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

MiB = 1024 * 1024
SOURCE = "bench-source"


def key_of(number: int, directories: int = 10) -> str:
    return f"dir{number % directories}/{number:06}"


def fill(endpoint: Endpoint, objects: int, size: int) -> None:
    """Makes the source bucket, with `objects` of `size` random bytes each."""
    client = boto_client(endpoint)
    client.create_bucket(Bucket=SOURCE)
    for n in range(objects):
        client.put_object(Bucket=SOURCE, Key=key_of(n), Body=os.urandom(size))


def fill_in_parts(endpoint: Endpoint, size: int, part_size: int) -> None:
    """Makes the source bucket, with one large object in it."""
    client = boto_client(endpoint)
    client.create_bucket(Bucket=SOURCE)
    key = "large.bin"
    upload = client.create_multipart_upload(Bucket=SOURCE, Key=key)["UploadId"]
    parts: list[CompletedPartTypeDef] = []
    for number in range(1, size // part_size + 1):
        body = os.urandom(part_size)
        etag = client.upload_part(Bucket=SOURCE, Key=key, UploadId=upload, PartNumber=number, Body=body)["ETag"]
        parts.append({"PartNumber": number, "ETag": etag})
    client.complete_multipart_upload(Bucket=SOURCE, Key=key, UploadId=upload, MultipartUpload={"Parts": parts})


class Targets:
    """Gives an empty bucket at each call; the one before is emptied, so that servers do not grow.

    emptied: called after that.
    """

    def __init__(self, endpoint: Endpoint, emptied: Callable[[], None] = lambda: None) -> None:
        self._client: S3Client = boto_client(endpoint)
        self._emptied = emptied
        self._made = 0

    def __call__(self) -> str:
        if self._made:
            self._empty(f"bench-{self._made}")
            self._emptied()
        self._made += 1
        self._client.create_bucket(Bucket=f"bench-{self._made}")
        return f"bench-{self._made}"

    def _empty(self, bucket: str) -> None:
        for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
            keys = [{"Key": entry["Key"]} for entry in page.get("Contents", [])]
            if keys:
                self._client.delete_objects(Bucket=bucket, Delete={"Objects": keys, "Quiet": True})
