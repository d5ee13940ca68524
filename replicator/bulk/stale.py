"""Unfinished uploads that nobody goes on with: they cost as much as objects, and no listing shows them.

Only those are aborted that are ours for certain: begun by the same identity as ours, of a key that the run is about,
and without a part for a long time.
"""

from __future__ import annotations

from collections.abc import Callable

from replicator.errors import NoSuchUpload, Unsupported
from replicator.store import ObjectStore, PendingUpload, Write

PROBE = "replicator-whose-uploads-are-these"
"""The key of an upload that is begun, looked at and aborted, to see who we are. No object is ever made of it."""


async def abort_stale(
    target: ObjectStore, *, before: float, includes: Callable[[str], bool], dry_run: bool
) -> list[PendingUpload]:
    """Aborts uploads that were begun, and got their last part, before that time of the target; those it aborted.

    Raises Unsupported where the service does not say who began an upload, and StoreError.
    """
    initiator = await _ourselves(target)
    stale = []
    async for upload in target.pending_uploads():
        if upload.initiator != initiator or upload.initiated >= before or not includes(upload.key):
            continue
        if await _last_part(target, upload) < before:
            if not dry_run:
                await target.abort_upload(upload.key, upload.id)
            stale.append(upload)
    return stale


async def _last_part(target: ObjectStore, upload: PendingUpload) -> float:
    """When the last part was stored; 0.0 when there is none."""
    try:
        parts = await target.list_parts(upload.key, upload.id)
    except NoSuchUpload:
        return float("inf")  # completed or aborted by now
    return max((part.modified for part in parts.values()), default=0.0)


async def _ourselves(target: ObjectStore) -> str:
    """How the service names who begins our uploads."""
    own = await target.create_upload(PROBE, Write())
    try:
        found = [upload.initiator async for upload in target.pending_uploads(PROBE) if upload.id == own]
    finally:
        await target.abort_upload(PROBE, own)
    if not found or not found[0]:
        detail = "the service does not say who began an upload: none was aborted"
        raise Unsupported("ListMultipartUploads", target.name, detail)
    return found[0]
