"""The XML of S3, both ways. Names are matched without their namespace: stores differ in it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote_plus
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from replicator.model import Listed, Tags

_FORBIDDEN = re.compile(
    rb"&#(?:x0*(?:[0-8bcef]|1[0-9a-f])|0*(?:[0-8]|1[124-9]|2[0-9]|3[01]));|[\x00-\x08\x0b\x0c\x0e-\x1f]", re.I
)
"""Control characters that XML 1.0 allows neither as such nor as a reference."""


class MalformedXml(Exception):
    """The document cannot be understood; the text says why."""


class ListPage(NamedTuple):
    """One page of ListObjectsV2. token is None on the last page."""

    entries: list[Listed]
    truncated: bool
    token: str | None


def parse(document: bytes) -> ElementTree.Element:
    """Parses a document of a store. Raises MalformedXml.

    S3 has no document types, and entities could be declared in nothing else: documents with one are refused before
    they are parsed, so that none can expand.
    """
    if b"<!" in document or b"\0" in document:
        raise MalformedXml("has a document type, or is not in UTF-8")
    try:
        return ElementTree.fromstring(document.strip())  # noqa: S314 - no DOCTYPE, see above
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise MalformedXml(str(error)) from error


def local_name(element: ElementTree.Element) -> str:
    """An element's name without its namespace."""
    return element.tag.rpartition("}")[2]


def texts(element: ElementTree.Element) -> dict[str, str]:
    """The texts of an element's children by name."""
    return {child.tag.rpartition("}")[2]: child.text or "" for child in element}


def parse_error(document: bytes) -> dict[str, str]:
    """Code, Message and the like of an error document; {} when it is none."""
    if b"<Error" not in document:
        return {}
    try:
        root = parse(document)
    except MalformedXml:
        return {}
    return texts(root) if local_name(root) == "Error" else {}


@lru_cache(maxsize=4096)
def _minute(text: str) -> float:
    """Seconds since the epoch of a minute written as "2026-11-20T12:00:"."""
    return datetime.fromisoformat(text + "00+00:00").timestamp()


def timestamp(text: str) -> float:
    """Seconds since the epoch of an ISO 8601 time. Raises MalformedXml.

    Millions of times are read, and many share their minute: that is looked up, and only seconds are computed.
    """
    try:
        if len(text) == 24 and text[-1] == "Z":  # "2026-11-20T12:00:00.000Z"
            seconds = float(text[17:23])
            if 0.0 <= seconds < 60.0:
                return _minute(text[:17]) + seconds
        return datetime.fromisoformat(text).timestamp()
    except ValueError as error:
        raise MalformedXml(f"time {text!r}") from error


_ENTRY = re.compile(
    r"<Contents>\s*<Key>([^<&]*)</Key>\s*<LastModified>([^<]*)</LastModified>\s*"
    r"<ETag>(?:&quot;|&#34;|\")?([^<&\"]*)(?:&quot;|&#34;|\")?</ETag>\s*"
    r"(?:<Checksum\w+>[^<]*</Checksum\w+>\s*)*<Size>(\d+)</Size>(.*?)</Contents>",
    re.DOTALL,
)
_STORAGE_CLASS = re.compile(r"<StorageClass>([^<]*)</StorageClass>")


def parse_list_page(document: bytes, prefix: str) -> ListPage:
    """Reads a page of ListObjectsV2, keys relative to `prefix`. Raises MalformedXml.

    Keys are decoded as encoding-type=url wants it where the answer says that it did: some stores write a space as
    "%20", some as "+", and all write a plus as "%2B".

    Listings are what a run over millions of keys does most. So a page whose entries all have the form that the known
    stores write is read with a pattern, and only what is around them by the parser; any other page by the parser.
    """
    usual = _usual_entries(document)
    if usual is not None:
        around, found = usual
        fields, _ = _parse_list(around)
    else:
        fields, contents = _parse_list(document)
        found = [[content.get(name, "") for name in _FIELDS] for content in contents]
    truncated = fields.get("IsTruncated", "").lower()
    if truncated not in ("true", "false"):
        raise MalformedXml("does not say whether it is the last page")
    entries = _entries(found, prefix, encoded=fields.get("EncodingType") == "url")
    return ListPage(entries, truncated == "true", fields.get("NextContinuationToken") or None)


_FIELDS = ("Key", "LastModified", "ETag", "Size", "StorageClass")


def _usual_entries(document: bytes) -> tuple[bytes, list[list[str]]] | None:
    """What is around the entries, and the texts of their _FIELDS; None if one of them is not in the usual form.

    The last text is all that follows the size.
    """
    first, end = document.find(b"<Contents>"), document.rfind(b"</Contents>") + len(b"</Contents>")
    around = document[:first] + document[end:]
    if first < 0 or b"<!" in document or b"IsTruncated" not in around:
        return None
    try:
        text = document[first:end].decode()
    except UnicodeDecodeError:
        return None
    found = _ENTRY.findall(text)
    return (around, found) if text.count("Contents>") == 2 * len(found) else None


def _entries(found: Sequence[Sequence[str]], prefix: str, *, encoded: bool) -> list[Listed]:
    """Entries from the texts of their _FIELDS."""
    classes = {rest: _storage_class(rest) for rest in {entry[4] for entry in found}}
    keys = [entry[0] for entry in found]
    if encoded:
        keys = [_decoded(key) if "%" in key or "+" in key else key for key in keys]
    strange = next((key for key in keys if not key.startswith(prefix) or not key), None)
    if strange is not None:
        raise MalformedXml(f"lists {strange!r}, which does not start with the prefix {prefix!r}")
    if prefix:
        keys = [key[len(prefix) :] for key in keys]
    try:
        return [
            Listed(key, int(size), etag.strip('"'), timestamp(modified), classes[rest])
            for key, (_, modified, etag, size, rest) in zip(keys, found, strict=True)
        ]
    except ValueError as error:
        raise MalformedXml(f"an entry lacks a readable size: {error}") from error


def _storage_class(text: str) -> str:
    """The storage class in what follows an entry's size; or the text itself, if it is one."""
    if "<" not in text:
        return text.strip()
    found = _STORAGE_CLASS.search(text)
    return found[1] if found else ""


def _decoded(key: str) -> str:
    try:
        return unquote_plus(key, errors="strict")
    except UnicodeDecodeError as error:
        raise MalformedXml(f"the key {key!r} is no UTF-8") from error


def _parse_list(document: bytes) -> tuple[dict[str, str], list[dict[str, str]]]:
    """The fields of a page, and its contents.

    Ceph RGW echoes control characters of the prefix, which no XML parser takes. Where keys are encoded they can be
    in nothing that is used, and are dropped.
    """
    try:
        root = parse(document)
    except MalformedXml:
        if b"<EncodingType>url</EncodingType>" not in document:
            raise
        root = parse(_FORBIDDEN.sub(b"", document))
    if local_name(root) != "ListBucketResult":
        raise MalformedXml(f"is a {local_name(root)}, not a ListBucketResult")
    contents = [child for child in root if local_name(child) == "Contents"]
    if any(local_name(part) == "Contents" for content in contents for part in content):
        raise MalformedXml("has an entry within an entry")
    return texts(root), [texts(content) for content in contents]


def parse_tags(document: bytes) -> Tags | None:
    """The tags of a Tagging document; None when the document is something else."""
    try:
        root = parse(document)
    except MalformedXml:
        return None
    if local_name(root) != "Tagging":
        return None
    pairs = [texts(tag) for tag_set in root for tag in tag_set]
    return tuple(sorted((pair.get("Key", ""), pair.get("Value", "")) for pair in pairs))


def tagging(tags: Tags) -> bytes:
    """A Tagging document."""
    items = "".join(f"<Tag><Key>{escape(key)}</Key><Value>{escape(value)}</Value></Tag>" for key, value in tags)
    return f"<Tagging><TagSet>{items}</TagSet></Tagging>".encode()


def complete_multipart(etags: Sequence[str]) -> bytes:
    """A CompleteMultipartUpload document for the parts 1..n."""
    parts = "".join(
        f'<Part><PartNumber>{number}</PartNumber><ETag>"{escape(etag)}"</ETag></Part>'
        for number, etag in enumerate(etags, start=1)
    )
    return f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
