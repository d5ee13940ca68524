"""Who fills the catalogue: migrate where one is given, push always; on SQLite and PostgreSQL alike."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.runs import ROOT
from tests.servers.lab import boto_client, new_bucket


@pytest.fixture(params=["sqlite", "postgresql"])
def catalogue(request, tmp_path):
    return str(tmp_path / "catalog.db") if request.param == "sqlite" else request.getfixturevalue("postgres_url")


@pytest.fixture
def replicator(rclone_endpoint, second_rclone_endpoint, tmp_path):
    """Runs the command between the two servers; its exit code is 0."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(tmp_path / "state")}
    for side, endpoint in (("SOURCE", rclone_endpoint), ("TARGET", second_rclone_endpoint)):
        variables[f"{side}_ENDPOINT"] = endpoint.url
        variables[f"{side}_ACCESS_KEY_ID"] = endpoint.access_key
        variables[f"{side}_SECRET_ACCESS_KEY"] = endpoint.secret_key

    def run(*arguments, **more):
        done = subprocess.run(
            [sys.executable, "-m", "replicator", *map(str, arguments)],
            env={**variables, **more},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def listed(replicator, catalogue, *options):
    lines = replicator("ls", "--catalog", catalogue, "--json", *options).splitlines()
    return {(row["route"].partition(" -> ")[2], row["key"]): row for row in map(json.loads, lines)}


def states(replicator, catalogue, *options):
    return {key: row["state"] for (_, key), row in listed(replicator, catalogue, *options).items()}


def test_a_migration_notes_what_it_copied_found_in_sync_and_deleted(
    replicator, catalogue, rclone_endpoint, second_rclone_endpoint
):
    here, there = boto_client(rclone_endpoint), boto_client(second_rclone_endpoint)
    source, target = new_bucket(rclone_endpoint), new_bucket(second_rclone_endpoint)
    for key in ("a-b", "a/b", "c"):
        here.put_object(Bucket=source, Key=key, Body=key.encode())
    there.put_object(Bucket=target, Key="only here", Body=b"x")
    replicator("migrate", source, target)  # without a catalogue
    here.put_object(Bucket=source, Key="later", Body=b"later")
    replicator("migrate", source, target, "--delete", "--catalog", catalogue)
    expected = dict.fromkeys(("a-b", "a/b", "c", "later"), "uploaded")
    assert states(replicator, catalogue) == expected
    assert states(replicator, catalogue, "--all") == {**expected, "only here": "deleted"}
    rows = {key: row for (_, key), row in listed(replicator, catalogue).items()}
    assert rows["later"]["size"] == 5
    assert rows["later"]["uploaded_at"] is not None
    assert rows["c"]["uploaded_at"] is None  # that was somebody else


def test_each_target_is_a_route_of_its_own(replicator, catalogue, rclone_endpoint, second_rclone_endpoint):
    source = new_bucket(rclone_endpoint)
    one, other = new_bucket(second_rclone_endpoint), new_bucket(second_rclone_endpoint)
    boto_client(rclone_endpoint).put_object(Bucket=source, Key="key", Body=b"x")
    replicator("migrate", source, one, other, DATABASE_URL=catalogue)
    url = second_rclone_endpoint.url
    assert set(listed(replicator, catalogue)) == {(f"s3://{bucket}/ at {url}", "key") for bucket in (one, other)}


def test_a_push_and_what_became_of_its_files(replicator, catalogue, second_rclone_endpoint, tmp_path):
    folder, bucket = tmp_path / "folder", new_bucket(second_rclone_endpoint)
    (folder / "a").mkdir(parents=True)
    for name in ("a/b", "a-b", "goes"):
        (folder / name).write_text(name)
        os.utime(folder / name, (1_790_000_000, 1_790_000_000))
    (folder / "link").symlink_to("a-b")
    push = ("push", folder, bucket, "--mirror", "--catalog", catalogue)
    replicator(*push)
    assert states(replicator, catalogue) == {
        "a-b": "uploaded", "a/b": "uploaded", "goes": "uploaded", "link": "skipped",
    }  # fmt: skip
    row = next(row for (_, key), row in listed(replicator, catalogue).items() if key == "a/b")
    assert (row["size"], row["modified"]) == (3, "2026-09-21T14:13:20.000Z")
    (folder / "goes").unlink()
    replicator(*push)
    assert "goes" not in states(replicator, catalogue)
    assert states(replicator, catalogue, "--all")["goes"] == "deleted"


def test_a_dry_run_notes_nothing(replicator, catalogue, rclone_endpoint, second_rclone_endpoint, tmp_path):
    source, target = new_bucket(rclone_endpoint), new_bucket(second_rclone_endpoint)
    boto_client(rclone_endpoint).put_object(Bucket=source, Key="key", Body=b"x")
    (tmp_path / "file").write_text("x")
    replicator("migrate", source, target, "--dry-run", "--catalog", catalogue)
    replicator("push", tmp_path, target, "--mirror", "--dry-run", "--catalog", catalogue)
    replicator("migrate", source, target, "--catalog", catalogue)  # makes it
    assert states(replicator, catalogue) == {"key": "uploaded"}
