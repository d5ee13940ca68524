"""Several worker processes, as a person meets them: they share the work, end together, and may die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.fakes.grudging_s3 import LONG_AGO, SLOW_DOWN
from tests.fakes.watched_s3 import watched
from tests.runs import variables_between

SECONDS = 30
AT_ONCE = 5.0
"""Seconds within which an interrupted run has ended."""
INTERRUPTED = "replicator: interrupted"
KEYS = [f"{n:05}" for n in range(6000)]
LAST = KEYS[4500]
"""A key in the fifth page of six."""
SLOW = {KEYS[1500]: 0.8, KEYS[5600]: 1.2, KEYS[5601]: 2.2}
"""Seconds after which a target takes these: the first ends its page, the others come when commits are due."""


def command(*options, processes=2):
    words = ["migrate", "from", "to", "--processes", processes, *options]
    return [sys.executable, "-m", "replicator", *map(str, words)]


def migrate(source, target, *options, processes=2):
    """A run to its end."""
    return subprocess.run(
        command(*options, processes=processes),
        env=variables_between(source.url, target.url),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


@contextmanager
def started(source, target, *options, processes=2, stdin=None):
    """A run that goes on while the block runs, leader of its process group; nothing of it is left after the block."""
    process = subprocess.Popen(
        command(*options, processes=processes),
        env=variables_between(source.url, target.url),
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def children(process):
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def lives(pid):
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def becomes_true(condition, seconds=SECONDS):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.02)
    return False


def fill(server, keys=KEYS[:300]):
    server.objects = {key: key.encode() for key in keys}


def fill_copy(server, keys):
    """As an earlier run would have left it."""
    fill(server, keys)
    server.written = dict.fromkeys(keys, LONG_AGO + 86400)


class Held:
    """Answers no PUT of these keys (of any, if there are none) until it is let go, and then takes none that waited.

    came: the first of them did.
    """

    def __init__(self, *keys):
        self.keys = keys
        self.came, self.free = threading.Event(), threading.Event()

    def __call__(self, asked):
        mine = asked.method == "PUT" and (not self.keys or asked.key in self.keys)
        if not mine or self.free.is_set():
            return None
        self.came.set()
        self.free.wait(SECONDS)
        return 503, SLOW_DOWN, {}


@contextmanager
def holding(*keys):
    held = Held(*keys)
    try:
        yield held
    finally:
        held.free.set()


@contextmanager
def cut_off():
    """A target that lacks four objects: it takes three of them after a while, LAST not at all until it is let go."""

    def takes(asked):
        if asked.method == "PUT" and asked.key in SLOW:
            time.sleep(SLOW[asked.key])
            return None
        return held(asked)

    with holding(LAST) as held, watched() as source, watched(takes) as target:
        fill(source, KEYS)
        fill_copy(target, KEYS)
        for key in (*SLOW, LAST):
            del target.objects[key]
        yield held, source, target


def wait_until_written_down(held):
    """Until all is done but for one object, and that has been committed."""
    assert held.came.wait(SECONDS)
    time.sleep(max(SLOW.values()) + 0.4)


def slowly(asked):
    """An object written takes a while, so that a run can be met in its midst."""
    if asked.method == "PUT" and asked.key:
        time.sleep(0.05)


# All goes well


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_any_number_of_processes_copies_all(processes):
    with watched() as source, watched() as target:
        fill(source, KEYS[:700])
        done = migrate(source, target, processes=processes)
        assert (done.returncode, done.stderr) == (0, "")
        assert target.objects == source.objects
        assert sorted(target.of("PUT")) == KEYS[:700]  # each once


def test_two_processes_share_one_listing_between_them():
    def leisurely(asked):
        if asked.page is not None:
            time.sleep(0.15)

    with watched(leisurely) as source, watched() as target:
        fill(source, KEYS)
        fill_copy(target, [key for key in KEYS if not key.endswith("77")])
        with started(source, target) as process:
            assert becomes_true(lambda: len(children(process)) == 2)
            workers = children(process)
            assert becomes_true(lambda: target.of("PUT"))
            assert all(lives(pid) for pid in workers)
            out, err = process.communicate(timeout=SECONDS)
        assert (process.returncode, err) == (0, ""), out
        assert not [pid for pid in workers if lives(pid)]
        assert target.objects == source.objects
        cuts = {one.page for one in source.log if one.page is not None and "start-after" in one.query}
        assert len(cuts) >= 1  # the listing was begun in the middle, too


def test_one_process_starts_no_other():
    with holding() as held, watched() as source, watched(held) as target:
        fill(source)
        with started(source, target, processes=1) as process:
            assert held.came.wait(SECONDS)
            assert children(process) == []


# Interrupted


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize(
    ("how", "whom"), [(signal.SIGINT, "parent"), (signal.SIGINT, "group"), (signal.SIGTERM, "parent")]
)
def test_a_signal_ends_a_run_in_time_even_if_the_target_hangs(tmp_path, how, whom, processes):
    with holding() as held, watched() as source, watched(held) as target:
        fill(source)
        state = tmp_path / "state"
        with started(source, target, "--state", state, processes=processes) as process:
            assert held.came.wait(SECONDS)
            workers = children(process)
            assert len(workers) == (processes if processes > 1 else 0)
            began = time.monotonic()
            (os.killpg if whom == "group" else os.kill)(process.pid, how)
            out, err = process.communicate(timeout=SECONDS)
            took = time.monotonic() - began
            assert not [pid for pid in workers if lives(pid)]
        assert (process.returncode, out) == (130, ""), err
        assert took < AT_ONCE
        (line,) = err.strip().splitlines()
        assert line.startswith(INTERRUPTED)
        held.free.set()
        done = migrate(source, target, "--state", state, processes=processes)
        assert (done.returncode, done.stderr) == (0, "")
        assert target.objects == source.objects


@pytest.mark.parametrize("processes", [1, 2])
def test_a_source_that_hangs_while_it_lists_does_not_hold_up_the_end(processes):
    came, free = threading.Event(), threading.Event()

    def hangs(asked):
        if asked.page:
            came.set()
            free.wait(SECONDS)

    with watched(hangs) as source, watched() as target:
        fill(source, KEYS[:1500])
        with started(source, target, processes=processes) as process:
            assert came.wait(SECONDS)
            workers = children(process)
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=SECONDS)
            assert time.monotonic() - began < AT_ONCE
            assert not [pid for pid in workers if lives(pid)]
        free.set()
    assert (process.returncode, out) == (130, ""), err
    (line,) = err.strip().splitlines()
    assert line.startswith(INTERRUPTED)


def test_an_endpoint_that_hangs_before_anything_is_done_does_not_hold_up_the_end():
    came, free = threading.Event(), threading.Event()

    def hangs(_):
        came.set()
        free.wait(SECONDS)

    with watched() as source, watched(hangs) as target:
        fill(source)
        with started(source, target) as process:
            assert came.wait(SECONDS)
            workers = children(process)
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=SECONDS)
            assert time.monotonic() - began < AT_ONCE
            assert not [pid for pid in workers if lives(pid)]
        free.set()
    assert (process.returncode, out) == (130, ""), err
    (line,) = err.strip().splitlines()
    assert line.startswith(INTERRUPTED)


def test_a_list_of_keys_that_never_ends_does_not_hold_up_the_end():
    with watched() as source, watched() as target:
        fill(source)
        with started(source, target, "--keys", "-", stdin=subprocess.PIPE) as process:
            assert becomes_true(lambda: len(children(process)) == 2 and len(target.log) > 0)
            workers = children(process)
            time.sleep(0.3)
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            assert process.wait(SECONDS) == 130
            assert time.monotonic() - began < AT_ONCE
            assert becomes_true(lambda: not [pid for pid in workers if lives(pid)], 1)
            assert "Traceback" not in process.stderr.read()


def test_a_worker_that_does_not_listen_does_not_hold_up_the_end():
    with holding() as held, watched() as source, watched(held) as target:
        fill(source)
        with started(source, target) as process:
            assert held.came.wait(SECONDS)
            workers = children(process)
            os.kill(workers[0], signal.SIGSTOP)
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=SECONDS)
            assert time.monotonic() - began < AT_ONCE
            assert not [pid for pid in workers if lives(pid)]
    assert (process.returncode, out) == (130, ""), err


def test_a_second_signal_adds_nothing():
    with holding() as held, watched() as source, watched(held) as target:
        fill(source)
        with started(source, target) as process:
            assert held.came.wait(SECONDS)
            workers = children(process)
            for _ in range(3):
                os.killpg(process.pid, signal.SIGINT)
                time.sleep(0.03)
            out, err = process.communicate(timeout=SECONDS)
            assert not [pid for pid in workers if lives(pid)]
    assert process.returncode in (130, -signal.SIGINT)  # both are 130 to a shell: the last one may come at the very end
    assert out == ""
    (line,) = err.strip().splitlines()
    assert line.startswith(INTERRUPTED)


# Gone on with


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_goes_on_does_not_list_again_what_is_done(tmp_path, processes, how):
    options = ("--state", tmp_path / "state")
    with cut_off() as (held, source, target):
        with started(source, target, *options, processes=processes) as process:
            wait_until_written_down(held)
            process.send_signal(how)
            process.communicate(timeout=SECONDS)
        assert process.returncode == (130 if how == signal.SIGINT else -9)
        held.free.set()
        before = len(source.log)
        done = migrate(source, target, *options, processes=processes)
        assert (done.returncode, done.stderr) == (0, "")
        assert target.objects == source.objects
        asked = source.log[before:]
        read = next(n for n, one in enumerate(asked) if (one.method, one.key) == ("GET", LAST))
        listed = [one.page for one in asked[:read] if one.page is not None]
        assert listed
        assert min(listed) >= KEYS[3000], listed  # the fifth page of six was not done, and perhaps the one before
        assert not list(tmp_path.glob("state-*"))


def test_a_run_that_has_ended_leaves_a_state_for_a_run_from_the_start(tmp_path):
    options = ("--state", tmp_path / "state")
    with watched() as source, watched() as target:
        fill(source)
        assert migrate(source, target, *options).returncode == 0
        target.objects.pop(KEYS[7])
        done = migrate(source, target, *options)
        assert done.returncode == 0, done.stderr
        assert target.objects == source.objects


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_the_report_of_a_run_that_goes_on_has_every_object(tmp_path, how):
    report = tmp_path / "report.jsonl"
    options = ("--state", tmp_path / "state", "--report", report)
    with cut_off() as (held, source, target):
        with started(source, target, *options) as process:
            wait_until_written_down(held)
            process.send_signal(how)
            process.communicate(timeout=SECONDS)
        held.free.set()
        before = report.read_text()
        assert migrate(source, target, *options).returncode == 0
    assert report.read_text().startswith(before)
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    assert {line["key"] for line in lines} == set(KEYS)


def test_the_report_of_a_new_run_replaces_the_old_one(tmp_path):
    report = tmp_path / "report.jsonl"
    with watched() as source, watched() as target:
        fill(source, KEYS[:3])
        for _ in range(2):
            assert migrate(source, target, "--state", tmp_path / "state", "--report", report).returncode == 0
    assert [json.loads(line)["action"] for line in report.read_text().splitlines()] == ["in sync"] * 3


# Killed


def test_a_run_survives_the_death_of_one_worker():
    with watched() as source, watched(slowly) as target:
        fill(source, KEYS[:2500])
        fill_copy(target, KEYS[:1900])
        with started(source, target) as process:
            assert becomes_true(lambda: len(target.of("PUT")) > 50)
            victim, _ = children(process)
            os.kill(victim, signal.SIGKILL)
            out, err = process.communicate(timeout=SECONDS)
        assert (process.returncode, err) == (0, ""), out
        assert target.objects == source.objects
        assert "passes    2\n" in out  # what the dead one had was done by the other one, not by a later pass


def test_no_key_of_a_list_is_forgotten_when_a_worker_dies(tmp_path):
    (tmp_path / "keys").write_text("\n".join(KEYS[:1000]))
    with watched() as source, watched(slowly) as target:
        fill(source, KEYS[:1000])
        with started(source, target, "--keys", tmp_path / "keys") as process:
            assert becomes_true(lambda: len(target.of("PUT")) > 50)
            os.kill(children(process)[0], signal.SIGKILL)
            out, err = process.communicate(timeout=SECONDS)
        assert (process.returncode, err) == (0, ""), out
        assert target.objects == source.objects


@pytest.mark.parametrize("which", [0, 1])
def test_a_run_survives_that_a_worker_dies_while_it_deletes(which):
    def slow_deletes(asked):
        if asked.method == "DELETE":
            time.sleep(0.05)

    with watched() as source, watched(slow_deletes) as target:
        fill(source, KEYS[:500])
        fill_copy(target, KEYS[:2500])
        with started(source, target, "--delete", "--max-delete", "2000", "--concurrency", "128") as process:
            assert becomes_true(lambda: len(target.of("DELETE")) > 50)
            os.kill(children(process)[which], signal.SIGKILL)
            out, err = process.communicate(timeout=SECONDS)
        assert (process.returncode, err) == (0, ""), out
        assert target.objects == source.objects


def test_a_run_whose_workers_are_all_killed_says_so_and_can_go_on(tmp_path):
    state = tmp_path / "state"
    with cut_off() as (held, source, target):
        with started(source, target, "--state", state) as process:
            assert held.came.wait(SECONDS)
            time.sleep(0.4)  # less than what passes between two commits
            for pid in children(process):
                os.kill(pid, signal.SIGKILL)
            out, err = process.communicate(timeout=SECONDS)
        assert (process.returncode, out) == (1, ""), err
        (line,) = err.splitlines()
        assert line.startswith("replicator: no worker is left")
        assert "signal 9" in line
        assert "run it again" in line
        held.free.set()
        before = len(source.log)
        done = migrate(source, target, "--state", state)
        assert (done.returncode, done.stderr) == (0, "")
        assert target.objects == source.objects
        asked = source.log[before:]
        read = next(n for n, one in enumerate(asked) if (one.method, one.key) == ("GET", LAST))
        assert min(one.page for one in asked[:read] if one.page is not None) >= KEYS[999]  # the first page was done


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGHUP])
def test_workers_do_not_outlive_a_parent_that_is_killed(how):
    with holding() as held, watched() as source, watched(held) as target:
        fill(source)
        with started(source, target) as process:
            assert held.came.wait(SECONDS)
            workers = children(process)
            assert len(workers) == 2
            process.send_signal(how)
            process.wait(SECONDS)
            assert becomes_true(lambda: not [pid for pid in workers if lives(pid)], 4)
            assert "Traceback" not in process.stderr.read()


# The file of --state


def test_of_two_runs_at_once_on_one_state_the_second_is_refused(tmp_path):
    state = tmp_path / "state"
    with holding() as held, watched() as source, watched(held) as target:
        fill(source)
        with started(source, target, "--state", state) as process:
            assert held.came.wait(SECONDS)
            puts = len(target.of("PUT"))
            second = migrate(source, target, "--state", state)
            assert (second.returncode, second.stdout) == (2, "")
            (line,) = second.stderr.splitlines()
            assert str(state) in line
            assert "in use by another run" in line
            assert len(target.of("PUT")) <= puts + 128  # what the first one may have begun since
            held.free.set()
            out, err = process.communicate(timeout=SECONDS)
        assert (process.returncode, err) == (0, ""), out
        assert target.objects == source.objects


@pytest.mark.parametrize("other", [["--delete"], ["--exclude", "*.tmp"], ["--deep"], ["other"]])
def test_the_state_of_another_unfinished_run_is_refused(tmp_path, other):
    state = tmp_path / "state"
    with holding() as held, watched() as source, watched(held) as target:
        fill(source)
        with started(source, target, "--state", state) as process:
            assert held.came.wait(SECONDS)
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=SECONDS)
        time.sleep(0.3)  # for what was on its way
        written = len(target.of("PUT"))
        done = migrate(source, target, "--state", state, *other)
        assert (done.returncode, done.stdout) == (2, "")
        (line,) = done.stderr.splitlines()
        assert str(state) in line
        assert "s3://from/" in line
        assert "s3://to/" in line
        assert len(target.of("PUT")) == written
        held.free.set()
        assert migrate(source, target, "--state", state).returncode == 0


@pytest.mark.parametrize("kind", ["missing directory", "a directory", "some text", "another database"])
def test_a_state_that_cannot_be_used_is_named(tmp_path, kind):
    state = tmp_path / "state"
    if kind == "missing directory":
        state = state / "file"
    elif kind == "a directory":
        state.mkdir()
    elif kind == "some text":
        state.write_text("my diary\n" * 100)
    else:
        subprocess.run(
            [sys.executable, "-c", f"import sqlite3; sqlite3.connect({str(state)!r}).execute('create table x (y)')"],
            check=True,
        )
    content = state.read_bytes() if state.is_file() else None
    with watched() as source, watched() as target:
        fill(source, KEYS[:3])
        done = migrate(source, target, "--state", state)
        assert (done.returncode, done.stdout) == (2, "")
        (line,) = done.stderr.splitlines()
        assert "--state" in line
        assert str(state) in line
        assert target.objects == {}
    assert (state.read_bytes() if state.is_file() else None) == content


@pytest.mark.parametrize("number", ["0", "-1", "257", "two", ""])
def test_a_bad_number_of_processes_is_named(number):
    with watched() as source, watched() as target:
        done = migrate(source, target, processes=number)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert "--processes" in line
