"""The XML of S3, both ways. Names are matched without their namespace: stores differ in it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple
from urllib.parse import unquote_plus
from xml.etree import ElementTree

from replicator.listed import ListedPage, timestamp
from replicator.model import Listed, Tags

_FORBIDDEN = re.compile(
    rb"&#(?:x0*(?:[0-8bcef]|1[0-9a-f])|0*(?:[0-8]|1[124-9]|2[0-9]|3[01]));|[\x00-\x08\x0b\x0c\x0e-\x1f]", re.I
)
"""Control characters that XML 1.0 allows neither as such nor as a reference."""


class MalformedXml(Exception):
    """The document cannot be understood; the text says why."""


class ListPage(NamedTuple):
    """One page of ListObjectsV2. token is None on the last page."""

    entries: Sequence[Listed]
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


def time_of(text: str) -> float:
    """Seconds since the epoch of an ISO 8601 time. Raises MalformedXml."""
    try:
        return timestamp(text)
    except ValueError as error:
        raise MalformedXml(f"time {text!r}") from error


_ENTRY = re.compile(
    r"<Contents>\s*+<Key>([^<&]*+)</Key>\s*+"
    r"<LastModified>(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z)</LastModified>\s*+"
    r"<ETag>(?:&quot;|&#34;|\")?+([^<&\"]*+)(?:&quot;|&#34;|\")?+</ETag>\s*+"
    r"(?:<Checksum\w+>[^<]*</Checksum\w+>\s*)*+<Size>(\d{1,18})</Size>"
    r"([^<]*+(?:<(?!/Contents>)[^<]*+)*+)</Contents>"
)


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
        names, *others = zip(*found, strict=True)
        entries: Sequence[Listed] = ListedPage(_relative(names, prefix, fields), *others)
    else:
        fields, contents = _parse_list(document)
        keys = _relative([content.get("Key", "") for content in contents], prefix, fields)
        entries = [_entry(key, content) for key, content in zip(keys, contents, strict=True)]
    truncated = fields.get("IsTruncated", "").lower()
    if truncated not in ("true", "false"):
        raise MalformedXml("does not say whether it is the last page")
    return ListPage(entries, truncated == "true", fields.get("NextContinuationToken") or None)


def _usual_entries(document: bytes) -> tuple[bytes, list[tuple[str, ...]]] | None:
    """What is around the entries, and for each its key, time, ETag, size and the rest; None if one is unusual.

    Numbers with more than 18 digits are.
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


def _relative(keys: Sequence[str], prefix: str, fields: Mapping[str, str]) -> Sequence[str]:
    """Keys as they are below the prefix, decoded if the page says that they are encoded."""
    if fields.get("EncodingType") == "url":
        keys = [_decoded(key) if "%" in key or "+" in key else key for key in keys]
    strange = next((key for key in keys if not key.startswith(prefix) or not key), None)
    if strange is not None:
        raise MalformedXml(f"lists {strange!r}, which does not start with the prefix {prefix!r}")
    return [key[len(prefix) :] for key in keys] if prefix else keys


def _entry(key: str, content: Mapping[str, str]) -> Listed:
    try:
        size = int(content.get("Size", ""))
    except ValueError as error:
        raise MalformedXml(f"the entry {key!r} lacks a readable size: {error}") from error
    etag, modified = content.get("ETag", "").strip('"'), time_of(content.get("LastModified", ""))
    return Listed(key, size, etag, modified, content.get("StorageClass", ""))


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


def _text(value: str) -> str:
    return escape(value, quote=False)  # xml.sax.saxutils has one too, and brings an HTTP client along: 8 ms


def tagging(tags: Tags) -> bytes:
    """A Tagging document."""
    items = "".join(f"<Tag><Key>{_text(key)}</Key><Value>{_text(value)}</Value></Tag>" for key, value in tags)
    return f"<Tagging><TagSet>{items}</TagSet></Tagging>".encode()


def complete_multipart(etags: Sequence[str]) -> bytes:
    """A CompleteMultipartUpload document for the parts 1..n."""
    parts = "".join(
        f'<Part><PartNumber>{number}</PartNumber><ETag>"{_text(etag)}"</ETag></Part>'
        for number, etag in enumerate(etags, start=1)
    )
    return f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
