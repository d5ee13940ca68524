"""`replicator push --move` and `push config.json`: a file is removed here only when it is proved to be there."""

from __future__ import annotations

import fcntl
import json
import os
import random
import re
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from contextlib import contextmanager

import pytest

from replicator.model import MiB
from tests.fakes.watched_s3 import watched
from tests.functional.test_push_mirror import make_socket
from tests.pushes import WITHOUT_PRIVILEGES, Push, end, lines_of, push_to, until
from tests.runs import SECONDS, children, lives
from tests.servers.meter import metered

TIME_PATH = "{location}/%Y/%m/%d/%H/%M%S-{topic}.dat"
UNAVAILABLE = (503, b"<Error><Code>ServiceUnavailable</Code><Message>back soon</Message></Error>", {})
DENIED = (403, b"<Error><Code>AccessDenied</Code><Message>not on a Sunday</Message></Error>", {})


@pytest.fixture
def fake(tmp_path):
    with watched() as store:
        yield Push(tmp_path, store.url), store


def job_file(push, **changes):
    """What the timed uploader is given as its only argument."""
    path = push.folder.path.parent / "config.json"
    path.write_text(json.dumps({"base_dir": str(push.folder.path), "s3_bucket": "to", **changes}))
    return path


def named(age, topic="wind", location="zurich"):
    """What a file is called that was begun so many seconds ago."""
    return time.strftime(f"{location}/%Y/%m/%d/%H/%M-{topic}.dat", time.localtime(time.time() - age))


# What a person expects of it


def test_files_are_at_the_bucket_and_no_more_here_and_emptied_folders_are_gone(fake):
    push, store = fake
    push.folder.fill()
    files = push.folder.files()
    for path in [*push.folder.path.rglob("*"), push.folder.path]:
        os.utime(path, (1e9, 1e9))
    done = push.run("--move")
    assert done.returncode == 0, done
    assert store.objects == files
    assert push.folder.path.is_dir()
    assert list(push.folder.path.iterdir()) == []
    lines = done.stderr.splitlines()
    assert sorted(re.findall(r"INFO moved (dir \d/file \d{3}): uploaded", done.stderr)) == sorted(files)
    assert len([line for line in lines if "removed the empty folder" in line]) == 3
    assert len(lines) == 23


def test_the_json_form_takes_what_is_older_by_the_time_in_its_path_and_leaves_the_rest(fake):
    push, store = fake
    old, new = named(3600), named(-3600)
    push.folder.write(old, age=3600)
    push.folder.write(new, age=3600)
    push.folder.write("no-time-in-it.dat", age=3600)
    push.folder.write("no-time-and-new.dat", age=-60)
    push.folder.write("zurich/2026/13/01/25/61-month.dat", age=3600)
    push.folder.write("zurich/2026/02/30/00/00-day.dat", age=3600)
    push.folder.write("zurich/0000/00/00/00/00-zero.dat", age=3600)
    done = push.run(job_file(push))
    assert done.returncode == 0, done
    assert set(push.folder.files()) == {new, "no-time-and-new.dat"}
    assert len(store.objects) == 5
    assert "WARNING" not in done.stderr
    assert "not settled for 30 s: 2 files" in done.stderr


def test_a_file_from_the_future_is_left_alone(fake):
    push, store = fake
    push.folder.write("file", age=-3600)
    assert push.run("--move").returncode == 0
    assert store.objects == {}
    assert set(push.folder.files()) == {"file"}


def test_a_dry_run_says_what_would_go_and_changes_nothing(fake):
    push, store = fake
    push.folder.fill(5)
    os.utime(push.folder.path / "dir 0", (1e9, 1e9))
    before = push.folder.snapshot()
    done = push.run("--move", "--dry-run")
    assert done.returncode == 0
    assert len([line for line in done.stdout.splitlines() if line.startswith("(dry run) moved")]) == 5
    assert push.folder.snapshot() == before
    assert store.objects == {}


def test_what_is_excluded_stays(fake):
    push, store = fake
    push.folder.write("a.log")
    push.folder.write("b.dat")
    assert push.run("--move", "--exclude", "*.log").returncode == 0
    assert set(push.folder.files()) == {"a.log"}
    assert set(store.objects) == {"b.dat"}


def test_links_and_pipes_stay_and_are_named(fake, tmp_path):
    push, store = fake
    push.folder.write("file")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/precious").write_bytes(b"x")
    (push.folder.path / "link").symlink_to(tmp_path / "elsewhere")
    (push.folder.path / "file link").symlink_to(tmp_path / "elsewhere/precious")
    os.mkfifo(push.folder.path / "pipe")
    make_socket(push.folder.path, "socket")
    done = push.run("--move", "--settle", "0s")
    assert done.returncode == 0, done
    assert set(store.objects) == {"file"}
    assert {path.name for path in push.folder.path.iterdir()} == {"link", "file link", "pipe", "socket"}
    assert (tmp_path / "elsewhere/precious").exists()
    assert len(re.findall("WARNING skipped", done.stderr)) == 4


@pytest.mark.slow
def test_a_large_file_is_moved_in_parts(tmp_path, rgw_endpoint):
    push, bucket = push_to(tmp_path, rgw_endpoint)
    push.folder.write("large", os.urandom(40 * MiB + 1))
    files = push.folder.files()
    assert push.run("--move").returncode == 0
    assert bucket.objects() == files
    assert push.folder.files() == {}


def test_a_log_may_be_a_file_and_lines_may_be_json(fake, tmp_path):
    push, store = fake
    store.rule = lambda asked: DENIED if asked.method == "PUT" and asked.key == "bad" else None
    push.folder.write("good")
    push.folder.write("bad")
    done = push.run("--move", "--log-json", LOG_METHOD="file", LOG_PATH=str(tmp_path / "log"))
    assert (done.returncode, done.stderr) == (1, "")
    lines = lines_of(tmp_path / "log")
    assert [line["level"] for line in lines if "good" in line["message"]] == ["INFO"]
    (bad,) = [line for line in lines if "bad" in line["message"]]
    assert bad["level"] == "WARNING"
    assert "not on a Sunday" in bad["message"]
    assert set(push.folder.files()) == {"bad"}


BAD_JOBS = {
    "no JSON": "{'base_dir': 1}",
    "empty": "",
    "a list": "[]",
    "no bucket": '{"base_dir": "/tmp"}',
    "no folder": '{"s3_bucket": "to"}',
    "more": '{"base_dir": "/tmp", "s3_bucket": "to", "region": "x"}',
    "a number": '{"base_dir": 1, "s3_bucket": "to"}',
    "blank": '{"base_dir": "", "s3_bucket": "to"}',
    "no such folder": '{"base_dir": "/no/such/folder", "s3_bucket": "to"}',
    "a file": '{"base_dir": "/etc/passwd", "s3_bucket": "to"}',
    "no bucket's name": '{"base_dir": "/tmp", "s3_bucket": "a b"}',
}


@pytest.mark.parametrize("how", BAD_JOBS)
def test_a_job_file_that_cannot_be_used_is_told_in_a_line(fake, how):
    push, store = fake
    path = push.folder.path.parent / "config.json"
    path.write_text(BAD_JOBS[how])
    done = push.run(path)
    assert (done.returncode, done.stdout) == (2, ""), done
    assert len(done.stderr.splitlines()) == 1
    assert store.log == []


# A writer that is still writing


class Writer(threading.Thread):
    """Writes one file after the other, each in pieces with pauses; written: what each was to hold at its end.

    name_of: of a number. reopens: closes the file after every piece.
    """

    def __init__(self, folder, name_of, *, files=6, pause=0.25, reopens=False):
        super().__init__()
        self.folder, self.name_of, self.files = folder, name_of, files
        self.pause, self.reopens = pause, reopens
        self.written = {}

    def run(self):
        for number in range(self.files):
            name = self.name_of(number)
            path = self.folder.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            pieces = [f"{number}.{n} ".encode() * (1 + 500 * n) for n in range(5)]
            stream = path.open("ab")
            for piece in pieces:
                stream.write(piece)
                stream.flush()
                time.sleep(self.pause)
                if self.reopens:
                    stream.close()
                    stream = path.open("ab")
            stream.close()
            self.written[name] = b"".join(pieces)


def move_until_all_is_there(push, store, writer, *options):
    """Runs it again and again while the writer writes; each file has to arrive once, as it was at its end."""
    for name, old in {"old 1": b"x", "old 2": b"y"}.items():
        push.folder.write(name, old, age=7200)
        writer.written[name] = old
    writer.start()
    while writer.is_alive():
        done = push.run(*options)
        assert done.returncode == 0, done
        time.sleep(0.2)
    assert until(lambda: push.run(*options).returncode == 0 and not push.folder.files(), 120, step=0.5)
    assert store.objects == writer.written
    assert Counter(store.of("PUT")) == dict.fromkeys(writer.written, 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reopens", "settle"), [(False, "2s"), (True, "15s")], ids=["open all the time", "opened for each piece"]
)
def test_each_file_of_a_writer_that_goes_on_writing_arrives_once_and_whole(fake, reopens, settle):
    """Nothing tells that a file which is closed after each piece is not complete, but that it is young."""
    push, store = fake
    writer = Writer(push.folder, lambda n: f"{n % 2}/{n:02}", reopens=reopens)
    move_until_all_is_there(push, store, writer, "--move", "--settle", settle)


@pytest.mark.slow
def test_the_time_in_the_path_may_be_over_while_the_file_is_still_open(fake):
    push, store = fake
    begun = lambda n: time.strftime(f"here/%Y/%m/%d/%H/%M%S-t{n}.dat")  # noqa: E731
    writer = Writer(push.folder, begun, pause=0.4)
    move_until_all_is_there(push, store, writer, "--move", "--settle", "1s", "--time-path", TIME_PATH)


def test_a_file_that_is_open_for_writing_stays_until_it_is_closed(fake):
    push, store = fake
    path = push.folder.write(named(3600))
    with path.open("ab"):
        done = push.run(job_file(push))
        assert done.returncode == 0, done
        assert "open for writing" in done.stderr
        assert path.exists()
        assert store.of("PUT") == []
    assert push.run(job_file(push)).returncode == 0
    assert not path.exists()


def test_a_reader_holds_back_nothing(fake):
    push, store = fake
    path = push.folder.write("file")
    with path.open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_SH)
        assert push.run("--move").returncode == 0
    assert not path.exists()
    assert set(store.objects) == {"file"}


@contextmanager
def meanwhile(store, act):
    """Does something once between the upload of a file and the last look at what the bucket has of it."""
    acted = threading.Event()

    def rule(asked):
        if asked.method == "HEAD" and asked.key in store.objects and not acted.is_set():
            acted.set()
            act()

    store.rule = rule
    yield
    store.rule = lambda _: None
    assert acted.is_set()


CHANGES = {
    "grew": lambda path: path.write_bytes(path.read_bytes() + b"more"),
    "same size": lambda path: path.write_bytes(b"X" * path.stat().st_size),
    "replaced": lambda path: (path.with_name("other").write_bytes(b"other"), path.with_name("other").replace(path)),
    "touched": lambda path: path.touch(),
}


@pytest.mark.parametrize("how", CHANGES)
def test_a_file_that_changes_between_upload_and_removal_stays_and_goes_the_next_time(fake, how):
    push, store = fake
    path = push.folder.write("file")
    with meanwhile(store, lambda: CHANGES[how](path)):
        push.run("--move")
    assert path.exists()
    left = path.read_bytes()
    assert push.run("--move", "--settle", "0s").returncode == 0
    assert store.objects == {"file": left}
    assert not path.exists()


def test_a_file_that_is_opened_for_writing_between_upload_and_removal_stays(fake):
    push, store = fake
    path = push.folder.write("file")
    opened = []
    with meanwhile(store, lambda: opened.append(path.open("ab"))):
        push.run("--move")
    assert path.exists()
    opened[0].write(b"more")
    opened[0].close()
    assert push.run("--move", "--settle", "0s").returncode == 0
    assert store.objects == {"file": b"data of filemore"}


def test_a_file_that_vanishes_meanwhile_is_no_harm(fake):
    push, store = fake
    for name in ("one", "two"):
        push.folder.write(name)
    with meanwhile(store, lambda: (push.folder.path / "one").unlink()):
        done = push.run("--move", "--processes", "1")
    assert "Traceback" not in done.stderr
    assert push.folder.files().keys() | store.objects.keys() == {"one", "two"}


# Crashes


def nothing_is_lost(push, store, files):
    here = push.folder.files()
    assert {key for key, data in files.items() if here.get(key) != data and store.objects.get(key) != data} == set()


class Halt:
    """Answers so many requests, and no others until it is lifted; reached: there were others."""

    def __init__(self, requests):
        self.left = requests
        self.reached, self.lifted = threading.Event(), threading.Event()
        self._lock = threading.Lock()

    def __call__(self, asked):
        with self._lock:
            self.left -= 1
            over = self.left < 0
        if over:
            self.reached.set()
            self.lifted.wait()


@pytest.mark.slow
@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_run_that_is_killed_at_random_moments_loses_nothing_and_the_last_ends_well(fake, processes):
    push, store = fake
    chance = random.Random(processes)
    push.folder.fill(120)
    push.folder.write("larger", os.urandom(3 * MiB))
    files = push.folder.files()
    for _ in range(20):
        halt = store.rule = Halt(chance.randrange(2, 25))
        process = push.start("--move", "--concurrency", "4", "--processes", processes)
        try:
            assert until(lambda: halt.reached.is_set() or process.poll() is not None, step=0.001)  # noqa: B023
            assert process.poll() is None, push.said()
            time.sleep(chance.random() * 0.01)
            workers = children(process)
            os.kill(process.pid, signal.SIGKILL)  # its workers have to see that by themselves
            process.wait()
            assert until(lambda: not any(map(lives, workers)))  # noqa: B023
        finally:
            halt.lifted.set()
        nothing_is_lost(push, store, files)

    def ends_well():
        done = push.run("--move", "--processes", processes)
        assert done.returncode == 0, done
        return not push.folder.files()

    assert until(ends_well)
    assert store.objects == files


def test_a_file_that_was_uploaded_and_not_removed_is_removed_and_reported_by_the_next_run(fake):
    push, store = fake
    push.folder.fill(3)
    files = push.folder.files()
    reached, free = threading.Event(), threading.Event()
    with meanwhile(store, lambda: (reached.set(), free.wait())):
        process = push.start("--move", "--concurrency", "1", "--processes", "1")
        assert reached.wait(SECONDS)
        end(process)
        free.set()
    assert push.folder.files() == files
    assert store.objects
    before = len(store.of("PUT"))
    done = push.run("--move")
    assert done.returncode == 0
    assert len(re.findall(r"INFO moved .*: was there already, and removed here", done.stderr)) == before
    assert push.folder.files() == {}
    assert store.objects == files
    assert len(store.of("PUT")) == 3


# Targets that lie, refuse or are away


def lying(how, store):
    """A rule that answers for a bucket which does not hold what it was sent."""
    wrong = {"ETag": '"00000000000000000000000000000000"', "Last-Modified": "Wed, 01 Jan 2020 00:00:00 GMT"}

    def rule(asked):
        if how == "wrong ETag" and asked.method == "PUT":
            store.objects[asked.key] = b"other bytes"
            return 200, b"", wrong
        if how == "no ETag" and asked.method == "PUT":
            return 200, b"", {}
        if how == "error in a 200" and asked.method == "PUT":
            return 200, b"<Error><Code>InternalError</Code></Error>", {}
        return None

    return rule


@pytest.mark.slow
@pytest.mark.parametrize("how", ["wrong ETag", "no ETag", "error in a 200"])
def test_a_target_that_does_not_hold_what_it_was_sent_gets_no_file_removed(fake, how):
    push, store = fake
    push.folder.fill(3)
    before = push.folder.snapshot()
    store.rule = lying(how, store)
    done = push.run("--move")
    assert done.returncode == 1, done
    assert "WARNING failed" in done.stderr
    assert push.folder.snapshot() == before


@pytest.mark.slow
@pytest.mark.parametrize("answer", [DENIED, UNAVAILABLE], ids=["403", "503"])
def test_a_target_that_refuses_gets_no_file_removed_and_says_why(fake, answer):
    push, store = fake
    push.folder.fill(2)
    before = push.folder.snapshot()
    store.rule = lambda asked: answer if asked.method == "PUT" else None
    done = push.run("--move", seconds=110)
    assert done.returncode == 1, done
    assert push.folder.snapshot() == before
    reason = re.search(b"<Message>(.*)</Message>", answer[1])[1].decode()
    assert reason in done.stderr


def test_a_bucket_that_is_not_there_gets_no_file_removed(tmp_path, rclone_endpoint):
    push, _ = push_to(tmp_path, rclone_endpoint)
    push.folder.fill(2)
    before = push.folder.snapshot()
    done = push.run(job_file(push, s3_bucket="no-such-bucket"))
    assert done.returncode == 2
    assert "no such bucket" in done.stderr
    assert push.folder.snapshot() == before


def test_one_file_that_is_refused_holds_back_no_other(fake):
    push, store = fake
    push.folder.fill(10)
    store.rule = lambda asked: DENIED if asked.method == "PUT" and asked.key.endswith("4") else None
    done = push.run("--move")
    assert done.returncode == 1
    assert set(push.folder.files()) == {"dir 1/file 004"}
    assert len(store.objects) == 9
    (line,) = [line for line in done.stderr.splitlines() if "WARNING" in line]
    assert "not on a Sunday" in line


# Two at once


def test_the_second_of_two_runs_says_so_and_ends_well_and_the_lock_goes_with_the_first(fake, tmp_path):
    push, store = fake
    push.folder.fill(3)
    free = threading.Event()
    store.rule = lambda asked: free.wait() and None if asked.method == "PUT" else None
    first = push.start("--move", "--processes", "2")
    try:
        assert until(lambda: store.of("PUT"))
        (tmp_path / "another way").symlink_to(push.folder.path)
        for folder in (push.folder.path, tmp_path / "another way", f"{push.folder.path}/."):
            second = push.run(folder, "to", "--move")
            assert (second.returncode, second.stdout) == (0, ""), second
            (line,) = second.stderr.splitlines()
            assert "another run" in line
        assert len(push.folder.files()) == 3
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        free.set()
        assert until(lambda: "another run" not in push.run("--move").stderr)
    finally:
        free.set()
        end(first)
    assert push.folder.files() == {}
    assert len(store.objects) == 3


# Folders


def test_emptied_folders_go_but_for_the_base_those_that_are_young_and_those_that_are_not_empty(fake):
    push, store = fake
    for name in ("old/deep/er/file", "young/file", "mixed/file", "linked/file"):
        push.folder.write(name)
    push.folder.write("mixed/new", age=-600)
    (push.folder.path / "linked/link").symlink_to("nowhere")
    (push.folder.path / "excluded").mkdir()
    young = time.time() + 600
    for path in [push.folder.path, *push.folder.path.rglob("*")]:
        if path.is_dir():
            os.utime(path, (young, young) if path.name == "young" else (1e9, 1e9))
    assert push.run("--move").returncode == 0
    assert push.folder.folders() >= {"young", "mixed", "linked"}
    assert not push.folder.folders() & {"old", "old/deep", "old/deep/er"}
    assert push.folder.path.is_dir()
    assert set(push.folder.files()) == {"mixed/new"}


def test_a_folder_that_may_not_be_changed_keeps_its_files_which_is_a_failure(fake):
    push, store = fake
    push.before = WITHOUT_PRIVILEGES
    push.folder.write("closed/file")
    push.folder.write("open/file")
    (push.folder.path / "closed").chmod(0o555)
    for _ in range(2):
        done = push.run("--move")
        assert done.returncode == 1, done
        assert "is uploaded, but not removed here" in done.stderr
    assert set(push.folder.files()) == {"closed/file"}
    assert len(store.objects) == len(store.of("PUT")) == 2


def read_only(folder):
    """What a command begins with to see the folder on a disk that cannot be written to."""
    words = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
    return ("unshare", "--mount", "sh", "-c", words, str(folder))


def test_a_disk_that_cannot_be_written_to_keeps_its_files_which_is_a_failure(fake):
    push, store = fake
    push.before = read_only(push.folder.path)
    if shutil.which("unshare") is None or subprocess.run([*push.before, "true"], check=False).returncode != 0:
        pytest.skip("nothing can be mounted here")
    push.folder.fill(3)
    before = push.folder.snapshot()
    done = push.run("--move")
    assert done.returncode == 1, done
    assert "Read-only file system" in done.stderr
    assert push.folder.snapshot() == before
    assert len(store.objects) == 3


def test_a_broken_catalogue_holds_back_no_removal(fake):
    push, store = fake
    push.folder.fill(3)
    done = push.run("--move", XDG_STATE_HOME="/dev/null/state")
    assert done.returncode == 0, done
    assert push.folder.files() == {}
    assert len(store.objects) == 3


def test_bytes_are_sent_once(fake):
    push, store = fake
    push.folder.write("file", os.urandom(2 * MiB))
    with metered(store.url) as meter:
        assert push.run("--move", TARGET_ENDPOINT=meter.url).returncode == 0
    assert 2 * MiB < meter.sent < 2.1 * MiB
