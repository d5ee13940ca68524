"""What replicator.store.ObjectStore promises, on the fake and on real servers."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from replicator.bulk.splitting import LAST, find_split, honours_start
from replicator.compare import compare_attributes
from replicator.errors import (
    ChangedMeanwhile,
    Corrupted,
    NoSuchBucket,
    NoSuchKey,
    NoSuchUpload,
    StoreError,
    Transient,
    Unsupported,
)
from replicator.model import Attributes, MiB
from replicator.multipart import composite_etag, uniform
from replicator.store import ObjectStore, Pin, Span, Stream, Write
from tests.awkward import AWKWARD_KEYS, PLAIN_KEYS, TAGS
from tests.contract.conftest import Lab

LIMIT = 64 * MiB


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


async def keys_of(store: ObjectStore, after: str = "") -> list[str]:
    return [entry.key async for page in store.list_pages(after=after) for entry in page]


async def upload(store: ObjectStore, key: str, data: bytes, part_size: int, write: Write | None = None) -> str:
    """Puts an object in parts; the ETag that it must have."""
    name = await store.create_upload(key, write or Write())
    layout = uniform(len(data), part_size)
    etags = [await store.put_part(key, name, part, data[part.offset : part.last + 1]) for part in layout]
    await store.complete_upload(key, name, etags)
    return composite_etag([md5(data[part.offset : part.last + 1]) for part in layout]) or ""


async def test_what_was_put_is_fetched_with_its_md5_as_etag(lab: Lab) -> None:
    async with lab.store() as store:
        written = await store.put("plain.txt", b"hello", Write(md5=hashlib.md5(b"hello").digest()))
        fetched = await store.fetch("plain.txt", limit=LIMIT)
        assert bytes(fetched.data) == b"hello"
        assert written.etag == fetched.state.etag == md5(b"hello")
        assert (fetched.state.size, fetched.state.etag_is_md5) == (5, True)


async def test_head_and_fetch_tell_the_same_state(lab: Lab) -> None:
    async with lab.store() as store:
        await store.put("plain.txt", b"hello", Write(attributes=lab.rich))
        fetched, headed = (await store.fetch("plain.txt", limit=LIMIT)).state, await store.head("plain.txt")
        assert replace(fetched, checksum=None) == replace(headed, checksum=None, parts=fetched.parts)


async def test_an_empty_object_is_an_object(lab: Lab) -> None:
    async with lab.store() as store:
        await store.put("empty", b"", Write())
        fetched = await store.fetch("empty", limit=0)
        assert bytes(fetched.data) == b""
        assert fetched.state.etag == md5(b"")


async def test_all_content_headers_and_metadata_are_kept(lab: Lab) -> None:
    async with lab.store() as store:
        await store.put("rich", b"x", Write(attributes=lab.rich))
        assert (await store.head("rich")).attributes == lab.rich


async def test_metadata_names_with_underscores_are_kept_or_folded(lab: Lab) -> None:
    async with lab.store() as store:
        await store.put("folded", b"x", Write(attributes=Attributes(metadata=(("a_b", "1"),))))
        name = "a_b" if lab.can("underscores in metadata names") else "a-b"
        assert (await store.head("folded")).attributes.metadata == ((name, "1"),)


async def test_metadata_values_may_be_unicode(lab: Lab) -> None:
    async with lab.store() as store:
        attributes = Attributes(metadata=(("name", "Zürich"),))
        await store.put("unicode", b"x", Write(attributes=attributes))
        kept = compare_attributes(attributes, replace((await store.head("unicode")).attributes, content_type=None))
        assert kept.differing == (() if lab.can("unicode in metadata") else ("metadata name",))


async def test_a_website_redirect_is_kept(lab: Lab) -> None:
    async with lab.store() as store:
        attributes = Attributes(website_redirect="/elsewhere")
        if not lab.can("redirect"):
            with pytest.raises(Unsupported):
                await store.put("redirect", b"x", Write(attributes=attributes))
            return
        await store.put("redirect", b"x", Write(attributes=attributes))
        assert (await store.head("redirect")).attributes.website_redirect == "/elsewhere"


async def test_tags_travel_with_the_put_and_are_counted(lab: Lab) -> None:
    async with lab.store() as store:
        if not lab.can("tags"):
            try:
                await store.put("tagged", b"x", Write(tags=TAGS))
            except Unsupported:
                return
            assert (await store.head("tagged")).tag_count == 0
            return
        await store.put("tagged", b"x", Write(tags=TAGS))
        assert (await store.head("tagged")).tag_count == len(TAGS)
        assert (await store.fetch("tagged", limit=LIMIT)).state.tag_count == len(TAGS)
        assert await store.get_tags("tagged") == TAGS


async def test_tags_are_replaced_without_touching_bytes_or_refused(lab: Lab) -> None:
    async with lab.store() as store:
        await store.put("tagged", b"bytes", Write(attributes=lab.rich))
        if lab.can("tags"):
            await store.put_tags("tagged", TAGS)
            assert await store.get_tags("tagged") == TAGS
        else:
            with pytest.raises(Unsupported):
                await store.put_tags("tagged", TAGS)
        fetched = await store.fetch("tagged", limit=LIMIT)
        assert (bytes(fetched.data), fetched.state.attributes) == (b"bytes", lab.rich)


async def test_an_unknown_storage_class_is_unsupported_or_rejected_not_ignored(lab: Lab) -> None:
    async with lab.store() as store:
        if lab.can("storage classes"):
            return
        with pytest.raises(StoreError):
            await store.put("classy", b"x", Write(storage_class="GLACIER_IR"))


async def test_bytes_that_do_not_have_the_md5_are_not_published(lab: Lab) -> None:
    async with lab.store() as store:
        if not lab.can("digest refused"):
            return
        with pytest.raises(Corrupted):
            await store.put("torn", b"hello", Write(md5=hashlib.md5(b"other").digest()))
        with pytest.raises(NoSuchKey):
            await store.head("torn")


async def test_what_is_only_to_be_put_if_it_is_new_is_refused_or_replaces(lab: Lab) -> None:
    """AWS and Ceph refuse it; a store that does not know conditions replaces it."""
    async with lab.store() as store:
        await store.put("new", b"first", Write(only_new=True))
        assert (await store.fetch("new", limit=LIMIT)).data == b"first"
        knows = True
        try:
            await store.put("new", b"second", Write(only_new=True))
        except ChangedMeanwhile:
            pass
        else:
            knows = False
        assert knows == lab.can("conditions")
        assert (await store.fetch("new", limit=LIMIT)).data == (b"first" if knows else b"second")


async def test_a_stream_is_published_as_one_object(lab: Lab) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"0123456789" * 10_000

    async with lab.store() as store:
        written = await store.put("stream", Stream(2_000_000, chunks()), Write())
        assert written.etag == md5(b"0123456789" * 200_000)
        assert (await store.head("stream")).size == 2_000_000


async def test_a_stream_that_ends_early_publishes_nothing(lab: Lab) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"half"

    async with lab.store() as store:
        with pytest.raises(Transient):
            await store.put("half", Stream(8, chunks()), Write())
        if not lab.can("atomic streams"):
            return
        with pytest.raises(NoSuchKey):
            await store.head("half")


async def test_every_legal_key_can_be_written_listed_read_and_deleted(lab: Lab) -> None:
    keys: tuple[str, ...] = PLAIN_KEYS if not lab.can("awkward keys") else (*PLAIN_KEYS, *AWKWARD_KEYS)
    if not lab.can("line breaks in keys"):
        keys = tuple(key for key in keys if "\n" not in key)
    async with lab.store() as store:
        for key in keys:
            await store.put(key, key.encode(), Write())
        assert await keys_of(store) == sorted(keys)
        for key in keys:
            assert bytes((await store.fetch(key, limit=LIMIT)).data) == key.encode(), key
            assert (await store.head(key)).size == len(key.encode())
        for key in keys:
            await store.delete(key)
            with pytest.raises(NoSuchKey):
                await store.head(key)
            await store.confirm_absent(key)
        assert await keys_of(store) == []


async def test_a_prefix_hides_itself_and_everything_outside(lab: Lab) -> None:
    if lab.name == "memory":
        return
    async with lab.store() as whole, lab.store("in/side/") as inside:
        for key in ("in/side-", "in/side/a", "in/side/b c", "in/sidf"):
            await whole.put(key, b"x", Write())
        assert await keys_of(inside) == ["a", "b c"]
        await inside.put("new", b"y", Write())
        assert (await whole.head("in/side/new")).size == 1


async def test_listings_go_on_after_a_key_and_over_pages(lab: Lab) -> None:
    keys = sorted(f"k{n:02}" for n in range(12))
    async with lab.store() as store:
        for key in keys:
            await store.put(key, b"x", Write())
        assert await keys_of(store, after="k04") == keys[5:]
        assert await keys_of(store, after="k045") == keys[5:]
        assert await keys_of(store, after="zzz") == []


async def test_listed_entries_tell_size_etag_and_time(lab: Lab) -> None:
    async with lab.store() as store:
        await store.put("one", b"hello", Write())
        state = await store.head("one")
        [entry] = [entry async for page in store.list_pages() for entry in page]
        assert (entry.key, entry.size, entry.etag) == ("one", 5, md5(b"hello"))
        assert abs(entry.modified - state.modified) < 2


async def test_a_listing_begins_after_any_text_and_keeps_to_its_page_size(lab: Lab) -> None:
    keys = [*(f"a {n}" for n in range(6)), "ä/x", "ä/y", "ö"]
    async with lab.store() as store:
        for key in keys:
            await store.put(key, b"x", Write())
        assert await keys_of(store, after="a 2") == keys[3:]
        assert await keys_of(store, after="a 25") == keys[3:]
        assert await keys_of(store, after="a" + LAST) == keys[6:]
        assert await keys_of(store, after="ä" + LAST) == keys[8:]
        pages = [page async for page in store.list_pages(after="a 1", page_size=2)]
        assert [len(page) for page in pages] == [2, 2, 2, 1]


async def test_what_is_left_of_a_range_is_cut_at_one_of_its_keys(lab: Lab) -> None:
    keys = [f"dir {n % 4}/{n:03}" for n in range(40)]
    async with lab.store() as store:
        for key in keys:
            await store.put(key, b"x", Write())
        assert await find_split(store, "dir 0/008", None) == "dir 2/002"
        assert await find_split(store, "dir 0/008", "dir 1/001") == "dir 0/020"
        assert await find_split(store, "dir 3/039", None) is None
        assert await honours_start(store, "dir 2/002")


async def test_unfinished_uploads_are_listed_with_key_time_and_who_began_them(lab: Lab) -> None:
    async with lab.store() as store:
        try:
            name = await store.create_upload("some dir/key +%", Write())
            found = [upload async for upload in store.pending_uploads("some")]
        except (Unsupported, Transient):
            pytest.skip("uploads cannot be listed here")
        assert [(upload.key, upload.id) for upload in found] == [("some dir/key +%", name)]
        await store.abort_upload("some dir/key +%", name)
        assert [upload async for upload in store.pending_uploads()] == []


async def test_a_missing_key_is_no_such_key_and_can_be_confirmed(lab: Lab) -> None:
    async with lab.store() as store:
        with pytest.raises(NoSuchKey):
            await store.head("nothing")
        with pytest.raises(NoSuchKey):
            await store.fetch("nothing", limit=LIMIT)
        await store.confirm_absent("nothing")
        await store.delete("nothing")


async def test_a_longer_key_does_not_hide_that_a_key_is_absent(lab: Lab) -> None:
    async with lab.store() as store:
        await store.put("ab", b"x", Write())
        await store.confirm_absent("a")
        with pytest.raises(ChangedMeanwhile):
            await store.confirm_absent("ab")


async def test_a_missing_bucket_is_never_an_absent_key(lab: Lab) -> None:
    async with lab.store_without_bucket() as store:
        with pytest.raises(NoSuchBucket):
            await store.check()
        with pytest.raises(NoSuchBucket):
            await store.confirm_absent("key")
        with pytest.raises(NoSuchBucket):
            await keys_of(store)
        with pytest.raises(NoSuchBucket):
            await store.put("key", b"x", Write())


async def test_ranges_give_exactly_the_bytes_asked_for(lab: Lab) -> None:
    async with lab.store() as store:
        await store.put("digits", b"0123456789", Write())
        for first, last in ((0, 0), (0, 9), (3, 5), (9, 9)):
            fetched = await store.fetch("digits", limit=10, span=Span(first, last))
            assert bytes(fetched.data) == b"0123456789"[first : last + 1]
            assert fetched.state.size == 10
        with pytest.raises(StoreError):
            await store.fetch("digits", limit=10, span=Span(5, 14))


async def test_a_pinned_read_does_not_mix_versions(lab: Lab) -> None:
    async with lab.store() as store:
        first = await store.put("pinned", b"one", Write())
        await store.put("pinned", b"two", Write())
        if not lab.can("pins"):
            return
        with pytest.raises(ChangedMeanwhile):
            await store.fetch("pinned", limit=10, pin=Pin(first.etag))


async def test_an_object_larger_than_the_limit_is_not_read(lab: Lab) -> None:
    async with lab.store() as store:
        await store.put("large", b"x" * 1000, Write())
        with pytest.raises(ChangedMeanwhile):
            await store.fetch("large", limit=999)


async def test_parts_make_an_object_with_the_composite_etag(lab: Lab) -> None:
    data = bytes(range(256)) * 4096 * 11  # 11 MiB
    async with lab.store() as store:
        expected = await upload(store, "parts", data, 5 * MiB, Write(attributes=lab.rich))
        state = await store.head("parts")
        assert state.size == len(data)
        assert state.attributes == lab.rich
        if lab.can("multipart ETag"):
            assert state.etag == expected
        assert bytes((await store.fetch("parts", limit=LIMIT)).data) == data


async def test_a_store_tells_its_parts_or_says_nothing(lab: Lab) -> None:
    async with lab.store() as store:
        await upload(store, "parts", b"x" * (6 * MiB), 5 * MiB)
        first = await store.head("parts", part=1)
        if lab.can("parts told"):
            assert (first.parts, first.size) == (2, 5 * MiB)
        else:
            assert first.parts is None


async def test_nothing_is_published_before_completion_and_nothing_after_abort(lab: Lab) -> None:
    async with lab.store() as store:
        name = await store.create_upload("aborted", Write())
        [part] = uniform(3, 3)
        etag = await store.put_part("aborted", name, part, b"abc")
        assert etag == md5(b"abc")
        with pytest.raises(NoSuchKey):
            await store.head("aborted")
        await store.abort_upload("aborted", name)
        await store.abort_upload("aborted", name)
        with pytest.raises(StoreError):  # NoSuchUpload; moto says 500
            await store.put_part("aborted", name, part, b"abc")
        with pytest.raises(NoSuchUpload):
            await store.list_parts("aborted", name)
        assert await keys_of(store) == []


async def test_unfinished_uploads_and_their_parts_can_be_found(lab: Lab) -> None:
    async with lab.store() as store:
        name = await store.create_upload("resume me", Write())
        other = await store.create_upload("resume me not", Write())
        [part] = uniform(3, 3)
        await store.put_part("resume me", name, part, b"abc")
        assert name in await store.list_uploads("resume me")
        assert other not in await store.list_uploads("resume me")
        parts = await store.list_parts("resume me", name)
        assert {number: (entry.size, entry.etag) for number, entry in parts.items()} == {1: (3, md5(b"abc"))}
        await store.abort_upload("resume me", name)
        await store.abort_upload("resume me not", other)


async def test_tags_given_at_the_start_of_an_upload_are_kept(lab: Lab) -> None:
    if not lab.can("tags"):
        return
    async with lab.store() as store:
        await upload(store, "parts", b"abc", 3, Write(tags=TAGS))
        expected = len(TAGS) if lab.can("tags of multipart") else 0
        assert (await store.head("parts")).tag_count == expected


async def test_a_server_side_copy_replaces_attributes_and_keeps_bytes(lab: Lab) -> None:
    async with lab.store() as store:
        written = await store.put("from here", b"bytes", Write())
        assert store.can_copy_from(store)
        copied = await store.copy(store, "from here", "to there", Pin(written.etag), Write(attributes=lab.rich))
        state = await store.head("to there")
        assert state.etag == md5(b"bytes")
        assert copied.etag in (state.etag, "")
        kept = tuple(pair for pair in state.attributes.metadata if pair[0] != "mtime")  # rclone adds its own
        assert replace(state.attributes, metadata=kept) == lab.rich


async def test_a_copy_onto_itself_changes_attributes_only(lab: Lab) -> None:
    async with lab.store() as store:
        written = await store.put("self", b"bytes", Write())
        await store.copy(store, "self", "self", Pin(written.etag), Write(attributes=lab.rich))
        fetched = await store.fetch("self", limit=LIMIT)
        assert (bytes(fetched.data), fetched.state.attributes) == (b"bytes", lab.rich)


async def test_parts_can_be_copied_by_the_server(lab: Lab) -> None:
    data = bytes(range(256)) * 4096 * 6
    async with lab.store() as store:
        if lab.name == "rclone":
            return
        etag = await upload(store, "whole thing", data, 5 * MiB)
        name = await store.create_upload("copy", Write())
        layout = uniform(len(data), 5 * MiB)
        etags = [await store.copy_part("copy", name, part, store, "whole thing", Pin(etag)) for part in layout]
        await store.complete_upload("copy", name, etags)
        assert (await store.head("copy")).etag == etag
        assert bytes((await store.fetch("copy", limit=LIMIT)).data) == data
