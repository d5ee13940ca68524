"""--abort-stale: unfinished uploads of what the source has, old and of the run's keys, are aborted, and no others."""

from __future__ import annotations

import time

import pytest

from replicator.bulk.stale import abort_stale
from replicator.model import MiB
from tests.functional.test_cli import Route, numbers
from tests.servers.lab import boto_client, new_bucket, open_store

LATER = 3600.0
PARTS = [bytes([1]) * (5 * MiB), b"end"]
EVERY = lambda _: True  # noqa: E731


class Uploads:
    """A source with objects in parts, and unfinished uploads of them in a bucket of a real server."""

    def __init__(self, endpoint):
        self.endpoint, self.client = endpoint, boto_client(endpoint)
        self.source, self.bucket = new_bucket(endpoint), new_bucket(endpoint)

    def put_source(self, key, datas=PARTS):
        upload = self.begin(key, datas, bucket=self.source)
        where = {"Bucket": self.source, "Key": key, "UploadId": upload}
        listed = self.client.list_parts(**where)["Parts"]
        parts = [{"PartNumber": part["PartNumber"], "ETag": part["ETag"]} for part in listed]
        self.client.complete_multipart_upload(**where, MultipartUpload={"Parts": parts})

    def begin(self, key, datas=PARTS[:1], *, bucket=None):
        where = {"Bucket": bucket or self.bucket, "Key": key}
        upload = self.client.create_multipart_upload(**where)["UploadId"]
        for number, data in enumerate(datas, 1):
            self.client.upload_part(**where, UploadId=upload, PartNumber=number, Body=data)
        return upload

    def pending(self):
        return {one["Key"] for one in self.client.list_multipart_uploads(Bucket=self.bucket).get("Uploads", [])}

    async def abort(self, before, *, prefix="", includes=EVERY, dry_run=False):
        async with (
            open_store(self.endpoint, self.source) as source,
            open_store(self.endpoint, self.bucket, prefix) as target,
        ):
            stale = await abort_stale(source, target, before=before, includes=includes, dry_run=dry_run)
        return sorted(upload.key for upload in stale.aborted)


@pytest.fixture
def uploads(rgw_endpoint):
    return Uploads(rgw_endpoint)


@pytest.fixture
def route(rgw_endpoint):
    return Route(rgw_endpoint, rgw_endpoint)


async def test_old_uploads_of_what_the_source_has_are_aborted(uploads):
    key = "dir/ä +%20.bin"
    uploads.put_source(key)
    uploads.begin(key, PARTS[:1])
    uploads.begin(key, PARTS)  # two of one key
    uploads.client.put_object(Bucket=uploads.bucket, Key="object", Body=b"x")
    assert await uploads.abort(time.time() + LATER) == [key, key]
    assert uploads.pending() == set()
    listed = uploads.client.list_objects_v2(Bucket=uploads.bucket)["Contents"]
    assert [entry["Key"] for entry in listed] == ["object"]


async def test_young_uploads_are_left_alone(uploads):
    uploads.put_source("young")
    uploads.begin("young")
    assert await uploads.abort(time.time() - LATER) == []
    assert uploads.pending() == {"young"}


async def test_an_old_upload_with_a_young_part_is_left_alone(uploads):
    for key in ("goes on", "stopped"):
        uploads.put_source(key)
    began = uploads.begin("goes on")
    uploads.begin("stopped")
    time.sleep(2.1)
    middle = time.time() - 1
    uploads.client.upload_part(Bucket=uploads.bucket, Key="goes on", UploadId=began, PartNumber=2, Body=PARTS[1])
    assert await uploads.abort(middle) == ["stopped"]
    assert uploads.pending() == {"goes on"}


async def test_uploads_outside_the_run_are_left_alone(uploads):
    for key in ("a", "b.tmp"):
        uploads.put_source(key)
    for key in ("logs/a", "logs/b.tmp", "a", "logsa"):
        uploads.begin(key)
    found = await uploads.abort(time.time() + LATER, prefix="logs/", includes=lambda key: not key.endswith(".tmp"))
    assert found == ["a"]
    assert uploads.pending() == {"logs/b.tmp", "a", "logsa"}


async def test_a_dry_run_names_them_and_aborts_none(uploads):
    uploads.put_source("old")
    uploads.begin("old")
    assert await uploads.abort(time.time() + LATER, dry_run=True) == ["old"]
    assert uploads.pending() == {"old"}


@pytest.mark.parametrize("what", ["other bytes", "other sizes", "nothing at the source"])
async def test_uploads_of_somebody_else_are_left_alone(uploads, what):
    if what != "nothing at the source":
        uploads.put_source("shared")
    datas = {"other bytes": [bytes([9]) * (5 * MiB)], "other sizes": [bytes([1]) * (6 * MiB)]}.get(what, PARTS[:1])
    uploads.begin("shared", datas)
    assert await uploads.abort(time.time() + LATER) == []
    assert uploads.pending() == {"shared"}


# At the command line


def test_a_run_leaves_young_uploads_alone_and_says_how_many_it_aborted(route):
    route.fill(["a"])
    route.target.create_multipart_upload(Bucket=route.target_bucket, Key="young")
    done = route.run("migrate", "--abort-stale", "1h")
    assert (done.returncode, done.stderr) == (0, "")
    assert numbers(done)["stale uploads aborted"] == "0"
    pending = route.target.list_multipart_uploads(Bucket=route.target_bucket)["Uploads"]
    assert [one["Key"] for one in pending] == ["young"]
    assert set(route.at_target()) == {"a"}


def test_without_the_option_nothing_is_said_of_uploads(route):
    route.fill(["a"])
    assert "stale uploads aborted" not in numbers(route.run("migrate"))


@pytest.mark.parametrize("age", ["1h", "60m", "3600s", "36h", "7d", "2w"])
def test_an_age_may_have_any_unit(route, age):
    route.fill(["a"])
    assert route.run("migrate", "--abort-stale", age, "--dry-run").returncode == 0


@pytest.mark.parametrize("age", ["", "0", "7", "59m", "3599s", "0d", "-1d", "1.5d", "7 d", "1y", "d", "week", "7D"])
def test_an_age_that_is_none_or_too_short_is_refused(route, age):
    route.fill(["a"])
    line = route.refused("migrate", f"--abort-stale={age}")
    assert "--abort-stale" in line
    assert repr(age) in line


def test_a_target_that_does_not_list_uploads_costs_the_exit_code_only(rclone_endpoint, second_rclone_endpoint):
    route = Route(rclone_endpoint, second_rclone_endpoint)
    route.fill(["a", "b"])
    done = route.run("migrate", "--abort-stale", "1h")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "stale uploads were left alone" in line
    assert route.at_target() == route.at_source()
