"""Runs commands as whole processes, in turn, and tells what each of them used."""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Usage:
    """What one run used: seconds of CPU (user and system) and of wall time, KiB of memory at the peak."""

    cpu: float
    wall: float
    peak: int


@dataclass(slots=True)
class Peer:
    """One contestant. prepare: called before each run with its number, returns the command and its environment."""

    name: str
    prepare: Callable[[int], tuple[Sequence[str], Mapping[str, str]]]
    runs: list[Usage] = field(default_factory=list)

    def median(self, of: Callable[[Usage], float]) -> float:
        return statistics.median(of(run) for run in self.runs)


def run(command: Sequence[str], environment: Mapping[str, str]) -> Usage:
    """Runs a command to its end. Raises CalledProcessError with its output when it fails."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with tempfile.TemporaryFile() as output:
        began = time.monotonic()
        process = subprocess.Popen(command, env={**clean, **environment}, stdout=output, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
        wall = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            output.seek(0)
            raise subprocess.CalledProcessError(process.returncode, command, output.read().decode(errors="replace"))
    return Usage(used.ru_utime + used.ru_stime, wall, used.ru_maxrss)


def alternate(peers: Sequence[Peer], runs: int) -> None:
    """One run of each to warm up, then `runs` rounds in which each peer has its turn."""
    for number in range(runs + 1):
        for peer in peers:
            usage = run(*peer.prepare(number))
            if number > 0:
                peer.runs.append(usage)


def ratios(one: Peer, other: Peer, of: Callable[[Usage], float]) -> list[float]:
    """The other's figure divided by one's, run by run: what holds when the machine's speed drifts."""
    return [of(b) / of(a) for a, b in zip(one.runs, other.runs, strict=True)]


def table(title: str, peers: Sequence[Peer], work: float, unit: str) -> str:
    """A Markdown table of medians. work: how many `unit`s each run did."""
    lines = [
        f"### {title}",
        "",
        f"| peer | {unit} per CPU-second | {unit} per second | CPU s | wall s | peak MiB |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for peer in peers:
        cpu, wall = peer.median(lambda run: run.cpu), peer.median(lambda run: run.wall)
        peak = peer.median(lambda run: run.peak) / 1024
        lines.append(f"| {peer.name} | {work / cpu:,.0f} | {work / wall:,.0f} | {cpu:.2f} | {wall:.2f} | {peak:.0f} |")
    ours = peers[0]
    lines.append("")
    for peer in peers[1:]:
        cpu, wall = ratios(ours, peer, lambda run: run.cpu), ratios(ours, peer, lambda run: run.wall)
        lines.append(
            f"- against {peer.name}, run by run: {statistics.median(cpu):.2f}x per CPU-second "
            f"({min(cpu):.2f} to {max(cpu):.2f}), {statistics.median(wall):.2f}x per second of wall time "
            f"({min(wall):.2f} to {max(wall):.2f})"
        )
    return "\n".join(lines)
