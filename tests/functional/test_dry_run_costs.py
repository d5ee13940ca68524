"""What --dry-run says a run would cost, and the page that --html writes however a run ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from html.parser import HTMLParser

import pytest

from replicator.bulk.pricing import Requests, internet_price, region_price
from replicator.model import Did, Evidence, GiB, MiB, Outcome
from tests.fakes.watched_s3 import watched
from tests.functional.test_cli import Route, held_up, numbers
from tests.runs import SECONDS
from tests.servers.lab import new_bucket


@pytest.fixture
def route(rclone_endpoint, second_rclone_endpoint):
    return Route(rclone_endpoint, second_rclone_endpoint)


@pytest.fixture
def rgw_route(rgw_endpoint, second_rclone_endpoint):
    return Route(rgw_endpoint, second_rclone_endpoint)


@pytest.fixture
def one_endpoint(rgw_endpoint):
    return Route(rgw_endpoint, rgw_endpoint)


def put_in_parts(route, key, sizes):
    where = {"Bucket": route.source_bucket, "Key": key}
    upload = route.source.create_multipart_upload(**where)["UploadId"]
    sent = [
        {
            "PartNumber": n,
            "ETag": route.source.upload_part(**where, UploadId=upload, PartNumber=n, Body=bytes(size))["ETag"],
        }
        for n, size in enumerate(sizes, 1)
    ]
    route.source.complete_multipart_upload(**where, UploadId=upload, MultipartUpload={"Parts": sent})


def dry_run(route, *options):
    done = route.run("migrate", "--dry-run", *options)
    assert (done.returncode, done.stderr) == (0, "")
    return numbers(done)


def costs(said):
    names = ("GET and HEAD requests", "PUT, COPY, POST and LIST requests", "DELETE requests")
    return tuple(int(said[name].replace(",", "")) for name in names)


LISTINGS = 4
"""Both sides, twice."""


def test_small_objects_cost_a_get_and_a_put_each(route):
    route.fill([f"{n:03}" for n in range(20)])
    said = dry_run(route)
    assert said["to copy"] == "20 objects, 220 B"
    assert costs(said) == (20, 20 + LISTINGS, 0)
    assert said["requests, at AWS list prices of us-east-1"] == "$0.00"
    assert said["bytes out of AWS, to another region"] == said["bytes out of AWS, to the internet"] == "$0.00"
    assert route.at_target() == {}


def test_dollars_are_counted_by_the_list():
    """Of more objects than anybody wants to make for a test."""
    requests = Requests()
    for _ in range(1000):
        requests.add(Outcome("k", "t", Did.COPIED, "", Evidence.ETAG, bytes=MiB), server_side=False)
    requests.add_listings([1000, 0])
    assert (requests.reads, requests.writes) == (1000, 1000 + 2 * (2 + 1))
    assert requests.price == pytest.approx(1000 * 0.0004 / 1000 + 1006 * 0.005 / 1000)
    assert region_price(100 * GiB) == pytest.approx(2.00)
    assert internet_price(10 * 1024 * GiB) == pytest.approx(921.60)
    assert internet_price(11 * 1024 * GiB) == pytest.approx(921.60 + 1024 * 0.085)


def test_objects_in_parts_cost_requests_for_each_part(rgw_route):
    put_in_parts(rgw_route, "large", [5 * MiB, 5 * MiB, 1000])
    said = dry_run(rgw_route)
    assert said["to copy"] == "1 objects, 10.0 MiB"
    assert costs(said) == (4 + 3, 2 + 3 + LISTINGS, 0)


def test_copies_inside_one_service_move_no_bytes(one_endpoint):
    route = one_endpoint
    route.fill(["a", "b", "c"])
    put_in_parts(route, "large", [5 * MiB, 1000])
    said = dry_run(route)
    assert costs(said) == (3 + 4, 3 + 2 + 2 + LISTINGS, 0)  # HEAD and COPY; no part is fetched


def test_a_dry_run_that_finds_nothing_to_do_costs_the_listings(route):
    route.fill(["a", "b"])
    assert route.run("migrate").returncode == 0
    said = dry_run(route)
    assert said["to copy"] == "0 objects, 0 B"
    assert costs(said) == (0, LISTINGS, 0)


def test_deletes_are_counted(route):
    route.fill(["a"])
    assert route.run("migrate").returncode == 0
    for key in ("x", "y", "z"):
        route.target.put_object(Bucket=route.target_bucket, Key=key, Body=b"x")
    assert costs(dry_run(route, "--delete"))[2] == 3
    assert costs(dry_run(route))[2] == 0


def test_each_target_costs_its_own(route):
    route.fill(["a", "b"])
    other = new_bucket(route.there)
    done = route.run("migrate", "--dry-run", route.source_bucket, route.target_bucket, other)
    assert numbers(done)["to copy"] == "4 objects, 36 B"


def test_a_dry_run_estimates_what_the_run_asks(route):
    """What is told before is near what a server then counts."""
    with watched() as source, watched() as target:
        source.objects = {f"{n:03}": b"x" * 100 for n in range(50)}
        variables = {"SOURCE_BUCKET": "from", "TARGET_BUCKET": "to", "SOURCE_ENDPOINT": source.url}
        variables["TARGET_ENDPOINT"] = target.url
        done = route.run("migrate", "--dry-run", **variables)
        said = costs(numbers(done))
        source.log.clear()
        target.log.clear()
        assert route.run("migrate", **variables).returncode == 0
        log = [*source.log, *target.log]
        reads = sum(bool(one.key) and one.method in ("GET", "HEAD") for one in log)
        writes = len(log) - reads
        assert reads == pytest.approx(said[0], abs=5)
        assert writes == pytest.approx(said[1], abs=5)


def test_a_dry_run_has_no_state(route, tmp_path):
    route.fill(["a"])
    line = route.refused("migrate", "--dry-run", "--state", tmp_path / "file")
    assert "--dry-run" in line
    assert "--state" in line
    assert not (tmp_path / "file").exists()


# --html


class Page(HTMLParser):
    """Checks that tags are closed, and collects the words."""

    VOID = frozenset({"meta", "link", "br", "hr", "img", "input", "col", "path", "rect", "line", "circle", "use"})

    def __init__(self, text):
        super().__init__()
        self.open, self.words = [], ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, _):
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data


def page_of(path):
    text = path.read_text()
    assert text.lstrip().lower().startswith("<!doctype html>")
    assert "http://" not in text.replace("http://www.w3.org", "")  # complete in itself
    return Page(text).words


def test_a_page_is_written_when_all_is_well(route, tmp_path):
    route.fill()
    assert route.run("migrate", "--html", tmp_path / "page.html").returncode == 0
    words = page_of(tmp_path / "page.html")
    assert f"s3://{route.source_bucket}/" in words
    assert f"s3://{route.target_bucket}/" in words
    route.check_secrets((tmp_path / "page.html").read_text(), {})


def test_a_page_is_written_when_objects_failed(moto_endpoint, rclone_endpoint, tmp_path):
    route = Route(moto_endpoint, rclone_endpoint)
    route.fill(["a", "//<b>x"])
    assert route.run("migrate", "--html", tmp_path / "page.html").returncode == 1
    assert "<b>x" in page_of(tmp_path / "page.html")  # a word, not a tag


def test_a_page_is_written_when_a_brake_held_deletes_back(route, tmp_path):
    route.target.put_object(Bucket=route.target_bucket, Key="precious", Body=b"x")
    assert route.run("migrate", "--delete", "--html", tmp_path / "page.html").returncode == 3
    assert "nothing was deleted" in page_of(tmp_path / "page.html")


@contextmanager
def under_way(route, url, page, processes):
    """A run that goes on while the block runs, with a page to write; nothing of it is left after the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "replicator", "migrate", "--html", str(page), "--processes", processes],
        env=route.variables({"SOURCE_ENDPOINT": url}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("processes", ["1", "2"])
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_page_is_written_when_a_run_is_interrupted(route, tmp_path, how, processes):
    route.source.put_object(Bucket=route.source_bucket, Key="big", Body=bytes(MiB))
    page = tmp_path / "page.html"
    with held_up(route.here) as (url, came), under_way(route, url, page, processes) as process:
        assert came.wait(SECONDS)
        process.send_signal(how)
        _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 130, err
    assert "interrupted" in page_of(page)


def test_a_page_is_written_when_all_workers_are_killed(route, tmp_path):
    route.source.put_object(Bucket=route.source_bucket, Key="big", Body=bytes(MiB))
    page = tmp_path / "page.html"
    with held_up(route.here) as (url, came), under_way(route, url, page, "2") as process:
        assert came.wait(SECONDS)
        with open(f"/proc/{process.pid}/task/{process.pid}/children") as file:
            for pid in file.read().split():
                os.kill(int(pid), signal.SIGKILL)
        _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 1, err
    assert "no worker is left" in page_of(page)


@pytest.mark.parametrize("place", ["missing/page.html", "."])
def test_a_page_that_cannot_be_written_is_refused_before_anything_is_done(route, tmp_path, place):
    route.fill(["a"])
    line = route.refused("migrate", "--html", tmp_path / place)
    assert "--html" in line
    assert str(tmp_path) in line


def test_a_page_replaces_the_one_of_an_earlier_run(route, tmp_path):
    route.fill(["a"])
    (tmp_path / "page.html").write_text("old " * 100_000)
    assert route.run("migrate", "--html", tmp_path / "page.html").returncode == 0
    assert "old old" not in page_of(tmp_path / "page.html")
