"""Keeps two runs from moving the same folder at once."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from replicator.errors import ConfigurationError


class InUse(Exception):
    """Another run has the folder."""


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Holds the folder for as long as the block runs, and its process lives. Raises InUse.

    The lock is on the folder itself: nothing is written, and nothing is left behind by a process that was killed.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigurationError(f"{folder}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InUse from None
        yield
    finally:
        os.close(descriptor)
