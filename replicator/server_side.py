"""Copies inside one service, without moving bytes through us."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from replicator.errors import AccessDenied, Corrupted, NoSuchUpload, Rejected, StoreError, Unsupported
from replicator.layout import find_cut, parts_at_once
from replicator.model import Evidence, ObjectState
from replicator.multipart import MAX_SINGLE, Layout, Part, composite_etag, parts_of
from replicator.publish import Copied, Publisher
from replicator.reading import pin_of
from replicator.store import ObjectStore, SourceStore, Write
from replicator.workers import run_workers


async def copy_server_side(
    source: SourceStore,
    key: str,
    state: ObjectState,
    publisher: Publisher,
    write: Write,
    *,
    to: str | None = None,
) -> Copied | Exception | None:
    """Copies the version `state` from `source`, keeping its layout. to: another key for the copy.

    write: what is published with its bytes; with a stamp in it the ETag may change. Returns None where the service
    cannot or will not do that, or would change the ETag: then bytes are to be moved. A result with 0 bytes: none
    passed through us.
    """
    if not publisher.target.can_copy_from(source):
        return None
    copy = _ServerSideCopy(source, key, state, publisher.target, key if to is None else to)
    try:
        proved, lost = await publisher.until_accepted(write, copy.run)
    except (AccessDenied, Unsupported, Rejected, Corrupted):
        return None
    except StoreError as error:
        return error
    if not proved:
        return None
    return Copied(Evidence.STAMP if write.stamp else Evidence.ETAG, 0, lost)


class _ServerSideCopy:
    """One object on its way inside a service."""

    def __init__(self, source: SourceStore, key: str, state: ObjectState, target: ObjectStore, to: str) -> None:
        self.source = source
        self.key = key
        self.state = state
        self.target = target
        self.to = to

    async def run(self, write: Write) -> bool:
        """Copies; whether the copy is proved: by an equal ETag, or by a stamp, which says that it may differ."""
        if parts_of(self.state.etag) is None or self.state.size == 0:
            return await self._whole(write)
        return await self._in_parts(write)

    async def _whole(self, write: Write) -> bool:
        if self.state.size > MAX_SINGLE:
            return False
        written = await self.target.copy(self.source, self.key, self.to, pin_of(self.state), write)
        return await self._proved(write, written.etag)

    async def _proved(self, write: Write, etag: str = "") -> bool:
        etag = etag or (await self.target.head(self.to)).etag
        return etag == self.state.etag or write.stamp is not None

    async def _in_parts(self, write: Write) -> bool:
        cut = await find_cut(self.source, self.key, self.state)
        if cut.layout is None or not (cut.keeps_etag or write.stamp):
            return False
        upload = await self.target.create_upload(self.to, write)
        try:
            etags = await self._parts(upload, cut.layout)
            if write.stamp is None and composite_etag(etags) != self.state.etag:
                raise Corrupted("UploadPartCopy", self.key, "the parts do not make up the source's ETag")
            await self._complete(upload, etags)
        except BaseException:
            await asyncio.shield(self.target.abort_upload(self.to, upload))
            raise
        return await self._proved(write)

    async def _complete(self, upload: str, etags: list[str]) -> None:
        """Completes; an upload that is gone may have been completed by a request whose answer was lost."""
        try:
            await self.target.complete_upload(self.to, upload, etags)
        except NoSuchUpload:
            if (await self.target.head(self.to)).etag != composite_etag(etags):
                raise

    async def _parts(self, upload: str, layout: Layout) -> list[str]:
        etags: dict[int, str] = {}
        pin = pin_of(self.state)

        async def work(parts: Iterator[Part]) -> None:
            for part in parts:
                etags[part.number] = await self.target.copy_part(self.to, upload, part, self.source, self.key, pin)

        shared = iter(layout)
        await run_workers(parts_at_once(layout), lambda: work(shared))
        return [etags[part.number] for part in layout]
