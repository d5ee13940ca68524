"""Losses that a reviewer found: each of these ended wrong once."""

import hashlib
import zlib
from dataclasses import replace

from replicator.bulk.engine import Migration, Plan
from replicator.bulk.report import NoReport
from replicator.bulk.tally import Tally
from replicator.converge import Converger
from replicator.errors import *
from replicator.model import *
from replicator.multipart import MAX_SINGLE
from replicator.store import Stream, Write
from tests.fakes.memory import MemoryStore, Quirks

TEXT = Attributes(content_type="text/plain")
RED, BLUE = (("team", "red"),), (("team", "blue"),)


def of(source, *t, **k):
    return Converger(source, t, deletes=Deletes.MIRROR, **k)


def migration(source, *targets, **plan):
    tally = Tally()
    return Migration(
        source, targets, Plan(**plan), report=NoReport(), tally=tally, clock=lambda: source.bucket.now + 1000
    ), tally


async def test_failure_of_metadata_in_pass_1_is_forgotten_in_pass_2():
    async def step(op, key):
        if key == "meta" and op in ("CopyObject", "PutObject"):
            raise AccessDenied(op, key, "denied")

    s, t = MemoryStore(name="s/"), MemoryStore(name="t/", step=step)
    t.bucket.write("meta", b"x", TEXT)
    s.bucket.now += 100
    s.bucket.write("meta", b"x", Attributes(content_type="image/png"))
    s.bucket.write("new", b"y", TEXT)
    run, tally = migration(s, t)
    await run.run()
    assert t.bucket.objects["meta"].attributes.content_type == "text/plain"
    assert tally.failed == 1, (tally.failed, tally.passes)


async def test_failure_of_tags_deep_forgotten():
    async def step(op, key):
        if op == "PutObjectTagging":
            raise AccessDenied(op, key, "denied")

    s, t = MemoryStore(name="s/"), MemoryStore(name="t/", step=step)
    s.bucket.write("k", b"x", TEXT, tags=RED)
    t.bucket.now += 100
    t.bucket.write("k", b"x", TEXT)
    s.bucket.write("new", b"y", TEXT)
    run, tally = migration(s, t, deep=True)
    await run.run()
    assert t.bucket.objects["k"].tags == () and tally.failed == 1, (tally.failed, tally.passes)


class Summing(MemoryStore):
    async def head(self, key, *, part=None):
        st = await super().head(key, part=part)
        return replace(st, checksum=("crc32", str(zlib.crc32(self.bucket.objects[key].data))))


def sealed(b):
    return b + zlib.crc32(b).to_bytes(4, "little")


async def test_overwrite_with_equal_crc32_is_lost():
    s, t = Summing(name="s/"), Summing(name="t/")
    s.bucket.write("k", sealed(b"old content"), TEXT)
    await of(s, t).converge("k")
    s.bucket.now += 10
    s.bucket.write("k", sealed(b"new content"), TEXT)
    [o] = await of(s, t).converge("k")
    assert t.bucket.objects["k"].data == s.bucket.objects["k"].data, (o.did, o.evidence)


async def test_one_object_with_odd_tags_costs_all_their_tags():
    class Ten(MemoryStore):
        async def put(self, key, body, write):
            if len(write.tags) > 10:
                raise Unsupported("PutObject", key, "too many tags", code="InvalidTag")
            return await super().put(key, body, write)

    s, t = MemoryStore(name="s/"), Ten(name="t/")
    s.bucket.write("odd", b"x", TEXT, tags=tuple((f"k{i:02}", "v") for i in range(11)))
    s.bucket.write("fine", b"y", TEXT, tags=RED)
    c = of(s, t)
    await c.converge("odd")
    [o] = await c.converge("fine")
    assert t.bucket.objects["fine"].tags == RED, (o.did, o.not_kept)


async def test_one_object_with_odd_redirect_bulk():
    class P(MemoryStore):
        async def put(self, key, body, write):
            r = write.attributes.website_redirect
            if r and not r.startswith("/"):
                raise Rejected("PutObject", key, "invalid redirect", code="InvalidRedirectLocation")
            return await super().put(key, body, write)

    s, t = MemoryStore(name="s/"), P(name="t/")
    s.bucket.write("a", b"x", replace(TEXT, website_redirect="bad"))
    s.bucket.write("b", b"y", replace(TEXT, website_redirect="/ok"))
    run, tally = migration(s, t, concurrency=1)
    await run.run()
    assert t.bucket.objects["b"].attributes.website_redirect == "/ok", (tally.failed, tally.not_kept)


async def test_foreign_upload_of_the_key_is_left_alone():
    s, t = MemoryStore(name="s/"), MemoryStore(name="t/")
    s.bucket.write("k", bytes(11 * MiB), TEXT, part_size=5 * MiB)
    u = await t.create_upload("k", Write(attributes=Attributes(content_type="foreign/tool")))
    t.bucket.uploads[u].parts[1] = b"f" * (5 * MiB)
    t.bucket.uploads[u].etags[1] = hashlib.md5(b"f" * 5 * MiB).hexdigest()
    [o] = await of(s, t, resume_from=1).converge("k")
    assert u in t.bucket.uploads and set(t.bucket.uploads[u].parts) == {1}, (o.did, t.calls)


async def test_large_object_without_the_right_to_list_uploads():
    async def step(op, key):
        if op == "ListMultipartUploads":
            raise AccessDenied(op, key, "no s3:ListBucketMultipartUploads")

    s, t = MemoryStore(name="s/"), MemoryStore(name="t/", step=step)
    s.bucket.write("k", bytes(65 * MiB), TEXT, part_size=16 * MiB)
    [o] = await of(s, t).converge("k")
    assert o.did is Did.COPIED, o.reason


async def test_single_part_object_over_5_GiB():
    class Big(MemoryStore):
        async def head(self, key, *, part=None):
            return replace(await super().head(key, part=part), size=MAX_SINGLE + 1)

    class Aws(MemoryStore):
        sizes = []

        async def put(self, key, body, write):
            size = body.size if isinstance(body, Stream) else len(body)
            self.sizes.append(size)
            if size > MAX_SINGLE:
                raise Rejected("PutObject", key, "too large", code="EntityTooLarge")

    s, t = Big(name="s/"), Aws(name="t/")
    s.bucket.write("k", b"x", TEXT)

    async def fetch(*a, **k):
        raise Transient("GetObject", "k", "x")

    s.fetch = fetch
    await of(s, t).converge("k")
    assert "CreateMultipartUpload" in t.calls, (t.calls, t.sizes)


async def test_store_that_ignores_content_md5_and_flips_a_byte():
    class Lax(MemoryStore):
        async def put(self, key, body, write):
            d = bytearray(body)
            d[0] ^= 1
            return await super().put(key, bytes(d), replace(write, md5=None))

    s, t = MemoryStore(name="s/", quirks=Quirks(own_etags=True)), Lax(name="t/")
    st = s.bucket.write("k", b"hello", TEXT)
    s.bucket.objects["k"] = replace(st, etag="0" * 31 + "f")
    [o] = await of(s, t).converge("k")
    assert o.did is Did.FAILED or t.bucket.objects["k"].data == b"hello", (o.did, o.evidence)


async def test_upload_aborted_by_somebody_with_equal_bytes_at_target():
    async def step(op, key):
        if op in ("UploadPartCopy", "CopyObject"):
            raise Unsupported(op, key, "no", code="NotImplemented")
        if op == "CompleteMultipartUpload":
            t.bucket.uploads.clear()

    s, t = MemoryStore(name="s/"), MemoryStore(name="t/", step=step)
    t.bucket.write("k", bytes(11 * MiB), TEXT, part_size=5 * MiB)
    s.bucket.now += 5
    s.bucket.write("k", bytes(11 * MiB), replace(TEXT, metadata=(("owner", "me"),)), part_size=5 * MiB)
    [o] = await of(s, t).converge("k")
    assert o.did is Did.FAILED or t.bucket.objects["k"].attributes.metadata, (o.did, o.not_kept, o.evidence)
