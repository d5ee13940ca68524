"""Where a server listens, as people write it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from replicator.errors import ConfigurationError

_LISTEN = re.compile(r"(?:(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]*):)?(\d{1,5})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Listen:
    """An address to listen at. host: None for every address of the machine."""

    host: str | None
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if self.host and ":" in self.host else self.host or ""
        return f"{host}:{self.port}"


def parse_listen(text: str, option: str) -> Listen:
    """The address that ":9108", "9108", "127.0.0.1:9108" or "[::1]:9108" stands for.

    Raises ConfigurationError, which names the option.
    """
    found = _LISTEN.fullmatch(text.strip())
    if found is None or not 1 <= int(found[2]) <= 65535:
        raise ConfigurationError(f"{option} {text!r}: must be :PORT or HOST:PORT, as :9108 or 127.0.0.1:9108")
    return Listen((found[1] or "").strip("[]") or None, int(found[2]))
