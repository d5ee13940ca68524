"""A chart of what was measured: plain SVG, readable on light and dark pages.

python -m tests.benchmarks.chart figures.json [more.json ...] > chart.svg

The runs of a case that is in several files are taken together.
"""

from __future__ import annotations

import json
import statistics
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

WIDTH, LEFT, RIGHT = 860, 330, 90  # of the picture, of the names, of the numbers behind the bars
ROW, BAR, TITLE, MARGIN = 34, 12, 30, 16
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2328; }
.title { font-weight: 600; }
.small { font-size: 11px; fill: #59636e; }
.cpu { fill: #8c959f; } .wall { fill: #c4cad0; }
.ours .cpu { fill: #0969da; } .ours .wall { fill: #80b9f5; } .ours text { font-weight: 600; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; } .small { fill: #9198a1; }
  .cpu { fill: #7d8590; } .wall { fill: #484f58; }
  .ours .cpu { fill: #4493f8; } .ours .wall { fill: #1f4e8c; }
}
"""

Data = dict[str, Any]


def chart(results: Sequence[Data]) -> str:
    """results: as Result.data() gives them; the first peer of each is what the others are compared with."""
    parts = [
        _text(0, MARGIN + 4, "Time per unit of work, medians, and how many times ours: shorter is better", "small")
    ]
    parts += _legend(MARGIN + 22)
    y = MARGIN + 40
    for result in results:
        parts.append(_text(0, y + 18, result["title"], "title"))
        y += TITLE
        rows = [_figures(peer) for peer in result["peers"]]
        longest = max(max(cpu, wall) for cpu, wall in rows)
        for peer, figures in zip(result["peers"], rows, strict=True):
            parts.append(_row(y, peer["name"], figures, ours=rows[0], longest=longest, unit=result["unit"]))
            y += ROW
        y += MARGIN
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{-MARGIN} 0 {WIDTH + 2 * MARGIN} {y}" role="img">'
    return "\n".join([head, f"<style>{STYLE}</style>", *parts, "</svg>", ""])


def merged(results: Sequence[Data]) -> list[Data]:
    """One result for each case, with the runs of all."""
    cases: dict[str, Data] = {}
    for result in results:
        known = cases.setdefault(result["title"], {**result, "peers": []})
        peers = {peer["name"]: peer for peer in known["peers"]}
        for peer in result["peers"]:
            if peer["name"] in peers:
                peers[peer["name"]]["runs"] += peer["runs"]
            else:
                known["peers"].append({**peer, "runs": list(peer["runs"])})
    return list(cases.values())


def _figures(peer: Data) -> tuple[float, float]:
    """Seconds of CPU and of wall time per unit of work."""
    cpu, wall = (statistics.median(run[name] for run in peer["runs"]) / peer["work"] for name in ("cpu", "wall"))
    return cpu, wall


def _row(
    y: float, name: str, figures: tuple[float, float], *, ours: tuple[float, float], longest: float, unit: str
) -> str:
    """A name with two bars and their numbers."""
    group = ' class="ours"' if name.startswith("replicator") else ""
    parts = [f"<g{group}>", *_name(y, name)]
    for index, (kind, value, reference) in enumerate(zip(("cpu", "wall"), figures, ours, strict=True)):
        top, width = y + index * (BAR + 2), max(1.0, value / longest * (WIDTH - LEFT - RIGHT))
        told = f"{name}: {1 / value:,.0f} {unit} per second of {'CPU' if kind == 'cpu' else 'wall time'}"
        parts.append(
            f'<rect class="{kind}" x="{LEFT}" y="{top}" width="{width:.1f}" height="{BAR}" rx="2">'
            f"<title>{escape(told)}</title></rect>"
        )
        parts.append(_text(LEFT + width + 6, top + BAR - 2, f"{_time(value)}, {value / reference:.2f}x", "small"))
    return "\n".join([*parts, "</g>"])


def _legend(y: float) -> list[str]:
    boxes = []
    for x, kind, label in ((0, "cpu", "CPU, user and system"), (170, "wall", "wall time")):
        boxes.append(f'<rect class="{kind}" x="{x}" y="{y - 9}" width="{BAR}" height="{BAR}" rx="2"/>')
        boxes.append(_text(x + BAR + 6, y + 1, label, "small"))
    return boxes


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    chosen = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y}"{chosen}>{escape(text)}</text>'


def _name(y: float, name: str) -> list[str]:
    """On two lines where it has many options."""
    lines = textwrap.wrap(name, 46, break_on_hyphens=False)
    return [_text(0, y + BAR + 4 + 15 * index - 4 * (len(lines) - 1), line) for index, line in enumerate(lines)]


def _time(seconds: float) -> str:
    """Of one unit of work."""
    if seconds >= 1:
        return f"{seconds:.3g} s"
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g} µs"


if __name__ == "__main__":
    sys.stdout.write(chart(merged([each for name in sys.argv[1:] for each in json.loads(Path(name).read_text())])))
