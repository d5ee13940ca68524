"""Copies a large single-part object to several targets without ever holding it."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from replicator.broadcast import broadcast
from replicator.budget import ByteBudget
from replicator.errors import Corrupted, Transient
from replicator.model import Evidence, Observed
from replicator.multipart import promised_md5
from replicator.publish import Copied, Publisher, write_of
from replicator.reading import WINDOW, digest_of, read_windows
from replicator.store import Data, ObjectStore, Stream, Write

ATTEMPTS = 3
"""A stream cannot be sent again by the wire, so that is done here."""


class StreamCopy:
    """One large object on its way to its targets."""

    def __init__(self, source: ObjectStore, key: str, observed: Observed, budget: ByteBudget) -> None:
        self.source = source
        self.key = key
        self.observed = observed
        self.budget = budget
        self.promised = promised_md5(observed.state.etag) if observed.state.etag_is_md5 else None
        self._read_twice: str | None = None

    async def run(self, targets: Sequence[Publisher]) -> list[Copied | Exception]:
        """One result or error for each target, in order."""
        results: list[Copied | Exception] = [Corrupted("PutObject", self.key, "not proved yet")] * len(targets)
        trusting = [n for n, target in enumerate(targets) if self.promised and not target.foreign_etags]
        await self._attempts(results, trusting, targets, stamped=False)
        doubtful = [n for n, result in enumerate(results) if isinstance(result, Corrupted)]
        await self._attempts(results, doubtful, targets, stamped=True)
        return results

    async def _attempts(
        self,
        results: list[Copied | Exception],
        which: list[int],
        targets: Sequence[Publisher],
        *,
        stamped: bool,
    ) -> None:
        """Sends to the targets `which`, again to those that failed in passing, and notes the results."""
        for _ in range(ATTEMPTS):
            if not which:
                return
            sent = await self._send([targets[n] for n in which], stamped=stamped)
            for n, result in zip(which, sent, strict=True):
                results[n] = result
            which = [n for n in which if isinstance(results[n], Transient)]

    async def _send(self, targets: Sequence[Publisher], *, stamped: bool) -> list[Copied | Exception]:
        state = self.observed.state
        digest = hashlib.md5(usedforsecurity=False)

        async def chunks() -> AsyncIterator[Data]:
            async for data in read_windows(self.source, self.key, state):
                if stamped:
                    digest.update(data)
                yield data

        write = write_of(self.observed, stamp=state.etag if stamped else None, md5=None if stamped else self.promised)

        def consumer(publisher: Publisher) -> Callable[[AsyncIterator[Data]], Awaitable[Copied]]:
            return lambda body: self._put(publisher, body, write)

        async with self.budget.lend(WINDOW * (3 + len(targets))):
            sent = await broadcast(chunks(), [consumer(publisher) for publisher in targets])
        if not stamped:
            return sent
        return [
            result if isinstance(result, Exception) else await self._judge(result, digest.hexdigest())
            for result in sent
        ]

    async def _put(self, publisher: Publisher, body: AsyncIterator[Data], write: Write) -> Copied:
        state = self.observed.state
        written, lost = await publisher.put_stream(self.key, Stream(state.size, body), write)
        if written.etag == state.etag:
            return Copied(Evidence.ETAG, state.size, lost)
        if write.stamp is None:
            raise Corrupted("PutObject", self.key, f"ETag {written.etag!r} instead of {state.etag!r}")
        return Copied(Evidence.STAMP, state.size, lost)

    async def _judge(self, copied: Copied, digest: str) -> Copied | Exception:
        """Accepts a stamped copy whose bytes do not fit the source's ETag only if another read gives them, too."""
        if copied.evidence is Evidence.ETAG or self.promised is None or digest == self.promised.hex():
            return copied
        if self._read_twice is None:
            self._read_twice = (await digest_of(self.source, self.key, self.observed.state)).hex()
        if self._read_twice != digest:
            return Corrupted("GetObject", self.key, "two reads of one version gave different bytes")
        return copied
