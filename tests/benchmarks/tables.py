"""What was measured, as Markdown and as plain data."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tests.benchmarks.measure import Peer, Usage

Figure = Callable[[Usage], float]


@dataclass(frozen=True, slots=True)
class Result:
    """One case. peers: ours first. per_server: whether the table tells what each server used, or only their sum."""

    case: str
    title: str
    unit: str
    peers: Sequence[Peer]
    notes: Sequence[str] = ()
    per_server: bool = False

    def data(self) -> dict[str, Any]:
        """As JSON can hold it."""
        peers = [
            {"name": peer.name, "work": peer.work, "note": peer.note, "runs": [asdict(run) for run in peer.runs]}
            for peer in self.peers
        ]
        return {"case": self.case, "title": self.title, "unit": self.unit, "notes": list(self.notes), "peers": peers}

    def table(self) -> str:
        """Medians, how they compare, and notes."""
        lines = [
            f"### {self.title}",
            "",
            f"| peer | runs | {self.unit} per CPU-second | {self.unit} per second | CPU s | wall s "
            "| peak MiB (tree) | servers' CPU s |",
            "|---|---:|---:|---:|---:|---:|---:|---:|",
            *(self._row(peer) for peer in self.peers),
            "",
        ]
        ours = self.peers[0]
        lines += [_comparison(ours, peer) for peer in self.peers[1:]]
        lines += [f"- {peer.name}: {peer.note}" for peer in self.peers if peer.note]
        if self.per_server:
            lines += [f"- servers during {peer.name}: {_servers(peer)}" for peer in self.peers]
        return "\n".join([*lines, *(f"- {note}" for note in self.notes)])

    def _row(self, peer: Peer) -> str:
        cpu, wall = peer.median(lambda run: run.cpu), peer.median(lambda run: run.wall)
        peak = peer.median(lambda run: run.peak) / 1024
        servers = peer.median(lambda run: sum(used for _, used in run.servers))
        speeds = f"{peer.work / cpu:,.0f} | {peer.work / wall:,.0f}"
        return f"| {peer.name} | {len(peer.runs)} | {speeds} | {cpu:.2f} | {wall:.2f} | {peak:.0f} | {servers:.2f} |"


def ratios(one: Peer, other: Peer, of: Figure) -> list[float]:
    """The other's figure for the same work divided by one's, run by run: what holds when the machine's speed drifts.

    A peer with fewer runs than the other has them compared in turn.
    """
    count = max(len(one.runs), len(other.runs))
    pairs = itertools.islice(zip(itertools.cycle(one.runs), itertools.cycle(other.runs), strict=False), count)
    return [(of(b) / other.work) / (of(a) / one.work) for a, b in pairs]


def _comparison(ours: Peer, peer: Peer) -> str:
    cpu, wall = ratios(ours, peer, lambda run: run.cpu), ratios(ours, peer, lambda run: run.wall)
    return (
        f"- against {peer.name}, run by run: {statistics.median(cpu):.2f}x per CPU-second "
        f"({min(cpu):.2f} to {max(cpu):.2f}), {statistics.median(wall):.2f}x per second of wall time "
        f"({min(wall):.2f} to {max(wall):.2f})"
    )


def _servers(peer: Peer) -> str:
    """CPU of each server, in seconds and as a share of the wall time: 100 % is one core."""
    wall = peer.median(lambda run: run.wall)
    used = [
        (columns[0][0], statistics.median(cpu for _, cpu in columns))
        for columns in zip(*(run.servers for run in peer.runs), strict=True)
    ]
    return (
        ", ".join(f"{name} {cpu:.2f} s ({cpu / wall:.0%} of a core)" for name, cpu in used if cpu) or "next to nothing"
    )
