"""The one port: what the replicator needs of a store. replicator.s3 and the tests' fake implement it, and its reading
half replicator.directory.

A store is one bucket below one prefix; all keys given to it and taken from it are relative to that prefix. Errors are
those of replicator.errors. Every method may raise Transient (after its own retries), AccessDenied or NoSuchBucket.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from replicator.model import Attributes, Listed, ObjectState, Tags
from replicator.multipart import Part
from replicator.storage_classes import StorageClasses

Data = bytes | bytearray | memoryview
"""Bytes in memory."""


@dataclass(frozen=True, slots=True)
class Span:
    """A range of bytes, both ends included."""

    first: int
    last: int

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self.last - self.first + 1


@dataclass(frozen=True, slots=True)
class Pin:
    """Holds a read or copy to one version of an object."""

    etag: str
    version_id: str | None = None


@dataclass(frozen=True, slots=True)
class Stream:
    """A body that is not in memory as a whole: exactly `size` bytes, readable once."""

    size: int
    chunks: AsyncIterator[Data]


Body = Data | Stream


@dataclass(frozen=True, slots=True)
class Write:
    """All that is published together with a body.

    md5: digest of the body, when it is known beforehand; the store then refuses anything else.
    stamp: ETag of the source, kept in metadata where ETags cannot be equal.
    storage_class: "" for the store's default. only_new: to be refused with ChangedMeanwhile if the key is there; a
    store that does not know that (If-None-Match) replaces it, or raises Unsupported or Rejected.
    """

    attributes: Attributes = field(default_factory=Attributes)
    tags: Tags = ()
    md5: bytes | None = None
    stamp: str | None = None
    storage_class: str = ""
    only_new: bool = False


@dataclass(frozen=True, slots=True)
class Written:
    """What the store answered to a write. etag is "" where it does not say."""

    etag: str
    version_id: str | None = None


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a read brought: the state of the whole object that the bytes belong to, and the bytes asked for."""

    state: ObjectState
    data: Data


@dataclass(frozen=True, slots=True)
class PendingUpload:
    """An unfinished upload. initiated: the store's time, infinite when it does not say."""

    key: str
    id: str
    initiated: float


@dataclass(frozen=True, slots=True)
class Load:
    """What a store's service has had to bear. sent: bytes of bodies. throttled: requests it refused as too many.

    limit: requests that may be in flight now.
    """

    sent: int = 0
    throttled: int = 0
    limit: int = 0


class SourceStore(Protocol):
    """What is only read from: a bucket below a prefix, or a directory."""

    @property
    def name(self) -> str:
        """The location as a person writes it, without secrets: for reports and errors."""

    @property
    def clock_skew(self) -> float:
        """Seconds by which the store's clock is ahead of ours, as last seen; 0.0 before the first answer."""

    @property
    def load(self) -> Load:
        """What its service has had to bear so far."""

    async def check(self) -> None:
        """Proves that the bucket is reachable and may be listed. Raises NoSuchBucket, AccessDenied, Transient."""

    async def head(self, key: str, *, part: int | None = None) -> ObjectState:
        """The object's state. Raises NoSuchKey, which alone proves nothing.

        part: asks for one part; the state's size is then that part's, or the whole object's where the store does
        not know parts (state.parts is None).
        """

    async def confirm_absent(self, key: str) -> None:
        """Returns only if the store says, asked now, that there is no such key in a bucket that it can list.

        Raises ChangedMeanwhile if the key is there after all, and the errors of `check` if the bucket is not well.
        """

    async def fetch(
        self,
        key: str,
        *,
        limit: int,
        span: Span | None = None,
        pin: Pin | None = None,
        into: memoryview | None = None,
    ) -> Fetched:
        """Reads a range, or the whole object, into memory: all its bytes or an error.

        limit: the most bytes the caller is ready to hold. into: memory to read into, if the store can and it is
        large enough; the result's data is then a part of it. Raises NoSuchKey, Archived, ChangedMeanwhile (the pin
        does not hold any more, the range is not there or the object is larger than the limit).
        """

    def list_pages(self, *, after: str = "", page_size: int = 1000) -> AsyncIterator[Sequence[Listed]]:
        """Pages of up to `page_size` entries in strictly ascending order of keys, all greater than `after`.

        Raises UntrustworthyListing rather than ending early.
        """

    async def get_tags(self, key: str, version_id: str | None = None) -> Tags:
        """The object's tags. Raises NoSuchKey, Unsupported."""


class ObjectStore(SourceStore, Protocol):
    """One bucket below one prefix, to read from and to write to."""

    @property
    def storage_classes(self) -> StorageClasses:
        """Which classes are wanted here for those of a source. Whoever makes a Write goes by it; the store does not."""

    async def put(self, key: str, body: Body, write: Write) -> Written:
        """Publishes an object atomically, replacing another. Idempotent.

        Raises Corrupted (bytes do not match write.md5, nothing published), Unsupported, Rejected.
        """

    async def delete(self, key: str) -> None:
        """Removes the key (a delete marker where versions are kept). Idempotent: an absent key is no error."""

    async def put_tags(self, key: str, tags: Tags) -> None:
        """Replaces the object's tags without touching its bytes.

        Raises Unsupported where the store has no tags, and Unproven where that is not certain.
        """

    def can_copy_from(self, source: SourceStore) -> bool:
        """Whether `copy` and `copy_part` can read from that store without moving bytes through us."""

    async def copy(self, source: SourceStore, source_key: str, key: str, pin: Pin, write: Write) -> Written:
        """Server-side copy of a whole object with the attributes given. As `put` otherwise."""

    async def create_upload(self, key: str, write: Write) -> str:
        """Starts a multipart upload; its id. Nothing is published before `complete_upload`."""

    async def put_part(self, key: str, upload: str, part: Part, body: Body, *, md5: bytes | None = None) -> str:
        """Stores a part; its ETag. Idempotent: the last one counts. Raises NoSuchUpload, Corrupted (not that md5)."""

    async def copy_part(self, key: str, upload: str, part: Part, source: SourceStore, source_key: str, pin: Pin) -> str:
        """Stores a part copied by the server from a range of an object there; its ETag."""

    async def list_parts(self, key: str, upload: str) -> dict[int, Listed]:
        """The parts stored so far, by number; each with size, ETag, time and the upload's storage class.

        The time is infinite when the store does not say.

        Raises NoSuchUpload.
        """

    def pending_uploads(self, prefix: str = "") -> AsyncIterator[PendingUpload]:
        """Unfinished uploads of keys that start with `prefix`. Raises Transient if the listing does not advance."""

    async def list_uploads(self, key: str) -> list[str]:
        """Ids of unfinished uploads of exactly this key, newest first."""

    async def complete_upload(self, key: str, upload: str, etags: list[str]) -> Written:
        """Publishes the parts 1..n with these ETags atomically. Written.etag may be "" (ask head).

        Not idempotent by itself: a repeated call after success may raise NoSuchUpload.
        """

    async def abort_upload(self, key: str, upload: str) -> None:
        """Drops an unfinished upload. Idempotent."""
