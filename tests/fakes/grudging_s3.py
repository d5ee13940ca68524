"""A small S3 server that refuses requests as it is told, and counts them: no real server can be made to throttle."""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar
from urllib.parse import parse_qs, quote, unquote, urlsplit

Refuses = Callable[[], bool]
Store = TypeVar("Store", bound="GrudgingS3")

SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
NOT_FOUND = b"<Error><Code>NoSuchKey</Code><Message>not there</Message></Error>"
LONG_AGO = 1_700_000_000.0


def by_chance(share: float, seed: int = 1) -> Refuses:
    """Refuses that share of all requests."""
    chance = random.Random(seed)
    return lambda: chance.random() < share


def above_rate(most: int, clock: Callable[[], float] = time.monotonic) -> Refuses:
    """Refuses what would be more than `most` requests within the last second."""
    served: deque[float] = deque()
    lock = threading.Lock()

    def refuses() -> bool:
        with lock:
            now = clock()
            while served and served[0] <= now - 1:
                served.popleft()
            if len(served) >= most:
                return True
            served.append(now)
            return False

    return refuses


class GrudgingS3:
    """url: of the server. objects: key to bytes, of its only bucket, whatever that is called. asked: by answer.

    connections: how many are open now, counted in the order in which they were made.
    """

    def __init__(self, refuses: Refuses) -> None:
        self.objects: dict[str, bytes] = {}
        self.written: dict[str, float] = {}
        self.asked: Counter[str] = Counter()
        self.refuses = refuses
        self.url = ""
        self.connections: Callable[[], int] = lambda: 0

    def answer(self, method: str, target: str, body: bytes) -> tuple[int, bytes, dict[str, str]]:
        """Status, body and headers."""
        if self.refuses():
            self.asked["refused"] += 1
            return 503, SLOW_DOWN, {}
        self.asked["served"] += 1
        parts = urlsplit(target)
        _, _, key = parts.path.lstrip("/").partition("/")
        key = unquote(key)
        if not key:
            return 200, self._list(parse_qs(parts.query, keep_blank_values=True)), {}
        if method == "PUT":
            self.objects[key], self.written[key] = body, time.time()
        if method == "DELETE":
            self.objects.pop(key, None)
            return 204, b"", {}
        if key not in self.objects:
            return 404, NOT_FOUND, {}
        data = self.objects[key]
        headers = {
            "ETag": f'"{hashlib.md5(data).hexdigest()}"',
            "Last-Modified": formatdate(self._time(key), usegmt=True),
        }
        return 200, b"" if method == "PUT" else data, headers

    def _time(self, key: str) -> float:
        return self.written.get(key, LONG_AGO)

    def _iso(self, key: str) -> str:
        return datetime.fromtimestamp(self._time(key), UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")

    def _list(self, query: dict[str, list[str]]) -> bytes:
        after = query.get("continuation-token", query.get("start-after", [""]))[0]
        prefix, most = query.get("prefix", [""])[0], int(query.get("max-keys", ["1000"])[0])
        keys = sorted(key for key in self.objects if key > after and key.startswith(prefix))
        entries = "".join(
            f"<Contents><Key>{quote(key)}</Key><LastModified>{self._iso(key)}</LastModified>"
            f"<ETag>&quot;{hashlib.md5(self.objects[key]).hexdigest()}&quot;</ETag>"
            f"<Size>{len(self.objects[key])}</Size></Contents>"
            for key in keys[:most]
        )
        more = len(keys) > most
        token = f"<NextContinuationToken>{keys[most - 1]}</NextContinuationToken>" if more else ""
        truncated = f"<IsTruncated>{str(more).lower()}</IsTruncated><EncodingType>url</EncodingType>"
        return f"<ListBucketResult>{truncated}{token}{entries}</ListBucketResult>".encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    _open = 0
    _lock = threading.Lock()

    def connections(self) -> int:
        return self._open

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - socketserver's
        self._count(1)
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - socketserver's
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._count(-1)

    def _count(self, change: int) -> None:
        with self._lock:
            self._open += change

    def handle_error(self, *_: object) -> None:
        """A client that is killed goes in the middle of an answer."""


@contextmanager
def serving(refuses: Refuses) -> Iterator[GrudgingS3]:
    """The server, for as long as the block runs."""
    with answering(GrudgingS3(refuses)) as store:
        yield store


@contextmanager
def answering(store: Store) -> Iterator[Store]:
    """Lets a store answer requests over HTTP."""

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
    store.connections = server.connections
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield store
    finally:
        server.shutdown()
        server.server_close()
