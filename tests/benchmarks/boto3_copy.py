"""A peer: the copy loop that everybody writes, boto3 with 32 threads."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import boto3
from botocore.config import Config


def main(source_url: str, source: str, target_url: str, target: str) -> None:
    config = Config(
        s3={"addressing_style": "path"}, max_pool_connections=32, request_checksum_calculation="when_required"
    )
    here, there = (boto3.client("s3", endpoint_url=url, config=config) for url in (source_url, target_url))

    def copy(key: str) -> None:
        there.put_object(Bucket=target, Key=key, Body=here.get_object(Bucket=source, Key=key)["Body"].read())

    pages = here.get_paginator("list_objects_v2").paginate(Bucket=source)
    with ThreadPoolExecutor(32) as pool:
        for _ in pool.map(copy, (entry["Key"] for page in pages for entry in page.get("Contents", []))):
            pass


if __name__ == "__main__":
    main(*sys.argv[1:])
