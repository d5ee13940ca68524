"""Cases of the wire that were wrong once."""

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import format_datetime, formatdate

import pytest
import uvloop

from replicator.budget import ByteBudget
from replicator.errors import AccessDenied, ConfigurationError, ReplicatorError, UntrustworthyListing
from replicator.model import MiB
from replicator.s3.client import Call, Endpoint, S3Client
from replicator.s3.headers import http_date
from replicator.s3.http import HttpPool, Origin
from replicator.s3.listing import list_objects
from replicator.s3.signing import Keys
from replicator.s3.store import S3Store
from replicator.s3.xml import MalformedXml, parse, parse_error, parse_list_page
from tests.fakes.http_server import HttpServer, Talk, answering, hanging_up_after, ok

KEYS = Keys("A", "B")
NOON = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)


@asynccontextmanager
async def client_of(*scripts, clock=NOON.timestamp, **settings):
    async def sleep(seconds):
        pass

    async with (
        HttpServer(*scripts) as server,
        S3Client(Endpoint(server.url), "bucket", lambda: KEYS, sleep=sleep, clock=clock, **settings) as client,
    ):
        yield server, client


@asynccontextmanager
async def talking(*scripts):
    async with HttpServer(*scripts) as server:
        pool = HttpPool(Origin("http", "127.0.0.1", server.port))
        try:
            yield server, pool
        finally:
            await pool.close()


def failure(code, status, *headers):
    return ok(f"<Error><Code>{code}</Code><Message>made to fail</Message></Error>".encode(), *headers, status=status)


async def test_a_throttled_read_of_a_small_object_is_retried():
    slow = failure("SlowDown", "503 Slow Down")
    async with client_of(answering(slow, ok(b"x")), answering(ok(b"x"))) as (server, client):
        response = await client.send(Call("GetObject", "GET", "key", limit=1))
        assert bytes(response.body) == b"x"
        assert client.limit.throttled == 1


async def test_a_denied_read_of_a_small_object_is_denied():
    async with client_of(answering(failure("AccessDenied", "403 Forbidden"))) as (_, client):
        with pytest.raises(AccessDenied):
            await client.send(Call("GetObject", "GET", "key", limit=1))


LIST = "<ListBucketResult{}><IsTruncated>false</IsTruncated>{}</ListBucketResult>"
INSIDE = "<Key>a</Key><LastModified>2026-11-20T12:00:00Z</LastModified><ETag>e</ETag><Size>1</Size>"


@pytest.mark.parametrize(
    "entry",
    [
        f'<Contents xmlns="http://x/">{INSIDE}</Contents>',
        f"<Contents >{INSIDE}</Contents>",
        f"<Contents\n>{INSIDE}</Contents>",
    ],
)
def test_entries_written_otherwise_are_entries(entry):
    assert len(parse_list_page(LIST.format("", entry).encode(), "").entries) == 1


def test_entries_with_a_namespace_prefix_are_entries():
    inside = INSIDE.replace("<", "<s:").replace("<s:/", "</s:")
    document = LIST.format(' xmlns:s="http://x/"', f"<s:Contents>{inside}</s:Contents>")
    assert len(parse_list_page(document.encode(), "").entries) == 1


def test_mixed_entries_are_all_entries():
    document = LIST.format("", f"<Contents>{INSIDE}</Contents><Contents >{INSIDE.replace('>a<', '>b<')}</Contents>")
    assert len(parse_list_page(document.encode(), "").entries) == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\na\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10 \r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\t\r\n\r\nhello",
    ],
)
async def test_half_an_answer_is_an_error(answer):
    async with talking(hanging_up_after(answer)) as (_, pool):
        with pytest.raises(ConnectionError):
            await pool.request("GET", "/", [("host", "x")], limit=100)


@pytest.mark.parametrize(
    "said", ["", "<IsTruncated/>", "<IsTruncated>True</IsTruncated>", "<IsTruncated>perhaps</IsTruncated>"]
)
async def test_a_page_that_does_not_say_whether_it_is_the_last_is_an_error(said):
    page = ok(
        f"<ListBucketResult>{said}<NextContinuationToken>t</NextContinuationToken>"
        f"<Contents>{INSIDE}</Contents></ListBucketResult>".encode()
    )
    last = ok(LIST.format("", "").encode())
    async with client_of(answering(page, last)) as (server, client):
        try:
            pages = [entries async for entries in list_objects(client, "")]
        except UntrustworthyListing:
            return
        assert (len(pages), len(server.requests)) == (1, 2), "it ended although it never said so"


async def test_a_second_answer_is_not_mixed_into_the_first():
    async with talking(
        answering(ok(b"one", "X-A: 1") + ok(b"two!", "X-A: 2", status="408 Request Timeout")), answering(ok(b"3"))
    ) as (server, pool):
        response = await pool.request("GET", "/", [("host", "x")], limit=100)
        assert (response.status, bytes(response.body), response.headers["x-a"]) == (200, b"one", "1")


async def test_a_body_after_head_is_not_part_of_its_answer_and_its_connection_is_given_up():
    async with talking(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"), answering(ok(b"right"))) as (
        server,
        pool,
    ):
        response = await pool.request("HEAD", "/", [("host", "x")], limit=0)
        assert response.body == b""
        await pool.request("GET", "/", [("host", "x")], limit=100)
        assert server.connections == 2


async def test_the_rest_of_a_surprise_body_is_not_the_next_answer():
    first = b"HTTP/1.1 200 OK\r\nContent-Length: 60\r\n\r\nhello"
    rest = ok(b"EVIL")

    async def script(talk: Talk):
        await talk.request()
        await talk.send(first)
        if await talk.request():
            await talk.send(rest, ok(b"right"))
        await talk.closed()

    async with talking(script, answering(ok(b"right"))) as (_, pool):
        await pool.request("HEAD", "/", [("host", "x")], limit=0)
        assert bytes((await pool.request("GET", "/", [("host", "x")], limit=100)).body) == b"right"


async def test_a_skewed_clock_is_corrected_after_a_refused_head_too():
    later = format_datetime(NOON.replace(hour=17), usegmt=True)
    refused = b"HTTP/1.1 403 Forbidden\r\nDate: %s\r\nContent-Length: 0\r\n\r\n" % later.encode()
    async with client_of(answering(*[refused] * 1, ok())) as (server, client):
        await client.send(Call("HeadObject", "HEAD", "key"))
        assert server.requests[-1].headers["x-amz-date"] == "20261120T170000Z"


@pytest.mark.parametrize("text", ["Wed, 21 Oct 99999999999999999999 07:28:00 GMT", "Wed, 99 Oct 2026 99:99:99 GMT"])
def test_what_is_no_date_is_zero(text):
    assert http_date(text) == 0.0


def test_an_unknown_encoding_is_malformed():
    with pytest.raises(MalformedXml):
        parse(b'<?xml version="1.0" encoding="no-such"?><a/>')


def test_a_key_that_is_no_utf8_is_malformed():
    with pytest.raises(MalformedXml):
        parse_list_page(LIST.format("", f"<Contents>{INSIDE}</Contents>").encode().replace(b">a<", b">\xff<"), "")


def test_a_document_type_in_utf16_is_refused():
    text = '<?xml version="1.0" encoding="UTF-16"?><!DOCTYPE a [<!ENTITY x "expanded">]><a>&x;</a>'
    with pytest.raises(MalformedXml):
        parse(text.encode("utf-16"))


async def test_the_host_header_of_an_ipv6_endpoint_has_brackets():
    async with S3Client(Endpoint("http://[::1]:9000"), "bucket", lambda: KEYS) as client:
        assert client._host == "[::1]:9000"


def test_an_endpoint_with_a_password_is_refused_without_showing_it():
    with pytest.raises(ConfigurationError) as raised:
        Endpoint("https://user:hunter2@host").origin("bucket")
    assert "hunter2" not in str(raised.value)


def test_an_error_after_blanks_is_an_error():
    assert parse_error(b' \n<?xml version="1.0"?><Error><Code>InternalError</Code></Error>')["Code"] == "InternalError"


async def test_an_empty_page_that_is_not_the_last_proves_no_absence():
    page = ok(
        b"<ListBucketResult><IsTruncated>true</IsTruncated>"
        b"<NextContinuationToken>t</NextContinuationToken></ListBucketResult>"
    )
    async with client_of(answering(page, page)) as (_, client):
        with pytest.raises(ReplicatorError):
            await S3Store(client).confirm_absent("key")


async def test_a_listing_of_parts_without_numbers_is_an_error_of_its_object():
    """Any other kind of error would end the whole run."""
    answer = ok(
        b"<ListPartsResult><IsTruncated>false</IsTruncated>"
        b'<Part><Size>5</Size><ETag>"x"</ETag></Part></ListPartsResult>'
    )

    async def script(talk: Talk):
        while await talk.request():
            await talk.send(answer)

    async with client_of(script) as (_, client):
        with pytest.raises(ReplicatorError):
            await S3Store(client).list_parts("key", "upload")


async def test_a_listing_of_parts_that_goes_round_in_circles_ends():
    async def script(talk: Talk):
        while await talk.request():
            following = len(talk.server.requests) % 2 + 1
            await talk.send(
                ok(
                    b"<ListPartsResult><IsTruncated>true</IsTruncated>"
                    b"<NextPartNumberMarker>%d</NextPartNumberMarker></ListPartsResult>" % following
                )
            )

    async with client_of(script) as (_, client):
        with pytest.raises(ReplicatorError):
            await asyncio.wait_for(S3Store(client).list_parts("key", "upload"), 60)


async def test_the_time_that_a_slow_page_takes_is_not_skew():
    now = [1000.0]

    async def script(talk: Talk):
        await talk.request()
        began = formatdate(now[0], usegmt=True)
        now[0] += 30
        await talk.send(ok(LIST.format("", "").encode(), f"Date: {began}"))
        await talk.closed()

    async with client_of(script, clock=lambda: now[0]) as (_, client):
        await S3Store(client).check()
        assert abs(client.skew) <= 1


async def refused_early():
    """Connections kept after an early answer, and bytes of the next object that the server got on the first one.

    The server refuses before it reads the body, and goes on reading; the next object is received into the memory
    that the body was sent from.
    """
    size = 16 * MiB
    got = bytearray()
    release, ended = asyncio.Event(), asyncio.Event()

    async def script(talk: Talk):
        try:
            await talk.head()
            await talk.send(ok(status="503 Slow Down"))
            await release.wait()
            while len(got) < size and (data := await talk.reader.read(size)):
                got.extend(data)
        finally:
            ended.set()

    budget = ByteBudget(4 * size)
    async with talking(script) as (_, pool):
        async with budget.lend(size) as memory:
            memory[:] = b"A" * size
            response = await pool.request("PUT", "/b/one", [("host", "h")], memory, size=size, limit=1000)
            assert response.status == 503
        kept = len(pool._idle)
        async with budget.lend(size) as memory:
            memory[:] = b"B" * size
            release.set()
            await asyncio.wait_for(ended.wait(), 60)
    return kept, got.count(b"B")


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_memory_is_not_sent_any_more_once_its_request_was_answered(factory):
    with asyncio.Runner(loop_factory=factory) as runner:
        assert runner.run(refused_early()) == (0, 0)
