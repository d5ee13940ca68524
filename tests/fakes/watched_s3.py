"""A GrudgingS3 that notes every request, and lets a test answer some of them by itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

from tests.fakes.grudging_s3 import GrudgingS3

Answer = tuple[int, bytes, dict[str, str]]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request. key: "" if it is about the bucket. query: each name with its last value. size: of the body."""

    method: str
    key: str
    query: dict[str, str]
    size: int
    at: float

    @property
    def page(self) -> str | None:
        """The key after which a page is to be listed; None for any other request, single keys too."""
        if self.method != "GET" or self.key or self.query.get("max-keys") == "1":
            return None
        return self.query.get("continuation-token", self.query.get("start-after", ""))


Rule = Callable[[Asked], Answer | None]


class Watched(GrudgingS3):
    """log: all requests, in order. rule: answers those for which it does not return None."""

    def __init__(self, rule: Rule) -> None:
        super().__init__(lambda: False)
        self.rule = rule
        self.log: list[Asked] = []

    def of(self, method: str) -> list[str]:
        """The keys of objects that were asked for by this method."""
        return [one.key for one in self.log if one.method == method and one.key]

    def answer(self, method: str, target: str, body: bytes) -> Answer:
        """By the rule, or as usual."""
        parts = urlsplit(target)
        query = {name: values[-1] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        asked = Asked(method, unquote(parts.path.lstrip("/").partition("/")[2]), query, len(body), time.monotonic())
        self.log.append(asked)
        return self.rule(asked) or super().answer(method, target, body)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, *_: object) -> None:
        """A client that is killed goes in the middle of an answer."""


@contextmanager
def watched(rule: Rule = lambda _: None) -> Iterator[Watched]:
    """The server, for as long as the block runs."""
    store = Watched(rule)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # an answer in two packets takes 40 ms more

        def handle_one(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", "0")))
            status, answer, headers = store.answer(self.command, self.path, body)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_one

        def log_message(self, *_: object) -> None:
            pass

    server = _Server(("127.0.0.1", 0), Handler)
    store.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield store
    finally:
        server.shutdown()
        server.server_close()
