"""`replicator push --watch`: what changes in the folder is at the bucket seconds later, whatever happens meanwhile."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

import pytest

from tests.fakes.watched_s3 import watched
from tests.pushes import Folder, Push, end, push_to, until
from tests.runs import SECONDS
from tests.servers.base import free_port

pytestmark = pytest.mark.slow


class Watching:
    """A push that watches, and what it says of itself."""

    def __init__(self, push, store, process, port):
        self.push, self.folder, self.store, self.process, self.port = push, push.folder, store, process, port

    @property
    def path(self):
        return self.folder.path

    def page(self, name):
        """Status and text."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{name}", timeout=SECONDS) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def is_equal(self):
        return self.store.objects == self.folder.files()

    def follows(self, seconds=SECONDS):
        """Whether the bucket becomes equal in that time."""
        assert until(self.is_equal, seconds), self.push.said()[-3000:]
        assert self.process.poll() is None, self.push.said()
        return True

    def becomes(self, health, seconds=SECONDS):
        """Whether /healthz says so in that time; what it says."""
        ended = lambda: self.process.poll() is not None  # noqa: E731
        assert until(lambda: ended() or self.page("healthz")[0] == health, seconds), self.push.said()[-3000:]
        assert not ended(), (self.process.returncode, self.push.said()[-3000:])
        return self.page("healthz")[1]


@contextmanager
def watching(push, store, *options, mode="--mirror", **variables):
    """Begins when everything is equal, and ends with a SIGTERM that is obeyed."""
    port = free_port()
    process = push.start(mode, "--watch", "--metrics", f"127.0.0.1:{port}", *options, **variables)
    try:
        began = until(lambda: process.poll() is not None or "watching" in push.said())
        assert began, push.said()
        watch = Watching(push, store, process, port)
        if mode == "--mirror":
            watch.follows()
            assert until(lambda: "pass_timestamp_seconds 0.0" not in watch.page("metrics")[1]), push.said()
        yield watch
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 0
        assert "Traceback" not in push.said()
    finally:
        end(process)


@pytest.fixture
def fake(tmp_path):
    with watched() as store:
        push = Push(tmp_path, store.url)
        push.folder.fill(6)
        yield push, store


@pytest.fixture
def watch(fake):
    with watching(*fake) as running:
        yield running


# What a person expects of it


def test_files_that_are_made_changed_and_removed_follow_one_by_one(watch):
    path = watch.folder.write("new", b"one", age=0)
    assert watch.follows()
    with path.open("ab") as stream:
        stream.write(b"more")
    assert watch.follows()
    path.write_bytes(b"other")
    assert watch.follows()
    path.write_bytes(b"again")  # of the same size
    assert watch.follows()
    watch.folder.write("beside", b"replaced at once", age=0).replace(path)
    assert watch.follows()
    path.rename(path.with_name("renamed"))
    assert watch.follows()
    path.with_name("renamed").unlink()
    assert watch.follows()


def test_folders_follow_when_they_are_made_renamed_moved_in_and_out_and_removed(watch, tmp_path):
    watch.folder.write("x/y/z/deep", age=0)
    assert watch.follows()
    (watch.path / "x").rename(watch.path / "X")
    assert watch.follows()
    watch.folder.write("X/y/z/written after its folder was renamed", age=0)
    (watch.path / "X/y/z/deep").unlink()
    assert watch.follows()
    (watch.path / "X").rename(tmp_path / "outside")
    assert watch.follows()
    (tmp_path / "outside").rename(watch.path / "dir 1/inside")
    assert watch.follows()
    watch.folder.write("dir 1/inside/y/written after its folder came", age=0)
    assert watch.follows()
    shutil.rmtree(watch.path / "dir 1")
    assert watch.follows()
    (watch.path / "dir 1").write_bytes(b"a file now")
    assert watch.follows()
    (watch.path / "dir 2/file 002").unlink()
    watch.folder.write("dir 2/file 002/a folder now", age=0)
    assert watch.follows()


def test_nothing_is_left_out_for_its_name(watch):
    names = [
        ".hidden",
        ".git/HEAD",
        ".x.swp",
        "4913",
        "a~",
        "#a#",
        "__pycache__/x",
        "node_modules/y",
        "x.tmp",
        ".DS_Store",
    ]
    for name in names:
        watch.folder.write(name, age=0)
    assert watch.follows()
    assert set(names) <= set(watch.store.objects)


def test_a_burst_of_files_is_there_soon_and_each_is_sent_once(watch):
    for number in range(500):
        path = watch.folder.write(f"burst {number % 5}/{number}", b"1", age=0)
        path.write_bytes(b"12")
        path.write_bytes(b"123")
    assert watch.follows()
    time.sleep(1.5)
    sent = [key for key in watch.store.of("PUT") if key.startswith("burst")]
    assert len(sent) < 600  # rarely twice: when the first look was within the moment of its writes


def test_a_file_that_is_written_all_the_time_is_pushed_now_and_then_and_as_it_is_at_its_end(watch):
    """That it is not pushed more often than now and then is in tests/unit/test_pending.py."""
    ends = time.monotonic() + SECONDS
    with (watch.path / "log").open("ab", buffering=0) as stream:
        while watch.store.of("PUT").count("log") < 2:
            assert time.monotonic() < ends, watch.push.said()
            stream.write(b"a line\n")
            time.sleep(0.1)
            there = watch.store.objects.get("log", b"")
            assert there == b"a line\n" * (len(there) // 7)
    assert watch.follows()


def test_what_is_excluded_is_neither_sent_nor_deleted(fake):
    push, store = fake
    with watching(push, store, "--exclude", "*.log", "--exclude", "cache/*") as watch:
        store.objects["kept.log"] = b"x"
        push.folder.write("new.log", age=0)
        push.folder.write("cache/new", age=0)
        push.folder.write("new.txt", age=0)
        assert until(lambda: "new.txt" in store.objects)
        (push.folder.path / "new.log").unlink()
        push.folder.write("newer.txt", age=0)
        assert until(lambda: "newer.txt" in store.objects)
        assert store.objects["kept.log"] == b"x"
        assert not {"new.log", "cache/new"} & set(store.objects)
        assert watch.process.poll() is None


def test_links_that_are_made_are_not_followed(watch, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/secret").write_bytes(b"x")
    (watch.path / "link").symlink_to(tmp_path / "elsewhere")
    (watch.path / "file link").symlink_to(tmp_path / "elsewhere/secret")
    watch.folder.write("after", age=0)
    assert watch.follows()
    assert until(lambda: watch.push.said().count("WARNING skipped") >= 2)
    assert not [key for key in watch.store.objects if "link" in key]


def test_folders_that_come_and_go_at_once_are_no_harm(watch):
    for number in range(200):
        (watch.path / f"brief {number}/inside").mkdir(parents=True)
        shutil.rmtree(watch.path / f"brief {number}")
    watch.folder.write("after", age=0)
    assert watch.follows()


def test_the_pages_tell_what_was_done(watch):
    watch.folder.write("new", b"12345", age=0)
    assert watch.follows()
    assert watch.becomes(200)
    assert watch.page("metrics")[0] == 200
    copied = 'replicator_objects_total{action="copied",target="s3://to/"} 7.0'
    assert until(lambda: copied in watch.page("metrics")[1]), watch.page("metrics")[1]
    text = watch.page("metrics")[1]
    assert "replicator_healthy 1.0" in text
    assert "replicator_watch_events_total" in text


# What was not told is found by looking


def test_a_change_that_nobody_told_of_is_found_by_the_next_look(fake):
    """The watch itself looks once in ten minutes here: as good as never."""
    push, store = fake
    blind = {"WATCHFILES_FORCE_POLLING": "1", "WATCHFILES_POLL_DELAY_MS": "600000"}
    with watching(push, store, "--rescan", "1s", **blind) as watch:
        push.folder.write("new", age=0)
        (push.folder.path / "dir 0/file 000").unlink()
        push.folder.write("dir 1/file 001", b"changed")
        assert watch.follows()


def test_without_a_look_such_a_change_is_not_found(fake):
    """So that the test above shows what it says."""
    push, store = fake
    blind = {"WATCHFILES_FORCE_POLLING": "1", "WATCHFILES_POLL_DELAY_MS": "600000"}
    with watching(push, store, **blind):
        push.folder.write("new", age=0)
        time.sleep(4)
        assert "new" not in store.objects


def test_an_object_that_somebody_else_removes_or_changes_is_put_right_by_the_next_look(fake):
    push, store = fake
    with watching(push, store, "--rescan", "1s") as watch:
        del store.objects["dir 0/file 000"]
        store.objects["dir 1/file 001"] = b"other"
        store.objects["foreign"] = b"x"
        assert watch.follows()


# A target that is away


class Door:
    """A relay to a server at an address that stays; closed, it refuses connections, and cuts those there are."""

    def __init__(self, url):
        self._where = urlsplit(url)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._listener = None
        self._accepting = None
        self._sockets = []

    def open(self):
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._accepting = threading.Thread(target=self._accept, args=[self._listener], daemon=True)
        self._accepting.start()

    def close(self):
        self._shut(self._listener)
        self._accepting.join()  # or it could let in one more
        for one in self._sockets:
            self._shut(one)
        self._sockets.clear()

    def _shut(self, one):
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()

    def _accept(self, listener):
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                self._sockets.append(near)
                far = socket.create_connection((self._where.hostname, self._where.port))
                self._sockets.append(far)
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._relay, args=(one, other), daemon=True).start()

    def _relay(self, one, other):
        with suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)


def test_a_target_that_is_away_for_a_while_gets_everything_when_it_is_back(fake):
    push, store = fake
    door = Door(store.url)
    door.open()
    try:
        with watching(push, store, TARGET_ENDPOINT=door.url) as watch:
            door.close()
            push.folder.fill(60)
            (push.folder.path / "dir 0/file 000").unlink()
            time.sleep(8)
            push.folder.write("later", age=0)
            assert watch.process.poll() is None
            assert len(store.objects) == 6
            door.open()
            assert watch.follows(300)
    finally:
        door.close()


def test_a_target_that_refuses_for_a_while_gets_everything_when_it_does_not(fake):
    push, store = fake
    with watching(push, store) as watch:
        store.rule = lambda asked: (503, b"<Error><Code>SlowDown</Code></Error>", {})
        push.folder.fill(20)
        (push.folder.path / "dir 0/file 000").unlink()
        time.sleep(5)
        store.rule = lambda _: None
        assert watch.follows(300)


def test_it_ends_at_once_while_the_target_hangs(fake):
    push, store = fake
    free = threading.Event()
    with watching(push, store) as watch:
        store.rule = lambda asked: free.wait() and None
        push.folder.write("new", age=0)
        seen = len(store.log)
        assert until(lambda: len(store.log) > seen)
        watch.process.send_signal(signal.SIGTERM)
        try:
            assert watch.process.wait(SECONDS) == 0
        finally:
            free.set()


# The brakes


def test_a_folder_that_is_emptied_deletes_nothing_and_is_unwell_with_the_reason(fake):
    push, store = fake
    with watching(push, store) as watch:
        before = dict(store.objects)
        for path in push.folder.path.iterdir():
            shutil.rmtree(path)
        assert "nothing was deleted" in watch.becomes(503)
        assert store.objects == before
        assert "replicator_healthy 0.0" in watch.page("metrics")[1]


def test_a_folder_that_is_moved_away_deletes_nothing_is_unwell_and_well_when_it_is_back(fake, tmp_path):
    push, store = fake
    with watching(push, store, "--rescan", "1s") as watch:
        before = dict(store.objects)
        push.folder.path.rename(tmp_path / "elsewhere")
        assert "not there any more" in watch.becomes(503)
        time.sleep(2)
        assert store.objects == before
        (tmp_path / "elsewhere").rename(push.folder.path)
        watch.becomes(200, 300)
        push.folder.write("new", age=0)
        assert watch.follows(300)


def test_what_is_new_goes_on_while_deletes_are_held_back(fake):
    push, store = fake
    with watching(push, store, "--max-delete", "2") as watch:
        shutil.rmtree(push.folder.path / "dir 0")
        assert watch.follows()
        for folder in ("dir 1", "dir 2"):
            shutil.rmtree(push.folder.path / folder)
        push.folder.write("one")
        push.folder.write("two")
        assert "--max-delete" in watch.becomes(503)
        push.folder.write("three", age=0)
        assert until(lambda: {"one", "two", "three"} <= set(store.objects))


def test_deletes_go_to_the_trash(tmp_path, rgw_endpoint):
    push, bucket = push_to(tmp_path, rgw_endpoint)
    push.folder.fill(3)
    process = push.start("--mirror", "--watch", "--trash", "bin")
    try:
        assert until(lambda: bucket.objects() == push.folder.files())
        (push.folder.path / "dir 0/file 000").unlink()
        assert until(lambda: "dir 0/file 000" not in bucket.etags())
        (kept,) = [key for key in bucket.etags() if key.startswith("bin/")]
        assert kept.endswith("/dir 0/file 000")
    finally:
        end(process)


# --move --watch


def test_files_are_moved_when_they_are_settled_and_not_before(fake, tmp_path):
    push, store = fake
    settle = 8
    with watching(push, store, "--settle", f"{settle}s", mode="--move") as watch:
        assert until(lambda: not push.folder.files())
        assert len(store.objects) == 6
        written, data = {}, b"one"
        path = push.folder.write("sub/new", data, age=0)
        for number in range(6):
            time.sleep(1)
            if not path.exists():  # the test itself has stood still
                break
            data += b"%d" % number
            written[data] = time.time()
            with path.open("ab") as stream:
                stream.write(data[-1:])
        assert until(lambda: not path.exists())
        assert store.objects["sub/new"] == data
        assert store.written["sub/new"] > written[data] + settle - 0.1  # clocks of files are behind by a tick
        second = push.run("--move")
        assert second.returncode == 0
        assert "another run" in second.stderr
        assert watch.process.poll() is None


def test_a_target_that_is_away_keeps_files_here_until_it_is_back(tmp_path):
    with watched() as store:
        push = Push(tmp_path, store.url)
        door = Door(store.url)
        door.open()
        try:
            with watching(push, store, "--settle", "1s", mode="--move", TARGET_ENDPOINT=door.url) as watch:
                door.close()
                push.folder.fill(10)
                files = push.folder.files()
                time.sleep(5)
                assert push.folder.files() == files
                assert watch.process.poll() is None
                door.open()
                assert until(lambda: not push.folder.files(), 300), push.said()[-3000:]
                assert store.objects == files
        finally:
            door.close()


def test_a_folder_beside_it_is_none_of_its_business(watch, tmp_path):
    Folder(tmp_path / "folder 2").write("file")
    watch.folder.write("new", age=0)
    assert watch.follows()


def test_log_lines_are_json_where_that_is_asked_for(fake):
    push, store = fake
    with watching(push, store, "--log-json") as watch:
        push.folder.write("new\nline", age=0)
        assert watch.follows()
    lines = [json.loads(line) for line in push.said().splitlines()]
    assert {line["level"] for line in lines if "new\nline" in line["message"]} == {"INFO"}
