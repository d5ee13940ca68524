"""A TCP server that sends exactly the bytes it is told to: what no real server can be made to say."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came in. Header names are in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


async def settle() -> None:
    """Lets the other side of a local connection see what was sent: both sides share one event loop."""
    for _ in range(5):
        await asyncio.sleep(0)


async def becomes(condition: Callable[[], object]) -> bool:
    """Whether it becomes true: what is sent on a local connection arrives at once nearly always."""
    ends = time.monotonic() + 60
    while not condition() and time.monotonic() < ends:
        await asyncio.sleep(0.001)
    return bool(condition())


class Talk:
    """One connection, as a script sees it."""

    def __init__(self, server: HttpServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.server = server
        self.reader = reader
        self.writer = writer

    async def head(self) -> Request | None:
        """Reads a request without its body; None when the client has closed the connection."""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        line, *lines = head.decode("utf-8").split("\r\n")[:-2]
        method, target, _ = line.split(" ")
        pairs = (header.split(": ", 1) for header in lines)
        return Request(method, target, {name.lower(): value for name, value in pairs}, b"")

    async def request(self) -> Request | None:
        """Reads a whole request and notes it in `server.requests`; None when the client has closed the connection."""
        head = await self.head()
        if head is None:
            return None
        body = await self.reader.readexactly(int(head.headers.get("content-length", "0")))
        request = Request(head.method, head.target, head.headers, body)
        self.server.requests.append(request)
        return request

    async def send(self, *pieces: bytes) -> None:
        """Sends the pieces one by one; the client sees each by itself."""
        for piece in pieces:
            if piece:
                self.writer.write(piece)
                await settle()

    async def closed(self) -> None:
        """Waits until the client closes the connection."""
        try:
            while await self.reader.read(65536):
                pass
        except ConnectionError:
            return


Script = Callable[[Talk], Awaitable[None]]
"""What one connection does; when it returns, the connection is closed."""


def answering(*answers: bytes | tuple[bytes, ...]) -> Script:
    """Answers one request after the other on a connection that stays open; a tuple is sent in its pieces."""

    async def script(talk: Talk) -> None:
        for answer in answers:
            if await talk.request() is None:
                return
            await talk.send(*([answer] if isinstance(answer, bytes) else answer))
        await talk.closed()

    return script


def hanging_up_after(*answers: bytes | tuple[bytes, ...]) -> Script:
    """The same, but the server closes the connection after the last answer."""

    async def script(talk: Talk) -> None:
        for answer in answers:
            if await talk.request() is None:
                return
            await talk.send(*([answer] if isinstance(answer, bytes) else answer))

    return script


def ok(body: bytes = b"", *headers: str, status: str = "200 OK") -> bytes:
    """A complete answer with a Content-Length."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class HttpServer:
    """Plays one script for each connection, in order; the last one again for all that follow.

    requests: all that were read whole. connections: how many were made. open: how many are open now.
    """

    def __init__(self, *scripts: Script) -> None:
        self.requests: list[Request] = []
        self.connections = 0
        self.open = 0
        self.port = 0
        self._scripts = scripts
        self._server: asyncio.Server
        self._talks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """The endpoint."""
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._talks:
            task.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._talks.add(task)
        script = self._scripts[min(self.connections, len(self._scripts) - 1)]
        self.connections += 1
        self.open += 1
        try:
            await script(Talk(self, reader, writer))
        except (ConnectionError, asyncio.CancelledError):
            pass  # the client went away, or the test is over
        finally:
            self._talks.discard(task)
            writer.close()
            self.open -= 1
