"""Child processes that are servers: start one, wait until it answers, stop it and all it has started.

A server leads a session of its own, so that a Ctrl-C meant for the tests does not reach it, and so that its
workers can be found and stopped with it. Nothing is ever stopped by name.
"""

from __future__ import annotations

import http.client
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

HOST = "127.0.0.1"
READY_SECONDS = 180.0
COMMAND_SECONDS = 600.0
POLL_SECONDS = 0.05
ANSWER_SECONDS = 10.0
STOP_SECONDS = 5.0
KILLED_SECONDS = 60.0
"""After which a process that was killed is held to survive it: on a busy machine that is no matter of a moment."""

LOWEST_PORT, OUTGOING_PORTS = 15_000, Path("/proc/sys/net/ipv4/ip_local_port_range")
_given: set[int] = set()


class ServerError(RuntimeError):
    """A server did not start or died; the message ends with what it wrote last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where a server answers, and the keys it accepts."""

    name: str
    url: str
    access_key: str
    secret_key: str = field(repr=False)
    region: str = "us-east-1"


@dataclass(frozen=True, slots=True)
class Server:
    """A running child process, leader of its session and process group."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def last_words(self, limit: int = 2000) -> str:
        return self.log.read_text(errors="replace")[-limit:].strip() or "(nothing)"

    def stop(self, how: signal.Signals = signal.SIGTERM, *, patience: float = STOP_SECONDS) -> None:
        """Ends the process and its group; what ignores `how` for too long is killed. Idempotent."""
        for sign, seconds in ((how, patience), (signal.SIGKILL, KILLED_SECONDS)):
            if not self._group_lives():
                return
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, sign)
            if _becomes_true(lambda: not self._group_lives(), seconds=seconds):
                return
        raise ServerError(f"{self.name} (process {self.process.pid}) survives SIGKILL")

    def _group_lives(self) -> bool:
        return self.alive or bool(_living_members(self.process.pid))


def free_ports(count: int) -> list[int]:
    """Different ports that nobody listens on now, and that this process was not given before.

    None of those that the system gives to outgoing connections: one of these may take a port before its server does,
    or while that is stopped, and connect to itself where nobody listens.
    """
    ports: list[int] = []
    with ExitStack() as held:
        while len(ports) < count:
            port = random.SystemRandom().randrange(LOWEST_PORT, _first_outgoing_port())
            one = held.enter_context(socket.socket())
            with suppress(OSError):
                one.bind((HOST, port))
                if port not in _given:
                    ports.append(port)
                    _given.add(port)
    return ports


def free_port() -> int:
    return free_ports(1)[0]


def _first_outgoing_port() -> int:
    try:
        first = int(OUTGOING_PORTS.read_text().split()[0])
    except OSError:
        first = 0
    return first if first > LOWEST_PORT + 1000 else 32_768


@contextmanager
def running(
    name: str,
    command: Sequence[str | Path],
    *,
    state: Path,
    ready: Callable[[], bool],
    env: Mapping[str, str] | None = None,
    stop_with: signal.Signals = signal.SIGTERM,
    seconds: float = READY_SECONDS,
) -> Iterator[Server]:
    """Runs `command` as long as the block does, which begins when `ready()` says so.

    Raises ServerError if the process ends before that, or `seconds` pass.
    """
    server = start(name, command, state=state, env=env)
    try:
        wait_until_ready(server, ready, seconds=seconds)
        yield server
    finally:
        server.stop(stop_with)


def start(name: str, command: Sequence[str | Path], *, state: Path, env: Mapping[str, str] | None = None) -> Server:
    """Starts `command` with its output in `state`/NAME.log; the caller stops it."""
    log = state / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            cwd=state,
            start_new_session=True,
        )
    return Server(name, process, log)


def wait_until_ready(server: Server, ready: Callable[[], bool], *, seconds: float = READY_SECONDS) -> None:
    if _becomes_true(lambda: not server.alive or ready(), seconds=seconds) and server.alive:
        return
    what = f"does not answer after {seconds:.0f} s" if server.alive else "ended while starting"
    raise ServerError(f"{server.name} {what}; its last words:\n{server.last_words()}")


def run_to_end(command: Sequence[str | Path], *, env: Mapping[str, str] | None = None, cwd: Path) -> str:
    """Runs a short command and returns what it printed; ServerError if it fails."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **(env or {})},
        cwd=cwd,
        timeout=COMMAND_SECONDS,
        check=False,
    )
    said = done.stdout.decode(errors="replace")
    if done.returncode != 0:
        raise ServerError(f"{' '.join(words[:3])} ... failed ({done.returncode}): {said[-2000:].strip()}")
    return said


def http_answers(port: int, path: str = "/", *, expect: int | None = None) -> bool:
    """Whether an HTTP server answers on `port`, with status `expect` if one is given."""
    connection = http.client.HTTPConnection(HOST, port, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", path)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return expect is None or status == expect


def accepts(port: int) -> bool:
    """Whether anything accepts connections on `port`."""
    try:
        socket.create_connection((HOST, port), timeout=ANSWER_SECONDS).close()
    except OSError:
        return False
    return True


def _becomes_true(condition: Callable[[], bool], *, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def _living_members(session: int) -> list[int]:
    """The processes of a session, less its zombies.

    An orphaned worker is reaped by process 1, in a container late or never: dead but not reaped is dead.
    Without /proc only the leader is watched.
    """
    members = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The second field, the program's name in parentheses, may hold spaces and parentheses itself.
            state, _parent, _group, its_session = stat.read_text(errors="replace").rpartition(")")[2].split()[:4]
        except (OSError, ValueError):  # it ended while we looked
            continue
        if int(its_session) == session and state not in "ZX":
            members.append(int(stat.parent.name))
    return members
