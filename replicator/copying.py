"""Moves one object's bytes from the source to targets, and proves that they arrived.

Everything is read once, pinned to one version, and given to all targets; what is in memory is lent by a ByteBudget.
The proof costs nothing where ETags are digests: the target's must equal the source's, for a multipart object before
it is completed. Only where that fails are bytes digested here, read a second time, and the copy is stamped with the
source's ETag.

| the source's object         | the target                    | moved by           |
|-----------------------------|-------------------------------|--------------------|
| any                         | same service, same account    | server_side        |
| several parts               | another service               | parts              |
| one part, larger than SMALL | another service               | streaming          |
| one part, up to SMALL       | another service               | here               |
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from replicator.budget import ByteBudget
from replicator.errors import ChangedMeanwhile, Corrupted
from replicator.layout import find_cut
from replicator.model import Evidence, MiB, ObjectState, Observed
from replicator.multipart import md5_of, parts_of, promised_md5
from replicator.parts import PartCopy
from replicator.publish import Copied, Publisher
from replicator.reading import SourceTrust, pin_of
from replicator.server_side import copy_server_side
from replicator.store import Data, SourceStore
from replicator.streaming import StreamCopy

SMALL = 32 * MiB
"""Single-part objects up to this size are held in memory as a whole; larger ones stream through."""

Result = Copied | Exception


class Copier:
    """Copies objects from one source store.

    budget: bytes that all copies together may hold. resume_from: size in bytes from which
    interrupted uploads are kept and taken up again.
    """

    def __init__(self, source: SourceStore, *, budget: ByteBudget, resume_from: int) -> None:
        self.source = source
        self.budget = budget
        self.resume_from = resume_from
        self.trust = SourceTrust()

    async def copy(self, key: str, observed: Observed, targets: Sequence[Publisher]) -> list[Result]:
        """Copies the version `observed` to every target; one result or error for each, in order.

        Raises a StoreError of the source when no target could be reached because of it.
        """
        results: dict[int, Result] = {}
        for index, publisher in enumerate(targets):
            result = await copy_server_side(self.source, key, observed.state, publisher, publisher.write_of(observed))
            if result is not None:
                results[index] = result
        moving = [index for index in range(len(targets)) if index not in results]
        if moving:
            moved = await self._move(key, observed, [targets[index] for index in moving])
            results.update(zip(moving, moved, strict=True))
        return [results[index] for index in range(len(targets))]

    async def copy_unseen(
        self, key: str, size: int, targets: Sequence[Publisher], *, only_new: bool = False
    ) -> tuple[Observed, list[Result]]:
        """Copies a small object whose state is only known from a listing: one GET, and one PUT for each target.

        size: bytes, as listed, at most SMALL. only_new: as Write has it. Returns the version that was
        copied, too. Raises ChangedMeanwhile if the object is not of that kind any more.
        """
        async with self.budget.lend(size) as memory:
            fetched = await self.source.fetch(key, limit=size, into=memory)
            state = fetched.state
            if parts_of(state.etag) is not None:
                raise ChangedMeanwhile("GetObject", key, "is a multipart object by now")
            tags = await self.source.get_tags(key, state.version_id) if state.tag_count else ()
            observed = Observed(state, tags)
            return observed, await self._publish_all(key, fetched.data, observed, targets, only_new=only_new)

    async def _move(self, key: str, observed: Observed, targets: Sequence[Publisher]) -> list[Result]:
        state = observed.state
        cut = await find_cut(self.source, key, state)
        if cut.layout is not None:
            copy = PartCopy(self.source, key, observed, self.budget, self.trust, resume_from=self.resume_from)
            return await copy.run(cut, targets)
        if state.size > SMALL:
            return await StreamCopy(self.source, key, observed, self.budget, self.trust).run(targets)
        async with self.budget.lend(state.size) as memory:
            data = (await self.source.fetch(key, limit=state.size, pin=pin_of(state), into=memory)).data
            return await self._publish_all(key, data, observed, targets)

    async def _publish_all(
        self, key: str, data: Data, observed: Observed, targets: Sequence[Publisher], *, only_new: bool = False
    ) -> list[Result]:
        async def attempt(publisher: Publisher) -> Result:
            try:
                return await self._publish(key, data, observed, publisher, only_new=only_new)
            except Exception as error:  # noqa: BLE001 - becomes this target's result
                return error

        if len(targets) == 1:
            return [await attempt(targets[0])]
        return list(await asyncio.gather(*(attempt(publisher) for publisher in targets)))

    async def _publish(
        self, key: str, data: Data, observed: Observed, publisher: Publisher, *, only_new: bool
    ) -> Copied:
        state = observed.state
        promised = _promised(state)
        if promised is not None and not publisher.foreign_etags:
            try:
                write = publisher.write_of(observed, md5=promised)
                written, lost = await publisher.put(key, data, replace(write, only_new=only_new))
                if written.etag == state.etag:
                    self.trust.proved = True
                    return Copied(Evidence.ETAG, state.size, lost)
            except Corrupted:  # the target refused the bytes: settled below, with a digest of our own
                pass
        if only_new:  # it may be there by now, and what is there has to be looked at
            raise ChangedMeanwhile("PutObject", key, "whether the copy is good has to be looked at")
        return await self._publish_stamped(key, data, observed, publisher)

    async def _publish_stamped(self, key: str, data: Data, observed: Observed, publisher: Publisher) -> Copied:
        """Publishes where the source's ETag does not prove the bytes: by a digest of our own, and a stamp."""
        state = observed.state
        digest = md5_of(data)
        promised = _promised(state)
        if promised is not None and digest != promised:
            again = await self.source.fetch(key, limit=state.size, pin=pin_of(state))
            if self.trust.proved or md5_of(again.data) != digest:
                raise Corrupted("GetObject", key, "the bytes read do not fit the source's ETag")
        write = publisher.write_of(observed, stamp=state.etag, md5=digest)
        written, lost = await publisher.put(key, data, write)
        await publisher.settle_etag(key, written, digest)
        return Copied(Evidence.STAMP, state.size, lost)


def _promised(state: ObjectState) -> bytes | None:
    return promised_md5(state.etag) if state.etag_is_md5 else None
