"""A bound on the bytes that are in memory at once, shared by all copies of a process, and the memory itself."""

from __future__ import annotations

import asyncio
from collections import deque

POOLED = 1024 * 1024
"""Loans from this size on come with a buffer that is used again: fresh memory costs a page fault for every 4 KiB, which
is half the CPU of copying large parts."""


class _Loan:
    """Holds bytes of a budget for the time of an `async with` block, which gets a buffer of that size or None."""

    __slots__ = ("_budget", "_buffer", "_size")

    def __init__(self, budget: ByteBudget, size: int) -> None:
        self._budget = budget
        self._size = size
        self._buffer: bytearray | None = None

    async def __aenter__(self) -> memoryview | None:
        await self._budget._take(self._size)
        if self._size < POOLED:
            return None
        self._buffer = self._budget._buffer(self._size)
        return memoryview(self._buffer)[: self._size]

    async def __aexit__(self, *_: object) -> None:
        if self._buffer is not None:
            self._budget._spare.append(self._buffer)
        self._budget._give_back(self._size)


class ByteBudget:
    """Lends bytes, first come first served. A loan larger than the whole budget waits until nothing else is lent."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.lent = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._spare: list[bytearray] = []

    def lend(self, size: int) -> _Loan:
        """Holds `size` bytes for the time of an `async with` block.

        The block gets a buffer of that size to fetch into, or None for a loan under POOLED. It must not be used
        after the block.
        """
        return _Loan(self, size)

    async def _take(self, size: int) -> None:
        if not self._waiting and self._fits(size):
            self.lent += size
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        try:
            await turn
        except asyncio.CancelledError:
            granted = turn.done() and not turn.cancelled()
            self._give_back(size if granted else 0)
            raise

    def _buffer(self, size: int) -> bytearray:
        """A buffer of at least `size` bytes; spare ones that would go beyond the budget are let go."""
        for index, spare in enumerate(self._spare):
            if size <= len(spare) <= 2 * size:
                return self._spare.pop(index)
        while self._spare and self.lent + sum(map(len, self._spare)) > self.total:
            self._spare.pop(0)
        return bytearray(size)

    def _fits(self, size: int) -> bool:
        return self.lent == 0 or self.lent + size <= self.total

    def _give_back(self, size: int) -> None:
        self.lent -= size
        while self._waiting:
            wanted, turn = self._waiting[0]
            if turn.done():
                self._waiting.popleft()
            elif self._fits(wanted):
                self._waiting.popleft()
                self.lent += wanted
                turn.set_result(None)
            else:
                return
