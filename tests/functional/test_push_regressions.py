"""What was once wrong with `replicator push`; each test says what it was."""

from __future__ import annotations

import os
import shutil
import time

import pytest

from tests.fakes.watched_s3 import watched
from tests.functional.test_push_mirror import broken_catalogues
from tests.functional.test_push_move import job_file, named
from tests.functional.test_push_watch import Door, watching
from tests.pushes import WITHOUT_PRIVILEGES, Push, end, until


@pytest.fixture
def fake(tmp_path):
    with watched() as store:
        yield Push(tmp_path, store.url), store


# Watch


@pytest.mark.slow
def test_a_name_that_is_not_utf8_does_not_end_the_watch(fake):
    push, store = fake
    push.folder.fill(3)
    with watching(push, store) as watch:
        (push.folder.path / os.fsdecode(b"latin-\xe9")).write_bytes(b"x")
        time.sleep(2)
        push.folder.write("after", age=0)
        assert until(lambda: "after" in store.objects), push.said()[-500:]
        assert watch.process.poll() is None


@pytest.mark.slow
def test_a_name_that_is_not_utf8_does_not_end_the_watch_that_moves(fake):
    push, store = fake
    with watching(push, store, "--settle", "1s", mode="--move") as watch:
        (push.folder.path / os.fsdecode(b"latin-\xe9")).write_bytes(b"x")
        time.sleep(8)
        push.folder.write("after", age=0)
        assert until(lambda: "after" in store.objects), push.said()[-500:]
        assert watch.process.poll() is None


@pytest.mark.slow
def test_a_watch_deletes_no_more_than_its_limit_when_half_of_the_folder_goes_at_once(fake):
    push, store = fake
    push.folder.fill(300)
    with watching(push, store) as watch:
        for folder in ("dir 1", "dir 2"):
            shutil.rmtree(push.folder.path / folder)
        watch.becomes(503)
        time.sleep(2)
        assert len(store.objects) >= 200  # a hundred need no word


@pytest.mark.slow
def test_a_watch_deletes_no_more_than_its_limit_when_the_folder_goes_slowly(fake):
    push, store = fake
    push.folder.fill(400)
    with watching(push, store) as watch:
        for path in sorted(push.folder.path.rglob("file*"))[:390]:
            path.unlink()
            time.sleep(0.05)
        watch.becomes(503)
        time.sleep(2)
        assert len(store.objects) >= 300


@pytest.mark.slow
def test_a_watch_that_begins_while_the_target_is_away_goes_on_when_it_is_back(fake):
    """The unit says RestartPreventExitStatus=2: after a start without a network nobody begins it again."""
    push, store = fake
    push.folder.fill(3)
    door = Door(store.url)
    process = push.start("--mirror", "--watch", TARGET_ENDPOINT=door.url)
    try:
        time.sleep(6)
        door.open()
        assert until(lambda: process.poll() is not None or len(store.objects) == 3, 300)
        assert process.poll() is None, (process.poll(), push.said())
    finally:
        end(process)
        if process.poll() is None or door._listener is not None:
            door.close()


@pytest.mark.slow
def test_a_folder_that_cannot_be_listed_costs_no_requests_while_nothing_changes(fake):
    push, store = fake
    push.before = WITHOUT_PRIVILEGES
    push.folder.fill(3)
    with watching(push, store):
        before = len(store.log)
        (push.folder.path / "closed").mkdir(mode=0)
        assert until(lambda: push.said().count("failed closed/") >= 3), push.said()
        assert len(store.log) - before <= 2


@pytest.mark.slow
def test_a_folder_that_cannot_be_listed_is_reported_by_the_watch(fake):
    push, store = fake
    push.before = WITHOUT_PRIVILEGES
    push.folder.fill(3)
    with watching(push, store):
        (push.folder.path / "closed").mkdir(mode=0)
        assert until(lambda: "closed" in push.said())


@pytest.mark.slow
def test_a_folder_that_is_gone_is_told_by_the_health_page_before_the_next_look(fake):
    push, store = fake
    push.folder.fill(3)
    with watching(push, store) as watch:
        shutil.rmtree(push.folder.path)
        assert "not there any more" in watch.becomes(503)


@pytest.mark.slow
def test_rescan_is_kept_to_after_the_folder_was_away(fake, tmp_path):
    push, store = fake
    push.folder.fill(3)
    with watching(push, store, "--rescan", "1s") as watch:
        push.folder.path.rename(tmp_path / "elsewhere")
        watch.becomes(503)
        (tmp_path / "elsewhere").rename(push.folder.path)
        watch.becomes(200)
        push.folder.write("new", age=0)
        assert watch.follows()


@pytest.mark.slow
def test_a_folder_that_is_removed_and_made_anew_deletes_nothing(fake, tmp_path):
    """A file system gives the number of the old one to the new one: ext4 at once."""
    push, store = fake
    push.folder.fill(6)
    with watching(push, store, "--rescan", "1s") as watch:
        before, number = dict(store.objects), push.folder.path.stat().st_ino
        shutil.rmtree(push.folder.path)
        push.folder.path.mkdir()
        for other in range(500):
            if push.folder.path.stat().st_ino == number:
                break
            push.folder.path.rename(tmp_path / f"taken {other}")
            push.folder.path.mkdir()
        push.folder.write("other")
        watch.becomes(503)
        time.sleep(2)
        assert store.objects.items() >= before.items()


# Move


@pytest.mark.slow
def test_pieces_that_are_appended_one_by_one_are_never_lost_although_the_time_in_the_path_is_over(fake):
    push, store = fake
    path = push.folder.path / named(120)
    for number in range(3):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as stream:
            stream.write(b"piece %d;" % number)
        done = push.run(job_file(push))
        assert done.returncode == (1 if number else 0)  # the object of the first piece is not replaced
        assert number == 0 or "moved there before" in done.stderr
    here = path.read_bytes() if path.exists() else b""
    there = b"".join(store.objects.values())
    assert there + here == b"piece 0;piece 1;piece 2;"


def test_a_target_that_shows_other_bytes_than_it_was_sent_is_a_failure(fake):
    push, store = fake
    push.folder.write("file")
    other = {"ETag": '"00000000000000000000000000000000"', "Last-Modified": "Wed, 01 Jan 2020 00:00:00 GMT"}

    def lies(asked):
        return (200, b"data of xxxx", other) if asked.method == "HEAD" and asked.key in store.objects else None

    store.rule = lies
    done = push.run("--move")
    assert set(push.folder.files()) == {"file"}
    assert done.returncode == 1, done
    assert "WARNING" in done.stderr


TRACEBACKS = {
    "nested": "[" * 100_000,
    "a NUL": '{"base_dir": "/tmp/a\\u0000b", "s3_bucket": "to"}',
    "half a character": '{"base_dir": "/tmp/a\\ud800b", "s3_bucket": "to"}',
    "nobody's home": '{"base_dir": "~no-such-user/x", "s3_bucket": "to"}',
}


@pytest.mark.parametrize("how", TRACEBACKS)
def test_a_job_file_that_cannot_be_used_is_told_in_a_line(fake, how):
    push, store = fake
    path = push.folder.path.parent / "config.json"
    path.write_text(TRACEBACKS[how])
    done = push.run(path)
    assert (done.returncode, done.stdout) == (2, ""), done
    assert len(done.stderr.splitlines()) == 1


def test_a_job_file_that_is_not_there_is_named(fake):
    push, _ = fake
    done = push.run(push.folder.path.parent / "config.json")
    assert done.returncode == 2
    assert "config.json" in done.stderr


# Mirror


def test_a_catalogue_in_the_folder_itself_does_not_keep_it_from_being_mirrored(fake):
    """As in `replicator push ~ s3://homes --mirror`: the catalogue's place is in one's home."""
    push, store = fake
    push.folder.fill(5)
    for _ in range(2):
        done = push.run("--mirror", XDG_STATE_HOME=str(push.folder.path / ".local/state"))
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("how", ["unwritable", "garbage", "refusing"])
def test_a_catalogue_that_is_away_is_said_once_whatever_the_number_of_processes(fake, tmp_path, how):
    push, _ = fake
    push.folder.fill()
    done = push.run("--mirror", "--processes", "2", **broken_catalogues(tmp_path)[how])
    assert done.returncode == 0
    assert done.stderr.count("is away") == 1, done.stderr


def test_a_dry_run_makes_no_catalogue(fake):
    push, _ = fake
    push.folder.fill(3)
    assert push.run("--mirror", "--dry-run").returncode == 0
    assert not [path for path in push.state.rglob("*") if path.is_file()]
