"""The folder of a move: what is settled in it, what a crash left aside, what it left empty."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import islice

from replicator.directory.beneath import Base
from replicator.directory.removal import put_all_back, remove_emptied, survey
from replicator.directory.walk import Found, walk
from replicator.logs import logger
from replicator.push.settle import Settle

BATCH = 64
"""Files that a worker gets at once."""


class SettledFiles:
    """One walk through a folder.

    left: files that are left alone since they are not settled. next: when the first of them will be, in seconds since
    the epoch; infinite if there is none.
    """

    def __init__(
        self,
        base: Base,
        settle: Settle,
        chosen: Callable[[str], bool],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._base, self._settle, self._chosen, self._clock = base, settle, chosen, clock
        self.left = 0
        self.next = float("inf")

    async def keys(self) -> AsyncIterator[Sequence[str]]:
        """Batches of the keys of settled files, and of what is no file, which has to be reported. Raises StoreError."""
        walking = walk(self._base)
        while found := await asyncio.to_thread(lambda: list(islice(walking, BATCH))):
            keys = [one.key for one in found if self._chosen(one.key) and self._is_settled(one)]
            if keys:
                yield keys

    def _is_settled(self, found: Found) -> bool:
        if found.stat is None:
            return True
        when = self._settle.settled_at(found.key, found.stat.st_mtime)
        if when <= self._clock():
            return True
        self.left += 1
        self.next = min(self.next, when)
        return False


def prepare_folder(base: Base, settle: float) -> list[str]:
    """Puts back what a crash has left aside; the folders in which nothing has changed for so many seconds."""
    found = survey(base, time.time() - settle)
    for key in put_all_back(base, found.aside):
        logger.warning("%s was being removed when a run was cut off, and a newer file has its name: both are kept", key)
    return found.old


def tidy_folder(base: Base, folders: list[str], is_ours: Callable[[str], bool]) -> None:
    """Removes those of the folders that are empty since files were moved away from them."""
    for folder in remove_emptied(base, folders, is_ours):
        logger.info("removed the empty folder %s", folder)
