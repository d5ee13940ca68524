"""Copies a large single-part object to several targets without ever holding it."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from replicator.broadcast import broadcast
from replicator.budget import ByteBudget
from replicator.errors import Corrupted, Rejected, Transient, Unsupported
from replicator.model import Evidence, Observed
from replicator.multipart import promised_md5
from replicator.publish import Copied, Publisher, Variant
from replicator.reading import WINDOW, SourceTrust, digest_of, read_windows
from replicator.store import Data, SourceStore, Stream

ATTEMPTS = 3
"""A stream cannot be sent again by the wire, so that is done here."""


@dataclass(slots=True)
class _Sending:
    """One target: what to try next, and the result so far."""

    publisher: Publisher
    variants: list[Variant] = field(default_factory=list)
    failures: int = 0
    result: Copied | Exception | None = None
    refusal: Exception | None = None

    @property
    def wants_more(self) -> bool:
        """Whether the last attempt failed in a way that another may mend."""
        if isinstance(self.result, Transient):
            return self.failures < ATTEMPTS
        return self.result is None or (isinstance(self.result, (Unsupported, Rejected)) and bool(self.variants))


class StreamCopy:
    """One large object on its way to its targets."""

    def __init__(
        self, source: SourceStore, key: str, observed: Observed, budget: ByteBudget, trust: SourceTrust
    ) -> None:
        self.source = source
        self.key = key
        self.observed = observed
        self.state = observed.state
        self.budget = budget
        self.trust = trust
        self.promised = promised_md5(self.state.etag) if self.state.etag_is_md5 else None

    async def run(self, targets: Sequence[Publisher]) -> list[Copied | Exception]:
        """One result or error for each target, in order.

        First in trust: the target must find the MD5 that the source's ETag promises, and answer with it. Where that
        fails, or nothing is promised, the object is read for its digest, sent with that, and stamped.
        """
        sendings = [_Sending(publisher) for publisher in targets]
        if self.promised is not None:
            trusting = [one for one in sendings if not one.publisher.foreign_etags]
            await self._send(trusting, self.promised, stamp=None)
        doubtful = [one for one in sendings if one.result is None or isinstance(one.result, Corrupted)]
        if doubtful:
            digest = await digest_of(self.source, self.key, self.state)
            if self.trust.proved and self.promised not in (None, digest):
                wrong = Corrupted("GetObject", self.key, "the bytes read do not fit the source's ETag")
                return [wrong if one in doubtful else one.result or wrong for one in sendings]
            await self._send(doubtful, digest, stamp=self.state.etag)
        return [one.result or Corrupted("PutObject", self.key, "was not sent") for one in sendings]

    async def _send(self, sendings: list[_Sending], md5: bytes, *, stamp: str | None) -> None:
        """Sends until each target has it or will not have it; the results are noted."""
        for one in sendings:
            write = one.publisher.write_of(self.observed, stamp=stamp, md5=md5)
            one.variants, one.failures, one.result = one.publisher.variants(write), 0, None
        while wanting := [one for one in sendings if one.wants_more]:
            await self._send_once(wanting, md5)

    async def _send_once(self, sendings: list[_Sending], md5: bytes) -> None:
        digest = hashlib.md5(usedforsecurity=False)
        stamped = sendings[0].variants[0].write.stamp is not None

        async def chunks() -> AsyncIterator[Data]:
            async for data in read_windows(self.source, self.key, self.state):
                if stamped:
                    digest.update(data)
                yield data

        async with self.budget.lend(WINDOW * (3 + len(sendings))):
            results = await broadcast(chunks(), [self._consumer(one) for one in sendings])
        for one, result in zip(sendings, results, strict=True):
            one.result = result
            if isinstance(result, (Unsupported, Rejected)):
                one.variants.pop(0)
                one.refusal = one.refusal or result
            elif isinstance(result, Transient):
                one.failures += 1
            elif isinstance(result, Copied):
                one.publisher.accepted(one.variants[0], one.refusal)
                if stamped and digest.digest() != md5:
                    one.result = Corrupted("GetObject", self.key, "two reads of one version gave different bytes")

    def _consumer(self, one: _Sending) -> Callable[[AsyncIterator[Data]], Awaitable[Copied]]:
        return lambda body: self._put(one.publisher, body, one.variants[0])

    async def _put(self, publisher: Publisher, body: AsyncIterator[Data], variant: Variant) -> Copied:
        """Sends one stream. Raises Corrupted when trust in the source's ETag is not met."""
        write = variant.write
        written = await publisher.target.put(self.key, Stream(self.state.size, body), write)
        if written.etag == self.state.etag:
            self.trust.proved = True
            return Copied(Evidence.ETAG, self.state.size, variant.left_out)
        if write.stamp is None:
            raise Corrupted("PutObject", self.key, f"ETag {written.etag!r} instead of {self.state.etag!r}")
        if write.md5 is not None:
            await publisher.settle_etag(self.key, written, write.md5)
        return Copied(Evidence.STAMP, self.state.size, variant.left_out)
