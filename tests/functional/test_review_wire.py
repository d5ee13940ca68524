"""Losses on the wire that a reviewer found: each of these ended wrong once."""

import asyncio
import contextlib

import pytest
import uvloop

from replicator.budget import ByteBudget
from replicator.bulk.engine import Migration, Plan
from replicator.bulk.report import NoReport
from replicator.bulk.tally import Tally
from replicator.converge import Converger
from replicator.errors import *
from replicator.model import *
from replicator.s3 import client as s3
from replicator.s3.http import HttpPool, Origin
from replicator.s3.signing import Keys
from replicator.s3.store import S3Store
from tests.fakes.http_server import HttpServer, answering, ok
from tests.servers.lab import boto_client, new_bucket, open_store


def spy(store):
    seen = []
    real = store.client.send

    async def send(call):
        seen.append(f"{call.method} {store.client.target(call)} {call.operation}")
        return await real(call)

    store.client.send = send
    return seen


@pytest.mark.parametrize("server", ["moto_endpoint", "rgw_endpoint"])
async def test_marker_of_the_prefix_to_a_bucket_without_prefix(server, request):
    ep = request.getfixturevalue(server)
    a, b = new_bucket(ep), new_bucket(ep)
    c = boto_client(ep)
    c.put_object(Bucket=a, Key="photos/", Body=b"")
    c.put_object(Bucket=a, Key="photos/x", Body=b"x")
    async with open_store(ep, a, "photos/") as s, open_store(ep, b) as t:
        s.can_copy_from = t.can_copy_from = lambda o: False
        seen = spy(t)
        tally = Tally()
        run = Migration(s, [t], Plan(), report=NoReport(), tally=tally)
        try:
            await run.run()
        finally:
            print(
                [x for x in seen if x.startswith(("PUT", "DELETE"))],
                tally.did,
                tally.failed,
                run.still_changing,
                tally.passes,
            )
    bad = [x for x in seen if x.split()[0] in ("PUT", "DELETE", "POST") and x.split()[1].rstrip("/") == "/" + b]
    assert not bad, (bad, tally.did, tally.failed, tally.passes)


@pytest.mark.parametrize("server", ["moto_endpoint", "rgw_endpoint"])
async def test_marker_that_disappears_deletes_the_target_bucket(server, request):
    ep = request.getfixturevalue(server)
    a, b = new_bucket(ep), new_bucket(ep)
    c = boto_client(ep)
    c.put_object(Bucket=a, Key="other", Body=b"")
    async with open_store(ep, a, "photos/") as s, open_store(ep, b) as t:
        # the marker "photos/" was listed, and is gone when it is looked at
        [o] = await Converger(s, [t], deletes=Deletes.MIRROR).converge("")
    names = [x["Name"] for x in c.list_buckets()["Buckets"]]
    assert b in names, (o.did, o.reason)


async def test_confirm_absent_believes_an_empty_truncated_page():
    def page(trunc, body=""):
        return ok(f"<ListBucketResult><IsTruncated>{trunc}</IsTruncated>{body}</ListBucketResult>".encode())

    token = "<NextContinuationToken>t</NextContinuationToken>"
    async with HttpServer(answering(page("true", token), page("true", token))) as server:
        async with s3.S3Client(s3.Endpoint(server.url), "b", lambda: Keys("a", "b")) as c:
            with pytest.raises(ReplicatorError):
                await S3Store(c).confirm_absent("k")


async def _early(loop_name):
    """The server refuses early and keeps the connection; the client takes the next object into the same memory."""
    got = bytearray()
    release = asyncio.Event()
    ended = asyncio.Event()

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nx-n: 1\r\n\r\n")
        await writer.drain()
        await release.wait()
        n = 16 * MiB
        got.extend(await reader.readexactly(n))
        ended.set()
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        except Exception:
            pass

    srv = await asyncio.start_server(serve, "127.0.0.1", 0, limit=65536)
    port = srv.sockets[0].getsockname()[1]
    pool = HttpPool(Origin("http", "127.0.0.1", port))
    budget = ByteBudget(64 * MiB)
    async with budget.lend(16 * MiB) as mem:
        mem[:] = b"A" * len(mem)
        r = await pool.request("PUT", "/b/one", [("host", "h")], mem, size=len(mem), limit=1000)
        assert r.status == 503
    kept = len(pool._idle)
    async with budget.lend(16 * MiB) as mem:
        mem[:] = b"B" * len(mem)  # another object is received into that memory
        release.set()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), 3)
    await pool.close()
    srv.close()
    await asyncio.sleep(0.2)
    return kept, got.count(b"B")


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_early_answer_frees_memory_that_is_still_being_sent(factory):
    loop = factory()
    kept, foreign = loop.run_until_complete(_early(""))
    assert (kept, foreign) == (0, 0), (kept, foreign)


async def test_listing_of_parts_that_is_nonsense_stops_the_whole_run():
    async def script(talk):
        while q := await talk.request():
            await talk.send(
                ok(
                    b'<ListPartsResult><IsTruncated>false</IsTruncated><Part><Size>5</Size><ETag>"x"</ETag></Part></ListPartsResult>'
                )
            )

    async with HttpServer(script) as server, s3.S3Client(s3.Endpoint(server.url), "b", lambda: Keys("a", "b")) as c:
        with pytest.raises(ReplicatorError):
            await S3Store(c).list_parts("k", "u")


async def test_endless_listing_of_parts():
    n = [0]

    async def script(talk):
        while q := await talk.request():
            n[0] += 1
            await talk.send(
                ok(
                    f"<ListPartsResult><IsTruncated>true</IsTruncated><NextPartNumberMarker>{n[0] % 2 + 1}</NextPartNumberMarker></ListPartsResult>".encode()
                )
            )

    async with HttpServer(script) as server, s3.S3Client(s3.Endpoint(server.url), "b", lambda: Keys("a", "b")) as c:
        with pytest.raises(ReplicatorError):
            await asyncio.wait_for(S3Store(c).list_parts("k", "u"), 2)


async def test_skew_after_slow_page():
    now = [1000.0]
    from email.utils import formatdate

    async def script(talk):
        await talk.request()
        head = formatdate(now[0], usegmt=True)
        now[0] += 30
        await talk.send(ok(b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>", f"Date: {head}"))
        await talk.closed()

    async with HttpServer(script) as server:
        async with s3.S3Client(s3.Endpoint(server.url), "b", lambda: Keys("a", "b"), clock=lambda: now[0]) as c:
            await S3Store(c).check()
            assert abs(c.skew) <= 1, c.skew


async def test_run_with_marker_that_disappears_end_to_end(moto_endpoint):
    ep = moto_endpoint
    a, b = new_bucket(ep), new_bucket(ep)
    c = boto_client(ep)
    c.put_object(Bucket=a, Key="photos/", Body=b"")
    c.put_object(Bucket=a, Key="z", Body=b"")
    async with open_store(ep, a, "photos/") as s, open_store(ep, b) as t:
        real = s.list_pages

        async def listed(*, after=""):
            async for p in real(after=after):
                yield p

        def pages(*, after=""):
            async def gen():
                async for p in real(after=after):
                    c.delete_object(Bucket=a, Key="photos/")
                    yield p

            return gen()

        s.list_pages = pages
        run = Migration(s, [t], Plan(deletes=Deletes.MIRROR), report=NoReport(), tally=(tally := Tally()))
        try:
            await run.run()
        except Exception as e:
            print(e)
    assert b in [x["Name"] for x in c.list_buckets()["Buckets"]], (tally.did, tally.failed)


async def test_marker_at_the_target_prefix(moto_endpoint):
    ep = moto_endpoint
    a, b = new_bucket(ep), new_bucket(ep)
    c = boto_client(ep)
    c.put_object(Bucket=a, Key="z", Body=b"z")
    c.put_object(Bucket=b, Key="photos/", Body=b"")
    async with open_store(ep, a) as s, open_store(ep, b, "photos/") as t:
        s.can_copy_from = t.can_copy_from = lambda o: False
        run = Migration(s, [t], Plan(deletes=Deletes.MIRROR), report=NoReport(), tally=(tally := Tally()))
        await run.run()
    print({o["Key"]: o["Size"] for o in c.list_objects_v2(Bucket=b)["Contents"]})
    assert not tally.failed, (tally.did, tally.failed)


async def test_one_object_with_metadata_that_is_no_utf8_stops_the_run(moto_endpoint):
    from tests.fakes.memory import MemoryStore

    ep = moto_endpoint
    b = new_bucket(ep)
    s = MemoryStore(name="s/")
    s.bucket.write(
        "a", b"x", Attributes(content_type="text/plain", metadata=(("n", "caf\udce9"),))
    )  # header bytes "caf\xe9"
    s.bucket.write("b", b"y", Attributes(content_type="text/plain"))
    async with open_store(ep, b) as t:
        tally = Tally()
        run = Migration(s, [t], Plan(concurrency=1), report=NoReport(), tally=tally)
        await run.run()
    assert tally.failed == 1
