"""The HTTP client against a server that sends exact bytes, also those that no server should send."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from replicator.s3.connection import LARGE_BODY, AnswerTooLarge, StaleConnection
from replicator.s3.http import HttpPool, Origin
from tests.fakes.http_server import HttpServer, Talk, answering, becomes, hanging_up_after, ok
from tests.fakes.hurried_loop import in_hurried_loop

LIMIT = 4 * LARGE_BODY
HOST = [("host", "example")]


@asynccontextmanager
async def talking(*scripts, **settings):
    """A server that plays the scripts, and a pool of connections to it."""
    async with HttpServer(*scripts) as server:
        pool = HttpPool(Origin("http", "127.0.0.1", server.port), **{"idle_timeout": 60.0, **settings})
        try:
            yield server, pool
        finally:
            await pool.close()


async def get(pool, target="/", *, limit=LIMIT, method="GET"):
    return await pool.request(method, target, HOST, limit=limit)


def is_lost(pool):
    """Whether the one connection that is kept has ended."""
    (kept,) = pool._idle
    return kept.lost


async def body_of(chunks, *, before=None):
    for chunk in chunks:
        if before is not None:
            await before()
        yield chunk


ANSWERS = {
    "with a length": (ok(b"hello", 'ETag: "x"', "X-Two: 1", "x-two: 2"), b"hello"),
    "empty": (ok(b""), b""),
    "chunked": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;ext=1\r\nlo\r\n0\r\nTrailer: t\r\n\r\n",
        b"hello",
    ),
    "after 100 Continue": (b"HTTP/1.1 100 Continue\r\nX-Early: 1\r\n\r\n" + ok(b"hello", "X-Late: 2"), b"hello"),
    "after two interim answers": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + ok(b"hello"),
        b"hello",
    ),
    "204": (b"HTTP/1.1 204 No Content\r\nETag: x\r\n\r\n", b""),
    "304 with a length": (b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n", b""),
    "an error": (ok(b"<Error/>", status="404 Not Found"), b"<Error/>"),
}


@pytest.mark.parametrize(("answer", "body"), ANSWERS.values(), ids=ANSWERS.keys())
async def test_an_answer_is_the_same_wherever_it_is_split(answer, body):
    cuts = [(answer[:cut], answer[cut:]) for cut in range(1, len(answer))]
    async with talking(answering(answer, *cuts, tuple(bytes([byte]) for byte in answer))) as (server, pool):
        first = await get(pool)
        assert bytes(first.body) == body
        for _ in range(len(cuts) + 1):
            response = await get(pool)
            assert (response.status, response.headers, bytes(response.body)) == (first.status, first.headers, body)
        assert server.connections == 1


async def test_header_names_are_in_lower_case_and_repeated_ones_joined():
    async with talking(answering(ok(b"", "X-Two: 1", "x-two: 2", "X-Text: Zürich"))) as (_, pool):
        headers = (await get(pool)).headers
        assert (headers["x-two"], headers["x-text"]) == ("1, 2", "Zürich")


async def test_header_values_that_are_no_utf8_survive():
    async with talking(answering(ok().replace(b"\r\n\r\n", b"\r\nX-Raw: \xff\xfe\r\n\r\n"))) as (_, pool):
        assert (await get(pool)).headers["x-raw"].encode("utf-8", "surrogateescape") == b"\xff\xfe"


async def test_the_headers_of_an_interim_answer_are_not_those_of_the_answer():
    early = b"HTTP/1.1 100 Continue\r\nX-Early: 1\r\n\r\n"
    async with talking(answering(early + ok())) as (_, pool):
        assert "x-early" not in (await get(pool)).headers


async def test_a_request_is_sent_as_it_was_given():
    async with talking(answering(ok(), ok(), ok())) as (server, pool):
        await pool.request("PUT", "/a%20b?c=%2F", [("host", "h"), ("x-Odd", "Zürich")], b"body", size=4, limit=0)
        await pool.request("PUT", "/", [("host", "h")], limit=0)
        await pool.request("GET", "/", [("host", "h")], limit=0)
        put, empty, plain = server.requests
        assert (put.method, put.target, put.body) == ("PUT", "/a%20b?c=%2F", b"body")
        assert put.headers == {"host": "h", "x-odd": "Zürich", "content-length": "4"}
        assert empty.headers["content-length"] == "0"
        assert "content-length" not in plain.headers


@pytest.mark.parametrize("size", [1, 65535, 65536, 3 * LARGE_BODY])
@pytest.mark.parametrize("kind", [bytes, bytearray])
async def test_bodies_of_any_size_arrive_and_come_back(size, kind):
    data = kind(bytes(range(251)) * (size // 251 + 1))[:size]
    async with talking(answering(ok(bytes(data)))) as (server, pool):
        response = await pool.request("PUT", "/", HOST, data, size=size, limit=size)
        assert server.requests[0].body == data
        assert response.body == data


async def test_a_stream_arrives_as_one_body():
    chunks = [b"a" * 70_000, bytearray(b"b"), b"c" * 200_000]
    size = sum(len(chunk) for chunk in chunks)
    async with talking(answering(ok())) as (server, pool):
        await pool.request("PUT", "/", HOST, body_of(chunks), size=size, limit=0)
        assert server.requests[0].body == b"".join(chunks)


@pytest.mark.parametrize("size", [4, 6])
async def test_a_stream_of_another_size_than_announced_is_an_error(size):
    async with talking(answering(ok(), ok())) as (server, pool):
        with pytest.raises(ConnectionError, match="5 bytes instead of"):
            await pool.request("PUT", "/", HOST, body_of([b"hello"]), size=size, limit=0)
        await get(pool)
        assert server.connections == 2


async def test_an_error_of_the_stream_is_raised_and_ends_the_connection():
    async def failing():
        yield b"hel"
        raise KeyError("source")

    async with talking(answering(ok()), answering(ok())) as (server, pool):
        with pytest.raises(KeyError, match="source"):
            await pool.request("PUT", "/", HOST, failing(), size=5, limit=0)
        await get(pool)
        assert server.connections == 2


async def test_many_requests_reuse_one_connection():
    async with talking(answering(*[ok(str(n).encode()) for n in range(50)])) as (server, pool):
        assert [bytes((await get(pool)).body) for _ in range(50)] == [str(n).encode() for n in range(50)]
        assert server.connections == 1


async def test_requests_at_once_have_connections_of_their_own_which_are_then_reused():
    async with talking(answering(*[ok(b"x")] * 100)) as (server, pool):
        for _ in range(5):
            await asyncio.gather(*(get(pool) for _ in range(8)))
        assert server.connections == 8


@pytest.mark.parametrize("goodbye", ["Connection: close", "Connection: Close"])
async def test_a_connection_that_the_server_will_close_is_not_reused(goodbye):
    async with talking(answering(ok(b"x", goodbye))) as (server, pool):
        await get(pool)
        await get(pool)
        assert server.connections == 2


async def test_the_answer_to_head_has_a_length_and_no_body():
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 12345678\r\nETag: x\r\n\r\n"
    async with talking(answering(head, ok(b"hello"), head)) as (server, pool):
        response = await get(pool, method="HEAD", limit=0)
        assert (response.body, response.headers["content-length"]) == (b"", "12345678")
        assert bytes((await get(pool)).body) == b"hello"
        await get(pool, method="HEAD", limit=0)
        assert server.connections == 1


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 404 Not Found\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
    ],
)
async def test_head_does_not_wait_for_a_body_of_unknown_length(head):
    async with talking(answering(head, head), answering(head)) as (_, pool):
        for _ in range(2):
            assert (await get(pool, method="HEAD", limit=0)).status == 404


async def test_a_surprise_body_after_head_does_not_reach_the_next_answer():
    head = b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\n"
    async with talking(answering((head, b"wrong")), answering(ok(b"right"))) as (_, pool):
        assert (await get(pool, method="HEAD", limit=0)).body == b""
        assert await becomes(lambda: is_lost(pool))
        assert bytes((await get(pool)).body) == b"right"


async def test_bytes_that_nobody_asked_for_end_an_idle_connection():
    async with talking(answering((ok(b"one"), b"HTTP/1.1 408 Request Timeout\r\n\r\n")), answering(ok(b"two"))) as (
        server,
        pool,
    ):
        await get(pool)
        assert await becomes(lambda: is_lost(pool))
        assert bytes((await get(pool)).body) == b"two"
        assert server.connections == 2


BROKEN = {
    "nothing": b"",
    "half a status line": b"HTTP/1.1 20",
    "half a header": b"HTTP/1.1 200 OK\r\nContent-Le",
    "half a body": b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
    "half a large body": b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\nhello" % LARGE_BODY,
    "half a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\nhello",
    "no last chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    "only an interim answer": b"HTTP/1.1 100 Continue\r\n\r\n",
    "half an answer after an interim one": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nConnection: cl",
}


@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN.keys())
async def test_a_connection_closed_before_the_end_is_an_error_and_never_a_short_answer(answer):
    async with talking(hanging_up_after(answer)) as (_, pool):
        with pytest.raises(ConnectionError) as raised:
            await get(pool)
        assert not isinstance(raised.value, StaleConnection), "it was a new connection"


@pytest.mark.parametrize("answer", [answer for name, answer in BROKEN.items() if name != "nothing"])
async def test_a_kept_connection_closed_in_mid_answer_is_not_taken_for_a_stale_one(answer):
    async with talking(hanging_up_after(ok(), answer)) as (_, pool):
        await get(pool)
        with pytest.raises(ConnectionError) as raised:
            await get(pool)
        # A status line that never ended counts as no answer: sending again is right for it, too.
        assert isinstance(raised.value, StaleConnection) is (b"\r\n\r\n" not in answer)


async def test_a_kept_connection_closed_before_the_answer_is_stale():
    async with talking(hanging_up_after(ok(), b"")) as (server, pool):
        await get(pool)
        with pytest.raises(StaleConnection):
            await get(pool)
        assert len(server.requests) == 2


async def test_a_kept_connection_that_was_closed_meanwhile_is_not_used():
    async with talking(hanging_up_after(ok())) as (server, pool):
        await get(pool)
        assert await becomes(lambda: is_lost(pool))
        assert (await get(pool)).status == 200
        assert (len(server.requests), server.connections) == (2, 2)


async def test_an_answer_without_a_length_ends_with_its_connection():
    async with talking(hanging_up_after((b"HTTP/1.1 200 OK\r\n\r\nhel", b"lo"))) as (server, pool):
        for _ in range(2):
            assert bytes((await get(pool)).body) == b"hello"
        assert server.connections == 2


LARGE = {
    "announced": ok(b"x" * 11),
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nb\r\nxxxxxxxxxxx\r\n0\r\n\r\n",
    "in two chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nxxxxxx\r\n5\r\nxxxxx\r\n0\r\n\r\n",
    "until the end": b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 11,
}


@pytest.mark.parametrize("answer", LARGE.values(), ids=LARGE.keys())
async def test_an_answer_over_the_limit_is_refused_and_its_connection_not_reused(answer):
    async with talking(answering(answer), answering(ok(b"x" * 10))) as (server, pool):
        with pytest.raises(AnswerTooLarge):
            await get(pool, limit=10)
        assert len((await get(pool, limit=10)).body) == 10
        assert server.connections == 2


async def test_an_announced_size_over_the_limit_is_refused_before_its_bytes_come():
    async with talking(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999999\r\n\r\n")) as (_, pool):
        with pytest.raises(AnswerTooLarge):
            await get(pool)


GARBAGE = {
    "no HTTP": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    "zeros": bytes(100),
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
    "a negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    "a length that is no number": b"HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\nhello",
    "chunks of no size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\nhello",
    "a header without a colon": b"HTTP/1.1 200 OK\r\nwhat is this\r\n\r\n",
}


@pytest.mark.parametrize("answer", GARBAGE.values(), ids=GARBAGE.keys())
async def test_garbage_is_a_connection_error_and_its_connection_is_not_reused(answer):
    async with talking(answering(answer), answering(ok())) as (server, pool):
        with pytest.raises(ConnectionError, match="malformed"):
            await get(pool)
        assert (await get(pool)).status == 200
        assert server.connections == 2


async def test_an_early_answer_ends_the_sending_of_a_stream():
    sent = []

    async def refuse(talk: Talk):
        await talk.head()
        await talk.send(ok(b"no", status="403 Forbidden"))
        await talk.closed()

    async def endless():
        while True:
            sent.append(1)
            assert len(sent) < 100_000, "nobody stops this stream"
            yield b"x" * 1000
            await asyncio.sleep(0)

    async with talking(refuse, answering(ok())) as (server, pool):
        response = await pool.request("PUT", "/", HOST, endless(), size=10**9, limit=10)
        assert (response.status, bytes(response.body)) == (403, b"no")
        await get(pool)
        assert server.connections == 2, "the first one waits for the rest of the body"


async def test_a_connection_closed_while_a_stream_is_sent_is_an_error():
    async def hang_up(talk: Talk):
        await talk.head()

    async def endless():
        while True:
            yield b"x" * 100_000
            await asyncio.sleep(0)

    async with talking(hang_up) as (_, pool):
        with pytest.raises(ConnectionError):
            await pool.request("PUT", "/", HOST, endless(), size=10**12, limit=10)


async def silent(talk: Talk):
    await talk.request()
    await talk.closed()


async def silent_in_mid_body(talk: Talk):
    await talk.request()
    await talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel")
    await talk.closed()


@pytest.mark.parametrize("script", [silent, silent_in_mid_body])
@in_hurried_loop
async def test_an_answer_that_stands_still_is_given_up(script):
    async with talking(script, answering(ok())) as (server, pool):
        with pytest.raises(TimeoutError, match="no byte moved"):
            await get(pool)
        assert await becomes(lambda: server.open == 0)
        await get(pool)
        assert server.connections == 2


@in_hurried_loop
async def test_a_request_that_nobody_reads_is_given_up():
    stop = asyncio.Event()

    async def deaf(talk: Talk):
        talk.writer.transport.pause_reading()
        await stop.wait()

    async def endless():
        while True:
            yield b"x" * 1_000_000

    async with talking(deaf) as (_, pool):
        with pytest.raises((TimeoutError, ConnectionError)):
            await pool.request("PUT", "/", HOST, endless(), size=10**12, limit=0)
        stop.set()


@in_hurried_loop
async def test_an_answer_that_trickles_is_not_given_up():
    async def trickle(talk: Talk):
        await talk.request()
        for byte in ok(b"hello")[:8]:
            await talk.send(bytes([byte]))
            await asyncio.sleep(40)
        await talk.send(ok(b"hello")[8:])
        await talk.closed()

    async with talking(trickle) as (_, pool):
        assert bytes((await get(pool)).body) == b"hello"


@in_hurried_loop
async def test_a_large_body_that_trickles_is_given_up():
    async def trickle(talk: Talk):
        await talk.request()
        await talk.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2000000\r\n\r\n")
        for _ in range(100):
            await talk.send(b"x")
            await asyncio.sleep(40)

    async with talking(trickle) as (_, pool):
        with pytest.raises(TimeoutError):
            await pool.request("GET", "/", HOST, limit=2_000_000)


@pytest.mark.parametrize("break_", ["\r\n", "\n", "\r", "\r\n\r\nGET / HTTP/1.1\r\n\r\n"])
async def test_line_breaks_are_refused_in_names_values_and_targets(break_):
    async with talking(answering(ok())) as (server, pool):
        for target, headers in (
            (f"/{break_}x: y", HOST),
            ("/", [("host", f"h{break_}x: y")]),
            ("/", [(f"host{break_}x", "y")]),
        ):
            with pytest.raises(ValueError, match="line break"):
                await pool.request("GET", target, headers, limit=0)
        assert (server.requests, server.connections) == ([], 0)


@pytest.mark.parametrize("steps", range(0, 30, 3))
async def test_a_cancelled_request_does_not_leave_its_connection_to_the_next(steps):
    async def slow(talk: Talk):
        await talk.request()
        await talk.send(ok(b"first"))
        await talk.request()
        await talk.send(*(bytes([byte]) for byte in ok(b"cancelled")))
        await talk.closed()

    async with talking(slow, answering(ok(b"third"))) as (server, pool):
        assert bytes((await get(pool)).body) == b"first"
        task = asyncio.create_task(get(pool))
        for _ in range(steps):
            await asyncio.sleep(0)
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        if steps == 0:
            return  # it never began, so the connection is as it was
        assert bytes((await get(pool)).body) == b"third"
        assert server.connections == 2


async def test_closing_the_pool_closes_every_connection_and_fails_what_is_under_way():
    async with HttpServer(answering(ok()), silent) as server:
        pool = HttpPool(Origin("http", "127.0.0.1", server.port))
        await asyncio.gather(get(pool))
        first = asyncio.create_task(get(pool))
        second = asyncio.create_task(get(pool))
        assert await becomes(lambda: server.open == 2)
        await pool.close()
        results = await asyncio.gather(first, second, return_exceptions=True)
        assert all(isinstance(result, ConnectionError) for result in results)
        assert await becomes(lambda: server.open == 0)


async def test_nobody_listening_is_an_os_error():
    async with HttpServer(silent) as server:
        port = server.port
    pool = HttpPool(Origin("http", "127.0.0.1", port))
    with pytest.raises(OSError, match="Connect call failed"):
        await get(pool)
    await pool.close()
