"""A folder and a bucket: the first push of everything, and a second one that finds nothing to do.

| peer                    | compares                                     | reads files in the second run |
|-------------------------|----------------------------------------------|-------------------------------|
| replicator push --mirror | ETag with the MD5 of the catalogue           | none                          |
| rclone sync             | size, and mtime of metadata (HEAD of each)   | none                          |
| rclone sync --checksum  | ETag with the MD5 of the file                | all                           |
| aws s3 sync             | size, which is older                         | none                          |
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tests.benchmarks.buckets import SOURCE, Targets
from tests.benchmarks.field import SCRIPTS, Field
from tests.benchmarks.measure import Bench, Peer, Prepared, alternate, run
from tests.benchmarks.tables import Result
from tests.benchmarks.tools import aws_cli
from tests.servers import Endpoint, rclone
from tests.servers.lab import boto_client

FILES, SIZE = 100_000, 1024
SHARE = 10
"""How much less the slowest peer is given: what is compared is the speed per file."""

RUNS = 3
AN_HOUR = 3600


@dataclass(frozen=True, slots=True)
class Pushed:
    """A folder on its way to buckets of an endpoint. state: of our catalogue."""

    field: Field
    folder: Path
    state: Path
    target: Callable[[], str]

    def ours(self, options: str = "") -> Peer:
        def prepare(_: int) -> Prepared:
            command = [str(SCRIPTS / "replicator"), "push", str(self.folder), self.target(), "--mirror"]
            there = self.field.there
            keys = {"ENDPOINT": there.url, "ACCESS_KEY_ID": there.access_key, "SECRET_ACCESS_KEY": there.secret_key}
            state = {"XDG_STATE_HOME": str(self.state)}
            return [*command, *shlex.split(options)], {f"TARGET_{name}": text for name, text in keys.items()} | state

        return Peer(f"replicator push --mirror {options}".strip(), prepare, self.field.work)

    def rclone(self, *options: str) -> Peer:
        def prepare(_: int) -> Prepared:
            command = [str(SCRIPTS / "rclone"), "--config", "/dev/null", "sync", str(self.folder)]
            return [*command, f"there:{self.target()}", *options], self.field.remotes()

        return Peer(" ".join(["rclone sync", *options]), prepare, self.field.work)

    def aws(self, note: str) -> Peer:
        def prepare(_: int) -> Prepared:
            command = [str(aws_cli()), "s3", "sync", "--delete", "--only-show-errors"]
            command += ["--endpoint-url", self.field.there.url, str(self.folder), f"s3://{self.target()}"]
            return command, self.field.aws()

        return Peer("aws s3 sync --delete", prepare, self.field.work, note)


def push(bench: Bench) -> Iterator[Result]:
    with rclone.serve(bench.folder("here")) as here, rclone.serve(bench.folder("there")) as there:
        field = Field(here=here, there=there, target=Targets(there), work=FILES)
        whole = Pushed(field, fill_folder(bench.scratch / "whole", FILES), bench.folder("state"), field.target)
        tenth = fill_folder(bench.scratch / "part", FILES // SHARE)
        part = replace(whole, field=replace(field, work=FILES // SHARE), folder=tenth)
        _fill_like(here, whole)
        wide = ("--transfers", "32", "--checkers", "32")
        peers = [*map(whole.ours, bench.ours), field.ours(), whole.rclone(*wide)]
        slow = [part.aws(f"on {FILES // SHARE:,} files")]
        alternate([*peers, *slow], min(bench.runs, RUNS), warm_up=False)
        title = f"first push of {FILES:,} files of {SIZE:,} bytes; migrate: the same from a server"
        yield Result("push", title, "files", [*peers, *slow], per_server=True)
        yield _again(bench, whole, part)


def _again(bench: Bench, whole: Pushed, part: Pushed) -> Result:
    """Nothing has changed since."""
    made = whole.target(), part.target()
    whole, part = replace(whole, target=lambda: made[0]), replace(part, target=lambda: made[1])
    for each in (whole.ours(), part.aws("")):
        run(*each.prepare(0))
    wide = ("--transfers", "32", "--checkers", "32")
    peers = [*map(whole.ours, bench.ours), whole.rclone("--checksum", *wide), whole.rclone("--size-only", *wide)]
    slow = [part.aws(f"on {FILES // SHARE:,} files")]
    alternate([*peers, *slow], min(bench.runs, RUNS), warm_up=False)
    return Result("push-again", f"second push of {FILES:,} files, nothing changed", "files", [*peers, *slow])


def fill_folder(folder: Path, files: int) -> Path:
    """So many files of an hour ago, in folders of 200."""
    then = time.time() - AN_HOUR
    for number in range(files):
        path = folder / f"{number // 200:04}" / f"{number:06}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(SIZE))
        os.utime(path, (then, then))
    return folder


def _fill_like(here: Endpoint, whole: Pushed) -> None:
    """Gives the server that is migrated from the same objects."""
    boto_client(here).create_bucket(Bucket=SOURCE)
    to_here = replace(whole, field=replace(whole.field, there=here), target=lambda: SOURCE)
    run(*to_here.ours().prepare(0))
