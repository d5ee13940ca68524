"""The values that travel between the modules. All frozen; nothing here talks or decides."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from typing import NamedTuple

MiB = 1024 * 1024
GiB = 1024 * MiB

LONGEST_KEY = 1024
"""Bytes that a key may have: docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html."""

STAMP = "replicator-source-etag"
"""Name of the user metadata that remembers the source's ETag where the target's own cannot be equal to it."""


class Listed(NamedTuple):
    """One entry of a listing. A NamedTuple since millions of them are made.

    key: relative to the store's prefix; size: bytes; etag: without quotes; modified: seconds since the epoch by
    the store's own clock; storage_class: as listed, "" when the store does not say.
    """

    key: str
    size: int
    etag: str
    modified: float
    storage_class: str = ""


@dataclass(frozen=True, slots=True)
class Attributes:
    """What belongs to an object beside its bytes and tags. None: the header was not there."""

    content_type: str | None = None
    content_encoding: str | None = None
    content_disposition: str | None = None
    content_language: str | None = None
    cache_control: str | None = None
    expires: str | None = None
    website_redirect: str | None = None
    metadata: tuple[tuple[str, str], ...] = ()
    """User metadata as (name in lower case, value), sorted by name, without our own stamp."""

    @property
    def only_type(self) -> bool:
        """Whether there is nothing beside a Content-Type, which every store keeps."""
        return replace(self, content_type=None) == Attributes()


Tags = tuple[tuple[str, str], ...]
"""Object tags as (key, value), sorted by key."""


@dataclass(frozen=True, slots=True)
class ObjectState:
    """What a store says an object is, now.

    size: bytes. etag: without quotes. modified: seconds since the epoch, the store's clock.
    etag_is_md5: False when the store says that the ETag is no digest of the bytes (SSE-KMS, SSE-C).
    tag_count: number of tags; a store that has tags announces their number, so 0 when it says nothing.
    parts: number of parts of a multipart object; None when the store does not say (it does not mean 1).
    checksum: (algorithm, value) of the whole object's bytes, when the store knows one.
    stamp: the ETag of the source that this object was copied from, where we had to write it down.
    lost_metadata: number of metadata entries that the store says it could not return as headers.
    believable_from: when a reading of this version has to have begun for its ETag to be believed later; 0.0 where no
    two versions share an id.
    """

    size: int
    etag: str
    modified: float
    attributes: Attributes = field(default_factory=Attributes)
    version_id: str | None = None
    etag_is_md5: bool = True
    tag_count: int = 0
    parts: int | None = None
    storage_class: str = ""
    checksum: tuple[str, str] | None = None
    stamp: str | None = None
    archived: bool = False
    lost_metadata: int = 0
    believable_from: float = 0.0


@dataclass(frozen=True, slots=True)
class Observed:
    """An object together with its tags: all that converge compares and copies."""

    state: ObjectState
    tags: Tags = ()


class Verdict(Enum):
    """Whether two objects hold the same bytes."""

    SAME = "same"
    DIFFERENT = "different"
    UNKNOWN = "unknown"


class Evidence(Enum):
    """What a verdict rests on, strongest first."""

    CHECKSUM = "checksum"
    ETAG = "etag"
    STAMP = "stamped source etag"
    SIZE = "size"
    SIZE_AND_TIME = "size and time"
    NONE = "none"


class Deletes(Enum):
    """What happens to a target's object when the source's is gone."""

    MIRROR = "mirror"
    KEEP = "keep"


class Did(Enum):
    """What was done (or, in a dry run, would be) to one key of one target."""

    COPIED = "copied"
    MOVED = "moved"
    METADATA = "metadata updated"
    TAGS = "tags updated"
    DELETED = "deleted"
    IN_SYNC = "in sync"
    KEPT = "kept"
    HELD = "held"
    BEGUN = "begun"
    DIFFERS = "differs"
    SKIPPED = "skipped"
    FAILED = "failed"


class Version(NamedTuple):
    """Which object of the source an outcome is about, as in ObjectState. id: the store's name for the version."""

    size: int
    etag: str
    modified: float
    id: str | None = None
    believable_from: float = 0.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one key at one target.

    did: what was done. reason: why, in the words of decide or of the error. evidence: what proves that the target
    is equal now. bytes: sent to the target. seconds: spent. not_kept: what the target could not hold, each in
    words. parts: of the source's object, where it was only looked at. source: the object that was acted upon, None
    where there is none or it was not seen. began: when the key was begun, in seconds since the epoch by our own clock.
    failure: the error, when did is FAILED or SKIPPED. Times, source and failure are not part of equality.
    """

    key: str
    target: str
    did: Did
    reason: str
    evidence: Evidence = Evidence.NONE
    bytes: int = 0
    seconds: float = field(default=0.0, compare=False)
    not_kept: tuple[str, ...] = ()
    parts: int = 1
    source: Version | None = field(default=None, compare=False)
    began: float = field(default=0.0, compare=False)
    failure: Exception | None = field(default=None, compare=False)
