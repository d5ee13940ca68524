"""Several worker processes, as a person meets them: they share the work, end together, and may die."""

from __future__ import annotations

import http.client
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from replicator.bulk.engine import COMMIT_EVERY
from tests.fakes.grudging_s3 import LONG_AGO, SLOW_DOWN
from tests.fakes.watched_s3 import watched
from tests.pushes import until
from tests.runs import SECONDS, children, lives, run_command, variables_between, without_progress

INTERRUPTED = "replicator: interrupted"
KEYS = [f"{n:05}" for n in range(6000)]
LAST = KEYS[4500]
"""A key in the fifth page of six."""
OTHERS = [KEYS[1500], *KEYS[5600:5630]]
"""Keys that a target takes one by one, as it is told to: the first ends its page, the others come when commits are due.
"""


def command(*options, processes=2):
    words = ["migrate", "from", "to", "--processes", processes, *options]
    return [sys.executable, "-m", "replicator", *map(str, words)]


def migrate(source, target, *options, processes=2):
    """A run to its end."""
    return run_command(command(*options, processes=processes), variables_between(source.url, target.url))


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


def said_by(process):
    """What it has said at its end, on stdout and stderr."""
    out, err = process.communicate(timeout=2 * SECONDS)
    return out, without_progress(err)


def all_end(workers):
    return until(lambda: not [pid for pid in workers if lives(pid)], SECONDS)


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
        self.free.wait()
        return 503, SLOW_DOWN, {}


@contextmanager
def holding(*keys):
    held = Held(*keys)
    try:
        yield held
    finally:
        held.free.set()


class Midst:
    """Answers some requests of a method, and all the others when it is let go: a run is met there in its midst.

    came: it is there.
    """

    def __init__(self, method, count=50):
        self.method, self.left = method, count
        self.came, self.free = threading.Event(), threading.Event()
        self._lock = threading.Lock()

    def __call__(self, asked):
        if asked.method == self.method and asked.key:
            with self._lock:
                self.left -= 1
                over = self.left < 0
            if over:
                self.came.set()
                self.free.wait()


@contextmanager
def in_the_midst_of(method):
    midst = Midst(method)
    try:
        yield midst
    finally:
        midst.free.set()


class CutOff:
    """A target that takes LAST not at all until it is let go, and each of OTHERS when it is told to."""

    def __init__(self):
        self.held, self.wanted = Held(LAST), {key: threading.Event() for key in OTHERS}

    def __call__(self, asked):
        if asked.method == "PUT" and asked.key in self.wanted:
            self.wanted[asked.key].wait()
        return self.held(asked)

    def let_go(self):
        self.held.free.set()
        for one in self.wanted.values():
            one.set()

    def wait_until_written_down(self, state):
        """Until the fifth page of six is the first that is not done, and that has been committed."""
        assert self.held.came.wait(SECONDS)
        for one in self.wanted.values():  # a commit comes when one is due and a worker has something to tell
            one.set()
            if until(lambda: written_down(state) >= KEYS[3000], COMMIT_EVERY + 0.2):
                return
        raise AssertionError("it was not written down")


@contextmanager
def cut_off():
    """Such a target, its source, and what it is told by."""
    cut = CutOff()
    try:
        with watched() as source, watched(cut) as target:
            fill(source, KEYS)
            fill_copy(target, KEYS)
            for key in (*OTHERS, LAST):
                del target.objects[key]
            yield cut, source, target
    finally:
        cut.let_go()


def written_down(state):
    """The key up to which everything is done, as a run would find it that went on from this state now; "" if unknown.

    Its file is locked for as long as a run uses it: a copy is looked at.
    """
    files = [Path(f"{state}{suffix}") for suffix in ("", "-journal")]
    first, second = ([file.read_bytes() if file.exists() else b"" for file in files] for _ in range(2))
    if first != second:
        return ""
    copy = state.with_name("copy of the state")
    for suffix, data in zip(("", "-journal"), first, strict=True):
        Path(f"{copy}{suffix}").write_bytes(data)
    try:
        with closing(sqlite3.connect(copy)) as database:
            return min(bytes(after).decode() for (after,) in database.execute("select after from ranges"))
    except (sqlite3.Error, ValueError):
        return ""


def all_requests_came(server):
    """Whether nothing is on its way any more from a process that has ended."""
    with closing(http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=SECONDS)) as last_in_the_queue:
        last_in_the_queue.request("GET", "/bucket/key")
        last_in_the_queue.getresponse().read()
    return until(lambda: server.connections() == 0, SECONDS)


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
    in_the_middle = threading.Event()

    def waits_for_the_other(asked):
        if asked.page is not None and "start-after" in asked.query:
            in_the_middle.set()
        elif asked.page is not None and asked.page >= KEYS[1999]:
            in_the_middle.wait(SECONDS)

    with holding() as held, watched(waits_for_the_other) as source, watched(held) as target:
        fill(source, KEYS)
        fill_copy(target, [key for key in KEYS if not key.endswith("77")])
        with started(source, target) as process:
            assert held.came.wait(SECONDS)
            workers = children(process)
            assert len(workers) == 2
            assert all(lives(pid) for pid in workers)
            held.free.set()
            out, err = said_by(process)
        assert (process.returncode, err) == (0, ""), out
        assert all_end(workers)
        assert target.objects == source.objects
        assert in_the_middle.is_set()  # the listing was begun there, too


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
def test_a_signal_ends_a_run_even_if_the_target_hangs(tmp_path, how, whom, processes):
    with holding() as held, watched() as source, watched(held) as target:
        fill(source)
        state = tmp_path / "state"
        with started(source, target, "--state", state, processes=processes) as process:
            assert held.came.wait(SECONDS)
            workers = children(process)
            assert len(workers) == (processes if processes > 1 else 0)
            (os.killpg if whom == "group" else os.kill)(process.pid, how)
            out, err = said_by(process)
            assert all_end(workers)
        assert (process.returncode, out) == (130, ""), err
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
            free.wait()

    with watched(hangs) as source, watched() as target:
        fill(source, KEYS[:1500])
        with started(source, target, processes=processes) as process:
            assert came.wait(SECONDS)
            workers = children(process)
            process.send_signal(signal.SIGINT)
            out, err = said_by(process)
            assert all_end(workers)
        free.set()
    assert (process.returncode, out) == (130, ""), err
    (line,) = err.strip().splitlines()
    assert line.startswith(INTERRUPTED)


def test_an_endpoint_that_hangs_before_anything_is_done_does_not_hold_up_the_end():
    came, free = threading.Event(), threading.Event()

    def hangs(_):
        came.set()
        free.wait()

    with watched() as source, watched(hangs) as target:
        fill(source)
        with started(source, target) as process:
            assert came.wait(SECONDS)
            workers = children(process)
            process.send_signal(signal.SIGTERM)
            out, err = said_by(process)
            assert all_end(workers)
        free.set()
    assert (process.returncode, out) == (130, ""), err
    (line,) = err.strip().splitlines()
    assert line.startswith(INTERRUPTED)


def test_a_list_of_keys_that_never_ends_does_not_hold_up_the_end():
    with watched() as source, watched() as target:
        fill(source)
        with started(source, target, "--keys", "-", stdin=subprocess.PIPE) as process:
            assert until(lambda: len(children(process)) == 2 and len(target.log) > 0, SECONDS)
            workers = children(process)
            process.send_signal(signal.SIGINT)
            assert process.wait(SECONDS) == 130
            assert all_end(workers)
            assert "Traceback" not in process.stderr.read()


def test_a_worker_that_does_not_listen_does_not_hold_up_the_end():
    """That it is killed is in tests/unit/test_stopping.py: here the run may give up before, on a busy machine."""
    with holding() as held, watched() as source, watched(held) as target:
        fill(source)
        with started(source, target) as process:
            assert held.came.wait(SECONDS)
            workers = children(process)
            os.kill(workers[0], signal.SIGSTOP)
            process.send_signal(signal.SIGTERM)
            assert process.wait(SECONDS) == 130
            with suppress(ProcessLookupError):
                os.kill(workers[0], signal.SIGCONT)
            out, err = said_by(process)
            assert all_end(workers)
    assert out == "", err


def test_a_second_signal_adds_nothing():
    with holding() as held, watched() as source, watched(held) as target:
        fill(source)
        with started(source, target) as process:
            assert held.came.wait(SECONDS)
            workers = children(process)
            for _ in range(3):
                os.killpg(process.pid, signal.SIGINT)
                time.sleep(0.03)
            out, err = said_by(process)
            assert all_end(workers)
    assert process.returncode in (130, -signal.SIGINT)  # both are 130 to a shell: the last one may come at the very end
    assert out == ""
    (line,) = err.strip().splitlines()
    assert line.startswith(INTERRUPTED)


# Gone on with


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_goes_on_does_not_list_again_what_is_done(tmp_path, processes, how):
    options = ("--state", tmp_path / "state")
    with cut_off() as (cut, source, target):
        with started(source, target, *options, processes=processes) as process:
            cut.wait_until_written_down(tmp_path / "state")
            process.send_signal(how)
            process.communicate(timeout=SECONDS)
        assert process.returncode == (130 if how == signal.SIGINT else -9)
        cut.let_go()
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
    with cut_off() as (cut, source, target):
        with started(source, target, *options) as process:
            cut.wait_until_written_down(tmp_path / "state")
            process.send_signal(how)
            process.communicate(timeout=SECONDS)
        cut.let_go()
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
    with in_the_midst_of("PUT") as midst, watched() as source, watched(midst) as target:
        fill(source, KEYS[:2500])
        fill_copy(target, KEYS[:1900])
        with started(source, target) as process:
            assert midst.came.wait(SECONDS)
            victim, _ = children(process)
            os.kill(victim, signal.SIGKILL)
            midst.free.set()
            out, err = said_by(process)
        assert (process.returncode, err) == (0, ""), out
        assert target.objects == source.objects
        assert "passes    2\n" in out  # what the dead one had was done by the other one, not by a later pass


def test_no_key_of_a_list_is_forgotten_when_a_worker_dies(tmp_path):
    (tmp_path / "keys").write_text("\n".join(KEYS[:1000]))
    with in_the_midst_of("PUT") as midst, watched() as source, watched(midst) as target:
        fill(source, KEYS[:1000])
        with started(source, target, "--keys", tmp_path / "keys") as process:
            assert midst.came.wait(SECONDS)
            os.kill(children(process)[0], signal.SIGKILL)
            midst.free.set()
            out, err = said_by(process)
        assert (process.returncode, err) == (0, ""), out
        assert target.objects == source.objects


@pytest.mark.parametrize("which", [0, 1])
def test_a_run_survives_that_a_worker_dies_while_it_deletes(which):
    with in_the_midst_of("DELETE") as midst, watched() as source, watched(midst) as target:
        fill(source, KEYS[:500])
        fill_copy(target, KEYS[:2500])
        with started(source, target, "--delete", "--max-delete", "2000", "--concurrency", "128") as process:
            assert midst.came.wait(SECONDS)
            os.kill(children(process)[which], signal.SIGKILL)
            midst.free.set()
            out, err = said_by(process)
        assert (process.returncode, err) == (0, ""), out
        assert target.objects == source.objects


def test_a_run_whose_workers_are_all_killed_says_so_and_can_go_on(tmp_path):
    state = tmp_path / "state"
    with cut_off() as (cut, source, target):
        with started(source, target, "--state", state) as process:
            cut.wait_until_written_down(state)
            for pid in children(process):
                os.kill(pid, signal.SIGKILL)
            out, err = said_by(process)
        assert (process.returncode, out) == (1, ""), err
        (line,) = err.splitlines()
        assert line.startswith("replicator: no worker is left")
        assert "signal 9" in line
        assert "run it again" in line
        cut.let_go()
        before = len(source.log)
        done = migrate(source, target, "--state", state)
        assert (done.returncode, done.stderr) == (0, "")
        assert target.objects == source.objects
        asked = source.log[before:]
        read = next(n for n, one in enumerate(asked) if (one.method, one.key) == ("GET", LAST))
        assert min(one.page for one in asked[:read] if one.page is not None) >= KEYS[3000]


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
            assert all_end(workers)
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
            out, err = said_by(process)
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
        held.free.set()
        assert all_requests_came(target)
        written = len(target.of("PUT"))
        done = migrate(source, target, "--state", state, *other)
        assert (done.returncode, done.stdout) == (2, "")
        (line,) = done.stderr.splitlines()
        assert str(state) in line
        assert "s3://from/" in line
        assert "s3://to/" in line
        assert len(target.of("PUT")) == written
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
