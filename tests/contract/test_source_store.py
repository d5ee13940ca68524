"""What replicator.store.SourceStore promises, of a bucket in memory and of a folder with the same keys and bytes."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from replicator.bulk.splitting import LAST, find_split, honours_start
from replicator.directory.beneath import Base
from replicator.directory.store import DirectoryStore
from replicator.errors import ChangedMeanwhile, NoSuchBucket, NoSuchKey
from replicator.layout import find_cut
from replicator.model import MiB
from replicator.multipart import uniform
from replicator.store import Pin, SourceStore, Span
from tests.awkward import AWKWARD_KEYS, PLAIN_KEYS
from tests.fakes.memory import Bucket, MemoryStore
from tests.folders import keys_of, put

LIMIT = 64 * MiB
DATA = bytes(range(256)) * 4096 * 40


@dataclass
class Place:
    """Where the objects are. write: stores one; in parts of 16 MiB if it is large, as a folder's files are."""

    open: Callable[[], SourceStore]
    write: Callable[[str, bytes], object]
    remove: Callable[[str], object]
    vanish: Callable[[], object]

    @asynccontextmanager
    async def store(self) -> AsyncIterator[SourceStore]:
        store = self.open()
        if isinstance(store, DirectoryStore):
            async with store:
                yield store
        else:
            yield store


@pytest.fixture(params=["memory", "directory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "memory":
        bucket = Bucket()
        return Place(
            lambda: MemoryStore(bucket),
            lambda key, data: bucket.write(key, data, part_size=16 * MiB if len(data) > 32 * MiB else None),
            bucket.objects.pop,
            lambda: setattr(bucket, "exists", False),
        )
    base = tmp_path / "base"
    base.mkdir()
    return Place(
        lambda: DirectoryStore(Base(base)),
        lambda key, data: put(base, key, data),
        lambda key: (base / key).unlink(),
        lambda: base.rename(tmp_path / "elsewhere"),
    )


def could_be_a_file(key: str) -> bool:
    names = key.split("/")
    return key != "a" and all(name not in ("", ".", "..") and len(name.encode()) < 256 for name in names)


KEYS = sorted(key for key in (*PLAIN_KEYS, *AWKWARD_KEYS) if could_be_a_file(key))


async def test_every_key_is_listed_in_order_read_and_not_absent(place: Place) -> None:
    for key in KEYS:
        place.write(key, key.encode())
    async with place.store() as store:
        await store.check()
        for size in (1, 3, 1000):
            assert await keys_of(store, page_size=size) == KEYS
        for key in KEYS:
            fetched, headed = await store.fetch(key, limit=LIMIT), await store.head(key)
            assert bytes(fetched.data) == key.encode()
            assert (headed.size, headed.etag) == (len(key.encode()), hashlib.md5(key.encode()).hexdigest())
            assert (fetched.state.size, fetched.state.etag) == (headed.size, headed.etag)
            assert (headed.tag_count, await store.get_tags(key, headed.version_id)) == (0, ())
            with pytest.raises(ChangedMeanwhile):
                await store.confirm_absent(key)


@pytest.mark.parametrize(
    "key", ["nothing", "a/nothing", "", "/", "a", "a/", "a//b", "../a", "./a/b", "a/b/below", "a/B"]
)
async def test_a_key_that_is_not_there_is_not_found_and_absent(place: Place, key: str) -> None:
    place.write("a/b", b"x")
    async with place.store() as store:
        for ask in (store.head(key), store.fetch(key, limit=LIMIT)):
            with pytest.raises(NoSuchKey):
                await ask
        await store.confirm_absent(key)


async def test_what_was_removed_is_absent_and_what_was_written_again_is_not(place: Place) -> None:
    place.write("a/b", b"x")
    async with place.store() as store:
        place.remove("a/b")
        await store.confirm_absent("a/b")
        assert await keys_of(store) == []
        place.write("a/b", b"y")
        with pytest.raises(ChangedMeanwhile):
            await store.confirm_absent("a/b")


async def test_a_place_that_is_gone_is_an_error_and_nothing_is_absent(place: Place) -> None:
    place.write("a/b", b"x")
    async with place.store() as store:
        place.vanish()
        asking = (
            store.check(),
            store.head("a/b"),
            store.fetch("a/b", limit=1),
            store.confirm_absent("no"),
            keys_of(store),
        )
        for ask in asking:
            with pytest.raises(NoSuchBucket):
                await ask


async def test_listings_go_on_after_a_key_and_after_any_text(place: Place) -> None:
    keys = sorted([*(f"dir {n % 4}/{n:02}" for n in range(12)), "dir 1-", "ä/x", "ä/y", "ö"])
    for key in keys:
        place.write(key, b"x")
    async with place.store() as store:
        for after in [*keys, "dir 1", "dir 1/", "dir 1" + LAST, "dir 1/0", "ä", "ä" + LAST, "zzz"]:
            assert await keys_of(store, after, 2) == [key for key in keys if key > after]
        assert await honours_start(store, keys[3])
        assert await find_split(store, keys[0], None) in keys


async def test_a_range_is_read_and_one_that_is_not_there_or_too_large_is_refused(place: Place) -> None:
    place.write("digits", b"0123456789")
    async with place.store() as store:
        state = await store.head("digits")
        pin = Pin(state.etag, state.version_id)
        fetched = await store.fetch("digits", limit=4, span=Span(3, 6), pin=pin)
        assert (bytes(fetched.data), fetched.state.size, fetched.state.etag) == (b"3456", 10, state.etag)
        for span, limit in ((Span(8, 10), 99), (Span(10, 11), 99), (Span(0, 4), 4), (None, 9)):
            with pytest.raises(ChangedMeanwhile):
                await store.fetch("digits", limit=limit, span=span, pin=pin)


async def test_bytes_come_in_the_memory_that_is_lent(place: Place) -> None:
    place.write("digits", b"0123456789")
    memory = bytearray(12)
    async with place.store() as store:
        fetched = await store.fetch("digits", limit=10, into=memoryview(memory))
        assert (bytes(fetched.data), bytes(memory)) == (b"0123456789", b"0123456789\0\0")


async def test_a_pin_does_not_hold_when_the_object_was_replaced(place: Place) -> None:
    place.write("pinned", b"before")
    async with place.store() as store:
        state = await store.head("pinned")
        place.write("pinned", b"afterwards")
        for span in (None, Span(0, 2)):
            with pytest.raises(ChangedMeanwhile):
                await store.fetch("pinned", limit=LIMIT, span=span, pin=Pin(state.etag, state.version_id))


@pytest.mark.parametrize("size", [0, 1, 32 * MiB, 32 * MiB + 1, 40 * MiB])
async def test_large_objects_tell_their_parts_and_how_to_copy_them(place: Place, size: int) -> None:
    place.write("large", DATA[:size])
    async with place.store() as store:
        state = await store.head("large")
        cut = await find_cut(store, "large", state)
        assert cut.keeps_etag
        assert cut.layout == (uniform(size, 16 * MiB) if size > 32 * MiB else None)
        assert state.etag == Bucket().write("", DATA[:size], part_size=16 * MiB if cut.layout else None).etag
        for part in cut.layout or ():
            assert (await store.head("large", part=part.number)).size == part.size
