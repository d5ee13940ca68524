"""The hand-over without a gap: a bucket that is written to at full speed is connected, migrated and mirrored, and both
sides are equal at the end.

    python -m tests.handover [SECONDS] [CHANGES A SECOND] [--no-persistent]
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from replicator.model import Attributes
from replicator.s3.store import S3Store
from replicator.store import Write
from tests.runs import ROOT, run_command
from tests.servers import Endpoint, rgw
from tests.servers.base import HOST, free_ports, http_answers
from tests.servers.lab import boto_client, new_bucket, open_store

TOKEN = "a-token-of-the-hand-over"
Counted = dict[tuple[str, str], float]

KEYS = 2000
OLD = 500
PATIENCE = 600.0
DELETES = 0.15
COPIES = 0.05


@dataclass
class Writer:
    """Changes a bucket at a steady rate: new objects, other bytes, other metadata, deletes, and all that again."""

    store: S3Store
    rate: float
    seed: int = 0
    changes: int = 0
    kinds: dict[str, int] = field(default_factory=dict)

    async def begin(self) -> None:
        """The objects that are there before anybody is connected."""
        for n in range(OLD):
            await self.store.put(f"key {n:04}", f"old {n}".encode(), Write())

    async def run(self, ended: asyncio.Event) -> None:
        """Changes until that is set; a slow server makes the rate lower, and no change is left out."""
        draw, began = random.Random(self.seed), time.monotonic()
        room = asyncio.Semaphore(32)
        tasks: set[asyncio.Task[None]] = set()
        while not ended.is_set():
            await room.acquire()
            task = asyncio.create_task(self._change(draw.random(), f"key {draw.randrange(KEYS):04}"))
            tasks.add(task)
            task.add_done_callback(lambda one: (tasks.discard(one), room.release()))
            self.changes += 1
            await asyncio.sleep(max(0.0, began + self.changes / self.rate - time.monotonic()))
        await asyncio.gather(*tasks)

    async def _change(self, chance: float, key: str) -> None:
        if chance < DELETES:
            kind = "deletes"
            await self.store.delete(key)
        elif chance < DELETES + COPIES:
            kind = "metadata"
            attributes = Attributes(content_type="text/plain", metadata=(("chance", str(chance)),))
            await self.store.put(key, b"with metadata", Write(attributes=attributes))
        else:
            kind = "writes"
            await self.store.put(key, random.randbytes(int(4096 * chance)), Write())
        self.kinds[kind] = self.kinds.get(kind, 0) + 1


@dataclass(frozen=True)
class Result:
    """How it went.

    lags: seconds at p50 and p99, from the change to its being at the target, as the service tells, of changes after the
    migration and the first events.
    """

    changes: int
    seconds: float
    migrate: subprocess.CompletedProcess[str]
    verify: subprocess.CompletedProcess[str]
    lags: tuple[float, float]
    left: float
    kinds: dict[str, int]
    counted: Counted


@contextmanager
def service(state: Path, variables: dict[str, str], *more: str) -> Iterator[tuple[int, int]]:
    """`replicator serve` with a queue in a file; the ports of webhooks and metrics. It has to end with 0."""
    events, metrics = free_ports(2)
    command = [sys.executable, "-m", "replicator", "serve", "--queue", str(state / "queue.db")]
    command += ["--events", f"{HOST}:{events}", "--metrics", f"{HOST}:{metrics}", *more]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables, "EVENTS_TOKEN": TOKEN, "LOG_LEVEL": "WARNING"}
    with (state / "serve.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT, cwd=state)
        try:
            deadline = time.monotonic() + PATIENCE
            while not http_answers(metrics, "/healthz"):
                assert process.poll() is None, (state / "serve.log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield events, metrics
            process.terminate()
            assert process.wait(timeout=PATIENCE) == 0, (state / "serve.log").read_text()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def numbers(port: int) -> Counted:
    """What the service counts, by name and the label `le` or `action`."""
    found = {}
    for family in text_string_to_metric_families(_metrics(port)):
        for sample in family.samples:
            label = sample.labels.get("le") or sample.labels.get("action") or ""
            found[sample.name, label] = sample.value
    return found


def _metrics(port: int) -> str:
    with urllib.request.urlopen(f"http://{HOST}:{port}/metrics", timeout=PATIENCE) as answer:
        return answer.read().decode()


def quantile(counted: Counted, share: float, histogram: str = "replicator_lag_seconds") -> float:
    """Of a histogram: the end of the bucket in which it lies, cut by how far it lies in."""
    buckets = sorted((float(le), n) for (name, le), n in counted.items() if name == f"{histogram}_bucket")
    wanted, below, before = share * buckets[-1][1], 0.0, 0.0
    for edge, count in buckets:
        if count >= wanted and count > before:
            return below + (edge - below) * (wanted - before) / (count - before)
        below, before = edge, count
    return below


async def hand_over(
    here: Endpoint, there: Endpoint, state: Path, *, seconds: float, rate: float, how: Sequence[str] = ()
) -> Result:
    """Runs all of it. seconds: for which the writer goes on when the migration has ended. how: options of connect."""
    source, target = new_bucket(here), new_bucket(there)
    variables = {
        "SOURCE_BUCKET": source,
        "SOURCE_ENDPOINT": here.url,
        "SOURCE_ACCESS_KEY_ID": here.access_key,
        "SOURCE_SECRET_ACCESS_KEY": here.secret_key,
        "TARGET_BUCKET": target,
        "TARGET_ENDPOINT": there.url,
        "TARGET_ACCESS_KEY_ID": there.access_key,
        "TARGET_SECRET_ACCESS_KEY": there.secret_key,
        "DELETES": "mirror",
        "MAX_DELETES_PER_HOUR": "1000000",
    }
    async with AsyncExitStack() as stack:
        writer = Writer(await stack.enter_async_context(open_store(here, source)), rate)
        await writer.begin()
        serving = stack.enter_context(ExitStack())
        events, metrics = serving.enter_context(service(state, variables))
        ended = asyncio.Event()
        began = time.monotonic()
        writing = asyncio.create_task(writer.run(ended))
        connected = await _command(variables, "connect", source, f"http://{HOST}:{events}/events?token={TOKEN}", *how)
        assert connected.returncode == 0, connected.stderr
        migrate = await _command(variables, "migrate", "--passes", "1")
        before = await _told(metrics)
        await asyncio.sleep(seconds)
        ended.set()
        await writing
        wrote = time.monotonic() - began
        counted = await _quiet(metrics)
        verify = await _command(variables, "verify")
        gone = await _command(variables, "disconnect", source)
        assert gone.returncode == 0, gone.stderr
        await asyncio.to_thread(serving.close)
        since = {name: value - before.get(name, 0.0) for name, value in counted.items()}
        lags = quantile(since, 0.5), quantile(since, 0.99)
        left = time.monotonic() - began - wrote
        return Result(writer.changes, wrote, migrate, verify, lags, left, writer.kinds, counted)


async def _command(variables: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "replicator", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    return await asyncio.to_thread(run_command, command, environment, seconds=PATIENCE)


async def _told(port: int) -> Counted:
    """Waits for the first event: Ceph RGW looks for new topics every 30 s. What was counted by then, and dealt with."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        counted = await asyncio.to_thread(numbers, port)
        if counted.get(("replicator_lag_seconds_count", ""), 0.0) > 0:
            await asyncio.sleep(5.0)  # for what has gathered since
            return await asyncio.to_thread(numbers, port)
        await asyncio.sleep(0.5)
    raise AssertionError("no event comes")


async def _quiet(port: int) -> Counted:
    """Waits until nothing has come or been done for some seconds; what was counted by then."""
    deadline, last, since = time.monotonic() + PATIENCE, None, time.monotonic()
    while time.monotonic() < deadline:
        counted = await asyncio.to_thread(numbers, port)
        busy = {name: value for name, value in counted.items() if "objects" in name[0] or "events" in name[0]}
        if busy != last:
            last, since = busy, time.monotonic()
        elif time.monotonic() - since > 5.0:
            return counted
        await asyncio.sleep(0.5)
    raise AssertionError("events never end")


def main() -> None:
    how = [text for text in sys.argv[1:] if text.startswith("--")]
    given = [text for text in sys.argv[1:] if text not in how]
    seconds, rate = (float(text) for text in [*given, *["60", "200"][len(given) :]])
    with tempfile.TemporaryDirectory(prefix="handover-") as name, ExitStack() as stack:
        state = Path(name)
        for place in ("here", "there", "state"):
            (state / place).mkdir()
        here = stack.enter_context(rgw.serve(state / "here"))
        there = stack.enter_context(rgw.serve(state / "there", name="there"))
        result = asyncio.run(hand_over(here, there, state / "state", seconds=seconds, rate=rate, how=how))
        objects = len(boto_client(there).list_buckets()["Buckets"])
    print(
        f"{result.changes} changes in {result.seconds:.0f} s ({result.changes / result.seconds:.0f}/s): {result.kinds}"
    )
    print(f"migrate said: {result.migrate.stderr[-300:]}")
    kept = ("replicator_objects_total", "replicator_events_total", "process_cpu_seconds_total")
    print({name: value for name, value in result.counted.items() if name[0] in kept})
    ages = [quantile(result.counted, share, "replicator_event_age_seconds") for share in (0.5, 0.99)]
    print(f"age of events when they are stored: p50 {ages[0]:.2f} s, p99 {ages[1]:.2f} s")
    print(f"lag p50 {result.lags[0]:.2f} s, p99 {result.lags[1]:.2f} s; migrate exit {result.migrate.returncode}")
    print(result.verify.stdout, result.verify.stderr, f"verify exit {result.verify.returncode}; buckets {objects}")


if __name__ == "__main__":
    main()
