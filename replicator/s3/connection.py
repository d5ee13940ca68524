"""One HTTP/1.1 connection: sends a request, takes in its whole answer. Parsing is httptools' (llhttp)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import httptools

from replicator.store import Data

LARGE_BODY = 1024 * 1024
"""Answers from this many bytes on are received into one buffer of their announced length."""

SCRATCH = 128 * 1024
"""Bytes that are received at once; shared by all connections, since they are parsed before the next read."""

LEAST = 16 * 1024
"""Bytes of a large body that must arrive in the time for which a connection may be idle: or its server hangs."""

ERROR_ANSWER = 64 * 1024
"""Bytes of an unsuccessful answer that are read at the most, whatever was expected of a successful one."""


@lru_cache(maxsize=512)
def _header_name(name: bytes) -> str:
    return name.decode("latin-1").lower()


@dataclass(frozen=True, slots=True)
class Response:
    """A whole answer. Header names are in lower case; repeated headers are joined by ", "."""

    status: int
    headers: dict[str, str]
    body: Data

    @property
    def document(self) -> bytes:
        """The body of an answer that is a document rather than an object."""
        return bytes(self.body)


class AnswerTooLarge(Exception):
    """The answer announces or sends more bytes than the caller wants to hold."""


class StaleConnection(ConnectionError):
    """A kept-alive connection turned out closed before a byte of the answer came: send it again at once."""


SLICE = 256 * 1024
"""Bytes of a large body that are encrypted at once: more would lie in memory a second time."""


async def _slices(body: Data) -> AsyncIterator[Data]:
    view = memoryview(body)
    for start in range(0, len(view), SLICE):
        yield view[start : start + SLICE]


class Exchange:
    """One request and its answer on one connection; the parser calls it back."""

    __slots__ = (
        "body",
        "chunks",
        "done",
        "headers",
        "into",
        "is_head",
        "keep_alive",
        "length",
        "limit",
        "parser",
        "received",
        "status",
    )

    def __init__(self, done: asyncio.Future[None], *, is_head: bool, limit: int, into: memoryview | None) -> None:
        self.done = done
        self.into = into
        self.is_head = is_head
        self.limit = limit
        self.parser = httptools.HttpResponseParser(self)
        self.headers: dict[str, str] = {}
        self.chunks: list[bytes] = []
        self.body: bytearray | memoryview | None = None
        self.status = 0
        self.length: int | None = None
        self.received = 0
        self.keep_alive = False

    def on_message_begin(self) -> None:
        if self.done.done():
            self.keep_alive = False
            raise ValueError("a second answer to one request")

    def on_header(self, name: bytes, value: bytes) -> None:
        key = _header_name(name)
        text = value.decode("utf-8", "surrogateescape")
        self.headers[key] = f"{self.headers[key]}, {text}" if key in self.headers else text

    def on_headers_complete(self) -> None:
        self.status = self.parser.get_status_code()
        if self.status < 200:
            return
        if self.status >= 300:
            self.limit = max(self.limit, ERROR_ANSWER)
        announced = self.headers.get("content-length", "").strip()
        if announced.isdecimal():
            self.length = int(announced)
        if self.is_head:
            self.finish()
        elif self.length is not None and self.length > self.limit:
            self.fail(AnswerTooLarge(f"{self.length} bytes where at most {self.limit} were expected"))
        elif self.length is not None and self.length >= LARGE_BODY and "transfer-encoding" not in self.headers:
            enough = self.into is not None and len(self.into) >= self.length
            self.body = self.into[: self.length] if self.into and enough else bytearray(self.length)

    def on_body(self, data: bytes) -> None:
        if self.done.done():
            self.keep_alive = False  # a body after a HEAD: this connection is out of step
            return
        start, self.received = self.received, self.received + len(data)
        if self.received > self.limit:
            self.fail(AnswerTooLarge(f"more than the {self.limit} bytes expected"))
        elif self.body is not None:
            self.body[start : self.received] = data
        else:
            self.chunks.append(data)

    def on_message_complete(self) -> None:
        if self.status < 200:
            self.headers.clear()  # 100 Continue and the like: the real answer follows
        elif not self.done.done():
            self.finish()

    def finish(self) -> None:
        """Hands the answer over. A HEAD's parser still waits for a body, so it decides about reuse first."""
        self.keep_alive = self.parser.should_keep_alive()
        if not self.done.done():
            self.done.set_result(None)

    def fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)

    def ended_by_close(self) -> bool:
        """Whether an answer without a length is complete now that the connection is closed."""
        return self.status >= 200 and not self.headers.keys() & {"content-length", "transfer-encoding"}

    def response(self) -> Response:
        if self.body is not None:
            return Response(self.status, self.headers, self.body)
        body = self.chunks[0] if len(self.chunks) == 1 else b"".join(self.chunks)
        return Response(self.status, self.headers, body)

    def end(self) -> None:
        """Lets go of the parser, which refers back: the answer would stay in memory until the collector comes by."""
        del self.parser


class Connection(asyncio.BufferedProtocol):
    """One socket; at most one exchange at a time.

    What arrives goes through `scratch` and the parser, but for the rest of a large body: that is received where it
    is to stay, without being copied.
    """

    __slots__ = (
        "activity",
        "exchange",
        "fresh",
        "idle_since",
        "lost",
        "loop",
        "measured",
        "pending",
        "received",
        "scratch",
        "transport",
        "writable",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, scratch: memoryview) -> None:
        self.loop = loop
        self.scratch = scratch
        self.exchange: Exchange | None = None
        self.transport: asyncio.Transport
        self.fresh = True
        self.lost = False
        self.activity = loop.time()
        self.idle_since = 0.0
        self.pending = 0
        self.measured = 0.0
        self.received = 0
        self.writable: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of it

    def get_buffer(self, sizehint: int) -> memoryview:
        exchange = self.exchange
        if exchange is not None and exchange.body is not None and not exchange.done.done():
            return memoryview(exchange.body)[exchange.received :]
        return self.scratch

    def buffer_updated(self, nbytes: int) -> None:
        self.activity = self.loop.time()
        exchange = self.exchange
        if exchange is None or (exchange.done.done() and exchange.is_head):
            self.transport.abort()  # bytes nobody asked for: this connection is out of step
            self.lost = True
        elif exchange.body is not None and not exchange.done.done():
            exchange.received += nbytes
            if exchange.received == exchange.length:
                exchange.finish()
        else:
            try:
                exchange.parser.feed_data(self.scratch[:nbytes])
            except httptools.HttpParserError as error:
                exchange.fail(ConnectionError(f"malformed answer: {error}"))

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        exchange = self.exchange
        if exchange is not None and not exchange.done.done():
            if exchange.ended_by_close():
                exchange.finish()
            elif exchange.status == 0 and not self.fresh:
                exchange.fail(StaleConnection("kept-alive connection was closed"))
            else:
                exchange.fail(ConnectionResetError(str(error) if error else "connection closed in mid-answer"))
        self.resume_writing()

    def pause_writing(self) -> None:
        if self.writable is None:
            self.writable = self.loop.create_future()

    def resume_writing(self) -> None:
        self.activity = self.loop.time()
        if self.writable is not None and not self.writable.done():
            self.writable.set_result(None)
        self.writable = None

    def stalled(self, now: float, timeout: float) -> bool:
        """Whether nothing has moved in either direction for `timeout` seconds, or of a large body too little.

        Of other answers nothing more can be asked: a service that is copying sends a blank now and then.
        """
        pending = self.transport.get_write_buffer_size()
        if pending != self.pending:
            self.pending, self.activity = pending, now
        exchange = self.exchange
        if exchange is not None and exchange.body is not None:
            if self.measured and now - self.measured > timeout and exchange.received - self.received < LEAST:
                return True
            if not self.measured or now - self.measured > timeout:
                self.measured, self.received = now, exchange.received
        return now - self.activity > timeout

    async def send(self, head: bytes, body: Data | AsyncIterator[Data], size: int) -> None:
        """Writes a request; returns early when an answer comes before all of the body is sent."""
        if isinstance(body, Data):
            if size < 65536:
                self.transport.write(b"".join((head, body)) if size else head)
                return
            if self.transport.get_extra_info("ssl_object") is None:
                self.transport.writelines([head, body])
                return
            body = _slices(body)
        self.transport.write(head)
        sent = 0
        async for chunk in body:
            sent += len(chunk)
            if self.lost or (self.exchange is not None and self.exchange.done.done()):
                return
            self.transport.write(chunk)
            if self.writable is not None:
                await self.writable
        if sent != size:
            raise ConnectionError(f"the body had {sent} bytes instead of the {size} announced")
