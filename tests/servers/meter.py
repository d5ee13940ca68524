"""A relay in front of a server that counts what parts of uploads it is sent."""

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
    """url: of the relay. connections: so far. parts: (number, bytes announced) of every UploadPart request."""

    url: str
    connections: int = 0
    parts: list[tuple[int, int]] = field(default_factory=list)


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
                meter.connections += 1
                far = socket.create_connection((where.hostname or "", where.port or 80))
                for one, other, seen in ((near, far, meter.parts), (far, near, None)):
                    threading.Thread(target=_relay, args=(one, other, seen), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield meter
    finally:
        listener.close()


def _relay(one: socket.socket, other: socket.socket, seen: list[tuple[int, int]] | None) -> None:
    with suppress(OSError):
        while data := one.recv(256 * 1024):
            if seen is not None and data.startswith(b"PUT "):
                found = _PART.match(data)
                if found:
                    seen.append((int(found[1]), int(found[2])))
            other.sendall(data)
    for end in (one, other):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()
