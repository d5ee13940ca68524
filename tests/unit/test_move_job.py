"""When a file is removed after it was uploaded, and when it stays."""

from __future__ import annotations

import os
import time
from dataclasses import replace

import pytest

from replicator.directory.beneath import Base
from replicator.directory.store import DirectoryStore
from replicator.errors import Transient
from replicator.model import Did, MiB
from replicator.multipart import md5_of
from replicator.push.jobs import MoveJob
from replicator.push.settle import Settle, TimePath
from tests.fakes.memory import MemoryStore, Quirks


def put(folder, name, data=b"data", *, age=3600.0):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    then = time.time() - age
    os.utime(path, (then, then))
    return path


async def move(folder, target, key, *, store=DirectoryStore, **rules):
    async with store(Base(folder)) as source:
        given = {"settle": Settle(30), "is_copy": lambda _: False, "overwrite": False, "dry_run": False, **rules}
        return await MoveJob(source, target, memory=64 * MiB, **given).move(key)


async def test_a_file_is_removed_once_its_object_is_there(tmp_path):
    path, target = put(tmp_path, "a/file"), MemoryStore()
    outcome = await move(tmp_path, target, "a/file")
    assert (outcome.did, outcome.reason) == (Did.MOVED, "uploaded, and removed here")
    assert target.bucket.objects["a/file"].data == b"data"
    assert not path.exists()


async def test_a_file_whose_object_is_there_from_a_run_that_was_cut_off_is_removed(tmp_path):
    path, target = put(tmp_path, "file"), MemoryStore()
    target.bucket.write("file", b"data")
    outcome = await move(tmp_path, target, "file")
    assert (outcome.did, outcome.reason) == (Did.MOVED, "was there already, and removed here")
    assert not path.exists()


async def test_a_dry_run_only_says_so(tmp_path):
    path, target = put(tmp_path, "file"), MemoryStore()
    assert (await move(tmp_path, target, "file", dry_run=True)).did is Did.MOVED
    assert path.exists()
    assert not target.bucket.objects


async def test_a_file_that_is_open_for_writing_is_not_even_uploaded(tmp_path):
    path, target = put(tmp_path, "file"), MemoryStore()
    with path.open("ab"):
        outcome = await move(tmp_path, target, "file")
    assert (outcome.did, outcome.reason) == (Did.KEPT, "is still open for writing")
    assert path.exists()
    assert not target.bucket.objects


class Untold(DirectoryStore):
    """A file system that does not tell who has a file open."""

    async def activity(self, key):
        return (await super().activity(key))._replace(written=None)


@pytest.mark.parametrize("age", [0.0, 3600.0])
async def test_where_nobody_tells_who_writes_a_file_its_own_times_count_beside_that_in_its_path(tmp_path, age):
    path, target = put(tmp_path, "2020-01-01", age=age), MemoryStore()
    rules = {"settle": Settle(30, TimePath("%Y-%m-%d")), "clock": lambda: path.stat().st_ctime + 20}
    outcome = await move(tmp_path, target, "2020-01-01", store=Untold, **rules)
    assert outcome.did is Did.KEPT
    assert "does not tell" in outcome.reason
    assert path.exists()


async def test_a_file_that_was_written_since_it_was_found_settled_waits(tmp_path):
    path, target = put(tmp_path, "file"), MemoryStore()
    outcome = await move(tmp_path, target, "file", clock=lambda: path.stat().st_mtime + 5)
    assert (outcome.did, outcome.reason) == (Did.KEPT, "has changed again")
    assert path.exists()


async def test_a_link_is_left_alone_and_named(tmp_path):
    (tmp_path / "link").symlink_to("nowhere")
    assert (await move(tmp_path, MemoryStore(), "link")).did is Did.SKIPPED
    assert (tmp_path / "link").is_symlink()


async def test_an_object_that_was_moved_there_before_is_not_lost_to_a_new_file_of_its_name(tmp_path):
    path, target = put(tmp_path, "log", b"a late line"), MemoryStore()
    target.bucket.write("log", b"a thousand lines")
    outcome = await move(tmp_path, target, "log", is_copy=lambda key: key != "log")
    assert outcome.did is Did.FAILED
    assert "--overwrite" in outcome.reason
    assert path.exists()
    assert target.bucket.objects["log"].data == b"a thousand lines"


async def test_what_was_just_written_is_replaced_when_the_file_has_changed_meanwhile(tmp_path):
    path, writes = put(tmp_path, "log", b"a line"), []

    async def step(happening, key):
        if happening == "PutObject":
            writes.append(key)
            if len(writes) == 1:
                put(tmp_path, "log", b"a line, and another", age=1800.0)

    target = MemoryStore(step=step)
    assert (await move(tmp_path, target, "log")).did is Did.MOVED
    assert (len(writes), target.bucket.objects["log"].data) == (2, b"a line, and another")
    assert not path.exists()


async def test_what_another_one_put_there_meanwhile_is_not_replaced_by_what_the_file_has_become(tmp_path):
    """Another machine moved a file of that name, and has removed it: the object is the only copy."""
    path, writes = put(tmp_path, "log", b"a line"), []

    async def step(happening, key):
        if happening == "PutObject":
            writes.append(key)
            put(tmp_path, "log", b"a line, and another", age=1800.0)
        elif happening == "HeadObject" and writes:
            target.bucket.write("log", b"of another machine")

    target = MemoryStore(step=step)
    outcome = await move(tmp_path, target, "log")
    assert outcome.did is Did.FAILED
    assert (path.read_bytes(), target.bucket.objects["log"].data) == (b"a line, and another", b"of another machine")


async def test_a_dry_run_says_that_such_a_file_would_not_be_moved(tmp_path):
    put(tmp_path, "log", b"a late line")
    target = MemoryStore()
    target.bucket.write("log", b"a thousand lines")
    dids = [
        (await move(tmp_path, target, "log", dry_run=True, **rules)).did
        for rules in ({}, {"overwrite": True}, {"is_copy": lambda _: True})
    ]
    assert dids == [Did.FAILED, Did.MOVED, Did.MOVED]


@pytest.mark.parametrize("operation", ["HeadObject", "activity"])
async def test_what_could_not_be_looked_at_is_not_replaced_a_moment_later(tmp_path, operation):
    """One answer that does not come is enough: the next one does, and the only copy of another file was lost."""
    path = put(tmp_path, "log", b"a late line")
    failures = ["timed out"]

    async def step(happening, key):
        if happening == operation and failures:
            raise Transient(happening, key, failures.pop())

    class Slow(DirectoryStore):
        async def activity(self, key):
            await step("activity", key)
            return await super().activity(key)

    target = MemoryStore(step=step)
    target.bucket.write("log", b"a thousand lines")
    outcome = await move(tmp_path, target, "log", store=Slow)
    assert (outcome.did, failures) == (Did.FAILED, [])
    assert (path.read_bytes(), target.bucket.objects["log"].data) == (b"a late line", b"a thousand lines")


async def test_a_file_that_was_gone_when_it_was_looked_at_is_left_to_the_next_run(tmp_path):
    """It may be there again by now, and nobody has seen whether it may have that name."""
    target = MemoryStore()
    target.bucket.write("log", b"a thousand lines")

    class Back(DirectoryStore):
        async def activity(self, key):
            try:
                return await super().activity(key)
            finally:
                put(tmp_path, "log", b"a late line")

    outcome = await move(tmp_path, target, "log", store=Back)
    assert outcome.did is Did.IN_SYNC
    assert target.bucket.objects["log"].data == b"a thousand lines"


@pytest.mark.parametrize("rules", [{"overwrite": True}, {"is_copy": lambda _: True}], ids=["told", "a copy"])
async def test_what_is_known_to_be_a_copy_is_replaced_and_anything_if_that_is_meant(tmp_path, rules):
    put(tmp_path, "log", b"new")
    target = MemoryStore()
    target.bucket.write("log", b"old")
    assert (await move(tmp_path, target, "log", **rules)).did is Did.MOVED
    assert target.bucket.objects["log"].data == b"new"


@pytest.mark.parametrize("there", [None, b"late"], ids=["gone", "the same"])
async def test_nothing_is_lost_where_the_object_that_was_moved_is_gone_or_the_same(tmp_path, there):
    path, target = put(tmp_path, "log", b"late"), MemoryStore()
    if there is not None:
        target.bucket.write("log", there)
    assert (await move(tmp_path, target, "log")).did is Did.MOVED
    assert not path.exists()


async def test_a_stamp_is_not_believed_when_the_bytes_are_others(tmp_path):
    """A tool that rewrites an object in place and keeps its metadata leaves our stamp on other bytes."""
    path, target = put(tmp_path, "file", b"mine"), MemoryStore()
    target.bucket.write("file", b"else")
    target.bucket.objects["file"] = replace(target.bucket.objects["file"], stamp=md5_of(b"mine").hex())
    outcome = await move(tmp_path, target, "file")
    assert outcome.did is Did.FAILED
    assert path.exists()


async def test_where_etags_are_no_digests_the_object_is_read_back(tmp_path):
    path, target = put(tmp_path, "file"), MemoryStore(quirks=Quirks(own_etags=True))
    outcome = await move(tmp_path, target, "file")
    assert outcome.did is Did.MOVED
    assert target.calls.count("GetObject") >= 1
    assert not path.exists()


async def test_a_target_that_shows_another_object_than_was_sent_keeps_the_file_here(tmp_path):
    path = put(tmp_path, "file")

    async def step(operation, key):
        if operation == "HeadObject" and "file" in target.bucket.objects:
            target.bucket.write("file", b"another writer's")

    target = MemoryStore(step=step)
    outcome = await move(tmp_path, target, "file")
    assert outcome.did is Did.FAILED
    assert path.exists()


async def test_a_file_that_changes_while_it_is_uploaded_stays(tmp_path):
    path = put(tmp_path, "file")

    async def step(operation, key):
        if operation == "PutObject:answered" and path.read_bytes() == b"data":
            put(tmp_path, "file", b"newer")

    target = MemoryStore(step=step)
    outcome = await move(tmp_path, target, "file")
    assert outcome.did in (Did.MOVED, Did.COPIED, Did.FAILED)
    kept = path.read_bytes() if path.exists() else target.bucket.objects["file"].data
    assert kept == b"newer"
