"""Large objects, copied by many short invocations: whoever meets one begins an upload at each target and sends one work
item, which is cut into those for all of its parts. replicator.live.piece does them.

What is known of a copy lies in its unfinished upload. It gets its first part only after that item was sent: so of an
upload of ours that has parts, somebody has the items, killed or not. One that lacks them, of a bulk run that was killed
say, is taken up by whoever meets the object next, if its parts can be proved to be of this version.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress

from replicator.budget import ByteBudget
from replicator.errors import Corrupted, StoreError
from replicator.items import Item, PartsItem
from replicator.layout import Cut, find_cut
from replicator.live.piece import Shared, Worked, do_piece
from replicator.live.places import Place, has_md5_etags, store_parts
from replicator.model import MiB, ObjectState, Observed
from replicator.multipart import MAX_SINGLE, parts_of
from replicator.parts import PartCopy
from replicator.publish import Publisher
from replicator.reading import SourceTrust
from replicator.store import ObjectStore, SourceStore

LEAST = 256 * MiB
"""Bytes from which an object in parts is copied by many. An item has half of it, unless a part is larger: a second or
two, so that one that dies costs little."""

Send = Callable[[Sequence[Item]], Awaitable[None]]


class LargeObjects:
    """Large objects of one route. Is a HandOut.

    route: its name. send: sends work items; raises QueueError. least: bytes. now: seconds since the epoch.
    """

    def __init__(
        self,
        route: str,
        source: SourceStore,
        targets: Sequence[ObjectStore],
        *,
        budget: ByteBudget,
        send: Send,
        least: int = LEAST,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._route = route
        self._source = source
        self._publishers: Mapping[str, Publisher] = {target.name: Publisher(target) for target in targets}
        self._budget = budget
        self._send = send
        self._least = least
        self._proved: set[str] = set()
        """Names of targets of which it is known whether their parts' ETags are MD5s."""
        self._shared = Shared(route, source, self._publishers, budget, send, self.takes, least // 2, now)

    def takes(self, state: ObjectState) -> bool:
        """Large ones that are in parts, or have to be."""
        return state.size >= self._least and (parts_of(state.etag) is not None or state.size > MAX_SINGLE)

    async def begin(self, key: str, source: Observed, targets: Sequence[str]) -> list[Exception | None]:
        """As HandOut: begins uploads, or finds those that are begun, and sends the item for what is missing of them.

        Where one target fails and another does not, the items name both, and the key is converged once more for the
        former when the latter has its copy: else the latter would be begun each time that the former is tried again.
        """
        etag = source.state.etag
        exact = (key, etag) in self._shared.mistrusted
        cut = await find_cut(self._source, key, source.state, exact=exact)
        copy = PartCopy(self._source, key, source, self._budget, SourceTrust(), resume_from=0)
        places: list[Place] = []
        errors: list[Exception | None] = []
        for name in targets:
            try:
                places.append(await self._begin_at(copy, self._publishers[name], cut))
                errors.append(None)
            except StoreError as error:
                places.append(Place(self._publishers[name], "", ()))
                errors.append(error)
        if all(errors):
            return errors
        uploads = tuple((place.name, place.id) for place in places)
        stamped = tuple(place.name for place in places if place.stamped)
        layout = cut.layout or ()
        fresh = [place for place in places if place.id and not place.etags]
        try:
            await self._send([PartsItem(self._route, key, etag, uploads, (), len(layout), stamped, exact)])
        except BaseException:  # whoever comes next cannot know them
            for place in fresh:
                with suppress(StoreError):
                    await asyncio.shield(place.publisher.target.abort_upload(key, place.id))
            raise
        with suppress(StoreError):  # it is in the items, too
            await store_parts(copy, layout[:1], fresh, {} if stamped else None)
        return [None] * len(targets)

    async def work(self, item: PartsItem, *, seconds: float) -> Worked:
        """Does an item in the time given; what is not done by then is sent as another item.

        Raises StoreError and QueueError, after which it is to be tried again, and PoisonMessage when that would not
        help.
        """
        return await do_piece(self._shared, item, seconds=seconds)

    async def _begin_at(self, copy: PartCopy, publisher: Publisher, cut: Cut) -> Place:
        """An upload: one that is begun, or a new one, stamped where the parts' ETags will prove nothing."""
        layout, version, target = cut.layout or (), (copy.key, copy.state.etag), publisher.target
        if (target.name, *version) in self._shared.unkept:
            raise Corrupted("HeadObject", copy.key, f"{target.name} keeps neither ETag nor stamp of what is completed")
        known = version in self._shared.mistrusted or publisher.foreign_etags or publisher.foreign_composites
        stamped = known or not cut.keeps_etag
        if not stamped:
            found = await copy.find_begun(publisher, layout, publisher.write_of(copy.observed).storage_class)
            if found is not None:
                return Place(publisher, found.id, (), etags=found.etags)
            if target.name not in self._proved:
                publisher.foreign_etags = stamped = not await has_md5_etags(target, copy.key)
                self._proved.add(target.name)
        write = publisher.write_of(copy.observed, stamp=copy.state.etag if stamped else None)
        id, lost = await publisher.until_accepted(write, lambda wanted: target.create_upload(copy.key, wanted))
        return Place(publisher, id, lost, stamped=stamped)
