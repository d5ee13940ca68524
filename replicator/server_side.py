"""Copies inside one service, without moving bytes through us."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from replicator.errors import AccessDenied, Corrupted, Rejected, StoreError, Unsupported
from replicator.layout import find_cut
from replicator.model import Evidence, Observed
from replicator.multipart import MAX_SINGLE, Layout, Part, composite_etag, parts_of
from replicator.publish import Copied, Publisher, write_of
from replicator.reading import pin_of
from replicator.store import ObjectStore, Write
from replicator.workers import run_workers


async def copy_server_side(
    source: ObjectStore,
    key: str,
    observed: Observed,
    publisher: Publisher,
    *,
    parallel: int,
    stamp: str | None = None,
) -> Copied | Exception | None:
    """Copies `observed` from `source` with its attributes and tags, keeping ETag and layout.

    Returns None where the service cannot or will not do that, or would change the ETag: then bytes are to be moved.
    A result with 0 bytes: none passed through us. stamp: as Write has it.
    """
    if not publisher.target.can_copy_from(source):
        return None
    write, lost = publisher.bearable(write_of(observed, stamp=stamp))
    try:
        if parts_of(observed.state.etag) is None or observed.state.size == 0:
            proved = await _copy_whole(source, key, observed, publisher.target, write)
        else:
            proved = await _copy_parts(source, key, observed, publisher.target, write, parallel)
    except (AccessDenied, Unsupported, Rejected, Corrupted):
        return None
    except StoreError as error:
        return error
    return Copied(Evidence.ETAG, 0, lost) if proved else None


async def _copy_whole(source: ObjectStore, key: str, observed: Observed, target: ObjectStore, write: Write) -> bool:
    state = observed.state
    if state.size > MAX_SINGLE:
        return False
    written = await target.copy(source, key, key, pin_of(state), write)
    etag = written.etag or (await target.head(key)).etag
    return etag == state.etag


async def _copy_parts(
    source: ObjectStore, key: str, observed: Observed, target: ObjectStore, write: Write, parallel: int
) -> bool:
    cut = await find_cut(source, key, observed.state)
    if cut.layout is None or not cut.keeps_etag:
        return False
    upload = await target.create_upload(key, write)
    try:
        etags = await _parts(source, key, observed, target, upload, cut.layout, parallel)
        if composite_etag(etags) != observed.state.etag:
            raise Corrupted("UploadPartCopy", key, "the parts do not make up the source's ETag")
        await target.complete_upload(key, upload, etags)
    except BaseException:
        await asyncio.shield(target.abort_upload(key, upload))
        raise
    return (await target.head(key)).etag == observed.state.etag


async def _parts(
    source: ObjectStore,
    key: str,
    observed: Observed,
    target: ObjectStore,
    upload: str,
    layout: Layout,
    parallel: int,
) -> list[str]:
    etags: dict[int, str] = {}
    pin = pin_of(observed.state)

    async def work(parts: Iterator[Part]) -> None:
        for part in parts:
            etags[part.number] = await target.copy_part(key, upload, part, source, key, pin)

    shared = iter(layout)
    await run_workers(min(parallel, len(layout)), lambda: work(shared))
    return [etags[part.number] for part in layout]
