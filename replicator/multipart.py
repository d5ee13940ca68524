"""Arithmetic of parts: layouts, ranges and composite ETags. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from replicator.model import GiB, MiB

MAX_PARTS = 10_000
MIN_PART = 5 * MiB
MAX_PART = 5 * GiB
MAX_SINGLE = 5 * GiB
"""Limits of S3: docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html. MIN_PART holds for all but the last."""

USUAL_PART_SIZES = tuple(n * MiB for n in (8, 16, 5, 64, 15, 32, 10, 100, 50, 128, 256, 512, 1024, 25, 20, 6, 12))
"""Part sizes that common tools use by default: tried first when a store does not tell its layout."""


_MD5 = re.compile("[0-9a-fA-F]{32}")


@dataclass(frozen=True, slots=True)
class Part:
    """One part: its number from 1, the offset of its first byte and its length in bytes."""

    number: int
    offset: int
    size: int

    @property
    def last(self) -> int:
        """Offset of the part's last byte, as a Range header wants it."""
        return self.offset + self.size - 1


Layout = tuple[Part, ...]


def parts_of(etag: str) -> int | None:
    """The number of parts that an ETag of the form "<md5>-<parts>" announces; None for any other ETag."""
    digest, dash, count = etag.rpartition("-")
    if not dash or len(digest) != 32 or not count.isdecimal() or not count.isascii():
        return None
    number = int(count)
    return number if 1 <= number <= MAX_PARTS else None


def is_md5(etag: str) -> bool:
    """Whether an ETag has the form of an MD5 digest, as single-part objects have it."""
    return _MD5.fullmatch(etag) is not None


def md5_of(data: bytes | bytearray | memoryview) -> bytes:
    """MD5 digest of bytes, as S3 uses it: against accidents, not against attackers."""
    return hashlib.md5(data, usedforsecurity=False).digest()


def promised_md5(etag: str) -> bytes | None:
    """The MD5 that an ETag promises for an object's bytes, if it has the form of one."""
    return bytes.fromhex(etag) if is_md5(etag) else None


def uniform(size: int, part_size: int) -> Layout:
    """Cuts `size` bytes (> 0) into parts of `part_size` bytes; the last one may be shorter."""
    if size <= 0 or part_size <= 0:
        raise ValueError(f"cannot cut {size} bytes into parts of {part_size}")
    return tuple(
        Part(number, offset, min(part_size, size - offset))
        for number, offset in enumerate(range(0, size, part_size), start=1)
    )


def from_sizes(sizes: Sequence[int]) -> Layout:
    """The layout of parts that have these sizes, in order."""
    parts, offset = [], 0
    for number, size in enumerate(sizes, start=1):
        parts.append(Part(number, offset, size))
        offset += size
    return tuple(parts)


def layout_from_first(size: int, count: int, first: int) -> Layout | None:
    """The uniform layout with `count` parts whose first has `first` bytes, or None if there is none."""
    if size <= 0 or first <= 0 or -(-size // first) != count:
        return None
    return uniform(size, first)


def guess_layout(size: int, count: int) -> Layout | None:
    """The likeliest uniform layout of `count` parts, for stores that do not tell it; None if none is possible.

    It is only a guess: the composite ETag proves or refutes it before the copy is completed. Usual sizes come
    first, then a whole number of MiB, then the smallest size that fits.
    """
    if count == 1:
        return uniform(size, size) if size > 0 else None
    smallest = -(-size // count)
    largest = -(-size // (count - 1)) - 1
    if size <= 0 or smallest > largest:
        return None
    usual = [part for part in USUAL_PART_SIZES if smallest <= part <= largest]
    if usual:
        return uniform(size, usual[0])
    whole = -(-smallest // MiB) * MiB
    return uniform(size, whole if whole <= largest else smallest)


def default_layout(size: int, part_size: int) -> Layout:
    """A layout of our own for `size` bytes: `part_size`, made larger where 10,000 parts would not be enough."""
    least = -(-size // MAX_PARTS)
    needed = max(part_size, MIN_PART, -(-least // MiB) * MiB)
    return uniform(size, needed)


def acceptable(layout: Layout) -> bool:
    """Whether AWS would take this layout: at most 10,000 parts, none over 5 GiB, none but the last under 5 MiB."""
    if not layout or len(layout) > MAX_PARTS:
        return False
    return all(part.size <= MAX_PART for part in layout) and all(part.size >= MIN_PART for part in layout[:-1])


class PartsProof(Enum):
    """What stored parts prove, see judge_parts."""

    EQUAL = "equal ETag"
    CORRUPTED = "corrupted"
    DIGESTS = "equal by digests"
    READ_AGAIN = "unknown until read again"


def judge_parts(stored: Sequence[str], digests: Sequence[bytes] | None, source_etag: str) -> PartsProof:
    """What the ETags of stored parts prove about an object of that ETag.

    stored: ETags as the target answered. digests: MD5s of the parts as they were read and sent, None if not taken.

    | stored make the source's ETag | digests known | stored != digest | digests make it | gives      |
    |-------------------------------|---------------|------------------|-----------------|------------|
    | yes                           |               |                  |                 | EQUAL      |
    | no                            | no            |                  |                 | CORRUPTED  |
    | no                            | yes           | for some parts   |                 | CORRUPTED  |
    | no                            | yes           | for all or none  | yes             | DIGESTS    |
    | no                            | yes           | for all or none  | no              | READ_AGAIN |

    A target whose ETags differ for all parts has ETags of its own (encryption); its Content-MD5 check proves the bytes.
    """
    if composite_etag(stored) == source_etag:
        return PartsProof.EQUAL
    if digests is None:
        return PartsProof.CORRUPTED
    sent = [digest.hex() for digest in digests]
    wrong = sum(1 for mine, theirs in zip(sent, stored, strict=True) if is_md5(theirs) and mine != theirs)
    if 0 < wrong < len(sent):
        return PartsProof.CORRUPTED
    return PartsProof.DIGESTS if composite_etag(sent) == source_etag else PartsProof.READ_AGAIN


def composite_etag(part_etags: Sequence[str]) -> str | None:
    """The ETag of a multipart object made of parts with these ETags; None when one of them is no MD5."""
    if not part_etags or not all(is_md5(etag) for etag in part_etags):
        return None
    digest = hashlib.md5(b"".join(bytes.fromhex(etag) for etag in part_etags), usedforsecurity=False)
    return f"{digest.hexdigest()}-{len(part_etags)}"
