"""Unfinished uploads of one object, each at its target: what is known, stored and published there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from replicator.errors import AccessDenied, NoSuchKey, NoSuchUpload, Rejected, StoreError, Unsupported
from replicator.layout import parts_at_once
from replicator.model import Listed, ObjectState
from replicator.multipart import MAX_PARTS, Layout, Part, md5_of, parts_of
from replicator.parts import PartCopy, Upload
from replicator.reading import pin_of
from replicator.store import ObjectStore, Write
from replicator.workers import run_workers

IDLE = 900.0
"""Seconds without a new part after which nobody is at an upload any more. Messages are tried again for longer."""

PROBE = b"replicator: are ETags MD5s?"


@dataclass(slots=True)
class Place(Upload):
    """An upload at one target. id: "" where none could be begun. settled: no part is to be brought any more."""

    stamped: bool = False
    settled: bool = False

    @property
    def name(self) -> str:
        """Of its target."""
        return self.publisher.target.name


async def store_parts(copy: PartCopy, parts: Layout, places: Sequence[Place], digests: dict[int, bytes] | None) -> None:
    """Stores parts, inside the service where that can be. Errors of targets are noted in their places.

    digests: filled with the MD5s of parts that pass through us, which the target checks; None to take none. Raises a
    StoreError of the source.
    """
    near = [place for place in places if place.publisher.target.can_copy_from(copy.source)]
    far: list[Upload] = [place for place in places if place not in near]
    if far:
        await copy.transfer(parts, far, digests)
    for place in near:
        await _server_side(copy, parts, place)


async def _server_side(copy: PartCopy, parts: Layout, place: Place) -> None:
    target, pin = place.publisher.target, pin_of(copy.state)

    async def work(waiting: Iterator[Part]) -> None:
        for part in waiting:
            if place.error is None and part.number not in place.etags:
                try:
                    etag = await target.copy_part(copy.key, place.id, part, copy.source, copy.key, pin)
                except StoreError as error:
                    place.error = error
                else:
                    place.etags[part.number] = etag

    shared = iter(parts)
    await run_workers(parts_at_once(parts), lambda: work(shared))


async def at_each(places: Sequence[Place], step: Callable[[Place], Awaitable[None]]) -> None:
    """Does a step for every place that has no error, and notes the errors."""
    for place in places:
        if place.error is None:
            try:
                await step(place)
            except StoreError as error:
                place.error = error


async def is_there(place: Place, key: str, state: ObjectState) -> bool:
    """Whether the target holds the bytes of this version."""
    try:
        there = await place.publisher.target.head(key)
    except NoSuchKey:
        return False
    return there.size == state.size and state.etag in (there.etag, there.stamp)


async def is_under_way(place: Place, key: str, state: ObjectState, now: float) -> bool:
    """Whether another upload may be of this version, and got a part lately: so its items were sent.

    now: seconds since the epoch, by our own clock.
    """
    target = place.publisher.target
    with suppress(AccessDenied, Unsupported, Rejected):
        for id in await target.list_uploads(key):
            with suppress(NoSuchUpload):
                stored = await target.list_parts(key, id) if id != place.id else {}
                latest = max((part.modified for part in stored.values()), default=0.0)
                if may_be_of(state, stored) and latest > now + target.clock_skew - IDLE:
                    return True
    return False


def may_be_of(state: ObjectState, stored: Mapping[int, Listed]) -> bool:
    """Whether stored parts, at least one, may be of this version, as far as numbers and sizes tell."""
    most = parts_of(state.etag) or MAX_PARTS
    return bool(stored) and max(stored) <= most and sum(one.size for one in stored.values()) <= state.size


async def has_md5_etags(target: ObjectStore, key: str) -> bool:
    """Whether the ETags of parts are MD5s there: found out with a few bytes, in an upload that is like no other.

    Raises StoreError.
    """
    id = await target.create_upload(key, Write())
    try:
        return await target.put_part(key, id, Part(MAX_PARTS, 0, len(PROBE)), PROBE) == md5_of(PROBE).hex()
    finally:
        with suppress(StoreError):
            await asyncio.shield(target.abort_upload(key, id))


def is_probe(stored: Mapping[int, Listed]) -> bool:
    """Whether an upload is one of has_md5_etags, whose process was killed."""
    return {number: one.size for number, one in stored.items()} == {MAX_PARTS: len(PROBE)}
