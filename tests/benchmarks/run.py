"""make bench: this and its peers on the same work, in the same run, in turn. Prints Markdown for docs/BENCHMARKS.md.

python -m tests.benchmarks.run [small] [large] [--runs 5]
"""

from __future__ import annotations

import argparse
import compileall
import os
import platform
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.benchmarks.measure import Peer, alternate, table
from tests.servers import Endpoint, rclone, rgw
from tests.servers.lab import boto_client

SCRIPTS = Path(sysconfig.get_path("scripts"))
SMALL_OBJECTS, SMALL_SIZE = 5_000, 4096
MiB = 1024 * 1024
LARGE_SIZE, LARGE_PART = 256 * MiB, 8 * MiB

Prepared = tuple[Sequence[str], Mapping[str, str]]


class Field:
    """Two servers and a filled bucket; gives every run of every peer an empty target bucket."""

    def __init__(self, here: Endpoint, there: Endpoint, scratch: Path) -> None:
        self.here, self.there, self.scratch = here, there, scratch
        self.source = "bench-source"
        boto_client(here).create_bucket(Bucket=self.source)
        self._buckets = 0

    def fresh(self) -> str:
        """An empty bucket at the target; the one before is emptied, so that servers do not grow."""
        client = boto_client(self.there)
        if self._buckets:
            old = f"bench-{self._buckets}"
            for page in client.get_paginator("list_objects_v2").paginate(Bucket=old):
                for entry in page.get("Contents", []):
                    client.delete_object(Bucket=old, Key=entry["Key"])
        self._buckets += 1
        client.create_bucket(Bucket=f"bench-{self._buckets}")
        return f"bench-{self._buckets}"

    def ours(self, _: int) -> Prepared:
        keys = {
            f"{side}_{name}": value
            for side, endpoint in (("SOURCE", self.here), ("TARGET", self.there))
            for name, value in (
                ("ENDPOINT", endpoint.url),
                ("ACCESS_KEY_ID", endpoint.access_key),
                ("SECRET_ACCESS_KEY", endpoint.secret_key),
            )
        }
        return [str(SCRIPTS / "replicator"), "migrate", self.source, self.fresh()], keys

    def rclone(self, *options: str) -> Peer:
        def prepare(_: int) -> Prepared:
            remotes = {
                f"RCLONE_CONFIG_{remote}_{name}": value
                for remote, endpoint in (("HERE", self.here), ("THERE", self.there))
                for name, value in (
                    ("TYPE", "s3"),
                    ("PROVIDER", "Rclone" if endpoint.name == "rclone" else "Ceph"),
                    ("ENDPOINT", endpoint.url),
                    ("ACCESS_KEY_ID", endpoint.access_key),
                    ("SECRET_ACCESS_KEY", endpoint.secret_key),
                )
            }
            command = [str(SCRIPTS / "rclone"), "--config", "/dev/null", "copy", f"here:{self.source}"]
            return [*command, f"there:{self.fresh()}", *options], remotes

        return Peer(" ".join(["rclone", *options]), prepare)

    def boto3(self, _: int) -> Prepared:
        where = [self.here.url, self.source, self.there.url, self.fresh()]
        return [sys.executable, "-m", "tests.benchmarks.boto3_copy", *where], self._aws()

    def aws_sync(self, number: int) -> Prepared:
        """aws s3 sync takes one endpoint, so it goes through the disk."""
        aws, folder = aws_cli(), self.scratch / f"sync-{number}"
        down = f"{aws} s3 sync --only-show-errors --endpoint-url {self.here.url} s3://{self.source} {folder}"
        up = f"{aws} s3 sync --only-show-errors --endpoint-url {self.there.url} {folder} s3://{self.fresh()}"
        return ["sh", "-c", f"{down} && {up} && rm -r {folder}"], self._aws()

    def _aws(self) -> Mapping[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": self.here.access_key,
            "AWS_SECRET_ACCESS_KEY": self.here.secret_key,
            "AWS_DEFAULT_REGION": self.here.region,
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
        }


def aws_cli() -> Path:
    """The AWS CLI, in an environment of its own since it pins botocore; made when it is first needed."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bucket-replicator-tests" / "awscli"
    if not (cache / "bin" / "aws").exists():
        subprocess.run([sys.executable, "-m", "venv", cache], check=True)
        subprocess.run([cache / "bin" / "pip", "install", "--quiet", "awscli==1.46.2"], check=True)
    return cache / "bin" / "aws"


def small(scratch: Path, runs: int) -> str:
    """Many small objects between two in-memory servers, where every tool is limited by itself."""
    with rclone.serve(scratch / "here") as here, rclone.serve(scratch / "there") as there:
        field = Field(here, there, scratch)
        client = boto_client(here)
        for n in range(SMALL_OBJECTS):
            client.put_object(Bucket=field.source, Key=f"dir{n % 10}/{n:06}", Body=os.urandom(SMALL_SIZE))
        peers = [
            Peer("replicator migrate", field.ours),
            field.rclone("--transfers", "32", "--checkers", "32"),
            field.rclone("--transfers", "32", "--checkers", "32", "--s3-no-head"),
        ]
        alternate(peers, runs)
        slow = [Peer("boto3, 32 threads", field.boto3), Peer("aws s3 sync through a disk", field.aws_sync)]
        alternate(slow, 1)
        for peer in slow:
            peer.runs *= runs
        title = f"{SMALL_OBJECTS:,} objects of {SMALL_SIZE // 1024} KiB between two in-memory servers"
        return table(title, [*peers, *slow], SMALL_OBJECTS, "objects")


def large(scratch: Path, runs: int) -> str:
    """One object in parts between two Ceph clusters."""
    with rgw.serve(scratch / "here") as here, rgw.serve(scratch / "there") as there:
        field = Field(here, there, scratch)
        put_parts(here, field.source, "large.bin")
        tuned = ("--s3-upload-concurrency", "8", "--s3-chunk-size", f"{LARGE_PART // MiB}M")
        peers = [Peer("replicator migrate", field.ours), field.rclone(), field.rclone(*tuned)]
        alternate(peers, runs)
        title = f"one object of {LARGE_SIZE // MiB} MiB in {LARGE_PART // MiB} MiB parts, Ceph RGW to Ceph RGW"
        return table(title, peers, LARGE_SIZE / MiB, "MiB")


def put_parts(endpoint: Endpoint, bucket: str, key: str) -> None:
    client = boto_client(endpoint)
    upload = client.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
    parts = []
    for number in range(1, LARGE_SIZE // LARGE_PART + 1):
        body = os.urandom(LARGE_PART)
        etag = client.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=number, Body=body)["ETag"]
        parts.append({"PartNumber": number, "ETag": etag})
    client.complete_multipart_upload(Bucket=bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": parts})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", default=["small", "large"], choices=["small", "large"])
    parser.add_argument("--runs", type=int, default=5)
    chosen = parser.parse_args()
    compileall.compile_dir("replicator", quiet=2)  # an installed package is compiled, too
    print(f"{platform.python_implementation()} {platform.python_version()}, {os.cpu_count()} CPUs, medians of")
    print(f"{chosen.runs} runs after one to warm up; peers take turns.\n", flush=True)
    for name, missing in (("small", rclone.missing()), ("large", rgw.missing())):
        if name in chosen.cases and missing:
            sys.exit(f"bench: {missing}")
    for case in chosen.cases:
        with tempfile.TemporaryDirectory(prefix="replicator-bench-") as scratch:
            for side in ("here", "there"):
                (Path(scratch) / side).mkdir()
            print({"small": small, "large": large}[case](Path(scratch), chosen.runs), "\n", flush=True)


if __name__ == "__main__":
    main()
