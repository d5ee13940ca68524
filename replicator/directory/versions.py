"""What tells one version of a file from another, and which ETags of versions are known."""

from __future__ import annotations

import os
import stat
from threading import Lock

REMEMBERED = 20_000
"""ETags that are kept in memory."""

TICK, WHOLE_SECONDS = 0.05, 2.0
"""Seconds for which a file must have been left alone before it is read, for its version to be believed later: two
writes within a tick of the file system's clock have one time. Some only have whole seconds.
"""


def version_of(found: os.stat_result, fingerprint: str) -> str:
    """Names a file with these bytes and attributes; "" of what is no file.

    The time of change is in it, which tells of writes that set the other one back. fingerprint: of the attributes.
    """
    if not stat.S_ISREG(found.st_mode):
        return ""
    numbers = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    return "-".join([*(f"{number:x}" for number in numbers), fingerprint]).rstrip("-")


def believable_from(found: os.stat_result) -> float:
    """When a reading must have begun for this version to be believed later, in seconds since the epoch."""
    coarse = found.st_ctime_ns % 1_000_000_000 == 0
    return found.st_ctime + (WHOLE_SECONDS if coarse else TICK)


class Remembered:
    """ETags of files, each for one version; the oldest are forgotten. May be used from several threads."""

    def __init__(self) -> None:
        self._etags: dict[str, tuple[str, str]] = {}
        self._lock = Lock()

    def get(self, key: str, version: str) -> str | None:
        """The ETag of that version; None if it is not known."""
        known, etag = self._etags.get(key, ("", ""))
        return etag if version and known == version else None

    def put(self, key: str, version: str, etag: str) -> None:
        """Replaces what was known of the key."""
        with self._lock:
            self._etags.pop(key, None)
            self._etags[key] = version, etag
            if len(self._etags) > REMEMBERED:
                del self._etags[next(iter(self._etags))]
