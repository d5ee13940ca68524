"""Runs commands as whole processes, in turn, and tells what each of them used, with all that it started."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.benchmarks.process_tree import children, watching

STRAGGLER_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Usage:
    """What one run used.

    cpu: seconds, user and system, of all its processes. wall: seconds. peak: KiB of all processes at once, sampled,
    or, for runs too short for that, of the largest one. processes: the most there were at once. servers: seconds of
    CPU that the servers used meanwhile, in the order of their start.
    """

    cpu: float
    wall: float
    peak: int
    processes: int = 1
    servers: Sequence[tuple[str, float]] = ()


Prepared = tuple[Sequence[str], Mapping[str, str]]


@dataclass(slots=True)
class Peer:
    """One contestant. prepare: called before each run with its number, returns the command and its environment.

    work: how much of the table's unit each run does. note: what makes it differ from the others.
    """

    name: str
    prepare: Callable[[int], Prepared]
    work: float = 1.0
    note: str = ""
    runs: list[Usage] = field(default_factory=list)

    def median(self, of: Callable[[Usage], float]) -> float:
        return statistics.median(of(run) for run in self.runs)


@dataclass(frozen=True, slots=True)
class Bench:
    """How a case is to be measured.

    scratch: an empty directory. ours: options of `replicator migrate`, one text for each variant. layout: of the keys
    in synthetic listings.
    """

    scratch: Path
    runs: int
    ours: Sequence[str] = ("",)
    layout: str = "dirs"

    def folder(self, name: str) -> Path:
        (self.scratch / name).mkdir()
        return self.scratch / name


def run(command: Sequence[str], environment: Mapping[str, str]) -> Usage:
    """Runs a command to its end. Raises CalledProcessError with its output when it fails."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    servers = children()
    with tempfile.TemporaryFile() as output:
        began = time.monotonic()
        process = subprocess.Popen(
            command, env={**clean, **environment}, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            with watching(process.pid) as peak:
                _, status, used = os.wait4(process.pid, 0)
                wall = time.monotonic() - began
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        process.returncode = os.waitstatus_to_exitcode(status)
        # The leader's figures have in them what it waited for; its orphans are ours (adopt_orphans).
        cpu = used.ru_utime + used.ru_stime + _wait_for_stragglers(process.pid)
        if process.returncode != 0:
            output.seek(0)
            raise subprocess.CalledProcessError(process.returncode, command, output.read().decode(errors="replace"))
    before = {each.pid: each.cpu for each in servers}
    after = [(each.name, round(each.cpu - before[each.pid], 2)) for each in children() if each.pid in before]
    kib = peak.kib or used.ru_maxrss // (1024 if sys.platform == "darwin" else 1)
    return Usage(cpu, wall, kib, max(1, peak.processes), after)


def _wait_for_stragglers(group: int) -> float:
    """Seconds of CPU of what the leader of a process group has left behind; what does not end is killed."""
    cpu, deadline = 0.0, time.monotonic() + STRAGGLER_SECONDS
    while True:
        try:
            pid, _, used = os.wait4(-group, os.WNOHANG)
        except ChildProcessError:
            return cpu
        if pid:
            cpu += used.ru_utime + used.ru_stime
            continue
        if time.monotonic() > deadline:
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        time.sleep(0.01)


def alternate(peers: Sequence[Peer], runs: int, *, warm_up: bool = True) -> None:
    """`runs` rounds in which each peer has its turn, after one that does not count."""
    for number in range(0 if warm_up else 1, runs + 1):
        for peer in peers:
            usage = run(*peer.prepare(number))
            if number > 0:
                peer.runs.append(usage)


def bare_interpreter() -> Usage:
    """What a Python that only waits uses: the part of our memory that is none of our doing."""
    return run([sys.executable, "-I", "-c", "import time; time.sleep(0.5)"], {})
