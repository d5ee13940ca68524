"""Lists of keys made by a person or a program: the FILE of --keys.

| the first block of the file     | a key ends with | so a key may hold                          |
|---------------------------------|-----------------|--------------------------------------------|
| has a NUL byte (`find -print0`) | NUL             | anything else, line breaks too             |
| all its lines end with CR LF    | CR LF or LF     | anything but LF                            |
| otherwise                       | LF              | anything but LF, a CR as its last byte too |

CR LF is what Windows ends lines with, and nobody who writes a list there means the CR. Keys that end with CR are real
too (macOS names icons of folders so): in a list with a plain line in its first block they are left as they are, and
ended by NUL they always are.

Keys are UTF-8 and taken literally: nothing is trimmed, unquoted or a comment. Empty ones are skipped, and so is a byte
order mark at the very start, which Windows adds without being asked.
"""

from __future__ import annotations

import codecs
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import BinaryIO

from replicator.errors import ConfigurationError
from replicator.model import LONGEST_KEY

STDIN = Path("-")

BLOCK = 64 * 1024
"""Bytes read at once, and looked at to see what kind of list it is."""


def read_keys(path: Path) -> Iterator[str]:
    """The keys of a list, a block of it in memory at a time. STDIN is the standard input.

    Raises ConfigurationError, which names the file and the line (or the number of the key, if NUL ends them), when it
    comes to what is no key: bad UTF-8, too long, a NUL byte in a list of lines. Use check_keys to know before.
    """
    try:
        with _opened(path) as file:
            yield from _keys(file, f"--keys {path}")
    except OSError as error:
        raise ConfigurationError(f"--keys {path}: {error.strerror or error}") from error


def check_keys(path: Path) -> None:
    """Reads a list once through, so that a bad one is refused before anything is changed. Raises as read_keys does.

    Does nothing for what can be read only once: the standard input, pipes, `<(...)` of a shell.
    """
    if not (path == STDIN or path.is_fifo() or path.is_char_device()):
        deque(read_keys(path), maxlen=0)


def _opened(path: Path) -> AbstractContextManager[BinaryIO]:
    """The file for reading; the standard input stays open, as it is not ours."""
    if path == STDIN and sys.stdin is None:  # a process may be started without one
        raise OSError("there is no standard input")
    return nullcontext(sys.stdin.buffer) if path == STDIN else path.open("rb")


def _keys(file: BinaryIO, name: str) -> Iterator[str]:
    block = file.read(BLOCK).removeprefix(codecs.BOM_UTF8)
    ended_by_nul = b"\0" in block
    end, called = (b"\0", "key") if ended_by_nul else (b"\n", "line")
    from_windows = not ended_by_nul and 0 < block.count(b"\n") == block.count(b"\r\n")
    for number, entry in enumerate(_entries(file, block, end), 1):
        key = entry.removesuffix(b"\r") if from_windows else entry
        if key:
            yield _decoded(key, f"{name}: {called} {number}")


def _entries(file: BinaryIO, block: bytes, end: bytes) -> Iterator[bytes]:
    """What stands between the ends; stops early at one that is too long, so that it is never held as a whole."""
    rest = b""
    while block:
        *entries, rest = (rest + block).split(end)
        yield from entries
        if len(rest) > LONGEST_KEY + len(b"\r"):
            break
        block = file.read(BLOCK)
    yield rest


def _decoded(key: bytes, where: str) -> str:
    if b"\0" in key:
        raise ConfigurationError(f"{where} has a NUL byte in it; end all keys with NUL, or none")
    if len(key) > LONGEST_KEY:
        raise ConfigurationError(f"{where} is longer than the {LONGEST_KEY:,} bytes that a key may have")
    try:
        return key.decode()
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{where} is not UTF-8: save the list as UTF-8") from error
