"""Signed requests to one endpoint: addressing, retries, throttling, clock. Knows S3's protocol, not its operations."""

from __future__ import annotations

import asyncio
import hashlib
import random
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import quote, urlsplit

from replicator.errors import ChangedMeanwhile, ConfigurationError, Rejected, StoreError, Throttled, Transient
from replicator.model import MiB
from replicator.s3.answers import error_of
from replicator.s3.connection import LARGE_BODY, AnswerTooLarge, Response, StaleConnection
from replicator.s3.headers import http_date
from replicator.s3.http import HttpPool, Origin
from replicator.s3.pace import Pace, SharedRate
from replicator.s3.signing import EMPTY_SHA256, UNSIGNED, Keys, Signer
from replicator.s3.throttle import AdaptiveLimit, RetryBudget
from replicator.s3.xml import parse_error
from replicator.store import Body, Data, Stream

SMALL_ANSWER = 16 * MiB
"""The most bytes of an answer that is not an object: a listing page of 1,000 long keys has under 8 MiB."""


LISTING = "ListObjectsV2"
"""The operation whose answers tell the service's clock: what rests on it are listings."""

QUICK = 1.0
"""Seconds within which an answer must come for its Date to tell the service's clock."""

SURELY_SKEWED = 600.0
"""Seconds between the service's clock and ours that explain a refusal without a reason; S3 allows 900."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a store is and how it is spoken to.

    url: "https://host[:port]", without a path. virtual_hosts: bucket in the host name instead of the path.
    """

    url: str
    region: str = "us-east-1"
    virtual_hosts: bool = False

    def origin(self, bucket: str) -> Origin:
        """Where to connect for a bucket. Raises ConfigurationError for an unusable URL."""
        try:
            parts = urlsplit(self.url)
            port = parts.port
        except ValueError as error:
            raise ConfigurationError(f"endpoint {self.url!r}: {error}") from error
        if parts.username is not None or parts.password is not None:
            raise ConfigurationError("an endpoint takes no user and password: give the keys by themselves")
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/") or parts.query:
            raise ConfigurationError(f"endpoint {self.url!r}: expected http(s)://HOST[:PORT]")
        host = f"{bucket}.{parts.hostname}" if self.virtual_hosts else parts.hostname
        return Origin(parts.scheme, host, port or (443 if parts.scheme == "https" else 80))

    def path(self, bucket: str) -> str:
        """What the paths of a bucket's objects begin with."""
        return "" if self.virtual_hosts else "/" + quote(bucket, safe="")


@dataclass(frozen=True, slots=True)
class Retry:
    """attempts: how often a request is sent at the most. base and cap: of the waits, in seconds (full jitter)."""

    attempts: int = 7
    base: float = 0.1
    cap: float = 10.0

    def wait(self, failures: int, chance: float, *, within_budget: bool = True) -> float:
        """Seconds before the next attempt after this many failures; chance in 0..1. Out of budget: late in any case."""
        return chance * (min(self.cap, self.base * float(2**failures)) if within_budget else self.cap)


@dataclass(frozen=True, slots=True)
class Call:
    """One request.

    operation: S3's name for it. query: already encoded. limit: bytes of answer to hold. late_error: whether an answer
    200 may still carry an error in its XML (copies and completions do that). into: memory for a large answer.
    """

    operation: str
    method: str
    key: str | None = None
    query: str = ""
    headers: Sequence[tuple[str, str]] = ()
    body: Body = b""
    limit: int = SMALL_ANSWER
    late_error: bool = False
    into: memoryview | None = None


async def _paced_chunks(chunks: AsyncIterator[Data], rate: SharedRate) -> AsyncIterator[Data]:
    async for chunk in chunks:
        await rate.take(len(chunk))
        yield chunk


def encode_key(key: str) -> str:
    """A key as the end of a path, with its slash; every "." and "/" stays where it is."""
    return "/" + quote(key, safe="/~")


def encode_query(**parameters: str | int) -> str:
    """A query string as S3 signs it: sorted, a space as "%20". Underscores in names stand for hyphens."""
    pairs = sorted((name.replace("_", "-"), str(value)) for name, value in parameters.items())
    return "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in pairs)


class S3Client:
    """Requests to one bucket at one endpoint. Use as an async context manager, in one event loop.

    keys: gives the credentials of the moment, without blocking. refresh: awaited before each request, for keys that
    have to be fetched. pace: what the endpoint may be asked, closed at the end. sleep, clock, chance: seams for tests.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        bucket: str,
        keys: Callable[[], Keys],
        *,
        refresh: Callable[[], Awaitable[None]] | None = None,
        concurrency: int = 128,
        retry: Retry | None = None,
        pace: Pace | None = None,
        tls: ssl.SSLContext | None = None,
        idle_timeout: float = 60.0,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        origin = endpoint.origin(bucket)
        self.endpoint = endpoint
        self.bucket = bucket
        self.limit = AdaptiveLimit(concurrency)
        self.skew = 0.0
        self.sent = 0
        """Bytes of bodies that were sent with success."""
        self._keys = keys
        self._refresh = refresh
        self._pool = HttpPool(origin, tls=tls, idle_timeout=idle_timeout)
        self._signer = Signer(keys, endpoint.region, clock=clock)
        self._retry = retry or Retry()
        self._pace = pace or Pace()
        self._budget = RetryBudget()
        self._sleep, self._clock, self._chance = sleep, clock, chance
        self._secure = origin.scheme == "https"
        self._host = origin.authority
        self._base = endpoint.path(bucket)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._pool.close()
        self._pace.close()

    def target(self, call: Call) -> str:
        """Path and query of a request, encoded byte for byte as it is signed and sent."""
        path = self._base if call.key is None else self._base + encode_key(call.key)
        return f"{path or '/'}?{call.query}" if call.query else path or "/"

    async def send(self, call: Call) -> Response:
        """Sends a request until it is answered with success, for `retry.attempts` times at the most.

        A body that is a Stream is sent once. Raises the StoreError that the last answer stands for.
        """
        failures = 0
        while True:
            try:
                return await self._attempt(call)
            except Transient as error:
                failures += 1
                if isinstance(call.body, Stream) or failures >= self._retry.attempts:
                    raise
                if not isinstance(error.__cause__, StaleConnection) or failures > 1:
                    within = self._budget.spend()
                    await self._sleep(self._retry.wait(failures, self._chance(), within_budget=within))

    async def _attempt(self, call: Call) -> Response:
        if self._refresh is not None:
            await self._refresh()
        await self.limit.acquire()
        try:
            response = await self._paced(call)
        except (OSError, AnswerTooLarge, ValueError) as error:
            raise self._lost(call, error) from error
        finally:
            self.limit.release()
        if response.status < 300 and not (call.late_error and parse_error(response.document)):
            self.limit.succeeded()
            self._budget.earn()
            self.sent += call.body.size if isinstance(call.body, Stream) else len(call.body)
            return response
        raise self._refusal(call, response)

    async def _paced(self, call: Call) -> Response:
        """An exchange within what the endpoint may be asked."""
        if self._pace.requests is not None:
            await self._pace.requests.take(1)
        if self._pace.bytes_ is None:
            return await self._exchange(call)
        if not isinstance(call.body, Stream):
            await self._pace.bytes_.take(len(call.body))
        response = await self._exchange(call)
        await self._pace.bytes_.take(len(response.body))
        return response

    async def _exchange(self, call: Call) -> Response:
        target = self.target(call)
        body, size, digest = self._payload(call.body)
        if isinstance(call.body, Stream) and self._pace.bytes_ is not None:
            body = _paced_chunks(call.body.chunks, self._pace.bytes_)
        headers = self._signer.sign(call.method, target, [("host", self._host), *call.headers], digest)
        asked = self._clock()
        request = self._pool.request(call.method, target, headers, body, size=size, limit=call.limit, into=call.into)
        response = await request
        if call.operation == LISTING:
            self._saw_clock(response, asked)
        return response

    def _payload(self, body: Body) -> tuple[Data | AsyncIterator[Data], int, str]:
        """The bytes to send, how many, and what is signed for them: over TLS and for many bytes, that they are not.

        A digest of large bodies is half the CPU of copying them, and what arrived is proved by its ETag in any case.
        """
        if isinstance(body, Stream):
            return body.chunks, body.size, UNSIGNED
        if self._secure or len(body) >= LARGE_BODY:
            return body, len(body), UNSIGNED if body else EMPTY_SHA256
        return body, len(body), hashlib.sha256(body).hexdigest() if body else EMPTY_SHA256

    def _refusal(self, call: Call, response: Response) -> StoreError:
        error = error_of(call.operation, self._about(call), response)
        if isinstance(error, Throttled):
            self.limit.slowed_down()
        served = http_date(response.headers.get("date", ""))
        off = abs(served - self._clock() - self._signer.skew) if served else 0.0
        nameless = call.method == "HEAD" and response.status == 403  # a HEAD's refusal does not say why
        if off and (error.code == "RequestTimeTooSkewed" or (nameless and off > SURELY_SKEWED)):
            self._signer.skew = served - self._clock()
            return Transient(error.operation, error.target, error.detail, code="RequestTimeTooSkewed")
        return error

    def _lost(self, call: Call, error: Exception) -> StoreError:
        if isinstance(error, AnswerTooLarge):
            return ChangedMeanwhile(call.operation, self._about(call), str(error))
        if isinstance(error, ValueError):  # an untrusted certificate is one, too
            return Rejected(call.operation, self._about(call), f"{self.endpoint.url}: {error}")
        text = str(error) or type(error).__name__
        return Transient(call.operation, self._about(call), f"{self.endpoint.url}: {text}", code=type(error).__name__)

    def _about(self, call: Call) -> str:
        return self.bucket if call.key is None else f"{self.bucket}/{call.key}"

    def same_account(self, other: S3Client) -> bool:
        """Whether this endpoint can read the other's bucket by itself: same service, same access key."""
        both_aws = all(".amazonaws.com" in client.endpoint.url for client in (self, other))
        same_service = both_aws or self.endpoint.url.rstrip("/") == other.endpoint.url.rstrip("/")
        return same_service and self._keys().access_key_id == other._keys().access_key_id

    def _saw_clock(self, response: Response, asked: float) -> None:
        """Notes the service's clock from an answer to a question of that time; a slow answer says too little."""
        served, now = http_date(response.headers.get("date", "")), self._clock()
        if served and now - asked < QUICK:
            self.skew = served - now
