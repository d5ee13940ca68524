"""make bench: this and its peers on the same work, in the same run, in turn. Prints Markdown for docs/BENCHMARKS.md.

python -m tests.benchmarks.run [small] [large] [--runs 5] [--json figures.json] [--chart chart.svg]
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.benchmarks.cases import CASES, DEFAULT, OURS
from tests.benchmarks.chart import chart
from tests.benchmarks.measure import Bench, bare_interpreter
from tests.benchmarks.process_tree import adopt_orphans
from tests.benchmarks.virtual_bucket import LAYOUTS


def main() -> None:
    chosen = _arguments()
    for name in chosen.cases:
        if missing := CASES[name].missing():
            sys.exit(f"bench: {missing}")
    compileall.compile_dir("replicator", quiet=2)  # an installed package is compiled, too
    adopt_orphans()
    print(f"{platform.python_implementation()} {platform.python_version()}, {os.cpu_count()} CPUs, medians; peers take")
    print("turns. Peak is the memory of all processes of a peer together; that of a bare Python interpreter is")
    print(f"{bare_interpreter().peak / 1024:.0f} MiB.\n", flush=True)
    results = []
    for name in chosen.cases:
        results += _measure(name, chosen)
        if chosen.json:
            chosen.json.write_text(json.dumps(results, indent=1))
        if chosen.chart:
            chosen.chart.write_text(chart(results))


def _measure(name: str, chosen: argparse.Namespace) -> list[dict[str, Any]]:
    """Runs one case and prints its tables."""
    found = []
    with tempfile.TemporaryDirectory(prefix="replicator-bench-") as scratch:
        ours = chosen.ours or OURS.get(name, ("",))
        for result in CASES[name].measure(Bench(Path(scratch), chosen.runs, ours, chosen.layout)):
            print(result.table(), "\n", flush=True)
            found.append(result.data())
    return found


def _arguments() -> argparse.Namespace:
    about = "\n".join(f"  {name:14} {case.about}" for name, case in CASES.items())
    parser = argparse.ArgumentParser(
        description=f"{__doc__}\ncases (default: {', '.join(DEFAULT)}):\n{about}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("cases", nargs="*", metavar="case")
    parser.add_argument("--runs", type=int, default=5, help="measured runs of each peer; of long cases 3 at most")
    parser.add_argument(
        "--ours", action="append", metavar="OPTIONS", help="options of ours instead of the case's own; may be repeated"
    )
    parser.add_argument("--layout", choices=sorted(LAYOUTS), default="dirs", help="of the keys of noop and noop5m")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the raw figures")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="write a chart of them in SVG")
    chosen = parser.parse_args()
    chosen.cases = chosen.cases or list(DEFAULT)
    if unknown := set(chosen.cases) - CASES.keys():
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    return chosen


if __name__ == "__main__":
    main()
