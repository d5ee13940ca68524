"""Worker processes: forked before anything else is done, spoken to by pickled messages over a socket each.

Only the parent listens to signals; a worker ends when its socket does, so that none outlives a parent that was killed.
A worker that is killed is lost, and what it had is given to the others.
"""

from __future__ import annotations

import asyncio
import gc
import pickle
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, Self

from replicator.bulk.crew import Lost, OpenWorker
from replicator.bulk.tasks import Finished, Message, Outcomes, Task
from replicator.errors import ReplicatorError

STOP_WITHIN = 3.5
"""Seconds a worker has to leave its requests behind before it is killed."""

_LENGTH = struct.Struct("!I")


@dataclass(frozen=True, slots=True)
class Broken:
    """A worker could not begin, or broke off, because of this."""

    error: Exception


@dataclass(slots=True)
class Forked:
    """A worker process, and our end of its socket."""

    process: BaseProcess
    socket: socket.socket


@contextmanager
def fork_workers(
    count: int, open_worker: OpenWorker, loop: Callable[[], asyncio.AbstractEventLoop] | None
) -> Iterator[list[Forked]]:
    """Worker processes that wait for tasks; killed at the end if they have not ended.

    Call it before there are threads or an event loop. open_worker and loop, which makes an event loop, have to be
    picklable where processes cannot be forked.
    """
    context: Any = get_context("fork" if sys.platform == "linux" else "spawn")
    gc.collect()
    gc.freeze()  # what is collected later would copy the pages that processes share
    forked: list[Forked] = []
    try:
        for _ in range(count):
            ours, theirs = socket.socketpair()
            inherited = [ours, *(one.socket for one in forked)] if sys.platform == "linux" else []
            process = context.Process(target=_child, args=(theirs, inherited, open_worker, loop), daemon=True)
            process.start()
            theirs.close()
            forked.append(Forked(process, ours))
        yield forked
    finally:
        for one in forked:
            one.socket.close()
            one.process.kill()
            one.process.join()


class ProcessCrew:
    """The workers that fork_workers made."""

    def __init__(self, forked: Sequence[Forked]) -> None:
        self.workers = range(len(forked))
        self._forked = forked
        self._writers: list[asyncio.StreamWriter] = []
        self._messages: asyncio.Queue[tuple[int, Message | Lost | Broken]] = asyncio.Queue(64)
        self._reading: list[asyncio.Task[None]] = []

    async def post(self, worker: int, task: Task) -> None:
        """As promised by Crew."""
        await _write(self._writers[worker], task)

    async def receive(self) -> tuple[int, Message | Lost]:
        """As promised by Crew. Raises what broke a worker."""
        worker, message = await self._messages.get()
        if isinstance(message, Broken):
            raise message.error
        return worker, message

    async def _read(self, worker: int, reader: asyncio.StreamReader) -> None:
        while (message := await _next_frame(reader)) is not None:
            await self._messages.put((worker, message))
        process = self._forked[worker].process
        await _ended([process], STOP_WITHIN)
        code = process.exitcode
        reason = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with code {code}"
        await self._messages.put((worker, Lost(f"worker process {process.pid} {reason}")))

    async def __aenter__(self) -> Self:
        for worker, one in enumerate(self._forked):
            reader, writer = await asyncio.open_connection(sock=one.socket)
            self._writers.append(writer)
            self._reading.append(asyncio.create_task(self._read(worker, reader)))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._reading:
            task.cancel()
        await asyncio.gather(*self._reading, return_exceptions=True)
        for writer in self._writers:
            writer.close()
        await _ended([one.process for one in self._forked], STOP_WITHIN)


async def _ended(processes: Sequence[BaseProcess], seconds: float) -> None:
    """Waits until all have ended, or for so long."""
    until = time.monotonic() + seconds
    while any(process.is_alive() for process in processes) and time.monotonic() < until:
        await asyncio.sleep(0.01)


def _child(
    connection: socket.socket,
    inherited: Sequence[socket.socket],
    open_worker: OpenWorker,
    loop: Callable[[], asyncio.AbstractEventLoop] | None,
) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    for one in inherited:  # or the others' sockets would not end with the parent
        one.close()
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(_serve(connection, open_worker))


async def _serve(connection: socket.socket, open_worker: OpenWorker) -> None:
    reader, writer = await asyncio.open_connection(sock=connection)

    async def send(message: Message | Broken) -> None:
        await _write(writer, _portable(message))  # without a parent the next task is none

    try:
        async with open_worker(send) as worker:
            await worker.run(lambda: _next_frame(reader))
    except ReplicatorError as error:
        await send(Broken(error))


async def _write(writer: asyncio.StreamWriter, message: object) -> None:
    """Sends a message; to nobody, if the other side is gone."""
    data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    with suppress(ConnectionError):
        if not writer.is_closing():
            writer.write(_LENGTH.pack(len(data)) + data)
            await writer.drain()


async def _next_frame(reader: asyncio.StreamReader) -> Any:  # noqa: ANN401 - whatever was sent
    """The next message; None when the other side has ended."""
    try:
        (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        return pickle.loads(await reader.readexactly(length))  # noqa: S301 - from our own process, over a socket pair
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


def _portable(message: Message | Broken) -> Message | Broken:
    """The message with errors that can be pickled and read again; others become a ReplicatorError of their words."""
    match message:
        case Outcomes(outcomes):
            return Outcomes(
                tuple(replace(one, failure=_carried(one.failure)) if one.failure else one for one in outcomes)
            )
        case Finished(number, error) if error is not None:
            return Finished(number, _carried(error))
        case Broken(error):
            return Broken(_carried(error))
        case _:
            return message


def _carried(error: Exception) -> Exception:
    try:
        return pickle.loads(pickle.dumps(error))  # type: ignore[no-any-return]  # noqa: S301 - made here
    except Exception:  # noqa: BLE001 - whatever a class of somebody else's does
        return ReplicatorError(f"{type(error).__name__}: {error}")
