"""Millions of objects that nobody keeps: key, ETag, size and time of each are functions of its index.

Pages of a listing are made 1,000 entries at a time, by one replacement in a template: on a machine with two cores,
what the server uses is taken from the clients that are measured.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, overload
from urllib.parse import quote_plus
from xml.sax.saxutils import escape

BLOCK = 1000
"""Keys whose entries differ only in fields of fixed width, so that all are made at once and any can be cut out."""

AFTER_ALL = "\U0010ffff"
"""Greater than any character of a key."""

MTIME = "1700000000.000000000"
_NUMBER, _SALT = "#" * 6, "~" * 16  # where a template takes the number of its block, and what looks random of it
_MIX, _WORD = 0x9E3779B97F4A7C15, 2**64 - 1


class Virtual(NamedTuple):
    """One object."""

    key: str
    etag: str
    size: int
    modified: str


@dataclass(frozen=True, slots=True)
class Segment:
    """`count` keys of one form, the first of them with the index `first`.

    form: has {block}, 6 digits, then {offset}, a number below BLOCK, and may have {salt}, 16 digits of the block.
    """

    first: int
    count: int
    form: str

    def key(self, place: int) -> str:
        block, offset = divmod(place, BLOCK)
        return self.form.format(block=f"{block:06}", offset=offset, salt=_salt(block))


class VirtualKeys(Sequence[str]):
    """The keys of a bucket, in the order of their bytes, which is that of their code points."""

    def __init__(self, count: int, layout: str = "dirs") -> None:
        self._count = count
        self.segments = LAYOUTS[layout](count)

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self.key(i) for i in range(*index.indices(self._count))]
        return self.key(index)

    def key(self, index: int) -> str:
        if not 0 <= index < self._count:
            raise IndexError(index)
        segment = self.segment(index)
        return segment.key(index - segment.first)

    def segment(self, index: int) -> Segment:
        return next(each for each in reversed(self.segments) if index >= each.first)

    def end_of_block(self, index: int) -> int:
        """The index after the last one that has its template, and so its directory, with this one."""
        segment = self.segment(index)
        blocks = (index - segment.first) // BLOCK + 1
        return segment.first + min(segment.count, blocks * BLOCK)

    def after(self, key: str) -> int:
        """The index of the first key greater than `key`."""
        return bisect_right(self, key)

    def below(self, prefix: str) -> tuple[int, int]:
        """The first index of the keys that begin with `prefix`, and the one after the last."""
        first = bisect_left(self, prefix)
        return first, bisect_left(self, prefix + AFTER_ALL, lo=first)

    def find(self, key: str) -> int | None:
        index = bisect_left(self, key)
        return index if index < self._count and self.key(index) == key else None

    def describe(self, index: int, day: int) -> Virtual:
        """The object. day: of the month it was written on."""
        segment = self.segment(index)
        block, offset = divmod(index - segment.first, BLOCK)
        etag = _salt(block) + _salt(offset)
        return Virtual(self.key(index), etag, _size(offset), f"2026-01-{day:02}T{_time(offset)}.000Z")


def _dirs(count: int) -> list[Segment]:
    """Directories of 1,000 files."""
    return [Segment(0, count, "d{block}/f{offset:04}.bin")]


def _flat(count: int) -> list[Segment]:
    """No directories at all."""
    return [Segment(0, count, "{block}{offset:03}-{salt}.bin")]


def _skewed(count: int) -> list[Segment]:
    """99 % of the keys below one deep prefix with all that has to be encoded; so nothing to split at the top."""
    edge = count // 200
    deep = "data/Archiv der Größen & Maße/日本 + 東京/2026 🚀/all of it/{block}{offset:03} x.bin"
    counts = (edge, count - 2 * edge, edge)
    firsts = (0, edge, count - edge)
    forms = ("a/{block}{offset:03}.bin", deep, "z/{block}{offset:03}.bin")
    return [Segment(*of) for of in zip(firsts, counts, forms, strict=True) if of[1] or not of[0]]


LAYOUTS = {"dirs": _dirs, "flat": _flat, "skewed": _skewed}


def walk(
    keys: VirtualKeys, prefix: str, delimiter: str, start: int, limit: int
) -> tuple[list[range | str], int | None]:
    """What one page shows: ranges of keys and common prefixes, and the index that the next one starts with.

    delimiter: "" or "/": then all keys of a block have the same directory.
    """
    low, high = keys.below(prefix)
    at, shown, room = max(low, start), list[range | str](), limit
    while at < high and room:
        end = high
        if delimiter:
            key = keys.key(at)
            cut = key.find(delimiter, len(prefix)) + 1
            if cut:
                shown.append(key[:cut])
                at, room = keys.below(key[:cut])[1], room - 1
                continue
            end = keys.end_of_block(at)
        end = min(high, end, at + room)
        shown.append(range(at, end))
        at, room = end, room - (end - at)
    return shown, at if at < high else None


def contents(keys: VirtualKeys, shown: range, *, encoded: bool, day: int) -> list[bytes]:
    """The <Contents> elements of a range of keys, in pieces."""
    pieces, at = [], shown.start
    while at < shown.stop:
        segment, end = keys.segment(at), min(shown.stop, keys.end_of_block(at))
        block, offset = divmod(at - segment.first, BLOCK)
        template, width = _template(segment.form, encoded, day)
        piece = template if end - at == BLOCK else template[offset * width : (offset + end - at) * width]
        piece = piece.replace(_NUMBER.encode(), b"%06d" % block)
        pieces.append(piece.replace(_SALT.encode(), _salt(block).encode()))
        at = end
    return pieces


@lru_cache(maxsize=32)
def _template(form: str, encoded: bool, day: int) -> tuple[bytes, int]:
    """The entries of one block without its number, and the bytes of each."""
    entries = []
    for offset in range(BLOCK):
        key = form.format(block=_NUMBER, offset=offset, salt=_SALT)
        key = encode(key, safe="/#") if encoded else escape(key)
        entry = (
            f"<Contents><Key>{key}</Key><LastModified>2026-01-{day:02}T{_time(offset)}.000Z</LastModified>"
            f"<ETag>&quot;{_SALT}{_salt(offset)}&quot;</ETag><Size>{_size(offset)}</Size>"
            "<StorageClass>STANDARD</StorageClass></Contents>"
        )
        entries.append(entry.encode())
    [width] = {len(entry) for entry in entries}
    return b"".join(entries), width


def encode(text: str, safe: str = "/") -> str:
    """As encoding-type=url has it at AWS: a space is a plus."""
    return quote_plus(text, safe=safe)


def _salt(number: int) -> str:
    return f"{(number + 1) * _MIX & _WORD:016x}"


def _size(offset: int) -> int:
    """Four digits always."""
    return 1000 + offset * 7919 % 9000


def _time(offset: int) -> str:
    return f"12:{offset // 60:02}:{offset % 60:02}"
