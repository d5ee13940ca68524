"""Memory and CPU of a process with all that it has started, from /proc. Where there is none, all figures are 0."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

SAMPLE_SECONDS = 0.2
_SET_CHILD_SUBREAPER = 36


class Process(NamedTuple):
    """What /proc/PID/stat tells. cpu: seconds, of itself only; what it has waited for is not in it."""

    pid: int
    name: str
    parent: int
    session: int
    cpu: float


def processes() -> list[Process]:
    """All processes."""
    tick, found = os.sysconf("SC_CLK_TCK"), []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError):  # it ended while we looked
            # The second field, the program's name in parentheses, may hold spaces and parentheses itself.
            before, _, after = stat.read_text(errors="replace").rpartition(")")
            fields = after.split()
            pid, _, name = before.partition(" (")
            cpu = (int(fields[11]) + int(fields[12])) / tick
            found.append(Process(int(pid), name, int(fields[1]), int(fields[3]), cpu))
    return found


def children() -> list[Process]:
    """Those that this process has started and that still run: in a benchmark, the servers, in order of their start."""
    return sorted(each for each in processes() if each.parent == os.getpid())


def adopt_orphans() -> None:
    """Makes what is left behind by a child a child of ours, so that we can wait for it and learn what it used."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class Peak:
    """The most memory that a session's processes had at once, in KiB: pages that several share count once."""

    def __init__(self, session: int) -> None:
        self.session = session
        self.kib = 0
        self.processes = 0

    def sample(self) -> None:
        sizes = [_pss(each.pid) for each in processes() if each.session == self.session]
        self.kib = max(self.kib, sum(sizes))
        self.processes = max(self.processes, len(sizes))


@contextmanager
def watching(session: int) -> Iterator[Peak]:
    """Samples in a thread as long as the block runs."""
    peak, done = Peak(session), threading.Event()

    def watch() -> None:
        wait = SAMPLE_SECONDS / 4  # short runs are to be seen, too
        while not done.wait(wait):
            peak.sample()
            wait = SAMPLE_SECONDS

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def _pss(pid: int) -> int:
    with suppress(OSError, ValueError, StopIteration):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("Pss:")).split()[1])
    return 0
