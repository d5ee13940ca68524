"""PostgreSQL: a cluster of its own, without fsync, which takes passwords only.

What is stored is lost when it stops, unless it is started again from the same directory.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from urllib.parse import quote

from tests.servers.base import HOST, Server, accepts, free_port, run_to_end, start, wait_until_ready

USER = "tester"
PASSWORD = "p@ss:w/rd?#%é"  # all that a URL would stumble over
ACCOUNT = "nobody"
SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "50",
    "password_encryption": "scram-sha-256",
}


def binaries() -> Path | None:
    """Where the newest PostgreSQL is; Debian keeps it out of PATH."""
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if places:
        return places[-1].parent
    found = shutil.which("postgres")
    return Path(found).parent if found else None


def missing() -> str | None:
    return None if binaries() else "postgres not found: apt-get install postgresql"


@dataclass(slots=True)
class Cluster:
    """A cluster on a port that stays the same when it is stopped and started again."""

    state: Path
    port: int
    server: Server | None = field(default=None, init=False)
    _numbers: Iterator[int] = field(default_factory=count, init=False)

    def start(self) -> None:
        command: list[str | Path] = [
            *_unprivileged(),
            _binary("postgres"),
            "-D",
            self.state / "data",
            "-p",
            str(self.port),
        ]
        command += [f"--{name}={value}" for name, value in SETTINGS.items()]
        self.server = start("postgres", command, state=self.state)
        try:
            wait_until_ready(self.server, self._answers)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Clients are thrown out. Idempotent."""
        if self.server is not None:
            self.server.stop(signal.SIGINT, patience=60.0)
            self.server = None

    def new_database(self, *, encoding: str = "UTF8") -> str:
        """Makes an empty database that sorts texts as people do, not by bytes; its name."""
        name = f"test_{next(self._numbers)}"
        sorts = "locale_provider icu icu_locale 'en-US'"
        self.run("postgres", f"create database {name} template template0 encoding '{encoding}' {sorts}")
        return name

    def url(self, database: str, *, user: str = USER, password: str = PASSWORD) -> str:
        return f"postgresql://{user}:{quote(password, safe='')}@{HOST}:{self.port}/{database}"

    def run(self, database: str, statement: str) -> str:
        """What psql prints."""
        command = [_binary("psql"), "-h", HOST, "-p", str(self.port), "-U", USER, "-d", database]
        command += ["-v", "ON_ERROR_STOP=1", "-qAtc", statement]
        return run_to_end(command, env={"PGPASSWORD": PASSWORD, "PGCLIENTENCODING": "UTF8"}, cwd=self.state)

    def _answers(self) -> bool:
        if not accepts(self.port):
            return False
        ready = [_binary("pg_isready"), "-q", "-h", HOST, "-p", str(self.port)]
        return subprocess.run(ready, check=False).returncode == 0


@contextmanager
def serve(state: Path) -> Iterator[Cluster]:
    """Not in `state` for root, whose directories the server, which must not be root's, cannot enter."""
    with ExitStack() as stack:
        place = state
        if os.geteuid() == 0:
            place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="postgres-")))
            shutil.chown(place, ACCOUNT)
        (place / "password").write_text(PASSWORD + "\n")
        (place / "password").chmod(0o644)
        words: list[str | Path] = [
            "-D",
            place / "data",
            "-U",
            USER,
            "--auth=scram-sha-256",
            f"--pwfile={place / 'password'}",
        ]
        words += ["--encoding=UTF8", "--locale=C", "--no-sync"]
        run_to_end([*_unprivileged(), _binary("initdb"), *words], cwd=place)
        cluster = Cluster(place, free_port())
        cluster.start()
        try:
            yield cluster
        finally:
            cluster.stop()


def _binary(name: str) -> str:
    folder = binaries()
    return str(folder / name) if folder else name


def _unprivileged() -> list[str]:
    """What a command begins with, so that it does not run as root: PostgreSQL refuses to."""
    if os.geteuid() != 0:
        return []
    return ["setpriv", f"--reuid={ACCOUNT}", "--init-groups", f"--regid={pwd.getpwnam(ACCOUNT).pw_gid}"]
