"""One range on its way through a worker: listed on all sides, cut into stretches, settled in the order of keys."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass

from replicator.bulk.prefetch import prefetch
from replicator.bulk.tasks import Counts, Range
from replicator.compare import CLOCK_MARGIN
from replicator.diff import Row, Stretch, align_pages
from replicator.errors import ChangedMeanwhile, NoSuchKey, NotAnObject, UntrustworthyListing
from replicator.listed import keys_of
from replicator.model import Listed
from replicator.store import ObjectStore, SourceStore

MOST_OPEN = 1000
"""Stretches that may wait for one before them whose objects take long; a stretch has up to 1,000 keys a side."""


@dataclass(slots=True)
class Open:
    """A stretch that is being worked on. left: rows that are not done yet."""

    through: str
    counts: Counts
    left: int


class Scan:
    """Lists a range; may be told to end earlier while it runs.

    position: the key up to which everything has been listed. pages: stretches listed. clock: seconds since the epoch.
    """

    def __init__(
        self,
        source: SourceStore,
        targets: Sequence[ObjectStore],
        wanted: Range,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._source = source
        self._targets = targets
        self._open: deque[Open] = deque()
        self._room = asyncio.Event()
        self._counts = Counts()
        self._through: str | None = None
        self._idle = asyncio.Event()
        self._after = wanted.after
        self._began = clock()
        self.upto = wanted.upto
        self.position = wanted.after
        self.pages = 0
        self.listed_all = False

    async def run(
        self,
        sort_out: Callable[[Stretch], Awaitable[tuple[Counts, list[Row]]]],
        give: Callable[[Row, Open], Awaitable[None]],
    ) -> None:
        """Lists to the end of the range, and returns when all rows are done.

        sort_out: what was seen in a stretch, and the rows that need work. give: hands over one of them; `done` is
        called when it is done. Raises the StoreError of a listing that failed, before the rows at hand are done.
        """
        async with aclosing(self._stretches()) as stretches:  # what lists ahead ends with this
            async for stretch in stretches:
                counts, rows = await sort_out(stretch)
                opened = Open(stretch.through, counts, len(rows))
                self._open.append(opened)
                for row in rows:
                    await give(row, opened)
                self._settle()
                while len(self._open) > MOST_OPEN:
                    self._room.clear()
                    await self._room.wait()
        self.listed_all = True
        while self._open:
            self._idle.clear()
            await self._idle.wait()

    def done(self, opened: Open) -> None:
        """A row of a stretch is done, well or not."""
        opened.left -= 1
        if opened.left == 0:
            self._settle()

    def take_settled(self) -> tuple[str, Counts] | None:
        """The key up to which everything is done, and what was seen since the last call; None if that is nothing."""
        if self._through is None:
            return None
        settled = self._through, self._counts
        self._through, self._counts = None, Counts()
        return settled

    def shorten(self, at: str) -> bool:
        """Ends the range at `at`, if that is still ahead."""
        if self.listed_all or at <= self.position or (self.upto is not None and at >= self.upto):
            return False
        self.upto = at
        return True

    async def _stretches(self) -> AsyncGenerator[Stretch, None]:
        seen = self._after
        sides = [prefetch(store.list_pages(after=self._after)) for store in (self._source, *self._targets)]
        try:
            async for stretch in align_pages(sides[0], sides[1:]):
                at_end = self.upto is not None and stretch.through >= self.upto
                if at_end and self.upto is not None:
                    stretch = stretch.upto(self.upto)
                seen = keys_of(stretch.source)[-1] if stretch.source else seen
                self.position = stretch.through
                self.pages += 1
                yield stretch
                if at_end:
                    break
        finally:
            for side in sides:
                await side.aclose()
        if self.upto is not None and seen != self.upto and (new := await self._unlisted(self.upto)):
            yield Stretch(self.upto, [new], [[] for _ in self._targets])

    async def _unlisted(self, upto: str) -> Listed | None:
        """The object at which the range was cut, which was not listed in it: None if it is gone by now.

        It may be newer than the page that should have had it. Else the listing is not in order: a store that sorts by
        UTF-16, say, has what sorts behind U+FFFF before the cut, and would be believed to have come to the end. Raises
        UntrustworthyListing then.
        """
        try:
            await self._source.confirm_absent(upto)
        except ChangedMeanwhile:
            with suppress(NoSuchKey):
                state = await self._source.head(upto)
                if state.modified < self._began + self._source.clock_skew - CLOCK_MARGIN:
                    detail = f"the listing did not come to {upto!r}, which is there: not in the order of keys"
                    raise UntrustworthyListing("ListObjectsV2", self._source.name, detail) from None
                return Listed(upto, state.size, state.etag, state.modified, state.storage_class)
        except NotAnObject:  # a link has come there, say: nothing to copy, and not absent
            return Listed(upto, 0, "", 0.0)
        return None

    def _settle(self) -> None:
        while self._open and self._open[0].left == 0:
            opened = self._open.popleft()
            self._through = opened.through
            self._counts.add(opened.counts)
        self._room.set()
        if not self._open:
            self._idle.set()
