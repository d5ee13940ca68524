"""Unfinished uploads that nobody goes on with: they cost as much as objects, and no listing shows them.

Services do not say reliably who began an upload (Ceph RGW names whoever asks). So only those are aborted whose parts
are proved to be parts of the source's object as it is now: with them nothing is lost, whoever sent them. They have had
no part for a long time, and the run is about their keys. Without parts they cost nothing, and stay.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from replicator.errors import AccessDenied, NoSuchKey, NoSuchUpload
from replicator.layout import find_cut
from replicator.model import Listed
from replicator.parts import hold_parts_of
from replicator.store import ObjectStore, PendingUpload, SourceStore


@dataclass(slots=True)
class Stale:
    """Old uploads: those that were aborted (or would be), and the number of those that are perhaps not ours."""

    aborted: list[PendingUpload] = field(default_factory=list)
    left: int = 0


async def abort_stale(
    source: SourceStore, target: ObjectStore, *, before: float, includes: Callable[[str], bool], dry_run: bool
) -> Stale:
    """Aborts uploads that were begun, and got their last part, before that time of the target. Raises StoreError."""
    stale = Stale()
    async for upload in target.pending_uploads():
        if upload.initiated >= before or not includes(upload.key):
            continue
        try:
            parts = await target.list_parts(upload.key, upload.id)
            if any(part.modified >= before for part in parts.values()):
                continue
            ours = await _is_copy(source, upload.key, parts)
        except (NoSuchUpload, AccessDenied):  # completed by now, or surely not ours
            continue
        if not ours:
            stale.left += 1
            continue
        if not dry_run:
            await target.abort_upload(upload.key, upload.id)
        stale.aborted.append(upload)
    return stale


async def _is_copy(source: SourceStore, key: str, parts: dict[int, Listed]) -> bool:
    """Whether stored parts are some of those in which the source's object would be copied."""
    try:
        state = await source.head(key)
    except NoSuchKey:
        return False
    cut = await find_cut(source, key, state)
    return await hold_parts_of(source, key, state, parts, cut.layout or ())
