"""Folders for tests: trees with any names, rights that bind root as well, and who opened what."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from replicator.directory.store import DirectoryStore

LIBC = ctypes.CDLL(None, use_errno=True)
CAPABILITIES_3 = 0x20080522
READ_ANYTHING = (1, 2)
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH of linux/capability.h."""
CAP_LEASE = 28
IN_OPEN, IN_CLOSE = 0x20, 0x18
"""Of linux/inotify.h. With the closing between them, two openings are not told as one."""


def put(base: Path, key: str, data: bytes = b"x") -> Path:
    """Writes a file and the folders that it is in, however long its path is."""
    *folders, name = key.split("/")
    here = os.open(base, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for folder in folders:
            if not _is_there(folder, here):
                os.mkdir(folder, dir_fd=here)
            further = os.open(folder, os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
            os.close(here)
            here = further
        with open(name, "wb", opener=lambda path, flags: os.open(path, flags, 0o644, dir_fd=here)) as file:
            file.write(data)
    finally:
        os.close(here)
    return base / key


def tree(base: Path, keys: Sequence[str]) -> None:
    """A file at each key, with the key as its content."""
    for key in keys:
        put(base, key, os.fsencode(key))


def age(path: Path, seconds: float, *, now: float) -> None:
    """Makes it look as if it had last been changed so many seconds before."""
    os.utime(path, (now - seconds, now - seconds), follow_symlinks=False)


def rewrite_keeping_times(path: Path, data: bytes) -> None:
    """Writes other bytes into the same file and puts its modification time back; only its change time tells."""
    before = path.stat()
    while path.stat().st_ctime_ns == before.st_ctime_ns:  # a tick of the clock, where it is coarse
        with path.open("r+b") as file:
            file.write(data)
            file.truncate()
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


async def keys_of(store: DirectoryStore, after: str = "", page_size: int = 1000) -> list[str]:
    """All that a listing gives; each of its pages has something, and not too much."""
    found: list[str] = []
    async for page in store.list_pages(after=after, page_size=page_size):
        assert 0 < len(page) <= page_size
        found += [entry.key for entry in page]
    return found


@contextmanager
def unprivileged(*capabilities: int) -> Iterator[None]:
    """Runs as a user whom rights bind: root gives up what lets it pass them by; threads begun meanwhile lack it too."""
    given_up = capabilities or READ_ANYTHING
    if os.geteuid() != 0:
        if capabilities:
            pytest.skip("needs root")
        yield
        return
    header, held = _capabilities()
    without = list(held)
    for number in given_up:
        without[0] &= ~(1 << number)
    if LIBC.capset(header, (ctypes.c_uint32 * 6)(*without)) != 0:
        pytest.skip("needs a system in which root can give up capabilities")
    try:
        yield
    finally:
        assert LIBC.capset(header, (ctypes.c_uint32 * 6)(*held)) == 0


class WrongETags:
    """Known ETags that a test makes up; whoever believes them has not read the file."""

    def __init__(self, pairs: Mapping[str, tuple[str, str]]) -> None:
        self.pairs = pairs
        self.asked: list[tuple[str, str]] = []

    def known(self, after: str, upto: str) -> Mapping[str, tuple[str, str]]:
        self.asked.append((after, upto))
        return {key: pair for key, pair in self.pairs.items() if after < key <= upto}


@contextmanager
def counting_opens(path: Path) -> Iterator[Callable[[], int]]:
    """How often something was opened since, as the system tells: also a pipe or a device."""
    watch = LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if watch < 0 or LIBC.inotify_add_watch(watch, os.fsencode(path), IN_OPEN | IN_CLOSE) < 0:
        pytest.skip("needs inotify")
    seen = 0

    def count() -> int:
        nonlocal seen
        try:
            told = os.read(watch, 65536)
        except BlockingIOError:
            return seen
        while told:
            _, mask, _, length = struct.unpack_from("iIII", told)
            seen += bool(mask & IN_OPEN)
            told = told[16 + length :]
        return seen

    try:
        yield count
    finally:
        os.close(watch)


def _capabilities() -> tuple[ctypes.Array[ctypes.c_uint32], list[int]]:
    header = (ctypes.c_uint32 * 2)(CAPABILITIES_3, 0)
    held = (ctypes.c_uint32 * 6)()
    assert LIBC.capget(header, held) == 0
    return header, list(held)


def _is_there(name: str, folder: int) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
