"""A bound on the bytes that are in memory at once, shared by all copies of a process."""

from __future__ import annotations

import asyncio
from collections import deque


class _Loan:
    __slots__ = ("_budget", "_size")

    def __init__(self, budget: ByteBudget, size: int) -> None:
        self._budget = budget
        self._size = size

    async def __aenter__(self) -> None:
        await self._budget._take(self._size)

    async def __aexit__(self, *_: object) -> None:
        self._budget._give_back(self._size)


class ByteBudget:
    """Lends bytes, first come first served. A loan larger than the whole budget waits until nothing else is lent."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.lent = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    def lend(self, size: int) -> _Loan:
        """Holds `size` bytes for the time of an `async with` block."""
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
