"""Keys and attributes that tools stumble over: invariant 6 of the design."""

from __future__ import annotations

import unicodedata

from replicator.model import Attributes

PLAIN_KEYS = ("plain.txt", "dir/file.txt", "dir/sub/file", "zz")

AWKWARD_KEYS = (
    "with space",
    "trailing space ",
    "plus+sign",
    "percent%20literal",
    "percent%",
    "a&b=c;d?e#f",
    "quote'\"`",
    "<xml>&amp;",
    "back\\slash",
    "curly{}[]|^~",
    "star*?",
    "comma,semi;colon:",
    unicodedata.normalize("NFC", "é-nfc"),
    unicodedata.normalize("NFD", "é-nfd"),
    "日本語/キー",
    "emoji-😀",
    "control-\x01\x1f\x7f",
    "newline-\n-tab-\t-cr-\r",
    "marker/",
    "marker/inside",
    "a",
    "a-b",
    "a/b",
    "a/",
    "/leading",
    "//two-leading",
    "mid//dle",
    "./dot",
    "../dotdot",
    "x/../y",
    "x/./y",
    "...",
    "k" * 1024,
    "ü" * 512,
)

RICH = Attributes(
    content_type="text/html; charset=utf-8",
    content_encoding="gzip",
    content_disposition='attachment; filename="a b.txt"',
    content_language="de-CH",
    cache_control="max-age=3600, public",
    expires="Wed, 21 Oct 2026 07:28:00 GMT",
    metadata=(("colour", "green"), ("empty-ish", "-"), ("note", "a + b = c; d")),
)

TAGS = (("project", "replicator"), ("stage/x", "a b+c=d@e"))
