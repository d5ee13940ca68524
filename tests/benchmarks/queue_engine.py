"""The queue engine with 1, 2 and 4 workers, beside a bulk run of the same: speed between two in-memory servers, and
what is asked of stores and queue, counted at servers of ours. Prints Markdown for docs/QUEUE.md.

python -m tests.benchmarks.queue_engine [--runs 3] [--objects 5000] [--counted 5000]
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from replicator.queues.opening import open_queues
from tests.benchmarks.buckets import SOURCE, Targets, fill, key_of
from tests.benchmarks.measure import run
from tests.benchmarks.process_tree import processes
from tests.fakes.watched_s3 import Asked, watched
from tests.servers import Endpoint, rclone
from tests.servers.lab import boto_client

SIZE = 4096
WORKERS = (1, 2, 4)
SECONDS = 300.0
LOOK_EVERY = 0.05
REPLICATOR = [sys.executable, "-m", "replicator"]
BULK = 0
"""Workers of a run without a queue."""


@dataclass(frozen=True)
class Took:
    """What one run took.

    cpu: seconds, of all processes from start to exit. idle: those that workers had used before there was work. wall:
    seconds until nothing was to do. messages: of the queue. said: bytes of the workers' logs.
    """

    cpu: float
    wall: float
    idle: float = 0.0
    messages: int = 0
    said: int = 0


@dataclass
class Way:
    """A way of copying everything, and its runs. workers: BULK for none."""

    workers: int
    runs: list[Took] = field(default_factory=list)

    @property
    def name(self) -> str:
        """For the tables."""
        if self.workers == BULK:
            return "`migrate`, one process"
        return f"`--engine sqs`, {self.workers} worker{'s' if self.workers > 1 else ''}"

    def go(self, variables: Mapping[str, str]) -> Took:
        """Runs it to its end."""
        return queued(self.workers, variables) if self.workers else bulk(variables)

    def median(self, of: Callable[[Took], float]) -> float:
        """Of its runs."""
        return statistics.median(of(one) for one in self.runs)


def bulk(variables: Mapping[str, str]) -> Took:
    used = run([*REPLICATOR, "migrate", "--processes", "1"], variables)
    return Took(used.cpu, used.wall)


def queued(workers: int, variables: Mapping[str, str]) -> Took:
    """Workers that wait already, and what sends them work. migrate itself ends some seconds after the last of it."""
    with tempfile.TemporaryDirectory(prefix="queue-engine-") as name, ExitStack() as stack:
        folder = Path(name)
        queue = folder / "queue.db"
        queues = stack.enter_context(closing(open_queues(str(queue), {})))
        at_work = [stack.enter_context(worker(folder / f"{n}.log", queue, variables)) for n in range(workers)]
        idle = sum(one.cpu for one in processes() if one.pid in {each.pid for each in at_work})
        command = [*REPLICATOR, "migrate", "--engine", "sqs", "--queue", str(queue)]
        with (folder / "migrate.log").open("wb") as log:
            migrate = subprocess.Popen(command, env={**os.environ, **variables}, stderr=log)
        began = busy = time.monotonic()
        cpu: float | None = None
        while cpu is None:
            time.sleep(LOOK_EVERY)
            cpu = ended(migrate, folder / "migrate.log", wait=False)
            now = time.monotonic()
            busy = now if any(queues.items.depth()) else busy
            assert now < began + SECONDS, (folder / "migrate.log").read_text()
        for one in at_work:
            one.send_signal(signal.SIGTERM)
        cpu += sum(ended(one, folder / f"{n}.log") or 0.0 for n, one in enumerate(at_work))
        with closing(sqlite3.connect(queue)) as database:
            ((messages,),) = database.execute("select seq from sqlite_sequence where name = 'messages'")
        said = sum(path.stat().st_size for path in folder.glob("[0-9]*.log"))
        return Took(cpu, busy - began, idle, messages, said)


@contextmanager
def worker(log: Path, queue: Path, variables: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A worker that waits for work. It is killed unless it has ended when the block does."""
    with log.open("wb") as output:
        command = [*REPLICATOR, "serve", "--queue", str(queue)]
        process = subprocess.Popen(command, env={**os.environ, **variables}, stderr=output)
    try:
        while b"listening" not in log.read_bytes():
            assert ended(process, log, wait=False) is None
            time.sleep(LOOK_EVERY)
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            process.wait()


def ended(process: subprocess.Popen[bytes], log: Path, *, wait: bool = True) -> float | None:
    """Seconds of CPU of a process that has ended well; None while it has not."""
    pid, status, used = os.wait4(process.pid, 0 if wait else os.WNOHANG)
    if not pid:
        return None
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, log.read_text()
    return used.ru_utime + used.ru_stime


def race(ways: list[Way], objects: int, runs: int) -> None:
    """All ways in turn, and once before that does not count."""
    with tempfile.TemporaryDirectory(prefix="queue-engine-") as name, ExitStack() as stack:
        ends = []
        for side in ("here", "there"):
            (Path(name) / side).mkdir()
            ends.append(stack.enter_context(rclone.serve(Path(name) / side)))
        here, there = ends
        fill(here, objects, SIZE)
        target = Targets(there)
        for number in range(runs + 1):
            for way in ways:
                bucket = target()
                took = way.go(variables_between(here, there, SOURCE, bucket))
                pages = boto_client(there).get_paginator("list_objects_v2").paginate(Bucket=bucket)
                assert sum(page["KeyCount"] for page in pages) == objects
                if number:
                    way.runs.append(took)


def variables_between(here: Endpoint, there: Endpoint, source: str, target: str) -> dict[str, str]:
    """The environment of all of them."""
    return {
        "SOURCE_BUCKET": source,
        "SOURCE_ENDPOINT": here.url,
        "SOURCE_ACCESS_KEY_ID": here.access_key,
        "SOURCE_SECRET_ACCESS_KEY": here.secret_key,
        "TARGET_BUCKET": target,
        "TARGET_ENDPOINT": there.url,
        "TARGET_ACCESS_KEY_ID": there.access_key,
        "TARGET_SECRET_ACCESS_KEY": there.secret_key,
    }


KINDS = ("GET", "HEAD", "PUT", "LIST of a page", "LIST of one key", "other")


def counted(way: Way, objects: int) -> tuple[Counter[tuple[str, str]], Took]:
    """Requests by side and kind, of one run."""
    with watched() as source, watched() as target:
        draw = random.Random(1)
        source.objects = {key_of(n): draw.randbytes(SIZE) for n in range(objects)}
        here, there = (
            Endpoint(name="watched", url=store.url, access_key="any", secret_key="any") for store in (source, target)
        )
        took = way.go(variables_between(here, there, "from", "to"))
        assert target.objects == source.objects
        return Counter(
            (side, _kind(one)) for side, store in (("source", source), ("target", target)) for one in store.log
        ), took


def _kind(one: Asked) -> str:
    if one.key:
        return one.method if one.method in KINDS else "other"
    if one.page is not None and "list-type" in one.query:
        return "LIST of a page"
    return "LIST of one key" if "list-type" in one.query else "other"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--objects", type=int, default=5000, help="of 4 KiB")
    parser.add_argument("--counted", type=int, default=5000, help="objects of the runs in which requests are counted")
    chosen = parser.parse_args()
    ways = [Way(workers) for workers in (BULK, *WORKERS)]
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} CPUs", flush=True)
    race(ways, chosen.objects, chosen.runs)
    columns = ("objects per second", "objects per CPU-second", "less the workers' start-up", "CPU s", "wall s")
    print(f"\n| {chosen.runs} runs | {' | '.join(columns)} |\n|---|{'---:|' * len(columns)}")
    for way in ways:
        wall, cpu = way.median(lambda one: one.wall), way.median(lambda one: one.cpu)
        work = way.median(lambda one: one.cpu - one.idle)
        speeds = f"{chosen.objects / wall:,.0f} | {chosen.objects / cpu:,.0f} | {chosen.objects / work:,.0f}"
        print(f"| {way.name} | {speeds} | {cpu:.2f} | {wall:.2f} |")
    for way in ways[1:]:
        ratios = [one.cpu / other.cpu for one, other in zip(way.runs, ways[0].runs, strict=True)]
        said = way.median(lambda one: one.said) / chosen.objects
        print(f"- {way.name}: {statistics.median(ratios):.2f}x bulk's CPU, {said:.0f} bytes of log per object")
    print(f"load {os.getloadavg()[0]:.1f}\n", flush=True)
    print(f"| requests for {chosen.counted:,} objects | side | {' | '.join(KINDS)} | messages |")
    print(f"|---|---|{'---:|' * (len(KINDS) + 1)}")
    for way in ways:
        found, took = counted(way, chosen.counted)
        for side in ("source", "target"):
            print(
                f"| {way.name} | {side} | {' | '.join(f'{found[side, kind]:,}' for kind in KINDS)} | {took.messages} |"
            )


if __name__ == "__main__":
    main()
