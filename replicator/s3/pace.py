"""Holds all processes of a run to a number of requests, and of bytes, a second at each endpoint."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import struct
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

AHEAD = 0.1
"""Seconds of the allowance that may be used at once after a pause."""

_MOMENT = struct.Struct("d")


class SharedRate:
    """Lets `rate` units a second pass, over all processes that use the same file.

    The file holds the moment from which on the next unit may pass. Its lock goes with the process that holds it, so
    that one that is killed stops nobody. clock: seconds, the same in all processes (CLOCK_MONOTONIC is).
    """

    def __init__(
        self,
        path: Path,
        rate: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._rate = rate
        self._clock = clock
        self._sleep = sleep

    async def take(self, units: float) -> None:
        """Returns when so many units may pass; first come first served."""
        wait = self._reserve(units)
        if wait > 0:
            await self._sleep(wait)

    def _reserve(self, units: float) -> float:
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            now = self._clock()
            stored = os.pread(self._file, _MOMENT.size, 0)
            free = max(_MOMENT.unpack(stored)[0] if stored else 0.0, now - AHEAD)
            os.pwrite(self._file, _MOMENT.pack(free + units / self._rate), 0)
            return free - now
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Lets go of the file."""
        os.close(self._file)


@dataclass(frozen=True, slots=True)
class Pace:
    """What one endpoint may be asked. requests: one unit each. bytes_: of bodies, both ways. None: no limit."""

    requests: SharedRate | None = None
    bytes_: SharedRate | None = None

    def close(self) -> None:
        """Lets go of the files."""
        for rate in (self.requests, self.bytes_):
            if rate is not None:
                rate.close()


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a run.

    directory: where its processes share them. max_rps, bandwidth: requests and bytes a second at each endpoint.
    """

    directory: Path
    max_rps: float | None = None
    bandwidth: int | None = None

    def at(self, url: str) -> Pace:
        """The pace for an endpoint, shared with all who ask for the same one."""
        name = hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:16]
        return Pace(
            None if self.max_rps is None else SharedRate(self.directory / f"{name}.requests", self.max_rps),
            None if self.bandwidth is None else SharedRate(self.directory / f"{name}.bytes", self.bandwidth),
        )
