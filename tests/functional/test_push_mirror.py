"""`replicator push --mirror`: the bucket becomes equal to the folder, the folder stays as it is."""

from __future__ import annotations

import os
import re
import shutil
import socket
import sqlite3
import threading
from contextlib import contextmanager

import pytest

from replicator.model import MiB
from tests.awkward import AWKWARD_KEYS
from tests.fakes.watched_s3 import watched
from tests.pushes import WITHOUT_PRIVILEGES, Push, lines_of, push_to, until
from tests.servers.base import free_port
from tests.servers.meter import metered


@pytest.fixture
def mirror(tmp_path, rclone_endpoint):
    return push_to(tmp_path, rclone_endpoint)


@pytest.fixture
def rgw_mirror(tmp_path, rgw_endpoint):
    return push_to(tmp_path, rgw_endpoint)


@pytest.fixture
def fake(tmp_path):
    with watched() as store:
        yield Push(tmp_path, store.url), store


def well(done):
    assert (done.returncode, done.stderr) == (0, ""), done
    return done


# What a person expects of it


def test_new_changed_and_deleted_files_end_up_at_the_bucket_and_the_folder_is_as_it_was(mirror):
    push, bucket = mirror
    push.folder.fill()
    push.folder.write("empty", b"")
    before = push.folder.snapshot()
    well(push.run("--mirror"))
    assert bucket.objects() == push.folder.files()
    assert push.folder.snapshot() == before
    push.folder.write("dir 0/new")
    push.folder.write("dir 1/file 001", b"changed")
    (push.folder.path / "dir 2/file 002").unlink()
    shutil.rmtree(push.folder.path / "dir 0")
    before = push.folder.snapshot()
    well(push.run("--mirror"))
    assert bucket.objects() == push.folder.files()
    assert push.folder.snapshot() == before


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_a_second_run_opens_no_file_and_asks_for_listings_only(fake, tmp_path):
    push, store = fake
    push.folder.fill(40)

    def opened(number):
        trace = tmp_path / f"trace {number}"
        push.before = ("strace", "-f", "-qq", "-e", "trace=open,openat,openat2", "-o", str(trace))
        well(push.run("--mirror"))
        return set(re.findall(r'"[^"]*(file \d{3})"', trace.read_text()))

    assert len(opened(1)) == 40  # so that this is a way to see it
    assert len(store.of("PUT")) == 40
    store.log.clear()
    assert opened(2) == set()
    assert {one.method for one in store.log} == {"GET"}
    assert [one for one in store.log if one.key] == []
    assert len(store.log) <= 4


def test_bytes_that_change_behind_an_old_size_and_time_are_noticed(fake):
    push, store = fake
    path = push.folder.write("disk image", b"one")
    well(push.run("--mirror"))
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    path.write_bytes(b"two")
    os.utime(path, ns=times)
    well(push.run("--mirror"))
    assert store.objects == {"disk image": b"two"}


def test_a_file_put_in_the_place_of_another_of_the_same_size_and_time_is_noticed(fake):
    push, store = fake
    path = push.folder.write("file", b"one")
    other = push.folder.write("other", b"two")
    well(push.run("--mirror"))
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    other.replace(path)
    well(push.run("--mirror"))
    assert store.objects == {"file": b"two"}


def test_a_file_that_was_touched_only_is_not_sent_again(fake):
    push, store = fake
    push.folder.fill(5)
    well(push.run("--mirror"))
    store.log.clear()
    for path in push.folder.path.rglob("file*"):
        os.utime(path)
    well(push.run("--mirror"))
    assert store.of("PUT") == store.of("DELETE") == store.of("GET") == []


def test_objects_that_another_tool_put_there_are_not_sent_again(fake):
    push, store = fake
    push.folder.fill(5)
    store.objects = push.folder.files()
    well(push.run("--mirror"))
    assert store.of("PUT") == []


def test_an_object_that_somebody_else_changed_is_put_right(fake):
    push, store = fake
    push.folder.fill(5)
    well(push.run("--mirror"))
    store.objects["dir 0/file 000"] = b"data of nobody's file x"
    well(push.run("--mirror"))
    assert store.objects == push.folder.files()


@pytest.mark.slow
def test_a_large_file_that_another_tool_cut_otherwise_is_not_sent_again(rgw_mirror, rgw_endpoint):
    push, bucket = rgw_mirror
    data = os.urandom(40 * MiB + 5)
    push.folder.write("large", data)
    upload = bucket.client.create_multipart_upload(Bucket=bucket.name, Key="large")["UploadId"]
    where = {"Bucket": bucket.name, "Key": "large", "UploadId": upload}
    parts = [
        {
            "PartNumber": number,
            "ETag": bucket.client.upload_part(PartNumber=number, Body=data[start : start + 8 * MiB], **where)["ETag"],
        }
        for number, start in enumerate(range(0, len(data), 8 * MiB), 1)
    ]
    bucket.client.complete_multipart_upload(MultipartUpload={"Parts": parts}, **where)
    etags = bucket.etags()
    with metered(rgw_endpoint.url) as meter:
        for _ in range(2):
            well(push.run("--mirror", TARGET_ENDPOINT=meter.url))
    assert meter.sent < MiB
    assert bucket.etags() == etags


@pytest.mark.slow
def test_a_large_file_is_sent_in_parts_and_once(rgw_mirror, rgw_endpoint):
    push, bucket = rgw_mirror
    push.folder.write("large", os.urandom(70 * MiB))
    with metered(rgw_endpoint.url) as meter:
        for _ in range(2):
            well(push.run("--mirror", TARGET_ENDPOINT=meter.url))
    assert bucket.objects() == push.folder.files()
    assert 70 * MiB < meter.sent < 72 * MiB


# The bar: everything that can be in a folder

FILE_NAMES = sorted(
    {
        name
        for key in AWKWARD_KEYS
        for name in [f"plain/{key.strip('/').replace('/', '_')}"]
        if key not in ("...",) and len(name.encode()) < 255
    }
    | {"deep/" * 50 + "file", "...", ".hidden", "~", "-rf", "*", "CON", "a.", "name.swp", ".git/HEAD", "x.part"}
    | {f"many/{n % 7}/{n:03}" for n in range(200)}
)


def fill_with_everything(folder):
    """Builds the tree; what its report has to say of each key, by (action, a word of the reason)."""
    expected = {}
    for name in FILE_NAMES:
        folder.write(name)
        expected[name] = ("copied", "not at the target")
    path = folder.path
    for name, target in {"link": "plain", "link to file": "-rf", "broken link": "nowhere", "loop": "loop"}.items():
        (path / name).symlink_to(target)
        expected[name] = ("skipped", "a symbolic link")
    (path / "many/link up").symlink_to("..")
    expected["many/link up"] = ("skipped", "a symbolic link")
    os.mkfifo(path / "pipe")
    expected["pipe"] = ("skipped", "a named pipe")
    make_socket(path, "socket")
    expected["socket"] = ("skipped", "a socket")
    latin = os.fsdecode(b"latin-\xe9")
    (path / latin).write_bytes(b"x")
    expected[latin] = ("failed", "not UTF-8")
    long = "/".join(["l" * 200] * 6)
    folder.write(long)
    expected[long] = ("failed", "1024")
    (path / "empty folder/in it").mkdir(parents=True)
    folder.write("secret").chmod(0)
    expected["secret"] = ("failed", "Permission denied")
    folder.write("closed/inside")
    (path / "closed").chmod(0)
    expected["closed/"] = ("failed", "cannot be listed")
    folder.write("not to be entered/inside")
    (path / "not to be entered").chmod(0o644)
    expected["not to be entered/inside"] = ("failed", "Permission denied")
    return expected


def make_socket(folder, name):
    """By a way around the 107 bytes that the path of a socket may have."""
    descriptor = os.open(folder, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"/proc/self/fd/{descriptor}/{name}")
    os.close(descriptor)


@contextmanager
def restless(folder):
    """A file that is written anew all the time, and one that comes and goes; yields what was written to the first."""
    ended, written = threading.Event(), [b""]

    def work():
        while not ended.is_set():
            written.append(b"%08d" % len(written) * 1000)
            (folder.path / "busy").write_bytes(written[-1])
            (folder.path / "fleeting").write_bytes(b"")
            (folder.path / "fleeting").unlink()

    worker = threading.Thread(target=work)
    worker.start()
    try:
        yield written
    finally:
        ended.set()
        worker.join()
        (folder.path / "busy").unlink()


def but_for_times(snapshot, folder):
    """The snapshot of a folder, but for the times of the folder itself."""
    return {path: state for path, state in snapshot.items() if path != os.fsencode(f"{folder.path}/")}


@pytest.mark.slow
def test_each_of_300_awkward_things_has_an_outcome_of_its_own_and_stops_nothing_else(rgw_mirror, tmp_path):
    push, bucket = rgw_mirror
    push.before = WITHOUT_PRIVILEGES
    expected = fill_with_everything(push.folder)
    before = push.folder.snapshot()
    with restless(push.folder) as written:
        done = push.run("--mirror", "--report", tmp_path / "report", seconds=300)
    assert done.returncode == 1, done
    first = {}
    for line in lines_of(tmp_path / "report"):
        first.setdefault(line["key"], (line["action"], line["reason"]))
    busy = [first.pop(key, None) for key in ("busy", "fleeting")]
    assert {key: action for key, (action, _) in first.items()} == {key: action for key, (action, _) in expected.items()}
    assert [first[key] for key, (_, word) in expected.items() if word not in first[key][1]] == []
    objects = bucket.objects()
    assert objects.pop("busy", b"") in written, busy  # never half of one
    assert objects.pop("fleeting", b"") == b"", busy
    assert objects == {key: f"data of {key}".encode() for key, (action, _) in expected.items() if action == "copied"}
    assert but_for_times(push.folder.snapshot(), push.folder) == but_for_times(before, push.folder)


# What must not happen


@pytest.mark.slow
def test_keys_are_compared_in_the_order_of_s3_and_not_in_that_of_folders(fake):
    push, store = fake
    names = [
        "a",
        "a-b",
        "a/b",
        "a/b-c",
        "a/b/c",
        "a/b.d",
        "a0",
        "a.b/c",
        "a b/c",
        "B",
        "b",
        "ä/z",
        "z",
        "\U0001f600",
        "￿",
    ]
    for name in names:
        if not any(other.startswith(f"{name}/") for other in names):
            push.folder.write(name)
    for number in range(1200):  # more than a page
        push.folder.write(f"c-{number:04}")
        push.folder.write(f"c/{number:04}")
    well(push.run("--mirror", "--max-delete", "100%"))
    assert store.objects == push.folder.files()
    assert len(store.of("PUT")) == len(store.objects)
    store.log.clear()
    for _ in range(2):
        well(push.run("--mirror", "--max-delete", "100%"))
    assert store.objects == push.folder.files()
    assert not [one for one in store.log if one.key]  # out of order, keys would look gone at one side or the other


@pytest.mark.parametrize("options", [[], ["--max-delete", "100%"], ["--max-delete", "1000"], ["--trash", "bin"]])
def test_an_empty_folder_deletes_nothing_whatever_is_allowed(fake, options):
    push, store = fake
    store.objects = {"precious": b"x"}
    (push.folder.path / "only/folders").mkdir(parents=True)
    done = push.run("--mirror", *options)
    assert done.returncode == 3
    (line,) = done.stderr.splitlines()
    assert "nothing was deleted" in line
    assert store.objects == {"precious": b"x"}
    assert store.of("DELETE") == store.of("PUT") == []


def test_many_deletes_are_refused_until_they_are_asked_for_by_number_and_new_files_go_all_the_same(fake):
    push, store = fake
    push.folder.fill(30)
    store.objects = {f"gone {n:03}": b"x" for n in range(120)}
    done = push.run("--mirror")
    assert done.returncode == 3
    (line,) = done.stderr.splitlines()
    assert "--max-delete 120" in line
    assert store.of("DELETE") == []
    assert len(store.objects) == 150
    well(push.run("--mirror", "--max-delete", "120"))
    assert store.objects == push.folder.files()


@pytest.mark.parametrize(("limit", "code"), [("2", 3), ("3", 0), ("9%", 3), ("10%", 0)])
def test_a_limit_is_kept_to_the_object(fake, limit, code):
    push, store = fake
    push.folder.fill(27)
    store.objects = {**push.folder.files(), **{f"gone {n}": b"x" for n in range(3)}}
    assert push.run("--mirror", "--max-delete", limit).returncode == code
    assert len(store.objects) == (30 if code else 27)


def test_what_is_deleted_goes_to_the_trash(rgw_mirror):
    push, bucket = rgw_mirror
    push.folder.fill(3)
    bucket.put("gone/away", b"precious")
    for _ in range(2):
        well(push.run("--mirror", "--trash", "bin"))
    objects = bucket.objects()
    (kept,) = [key for key in objects if key.startswith("bin/")]
    assert kept.endswith("/gone/away")
    assert objects.pop(kept) == b"precious"
    assert objects == push.folder.files()


def test_a_folder_that_became_a_link_deletes_nothing(fake, tmp_path):
    push, store = fake
    push.folder.fill()
    well(push.run("--mirror"))
    (push.folder.path / "dir 1").rename(tmp_path / "on another disk")
    (push.folder.path / "dir 1").symlink_to(tmp_path / "on another disk")
    before = dict(store.objects)
    done = push.run("--mirror", "--max-delete", "100%")
    assert store.objects == before
    assert "symbolic link" in done.stderr


def test_what_cannot_be_read_is_not_deleted(fake):
    push, store = fake
    push.before = WITHOUT_PRIVILEGES
    push.folder.fill()
    push.folder.write("dir 3/secret")
    well(push.run("--mirror"))
    before = dict(store.objects)
    (push.folder.path / "dir 0").chmod(0)
    (push.folder.path / "dir 1").chmod(0o644)
    (push.folder.path / "dir 3/secret").chmod(0)
    done = push.run("--mirror", "--max-delete", "100%")
    assert done.returncode == 1, done
    assert store.objects == before
    assert store.of("DELETE") == []


@pytest.mark.parametrize("mode", [None, 0, 0o311, 0o644])
def test_a_folder_that_is_not_there_or_may_not_be_read_is_named_and_nothing_is_done(fake, mode):
    push, store = fake
    push.before = WITHOUT_PRIVILEGES
    store.objects = {"precious": b"x"}
    if mode is None:
        push.folder.path.rmdir()
    else:
        push.folder.write("file")
        push.folder.path.chmod(mode)
    done = push.run("--mirror", "--max-delete", "100%")
    assert done.returncode == (1 if mode == 0o644 else 2), done
    assert str("file" if mode == 0o644 else push.folder.path) in done.stderr
    assert store.objects == {"precious": b"x"}
    assert store.of("DELETE") == store.of("PUT") == []


def test_a_disk_that_is_unmounted_during_the_run_deletes_nothing(tmp_path):
    """As the folder sees it: in its place is another one, empty."""
    with watched() as store:
        push = Push(tmp_path, store.url)
        push.folder.fill(30)
        store.objects = {**push.folder.files(), **{f"gone {n}": b"x" for n in range(5)}}
        before = dict(store.objects)
        moved = threading.Event()

        def unmount(asked):
            if asked.page is not None and not moved.is_set():
                moved.set()
                push.folder.path.rename(tmp_path / "elsewhere")
                push.folder.path.mkdir()

        store.rule = unmount
        done = push.run("--mirror", "--processes", "1", "--max-delete", "100%")
        assert moved.is_set()
        assert done.returncode == 1
        assert "unmounted" in done.stderr
        assert store.objects == before


def test_a_target_that_is_not_there_or_takes_no_such_keys_is_told_in_a_line(mirror, rgw_endpoint):
    push, bucket = mirror
    push.folder.fill(3)
    before = push.folder.snapshot()
    missing = push.run(push.folder.path, "s3://no-such-bucket-here", "--mirror")
    assert missing.returncode == 2
    (line,) = missing.stderr.splitlines()
    assert "no such bucket" in line
    strangers = {"TARGET_ENDPOINT": rgw_endpoint.url, "AWS_ACCESS_KEY_ID": "nobody"}
    wrong = push.run(push.folder.path, "s3://any-bucket", "--mirror", **strangers)
    assert wrong.returncode == 2
    (line,) = wrong.stderr.splitlines()
    assert "access denied" in line
    nowhere = push.run("--mirror", TARGET_ENDPOINT=f"http://127.0.0.1:{free_port()}")
    assert nowhere.returncode == 2
    assert len(nowhere.stderr.splitlines()) == 1
    assert push.folder.snapshot() == before
    assert bucket.objects() == {}


def test_a_service_that_refuses_some_files_names_them_with_its_reason_and_takes_the_others(fake):
    push, store = fake
    push.folder.fill()
    refused = (403, b"<Error><Code>AccessDenied</Code><Message>not on a Sunday</Message></Error>", {})
    store.rule = lambda asked: refused if asked.method == "PUT" and asked.key.startswith("dir 1/") else None
    done = push.run("--mirror")
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert all("not on a Sunday" in line and "WARNING" in line for line in lines)
    assert set(re.findall(r"dir 1/file \d{3}", done.stderr)) == {f"dir 1/file {n:03}" for n in range(1, 20, 3)}
    assert {key for key in push.folder.files() if not key.startswith("dir 1/")} == set(store.objects)


# A dry run, filters, headers


def test_a_dry_run_says_all_and_changes_nothing_anywhere(fake, tmp_path):
    push, store = fake
    push.folder.fill(5)
    store.objects = {"gone": b"x", "dir 0/file 000": b"other"}
    before = push.folder.snapshot()
    done = well(push.run("--mirror", "--dry-run"))
    said = [line for line in done.stdout.splitlines() if line.startswith("(dry run)")]
    assert len([line for line in said if "(dry run) copied" in line]) == 5
    assert len([line for line in said if "(dry run) deleted" in line]) == 1
    assert store.of("PUT") == store.of("DELETE") == store.of("POST") == []
    assert push.folder.snapshot() == before


def test_what_is_excluded_is_neither_sent_nor_deleted(fake):
    push, store = fake
    for name in ("a.log", "b.txt", "cache/c.txt", "cache/keep.me"):
        push.folder.write(name)
    store.objects = {"old.log": b"x", "old.txt": b"x", "cache/old": b"x"}
    well(push.run("--mirror", "--exclude", "*.log", "--exclude", "cache/*", "--include", "*/keep.me"))
    assert set(store.objects) == {"old.log", "cache/old", "b.txt", "cache/keep.me"}


COMMON = ("--header", "Cache-Control: max-age=300", "--metadata", "owner=me")


def test_headers_that_change_lead_to_new_metadata_once_and_send_no_bytes_again(rgw_mirror, rgw_endpoint):
    push, bucket = rgw_mirror
    push.folder.write("page.html", b"<p>" * 20_000)
    push.folder.write("style.css")
    push.folder.write("no type", b"x" * 50_000)
    with metered(rgw_endpoint.url) as meter:
        push.environment["TARGET_ENDPOINT"] = meter.url
        well(push.run("--mirror"))
        first = bucket.client.head_object(Bucket=bucket.name, Key="page.html")
        assert first["ContentType"] == "text/html"
        before = meter.sent
        for options, updated in ((COMMON, True), (COMMON, False), ((), True), ((), False), (COMMON, True)):
            done = well(push.run("--mirror", *options))
            assert bool(re.search(r"metadata updated +3", done.stdout)) is updated
            state = bucket.client.head_object(Bucket=bucket.name, Key="style.css")
            assert state.get("CacheControl") == ("max-age=300" if options else None)
        assert meter.sent - before < 60_000
    for key, kind in (("page.html", "text/html"), ("style.css", "text/css")):
        state = bucket.client.head_object(Bucket=bucket.name, Key=key)
        assert (state["CacheControl"], state["Metadata"], state["ContentType"]) == (
            "max-age=300",
            {"owner": "me"},
            kind,
        )
    assert bucket.objects() == push.folder.files()


# A catalogue that is broken


def broken_catalogues(tmp_path):
    garbage, locked = tmp_path / "garbage", tmp_path / "locked"
    for place in (garbage, locked):
        (place / "replicator").mkdir(parents=True)
    (garbage / "replicator/catalog.db").write_bytes(b"this is no database " * 1000)
    return {
        "unwritable": {"XDG_STATE_HOME": "/dev/null/state"},
        "garbage": {"XDG_STATE_HOME": str(garbage)},
        "refusing": {"DATABASE_URL": f"postgresql://me:hunter2@127.0.0.1:{free_port()}/catalogue"},
    }


@pytest.mark.parametrize("processes", ["1", "2"])
@pytest.mark.parametrize("how", ["unwritable", "garbage", "refusing"])
def test_a_catalogue_that_is_broken_stops_no_upload_and_is_said_without_secrets(fake, tmp_path, how, processes):
    push, store = fake
    push.folder.fill()
    variables = broken_catalogues(tmp_path)[how]
    for _ in range(2):
        done = push.run("--mirror", "--processes", processes, **variables)
        assert done.returncode == 0, done
        assert store.objects == push.folder.files()
        assert done.stderr
        assert all("catalogue" in line for line in done.stderr.splitlines())
        assert "hunter2" not in done.stderr + done.stdout
    assert len(store.of("PUT")) == 20


@pytest.mark.slow
def test_a_catalogue_that_somebody_has_locked_stops_no_upload(fake):
    push, store = fake
    push.folder.fill(5)
    well(push.run("--mirror"))
    with sqlite3.connect(push.state / "replicator/catalog.db") as other:
        other.execute("begin exclusive")
        push.folder.write("new")
        done = push.run("--mirror")
        assert done.returncode == 0, done
    assert store.objects == push.folder.files()
    assert until(lambda: well(push.run("--mirror")), seconds=30)
