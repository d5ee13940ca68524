"""What is measured. Each case is given a Bench and yields one Result or several.

To compare other variants of ours, edit OURS or say --ours; the first one is what the others are compared with.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tests.benchmarks.buckets import MiB, Targets, fill, fill_in_parts
from tests.benchmarks.ceph import collect_garbage, make_certificate, serve_over_tls
from tests.benchmarks.events import events
from tests.benchmarks.field import Field
from tests.benchmarks.measure import Bench, Peer, alternate
from tests.benchmarks.noop import noop, noop5m
from tests.benchmarks.push import push
from tests.benchmarks.tables import Result
from tests.servers import Endpoint, moto, rclone, rgw

SMALL_OBJECTS, SMALL_SIZE = 5_000, 4096
LARGE_SIZE, LARGE_PART = 256 * MiB, 8 * MiB
MANY_OBJECTS, MANY_SIZE = 64, 16 * MiB
HUGE_SIZE, HUGE_PART = 1024 * MiB, 16 * MiB
LOCAL_OBJECTS, LOCAL_SIZE = 2_000, 16 * 1024
TUNED = ("--transfers", "16", "--s3-upload-concurrency", "8", "--s3-chunk-size", "16M")
NO_S5CMD = "s5cmd takes one endpoint, and so is not in this table"
LONG_RUNS = 3
"""Runs of what takes long; --runs may ask for fewer."""

OURS = {
    "noop": ("", "--processes 1"),
    "noop5m": ("", "--processes 1"),
    "two-processes": ("--processes 2", "--processes 1"),
}
"""Options of `replicator migrate`: those that each case runs it with, in turn."""


def small(bench: Bench) -> Iterator[Result]:
    with rclone.serve(bench.folder("here")) as here, rclone.serve(bench.folder("there")) as there:
        fill(here, SMALL_OBJECTS, SMALL_SIZE)
        field = Field(here=here, there=there, target=Targets(there), work=SMALL_OBJECTS)
        peers = [*map(field.ours, bench.ours), *_rclones(field)]
        alternate(peers, bench.runs)
        slow = [field.boto3(), field.aws_through_disk(bench.scratch)]
        alternate(slow, 1)
        title = f"{SMALL_OBJECTS:,} objects of {SMALL_SIZE // 1024} KiB between two in-memory servers"
        yield Result("small", title, "objects", [*peers, *slow])


def two_processes(bench: Bench) -> Iterator[Result]:
    """As small, with what the servers use: says who is the limit."""
    with rclone.serve(bench.folder("here")) as here, rclone.serve(bench.folder("there")) as there:
        fill(here, SMALL_OBJECTS, SMALL_SIZE)
        field = Field(here=here, there=there, target=Targets(there), work=SMALL_OBJECTS)
        peers = [*map(field.ours, bench.ours), *_rclones(field)]
        alternate(peers, bench.runs)
        title = f"{SMALL_OBJECTS:,} objects of {SMALL_SIZE // 1024} KiB, two processes, and what the servers use"
        yield Result("two-processes", title, "objects", peers, per_server=True)


def _rclones(field: Field) -> list[Peer]:
    """With as much in flight as it profits from on small objects."""
    wide = ("--transfers", "32", "--checkers", "32")
    return [field.rclone(*wide), field.rclone(*wide, "--s3-no-head", note="does not look at what it has written")]


def large(bench: Bench) -> Iterator[Result]:
    with _clusters(bench) as field:
        fill_in_parts(field.here, LARGE_SIZE, LARGE_PART)
        field = replace(field, work=LARGE_SIZE / MiB)
        tuned = ("--s3-upload-concurrency", "8", "--s3-chunk-size", f"{LARGE_PART // MiB}M")
        peers = [*map(field.ours, bench.ours), field.rclone(), field.rclone(*tuned)]
        alternate(peers, bench.runs)
        title = f"one object of {LARGE_SIZE // MiB} MiB in {LARGE_PART // MiB} MiB parts, Ceph RGW to Ceph RGW"
        yield Result("large", title, "MiB", peers)


def many(bench: Bench) -> Iterator[Result]:
    with _clusters(bench) as field:
        fill(field.here, MANY_OBJECTS, MANY_SIZE)
        yield _many(bench, field)


def _many(bench: Bench, field: Field, over: str = "") -> Result:
    peers = _bulk_peers(bench, replace(field, work=MANY_OBJECTS * MANY_SIZE / MiB))
    title = f"{MANY_OBJECTS} objects of {MANY_SIZE // MiB} MiB, Ceph RGW to Ceph RGW{over}"
    return Result(f"many{over}", title, "MiB", peers, [NO_S5CMD])


def huge(bench: Bench) -> Iterator[Result]:
    with _clusters(bench) as field:
        fill_in_parts(field.here, HUGE_SIZE, HUGE_PART)
        yield _huge(bench, field)


def _huge(bench: Bench, field: Field, over: str = "") -> Result:
    peers = _bulk_peers(bench, replace(field, work=HUGE_SIZE / MiB))
    title = f"one object of {HUGE_SIZE // MiB} MiB in {HUGE_PART // MiB} MiB parts, Ceph RGW to Ceph RGW{over}"
    return Result(f"huge{over}", title, "MiB", peers, [NO_S5CMD])


def _bulk_peers(bench: Bench, field: Field) -> list[Peer]:
    peers = [*map(field.ours, bench.ours), field.rclone(), field.rclone(*TUNED)]
    alternate(peers, min(bench.runs, LONG_RUNS))
    return peers


def tls(bench: Bench) -> Iterator[Result]:
    """Clusters of their own for each of the two: what is stored is in memory."""
    certificate = make_certificate(bench.scratch)
    with _clusters_over_tls(bench, "many", certificate) as (plain, field):
        fill(plain, MANY_OBJECTS, MANY_SIZE)
        yield _many(bench, field, ", over TLS")
    with _clusters_over_tls(bench, "huge", certificate) as (plain, field):
        fill_in_parts(plain, HUGE_SIZE, HUGE_PART)
        yield _huge(bench, field, ", over TLS")


def server_side(bench: Bench) -> Iterator[Result]:
    with rgw.serve(bench.folder("here")) as here:
        fill(here, LOCAL_OBJECTS, LOCAL_SIZE)
        field = Field(here=here, there=here, target=Targets(here), work=LOCAL_OBJECTS)
        peers = [
            *map(field.ours, bench.ours),
            field.rclone(),
            field.rclone("--transfers", "32", "--checkers", "32"),
            field.s5cmd("cp", note="compares nothing, neither before nor after"),
        ]
        alternate(peers, bench.runs)
        slow = [field.aws_sync()]
        alternate(slow, 1)
        title = f"{LOCAL_OBJECTS:,} objects of {LOCAL_SIZE // 1024} KiB within one Ceph RGW, copied by the server"
        yield Result("server-side", title, "objects", [*peers, *slow])


@contextmanager
def _clusters(bench: Bench) -> Iterator[Field]:
    """Two Ceph clusters; the caller fills the source and says how much work it is."""
    with rgw.serve(bench.folder("here")) as here, rgw.serve(bench.folder("there")) as there:
        state = bench.scratch / "there"
        yield Field(here=here, there=there, target=Targets(there, lambda: collect_garbage(state)), work=0)


@contextmanager
def _clusters_over_tls(bench: Bench, name: str, certificate: tuple[Path, Path]) -> Iterator[tuple[Endpoint, Field]]:
    """The same over TLS; the first of what it gives is for filling the source."""
    here_state, there_state = bench.folder(f"{name}-here"), bench.folder(f"{name}-there")
    with (
        serve_over_tls(here_state, certificate) as (here, plain_here),
        serve_over_tls(there_state, certificate) as (there, plain_there),
    ):
        target = Targets(plain_there, lambda: collect_garbage(there_state))
        yield plain_here, Field(here=here, there=there, target=target, work=0, certificate=certificate[0])


def _missing_for_tls() -> str | None:
    return rgw.missing() or (None if shutil.which("openssl") else "openssl not found: apt-get install openssl")


@dataclass(frozen=True, slots=True)
class Case:
    """measure: see above. missing: what to install first, or None. about: for the help."""

    measure: Callable[[Bench], Iterator[Result]]
    missing: Callable[[], str | None]
    about: str


CASES = {
    "small": Case(small, rclone.missing, "many small objects between two in-memory servers"),
    "large": Case(large, rgw.missing, "one object of 256 MiB in parts between two Ceph clusters"),
    "noop": Case(noop, rclone.missing, "a million pairs that are in sync; 10 minutes"),
    "noop5m": Case(noop5m, rclone.missing, "five million of them, one run, few peers; LONG: 10 minutes"),
    "many": Case(many, rgw.missing, "64 objects of 16 MiB between two Ceph clusters; 3 minutes"),
    "huge": Case(huge, rgw.missing, "one object of 1 GiB in parts between two Ceph clusters; 3 minutes"),
    "tls": Case(tls, _missing_for_tls, "many and huge over TLS; LONG: 8 minutes"),
    "server-side": Case(server_side, rgw.missing, "small objects from bucket to bucket of one Ceph cluster"),
    "two-processes": Case(two_processes, rclone.missing, "small with two processes, and what the servers use"),
    "events": Case(events, moto.missing, "10,000 events through the Lambda's handler, beside a bulk run; 3 minutes"),
    "push": Case(push, rclone.missing, "a folder of 100,000 small files, pushed twice; 15 minutes"),
}
DEFAULT = ("small", "large", "noop", "server-side", "push")
