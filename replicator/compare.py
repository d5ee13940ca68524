"""Whether two objects are the same, and by which evidence. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from typing import NamedTuple

from replicator.listed import ListedPage
from replicator.model import Attributes, Evidence, Listed, ObjectState, Verdict
from replicator.multipart import is_md5, parts_of

CLOCK_MARGIN = 2.0
"""Seconds by which two known clocks may still differ: Last-Modified and Date have whole seconds."""

GENERIC_TYPES = frozenset({None, "binary/octet-stream", "application/octet-stream"})
"""What stores say when nobody gave a Content-Type; each has its own word for it."""


class Comparison(NamedTuple):
    """verdict, and the evidence it rests on."""

    verdict: Verdict
    evidence: Evidence


def compare(source: ObjectState, target: ObjectState) -> Comparison:
    """Compares the bytes of two objects by the strongest evidence there is.

    | size | checksums of one kind | ETags               | target's stamp | target is | verdict   | evidence      |
    |------|-----------------------|---------------------|----------------|-----------|-----------|---------------|
    | !=   |                       |                     |                |           | DIFFERENT | SIZE          |
    | ==   | == (SHA)              |                     |                |           | SAME      | CHECKSUM      |
    | ==   | !=                    |                     |                |           | DIFFERENT | CHECKSUM      |
    | ==   | none, or == (CRC)     | ==                  |                |           | SAME      | ETAG          |
    | ==   | none                  | !=                  | == source ETag |           | SAME      | STAMP         |
    | ==   | none                  | !=                  | another ETag   |           | DIFFERENT | STAMP         |
    | ==   | none                  | != and both MD5     | none           |           | DIFFERENT | ETAG          |
    | ==   | none                  | != and as many parts| none           |           | DIFFERENT | ETAG          |
    | ==   | none                  | not comparable      | none           | younger   | UNKNOWN   | SIZE_AND_TIME |
    | ==   | none                  | not comparable      | none           | older     | UNKNOWN   | NONE          |

    Equal CRCs prove nothing: files that end with their own CRC, as many formats do, all have the same one. Unequal ones
    prove a difference.

    Equal size and a younger target are told, but never believed: where the target's clock is ahead, an overwrite of
    the same size would pass for its own copy and be lost (tests/faults found it: seed 37).
    """
    if source.size != target.size:
        return Comparison(Verdict.DIFFERENT, Evidence.SIZE)
    if source.checksum and target.checksum and source.checksum[0] == target.checksum[0]:
        if source.checksum != target.checksum:
            return Comparison(Verdict.DIFFERENT, Evidence.CHECKSUM)
        if source.checksum[0].startswith("sha"):
            return Comparison(Verdict.SAME, Evidence.CHECKSUM)
    if source.etag and source.etag == target.etag:
        return Comparison(Verdict.SAME, Evidence.ETAG)
    if target.stamp is not None and source.etag:
        same = target.stamp == source.etag
        return Comparison(Verdict.SAME if same else Verdict.DIFFERENT, Evidence.STAMP)
    if comparable(source, target):
        return Comparison(Verdict.DIFFERENT, Evidence.ETAG)
    younger = target.modified > source.modified
    return Comparison(Verdict.UNKNOWN, Evidence.SIZE_AND_TIME if younger else Evidence.NONE)


def comparable(source: ObjectState, target: ObjectState) -> bool:
    """Whether unequal ETags prove unequal bytes: both MD5 digests, or both of the same number of parts."""
    if not (source.etag_is_md5 and target.etag_is_md5):
        return False
    if is_md5(source.etag) and is_md5(target.etag):
        return True
    parts = parts_of(source.etag)
    return parts is not None and parts == parts_of(target.etag)


def listed_in_sync(source: Listed, target: Listed, skew: float, changed_since: float | None) -> bool:
    """Whether two listing entries are enough to know that a key needs no look.

    Equal ETags prove equal bytes. Metadata is not listed, but changing it makes an object younger, so a source
    that is older than its copy has not changed since. skew: seconds the source's clock is ahead of the target's.
    changed_since: the source's time from which on objects are looked at in any case.
    """
    if source.etag != target.etag or source.size != target.size or not source.etag:
        return False
    if changed_since is not None and source.modified >= changed_since - CLOCK_MARGIN:
        return False
    return source.modified - skew + CLOCK_MARGIN < target.modified


def pages_in_sync(source: Sequence[Listed], target: Sequence[Listed], skew: float, changed_since: float | None) -> bool:
    """Whether listed_in_sync holds for every pair of two pages, as far as that can be told at a glance.

    It can where all of the target's entries are younger than the youngest of the source's.
    """
    if not (isinstance(source, ListedPage) and isinstance(target, ListedPage) and source.same_bytes(target)):
        return False
    if not source:
        return True
    newest = source.newest
    if changed_since is not None and newest >= changed_since - CLOCK_MARGIN:
        return False
    return newest - skew + CLOCK_MARGIN < target.oldest


class AttributeDifference(NamedTuple):
    """Names of attributes that differ, and of those that the target keeps under another name only."""

    differing: tuple[str, ...]
    renamed: tuple[str, ...]


_FIELDS = (
    "content_encoding",
    "content_disposition",
    "content_language",
    "cache_control",
    "expires",
    "website_redirect",
)


def compare_attributes(source: Attributes, target: Attributes) -> AttributeDifference:
    """Names what differs, as "content-type" or "metadata owner".

    A metadata name whose '_' came back as '-' (Ceph RGW) with the same value counts as renamed, not as differing.
    A Content-Type that nobody gave equals any store's word for unknown bytes.
    """
    if source == target:
        return AttributeDifference((), ())
    differing = [name.replace("_", "-") for name in _FIELDS if getattr(source, name) != getattr(target, name)]
    if not _same_type(source.content_type, target.content_type):
        differing.append("content-type")
    wanted, found = dict(source.metadata), dict(target.metadata)
    renamed = [
        name
        for name in wanted.keys() - found.keys()
        if name.replace("_", "-") in found.keys() - wanted.keys() and found[name.replace("_", "-")] == wanted[name]
    ]
    expected = {(name.replace("_", "-") if name in renamed else name): value for name, value in wanted.items()}
    names = {name for name in expected.keys() | found.keys() if not _same_text(expected.get(name), found.get(name))}
    differing += [f"metadata {name}" for name in sorted(names)]
    return AttributeDifference(tuple(differing), tuple(f"metadata name {name}" for name in sorted(renamed)))


def _same_text(source: str | None, target: str | None) -> bool:
    """Whether two metadata values are one text: S3 gives non-ASCII ones back as RFC 2047 words."""
    if source == target:
        return True
    return source is not None and target is not None and _plain_text(source) == _plain_text(target)


def _plain_text(value: str) -> str:
    if not (value.startswith("=?") and value.endswith("?=")):
        return value
    try:
        return str(make_header(decode_header(value)))
    except (LookupError, ValueError, HeaderParseError):
        return value


def _same_type(source: str | None, target: str | None) -> bool:
    if source in GENERIC_TYPES and target in GENERIC_TYPES:
        return source is None or target is None or source == target
    return source == target
