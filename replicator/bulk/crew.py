"""The workers of a run, as the run sees them: it posts tasks and receives what they send back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from replicator.bulk.tasks import Message, Task
from replicator.bulk.worker import Send, Worker


@dataclass(frozen=True, slots=True)
class Lost:
    """A worker has ended. reason: in words."""

    reason: str


class Crew(Protocol):
    """Workers with numbers. Use as an async context manager; leaving it stops them."""

    @property
    def workers(self) -> Sequence[int]:
        """Those there are at the start."""

    async def post(self, worker: int, task: Task) -> None:
        """Gives a worker a task. A worker that is gone takes it in silence: that it is lost comes as a message."""

    async def receive(self) -> tuple[int, Message | Lost]:
        """The next message, and from whom. Of each worker in the order in which it sent them."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


OpenWorker = Callable[[Send], AbstractAsyncContextManager[Worker]]
"""Opens what a worker needs and makes it, given how it sends."""


class LocalCrew:
    """One worker in this event loop."""

    workers = (0,)

    def __init__(self, open_worker: OpenWorker) -> None:
        self._open_worker = open_worker
        self._tasks: asyncio.Queue[Task | None] = asyncio.Queue()
        self._messages: asyncio.Queue[Message] = asyncio.Queue(16)
        self._running: asyncio.Task[None]

    async def post(self, worker: int, task: Task) -> None:
        """As promised by Crew."""
        await self._tasks.put(task)

    async def receive(self) -> tuple[int, Message | Lost]:
        """As promised by Crew. Raises what broke the worker."""
        message = asyncio.ensure_future(self._messages.get())
        try:
            await asyncio.wait({message, self._running}, return_when=asyncio.FIRST_COMPLETED)
            if message.done():
                return 0, message.result()
            self._running.result()
            return 0, Lost("it ended")
        finally:
            message.cancel()

    async def _run(self) -> None:
        async with self._open_worker(self._messages.put) as worker:
            await worker.run(self._tasks.get)

    async def __aenter__(self) -> Self:
        self._running = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)
