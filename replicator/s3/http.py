"""A small HTTP/1.1 client: one request, one whole answer in memory, connections kept alive.

It exists because a copy is two requests and little else: a bare GET and PUT loop on aiohttp costs more CPU than this
does with all that the store adds (docs/DESIGN.md, "The wire"). This module owns the pool and the time-outs,
connection.py what is on the wire; neither knows S3. Requests always carry Content-Length; answers are bounded by the
caller.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable
from typing import NamedTuple

from replicator.s3.connection import SCRATCH, Connection, Exchange, Response, StaleConnection
from replicator.store import Data

IDLE_REUSE = 15.0
"""Seconds after which an idle connection is not used again: services close theirs from about 20 s on."""


class Origin(NamedTuple):
    """Where to connect: scheme "http" or "https", host and port."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """Host and port as in the Host header: without the scheme's own port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.scheme == "https" else 80) else f"{host}:{self.port}"


class HttpPool:
    """Connections to one origin. Use as an async context manager, or call `close`.

    idle_timeout: seconds without a byte in either direction after which an exchange fails with TimeoutError.
    connect_timeout: seconds for connecting, TLS included.
    """

    def __init__(
        self,
        origin: Origin,
        *,
        tls: ssl.SSLContext | None = None,
        idle_timeout: float = 60.0,
        connect_timeout: float = 10.0,
    ) -> None:
        self.origin = origin
        self._tls = tls if tls or origin.scheme != "https" else ssl.create_default_context()
        self._idle_timeout = idle_timeout
        self._connect_timeout = connect_timeout
        self._scratch = memoryview(bytearray(SCRATCH))
        self._idle: list[Connection] = []
        self._busy: set[Connection] = set()
        self._sweeper: asyncio.TimerHandle | None = None

    async def request(
        self,
        method: str,
        target: str,
        headers: Iterable[tuple[str, str]],
        body: Data | AsyncIterator[Data] = b"",
        *,
        size: int = 0,
        limit: int,
        into: memoryview | None = None,
    ) -> Response:
        """Sends one request and returns its whole answer, whatever the status.

        target: path and query, already encoded. size: bytes of the body. limit: the most bytes of answer to hold.
        into: memory for a large answer; its body is then a part of that.
        Raises OSError (TimeoutError, StaleConnection and others) and AnswerTooLarge.
        """
        head = _serialise(method, target, headers, size)
        connection = self._reusable() or await self._connect()
        loop = connection.loop
        exchange = Exchange(loop.create_future(), is_head=method == "HEAD", limit=limit, into=into)
        connection.exchange = exchange
        connection.activity = loop.time()
        connection.measured = 0.0
        self._busy.add(connection)
        if self._sweeper is None:
            self._sweeper = loop.call_later(self._idle_timeout / 4, self._sweep)
        try:
            if connection.lost:
                raise StaleConnection("kept-alive connection was closed")
            await connection.send(head, body, size)
            sent_all = not connection.lost and not exchange.done.done()
            await exchange.done
            # What is still to be sent lies in memory that the caller will use again: such a connection is given up.
            sent_all = sent_all and connection.transport.get_write_buffer_size() == 0
            if exchange.keep_alive and sent_all and not connection.lost:
                self._keep(connection)
            return exchange.response()
        finally:
            connection.exchange = None
            exchange.end()
            self._busy.discard(connection)
            if connection.idle_since == 0.0:
                connection.transport.abort()

    def _keep(self, connection: Connection) -> None:
        connection.fresh = False
        connection.idle_since = connection.loop.time()
        self._idle.append(connection)

    def _reusable(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if not connection.lost and connection.loop.time() - connection.idle_since < IDLE_REUSE:
                connection.idle_since = 0.0
                return connection
            connection.transport.abort()
        return None

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self._connect_timeout):
            _, connection = await loop.create_connection(
                lambda: Connection(loop, self._scratch), self.origin.host, self.origin.port, ssl=self._tls
            )
        return connection

    def _sweep(self) -> None:
        self._sweeper = None
        for connection in self._busy:
            exchange = connection.exchange
            if exchange is not None and connection.stalled(connection.loop.time(), self._idle_timeout):
                exchange.fail(TimeoutError(f"no byte moved for {self._idle_timeout:g} s"))
                connection.transport.abort()
        if self._busy:
            loop = asyncio.get_running_loop()
            self._sweeper = loop.call_later(self._idle_timeout / 4, self._sweep)

    async def close(self) -> None:
        """Closes every connection; exchanges under way fail."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for connection in [*self._idle, *self._busy]:
            connection.transport.abort()
        self._idle.clear()
        await asyncio.sleep(0)


def _serialise(method: str, target: str, headers: Iterable[tuple[str, str]], size: int) -> bytes:
    lines = [f"{method} {target} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers]
    if size or method in ("PUT", "POST"):
        lines.append(f"content-length: {size}")
    text = "\r\n".join(lines)
    if text.count("\n") != len(lines) - 1 or text.count("\r") != len(lines) - 1:
        raise ValueError("a header or the request target contains a line break")
    return (text + "\r\n\r\n").encode("utf-8", "surrogateescape")
