"""Buckets full of what tools stumble over, from one kind of real server to another."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import sysconfig
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from replicator.model import MiB
from tests.awkward import AWKWARD_KEYS, PLAIN_KEYS, RICH, TAGS
from tests.runs import ROOT, run_command
from tests.servers import Endpoint
from tests.servers.lab import boto_client, new_bucket

SECONDS = 120
PART = 5 * MiB
RCLONE = Path(sysconfig.get_path("scripts")) / "rclone"
ROUTES = {
    "Swift to RGW": ("swift_endpoint", "rgw_endpoint"),
    "RGW to Swift": ("rgw_endpoint", "swift_endpoint"),
    "RGW to RGW": ("rgw_endpoint", "second_rgw_endpoint"),
}
LOST = {
    "Swift to RGW": {"underscored": ["metadata name a_b"]},
    "RGW to Swift": {
        "in parts and tagged": ["tags"],
        "tagged": ["tags"],
        "redirect": ["website-redirect"],
        "redirect and tagged": ["tags", "website-redirect"],
    },
    "RGW to RGW": {},
}
HEADERS = (
    "ContentType",
    "ContentEncoding",
    "ContentDisposition",
    "ContentLanguage",
    "CacheControl",
    "ExpiresString",
    "Metadata",
)


@dataclass
class Filled:
    """A source that was filled and migrated once, and its target."""

    name: str
    here: Endpoint
    there: Endpoint
    source: Any
    target: Any
    source_bucket: str
    target_bucket: str
    folder: Path
    first: subprocess.CompletedProcess[str] | None = None
    bodies: dict[str, bytes] = field(default_factory=dict)

    @property
    def source_has_tags(self) -> bool:
        return self.name.startswith("RGW")

    def put(self, key: str, body: bytes, **more: Any) -> None:
        self.source.put_object(Bucket=self.source_bucket, Key=key, Body=body, **more)
        self.bodies[key] = body

    def put_parts(self, key: str, body: bytes, **more: Any) -> None:
        where = {"Bucket": self.source_bucket, "Key": key}
        upload = self.source.create_multipart_upload(**where, **more)["UploadId"]
        parts = []
        for number, offset in enumerate(range(0, len(body), PART), start=1):
            part = body[offset : offset + PART]
            etag = self.source.upload_part(**where, UploadId=upload, PartNumber=number, Body=part)["ETag"]
            parts.append({"PartNumber": number, "ETag": etag})
        self.source.complete_multipart_upload(**where, UploadId=upload, MultipartUpload={"Parts": parts})
        self.bodies[key] = body

    def replicator(self, verb: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        variables = {
            "PYTHONPATH": str(ROOT),
            "SOURCE_BUCKET": self.source_bucket,
            "SOURCE_ENDPOINT": self.here.url,
            "SOURCE_ACCESS_KEY_ID": self.here.access_key,
            "SOURCE_SECRET_ACCESS_KEY": self.here.secret_key,
            "TARGET_BUCKET": self.target_bucket,
            "TARGET_ENDPOINT": self.there.url,
            "TARGET_ACCESS_KEY_ID": self.there.access_key,
            "TARGET_SECRET_ACCESS_KEY": self.there.secret_key,
        }
        command = [sys.executable, "-m", "replicator", verb, *map(str, arguments)]
        return run_command(command, {**os.environ, **variables}, seconds=SECONDS)

    def report(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / name).read_text().splitlines()]


def keys_of(client, bucket):
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, PaginationConfig={"PageSize": 20})
    return [entry["Key"] for page in pages for entry in page.get("Contents", [])]


def read(client, bucket):
    return {key: client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys_of(client, bucket)}


def wait_until_listed(filled):
    """Swift's listings come a moment after the objects."""
    deadline = time.monotonic() + SECONDS
    while set(keys_of(filled.source, filled.source_bucket)) != set(filled.bodies):
        assert time.monotonic() < deadline, "the source does not list what was put there"
        time.sleep(0.1)


def fill(filled):
    chooser = random.Random(11)
    for key in (*AWKWARD_KEYS, *PLAIN_KEYS):
        filled.put(key, f"data of {key}".encode())
    filled.put("empty", b"")
    filled.put("33 MiB in one part", chooser.randbytes(33 * MiB))
    filled.put_parts("in parts", chooser.randbytes(11 * MiB), Metadata={"colour": "green"}, ContentType="video/mp4")
    filled.put("underscored", b"x", Metadata={"a_b": "1", "plain": "2"})
    filled.put(
        "rich",
        b"rich",
        ContentType=RICH.content_type,
        ContentEncoding=RICH.content_encoding,
        ContentDisposition=RICH.content_disposition,
        ContentLanguage=RICH.content_language,
        CacheControl=RICH.cache_control,
        Expires=RICH.expires,
        Metadata=dict(RICH.metadata),
    )
    if filled.source_has_tags:
        tags = {"TagSet": [{"Key": key, "Value": value} for key, value in TAGS]}
        filled.put("redirect", b"redirect", WebsiteRedirectLocation="/elsewhere")
        filled.put("redirect and tagged", b"redirect", WebsiteRedirectLocation="/elsewhere")
        filled.put("tagged", b"tagged")
        filled.put_parts("in parts and tagged", chooser.randbytes(11 * MiB))
        for key in ("tagged", "redirect and tagged", "in parts and tagged"):
            filled.source.put_object_tagging(Bucket=filled.source_bucket, Key=key, Tagging=tags)
    wait_until_listed(filled)


@pytest.fixture(scope="module", params=list(ROUTES))
def filled(request, tmp_path_factory):
    here, there = (request.getfixturevalue(name) for name in ROUTES[request.param])
    source, target = boto_client(here), boto_client(there)
    folder = tmp_path_factory.mktemp("reports")
    buckets = new_bucket(here), new_bucket(there)
    filled = Filled(request.param, here, there, source, target, *buckets, folder)
    fill(filled)
    filled.first = filled.replicator("migrate", "--report", folder / "first")
    yield filled
    source.close()
    target.close()


def test_everything_is_copied_without_a_failure(filled):
    assert (filled.first.returncode, filled.first.stderr) == (0, ""), filled.first
    outcomes = filled.report("first")
    assert {line["key"] for line in outcomes} == set(filled.bodies)
    assert {line["error"] for line in outcomes} == {None}


def test_all_bytes_under_all_keys_are_equal(filled):
    assert read(filled.source, filled.source_bucket) == filled.bodies
    assert read(filled.target, filled.target_bucket) == filled.bodies


def test_headers_and_metadata_are_equal(filled):
    for key in filled.bodies:
        ours = filled.source.head_object(Bucket=filled.source_bucket, Key=key)
        theirs = filled.target.head_object(Bucket=filled.target_bucket, Key=key)
        for name in HEADERS:
            wanted = ours.get(name)
            if key == "underscored" and name == "Metadata" and filled.name == "Swift to RGW":
                assert wanted == {"a_b": "1", "plain": "2"}
                wanted = {"a-b": "1", "plain": "2"}
            assert theirs.get(name) == wanted, (key, name)


def test_etags_are_equal_so_parts_were_preserved(filled):
    for key in filled.bodies:
        ours = filled.source.head_object(Bucket=filled.source_bucket, Key=key)["ETag"]
        assert filled.target.head_object(Bucket=filled.target_bucket, Key=key)["ETag"] == ours, key
    assert filled.target.head_object(Bucket=filled.target_bucket, Key="in parts")["ETag"].endswith('-3"')


def test_tags_and_redirects_are_equal_where_the_target_has_them(filled):
    if filled.name != "RGW to RGW":
        pytest.skip("one of them has none")
    for key in ("tagged", "redirect and tagged", "in parts and tagged"):
        found = filled.target.get_object_tagging(Bucket=filled.target_bucket, Key=key)["TagSet"]
        assert sorted((tag["Key"], tag["Value"]) for tag in found) == sorted(TAGS)
    for key in ("redirect", "redirect and tagged"):
        head = filled.target.head_object(Bucket=filled.target_bucket, Key=key)
        assert head["WebsiteRedirectLocation"] == "/elsewhere"


def test_what_the_target_cannot_keep_is_named_and_nothing_else(filled):
    lost = {line["key"]: sorted(line["not_kept"]) for line in filled.report("first") if line["not_kept"]}
    assert lost == LOST[filled.name]


def test_verification_sees_no_difference_but_those(filled):
    done = filled.replicator("verify", "--report", filled.folder / "verified")
    outcomes = filled.report("verified")
    assert {line["key"] for line in outcomes} == set(filled.bodies)
    told = {line["key"] for line in outcomes if line["action"] != "in sync" or line["not_kept"]}
    assert told == set(LOST[filled.name])
    assert done.returncode == (1 if filled.name == "RGW to Swift" else 0), done


def test_a_second_run_copies_nothing(filled):
    before = filled.target.head_object(Bucket=filled.target_bucket, Key="in parts")["LastModified"]
    done = filled.replicator("migrate", "--report", filled.folder / "second")
    assert (done.returncode, done.stderr) == (0, ""), done
    actions = {line["key"]: line["action"] for line in filled.report("second")}
    assert actions.keys() == set(filled.bodies)
    assert [key for key, action in actions.items() if action == "copied"] == []
    assert filled.target.head_object(Bucket=filled.target_bucket, Key="in parts")["LastModified"] == before


def test_no_upload_is_left_unfinished(filled):
    assert filled.target.list_multipart_uploads(Bucket=filled.target_bucket).get("Uploads", []) == []


def test_rclone_agrees_on_plain_keys(filled):
    variables = {}
    for name, endpoint in (("HERE", filled.here), ("THERE", filled.there)):
        variables |= {
            f"RCLONE_CONFIG_{name}_TYPE": "s3",
            f"RCLONE_CONFIG_{name}_PROVIDER": "Other",
            f"RCLONE_CONFIG_{name}_ENDPOINT": endpoint.url,
            f"RCLONE_CONFIG_{name}_REGION": endpoint.region,
            f"RCLONE_CONFIG_{name}_ACCESS_KEY_ID": endpoint.access_key,
            f"RCLONE_CONFIG_{name}_SECRET_ACCESS_KEY": endpoint.secret_key,
        }
    names = filled.folder / "plain"
    keys = [*PLAIN_KEYS, "empty", "in parts", "33 MiB in one part"]
    names.write_text("\n".join(keys) + "\n")
    places = [f"here:{filled.source_bucket}", f"there:{filled.target_bucket}"]
    command = [
        RCLONE,
        "check",
        "--download",
        "--config",
        os.devnull,
        "--no-traverse",
        "--files-from-raw",
        names,
        *places,
    ]
    done = subprocess.run(
        command, env={**os.environ, **variables}, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"{len(keys)} matching files" in done.stderr
