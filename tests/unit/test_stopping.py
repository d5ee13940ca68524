"""Runs that are told to stop: they end, and at the latest after so many seconds, whatever hangs or does not listen."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from replicator.bulk import processes
from replicator.cli import loop

ROOT = Path(__file__).parents[2]
PROMISED = 5.0
"""Seconds after which a run that was told to stop has ended, as people are told."""


def child(script):
    """A process that says "ready" when it may be stopped."""
    code = f"import sys; sys.path[:0] = {[str(ROOT), *sys.path]!r}\n" + textwrap.dedent(script)
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    return process


def ended(process, how=None):
    """Exit code and what it said, on stdout and stderr, after this signal."""
    try:
        if how is not None:
            process.send_signal(how)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    return process.returncode, out, err


RUN = """
import asyncio, contextlib
from replicator.cli import loop

loop.STOP_WITHIN = {within}
async def main():
    print("ready", flush=True)
    while True:
        with contextlib.suppress({swallowed}):
            await asyncio.Event().wait()
try:
    loop.run_async(main)
except KeyboardInterrupt:
    print("stopped", flush=True)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_told_to_stop_is_cancelled(how):
    code, out, err = ended(child(RUN.format(within=3600.0, swallowed="KeyError")), how)
    assert (code, out, err) == (0, "stopped\n", "")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_does_not_come_to_its_end_is_given_up(how):
    code, out, err = ended(child(RUN.format(within=0.1, swallowed="asyncio.CancelledError")), how)
    assert (code, out) == (130, "")
    (line,) = err.splitlines()
    assert line.startswith("replicator: interrupted; requests were left hanging")


SERVE = """
import asyncio
from replicator.cli import serve

serve.STOP_WITHIN = 0.1
async def main():
    ended = serve.end_on_sigterm()
    print("ready", flush=True)
    await ended.wait()
    print("told", flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


def test_a_server_that_does_not_come_to_its_end_is_given_up_which_is_well():
    code, out, err = ended(child(SERVE), signal.SIGTERM)
    assert (code, out, err) == (0, "told\n", "")


def test_workers_are_killed_before_the_run_is_given_up_and_that_is_done_in_the_time_that_was_promised():
    assert processes.STOP_WITHIN < loop.STOP_WITHIN < PROMISED


WORKERS = """
import os, signal
from contextlib import asynccontextmanager
from replicator.bulk.processes import fork_workers

class Idle:
    async def run(self, tasks):
        while await tasks() is not None:
            pass

@asynccontextmanager
async def open_worker(send):
    yield Idle()

with fork_workers(2, open_worker, None) as forked:
    workers = [one.process for one in forked]
    os.kill(workers[0].pid, signal.SIGSTOP)
    print("ready", flush=True)
print(workers[0].exitcode, workers[1].is_alive(), flush=True)
"""


def test_a_worker_that_does_not_listen_is_killed():
    code, out, err = ended(child(WORKERS))
    assert (code, err) == (0, "")
    assert out == f"{-signal.SIGKILL} False\n"
