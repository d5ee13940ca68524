"""A relay in front of a server that counts what it is sent, and which parts of uploads, and can stand still."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tests.servers.base import HOST

_PART = re.compile(
    rb"PUT [^ ]*[?&]partNumber=(\d+)[^ ]* HTTP/1\.1\r\n(?:[^\r\n]*\r\n)*?content-length: (\d+)\r\n", re.I
)


@dataclass(slots=True)
class Meter:
    """url: of the relay. sent: bytes to the server. parts: (number, bytes announced) of every UploadPart request."""

    url: str
    sent: int = 0
    parts: list[tuple[int, int]] = field(default_factory=list)
    _limit: float = float("inf")
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def stand_still_at(self, limit: float) -> None:
        """Lets no byte pass to the server any more once so many were sent, until that is lifted by another limit."""
        with self._changed:
            self._limit = limit
            self._changed.notify_all()

    @property
    def stands_still(self) -> bool:
        """Whether so many were sent."""
        return self.sent >= self._limit

    def count(self, data: bytes) -> None:
        """Takes note of bytes to the server, and returns when they may pass."""
        found = _PART.match(data) if data.startswith(b"PUT ") else None
        with self._changed:
            self.sent += len(data)
            if found:
                self.parts.append((int(found[1]), int(found[2])))
            self._changed.wait_for(lambda: not self.stands_still)


@contextmanager
def metered(url: str) -> Iterator[Meter]:
    """A relay to the server at `url`, for as long as the block runs."""
    where = urlsplit(url)
    listener = socket.create_server((HOST, 0))
    meter = Meter(f"http://{HOST}:{listener.getsockname()[1]}")

    def accept() -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection((where.hostname or "", where.port or 80))
                for one, other, counts in ((near, far, meter), (far, near, None)):
                    threading.Thread(target=_relay, args=(one, other, counts), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield meter
    finally:
        listener.close()
        meter.stand_still_at(float("inf"))


def _relay(one: socket.socket, other: socket.socket, counts: Meter | None) -> None:
    with suppress(OSError):
        while data := one.recv(256 * 1024):
            if counts is not None:
                counts.count(data)
            other.sendall(data)
    for end in (one, other):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()
