"""The bytes and ETags of files: as S3 would have them, all of one version, and not read again when they are known."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import threading
import time
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from replicator.directory.beneath import Base
from replicator.directory.store import DirectoryStore
from replicator.directory.versions import TICK, WHOLE_SECONDS, believable_from
from replicator.errors import ChangedMeanwhile, NoSuchKey
from replicator.model import Attributes, MiB
from replicator.store import Pin, Span
from tests.folders import WrongETags, age, counting_opens, keys_of, put, rewrite_keeping_times

LIMIT = 64 * MiB
NOW = time.time() + 1e6
"""Later than any file was made: no one can set back when that was."""
BYTES = random.Random(1).randbytes(49 * MiB)
SIZES = [0, 1, MiB, MiB + 1, 32 * MiB, 32 * MiB + 1, 48 * MiB, 48 * MiB + 5]


@pytest.fixture
def base(tmp_path):
    (tmp_path / "base").mkdir()
    return tmp_path / "base"


@pytest.fixture
def file(base):
    """A file that has been left alone for long."""
    path = put(base, "file", b"0123456789")
    age(path, 1000, now=NOW)
    return path


def opened(path, **options):
    return DirectoryStore(Base(path), **{"clock": lambda: NOW, **options})


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def in_parts(data: bytes, size: int) -> str:
    parts = [hashlib.md5(data[first : first + size]).digest() for first in range(0, len(data), size)]
    return f"{hashlib.md5(b''.join(parts)).hexdigest()}-{len(parts)}"


async def listed(store, key="file"):
    [entry] = [entry async for page in store.list_pages() for entry in page if entry.key == key]
    return entry


async def remembered(store, key="file"):
    return (await listed(store, key)).etag


def version_of(path, **options):
    """As the store names what is there now."""
    return DirectoryStore(Base(path.parent), **options)._version(path.stat())


# ETags


@pytest.mark.parametrize("size", SIZES)
async def test_the_etag_is_what_s3_would_say_of_one_request_or_of_parts_of_16_mib(base, size):
    data = BYTES[:size]
    put(base, "file", data)
    expected = md5(data) if size <= 32 * MiB else in_parts(data, 16 * MiB)
    async with opened(base) as store, opened(base) as other:
        head, fetched = await store.head("file"), await other.fetch("file", limit=LIMIT)
        assert (head.etag, head.size, head.etag_is_md5) == (expected, size, True)
        assert (fetched.state, bytes(fetched.data)) == (head, data)
        assert await other.head("file") == head


@pytest.mark.parametrize("size", SIZES)
async def test_parts_are_told_where_there_are_some(base, size):
    put(base, "file", BYTES[:size])
    async with opened(base) as store:
        whole, first = await store.head("file"), await store.head("file", part=1)
        if size <= 32 * MiB:
            assert (whole.parts, first) == (None, whole)
            return
        sizes = [(await store.head("file", part=number)).size for number in range(1, whole.parts + 1)]
        assert sizes == [16 * MiB] * (size // (16 * MiB)) + ([size % (16 * MiB)] if size % (16 * MiB) else [])
        assert (first.etag, first.parts, first.version_id) == (whole.etag, whole.parts, whole.version_id)
        for number in (-1, 0, whole.parts + 1):
            with pytest.raises(NoSuchKey):
                await store.head("file", part=number)


@pytest.mark.parametrize("size", [32 * MiB + 1, 40 * MiB, 48 * MiB])
async def test_parts_that_are_read_make_the_etag_that_was_told(base, size):
    put(base, "file", BYTES[:size])
    async with opened(base) as store:
        state = await store.head("file")
        digests, offset = b"", 0
        for number in range(1, state.parts + 1):
            part = await store.head("file", part=number)
            span, pin = Span(offset, offset + part.size - 1), Pin(state.etag, state.version_id)
            digests += hashlib.md5((await store.fetch("file", limit=LIMIT, span=span, pin=pin)).data).digest()
            offset += part.size
        assert (f"{md5(digests)}-{state.parts}", offset) == (state.etag, size)


# Reading


@pytest.mark.parametrize(("first", "last"), [(0, 0), (0, 9), (3, 5), (9, 9)])
async def test_a_range_is_read_with_both_its_ends(file, first, last):
    async with opened(file.parent) as store:
        state = await store.head("file")
        pin = Pin(state.etag, state.version_id)
        fetched = await store.fetch("file", limit=10, span=Span(first, last), pin=pin)
        assert (bytes(fetched.data), fetched.state) == (b"0123456789"[first : last + 1], state)


@pytest.mark.parametrize(("span", "limit"), [(Span(0, 10), 99), (Span(10, 10), 99), (Span(0, 9), 9), (None, 9)])
async def test_a_range_that_is_not_there_and_more_than_the_limit_are_refused(file, span, limit):
    async with opened(file.parent) as store:
        with pytest.raises(ChangedMeanwhile):
            await store.fetch("file", limit=limit, span=span)


@pytest.mark.parametrize("room", [10, 11, 9])
async def test_bytes_are_read_into_the_memory_that_is_given_if_it_is_large_enough(file, room):
    memory = bytearray(room)
    async with opened(file.parent) as store:
        fetched = await store.fetch("file", limit=10, into=memoryview(memory))
    assert bytes(fetched.data) == b"0123456789"
    assert (fetched.data.obj is memory) == (room >= 10)
    assert bytes(memory) == (b"0123456789".ljust(room, b"\0") if room >= 10 else bytes(room))


async def test_an_empty_file_is_an_object_of_no_bytes(base):
    put(base, "file", b"")
    async with opened(base) as store:
        fetched = await store.fetch("file", limit=0, into=memoryview(bytearray(5)))
        assert (bytes(fetched.data), fetched.state.etag, fetched.state.size) == (b"", md5(b""), 0)


async def test_files_have_no_tags(file):
    async with opened(file.parent) as store:
        assert (await store.get_tags("file"), (await store.head("file")).tag_count) == ((), 0)


# A file that changes


def grown(path):
    with path.open("ab") as file:
        file.write(b"more")


def shrunk(path):
    os.truncate(path, 3)


def emptied(path):
    os.truncate(path, 0)


def replaced_by_another(path):
    before = path.stat()
    other = path.with_name("other")
    other.write_bytes(b"9876543210")
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.rename(path)


def rewritten(path):
    rewrite_keeping_times(path, b"9876543210")


def removed(path):
    path.unlink()


def moved_away_and_made_anew(path):
    path.rename(path.with_name("kept"))
    path.write_bytes(b"9876543210")


CHANGES = [grown, shrunk, emptied, replaced_by_another, rewritten, removed, moved_away_and_made_anew]
STAYING = [change for change in CHANGES if change is not removed]


@pytest.mark.parametrize("change", STAYING)
@pytest.mark.parametrize("span", [None, Span(0, 2)])
async def test_a_read_that_is_pinned_to_a_file_that_has_changed_is_refused(file, change, span):
    async with opened(file.parent) as store:
        state = await store.head("file")
        change(file)
        with pytest.raises(ChangedMeanwhile):
            await store.fetch("file", limit=LIMIT, span=span, pin=Pin(state.etag, state.version_id))


@pytest.mark.parametrize("change", STAYING)
async def test_a_file_that_has_changed_is_another_version_and_is_read_again(file, change):
    async with opened(file.parent) as store:
        before = await store.head("file")
        change(file)
        assert await remembered(store) == ""
        after = await store.head("file")
        assert after.version_id != before.version_id
        assert after.etag == md5(file.read_bytes()) != before.etag


async def test_a_pin_without_a_version_is_not_taken_for_any(file):
    async with opened(file.parent) as store:
        with pytest.raises(ChangedMeanwhile):
            await store.fetch("file", limit=LIMIT, pin=Pin(md5(b"0123456789")))


class Disturbed(DirectoryStore):
    """Another program changes a file once while it is open here: before its bytes are read, or right after."""

    disturb = staticmethod(lambda path: None)
    path = None
    when = "before"

    @contextmanager
    def _open(self, key, folder, name, version):
        disturb, self.disturb = self.disturb, lambda path: None
        with super()._open(key, folder, name, version) as descriptor:
            if self.when == "before":
                disturb(self.path)
            yield descriptor
            if self.when == "after":
                disturb(self.path)


READS = {
    "head": lambda store, pin: store.head("file"),
    "fetch": lambda store, pin: store.fetch("file", limit=LIMIT),
    "pinned": lambda store, pin: store.fetch("file", limit=LIMIT, pin=pin),
    "range": lambda store, pin: store.fetch("file", limit=LIMIT, span=Span(0, 2), pin=pin),
    "adopt": lambda store, pin: store.adopt("file", md5(b"9876543210")),
}


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("read", READS)
async def test_a_file_that_changes_while_it_is_read_gives_no_bytes_no_etag_and_is_not_remembered(
    file, change, read, when
):
    async with Disturbed(Base(file.parent), clock=lambda: NOW) as store:
        store.disturb, store.path, store.when = change, file, when
        with pytest.raises(ChangedMeanwhile):
            await READS[read](store, Pin(md5(b"0123456789"), version_of(file)))
        if change is not removed:
            assert await remembered(store) == ""
            assert (await store.head("file")).etag == md5(file.read_bytes())


@pytest.mark.parametrize("change", STAYING)
async def test_a_file_that_changes_between_the_look_and_the_opening_is_not_read(file, change):
    first = [change]

    def clock():  # is asked after the look, and before the file is opened
        if first:
            first.pop()(file)
        return NOW

    async with opened(file.parent, clock=clock) as store:
        with pytest.raises(ChangedMeanwhile):
            await store.head("file")
        assert (await store.head("file")).etag == md5(file.read_bytes())


async def test_other_names_of_a_file_are_files_of_their_own(file):
    os.link(file, file.with_name("other"))
    async with opened(file.parent) as store:
        assert await keys_of(store) == ["file", "other"]
        assert (await store.head("file")).etag == (await store.head("other")).etag


class Held(DirectoryStore):
    """Stops a read before its first byte until the test lets it go on, as a slow disk does."""

    def __init__(self, base):
        super().__init__(base)
        self.reading, self.go_on = threading.Event(), threading.Event()

    @contextmanager
    def _open(self, key, folder, name, version):
        with super()._open(key, folder, name, version) as descriptor:
            self.reading.set()
            self.go_on.wait(30)
            yield descriptor


async def test_a_read_that_was_cancelled_does_not_write_into_memory_that_is_lent_to_another(file):
    lent = bytearray(10)
    async with Held(Base(file.parent)) as store:
        reading = asyncio.ensure_future(store.fetch("file", limit=10, into=memoryview(lent)))
        await asyncio.to_thread(store.reading.wait, 30)
        reading.cancel()
        over, _ = await asyncio.wait({reading}, timeout=0.2)  # it may as well wait for its thread
        if over:
            lent[:] = b"lent again"
        store.go_on.set()
        [error] = await asyncio.gather(reading, return_exceptions=True)
        assert isinstance(error, asyncio.CancelledError)
        await asyncio.to_thread(store._threads.shutdown)
        if not over:
            lent[:] = b"lent again"
    assert bytes(lent) == b"lent again"


# What is remembered


async def test_an_etag_is_listed_once_it_is_known_and_the_entry_is_as_old_as_can_be(file):
    async with opened(file.parent) as store:
        entry = await listed(store)
        assert (entry.size, entry.etag, entry.modified) == (10, "", file.stat().st_mtime)
        await store.head("file")
        entry = await listed(store)
        assert (entry.size, entry.etag, entry.modified) == (10, md5(b"0123456789"), 0.0)


async def test_a_file_that_is_known_is_not_opened_again(file):
    async with opened(file.parent) as store:
        with counting_opens(file) as opens:
            for _ in range(3):
                await store.head("file")
                await store.head("file", part=1)
                await store.adopt("file", md5(b"something else"))
            assert opens() == 1


@pytest.mark.parametrize("size", [10, 32 * MiB + 1])
async def test_a_file_that_was_fetched_as_a_whole_is_known(base, size):
    path = put(base, "file", BYTES[:size])
    age(path, 1000, now=NOW)
    async with opened(base) as store:
        etag = (await store.fetch("file", limit=LIMIT)).state.etag
        with counting_opens(path) as opens:
            assert await remembered(store) == (await store.head("file")).etag == etag
            assert opens() == 0


async def test_a_part_of_a_file_makes_nothing_known(file):
    async with opened(file.parent) as store:
        await store.fetch("file", limit=LIMIT, span=Span(0, 9))
        await store.fetch("file", limit=LIMIT, pin=Pin("made up", version_of(file)))
        assert await remembered(store) == ""


@pytest.mark.parametrize(("since", "known"), [(TICK + 0.01, True), (TICK - 0.01, False), (0, False), (-60, False)])
@pytest.mark.parametrize("modified", [1, 1000, -1000])
@pytest.mark.parametrize("read", ["head", "fetch", "adopt"])
async def test_a_file_that_was_changed_a_moment_before_is_read_again_however_old_it_looks(
    file, since, known, modified, read
):
    """`cp -p` and rsync set the time of modification back, and nobody that of change."""
    age(file, modified, now=NOW)
    now = file.stat().st_ctime + since
    async with opened(file.parent, clock=lambda: now) as store:
        await (store.adopt("file", md5(b"0123456789")) if read == "adopt" else READS[read](store, None))
        assert (await remembered(store) != "") == known


@pytest.mark.parametrize(
    ("nanoseconds", "margin"), [(5_000_000_000, WHOLE_SECONDS), (5_123_000_000, TICK), (5_000_000_001, TICK)]
)
def test_a_clock_of_whole_seconds_takes_longer_to_tick(nanoseconds, margin):
    found = SimpleNamespace(st_ctime_ns=nanoseconds, st_ctime=nanoseconds / 1e9)
    assert believable_from(found) == pytest.approx(nanoseconds / 1e9 + margin)


async def test_the_moment_counts_from_when_reading_began(file):
    began = file.stat().st_ctime
    times = iter([began, began + 3600])

    async with opened(file.parent, clock=lambda: next(times, began + 7200)) as store:
        await store.head("file")
        assert await remembered(store) == ""


async def test_what_earlier_runs_know_is_believed_and_the_file_is_not_read(file):
    known = WrongETags({"file": (version_of(file), "f" * 32)})
    async with opened(file.parent, known=known) as store:
        with counting_opens(file) as opens:
            assert await remembered(store) == "f" * 32
            assert (await store.head("file")).etag == "f" * 32
            assert opens() == 0


@pytest.mark.parametrize("change", STAYING)
async def test_what_earlier_runs_know_of_another_version_is_not_believed(file, change):
    known = WrongETags({"file": (version_of(file), "f" * 32)})
    change(file)
    age(file, 1000, now=NOW)
    async with opened(file.parent, known=known) as store:
        assert await remembered(store) == ""
        assert (await store.head("file")).etag == md5(file.read_bytes())


@pytest.mark.parametrize("version", ["", "0-0-0-0", "made up"])
async def test_what_is_no_version_is_not_believed(file, version):
    async with opened(file.parent, known=WrongETags({"file": (version, "f" * 32)})) as store:
        assert await remembered(store) == ""
        assert (await store.head("file")).etag == md5(b"0123456789")


async def test_other_attributes_make_another_version_which_earlier_runs_do_not_know(file):
    common = Attributes(cache_control="max-age=60")
    known = WrongETags({"file": (version_of(file), "f" * 32)})
    assert version_of(file) != version_of(file, common=common) != version_of(file, common=Attributes(expires="0"))
    async with opened(file.parent, known=known, common=common) as store:
        assert await remembered(store) == ""


async def test_earlier_runs_are_asked_for_all_keys_that_are_listed_and_for_no_others(base):
    keys = [f"{number:02}" for number in range(25)]
    for key in keys:
        put(base, key)
    known = WrongETags({})
    async with opened(base, known=known) as store:
        await keys_of(store, after="03", page_size=7)
    assert known.asked == [("03", "10"), ("10", "17"), ("17", "24")]


# ETags of objects that others have uploaded


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    base = tmp_path_factory.mktemp("large")
    path = put(base, "file", BYTES[: 40 * MiB])
    age(path, 1000, now=NOW)
    return path


FORTY = BYTES[: 40 * MiB]
CUTS = {
    "parts of 5 MiB": (in_parts(FORTY, 5 * MiB), 8, 5 * MiB),
    "parts of 8 MiB": (in_parts(FORTY, 8 * MiB), 5, 8 * MiB),
    "parts of 32 MiB": (in_parts(FORTY, 32 * MiB), 2, 32 * MiB),
    "one part": (in_parts(FORTY, 40 * MiB), 1, 40 * MiB),
    "no part": (md5(FORTY), None, 40 * MiB),
    "our parts": (in_parts(FORTY, 16 * MiB), 3, 16 * MiB),
}


@pytest.mark.parametrize("cut", CUTS)
async def test_an_object_that_was_uploaded_in_another_way_is_recognised(large, cut):
    etag, parts, size = CUTS[cut]
    async with opened(large.parent) as store:
        await store.adopt("file", etag)
        state = await store.head("file")
        assert (state.etag, state.parts, state.size) == (etag, parts, 40 * MiB)
        assert (await store.head("file", part=1)).size == size
        assert await remembered(store) == etag
        span, pin = Span(0, size - 1), Pin(state.etag, state.version_id)
        fetched = await store.fetch("file", limit=LIMIT, span=span, pin=pin)
        assert (fetched.state, fetched.data) == (state, FORTY[:size])


@pytest.mark.parametrize("etag", ["0" * 32, *(f"{'0' * 32}-{count}" for count in (1, 2, 3, 5, 8, 40))])
async def test_an_etag_that_the_bytes_do_not_make_is_not_adopted(large, etag):
    async with opened(large.parent) as store:
        await store.adopt("file", etag)
        assert (await store.head("file")).etag == in_parts(FORTY, 16 * MiB)


STRANGE = [
    "",
    "none",
    "0" * 31,
    "0" * 33,
    "é" * 32,
    *("0" * 32 + count for count in ("-0", "-10001", "--1", "-x", "-")),
]


@pytest.mark.parametrize("etag", STRANGE)
async def test_an_etag_that_cannot_be_made_of_bytes_is_not_read_for(file, etag):
    async with opened(file.parent) as store:
        with counting_opens(file) as opens:
            await store.adopt("file", etag)
            assert (opens(), await remembered(store)) == (0, "")


@pytest.mark.parametrize("size", [0, 1, 10])
async def test_a_small_object_of_one_part_is_recognised_if_it_has_bytes(base, size):
    path = put(base, "file", BYTES[:size])
    age(path, 1000, now=NOW)
    etag = f"{md5(hashlib.md5(BYTES[:size]).digest())}-1"
    async with opened(base) as store:
        await store.adopt("file", etag)
        state = await store.head("file")
        assert state.etag == (etag if size else md5(b""))
        if size:
            part = await store.head("file", part=1)
            assert (part.size, part.etag, part.parts, part.version_id) == (size, etag, 1, state.version_id)


async def test_a_file_that_changed_after_its_etag_was_adopted_has_its_own(file):
    async with opened(file.parent) as store:
        await store.adopt("file", f"{md5(hashlib.md5(b'0123456789').digest())}-1")
        assert (await remembered(store)).endswith("-1")
        rewritten(file)
        assert (await store.head("file")).etag == md5(b"9876543210")
