"""Requests for presigned URLs: what they say, and what is allowed. Decides; signs nothing (replicator.s3.presigning).

A request is a JSON object {"key": ..., "method": "get" or "put", "expires": seconds or "15m", "download_as": ...}, of
which only the key is needed. Nothing is allowed but what the settings name:

| variable          | meaning                                                                                       |
|-------------------|-----------------------------------------------------------------------------------------------|
| `URLS_PREFIXES`   | directories below the location, separated by commas, or "*" for all; nothing is allowed without |
| `URLS_MAX_EXPIRY` | the longest that a URL may be valid, as 15m; 1h unless given                                  |
| `URLS_METHODS`    | get (default), put, or both separated by a comma                                              |
| `URLS_BUCKET`     | location instead of `TARGET_BUCKET`; its endpoint and keys are the target's                   |
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, cast, get_args
from unicodedata import category
from urllib.parse import quote

from replicator.durations import parse_duration
from replicator.errors import ConfigurationError, ReplicatorError
from replicator.model import LONGEST_KEY
from replicator.sides import Side, read_side

Method = Literal["get", "put"]
METHODS: tuple[Method, ...] = get_args(Method)

LONGEST = 7 * 86400
"""Seconds that a URL may be valid at the most: S3's limit for signatures of version 4."""

USUAL = 900
"""Seconds that a URL is valid when a request does not say, or less where less is allowed."""

LARGEST_REQUEST = 8192
"""Bytes of a request's body."""

LONGEST_NAME = 255

EVERYTHING = "*"


class UrlRefused(ReplicatorError):
    """A request that gets no URL. status: of the HTTP answer. The text says why, and repeats nothing of the request."""

    status: ClassVar[int]


class MalformedRequest(UrlRefused):
    """A request that cannot be understood, or asks for what there is not."""

    status = 400


class NotAllowed(UrlRefused):
    """A request for something that the settings do not allow."""

    status = 403


@dataclass(frozen=True, slots=True)
class UrlRequest:
    """What is to be signed.

    key: relative to the location's prefix. expires: seconds. download_as: the file's name that a browser is told.
    """

    key: str
    method: Method
    expires: int
    download_as: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UrlPolicy:
    """What may be signed.

    allowed_prefixes: directories, with or without a "/" at the end; "*" for everything, and nothing where it is empty.
    max_expires: seconds.
    """

    allowed_prefixes: tuple[str, ...] = ()
    max_expires: int = 3600
    methods: frozenset[Method] = field(default_factory=lambda: frozenset[Method]({"get"}))

    @classmethod
    def from_env(cls, environment: Mapping[str, str]) -> UrlPolicy:
        """Reads the URLS_ variables. Raises ConfigurationError."""
        text = environment.get("URLS_MAX_EXPIRY") or "1h"
        seconds = int(parse_duration(text, "URLS_MAX_EXPIRY"))
        if not 1 <= seconds <= LONGEST:
            raise ConfigurationError(f"URLS_MAX_EXPIRY {text!r}: must be from 1s to 7d, the most that S3 takes")
        methods = _listed(environment.get("URLS_METHODS", "get").lower()) or ["get"]
        unknown = [name for name in methods if name not in METHODS]
        if unknown:
            raise ConfigurationError(f"URLS_METHODS: {unknown[0]!r}: must be get, put or get,put")
        return cls(
            allowed_prefixes=tuple(_listed(environment.get("URLS_PREFIXES", ""))),
            max_expires=seconds,
            methods=frozenset(cast("list[Method]", methods)),
        )

    @property
    def directories(self) -> tuple[str, ...]:
        """What an allowed key begins with; "" where everything is allowed."""
        return tuple(
            "" if prefix == EVERYTHING else prefix.removesuffix("/") + "/" for prefix in self.allowed_prefixes if prefix
        )

    def check(self, request: UrlRequest) -> UrlRequest:
        """The request itself, when it is allowed. Raises NotAllowed."""
        if request.method not in self.methods:
            raise NotAllowed(f"method: {request.method} is not allowed here (URLS_METHODS)")
        if request.expires > self.max_expires:
            raise NotAllowed(f"expires: at most {self.max_expires} seconds are allowed here (URLS_MAX_EXPIRY)")
        if not request.key.startswith(self.directories):
            raise NotAllowed("key: not below a prefix that is allowed here (URLS_PREFIXES)")
        if ".." in request.key.split("/"):
            # To S3 two characters like any others; a store that takes keys for paths would leave the directory.
            raise NotAllowed("key: '..' between slashes is not allowed here: some stores would go up a directory")
        return request


def location_of_urls(environment: Mapping[str, str], config: Mapping[str, object] | None = None) -> Side:
    """The bucket and prefix that URLs are for: URLS_BUCKET, or the target. Raises ConfigurationError."""
    variable = "URLS_BUCKET" if environment.get("URLS_BUCKET") else "TARGET_BUCKET"
    return read_side("target", environment.get(variable, ""), environment, config, variable=variable)


def parse_request(body: bytes, policy: UrlPolicy) -> UrlRequest:
    """The request in a body of JSON. Raises MalformedRequest or NotAllowed."""
    if len(body) > LARGEST_REQUEST:
        raise MalformedRequest(f"body: more than {LARGEST_REQUEST} bytes")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise MalformedRequest("body: must be a JSON object") from None
    if not isinstance(document, dict):
        raise MalformedRequest("body: must be a JSON object")
    if not document.keys() <= {"key", "method", "expires", "download_as"}:
        raise MalformedRequest("body: takes key, method, expires and download_as, and nothing else")
    method = _method(document.get("method", "get"))
    request = UrlRequest(
        key=_key(document.get("key")),
        method=method,
        expires=_expires(document.get("expires"), policy),
        download_as=_download_as(document.get("download_as"), method),
    )
    return policy.check(request)


def content_disposition(name: str) -> str:
    """The header that has a browser save an object as `name` (RFC 6266). Raises ConfigurationError for no file's name.

    What is not ASCII is in a second form of the name that every browser of today prefers.
    """
    bad = not _is_utf8(name) or any(c in "/\\" or category(c) == "Cc" for c in name)
    if bad or not 1 <= len(name.encode()) <= LONGEST_NAME:
        raise ConfigurationError(
            f"download-as: must be a file's name of at most {LONGEST_NAME} bytes, without slash and control character"
        )
    plain = "".join(c if c.isascii() and c not in '"%' else "_" for c in name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='!#$&+-.^_`|~')}"


def _listed(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _key(given: object) -> str:
    if not isinstance(given, str) or not _is_utf8(given) or not 1 <= len(given.encode()) <= LONGEST_KEY:
        raise MalformedRequest(f"key: must be a string of 1 to {LONGEST_KEY} bytes in UTF-8")
    return given


def _method(given: object) -> Method:
    for method in METHODS:
        if isinstance(given, str) and given.lower() == method:
            return method
    raise MalformedRequest("method: must be get or put")


def _expires(given: object, policy: UrlPolicy) -> int:
    if given is None:
        return min(USUAL, policy.max_expires)
    if isinstance(given, str):
        try:
            given = int(parse_duration(given, "expires"))
        except ConfigurationError:
            raise MalformedRequest("expires: must be seconds, or a number and a unit, as 15m or 1h") from None
    if not isinstance(given, int) or isinstance(given, bool) or not 1 <= given <= LONGEST:
        raise MalformedRequest(f"expires: must be from 1 to {LONGEST} seconds, the most that S3 takes")
    return given


def _download_as(given: object, method: Method) -> str | None:
    if given is None:
        return None
    if method != "get":
        raise MalformedRequest("download_as: is only for get")
    if not isinstance(given, str):
        raise MalformedRequest("download_as: must be a string")
    try:
        content_disposition(given)
    except ConfigurationError as error:
        raise MalformedRequest(str(error)) from None
    return given


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True
