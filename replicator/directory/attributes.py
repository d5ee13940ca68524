"""What a file's object has beside its bytes: a Content-Type by its name, and what the command line gives. Pure."""

from __future__ import annotations

import mimetypes
import re
import zlib
from collections.abc import Sequence
from dataclasses import replace

from replicator.errors import ConfigurationError
from replicator.model import STAMP, Attributes

_TYPES = mimetypes.MimeTypes()
"""Python's own table: what the machine has in /etc would make a folder differ from one machine to the next."""

for _ending, _type in (  # what Python's versions do not agree on
    (".7z", "application/x-7z-compressed"),
    (".avif", "image/avif"),
    (".docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
    (".js", "text/javascript"),
    (".md", "text/markdown"),
    (".mjs", "text/javascript"),
    (".pptx", "application/vnd.openxmlformats-officedocument.presentationml.presentation"),
    (".webp", "image/webp"),
    (".woff", "font/woff"),
    (".woff2", "font/woff2"),
    (".xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
):
    _TYPES.add_type(_type, _ending)

_PACKED = {"gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz"}
"""A packed file is sent as it is: with Content-Encoding a browser would unpack what was meant to be kept packed."""

_HEADERS = {
    "content-type": "content_type",
    "content-encoding": "content_encoding",
    "content-disposition": "content_disposition",
    "content-language": "content_language",
    "cache-control": "cache_control",
    "expires": "expires",
    "x-amz-website-redirect-location": "website_redirect",
}

_VISIBLE = re.compile(r"[\x20-\x7e]*")
_NAME = re.compile(r"[A-Za-z0-9!#$&'*+.^_`|~-]+")


def parse_attributes(headers: Sequence[str], metadata: Sequence[str]) -> Attributes:
    """Of "Cache-Control: max-age=60" and "owner=me". Raises ConfigurationError."""
    given: dict[str, str] = {}
    for text in headers:
        name, colon, value = text.partition(":")
        field = _HEADERS.get(name.strip().lower())
        if not colon or field is None:
            known = ", ".join(name.title() for name in _HEADERS)
            raise ConfigurationError(f"--header {text!r}: must be 'NAME: VALUE' with one of {known}")
        given[field] = _checked(value.strip(), f"--header {text!r}")
    entries: dict[str, str] = {}
    for text in metadata:
        name, equals, value = text.partition("=")
        if not equals or _NAME.fullmatch(name) is None:
            raise ConfigurationError(f"--metadata {text!r}: must be NAME=VALUE, the name of ASCII letters and digits")
        if name.lower() == STAMP:
            raise ConfigurationError(f"--metadata {text!r}: that name is for what proves a copy")
        entries[name.lower()] = _checked(value.strip(), f"--metadata {text!r}")
    return Attributes(**given, metadata=tuple(sorted(entries.items())))


def attributes_of(key: str, common: Attributes) -> Attributes:
    """Those that all files have, with a Content-Type by the name unless one was given."""
    if common.content_type is not None:
        return common
    return replace(common, content_type=type_by_name(key))


def type_by_name(key: str) -> str | None:
    """As "image/png" for "a/b.png"; None for a name that tells nothing."""
    kind, packing = _TYPES.guess_type(f"/{key.rpartition('/')[2].lower()}", strict=True)
    return kind if packing is None else _PACKED.get(packing)


def fingerprint(common: Attributes) -> str:
    """Changes when the attributes that all files have are changed."""
    return "" if common == Attributes() else f"{zlib.crc32(repr(common).encode()):08x}"


def _checked(value: str, option: str) -> str:
    if not value or _VISIBLE.fullmatch(value) is None:
        raise ConfigurationError(f"{option}: the value must be printable ASCII, which is all that a header holds")
    return value
