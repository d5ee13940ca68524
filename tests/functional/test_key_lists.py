"""--keys and --inventory at the command line: runs that take their keys from a list and look at nothing else."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import subprocess
import sys
from urllib.parse import quote_plus

import pytest

from tests.functional.test_cli import Route, lines_of, numbers
from tests.runs import SECONDS, without_progress
from tests.servers.lab import new_bucket

KEYS = ["a", "b c", "dir/ü", "dir/d+e%20", "-starts-with-a-dash", "# no comment", " blank ", "z"]
SCHEMA = "Bucket, Key, VersionId, IsLatest, IsDeleteMarker, Size"


@pytest.fixture
def route(moto_endpoint, second_rclone_endpoint):
    """A source that knows inventories and any key, and another service."""
    return Route(moto_endpoint, second_rclone_endpoint)


@pytest.fixture
def rgw_route(rgw_endpoint):
    return Route(rgw_endpoint, rgw_endpoint)


def piped(route, data, *options):
    """The same with a list at the standard input."""
    done = subprocess.run(
        [sys.executable, "-m", "replicator", "migrate", *options],
        env=route.variables({}),
        input=data,
        capture_output=True,
        timeout=SECONDS,
        check=False,
    )
    assert b"Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout.decode(), without_progress(done.stderr.decode())


def put_inventory(route, rows, *, bucket=None, source=None, schema=SCHEMA, manifest=None, spoil=lambda data: data):
    """Writes an inventory as S3 does; the URL of its manifest."""
    bucket = bucket or new_bucket(route.here)
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)
    data = gzip.compress(text.getvalue().encode())
    route.source.put_object(Bucket=bucket, Key="inv/data/1.csv.gz", Body=spoil(data))
    fields = {
        "sourceBucket": source or route.source_bucket,
        "destinationBucket": f"arn:aws:s3:::{bucket}",
        "version": "2016-11-30",
        "fileFormat": "CSV",
        "fileSchema": schema,
        "files": [{"key": "inv/data/1.csv.gz", "size": len(data), "MD5checksum": hashlib.md5(data).hexdigest()}],
        **(manifest or {}),
    }
    route.source.put_object(Bucket=bucket, Key="inv/manifest.json", Body=json.dumps(fields).encode())
    return f"s3://{bucket}/inv/manifest.json"


def row(key, *, latest="true", marker="false"):
    return ["src", quote_plus(key, safe="/*"), "", latest, marker, "1"]


# --keys


@pytest.mark.parametrize("processes", ["1", "2"])
def test_only_the_keys_of_the_file_are_copied(rgw_route, tmp_path, processes):
    route = rgw_route
    route.fill([*KEYS, "other", "dir/other"])
    (tmp_path / "keys").write_text("\n".join(KEYS) + "\n")
    done = route.run("migrate", "--keys", tmp_path / "keys", "--processes", processes)
    assert (done.returncode, done.stderr) == (0, "")
    assert set(route.at_target()) == set(KEYS)
    assert route.at_target() == {key: data for key, data in route.at_source().items() if key in KEYS}
    assert numbers(done)["copied"] == str(len(KEYS))


def test_a_list_may_come_from_the_standard_input(route):
    route.fill(["a", "b", "c"])
    code, out, err = piped(route, b"a\nc\n", "--keys", "-")
    assert (code, err) == (0, ""), out
    assert set(route.at_target()) == {"a", "c"}


def test_keys_with_line_breaks_may_be_ended_by_nul(rgw_route):
    route = rgw_route
    route.fill(["a\nb", "c\r", "d"])
    code, out, err = piped(route, b"a\nb\0c\r\0", "--keys", "-")
    assert (code, err) == (0, ""), out
    assert set(route.at_target()) == {"a\nb", "c\r"}


def test_a_list_from_windows_is_read(route, tmp_path):
    route.fill(["a", "b", "c"])
    (tmp_path / "keys").write_bytes(b"\xef\xbb\xbfa\r\nb\r\n")
    assert route.run("migrate", "--keys", tmp_path / "keys").returncode == 0
    assert set(route.at_target()) == {"a", "b"}


def test_keys_are_below_the_prefix_and_filters_hold(route, tmp_path):
    route.fill(["logs/a.txt", "logs/b.tmp", "a.txt"])
    (tmp_path / "keys").write_text("a.txt\nb.tmp\n")
    source = f"s3://{route.source_bucket}/logs"
    target = f"s3://{route.target_bucket}/copy"
    done = route.run("migrate", source, target, "--keys", tmp_path / "keys", "--exclude", "*.tmp")
    assert done.returncode == 0, done.stderr
    assert set(route.at_target()) == {"copy/a.txt"}


def test_a_key_that_the_source_does_not_have_harms_nothing(route, tmp_path):
    route.fill(["a", "b"])
    route.target.put_object(Bucket=route.target_bucket, Key="only there", Body=b"x")
    (tmp_path / "keys").write_text("a\nnowhere\nonly there\nb\n")
    done = route.run("migrate", "--keys", tmp_path / "keys", "--report", tmp_path / "report.jsonl")
    assert (done.returncode, done.stderr) == (0, "")
    assert route.at_target() == {**route.at_source(), "only there": b"x"}
    actions = {line["key"]: line["action"] for line in lines_of(tmp_path / "report.jsonl")}
    assert (actions["a"], actions["b"], actions["only there"]) == ("copied", "copied", "kept")
    assert actions["nowhere"] in ("in sync", "kept")


def test_a_key_that_fails_is_named_and_the_others_are_copied(route, tmp_path):
    route.fill(["a", "//x", "b"])  # the target takes no such key
    (tmp_path / "keys").write_text("a\n//x\nb\n")
    done = route.run("migrate", "--keys", tmp_path / "keys")
    assert done.returncode == 1
    assert "failed: '//x'" in done.stderr
    assert set(route.at_target()) == {"a", "b"}


def test_a_key_that_has_changed_is_copied_again_and_one_that_has_not_is_not(route, tmp_path):
    route.fill(["a", "b"])
    (tmp_path / "keys").write_text("a\nb\n")
    assert route.run("migrate", "--keys", tmp_path / "keys").returncode == 0
    route.source.put_object(Bucket=route.source_bucket, Key="a", Body=b"new")
    done = route.run("migrate", "--keys", tmp_path / "keys")
    assert done.returncode == 0
    assert numbers(done)["copied"] == "1"
    assert route.at_target() == route.at_source()


def test_a_key_that_is_named_twice_and_empty_lines_do_no_harm(route, tmp_path):
    route.fill(["a", "b"])
    (tmp_path / "keys").write_text("\n\na\na\n\nb\na\n\n")
    done = route.run("migrate", "--keys", tmp_path / "keys")
    assert done.returncode == 0, done.stderr
    assert route.at_target() == route.at_source()


def test_a_list_of_many_keys_is_shared_by_processes(route, tmp_path):
    keys = [f"{n:04}" for n in range(600)]
    route.source.put_object(Bucket=route.source_bucket, Key=keys[0], Body=b"x")
    route.source.put_object(Bucket=route.source_bucket, Key=keys[-1], Body=b"x")
    (tmp_path / "keys").write_text("\n".join(keys))
    done = route.run("migrate", "--keys", tmp_path / "keys", "--processes", "2")
    assert (done.returncode, done.stderr) == (0, "")
    assert set(route.at_target()) == {keys[0], keys[-1]}
    assert numbers(done)["compared"] == "600"


def test_a_dry_run_over_a_list_copies_nothing(route, tmp_path):
    route.fill(["a", "b", "c"])
    (tmp_path / "keys").write_text("a\nc\n")
    done = route.run("migrate", "--keys", tmp_path / "keys", "--dry-run")
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stdout.splitlines() if line.startswith("(dry run) copied: ")]
    assert len(said) == 2
    assert route.at_target() == {}


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (None, "No such file"),
        (b"a\n\xff\xfe\n", "line 2"),
        (b"a\nb\n" + b"k" * 1025 + b"\n", "line 3"),
    ],
)
def test_a_list_that_cannot_be_read_is_refused_before_anything_is_copied(route, tmp_path, data, word):
    route.fill(["a", "b"])
    path = tmp_path / "keys"
    if data is not None:
        path.write_bytes(data)
    line = route.refused("migrate", "--keys", path)
    assert str(path) in line
    assert word in line


def test_an_empty_list_copies_nothing_and_says_so(route, tmp_path):
    route.fill(["a"])
    (tmp_path / "keys").write_text("\n")
    done = route.run("migrate", "--keys", tmp_path / "keys")
    assert done.returncode == 0
    assert route.at_target() == {}
    assert done.stderr


# --inventory


@pytest.mark.parametrize("server", ["moto", "rgw"])
def test_only_the_keys_of_the_inventory_are_copied(request, server):
    route = request.getfixturevalue("rgw_route" if server == "rgw" else "route")
    keys = KEYS if server == "rgw" else ["a", "b c", "dir/d+e%20", "z"]
    route.fill([*keys, "newer than the inventory"])
    rows = [*map(row, keys), row("gone since"), row("newer than the inventory", latest="false")]
    done = route.run("migrate", "--inventory", put_inventory(route, rows))
    assert (done.returncode, done.stderr) == (0, "")
    assert set(route.at_target()) == set(keys)


def test_delete_markers_and_keys_outside_the_prefix_are_left_out(route):
    route.fill(["logs/a", "logs/marker", "other"])
    rows = [row("logs/a"), row("logs/marker", marker="true"), row("other"), row("logs/")]
    source, target = f"s3://{route.source_bucket}/logs", f"s3://{route.target_bucket}"
    done = route.run("migrate", source, target, "--inventory", put_inventory(route, rows))
    assert (done.returncode, done.stderr) == (0, "")
    assert set(route.at_target()) == {"a"}


def test_an_inventory_of_another_bucket_is_refused(route):
    route.fill(["a"])
    line = route.refused("migrate", "--inventory", put_inventory(route, [row("a")], source="another-bucket"))
    assert "another-bucket" in line
    assert route.source_bucket in line


def test_an_inventory_whose_file_is_not_what_the_manifest_says_is_not_believed(route):
    route.fill(["a"])
    url = put_inventory(route, [row("a")], spoil=lambda data: data[:-1] + bytes([data[-1] ^ 1]))
    done = route.run("migrate", "--inventory", url)
    assert done.returncode == 1
    assert "MD5" in done.stderr
    assert route.at_target() == {}


@pytest.mark.parametrize(
    ("manifest", "word"),
    [({"fileFormat": "ORC"}, "ORC"), ({"files": "none"}, "files"), ({"fileSchema": "Bucket, Size"}, "Key")],
)
def test_an_inventory_that_cannot_be_read_is_refused(route, manifest, word):
    route.fill(["a"])
    line = route.refused("migrate", "--inventory", put_inventory(route, [row("a")], manifest=manifest))
    assert "--inventory" in line
    assert word in line


@pytest.mark.parametrize("url", ["s3://{bucket}", "s3://{bucket}/no/manifest.json", "name:{bucket}/manifest.json", ""])
def test_an_inventory_that_is_not_there_is_named(route, url):
    route.fill(["a"])
    line = route.refused("migrate", "--inventory", url.format(bucket=route.source_bucket))
    assert "--inventory" in line


def test_a_bucket_of_inventories_that_does_not_exist_is_named(route):
    assert "no-such-bucket" in route.refused("migrate", "--inventory", "s3://no-such-bucket/inv/manifest.json")


# What contradicts itself


@pytest.mark.parametrize("how", ["--keys", "--inventory"])
@pytest.mark.parametrize("other", [["--delete"], ["--state", "{state}"]])
def test_what_a_list_of_keys_cannot_go_with_is_refused(route, tmp_path, how, other):
    route.fill(["a"])
    (tmp_path / "keys").write_text("a\n")
    given = tmp_path / "keys" if how == "--keys" else put_inventory(route, [row("a")])
    line = route.refused("migrate", how, given, *(word.format(state=tmp_path / "state") for word in other))
    assert how in line
    assert other[0] in line
    assert not (tmp_path / "state").exists()


def test_deletes_by_the_environment_contradict_a_list_as_well(route, tmp_path):
    (tmp_path / "keys").write_text("a\n")
    assert "--keys" in route.refused("migrate", "--keys", tmp_path / "keys", DELETES="mirror")


def test_two_lists_at_once_are_refused(route, tmp_path):
    route.fill(["a"])
    (tmp_path / "keys").write_text("a\n")
    line = route.refused("migrate", "--keys", tmp_path / "keys", "--inventory", put_inventory(route, [row("a")]))
    assert "--keys" in line
    assert "--inventory" in line
