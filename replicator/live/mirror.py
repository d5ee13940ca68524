"""The live mirror of one route: an event loop, open stores and a converger, kept for as long as the process lives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial

from replicator.budget import ByteBudget
from replicator.converge import Converger
from replicator.errors import AccessDenied
from replicator.events import QueueMessage
from replicator.live.batch import Handled, converge_messages
from replicator.s3.opening import open_store
from replicator.settings import Settings

RESERVE = 10.0
"""Seconds before the end of an invocation at which converging stops, for the messages to be settled."""


class Mirror:
    """Mirrors what messages name. Synchronous outside, concurrent inside.

    read_secret: gives the text of a secret by its id. Connections are opened by the first batch and reused by later
    ones; credentials that are refused are read anew for the next batch.
    """

    def __init__(self, settings: Settings, *, read_secret: Callable[[str], str] | None = None) -> None:
        self._settings = settings
        self._read_secret = read_secret
        self._runner = asyncio.Runner()
        self._stack: AsyncExitStack | None = None
        self._converger: Converger | None = None

    def handle(self, messages: Sequence[QueueMessage], *, seconds: float) -> list[Handled]:
        """Converges a batch. seconds: until the caller must be done."""
        return self._runner.run(self._handle(messages, max(seconds - RESERVE, 1.0)))

    def close(self) -> None:
        """Closes connections and the event loop."""
        self._runner.run(self._close())
        self._runner.close()

    async def _handle(self, messages: Sequence[QueueMessage], seconds: float) -> list[Handled]:
        converger = self._converger or await self._open()
        source = self._settings.source
        handled = await converge_messages(
            messages,
            bucket=source.bucket,
            prefix=source.prefix,
            converge=partial(converger.converge, seconds=seconds),
            seconds=seconds,
        )
        if any(isinstance(outcome.failure, AccessDenied) for one in handled for outcome in one.outcomes):
            await self._close()
        return handled

    async def _open(self) -> Converger:
        settings = self._settings
        self._stack = AsyncExitStack()
        stores = []
        for side in (settings.source, *settings.targets):
            opened = open_store(side, concurrency=settings.concurrency, read_secret=self._read_secret)
            stores.append(await self._stack.enter_async_context(opened))
        budget = ByteBudget(settings.memory)
        self._converger = Converger(stores[0], stores[1:], deletes=settings.deletes, budget=budget)
        return self._converger

    async def _close(self) -> None:
        if self._stack is not None:
            await self._stack.aclose()
        self._stack = self._converger = None
