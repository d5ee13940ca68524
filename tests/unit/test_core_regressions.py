"""Cases of converge and the copies that were wrong once."""

import asyncio
import hashlib
from dataclasses import replace

import pytest

from replicator.broadcast import broadcast
from replicator.budget import ByteBudget
from replicator.compare import compare, compare_attributes
from replicator.converge import Converger
from replicator.diff import Row
from replicator.errors import AccessDenied, Corrupted, Rejected, Transient, Unsupported
from replicator.model import Attributes, Deletes, Did, Listed, MiB, ObjectState, Verdict
from replicator.multipart import MAX_SINGLE
from replicator.store import Stream, Write
from tests.fakes.memory import MemoryStore, Quirks
from tests.unit.test_migration import migrate

TEXT = Attributes(content_type="text/plain")
RED, BLUE = (("team", "red"),), (("team", "blue"),)


def of(source, *targets, **settings):
    return Converger(source, targets, deletes=Deletes.MIRROR, **settings)


# Streaming.py: a stamped stream is never compared with the MD5 that the target returns for it
async def test_bytes_that_a_target_received_wrong_are_not_accepted():
    class Garbling(MemoryStore):
        garble = 1

        async def put(self, key, body, write):
            if isinstance(body, Stream) and self.garble:
                self.garble -= 1
                inner = body.chunks

                async def wrong():
                    first = True
                    async for chunk in inner:
                        yield (b"\xff" + bytes(chunk[1:])) if first else chunk
                        first = False

                body = Stream(body.size, wrong())
            return await super().put(key, body, write)

    source = MemoryStore(name="source/", quirks=Quirks(own_etags=True))  # as SSE-KMS: ETags are no digests
    data = bytes(33 * MiB)
    stored = source.bucket.write("key", data)
    source.bucket.objects["key"] = replace(stored, etag="0" * 31 + "f")
    target = Garbling(name="target/")
    [outcome] = await of(source, target).converge("key")
    assert outcome.did is Did.FAILED or target.bucket.objects["key"].data == data


# Publish.py put_stream: one refused stream teaches that the target holds no tags, classes, redirects
async def test_a_refused_stream_does_not_cost_all_later_objects_their_tags():
    class Picky(MemoryStore):
        async def put(self, key, body, write):
            if key == "refused":
                raise Rejected("PutObject", key, "not that name", code="InvalidArgument")
            return await super().put(key, body, write)

    source, target = MemoryStore(name="source/"), Picky(name="target/")
    source.bucket.write("refused", bytes(33 * MiB), TEXT, tags=RED)
    source.bucket.write("fine", b"hello", TEXT, tags=RED)
    converger = of(source, target)
    await converger.converge("refused")
    [outcome] = await converger.converge("fine")
    assert (outcome.not_kept, target.bucket.objects["fine"].tags) == ((), RED)


async def test_a_stream_refused_for_its_class_keeps_its_tags():
    source, target = MemoryStore(name="source/"), MemoryStore(name="target/", quirks=Quirks(storage_classes=False))
    stored = source.bucket.write("key", bytes(33 * MiB), TEXT, tags=RED)
    source.bucket.objects["key"] = replace(stored, storage_class="STANDARD_IA")
    [outcome] = await of(source, target).converge("key")
    assert (outcome.not_kept, target.bucket.objects["key"].tags) == (("storage class STANDARD_IA",), RED)


# Converge.py _rounds: a target that fails in every round makes the others fail
async def test_a_target_that_keeps_failing_does_not_fail_the_other():
    async def corrupt(operation, key):
        if operation == "PutObject":
            raise Corrupted(operation, key, "bad proxy")

    source, bad, good = MemoryStore(name="s/"), MemoryStore(name="bad/", step=corrupt), MemoryStore(name="good/")
    source.bucket.write("key", b"hello", TEXT)
    outcomes = await of(source, bad, good).converge("key")
    assert good.bucket.objects["key"].data == b"hello"
    assert [outcome.did for outcome in outcomes] == [Did.FAILED, Did.COPIED]


# Converge.py _amend/_outcome: tags that could not be set are reported as updated
async def test_tags_that_a_target_cannot_hold_are_not_reported_as_updated():
    source, target = MemoryStore(name="s/"), MemoryStore(name="t/", quirks=Quirks(holds_tags=False))
    source.bucket.write("key", b"hello", TEXT, tags=RED)
    target.bucket.write("key", b"hello", TEXT)
    [outcome] = await of(source, target).converge("key")
    assert (outcome.did, outcome.not_kept) == (Did.IN_SYNC, ("tags",))


# Parts.py _resume + converge.py _audit: a resumed upload publishes the tags of then, if there are as many
async def test_a_resumed_upload_does_not_publish_old_tags():
    parts = []

    async def step(operation, key):
        if operation == "UploadPart":
            parts.append(1)
            if len(parts) == 3:
                raise Transient(operation, key, "made to fail")

    source, target = MemoryStore(name="s/"), MemoryStore(name="t/", step=step)
    source.bucket.write("key", bytes(11 * MiB), TEXT, tags=RED, part_size=5 * MiB)
    [outcome] = await of(source, target, resume_from=1).converge("key")
    assert outcome.did is Did.FAILED
    source.bucket.objects["key"] = replace(source.bucket.objects["key"], tags=BLUE)
    [outcome] = await of(source, target, resume_from=1).converge("key")
    assert outcome.failure is None
    assert target.bucket.objects["key"].tags == BLUE


async def test_a_resumed_upload_does_not_publish_an_old_storage_class():
    parts = []

    async def step(operation, key):
        if operation == "UploadPart":
            parts.append(1)
            if len(parts) == 3:
                raise Transient(operation, key, "made to fail")

    source, target = MemoryStore(name="s/"), MemoryStore(name="t/", step=step)
    stored = source.bucket.write("key", bytes(11 * MiB), TEXT, part_size=5 * MiB)
    source.bucket.objects["key"] = replace(stored, storage_class="STANDARD_IA")
    await of(source, target, resume_from=1).converge("key")
    source.bucket.objects["key"] = stored
    await of(source, target, resume_from=1).converge("key")
    assert target.bucket.objects["key"].storage_class == ""


# Compare.py _plain_text: HeaderParseError is no ValueError and leaves converge as a crash
def test_a_broken_encoded_word_is_taken_as_it_is():
    one, other = Attributes(metadata=(("n", "=?utf-8?b?a?="),)), Attributes(metadata=(("n", "x"),))
    assert compare_attributes(one, other).differing == ("metadata n",)


# Compare.py: an empty stamp equals an empty ETag
def test_an_empty_stamp_proves_nothing():
    assert compare(ObjectState(1, "", 5.0), ObjectState(1, "x", 1.0, stamp="")).verdict is not Verdict.SAME


# Converge.py _audit: bytes proved by a checksum are not "ours"
async def test_metadata_of_an_object_proved_by_its_checksum_can_be_updated():
    class Summing(MemoryStore):
        async def head(self, key, *, part=None):
            state = await super().head(key, part=part)
            return replace(state, checksum=("sha256", hashlib.sha256(self.bucket.objects[key].data).hexdigest()))

    source, target = Summing(name="s/"), Summing(name="t/", quirks=Quirks(drops_redirect=True))
    source.bucket.write("key", bytes(11 * MiB), replace(TEXT, website_redirect="/x"), part_size=6 * MiB)
    target.bucket.write("key", bytes(11 * MiB), TEXT, part_size=5 * MiB)
    [outcome] = await of(source, target).converge("key")
    assert (outcome.failure, outcome.not_kept) == (None, ("website-redirect",))


# Copying.py copy_unseen: lends what was listed, holds up to SMALL
async def test_an_unseen_object_that_grew_is_not_held_beyond_the_budget():
    held = []

    class Watching(MemoryStore):
        async def put(self, key, body, write):
            held.append((len(body), budget.lent))
            return await super().put(key, body, write)

    budget = ByteBudget(16 * MiB)
    source, target = MemoryStore(name="s/"), Watching(name="t/")
    source.bucket.write("key", bytes(7 * MiB))
    listed = Row("key", Listed("key", 1, "e" * 32, 0.0), (None,))
    await of(source, target, confirm=False, budget=budget).converge("key", listed)
    assert all(size <= lent for size, lent in held), held


# Broadcast.py: consumers are cancelled but not waited for: they outlive the budget that was lent for them
async def test_cancelled_consumers_have_ended_when_broadcast_has():
    ended = []

    async def consume(chunks):
        try:
            async for _ in chunks:
                pass
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(1)

    async def stream():
        yield b"x"
        await asyncio.Event().wait()

    task = asyncio.create_task(broadcast(stream(), [consume, consume]))
    for _ in range(8):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == [1, 1]


# Parts.py _store_part: a streamed part (> 64 MiB) is sent once; one reset fails a whole large object
async def test_a_streamed_part_is_sent_again_after_a_passing_failure():
    failures = [1]

    async def step(operation, key):
        if operation == "UploadPart" and failures:
            failures.pop()
            raise Transient(operation, key, "reset")

    source, target = MemoryStore(name="s/"), MemoryStore(name="t/", step=step)
    source.bucket.write("key", bytes(65 * MiB), TEXT, part_size=65 * MiB)
    [outcome] = await of(source, target).converge("key")
    assert outcome.did is Did.COPIED


# Streaming.py: foreign ETags are never learned from streams: every large object is sent twice
async def test_only_the_first_large_object_is_sent_twice_to_a_target_with_foreign_etags():
    source, target = MemoryStore(name="s/"), MemoryStore(name="t/", quirks=Quirks(own_etags=True))
    converger = of(source, target)
    for key in ("one", "two", "three"):
        source.bucket.write(key, bytes(33 * MiB))
        await converger.converge(key)
    assert target.calls.count("PutObject") == 4


# Server_side.py: an upload completed by a request whose answer was lost is a failure (parts.py handles it)
async def test_a_server_side_completion_whose_answer_was_lost_is_believed():
    from replicator.errors import NoSuchUpload

    class Near(MemoryStore):
        def can_copy_from(self, source):
            return True

    async def step(operation, key):
        if operation == "CompleteMultipartUpload:answered":
            raise NoSuchUpload(operation, key, "completed before")

    source, target = MemoryStore(name="s/"), Near(name="t/", step=step)
    source.bucket.write("key", bytes(6 * MiB), TEXT, part_size=5 * MiB)
    [outcome] = await of(source, target).converge("key")
    assert outcome.failure is None


# Server_side.py (uncommitted): NoSuchUpload with a stamp counts as proved although nothing was published
async def test_a_metadata_update_whose_upload_was_dropped_is_not_believed():
    from replicator.errors import NoSuchUpload

    gone = []

    async def step(operation, key):
        if operation == "UploadPartCopy" and not gone:
            gone.append(1)
            raise NoSuchUpload(operation, key, "aborted by somebody")

    source, target = MemoryStore(name="s/"), MemoryStore(name="t/", quirks=Quirks(own_etags=True), step=step)
    source.bucket.write("key", bytes(11 * MiB), TEXT, part_size=5 * MiB)
    await of(source, target).converge("key")
    source.bucket.write("key", bytes(11 * MiB), Attributes(content_type="image/png"), part_size=5 * MiB)
    [outcome] = await of(source, target).converge("key")
    assert gone
    assert outcome.did is Did.FAILED or target.bucket.objects["key"].attributes.content_type == "image/png"


async def test_an_object_with_refused_tags_does_not_cost_the_next_one_its_tags():
    class Ten(MemoryStore):
        async def put(self, key, body, write):
            if len(write.tags) > 10:
                raise Unsupported("PutObject", key, "too many tags", code="InvalidTag")
            return await super().put(key, body, write)

    source, target = MemoryStore(name="source/"), Ten(name="target/")
    source.bucket.write("odd", b"x", TEXT, tags=tuple((f"k{number:02}", "v") for number in range(11)))
    source.bucket.write("fine", b"y", TEXT, tags=RED)
    converger = of(source, target)
    await converger.converge("odd")
    await converger.converge("fine")
    assert target.bucket.objects["fine"].tags == RED


async def test_an_object_with_a_refused_redirect_does_not_cost_the_next_one_its_redirect():
    class Picky(MemoryStore):
        async def put(self, key, body, write):
            redirect = write.attributes.website_redirect
            if redirect and not redirect.startswith("/"):
                raise Rejected("PutObject", key, "invalid redirect", code="InvalidRedirectLocation")
            return await super().put(key, body, write)

    source, target = MemoryStore(name="source/"), Picky(name="target/")
    source.bucket.write("a", b"x", replace(TEXT, website_redirect="bad"))
    source.bucket.write("b", b"y", replace(TEXT, website_redirect="/ok"))
    await migrate(source, target, concurrency=1)
    assert target.bucket.objects["b"].attributes.website_redirect == "/ok"


async def test_an_upload_of_the_same_key_by_somebody_else_is_left_alone():
    source, target = MemoryStore(name="source/"), MemoryStore(name="target/")
    source.bucket.write("key", bytes(11 * MiB), TEXT, part_size=5 * MiB)
    upload = await target.create_upload("key", Write(attributes=Attributes(content_type="foreign/tool")))
    foreign = b"f" * (5 * MiB)
    target.bucket.uploads[upload].parts[1] = foreign
    target.bucket.uploads[upload].etags[1] = hashlib.md5(foreign).hexdigest()
    await of(source, target, resume_from=1).converge("key")
    assert upload in target.bucket.uploads
    assert set(target.bucket.uploads[upload].parts) == {1}


async def test_a_large_object_is_copied_without_the_right_to_list_uploads():
    async def step(operation, key):
        if operation == "ListMultipartUploads":
            raise AccessDenied(operation, key, "no s3:ListBucketMultipartUploads")

    source, target = MemoryStore(name="source/"), MemoryStore(name="target/", step=step)
    source.bucket.write("key", bytes(65 * MiB), TEXT, part_size=16 * MiB)
    [outcome] = await of(source, target).converge("key")
    assert outcome.did is Did.COPIED


async def test_an_object_of_one_part_that_is_too_large_for_one_request_is_sent_in_parts():
    """Some stores take more than 5 GiB in one PutObject; AWS does not."""

    class Huge(MemoryStore):
        async def head(self, key, *, part=None):
            return replace(await super().head(key, part=part), size=MAX_SINGLE + 1)

        async def fetch(self, key, **settings):
            raise Transient("GetObject", key, "made to fail")

    class Limited(MemoryStore):
        async def put(self, key, body, write):
            if (body.size if isinstance(body, Stream) else len(body)) > MAX_SINGLE:
                raise Rejected("PutObject", key, "too large", code="EntityTooLarge")

    source, target = Huge(name="source/"), Limited(name="target/")
    source.bucket.write("key", b"x", TEXT)
    await of(source, target).converge("key")
    assert "CreateMultipartUpload" in target.calls


async def test_a_byte_that_a_target_without_content_md5_changed_is_noticed():
    """The source's ETag is no digest, so the bytes that were sent are all there is to compare with."""

    class Lax(MemoryStore):
        async def put(self, key, body, write):
            data = bytearray(body)
            data[0] ^= 1
            return await super().put(key, bytes(data), replace(write, md5=None))

    source, target = MemoryStore(name="source/", quirks=Quirks(own_etags=True)), Lax(name="target/")
    stored = source.bucket.write("key", b"hello", TEXT)
    source.bucket.objects["key"] = replace(stored, etag="0" * 31 + "f")
    [outcome] = await of(source, target).converge("key")
    assert outcome.did is Did.FAILED or target.bucket.objects["key"].data == b"hello"


async def test_an_upload_that_somebody_aborted_is_not_proved_by_the_equal_bytes_that_were_there_before():
    async def step(operation, key):
        if operation in ("UploadPartCopy", "CopyObject"):
            raise Unsupported(operation, key, "no", code="NotImplemented")
        if operation == "CompleteMultipartUpload":
            target.bucket.uploads.clear()

    source, target = MemoryStore(name="source/"), MemoryStore(name="target/", step=step)
    target.bucket.write("key", bytes(11 * MiB), TEXT, part_size=5 * MiB)
    source.bucket.now += 5
    source.bucket.write("key", bytes(11 * MiB), replace(TEXT, metadata=(("owner", "me"),)), part_size=5 * MiB)
    [outcome] = await of(source, target).converge("key")
    assert outcome.did is Did.FAILED or target.bucket.objects["key"].attributes.metadata


async def test_a_key_that_is_written_between_its_head_and_the_listing_is_copied():
    source, target = MemoryStore(name="s/"), MemoryStore(name="t/")

    async def step(operation, key):
        if operation == "ListObjectsV2" and key not in source.bucket.objects:
            source.bucket.write(key, b"just now", TEXT)

    source._step = step
    [outcome] = await of(source, target).converge("key")
    assert (outcome.did, target.bucket.objects["key"].data) == (Did.COPIED, b"just now")
