"""A page of a listing as columns of text, since a run over millions of objects in sync reads millions of entries and
needs hardly one of them: what is needed is made of the text when it is looked at. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import lru_cache
from typing import overload

from replicator.errors import UntrustworthyListing
from replicator.model import Listed

_STORAGE_CLASS = re.compile(r"<StorageClass>([^<]*)</StorageClass>")


class ListedPage(Sequence[Listed]):
    """Entries of a listing, in its order.

    keys: relative to the store's prefix. modified: all as "2026-11-20T12:00:00.000Z". etags: without quotes. sizes:
    decimal digits. rests: what the XML of the entry says besides.
    """

    __slots__ = ("etags", "keys", "modified", "rests", "sizes")

    def __init__(
        self,
        keys: Sequence[str],
        modified: Sequence[str],
        etags: Sequence[str],
        sizes: Sequence[str],
        rests: Sequence[str],
    ) -> None:
        self.keys, self.modified, self.etags, self.sizes, self.rests = keys, modified, etags, sizes, rests

    def __len__(self) -> int:
        return len(self.keys)

    @overload
    def __getitem__(self, index: int) -> Listed: ...
    @overload
    def __getitem__(self, index: slice) -> ListedPage: ...
    def __getitem__(self, index: int | slice) -> Listed | ListedPage:
        if isinstance(index, slice):
            columns = (self.keys, self.modified, self.etags, self.sizes, self.rests)
            return ListedPage(*(column[index] for column in columns))
        return _entry(self.keys[index], self.sizes[index], self.etags[index], self.modified[index], self.rests[index])

    def __iter__(self) -> Iterator[Listed]:
        return map(_entry, self.keys, self.sizes, self.etags, self.modified, self.rests)

    @property
    def newest(self) -> float:
        """The latest time of an entry; the texts sort as the times do. Raises UntrustworthyListing. Not of no entry."""
        return _time(max(self.modified))

    @property
    def oldest(self) -> float:
        """The earliest one."""
        return _time(min(self.modified))

    def same_bytes(self, other: ListedPage) -> bool:
        """Whether both list the same keys, and all of them with equal sizes and ETags."""
        return (
            len(self.keys) == len(other.keys)
            and all(map(str.__eq__, self.keys, other.keys))
            and all(map(str.__eq__, self.etags, other.etags))
            and all(map(str.__eq__, self.sizes, other.sizes))
            and "" not in self.etags
        )


def keys_of(entries: Sequence[Listed]) -> Sequence[str]:
    """The keys of entries, without making the entries if that can be."""
    return entries.keys if isinstance(entries, ListedPage) else [entry.key for entry in entries]


def _entry(key: str, size: str, etag: str, modified: str, rest: str) -> Listed:
    return Listed(key, int(size), etag, _time(modified), _storage_class(rest))


def _time(text: str) -> float:
    try:
        return timestamp(text)
    except ValueError as error:
        raise UntrustworthyListing("ListObjectsV2", "an entry", f"has the time {text!r}") from error


@lru_cache(maxsize=256)
def _storage_class(rest: str) -> str:
    found = _STORAGE_CLASS.search(rest)
    return found[1] if found else ""


@lru_cache(maxsize=4096)
def _minute(text: str) -> float:
    """Seconds since the epoch of a minute written as "2026-11-20T12:00:"."""
    return datetime.fromisoformat(text + "00+00:00").timestamp()


def timestamp(text: str) -> float:
    """Seconds since the epoch of an ISO 8601 time. Raises ValueError.

    Millions of times are read, and many share their minute: that is looked up, and only seconds are computed.
    """
    if len(text) == 24 and text[-1] == "Z":  # "2026-11-20T12:00:00.000Z"
        seconds = float(text[17:23])
        if 0.0 <= seconds < 60.0:
            return _minute(text[:17]) + seconds
    return datetime.fromisoformat(text).timestamp()
