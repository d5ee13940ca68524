"""An in-memory ObjectStore with the quirks of real ones, for tests that need every interleaving."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace

from replicator.errors import (
    ChangedMeanwhile,
    Corrupted,
    NoSuchBucket,
    NoSuchKey,
    NoSuchUpload,
    Transient,
    Unsupported,
)
from replicator.model import STAMP, Attributes, Listed, ObjectState, Tags
from replicator.multipart import Part, composite_etag
from replicator.storage_classes import AS_AT_THE_SOURCE, StorageClasses
from replicator.store import Body, Fetched, Load, ObjectStore, PendingUpload, Pin, Span, Stream, Write, Written

Step = Callable[[str, str], Awaitable[None]]


async def no_step(operation: str, key: str) -> None:
    """Called before and after every effect: tests yield, fail or die here."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One version of an object."""

    data: bytes
    etag: str
    modified: float
    attributes: Attributes
    tags: Tags = ()
    stamp: str | None = None
    storage_class: str = ""
    parts: tuple[int, ...] = ()


@dataclass(slots=True)
class Upload:
    key: str
    write: Write
    initiated: float = 0.0
    parts: dict[int, bytes] = field(default_factory=dict)
    etags: dict[int, str] = field(default_factory=dict)
    stored: dict[int, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Quirks:
    """What a store does differently from AWS."""

    knows_parts: bool = True
    holds_tags: bool = True
    folds_underscores: bool = False
    own_etags: bool = False
    whole_etags: bool = False
    silent_completion: bool = False
    drops_redirect: bool = False
    storage_classes: bool = True
    conditions: bool = True


@dataclass(slots=True)
class Bucket:
    """The content of a fake store, with hands of its own for the tests' writers."""

    objects: dict[str, Stored] = field(default_factory=dict)
    uploads: dict[str, Upload] = field(default_factory=dict)
    exists: bool = True
    now: float = 1_000_000.0
    counter: itertools.count[int] = field(default_factory=itertools.count)

    def write(
        self,
        key: str,
        data: bytes,
        attributes: Attributes | None = None,
        *,
        tags: Tags = (),
        part_size: int | None = None,
    ) -> Stored:
        """Stores an object at once, as an outside writer does; in parts of `part_size` bytes when given."""
        cuts = tuple(data[n : n + part_size] for n in range(0, len(data), part_size)) if part_size else ()
        etags = [hashlib.md5(cut).hexdigest() for cut in cuts]
        etag = (composite_etag(etags) if etags else None) or hashlib.md5(data).hexdigest()
        stored = Stored(data, etag, self.now, attributes or Attributes(), tags, parts=tuple(len(cut) for cut in cuts))
        self.objects[key] = stored
        return stored


class MemoryStore:
    """An ObjectStore on a Bucket. step: awaited before and after each effect, with the operation's name."""

    def __init__(
        self,
        bucket: Bucket | None = None,
        *,
        name: str = "memory://bucket/",
        quirks: Quirks | None = None,
        step: Step = no_step,
        storage_classes: StorageClasses = AS_AT_THE_SOURCE,
    ) -> None:
        self.storage_classes = storage_classes
        self.bucket = bucket or Bucket()
        self.quirks = quirks or Quirks()
        self.calls: list[str] = []
        self._name = name
        self._step = step

    @property
    def name(self) -> str:
        return self._name

    @property
    def clock_skew(self) -> float:
        return 0.0

    @property
    def load(self) -> Load:
        return Load()

    async def check(self) -> None:
        await self._before("ListObjectsV2", "")

    async def head(self, key: str, *, part: int | None = None) -> ObjectState:
        await self._before("HeadObject", key)
        stored = self._stored(key)
        state = self._state(stored)
        if part is not None and self.quirks.knows_parts and stored.parts:
            if part > len(stored.parts):
                raise ChangedMeanwhile("HeadObject", key, "no such part")
            state = replace(state, size=stored.parts[part - 1])
        elif part is not None and self.quirks.knows_parts:
            state = replace(state, parts=None)
        await self._after("HeadObject", key)
        return state

    async def confirm_absent(self, key: str) -> None:
        await self._before("ListObjectsV2", key)
        if key in self.bucket.objects:
            raise ChangedMeanwhile("HeadObject", key, "not found, yet it is listed")

    async def fetch(
        self,
        key: str,
        *,
        limit: int,
        span: Span | None = None,
        pin: Pin | None = None,
        into: memoryview | None = None,
    ) -> Fetched:
        await self._before("GetObject", key)
        stored = self._stored(key)
        if pin is not None and pin.etag != stored.etag:
            raise ChangedMeanwhile("GetObject", key, "another version is there")
        data = stored.data if span is None else stored.data[span.first : span.last + 1]
        if len(data) > limit or (span is not None and len(data) != span.size):
            raise ChangedMeanwhile("GetObject", key, f"{len(data)} bytes")
        state = self._state(stored)
        await self._after("GetObject", key)
        if into is not None and len(into) >= len(data):
            into[: len(data)] = data
            return Fetched(state, into[: len(data)])
        return Fetched(state, data)

    async def put(self, key: str, body: Body, write: Write) -> Written:
        await self._before("PutObject", key)
        data = await self._collect(body)
        self._check_write(key, data, write)
        if write.only_new and self.quirks.conditions and key in self.bucket.objects:
            raise ChangedMeanwhile("PutObject", key, "is there already")
        self._publish(key, data, write, ())
        await self._after("PutObject", key)
        return Written(self.bucket.objects[key].etag if key in self.bucket.objects else "")

    async def delete(self, key: str) -> None:
        await self._before("DeleteObject", key)
        self.bucket.objects.pop(key, None)
        await self._after("DeleteObject", key)

    async def list_pages(self, *, after: str = "", page_size: int = 3) -> AsyncIterator[list[Listed]]:
        last = after
        while True:
            await self._before("ListObjectsV2", "")
            keys = sorted(key for key in self.bucket.objects if key > last or (last == "" and after == ""))[:page_size]
            keys = [key for key in keys if not last or key > last]
            if not keys:
                return
            entries = [self._listed(key) for key in keys]
            last = keys[-1]
            yield entries

    async def get_tags(self, key: str, version_id: str | None = None) -> Tags:
        await self._before("GetObjectTagging", key)
        if not self.quirks.holds_tags:
            raise Unsupported("GetObjectTagging", key, "no tags here", code="NotImplemented")
        return self._stored(key).tags

    async def put_tags(self, key: str, tags: Tags) -> None:
        await self._before("PutObjectTagging", key)
        if not self.quirks.holds_tags:
            raise Unsupported("PutObjectTagging", key, "no tags here", code="NotImplemented")
        self.bucket.objects[key] = replace(self._stored(key), tags=tags)
        await self._after("PutObjectTagging", key)

    def can_copy_from(self, source: ObjectStore) -> bool:
        return isinstance(source, MemoryStore) and source.bucket is self.bucket

    async def copy(self, source: ObjectStore, source_key: str, key: str, pin: Pin, write: Write) -> Written:
        await self._before("CopyObject", key)
        stored = self._source(source, source_key, pin)
        self._check_write(key, stored.data, write)
        self._publish(key, stored.data, write, ())
        await self._after("CopyObject", key)
        return Written(self.bucket.objects[key].etag if key in self.bucket.objects else "")

    async def create_upload(self, key: str, write: Write) -> str:
        await self._before("CreateMultipartUpload", key)
        self._check_write(key, b"", replace(write, md5=None))
        upload = f"upload-{next(self.bucket.counter)}"
        self.bucket.uploads[upload] = Upload(key, write, initiated=self.bucket.now)
        await self._after("CreateMultipartUpload", key)
        return upload

    async def put_part(self, key: str, upload: str, part: Part, body: Body, *, md5: bytes | None = None) -> str:
        await self._before("UploadPart", key)
        data = await self._collect(body)
        if len(data) != part.size or (md5 is not None and hashlib.md5(data).digest() != md5):
            raise Corrupted("UploadPart", key, "the bytes are not those announced")
        etag = self._store_part(key, upload, part, data)
        await self._after("UploadPart", key)
        return etag

    async def copy_part(self, key: str, upload: str, part: Part, source: ObjectStore, source_key: str, pin: Pin) -> str:
        await self._before("UploadPartCopy", key)
        data = self._source(source, source_key, pin).data[part.offset : part.offset + part.size]
        return self._store_part(key, upload, part, data)

    async def list_parts(self, key: str, upload: str) -> dict[int, Listed]:
        await self._before("ListParts", key)
        found = self._upload(key, upload)
        storage_class = found.write.storage_class
        return {
            n: Listed(key, len(data), found.etags[n], found.stored.get(n, 0.0), storage_class)
            for n, data in found.parts.items()
        }

    async def pending_uploads(self, prefix: str = "") -> AsyncIterator[PendingUpload]:
        await self._before("ListMultipartUploads", prefix)
        for name, upload in list(self.bucket.uploads.items()):
            if upload.key.startswith(prefix):
                yield PendingUpload(upload.key, name, upload.initiated)

    async def list_uploads(self, key: str) -> list[str]:
        await self._before("ListMultipartUploads", key)
        return [name for name, upload in reversed(self.bucket.uploads.items()) if upload.key == key]

    async def complete_upload(self, key: str, upload: str, etags: list[str]) -> Written:
        await self._before("CompleteMultipartUpload", key)
        found = self._upload(key, upload)
        if [found.etags.get(number) for number in range(1, len(etags) + 1)] != etags:
            raise Corrupted("CompleteMultipartUpload", key, "other parts are there", code="InvalidPart")
        parts = [found.parts[number] for number in range(1, len(etags) + 1)]
        self._publish(key, b"".join(parts), found.write, tuple(parts))
        del self.bucket.uploads[upload]
        await self._after("CompleteMultipartUpload", key)
        quiet = self.quirks.silent_completion or key not in self.bucket.objects
        return Written("" if quiet else self.bucket.objects[key].etag)

    async def abort_upload(self, key: str, upload: str) -> None:
        await self._before("AbortMultipartUpload", key)
        self.bucket.uploads.pop(upload, None)

    async def _before(self, operation: str, key: str) -> None:
        self.calls.append(operation)
        await self._step(operation, key)
        if not self.bucket.exists:
            raise NoSuchBucket(operation, self._name, "no such bucket", code="NoSuchBucket")

    async def _after(self, operation: str, key: str) -> None:
        await self._step(operation + ":answered", key)

    def _stored(self, key: str) -> Stored:
        if key not in self.bucket.objects:
            raise NoSuchKey("HeadObject", key, "not there", code="NoSuchKey")
        return self.bucket.objects[key]

    def _source(self, source: ObjectStore, key: str, pin: Pin) -> Stored:
        assert isinstance(source, MemoryStore)
        stored = source._stored(key)
        if stored.etag != pin.etag:
            raise ChangedMeanwhile("CopyObject", key, "another version is there")
        return stored

    def _upload(self, key: str, upload: str) -> Upload:
        found = self.bucket.uploads.get(upload)
        if found is None or found.key != key:
            raise NoSuchUpload("UploadPart", key, "no such upload", code="NoSuchUpload")
        return found

    def _store_part(self, key: str, upload: str, part: Part, data: bytes) -> str:
        found = self._upload(key, upload)
        found.parts[part.number] = data
        found.etags[part.number] = self._etag(data)
        found.stored[part.number] = self.bucket.now
        return found.etags[part.number]

    def _check_write(self, key: str, data: bytes, write: Write) -> None:
        if write.tags and not self.quirks.holds_tags:
            raise Unsupported("PutObject", key, "no tags here", code="NotImplemented")
        if write.storage_class and not self.quirks.storage_classes:
            raise Unsupported("PutObject", key, "no such storage class", code="InvalidStorageClass")
        if write.md5 is not None and hashlib.md5(data).digest() != write.md5:
            raise Corrupted("PutObject", key, "the bytes do not have that MD5", code="BadDigest")

    def _etag(self, data: bytes) -> str:
        return (
            hashlib.sha256(b"own" + data).hexdigest()[:32] if self.quirks.own_etags else hashlib.md5(data).hexdigest()
        )

    def _publish(self, key: str, data: bytes, write: Write, parts: tuple[bytes, ...]) -> None:
        composite = composite_etag([self._etag(part) for part in parts]) if not self.quirks.whole_etags else None
        etag = composite or self._etag(data)
        attributes = write.attributes
        if self.quirks.folds_underscores:
            folded = tuple(sorted((name.replace("_", "-"), value) for name, value in attributes.metadata))
            attributes = replace(attributes, metadata=folded)
        if self.quirks.drops_redirect:
            attributes = replace(attributes, website_redirect=None)
        self.bucket.objects[key] = Stored(
            data,
            etag,
            self.bucket.now,
            attributes,
            write.tags,
            write.stamp,
            write.storage_class,
            tuple(len(part) for part in parts),
        )

    def _state(self, stored: Stored) -> ObjectState:
        return ObjectState(
            size=len(stored.data),
            etag=stored.etag,
            modified=float(int(stored.modified)),
            attributes=stored.attributes,
            etag_is_md5=not self.quirks.own_etags,
            tag_count=len(stored.tags),
            parts=len(stored.parts) if stored.parts and self.quirks.knows_parts else None,
            storage_class=stored.storage_class,
            stamp=stored.stamp,
        )

    def _listed(self, key: str) -> Listed:
        stored = self.bucket.objects[key]
        return Listed(key, len(stored.data), stored.etag, stored.modified, stored.storage_class)

    async def _collect(self, body: Body) -> bytes:
        if not isinstance(body, Stream):
            return bytes(body)
        collected = b""
        async for chunk in body.chunks:
            collected += chunk
            await asyncio.sleep(0)
        if len(collected) != body.size:
            raise Transient("PutObject", "", "the body ended early")
        return collected


__all__ = ["STAMP", "Bucket", "MemoryStore", "Quirks", "Stored", "no_step"]
