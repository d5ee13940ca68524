"""Copies a multipart object part by part, to several targets, so that its ETag stays the source's.

A large object that is interrupted goes on from the parts that are at the target: they need no notes of ours, since the
composite ETag proves before completion that all parts belong together.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from replicator.broadcast import broadcast
from replicator.budget import ByteBudget
from replicator.errors import (
    AccessDenied,
    ChangedMeanwhile,
    Corrupted,
    NoSuchUpload,
    Rejected,
    StoreError,
    Transient,
    Unsupported,
)
from replicator.layout import Cut, find_cut, parts_at_once
from replicator.model import Evidence, Listed, MiB, ObjectState, Observed
from replicator.multipart import Layout, Part, PartsProof, judge_parts, md5_of
from replicator.publish import Copied, Publisher
from replicator.reading import WINDOW, SourceTrust, digest_of, pin_of, read_windows
from replicator.storage_classes import class_of
from replicator.store import Data, SourceStore, Span, Stream
from replicator.streaming import ATTEMPTS
from replicator.workers import run_workers

IN_MEMORY = 64 * MiB
"""Parts up to this size are held as a whole, so that the wire can send them again; larger ones stream."""

RESUME_FROM = 64 * MiB
"""Unfinished uploads of objects of this size are kept when they are interrupted, and looked for at the start."""


@dataclass(slots=True)
class Upload:
    """One unfinished multipart upload at one target, and what became of it."""

    publisher: Publisher
    id: str
    lost: tuple[str, ...]
    etags: dict[int, str] = field(default_factory=dict)
    error: Exception | None = None
    resumed: bool = False


class PartCopy:
    """One multipart object on its way to its targets."""

    def __init__(
        self,
        source: SourceStore,
        key: str,
        observed: Observed,
        budget: ByteBudget,
        trust: SourceTrust,
        *,
        resume_from: int,
    ) -> None:
        self.source = source
        self.key = key
        self.observed = observed
        self.state = observed.state
        self.budget = budget
        self.trust = trust
        self.resumable = observed.state.size >= resume_from
        self.promised = False
        """Whether parts cut as the source's should make up its ETag."""

    async def run(self, cut: Cut, targets: Sequence[Publisher]) -> list[Copied | Exception]:
        """One result or error for each target, in order.

        First in trust: the targets' part ETags must make up the source's ETag. Where they do not, once more with the
        layout asked for part by part, digests of our own and a stamp.
        """
        self.promised = cut.keeps_etag
        trust = cut.keeps_etag and not any(target.foreign_etags or target.foreign_composites for target in targets)
        results = await self._attempt(cut.layout or (), targets, digests=None if trust else {})
        doubtful = [n for n, result in enumerate(results) if isinstance(result, Corrupted)]
        if trust and doubtful:
            exact = await find_cut(self.source, self.key, self.state, exact=True)
            again = await self._attempt(exact.layout or (), [targets[n] for n in doubtful], digests={})
            for n, result in zip(doubtful, again, strict=True):
                results[n] = result
        return results

    async def _attempt(
        self, layout: Layout, targets: Sequence[Publisher], *, digests: dict[int, bytes] | None
    ) -> list[Copied | Exception]:
        """One transfer of all parts. digests: filled with the parts' MD5s as they are read, None to trust."""
        uploads: list[Upload] = []
        interrupted = True
        try:
            for publisher in targets:
                upload = await self._start(publisher, layout, stamped=digests is not None)
                uploads.append(upload)
            await self.transfer(layout, uploads, digests)
            results = [await self._finish(layout, upload, digests) for upload in uploads]
            interrupted = False
            return results
        except StoreError as error:
            interrupted = isinstance(error, Transient)
            raise
        finally:
            # A stamped upload is never kept: whoever took it up could not see the stamp.
            await asyncio.shield(self._abort(uploads, interrupted=interrupted, stamped=digests is not None))

    async def _start(self, publisher: Publisher, layout: Layout, *, stamped: bool) -> Upload:
        """Starts an upload, or finds the one to go on with. A stamped one is never taken up: it may have no stamp."""
        write = publisher.write_of(self.observed, stamp=self.state.etag if stamped else None)
        try:
            if self.resumable and not stamped:
                found = await self.find_begun(publisher, layout, write.storage_class)
                if found is not None:
                    return found
            upload, lost = await publisher.until_accepted(
                write, lambda wanted: publisher.target.create_upload(self.key, wanted)
            )
        except StoreError as error:
            return Upload(publisher, "", (), error=error)
        return Upload(publisher, upload, lost)

    async def find_begun(self, publisher: Publisher, layout: Layout, storage_class: str) -> Upload | None:
        """The newest unfinished upload of this key that holds bytes of this version, for the right storage class.

        The sizes of all its parts must fit, and one part is read at the source: an upload of another version, or of
        another program, is left alone.
        """
        with suppress(AccessDenied, Unsupported, Rejected):  # who may not look begins anew
            for name in await publisher.target.list_uploads(self.key):
                with suppress(NoSuchUpload):
                    stored = await publisher.target.list_parts(self.key, name)
                    of_class = all(class_of(entry.storage_class) == storage_class for entry in stored.values())
                    if of_class and await hold_parts_of(self.source, self.key, self.state, stored, layout):
                        etags = {number: entry.etag for number, entry in stored.items()}
                        return Upload(publisher, name, (), etags=etags, resumed=True)
        return None

    async def transfer(self, layout: Layout, uploads: list[Upload], digests: dict[int, bytes] | None) -> None:
        """Stores these parts in all uploads that have no error and lack them; notes their ETags, or the error.

        digests: as in `_attempt`. Raises a StoreError of the source.
        """
        parts = iter(layout)

        async def work(mine: Iterator[Part]) -> None:
            for part in mine:
                wanting = [upload for upload in uploads if upload.error is None]
                if not wanting:
                    return
                live = [upload for upload in wanting if part.number not in upload.etags]
                if not live:
                    continue
                if part.size <= IN_MEMORY:
                    await self._part_in_memory(part, live, digests)
                else:
                    await self._part_streamed(part, live, digests)

        await run_workers(parts_at_once(layout), lambda: work(parts))

    async def _part_in_memory(self, part: Part, live: list[Upload], digests: dict[int, bytes] | None) -> None:
        async with self.budget.lend(part.size) as memory:
            span = Span(part.offset, part.last)
            fetched = await self.source.fetch(self.key, limit=part.size, span=span, pin=pin_of(self.state), into=memory)
            md5 = None
            if digests is not None:
                md5 = md5_of(fetched.data)
                digests[part.number] = md5
            if len(live) == 1:
                await self._store_part(live[0], part, fetched.data, md5)
            else:
                await asyncio.gather(*(self._store_part(upload, part, fetched.data, md5) for upload in live))

    async def _part_streamed(self, part: Part, live: list[Upload], digests: dict[int, bytes] | None) -> None:
        passing: dict[int, Exception] = {}
        wanting, md5 = live, None
        if digests is not None:  # read twice, for the targets to check it
            md5 = digests[part.number] = await digest_of(
                self.source, self.key, self.state, offset=part.offset, size=part.size
            )
        for _ in range(ATTEMPTS):
            async with self.budget.lend(WINDOW * (3 + len(wanting))):
                windows = read_windows(self.source, self.key, self.state, offset=part.offset, size=part.size)
                results = await broadcast(windows, [self._consumer(upload, part, md5) for upload in wanting])
            for upload, result in zip(wanting, results, strict=True):
                if isinstance(result, str):
                    upload.etags[part.number] = result
                elif not isinstance(result, Transient):
                    upload.error = result
            passing = {n: result for n, result in enumerate(results) if isinstance(result, Transient)}
            if not passing:
                break
            wanting = [wanting[n] for n in passing]
        for upload, error in zip(wanting, passing.values(), strict=False):
            upload.error = error

    def _consumer(
        self, upload: Upload, part: Part, md5: bytes | None
    ) -> Callable[[AsyncIterator[Data]], Awaitable[str]]:
        target = upload.publisher.target
        return lambda chunks: target.put_part(self.key, upload.id, part, Stream(part.size, chunks), md5=md5)

    async def _store_part(self, upload: Upload, part: Part, body: Data, md5: bytes | None) -> None:
        try:
            etag = await upload.publisher.target.put_part(self.key, upload.id, part, body, md5=md5)
        except StoreError as error:
            upload.error = error
        else:
            upload.etags[part.number] = etag

    async def _finish(self, layout: Layout, upload: Upload, digests: dict[int, bytes] | None) -> Copied | Exception:
        """Publishes an upload if its parts are proved, and reads back what was published."""
        if upload.error is not None:
            return upload.error
        etags = [upload.etags[part.number] for part in layout]
        try:
            evidence = await self._prove(layout, etags, digests, upload.publisher)
            with suppress(NoSuchUpload):  # perhaps completed by a request whose answer was lost
                await upload.publisher.target.complete_upload(self.key, upload.id, etags)
                upload.id = ""
            state = await self._read_back(upload.publisher, stamped=digests is not None)
        except StoreError as error:
            return error
        return Copied(evidence, self.state.size, upload.lost, state, upload.resumed or bool(upload.id))

    async def _prove(
        self, layout: Layout, etags: list[str], digests: dict[int, bytes] | None, publisher: Publisher
    ) -> Evidence:
        """Evidence that the stored parts are the source's bytes. Raises Corrupted."""
        mine = None if digests is None else [digests[part.number] for part in layout]
        proof = judge_parts(etags, mine, self.state.etag)
        if proof is PartsProof.EQUAL:
            self.trust.proved = True
            return Evidence.ETAG
        if mine is None or proof is PartsProof.CORRUPTED:
            raise Corrupted("UploadPart", self.key, "the parts do not make up the source's ETag")
        publisher.foreign_etags = [digest.hex() for digest in mine] != etags
        if proof is PartsProof.READ_AGAIN and self.promised:  # else nothing tells that one read was wrong
            for part, digest in zip(layout, mine, strict=True):
                again = await digest_of(self.source, self.key, self.state, offset=part.offset, size=part.size)
                if again != digest:
                    raise Corrupted("GetObject", self.key, "two reads of one version gave different bytes")
        return Evidence.STAMP

    async def _read_back(self, publisher: Publisher, *, stamped: bool) -> ObjectState:
        """What is there now. Raises ChangedMeanwhile if it is another object, Corrupted if only a stamp would tell."""
        state = await publisher.target.head(self.key)
        if state.size == self.state.size:
            if state.etag == self.state.etag:
                return state
            if state.stamp == self.state.etag:
                publisher.foreign_composites = True
                return state
            if not stamped:
                raise Corrupted("HeadObject", self.key, "the ETag of the whole is not that of its parts")
        raise ChangedMeanwhile("HeadObject", self.key, "another object is there after completing the upload")

    async def _abort(self, uploads: list[Upload], *, interrupted: bool, stamped: bool) -> None:
        """Drops what was begun here and not completed; large uploads that were interrupted are left to go on with."""
        for upload in uploads:
            goes_on = self.resumable and not stamped and (interrupted or isinstance(upload.error, Transient))
            if upload.id and not upload.resumed and not goes_on:
                try:
                    await upload.publisher.target.abort_upload(self.key, upload.id)
                except StoreError as error:
                    upload.error = upload.error or error


async def hold_parts_of(
    source: SourceStore, key: str, state: ObjectState, stored: dict[int, Listed], layout: Layout
) -> bool:
    """Whether stored parts, at least one, are parts of this version: by their sizes, and by the bytes of one."""
    parts = {part.number: part for part in layout}
    for number, entry in stored.items():
        part = parts.get(number)
        if part is None or part.size != entry.size:
            return False
    if not stored:
        return False
    probe = parts[max(stored)]
    digest = await digest_of(source, key, state, offset=probe.offset, size=probe.size)
    return digest.hex() == stored[probe.number].etag
