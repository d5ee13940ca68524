"""--delete at the command line: what holds deletes back, what proves them, and where --trash puts the objects."""

from __future__ import annotations

import json
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.fakes.grudging_s3 import SLOW_DOWN
from tests.fakes.watched_s3 import watched
from tests.functional.test_cli import Route, content, lines_of
from tests.runs import migrate_between

KEYS = [f"kept {n:03}" for n in range(30)]
EXTRA = [f"extra {n:03}" for n in range(120)]
MANY = [f"{n:04}" for n in range(2500)]


@pytest.fixture
def route(rclone_endpoint, second_rclone_endpoint):
    return Route(rclone_endpoint, second_rclone_endpoint)


@pytest.fixture
def rgw_route(rgw_endpoint):
    return Route(rgw_endpoint, rgw_endpoint)


def copied(route, extra=(), keys=KEYS):
    """A target that an earlier run has filled, and then others."""
    route.fill(keys)
    assert route.run("migrate").returncode == 0
    put = lambda key: route.target.put_object(Bucket=route.target_bucket, Key=key, Body=b"x")  # noqa: E731
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, extra))
    return keys_at(route)


def keys_at(route):
    return {entry["Key"] for entry in route.target.list_objects_v2(Bucket=route.target_bucket)["Contents"]}


# The brakes


def test_many_deletes_are_refused_until_they_are_asked_for_by_number(route):
    before = copied(route, EXTRA)
    done = route.run("migrate", "--delete")
    assert done.returncode == 3
    (line,) = done.stderr.splitlines()
    assert "120 of the 150 objects" in line
    assert f"s3://{route.target_bucket}/" in line
    assert "nothing was deleted" in line
    assert "--max-delete 120" in line
    assert keys_at(route) == before
    done = route.run("migrate", "--delete", "--max-delete", "120")
    assert (done.returncode, done.stderr) == (0, "")
    assert keys_at(route) == {*KEYS}


def test_what_is_new_is_copied_even_if_deletes_are_refused(route):
    copied(route, EXTRA)
    route.fill(["new"])
    assert route.run("migrate", "--delete").returncode == 3
    assert keys_at(route) == {*KEYS, *EXTRA, "new"}


def test_a_hundred_deletes_need_no_word(route):
    copied(route, EXTRA[:100])
    assert route.run("migrate", "--delete").returncode == 0
    assert keys_at(route) == {*KEYS}


@pytest.mark.parametrize(
    ("limit", "extra", "code"),
    [
        ("0", 1, 3),
        ("0", 0, 0),
        ("4", 5, 3),
        ("5", 5, 0),
        ("0%", 1, 3),
        ("10%", 3, 0),  # of 33
        ("10%", 4, 3),  # of 34
        ("11.8%", 4, 0),
        ("100%", 5, 0),
    ],
)
def test_a_limit_is_kept_to_the_object(limit, extra, code):
    with watched() as source, watched() as target:
        source.objects = {key: key.encode() for key in KEYS}
        target.objects = {**source.objects, **dict.fromkeys(EXTRA[:extra], b"x")}
        done = migrate(source, target, "--delete", "--max-delete", limit)
        assert done.returncode == code, done.stderr
        assert set(target.objects) == ({*KEYS} if code == 0 else {*KEYS, *EXTRA[:extra]})
        assert ("--max-delete" in done.stderr) == (code == 3)
        if code == 3:
            assert target.of("DELETE") == []


@pytest.mark.parametrize("limit", ["", "-1", "101%", "ten", "10 %", "1e3", "%", "5%%", "٣", "0x10", "1,000", "nan%"])
def test_a_limit_that_is_none_is_named(limit):
    with watched() as source, watched() as target:
        source.objects, target.objects = {"a": b"a"}, {"b": b"b"}
        done = migrate(source, target, "--delete", f"--max-delete={limit}")
        assert (done.returncode, done.stdout) == (2, "")
        (line,) = done.stderr.splitlines()
        assert "--max-delete" in line
        assert target.objects == {"b": b"b"}


def test_one_target_with_too_many_holds_back_the_deletes_at_all(route):
    before = copied(route, EXTRA[:1])
    other = route.source_bucket + "-other"
    route.target.create_bucket(Bucket=other)
    for key in (*KEYS, *EXTRA):
        route.target.put_object(Bucket=other, Key=key, Body=f"data of {key}".encode())
    done = route.run("migrate", "--delete", route.source_bucket, route.target_bucket, other)
    assert done.returncode == 3
    assert f"s3://{other}/" in done.stderr
    assert keys_at(route) == before
    assert len(content(route.target, other)) == 150


@pytest.mark.parametrize("options", [[], ["--max-delete", "100%"], ["--max-delete", "5"], ["--trash", "bin"]])
def test_an_empty_source_deletes_nothing_whatever_is_allowed(route, options):
    route.target.put_object(Bucket=route.target_bucket, Key="precious", Body=b"x")
    done = route.run("migrate", "--delete", *options)
    assert done.returncode == 3
    assert "nothing was deleted" in done.stderr
    assert route.at_target() == {"precious": b"x"}


@pytest.mark.parametrize("options", [[], ["--max-delete", "0"]])
def test_a_dry_run_names_what_would_go_and_deletes_nothing(route, options):
    before = copied(route, EXTRA[:4])
    done = route.run("migrate", "--delete", "--dry-run", *options)
    assert done.returncode == (3 if options else 0)
    said = [line for line in done.stdout.splitlines() if line.startswith("(dry run) deleted: ")]
    assert len(said) == 4
    for key in EXTRA[:4]:
        assert [line for line in said if ascii(key) in line]
    assert keys_at(route) == before


def test_a_dry_run_that_would_be_held_back_names_everything_first(route):
    before = copied(route, EXTRA)
    done = route.run("migrate", "--delete", "--dry-run")
    assert done.returncode == 3
    assert len([line for line in done.stdout.splitlines() if line.startswith("(dry run) deleted: ")]) == 120
    assert "--max-delete 120" in done.stderr
    assert keys_at(route) == before


def test_what_is_excluded_is_not_deleted(route):
    copied(route, ["extra.log", "extra.txt"])
    assert route.run("migrate", "--delete", "--exclude", "*.log").returncode == 0
    assert keys_at(route) == {*KEYS, "extra.log"}


# Listings that say less than there is


def migrate(source, target, *options):
    return migrate_between(source.url, target.url, *options)


def error(code):
    return f"<Error><Code>{code}</Code><Message>hm</Message></Error>".encode()


LIES = {
    "403": (403, error("AccessDenied"), {}),
    "garbage": (200, b"<html>It works!</html>", {}),
    "cut off": (200, b"<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>a", {}),
    "no such bucket": (404, error("NoSuchBucket"), {}),
    "a bare 404": (404, b"", {}),
    "the first page again": (
        200,
        b"<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>0000</Key><Size>1</Size>"
        b"<LastModified>2020-01-01T00:00:00.000Z</LastModified><ETag>x</ETag></Contents></ListBucketResult>",
        {},
    ),
}


@pytest.mark.parametrize("processes", ["1", "2"])
@pytest.mark.parametrize("how", LIES)
def test_nothing_is_deleted_when_the_source_is_listed_by_half(how, processes):
    def broken(asked):
        gone = LIES[how][0] == 404 and any(one.page for one in source.log)  # answers nothing else any more, either
        return LIES[how] if asked.page or gone else None

    with watched() as source, watched() as target:
        source.rule = broken
        source.objects = {key: key.encode() for key in MANY}
        target.objects = {**source.objects, **dict.fromkeys(EXTRA[:5], b"x")}
        target.written = dict.fromkeys(MANY, time.time() - 60)
        done = migrate(source, target, "--delete", "--max-delete", "100%", "--processes", processes)
        assert done.returncode in (1, 3), done.stdout
        assert done.stderr.startswith("replicator: ")
        assert target.of("DELETE") == []
        assert len(target.objects) == len(MANY) + 5


@pytest.mark.slow
def test_nothing_is_deleted_when_the_second_page_of_the_source_fails_again_and_again():
    with (
        watched(lambda asked: (500, error("InternalError"), {}) if asked.page else None) as source,
        watched() as target,
    ):
        source.objects = {key: key.encode() for key in MANY}
        target.objects = {**source.objects, **dict.fromkeys(EXTRA[:5], b"x")}
        target.written = dict.fromkeys(MANY, time.time() - 60)
        done = migrate(source, target, "--delete", "--max-delete", "100%")
        assert done.returncode == 1
        assert "InternalError" in done.stderr
        assert target.of("DELETE") == []


def test_a_target_listed_by_half_deletes_nothing():
    with watched() as source, watched(lambda asked: LIES["403"] if asked.page else None) as target:
        source.objects = {key: key.encode() for key in MANY}
        target.objects = {**source.objects, **dict.fromkeys(EXTRA[:5], b"x")}
        target.written = dict.fromkeys(MANY, time.time() - 60)
        done = migrate(source, target, "--delete", "--max-delete", "100%")
        assert done.returncode == 1
        assert "AccessDenied" in done.stderr
        assert target.of("DELETE") == []


def test_a_listing_that_ends_early_without_a_word_deletes_nothing_that_is_there():
    """Nobody can see that such a listing lies; each key is asked for before it is deleted."""
    end = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
    with watched(lambda asked: (200, end, {}) if asked.page else None) as source, watched() as target:
        source.objects = {key: key.encode() for key in MANY[:1300]}
        target.objects = {**source.objects, **dict.fromkeys(EXTRA[:5], b"x")}
        target.written = dict.fromkeys(MANY, time.time() - 60)
        migrate(source, target, "--delete", "--max-delete", "100%")
        assert target.objects.items() >= source.objects.items()
        assert not set(target.of("DELETE")) & set(source.objects)


def test_a_source_that_answers_404_for_every_object_but_lists_them_loses_none():
    def liar(asked):
        return (404, error("NoSuchKey"), {}) if asked.key and asked.method in ("HEAD", "GET") else None

    with watched(liar) as source, watched() as target:
        source.objects = dict.fromkeys(KEYS, b"new")
        target.objects = dict.fromkeys(KEYS, b"old")
        done = migrate(source, target, "--delete", "--max-delete", "100%")
        assert done.returncode == 1
        assert target.of("DELETE") == []
        assert target.objects == dict.fromkeys(KEYS, b"old")


@pytest.mark.parametrize("how", ["forbidden", "rejected", "the bucket is gone"])
def test_a_key_that_cannot_be_asked_for_is_not_deleted(how):
    def answers(asked):
        if how == "the bucket is gone":  # as soon as everything is listed
            return LIES["no such bucket"] if any(one.key for one in source.log) else None
        if asked.key != EXTRA[0]:
            return None
        return LIES["403"] if how == "forbidden" else (400, error("Weird"), {})

    with watched() as source, watched() as target:
        source.rule = answers
        source.objects = {key: key.encode() for key in KEYS}
        target.objects = {**source.objects, EXTRA[0]: b"x"}
        target.written = dict.fromkeys(KEYS, time.time() - 60)
        done = migrate(source, target, "--delete")
        assert done.returncode == 1, done.stdout
        assert EXTRA[0] in done.stderr
        assert target.of("DELETE") == []
        assert EXTRA[0] in target.objects


def test_a_delete_that_the_target_refuses_is_a_failure_and_the_others_are_made():
    def refuses(asked):
        return LIES["403"] if asked.method == "DELETE" and asked.key == EXTRA[2] else None

    with watched() as source, watched(refuses) as target:
        source.objects = {key: key.encode() for key in KEYS}
        target.objects = {**source.objects, **dict.fromkeys(EXTRA[:5], b"x")}
        done = migrate(source, target, "--delete")
        assert done.returncode == 1
        assert f"failed: {EXTRA[2]!r}" in done.stderr
        assert set(target.objects) == {*KEYS, EXTRA[2]}


def test_a_source_that_throttles_while_deletes_are_checked_delays_them_only():
    seen = set()

    def busy(asked):
        if asked.method == "HEAD" and asked.key not in seen:
            seen.add(asked.key)
            return 503, SLOW_DOWN, {}
        return None

    with watched(busy) as source, watched() as target:
        source.objects = {key: key.encode() for key in KEYS}
        target.objects = {**source.objects, **dict.fromkeys(EXTRA[:5], b"x")}
        target.written = dict.fromkeys(KEYS, time.time() - 60)
        done = migrate(source, target, "--delete")
        assert done.returncode == 0, done.stderr
        assert target.objects == source.objects


# The trash


def in_trash(route, prefix="bin/"):
    """What lies in the trash, by the keys it had: a list, one for each run."""
    found = {}
    for key, data in route.at_target().items():
        if key.startswith(prefix):
            when, _, was = key.removeprefix(prefix).partition("/")
            assert re.match(r"\d{8}T\d{6}", when), key
            found.setdefault(was, []).append(data)
    return found


def test_what_is_deleted_is_moved_to_the_trash_as_it_was(rgw_route, tmp_path):
    route = rgw_route
    copied(route, keys=KEYS[:3])
    route.target.put_object(
        Bucket=route.target_bucket,
        Key="dir/ä +%20//gone",
        Body=b"precious",
        ContentType="text/x-precious",
        CacheControl="max-age=7",
        Metadata={"owner": "me"},
        Tagging="colour=blue&size=5",
    )
    done = route.run("migrate", "--delete", "--trash", "bin", "--report", tmp_path / "report.jsonl")
    assert (done.returncode, done.stderr) == (0, "")
    (key,) = [key for key in route.at_target() if key.startswith("bin/")]
    assert key.endswith("/dir/ä +%20//gone")
    assert "dir/ä +%20//gone" not in route.at_target()
    kept = route.target.get_object(Bucket=route.target_bucket, Key=key)
    assert kept["Body"].read() == b"precious"
    assert (kept["ContentType"], kept["CacheControl"]) == ("text/x-precious", "max-age=7")
    assert kept["Metadata"]["owner"] == "me"
    tags = route.target.get_object_tagging(Bucket=route.target_bucket, Key=key).get("TagSet", [])
    assert {tag["Key"]: tag["Value"] for tag in tags} == {"colour": "blue", "size": "5"}
    (line,) = [line for line in lines_of(tmp_path / "report.jsonl") if line["action"] == "deleted"]
    assert key in line["reason"]


def test_an_object_of_several_parts_is_moved_to_the_trash(rgw_route):
    route = rgw_route
    copied(route, keys=KEYS[:3])
    parts = [os.urandom(5 << 20), os.urandom(1000)]
    where = {"Bucket": route.target_bucket, "Key": "large"}
    upload = route.target.create_multipart_upload(**where, Metadata={"owner": "me"})["UploadId"]
    sent = [
        {
            "PartNumber": n,
            "ETag": route.target.upload_part(**where, UploadId=upload, PartNumber=n, Body=part)["ETag"],
        }
        for n, part in enumerate(parts, 1)
    ]
    route.target.complete_multipart_upload(**where, UploadId=upload, MultipartUpload={"Parts": sent})
    done = route.run("migrate", "--delete", "--trash", "bin")
    assert (done.returncode, done.stderr) == (0, "")
    assert in_trash(route) == {"large": [b"".join(parts)]}
    assert "large" not in route.at_target()


def test_the_trash_is_left_alone_by_later_runs(rgw_route):
    route = rgw_route
    copied(route, EXTRA[:2], keys=KEYS[:3])
    assert route.run("migrate", "--delete", "--trash", "bin/").returncode == 0
    after = route.at_target()
    assert in_trash(route) == {EXTRA[0]: [b"x"], EXTRA[1]: [b"x"]}
    for options in (["--trash", "bin", "--delete"], ["--delete", "--trash", "bin", "--max-delete", "100%"], []):
        done = route.run("migrate", *options)
        assert (done.returncode, done.stderr) == (0, "")
        assert route.at_target() == after


def test_several_runs_do_not_replace_what_is_in_the_trash(rgw_route):
    """Within a second, too: six runs of less than a second each."""
    route = rgw_route
    copied(route, keys=KEYS[:1])
    for number in range(6):
        route.target.put_object(Bucket=route.target_bucket, Key="gone", Body=f"{number}".encode())
        assert route.run("migrate", "--delete", "--trash", "bin", "--processes", "1").returncode == 0
    assert sorted(in_trash(route)["gone"]) == [f"{number}".encode() for number in range(6)]


def test_what_cannot_be_moved_to_the_trash_is_not_deleted_and_is_a_failure(rgw_route, tmp_path):
    route = rgw_route
    long = "long/" * 202  # with the trash before it, more than the 1,024 bytes that a key may have
    copied(route, [long, "short"], keys=KEYS[:3])
    done = route.run("migrate", "--delete", "--trash", "bin", "--report", tmp_path / "report.jsonl")
    assert done.returncode == 1
    assert f"failed: '{long}'" in done.stderr
    assert re.search(r"/bin/\d{8}T\d{6}", done.stderr)  # where it would have gone
    assert long in route.at_target()
    assert in_trash(route) == {"short": [b"x"]}
    assert "short" not in route.at_target()
    failed = [json.loads(line) for line in (tmp_path / "report.jsonl").read_text().splitlines() if '"failed"' in line]
    assert {line["key"] for line in failed} == {long}


def test_a_target_that_cannot_copy_deletes_nothing_that_is_for_the_trash():
    def no_copies(asked):
        return (501, error("NotImplemented"), {}) if asked.method == "PUT" else None

    with watched() as source, watched(no_copies) as target:
        source.objects = {key: key.encode() for key in KEYS}
        target.objects = {**source.objects, EXTRA[0]: b"x"}
        target.written = dict.fromkeys(KEYS, time.time() - 60)
        done = migrate(source, target, "--delete", "--trash", "bin")
        assert done.returncode == 1
        assert EXTRA[0] in done.stderr
        assert target.objects[EXTRA[0]] == b"x"
        assert target.of("DELETE") == []


def test_a_copy_that_is_overwritten_is_not_for_the_trash_and_new_keys_are_copied(rgw_route):
    route = rgw_route
    copied(route, EXTRA[:1], keys=KEYS[:3])
    time.sleep(1.1)  # dates have seconds
    route.source.put_object(Bucket=route.source_bucket, Key=KEYS[0], Body=b"newer")
    done = route.run("migrate", "--delete", "--trash", "bin")
    assert done.returncode == 0, done.stderr
    assert in_trash(route) == {EXTRA[0]: [b"x"]}
    assert route.at_target()[KEYS[0]] == b"newer"


@pytest.mark.parametrize("prefix", ["", "/", "//"])
def test_a_trash_without_a_name_is_refused(prefix):
    with watched() as source, watched() as target:
        source.objects, target.objects = {"a": b"a"}, {"b": b"b"}
        done = migrate(source, target, "--delete", f"--trash={prefix}")
        assert (done.returncode, done.stdout) == (2, "")
        (line,) = done.stderr.splitlines()
        assert "--trash" in line
        assert target.objects == {"b": b"b"}
