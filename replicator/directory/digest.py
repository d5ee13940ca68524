"""The ETag that a file has at a bucket once it is there: the MD5 of its bytes, or that of its parts' MD5s."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence

from replicator.errors import ChangedMeanwhile
from replicator.model import MiB
from replicator.multipart import Layout, Part, composite_etag, default_layout, guess_layout, md5_of, parts_of

SINGLE = 32 * MiB
"""Bytes up to which a file is sent in one request."""

PART_SIZE = 16 * MiB
"""Bytes of a part of a larger one, unless 10,000 would not do."""

BLOCK = MiB
"""Bytes read at once for a digest."""


def layout_of(size: int) -> Layout | None:
    """How a file of that size is cut into parts; None for one that is sent as a whole."""
    return default_layout(size, PART_SIZE) if size > SINGLE else None


def layout_by_etag(size: int, etag: str) -> Layout | None:
    """How a file is likely cut whose ETag has that many parts: as here, or in parts of a usual size."""
    count = parts_of(etag)
    if count is None:
        return None
    layout = layout_of(size)
    return layout if layout is not None and len(layout) == count else guess_layout(size, count)


def etag_of_bytes(data: memoryview) -> str:
    """The ETag of bytes in memory."""
    layout = layout_of(len(data))
    if layout is None:
        return md5_of(data).hex()
    return _composite([md5_of(data[part.offset : part.offset + part.size]) for part in layout])


def etag_of_file(descriptor: int, size: int, layout: Layout | None, key: str) -> str:
    """The ETag of an open file of that size, cut like this. Raises ChangedMeanwhile when it is shorter."""
    if layout is None:
        return _digest(descriptor, Part(1, 0, size), key).hex()
    return _composite([_digest(descriptor, part, key) for part in layout])


def read_into(descriptor: int, memory: memoryview, offset: int, key: str) -> None:
    """Fills memory from an offset on. Raises ChangedMeanwhile when the file ends before."""
    done = 0
    while done < len(memory):
        count = os.preadv(descriptor, [memory[done:]], offset + done)
        if count == 0:
            raise ChangedMeanwhile("read", key, "the file became shorter while it was read")
        done += count


def _digest(descriptor: int, part: Part, key: str) -> bytes:
    digest = hashlib.md5(usedforsecurity=False)
    block = memoryview(bytearray(min(BLOCK, part.size)))
    for offset in range(part.offset, part.offset + part.size, BLOCK):
        piece = block[: min(BLOCK, part.offset + part.size - offset)]
        read_into(descriptor, piece, offset, key)
        digest.update(piece)
    return digest.digest()


def _composite(digests: Sequence[bytes]) -> str:
    etag = composite_etag([digest.hex() for digest in digests])
    if etag is None:
        raise AssertionError("a layout has at least one part")
    return etag
