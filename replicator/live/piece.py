"""One piece of a large object: some parts, stored in unfinished uploads; whoever sees that all parts are there
completes them.

ListParts says what is there, and the parts' ETags prove before completion that they make up the source's. So every item
may come twice, late, or from somebody who died. At each target:

| an item finds                                  | and                                                               |
|------------------------------------------------|-------------------------------------------------------------------|
| its upload, and it names no parts              | sends items for those that are missing                            |
| its upload                                     | copies those of its parts that are not there                      |
| all parts of the object                        | proves them, completes, and has the key converged (tags)          |
| parts that do not make up the source's ETag    | drops the upload; the next one is cut exactly, and stamped        |
| no such upload, the target in sync             | has the key converged: whoever completed it may have died then    |
| no such upload, another one under way          | fails, and is tried again: another one more would multiply        |
| no such upload, nor another                    | has the key converged, which begins anew                          |
| another object at the source, or none          | has the key converged where the old version was published, unless |
|                                                | the new one is under way; drops the upload: whoever does sends an |
|                                                | item for the key before, as nobody else may know of the change    |
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from replicator.budget import ByteBudget
from replicator.errors import (
    AccessDenied,
    ChangedMeanwhile,
    Corrupted,
    NoSuchKey,
    NoSuchUpload,
    PoisonMessage,
    Rejected,
    TooLargeForNow,
    Unsupported,
)
from replicator.items import Item, KeysItem, PartsItem
from replicator.layout import find_cut
from replicator.live.places import Place, at_each, is_probe, is_there, is_under_way, store_parts
from replicator.model import Listed, ObjectState, Observed
from replicator.multipart import Part, composite_etag
from replicator.parts import PartCopy, hold_parts_of
from replicator.publish import Publisher
from replicator.reading import SourceTrust
from replicator.store import SourceStore

MOST_PARTS = 500
"""Parts in one item, which has to fit into a message."""

RESERVE = 20.0
"""Seconds, but a quarter of the time at most, that are left for what comes after copying."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What all pieces of a route need, and what one learns for the next.

    takes: whether an object is large. piece: bytes in an item, unless a part is larger. now: seconds since the epoch.
    mistrusted: (key, etag) of objects whose parts, cut as it seemed, did not make up their ETag. unkept: (target, key,
    etag) of copies that were completed, and showed neither ETag nor stamp then.
    """

    route: str
    source: SourceStore
    publishers: Mapping[str, Publisher]
    budget: ByteBudget
    send: Callable[[Sequence[Item]], Awaitable[None]]
    takes: Callable[[ObjectState], bool]
    piece: int
    now: Callable[[], float]
    mistrusted: set[tuple[str, str]] = field(default_factory=set)
    unkept: set[tuple[str, str, str]] = field(default_factory=set)


class Worked(NamedTuple):
    """What became of an item. converge: names of targets at which its key is to be converged now. error: why it is to
    be tried again after that, if it is."""

    converge: tuple[str, ...] = ()
    error: Exception | None = None


async def do_piece(shared: Shared, item: PartsItem, *, seconds: float) -> Worked:
    """As LargeObjects.work."""
    until = asyncio.get_running_loop().time() + seconds - min(RESERVE, seconds / 4)
    places = [
        Place(shared.publishers[name], id, (), stamped=name in item.stamped)
        for name, id in item.uploads
        if name in shared.publishers
    ]
    if not places:
        raise PoisonMessage(f"route {shared.route!r} has none of the targets {[name for name, _ in item.uploads]}")
    try:
        state: ObjectState | None = await shared.source.head(item.key)
    except NoSuchKey:
        state = None
    if state is None or state.etag != item.etag:
        return await _Outdated(shared, item, state, places).run()
    return await _Piece(shared, item, state, places).run(until)


class _Piece:
    """A piece of the object that is at the source now."""

    def __init__(self, shared: Shared, item: PartsItem, state: ObjectState, places: Sequence[Place]) -> None:
        self._shared = shared
        self._item = item
        self._state = state
        self._begun = [place for place in places if place.id]
        self._others = [place for place in places if not place.id]

    async def run(self, until: float) -> Worked:
        item, begun = self._item, self._begun
        await at_each(begun, self._take_up)
        gone = [place for place in begun if place.settled]
        here = [place for place in begun if not place.settled and place.error is None]
        if item.parts:
            await self._store_and_finish(here, until)
        elif here:
            await self._cut_up([place for place in begun if not place.settled])
        await at_each([*gone, *(place for place in here if place.settled)], self._end)
        error = next((place.error for place in begun if place.error is not None), None)
        if not item.parts and here:  # those who have the pieces will see to it
            error = None
        done = [place for place in begun if place.settled and place.error is None]
        if len(done) == len(begun):
            done += self._others
        return Worked(tuple(place.name for place in done), error)

    async def _take_up(self, place: Place) -> None:
        """Notes the parts that are there."""
        try:
            stored = await place.publisher.target.list_parts(self._item.key, place.id)
        except NoSuchUpload:
            place.settled = True
            return
        place.etags = {number: one.etag for number, one in stored.items()}

    async def _cut_up(self, places: Sequence[Place]) -> None:
        """Sends the pieces that some upload lacks; with the last part in any case, so that somebody completes it."""
        item = self._item
        cut = await find_cut(self._shared.source, item.key, self._state, exact=item.exact)
        layout = cut.layout or ()
        missing = [part for part in layout if any(part.number not in place.etags for place in places)]
        await self._shared.send(
            [replace(item, parts=tuple(piece)) for piece in pieces(missing or layout[-1:], self._shared.piece)]
        )

    async def _store_and_finish(self, places: Sequence[Place], until: float) -> None:
        left = await self._copy(places, until)
        await at_each(places, self._finish)
        if left and all(place.error is None for place in places):  # else the whole item comes again
            await self._shared.send([replace(self._item, parts=tuple(left))])

    async def _copy(self, places: Sequence[Place], until: float) -> list[Part]:
        """Copies the parts that are missing, as far as time goes; those that are left then."""
        missing = self._missing(places)
        if not missing:
            return []
        copy = PartCopy(
            self._shared.source,
            self._item.key,
            Observed(self._state),
            self._shared.budget,
            SourceTrust(),
            resume_from=0,
        )
        digests: dict[int, bytes] | None = {} if any(place.stamped for place in places) else None
        with suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await store_parts(copy, tuple(missing), places, digests)
        left = self._missing([place for place in places if place.error is None])
        if len(left) == len(missing):
            raise TooLargeForNow(f"{self._item.key!r}: none of {len(left)} parts could be copied in the time")
        return left

    def _missing(self, places: Sequence[Place]) -> list[Part]:
        return [part for part in self._item.parts if any(part.number not in place.etags for place in places)]

    async def _finish(self, place: Place) -> None:
        """Completes an upload that has all its parts; drops one with the wrong ones."""
        item, target = self._item, place.publisher.target
        try:
            stored = await target.list_parts(item.key, place.id)
            if len(stored) < item.count:
                return
            place.settled = True
            etags = [stored[number].etag for number in sorted(stored)]
            if not self._is_whole(place, stored, etags):
                self._shared.mistrusted.add((item.key, item.etag))
                await target.abort_upload(item.key, place.id)
                return
            written = await target.complete_upload(item.key, place.id, etags)
        except NoSuchUpload:  # completed by another item, or by a request whose answer was lost
            place.settled = True
            return
        await self._note_completed(place, written.etag)

    def _is_whole(self, place: Place, stored: Mapping[int, Listed], etags: list[str]) -> bool:
        """Whether they are all of the object: proved by the source's ETag, or, stamped, each by itself before."""
        if sorted(stored) != list(range(1, self._item.count + 1)):
            return False
        if sum(one.size for one in stored.values()) != self._state.size:
            return False
        return place.stamped or composite_etag(etags) == self._state.etag

    async def _note_completed(self, place: Place, etag: str) -> None:
        """Learns what the target makes of what is completed, for whoever begins there next."""
        item, target = self._item, place.publisher.target
        if etag == item.etag:
            return
        there = await target.head(item.key)
        if there.size != self._state.size or item.etag in (there.etag, there.stamp):
            return
        if not place.stamped:
            place.publisher.foreign_composites = True
        elif (await self._shared.source.head(item.key)).etag == item.etag:  # else somebody else may have written there
            self._shared.unkept.add((place.name, item.key, item.etag))
            raise Corrupted("HeadObject", item.key, f"{target.name} keeps neither ETag nor stamp of what is completed")

    async def _end(self, place: Place) -> None:
        """What is to be done where no upload is any more. Raises ChangedMeanwhile while another one is under way."""
        key = self._item.key
        if await is_there(place, key, self._state):
            with suppress(AccessDenied, Unsupported, Rejected):  # who may not look leaves it
                await self._clear(place)
        elif await is_under_way(place, key, self._state, self._shared.now()):
            raise ChangedMeanwhile("UploadPart", key, f"another upload at {place.name} is under way")

    async def _clear(self, place: Place) -> None:
        """Drops what others began for the same version and nobody needs any more, and what has no part at all.

        Something that has just been begun for a newer version may be among it: it is begun again.
        """
        source, key, target = self._shared.source, self._item.key, place.publisher.target
        for id in await target.list_uploads(key):
            with suppress(NoSuchUpload):
                stored = await target.list_parts(key, id)
                cut = await find_cut(source, key, self._state)
                nothing = not stored or is_probe(stored)
                if nothing or await hold_parts_of(source, key, self._state, stored, cut.layout or ()):
                    await target.abort_upload(key, id)


class _Outdated:
    """A piece of an object that is not at the source any more. state: what is there instead."""

    def __init__(self, shared: Shared, item: PartsItem, state: ObjectState | None, places: Sequence[Place]) -> None:
        self._shared = shared
        self._item = item
        self._places = places
        self._large = state if state is not None and shared.takes(state) else None

    async def run(self) -> Worked:
        await at_each(self._places, self._drop)
        done = [place.name for place in self._places if place.settled and place.error is None]
        return Worked(tuple(done), next((p.error for p in self._places if p.error is not None), None))

    async def _drop(self, place: Place) -> None:
        """Drops the upload. Its version may have been published by somebody who died then: such a key is settled."""
        key, etag, target = self._item.key, self._item.etag, place.publisher.target
        if place.id:
            if await self._is_left(place) and not await self._is_begun(place):
                await self._shared.send([KeysItem(self._shared.route, (key,))])
            await target.abort_upload(key, place.id)
        with suppress(NoSuchKey):
            there = await target.head(key)
            if etag in (there.etag, there.stamp):
                place.settled = not await self._is_begun(place)

    async def _is_left(self, place: Place) -> bool:
        """Whether nobody has dropped the upload yet."""
        with suppress(NoSuchUpload):
            await place.publisher.target.list_parts(self._item.key, place.id)
            return True
        return False

    async def _is_begun(self, place: Place) -> bool:
        """Whether what is at the source now is under way already, in another upload than this one."""
        now = self._shared.now()
        return self._large is not None and await is_under_way(place, self._item.key, self._large, now)


def pieces(parts: Sequence[Part], most: int) -> Iterator[list[Part]]:
    """Cuts parts into pieces of `most` bytes, unless a part is larger, and of no more than MOST_PARTS."""
    piece: list[Part] = []
    size = 0
    for part in parts:
        if piece and (size + part.size > most or len(piece) == MOST_PARTS):
            yield piece
            piece, size = [], 0
        piece.append(part)
        size += part.size
    if piece:
        yield piece
