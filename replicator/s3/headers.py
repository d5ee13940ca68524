"""Headers of S3 requests and answers to and from typed values."""

from __future__ import annotations

import base64
from calendar import timegm
from email.utils import parsedate_to_datetime
from urllib.parse import quote

from replicator.model import STAMP, Attributes, ObjectState, Tags
from replicator.store import Write

META = "x-amz-meta-"
_STAMP_HEADER = META + STAMP
_MONTH_NAMES = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTHS = {name: number for number, name in enumerate(_MONTH_NAMES, start=1)}
_CHECKSUMS = ("crc64nvme", "sha256", "sha1", "crc32c", "crc32")
_ARCHIVE_CLASSES = frozenset({"GLACIER", "DEEP_ARCHIVE"})


def http_date(text: str) -> float:
    """Seconds since the epoch of an HTTP date; 0.0 when it is none."""
    try:
        if len(text) == 29 and text.endswith(" GMT"):
            day, month, year = int(text[5:7]), _MONTHS[text[8:11]], int(text[12:16])
            hour, minute, second = int(text[17:19]), int(text[20:22]), int(text[23:25])
            valid = 1 <= day <= 31 and hour < 24 and minute < 60 and second <= 60
            return float(timegm((year, month, day, hour, minute, second))) if valid else 0.0
        return parsedate_to_datetime(text).timestamp()
    except (KeyError, ValueError, TypeError, IndexError, OverflowError):
        return 0.0


def _content_encoding(value: str | None) -> str | None:
    """Without "aws-chunked", which belongs to one transfer and not to the object (some stores keep it)."""
    if value is None or "aws-chunked" not in value:
        return value
    kept = [coding.strip() for coding in value.split(",") if coding.strip() != "aws-chunked"]
    return ", ".join(kept) or None


def attributes_of(headers: dict[str, str]) -> Attributes:
    """The attributes that an answer to GET or HEAD tells."""
    metadata = [
        (name[len(META) :], value) for name, value in headers.items() if name.startswith(META) and name != _STAMP_HEADER
    ]
    return Attributes(
        content_type=headers.get("content-type"),
        content_encoding=_content_encoding(headers.get("content-encoding")),
        content_disposition=headers.get("content-disposition"),
        content_language=headers.get("content-language"),
        cache_control=headers.get("cache-control"),
        expires=headers.get("expires"),
        website_redirect=headers.get("x-amz-website-redirect-location"),
        metadata=tuple(sorted(metadata)),
    )


def _whole_size(headers: dict[str, str]) -> int:
    """Size of the whole object, also when the answer is about a range of it."""
    content_range = headers.get("content-range", "")
    _, slash, whole = content_range.rpartition("/")
    if slash and whole.isdecimal():
        return int(whole)
    return _number(headers.get("content-length"))


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isdecimal() else 0


def _checksum_of(headers: dict[str, str]) -> tuple[str, str] | None:
    """The checksum of the whole object, strongest first; a checksum of parts' checksums is none."""
    if headers.get("x-amz-checksum-type", "").upper() != "FULL_OBJECT":
        return None
    for algorithm in _CHECKSUMS:
        value = headers.get(f"x-amz-checksum-{algorithm}")
        if value:
            return algorithm, value
    return None


def state_of(headers: dict[str, str], *, size: int | None = None) -> ObjectState:
    """The state that an answer to GET or HEAD tells. size: overrides what the headers say, for a part's HEAD."""
    parts = headers.get("x-amz-mp-parts-count")
    storage_class = headers.get("x-amz-storage-class", "")
    restored = 'ongoing-request="false"' in headers.get("x-amz-restore", "")
    opaque_etag = (
        headers.get("x-amz-server-side-encryption", "").startswith("aws:kms")
        or "x-amz-server-side-encryption-customer-algorithm" in headers
    )
    return ObjectState(
        size=_whole_size(headers) if size is None else size,
        etag=headers.get("etag", "").strip('"'),
        modified=http_date(headers.get("last-modified", "")),
        attributes=attributes_of(headers),
        version_id=_version(headers),
        etag_is_md5=not opaque_etag,
        tag_count=_number(headers.get("x-amz-tagging-count")),
        parts=int(parts) if parts is not None and parts.isdecimal() else None,
        storage_class=storage_class,
        checksum=_checksum_of(headers),
        stamp=headers.get(_STAMP_HEADER),
        archived=storage_class in _ARCHIVE_CLASSES and not restored,
        lost_metadata=_number(headers.get("x-amz-missing-meta")),
    )


def _version(headers: dict[str, str]) -> str | None:
    version = headers.get("x-amz-version-id")
    return version if version and version != "null" else None


def write_headers(write: Write) -> list[tuple[str, str]]:
    """The headers that publish an object's attributes, tags, stamp and storage class."""
    attributes = write.attributes
    named = (
        ("content-type", attributes.content_type),
        ("content-encoding", attributes.content_encoding),
        ("content-disposition", attributes.content_disposition),
        ("content-language", attributes.content_language),
        ("cache-control", attributes.cache_control),
        ("expires", attributes.expires),
        ("x-amz-website-redirect-location", attributes.website_redirect),
        ("x-amz-storage-class", write.storage_class or None),
        (_STAMP_HEADER, write.stamp),
    )
    headers = [(name, value) for name, value in named if value is not None]
    headers += [(META + name, value) for name, value in attributes.metadata]
    if write.tags:
        headers.append(("x-amz-tagging", tagging_header(write.tags)))
    if write.only_new:
        headers.append(("if-none-match", "*"))
    if write.md5 is not None:
        headers.append(("content-md5", base64.b64encode(write.md5).decode()))
    return headers


def tagging_header(tags: Tags) -> str:
    """Tags as x-amz-tagging wants them: a URL query."""
    return "&".join(f"{quote(key, safe='')}={quote(value, safe='')}" for key, value in tags)
