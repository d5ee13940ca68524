"""A folder and a bucket, and `replicator push` between them, as people run it."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.runs import ROOT, SECONDS, run_command
from tests.servers import Endpoint
from tests.servers.lab import boto_client, new_bucket

WITHOUT_PRIVILEGES = () if os.geteuid() != 0 else ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
"""What a command begins with, for permissions to hold for root as well."""

LONG_AGO = 60.0
"""Seconds by which files are older than what a run takes for settled."""


def until(condition: Callable[[], object], seconds: float = SECONDS, step: float = 0.05) -> bool:
    """Whether it becomes true in that time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(step)
    return True


class Folder:
    """A folder that a test fills."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, name: str, data: bytes | None = None, *, age: float = LONG_AGO) -> Path:
        """A file with these bytes, or some of its own, that was last written so many seconds ago."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"data of {name}".encode() if data is None else data)
        when = time.time() - age
        os.utime(path, (when, when))
        return path

    def fill(self, count: int = 20) -> None:
        """So many files in three folders."""
        for number in range(count):
            self.write(f"dir {number % 3}/file {number:03}")

    def files(self) -> dict[str, bytes]:
        """Key to bytes of all regular files that do not vanish meanwhile."""
        found = {}
        for path in self.path.rglob("*"):
            with suppress(FileNotFoundError):
                if path.is_file() and not path.is_symlink():
                    found[path.relative_to(self.path).as_posix()] = path.read_bytes()
        return found

    def folders(self) -> set[str]:
        """All folders beneath it."""
        return {path.relative_to(self.path).as_posix() for path in self.path.rglob("*") if path.is_dir()}

    def snapshot(self) -> dict[bytes, tuple[object, ...]]:
        """All that can be told of everything in it, but for when it was last read."""
        found = {}
        for parent, folders, files in os.walk(os.fsencode(self.path)):
            for name in (b"", *folders, *files):
                path = os.path.join(parent, name)
                state = os.lstat(path)
                what: object = None
                if stat.S_ISLNK(state.st_mode):
                    what = os.readlink(path)
                elif stat.S_ISREG(state.st_mode):
                    what = hashlib.md5(Path(os.fsdecode(path)).read_bytes()).hexdigest()
                found[path] = (
                    *(state.st_mode, state.st_uid, state.st_size, state.st_nlink),
                    *(state.st_mtime_ns, state.st_ctime_ns, what),
                )
        return found


class Push:
    """The command from a folder to a bucket at any endpoint; its state is in a directory of its own.

    before: a command that runs it, as strace.
    """

    def __init__(self, scratch: Path, url: str, keys: tuple[str, str] = ("any", "any")) -> None:
        self.folder = Folder(scratch / "folder")
        self.folder.path.mkdir()
        self.state = scratch / "state"
        self.output = scratch / "output"
        self.target = "to"
        self.before: tuple[str, ...] = ()
        self.environment = {
            "PYTHONPATH": str(ROOT),
            "XDG_STATE_HOME": str(self.state),
            "AWS_ACCESS_KEY_ID": keys[0],
            "AWS_SECRET_ACCESS_KEY": keys[1],
            "TARGET_ENDPOINT": url,
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def command(self, *options: object) -> list[str]:
        """What to run; options that begin with a path replace folder and target."""
        words = [str(option) for option in options]
        given = bool(words) and not words[0].startswith("-")
        places = [] if given else [str(self.folder.path), self.target]
        return [*self.before, sys.executable, "-m", "replicator", "push", *places, *words]

    def variables(self, changes: dict[str, str]) -> dict[str, str]:
        return {**os.environ, **self.environment, **changes}

    def run(self, *options: object, seconds: float = SECONDS, **variables: str) -> subprocess.CompletedProcess[str]:
        """Runs it to its end."""
        return run_command(self.command(*options), self.variables(variables), seconds=seconds)

    def start(self, *options: object, **variables: str) -> subprocess.Popen[bytes]:
        """Starts it, in a session of its own. What it says is in `output`: nobody reads a pipe."""
        with self.output.open("ab") as output:
            return subprocess.Popen(
                self.command(*options),
                env=self.variables(variables),
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def said(self) -> str:
        """By what was started."""
        return self.output.read_text(errors="replace")


def end(process: subprocess.Popen[bytes]) -> None:
    """Kills it, with all that it started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class Bucket:
    """A new bucket of a real server."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.client = boto_client(endpoint)
        self.name = new_bucket(endpoint)

    def etags(self) -> dict[str, str]:
        """Key to ETag of all objects."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        return {entry["Key"]: entry["ETag"].strip('"') for page in pages for entry in page.get("Contents", [])}

    def objects(self) -> dict[str, bytes]:
        """Key to bytes of all objects."""
        return {key: self.client.get_object(Bucket=self.name, Key=key)["Body"].read() for key in self.etags()}

    def put(self, key: str, data: bytes = b"x") -> None:
        self.client.put_object(Bucket=self.name, Key=key, Body=data)


def push_to(scratch: Path, endpoint: Endpoint) -> tuple[Push, Bucket]:
    """A push to a new bucket of a real server."""
    bucket = Bucket(endpoint)
    push = Push(scratch, endpoint.url, (endpoint.access_key, endpoint.secret_key))
    push.target = f"s3://{bucket.name}"
    return push, bucket


def lines_of(path: Path) -> list[dict[str, object]]:
    """Of a report."""
    return [json.loads(line) for line in path.read_text().splitlines()]
