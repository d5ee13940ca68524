"""An event loop in which sleeping takes no time: its clock jumps to the next thing that is waited for."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

PATIENCE = 3000.0
"""Seconds of the loop's own clock after which what runs in it is held to hang."""

UNDERWAY = 0.1
"""Seconds, real ones, for bytes to get from one socket of this process to another: then there are none."""


class Impatient(selectors.DefaultSelector):
    """Never waits for time to pass: the clock moves on instead. grace: real seconds for bytes that may be on the way.

    While there are bytes the clock stands still, so that a busy machine is never late.
    """

    def __init__(self, grace: float = 0.0) -> None:
        super().__init__()
        self.ahead = 0.0
        self._grace = grace

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and self._grace and (timeout is None or timeout > 0):
            ready = super().select(self._grace)
        if not ready:
            assert timeout is not None, "nothing can ever happen any more"
            self.ahead += max(timeout, 0.0)
        return ready


class HurriedLoop(asyncio.SelectorEventLoop):
    """Where every run of the same steps is the same, whatever the machine does beside it. grace: as of Impatient."""

    def __init__(self, grace: float = 0.0) -> None:
        self.impatient = Impatient(grace)
        super().__init__(self.impatient)

    def time(self) -> float:
        return self.impatient.ahead


def hurried(coroutine: Coroutine[Any, Any, Result], *, sockets: bool = False) -> Result:
    """Runs it in such a loop. sockets: it talks to itself by some."""

    async def patient() -> Result:
        async with asyncio.timeout(PATIENCE):
            return await coroutine

    with asyncio.Runner(loop_factory=partial(HurriedLoop, UNDERWAY if sockets else 0.0)) as runner:
        return runner.run(patient())


def in_hurried_loop(
    test: Callable[Parameters, Coroutine[Any, Any, None]],
) -> Callable[Parameters, None]:
    """Makes a test that is a coroutine function, and talks to a server of its own, run in such a loop."""

    @wraps(test)
    def run(*given: Parameters.args, **named: Parameters.kwargs) -> None:
        hurried(test(*given, **named), sockets=True)

    return run
