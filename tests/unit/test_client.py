"""S3's protocol as the client speaks it: addresses, retries, throttling, clocks, secrets."""

from __future__ import annotations

import asyncio
import itertools
import traceback
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import format_datetime
from urllib.parse import unquote

import pytest

from replicator.errors import (
    AccessDenied,
    ChangedMeanwhile,
    ConfigurationError,
    Rejected,
    StoreError,
    Throttled,
    Transient,
)
from replicator.multipart import Part
from replicator.s3.client import Call, Endpoint, Retry, S3Client, encode_query
from replicator.s3.http import Origin
from replicator.s3.signing import EMPTY_SHA256, UNSIGNED, Keys
from replicator.s3.store import S3Store
from replicator.store import Pin, Stream, Write
from tests.awkward import AWKWARD_KEYS, PLAIN_KEYS
from tests.fakes.http_server import HttpServer, answering, becomes, hanging_up_after, ok, settle
from tests.fakes.hurried_loop import in_hurried_loop

SECRET, TOKEN = "very-secret-key", "very-secret-token"
KEYS = Keys("ACCESSKEY", SECRET, TOKEN)
NOON = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)
GET = Call("GetObject", "GET", "key", limit=100)


def failure(code, status="400 Bad Request", *headers):
    body = f"<Error><Code>{code}</Code><Message>made to fail</Message></Error>".encode()
    return ok(body, *headers, status=status)


class Naps:
    """Sleeps that are only written down."""

    def __init__(self):
        self.taken = []

    async def __call__(self, seconds):
        self.taken.append(seconds)


@asynccontextmanager
async def client_of(*scripts, keys=lambda: KEYS, **settings):
    settings = {"sleep": Naps(), "chance": lambda: 1.0, "clock": NOON.timestamp, "idle_timeout": 60.0, **settings}
    async with HttpServer(*scripts) as server, S3Client(Endpoint(server.url), "bucket", keys, **settings) as client:
        yield server, client


# --- addresses


@pytest.mark.parametrize("key", AWKWARD_KEYS + PLAIN_KEYS)
def test_every_key_is_given_back_by_unquoting_its_path(key):
    path_style = S3Client(Endpoint("https://host"), "bucket", lambda: KEYS)
    virtual = S3Client(Endpoint("https://host", virtual_hosts=True), "bucket", lambda: KEYS)
    target = path_style.target(Call("GetObject", "GET", key))
    assert unquote(target, errors="strict") == f"/bucket/{key}"
    assert virtual.target(Call("GetObject", "GET", key)) == target.removeprefix("/bucket")
    assert target.isascii()
    assert not set(target) & set(" ?#+&\"<>\\^`{|}'()*\r\n\t")


@pytest.mark.parametrize("key", AWKWARD_KEYS)
async def test_every_key_arrives_as_it_was_addressed(key):
    async with client_of(answering(ok())) as (server, client):
        await client.send(Call("GetObject", "GET", key, "versionId=a%2Fb"))
        path, _, query = server.requests[0].target.partition("?")
        assert (unquote(path, errors="strict"), query) == (f"/bucket/{key}", "versionId=a%2Fb")


def test_a_bucket_without_a_key_is_addressed_in_both_styles():
    call = Call("ListObjectsV2", "GET", query="list-type=2")
    path_style = S3Client(Endpoint("https://host"), "bucket", lambda: KEYS)
    virtual = S3Client(Endpoint("https://host", virtual_hosts=True), "bucket", lambda: KEYS)
    assert path_style.target(call) == "/bucket?list-type=2"
    assert virtual.target(call) == "/?list-type=2"
    assert virtual.target(Call("ListBuckets", "GET")) == "/"


ORIGINS = {
    "https://s3.example.com": Origin("https", "s3.example.com", 443),
    "http://s3.example.com/": Origin("http", "s3.example.com", 80),
    "http://127.0.0.1:9000": Origin("http", "127.0.0.1", 9000),
}


@pytest.mark.parametrize(("url", "origin"), ORIGINS.items(), ids=ORIGINS.keys())
def test_an_endpoint_is_where_its_url_says(url, origin):
    assert Endpoint(url).origin("bucket") == origin
    assert Endpoint(url, virtual_hosts=True).origin("bucket") == origin._replace(host=f"bucket.{origin.host}")


@pytest.mark.parametrize(
    "url", ["", "host", "host:80", "ftp://host", "https://", "https://host/path", "https://host?x=1", "http://h:99999"]
)
def test_an_unusable_endpoint_is_a_configuration_error(url):
    with pytest.raises(ConfigurationError, match="endpoint"):
        S3Client(Endpoint(url), "bucket", lambda: KEYS)


@pytest.mark.parametrize(
    ("endpoint", "host"),
    [
        (Endpoint("https://host"), "host"),
        (Endpoint("https://host:443"), "host"),
        (Endpoint("http://host:443"), "host:443"),
        (Endpoint("http://host:9000", virtual_hosts=True), "bucket.host:9000"),
    ],
)
def test_the_host_header_names_a_port_only_where_it_is_not_the_usual_one(endpoint, host):
    assert S3Client(endpoint, "bucket", lambda: KEYS)._host == host


def test_queries_are_sorted_and_encoded_as_they_are_signed():
    query = encode_query(prefix="a b+c/ä~", list_type=2, delimiter="")
    assert query == "delimiter=&list-type=2&prefix=a%20b%2Bc%2F%C3%A4~"


# --- signatures


async def test_a_request_is_signed_for_its_host_and_body():
    async with client_of(answering(ok(), ok(), ok())) as (server, client):
        await client.send(Call("PutObject", "PUT", "key", headers=[("x-amz-meta-a", "ü")], body=b"hello"))
        await client.send(GET)
        stream = Stream(5, chunks_of(b"hello"))
        await client.send(Call("PutObject", "PUT", "key", body=stream))
        put, get, streamed = (request.headers for request in server.requests)
        assert put["host"] == f"127.0.0.1:{server.port}"
        assert put["authorization"].startswith("AWS4-HMAC-SHA256 Credential=ACCESSKEY/20261120/us-east-1/s3/")
        assert "host;" in put["authorization"]
        assert "x-amz-meta-a" in put["authorization"]
        assert (put["x-amz-date"], put["x-amz-security-token"]) == ("20261120T120000Z", TOKEN)
        assert put["x-amz-content-sha256"] == "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
        assert get["x-amz-content-sha256"] == EMPTY_SHA256
        assert streamed["x-amz-content-sha256"] == UNSIGNED


async def test_new_keys_are_used_at_once():
    current = [KEYS, Keys("OTHERKEY", "other"), KEYS]
    async with client_of(answering(ok(), ok(), ok()), keys=lambda: current[0]) as (server, client):
        for _ in range(3):
            await client.send(GET)
            current.pop(0)
            current.append(KEYS)
        names = [request.headers["authorization"].split("=")[1].split("/")[0] for request in server.requests]
        assert names == ["ACCESSKEY", "OTHERKEY", "ACCESSKEY"]
        assert "x-amz-security-token" not in server.requests[1].headers


async def test_keys_are_refreshed_before_each_attempt():
    refreshed = []

    async def refresh():
        refreshed.append(1)

    async with client_of(answering(failure("InternalError", "500 X"), ok()), refresh=refresh) as (_, client):
        await client.send(GET)
        assert len(refreshed) == 2


async def chunks_of(*chunks):
    for chunk in chunks:
        yield chunk


# --- retries


def test_waits_have_full_jitter_between_nothing_and_a_doubling_bound():
    retry = Retry(base=0.1, cap=10.0)
    assert [retry.wait(failures, 0.0) for failures in range(1, 9)] == [0.0] * 8
    assert [retry.wait(failures, 1.0) for failures in range(1, 9)] == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]
    assert retry.wait(3, 0.5) == 0.4


async def test_a_passing_failure_is_retried_with_the_waits_that_chance_gives():
    chances = iter([0.0, 0.5, 1.0])
    failing = [failure("InternalError", "500 X"), failure("RequestTimeout"), ok(status="502 Bad Gateway"), ok(b"well")]
    async with client_of(answering(*failing), chance=lambda: next(chances)) as (server, client):
        assert bytes((await client.send(GET)).body) == b"well"
        assert client._sleep.taken == [0.0, 0.2, 0.8]
        assert len({request.target for request in server.requests}) == 1


@pytest.mark.parametrize("attempts", [1, 2, 7])
async def test_a_request_is_sent_as_often_as_it_may_and_not_more(attempts):
    answers = [failure("InternalError", "500 X")] * 20
    async with client_of(answering(*answers), retry=Retry(attempts=attempts)) as (server, client):
        with pytest.raises(Transient, match="made to fail"):
            await client.send(GET)
        assert (len(server.requests), len(client._sleep.taken)) == (attempts, attempts - 1)


LASTING = {
    "AccessDenied": (failure("AccessDenied", "403 Forbidden"), AccessDenied),
    "a bare 403": (ok(status="403 Forbidden"), AccessDenied),
    "PreconditionFailed": (failure("PreconditionFailed", "412 X"), ChangedMeanwhile),
    "any other 4xx": (failure("EntityTooLarge"), Rejected),
    "a redirect": (ok(status="301 Moved Permanently"), Rejected),
}


@pytest.mark.parametrize(("answer", "kind"), LASTING.values(), ids=LASTING.keys())
async def test_a_lasting_refusal_is_not_retried(answer, kind):
    async with client_of(answering(answer, ok())) as (server, client):
        with pytest.raises(kind):
            await client.send(GET)
        assert (len(server.requests), client._sleep.taken) == (1, [])


LOST = {
    "reset": hanging_up_after(b""),
    "truncated": hanging_up_after(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe"),
    "garbage": answering(b"garbage\r\n\r\n"),
}


@pytest.mark.parametrize("script", LOST.values(), ids=LOST.keys())
async def test_a_lost_answer_is_retried_after_a_wait(script):
    async with client_of(script, answering(ok(b"well"))) as (server, client):
        assert bytes((await client.send(GET)).body) == b"well"
        assert (len(client._sleep.taken), server.connections) == (1, 2)


@in_hurried_loop
async def test_an_answer_that_stands_still_is_retried():
    async with client_of(answering(b"HTTP/1.1 200 OK\r\n"), answering(ok())) as (_, client):
        assert (await client.send(GET)).status == 200


async def test_nobody_listening_is_a_transient_error_that_names_the_endpoint():
    async with HttpServer(answering(ok())) as server:
        url = server.url
    async with S3Client(Endpoint(url), "bucket", lambda: KEYS, sleep=Naps(), retry=Retry(attempts=3)) as client:
        with pytest.raises(Transient) as raised:
            await client.send(GET)
        assert url in str(raised.value)
        assert len(client._sleep.taken) == 2


async def test_a_stale_connection_is_retried_at_once():
    async with client_of(hanging_up_after(ok(), b""), answering(ok(b"well"))) as (server, client):
        await client.send(GET)
        assert bytes((await client.send(GET)).body) == b"well"
        assert (client._sleep.taken, server.connections) == ([], 2)


async def test_a_second_stale_connection_is_waited_for():
    async with client_of(hanging_up_after(ok(), b""), hanging_up_after(ok(), b""), answering(ok())) as (_, client):
        await asyncio.gather(client.send(GET), client.send(GET))
        await client.send(GET)
        assert len(client._sleep.taken) <= 1


@pytest.mark.parametrize("script", [answering(failure("InternalError", "500 X"), ok()), hanging_up_after(b"")])
async def test_a_stream_is_sent_once(script):
    async with client_of(script, answering(ok())) as (server, client):
        with pytest.raises(Transient):
            await client.send(Call("PutObject", "PUT", "key", body=Stream(5, chunks_of(b"hello"))))
        assert (len(server.requests), client._sleep.taken) == (1, [])


async def test_a_body_that_breaks_the_rules_of_http_is_rejected_and_not_sent():
    async with client_of(answering(ok())) as (server, client):
        with pytest.raises(StoreError):
            await client.send(Call("PutObject", "PUT", "key", headers=[("x-amz-meta-a", "1\r\nx-evil: 2")], body=b"x"))
        assert all("x-evil" not in request.headers for request in server.requests)


async def test_an_object_larger_than_expected_is_another_object_by_now():
    async with client_of(answering(ok(b"x" * 101))) as (server, client):
        with pytest.raises(ChangedMeanwhile, match="101 bytes"):
            await client.send(GET)
        assert len(server.requests) == 1


# --- throttling


async def test_slow_down_halves_the_limit_and_is_retried():
    slow = failure("SlowDown", "503 Slow Down")
    async with client_of(answering(slow, ok()), concurrency=64) as (_, client):
        await client.send(GET)
        assert client.limit.throttled == 1
        assert 32 <= client.limit.limit < 33
        assert len(client._sleep.taken) == 1


@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable"])
async def test_a_bare_throttling_status_slows_down(status):
    async with client_of(answering(ok(status=status)), retry=Retry(attempts=1)) as (_, client):
        with pytest.raises(Throttled):
            await client.send(GET)
        assert client.limit.throttled == 1


async def test_other_failures_do_not_slow_down():
    async with client_of(answering(failure("InternalError", "500 X"), ok())) as (_, client):
        await client.send(GET)
        assert client.limit.limit == client.limit.ceiling


@pytest.mark.parametrize("script", [answering(ok()), answering(failure("AccessDenied")), hanging_up_after(b"")])
async def test_whatever_happens_the_place_of_the_request_is_given_back(script):
    async with client_of(script, retry=Retry(attempts=1)) as (_, client):
        await asyncio.gather(client.send(GET), return_exceptions=True)
        assert client.limit.in_flight == 0


async def test_a_cancelled_request_gives_its_place_back():
    async with client_of(answering(b"")) as (_, client):
        task = asyncio.create_task(client.send(GET))
        assert await becomes(lambda: client.limit.in_flight == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert client.limit.in_flight == 0


async def test_no_more_requests_run_than_the_limit_allows():
    async def script(talk):
        while await talk.request():
            seen.append(talk.server.open)
            await settle()
            await talk.send(ok())

    seen = []
    async with client_of(script, concurrency=3) as (_, client):
        await asyncio.gather(*(client.send(GET) for _ in range(20)))
        assert (len(seen), max(seen)) == (20, 3)


# --- clocks


async def test_a_skewed_clock_is_corrected_for_the_next_signature():
    later = format_datetime(NOON.replace(hour=17), usegmt=True)
    skewed = failure("RequestTimeTooSkewed", "403 Forbidden", f"Date: {later}")
    async with client_of(answering(skewed, ok(), ok())) as (server, client):
        await client.send(GET)
        await client.send(GET)
        dates = [request.headers["x-amz-date"] for request in server.requests]
        assert dates == ["20261120T120000Z", "20261120T170000Z", "20261120T170000Z"]


async def test_a_skewed_clock_without_a_date_is_not_corrected_but_reported():
    skewed = failure("RequestTimeTooSkewed", "403 Forbidden")
    async with client_of(answering(*[skewed] * 9), retry=Retry(attempts=2)) as (server, client):
        with pytest.raises(Transient, match="RequestTimeTooSkewed"):
            await client.send(GET)
        assert {request.headers["x-amz-date"] for request in server.requests} == {"20261120T120000Z"}


async def test_other_refusals_do_not_move_the_clock():
    later = format_datetime(NOON.replace(hour=17), usegmt=True)
    async with client_of(answering(failure("InternalError", "500 X", f"Date: {later}"), ok())) as (server, client):
        await client.send(GET)
        assert server.requests[1].headers["x-amz-date"] == "20261120T120000Z"


LIST = Call("ListObjectsV2", "GET", query="list-type=2")


async def test_the_clock_of_the_service_is_noted_from_its_listings():
    later = format_datetime(NOON.replace(second=30), usegmt=True)
    async with client_of(answering(ok(b"", f"Date: {later}"), ok(b"", f"Date: {later}"))) as (_, client):
        await client.send(GET)
        assert client.skew == 0.0
        await client.send(LIST)
        assert client.skew == 30.0


async def test_a_slow_answer_does_not_tell_the_clock():
    later = format_datetime(NOON.replace(second=30), usegmt=True)
    seconds = itertools.count(NOON.timestamp(), 5.0)
    async with client_of(answering(ok(b"", f"Date: {later}")), clock=lambda: next(seconds)) as (_, client):
        await client.send(LIST)
        assert client.skew == 0.0


# --- errors within a success

LATE = b'<?xml version="1.0" encoding="UTF-8"?>\n  <Error><Code>InternalError</Code><Message>late</Message></Error>'


async def test_an_object_that_is_an_error_document_is_fetched_as_what_it_is():
    async with client_of(answering(ok(LATE))) as (_, client):
        fetched = await S3Store(client).fetch("key", limit=1000)
        assert fetched.data == LATE


LATE_CALLS = {
    "copy": lambda store: store.copy(store, "a", "b", Pin("etag"), Write()),
    "part copy": lambda store: store.copy_part("key", "upload", Part(1, 0, 5), store, "a", Pin("etag")),
    "completion": lambda store: store.complete_upload("key", "upload", ["0" * 32]),
}


@pytest.mark.parametrize("call", LATE_CALLS.values(), ids=LATE_CALLS.keys())
async def test_an_error_document_in_a_success_is_an_error_where_s3_does_that(call):
    async with client_of(answering(*[ok(LATE)] * 9), retry=Retry(attempts=2)) as (server, client):
        with pytest.raises(Transient, match="late"):
            await call(S3Store(client))
        assert len(server.requests) == 2


async def test_a_late_error_that_passes_is_retried_to_success():
    done = ok(b'<CopyObjectResult xmlns="http://x/"><ETag>&quot;abc&quot;</ETag></CopyObjectResult>')
    async with client_of(answering(ok(LATE), done)) as (_, client):
        store = S3Store(client)
        assert (await store.copy(store, "a", "b", Pin("etag"), Write())).etag == "abc"


# --- secrets


def test_keys_show_only_the_name_of_the_key():
    for text in (repr(KEYS), str(KEYS), f"{KEYS}"):
        assert "ACCESSKEY" in text
        assert SECRET not in text
        assert TOKEN not in text


@pytest.mark.parametrize(
    "script",
    [
        answering(failure("SignatureDoesNotMatch", "403 Forbidden")),
        answering(b"garbage\r\n\r\n"),
        hanging_up_after(b""),
        answering(ok(b"x" * 999)),
    ],
)
async def test_no_error_shows_a_secret(script):
    async with client_of(script, retry=Retry(attempts=2)) as (_, client):
        with pytest.raises(StoreError) as raised:
            await client.send(GET)
        text = "".join(traceback.format_exception(raised.value)) + repr(raised.value) + repr(client) + repr(GET)
        assert SECRET not in text
        assert TOKEN not in text
        assert "Signature=" not in text


async def test_an_error_says_what_was_asked_of_what():
    async with client_of(answering(failure("AccessDenied", "403 Forbidden"))) as (_, client):
        with pytest.raises(AccessDenied) as raised:
            await client.send(GET)
        error = raised.value
        assert (error.operation, error.target, error.code) == ("GetObject", "bucket/key", "AccessDenied")
        assert str(error) == "GetObject bucket/key: AccessDenied: made to fail"


async def test_a_bucket_elsewhere_is_named_with_its_region():
    elsewhere = ok(b"", "x-amz-bucket-region: eu-central-2", status="301 Moved Permanently")
    async with client_of(answering(elsewhere)) as (_, client):
        with pytest.raises(Rejected, match="region eu-central-2"):
            await client.send(GET)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (("https://h", KEYS), ("https://h/", KEYS), True),
        (("https://h", KEYS), ("https://h", Keys("OTHER", "x")), False),
        (("https://h", KEYS), ("https://i", KEYS), False),
        (("https://s3.eu-west-1.amazonaws.com", KEYS), ("https://s3.amazonaws.com", KEYS), True),
    ],
)
def test_one_account_is_one_service_and_one_key(one, other, same):
    first, second = (S3Client(Endpoint(url), "bucket", lambda keys=keys: keys) for url, keys in (one, other))
    assert first.same_account(second) is same
