"""What is removed from a folder: the file that was uploaded and no other, and folders that are old and empty."""

from __future__ import annotations

import mmap
import os
import shutil
import stat
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from replicator.directory.beneath import Base
from replicator.directory.removal import ASIDE, Surveyed, put_all_back, remove, remove_emptied, survey
from replicator.directory.store import DirectoryStore
from replicator.errors import AccessDenied, ChangedMeanwhile, NoSuchBucket, NoSuchKey, NotAnObject
from tests.folders import CAP_LEASE, put, rewrite_keeping_times, tree, unprivileged

NOW = 1_700_000_000.0
OLD, YOUNG = NOW - 1000, NOW - 1


@pytest.fixture
def base(tmp_path):
    (tmp_path / "base").mkdir()
    return tmp_path / "base"


@pytest.fixture
def file(base):
    return put(base, "folder/file", b"0123456789")


def opened(path):
    return DirectoryStore(Base(path))


async def version_of(store, key="folder/file"):
    return (await store.head(key)).version_id


# Files


async def test_a_file_that_is_as_it_was_read_is_removed_and_nothing_else(base, file):
    tree(base, ["folder/file2", "folder/other", "file"])
    async with opened(base) as store:
        await store.remove("folder/file", await version_of(store))
        assert not file.exists()
        assert sorted(os.listdir(base / "folder")) == ["file2", "other"]
        with pytest.raises(NoSuchKey):
            await store.remove("folder/file", "1-2-3")


async def test_of_two_names_of_a_file_one_is_removed(base, file):
    os.link(file, base / "kept")
    async with opened(base) as store:
        await store.remove("folder/file", await version_of(store))
    assert (file.exists(), (base / "kept").read_bytes()) == (False, b"0123456789")


def grown(path):
    with path.open("ab") as file:
        file.write(b"more")


def rewritten(path):
    rewrite_keeping_times(path, b"9876543210")


def touched(path):
    os.utime(path, (OLD, OLD))


def replaced(path):
    before = path.stat()
    other = put(path.parent, "other", b"9876543210")
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.rename(path)


@pytest.mark.parametrize("change", [grown, rewritten, touched, replaced])
async def test_a_file_that_has_changed_since_it_was_read_stays(base, file, change):
    async with opened(base) as store:
        version = await version_of(store)
        change(file)
        bytes_now = file.read_bytes()
        with pytest.raises(ChangedMeanwhile, match="has changed since"):
            await store.remove("folder/file", version)
        assert file.read_bytes() == bytes_now


@pytest.mark.parametrize("version", [None, "", "made up"])
async def test_a_file_of_which_no_version_was_read_stays(base, file, version):
    async with opened(base) as store:
        with pytest.raises(ChangedMeanwhile):
            await store.remove("folder/file", version)
    assert file.exists()


async def test_a_file_in_the_place_of_which_is_a_link_to_it_stays(base, file):
    async with opened(base) as store:
        version = await version_of(store)
        file.rename(base / "kept")
        file.symlink_to(base / "kept")
        with pytest.raises(NotAnObject):
            await store.remove("folder/file", version)
    assert file.is_symlink()
    assert (base / "kept").exists()


async def test_a_file_behind_a_link_in_the_place_of_its_folder_stays(base, file, tmp_path):
    async with opened(base) as store:
        version = await version_of(store)
        (base / "folder").rename(tmp_path / "outside")
        (base / "folder").symlink_to(tmp_path / "outside")
        for ask in (store.activity, lambda key: store.remove(key, version)):
            with pytest.raises(NotAnObject):
                await ask("folder/file")
    assert (tmp_path / "outside" / "file").exists()


async def test_a_file_of_a_base_in_the_place_of_which_is_another_stays(base, file):
    async with opened(base) as store:
        version = await version_of(store)
        base.rename(base.with_name("before"))
        base.mkdir()
        put(base, "folder/file", b"0123456789")
        with pytest.raises(NoSuchBucket):
            await store.remove("folder/file", version)
    assert file.exists()


def by_a_file(path):
    put(path.parent, "new", b"new").rename(path)


def by_a_link(path):
    path.unlink()
    path.symlink_to("../kept")


def by_a_pipe(path):
    path.unlink()
    os.mkfifo(path)


def by_a_folder(path):
    path.unlink()
    put(path.parent, f"{path.name}/inside")


@pytest.mark.parametrize("replaced", [by_a_file, by_a_link, by_a_pipe, by_a_folder])
def test_what_takes_the_place_of_a_file_after_it_was_looked_at_stays_there(base, file, replaced):
    put(base, "kept")
    placed = []

    def is_the_one(found):
        if not placed:
            replaced(file)
            placed.append(file.lstat())
        return True

    folder = os.open(base / "folder", os.O_RDONLY)
    try:
        with pytest.raises(ChangedMeanwhile):
            remove(folder, "file", "folder/file", is_the_one)
    finally:
        os.close(folder)
    assert os.path.samestat(file.lstat(), placed[0])
    assert os.listdir(base / "folder") == ["file"]


@pytest.mark.parametrize("error", [NotAnObject, ChangedMeanwhile])
def test_what_became_no_file_since_the_look_is_neither_followed_nor_waited_for(base, file, error):
    (base / "odd").symlink_to("folder/file") if error is NotAnObject else os.mkfifo(base / "odd")
    folder = os.open(base, os.O_RDONLY)
    try:
        with pytest.raises(error):
            remove(folder, "odd", "odd", lambda found: stat.S_ISREG(found.st_mode))
    finally:
        os.close(folder)
    assert (base / "odd").lstat()
    assert file.exists()


@pytest.mark.parametrize("mode", [0o555, 0o444, 0o111])
async def test_a_file_in_a_folder_that_may_not_be_written_stays(base, file, mode):
    async with opened(base) as store:
        version = await version_of(store)
    (base / "folder").chmod(mode)
    with unprivileged():
        async with opened(base) as store:
            with pytest.raises(AccessDenied):
                await store.remove("folder/file", version)
    (base / "folder").chmod(0o755)
    assert file.exists()


# Files that somebody writes


@contextmanager
def open_as(path, flags):
    descriptor = os.open(path, flags)
    try:
        yield
    finally:
        os.close(descriptor)


@contextmanager
def mapped_to_write(path):
    """Without a descriptor: the map outlives it."""
    descriptor = os.open(path, os.O_RDWR)
    memory = mmap.mmap(descriptor, 10, mmap.MAP_SHARED)
    os.close(descriptor)
    with memory:
        yield


@contextmanager
def open_by_another_name(path):
    other = path.with_name("other")
    os.link(path, other)
    with open_as(other, os.O_WRONLY):
        yield


@contextmanager
def open_in_another_process(path):
    program = f"import sys; file = open({str(path)!r}, 'ab'); print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        writer.stdout.readline()
        yield
        writer.communicate()


WRITERS = {
    "to write": lambda path: open_as(path, os.O_WRONLY),
    "to read and write": lambda path: open_as(path, os.O_RDWR),
    "to append": lambda path: open_as(path, os.O_WRONLY | os.O_APPEND),
    "mapped": mapped_to_write,
    "by another name": open_by_another_name,
    "in another process": open_in_another_process,
}
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who writes a file")


@on_linux
@pytest.mark.parametrize("how", WRITERS)
async def test_a_file_that_is_open_for_writing_stays_until_it_is_closed(base, file, how):
    async with opened(base) as store:
        with WRITERS[how](file):
            assert (await store.activity("folder/file")).written
            with pytest.raises(ChangedMeanwhile, match="open for writing"):
                await store.remove("folder/file", await version_of(store))
            assert file.read_bytes() == b"0123456789"
        assert not (await store.activity("folder/file")).written
        await store.remove("folder/file", await version_of(store))
        assert not file.exists()


@on_linux
@pytest.mark.parametrize("how", ["open", "mapped"])
async def test_a_file_that_is_only_read_by_others_is_removed_and_they_read_on(base, file, how):
    with file.open("rb") as reader:
        memory = mmap.mmap(reader.fileno(), 10, prot=mmap.PROT_READ) if how == "mapped" else None
        async with opened(base) as store:
            assert not (await store.activity("folder/file")).written
            await store.remove("folder/file", await version_of(store))
        assert not file.exists()
        assert (memory.read() if memory else reader.read()) == b"0123456789"


@on_linux
async def test_asking_who_writes_a_file_keeps_nobody_from_writing_it(base, file):
    async with opened(base) as store:
        for _ in range(100):
            assert not (await store.activity("folder/file")).written
            with open_as(file, os.O_RDWR | os.O_NONBLOCK):  # refused at once if a lease were left
                pass


LOOKED_AT = """
import os, subprocess, sys
from replicator.directory.removal import _has_writer

descriptor = os.open(sys.argv[1], os.O_RDONLY)
print(_has_writer(descriptor))
opening = "import os, sys; os.open(sys.argv[1], os.O_WRONLY | os.O_NONBLOCK)"
refused = subprocess.run([sys.executable, "-c", opening, sys.argv[1]], capture_output=True)
print(b"BlockingIOError" in refused.stderr)
os.close(descriptor)
print(subprocess.run([sys.executable, "-c", opening, sys.argv[1]]).returncode)
"""


@on_linux
def test_who_wants_to_write_a_file_while_it_is_looked_at_waits_and_ends_nobody(file):
    ran = subprocess.run([sys.executable, "-c", LOOKED_AT, file], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout.split(), ran.stderr) == (0, ["False", "True", "0"], "")


@on_linux
async def test_of_a_file_of_another_user_it_cannot_be_told_and_only_its_version_counts(base, file):
    if os.geteuid() != 0:
        pytest.skip("needs root")
    os.chown(file, 65534, 65534)
    with unprivileged(CAP_LEASE), file.open("ab"):
        async with opened(base) as store:
            assert (await store.activity("folder/file")).written is None
            with pytest.raises(ChangedMeanwhile):
                await store.remove("folder/file", "made up")
            await store.remove("folder/file", await version_of(store))
    assert not file.exists()


# What a crash leaves aside


def put_back(base):
    """As a run begins; what could not be."""
    opened_base = Base(base)
    return put_all_back(opened_base, survey(opened_base, NOW).aside)


async def test_a_file_that_a_crash_left_aside_is_not_replaced_by_the_next_one_of_its_name(base, file):
    """In a container every process has the same number, and so the same folder to take files aside."""
    aside = put(base / "folder", f"{ASIDE}{os.getpid()}/file", b"nowhere else")
    assert put_back(base) == [f"folder/{aside.parent.name}/file"]
    async with opened(base) as store:
        await store.remove("folder/file", await version_of(store))
    assert (file.exists(), aside.read_bytes()) == (False, b"nowhere else")
    assert put_back(base) == []
    assert file.read_bytes() == b"nowhere else"


def test_a_file_that_was_being_put_back_when_a_run_was_killed_is_one_file_again(base, file):
    aside = put(base / "folder", f"{ASIDE}1/another").with_name("file")
    os.link(file, aside)
    assert put_back(base) == []
    assert sorted(os.listdir(base / "folder")) == ["another", "file"]
    assert file.stat().st_nlink == 1


CUT_OFF = """
import os, sys
from replicator.directory.removal import remove
from replicator.errors import ChangedMeanwhile

STEPS = ("os.mkdir", "os.rename", "os.link", "os.remove", "os.rmdir")
left = int(sys.argv[1])

def step(event, arguments):
    global left
    left -= event in STEPS
    if left < 0:
        os._exit(9)

def is_the_one(found):
    if len(sys.argv) > 2:
        os.rename(sys.argv[2], "file")
    sys.addaudithook(step)
    return True

try:
    remove(os.open(".", os.O_RDONLY), "file", "file", is_the_one)
except ChangedMeanwhile:
    pass
"""


@pytest.mark.parametrize("steps", range(6))
@pytest.mark.parametrize("replaced", [False, True], ids=["the one", "replaced"])
def test_wherever_a_removal_is_cut_off_the_next_run_finds_all_that_was_not_removed(base, replaced, steps):
    put(base, "file", b"uploaded")
    if replaced:
        put(base, "other", b"nowhere else")
    command = [sys.executable, "-c", CUT_OFF, str(steps), *(["other"] if replaced else [])]
    cut_off = subprocess.run(command, cwd=base, env={**os.environ, "PYTHONPATH": os.getcwd()}, check=False).returncode
    assert cut_off in ((0, 9) if steps > 2 else (9,))
    assert put_back(base) == []
    found = {str(path.relative_to(base)): path.read_bytes() for path in base.rglob("*") if path.is_file()}
    assert found == ({"file": b"nowhere else"} if replaced else {"file": b"uploaded"} if steps < 3 else {})
    assert not list(base.rglob(f"{ASIDE}*"))


@pytest.fixture
def full(base):
    """A full disk with two files."""
    mount = ["mount", "-t", "tmpfs", "-o", "nr_inodes=3", "none", base]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("needs the right to mount")
    put(base, "file", b"0123456789")
    put(base, "other", b"9876543210")
    with pytest.raises(OSError, match="No space"):
        put(base, "third")
    yield base
    subprocess.run(["umount", "-l", base], capture_output=True, check=True)


async def test_files_are_removed_from_a_full_disk(full):
    """Which needs it most: there is no room for the folder in which they are taken aside."""
    async with opened(full) as store:
        await store.remove("file", await version_of(store, "file"))
        await store.remove("other", await version_of(store, "other"))
    assert os.listdir(full) == []


def test_what_takes_the_place_of_a_file_on_a_full_disk_stays_there(full):
    descriptor = os.open(full, os.O_RDONLY)

    def is_the_one(found):
        (full / "other").rename(full / "file")
        return True

    try:
        with pytest.raises(ChangedMeanwhile, match="another file"):
            remove(descriptor, "file", "file", is_the_one)
    finally:
        os.close(descriptor)
    assert [(one.name, one.read_bytes()) for one in full.iterdir()] == [("file", b"9876543210")]


def test_what_a_crash_left_aside_on_a_full_disk_is_put_back_unless_another_file_is_there(full):
    (full / "file").rename(full / f"{ASIDE}file")
    assert put_back(full) == []
    (full / "file").rename(full / f"{ASIDE}other")
    assert put_back(full) == [f"{ASIDE}other"]
    assert sorted(one.read_bytes() for one in full.iterdir()) == [b"0123456789", b"9876543210"]


# Folders


def all_of_them(prefix):
    return True


def folders(base, *prefixes, moment=OLD):
    """Empty folders; all of that age, and those that they are in."""
    for prefix in prefixes:
        (base / prefix).mkdir(parents=True, exist_ok=True)
    for path, _, _ in os.walk(base, topdown=False):
        os.utime(path, (moment, moment))


def older(base, moment=NOW - 30):
    return survey(Base(base), moment).old


def test_folders_in_which_nothing_was_changed_for_long_are_found_parents_first(base):
    folders(base, "a/b/c", "a-b", "z")
    found = older(base)
    assert sorted(found) == ["a-b/", "a/", "a/b/", "a/b/c/", "z/"]
    assert found.index("a/") < found.index("a/b/") < found.index("a/b/c/")


def test_a_folder_in_which_something_was_changed_just_now_is_left_out_but_not_what_it_is_in(base):
    folders(base, "a/young/b", "z")
    os.utime(base / "a/young", (YOUNG, YOUNG))
    assert sorted(older(base)) == ["a/", "a/young/b/", "z/"]


def test_a_folder_that_was_changed_at_the_moment_itself_is_left_out(base):
    folders(base, "a")
    assert (older(base, OLD), older(base, OLD + 1)) == ([], ["a/"])


def test_the_base_and_what_links_lead_to_are_never_found(base, tmp_path):
    folders(tmp_path, "outside/deep", "base/a")
    (base / "a" / "link").symlink_to(tmp_path / "outside")
    (base / "loop").symlink_to(".")
    os.utime(base / "a", (OLD, OLD))
    assert older(base) == ["a/"]


@pytest.mark.parametrize(("mode", "found"), [(0, ["z/"]), (0o400, ["closed/", "z/"]), (0o100, ["z/"])])
def test_folders_that_cannot_be_listed_are_left_out(base, mode, found):
    folders(base, "closed/deep", "z")
    (base / "closed").chmod(mode)
    with unprivileged():
        assert sorted(older(base)) == found
    (base / "closed").chmod(0o755)


def test_empty_folders_are_removed_children_first_and_the_base_stays(base):
    folders(base, "a/b/c", "a-b", "a0/b", "line\nbreak/ü", "d/" * 150)
    found = older(base)
    assert sorted(remove_emptied(Base(base), found, all_of_them)) == sorted(found)
    assert os.listdir(base) == []


def test_folders_that_hold_anything_stay_and_so_do_those_they_are_in(base, tmp_path):
    folders(base, "a/b/full", "a/b/link", "a/gone", "a/pipe", "a/young")
    put(base, "a/b/full/file")
    (base / "a/b/link/to").symlink_to("nowhere")
    os.mkfifo(base / "a/pipe/pipe")
    os.utime(base / "a/young", (YOUNG, YOUNG))
    found = [prefix for prefix in older(base, time.time() + 1000) if prefix != "a/young/"]
    assert len(found) == 6
    assert remove_emptied(Base(base), found, all_of_them) == ["a/gone/"]
    assert sorted(os.listdir(base / "a")) == ["b", "pipe", "young"]
    assert (base / "a/b/full/file").exists()


def test_what_is_no_folder_any_more_stays_and_what_is_gone_is_no_error(base, tmp_path):
    folders(base, "file", "gone", "link", "parent/link/empty", "z")
    found = older(base)
    (base / "file").rmdir()
    put(base, "file")
    (base / "gone").rmdir()
    folders(tmp_path, "outside/empty")
    shutil.rmtree(base / "parent/link")
    (base / "link").rmdir()
    for link in (base / "link", base / "parent/link"):
        link.symlink_to(tmp_path / "outside")
    assert remove_emptied(Base(base), found, all_of_them) == ["z/"]
    assert (tmp_path / "outside/empty").is_dir()
    assert (base / "file").is_file()
    assert (base / "link").is_symlink()


def test_folders_in_one_that_may_not_be_written_stay_and_others_are_removed(base):
    folders(base, "closed/a", "z")
    found = older(base)
    (base / "closed").chmod(0o555)
    with unprivileged():
        assert remove_emptied(Base(base), found, all_of_them) == ["z/"]
    (base / "closed").chmod(0o755)
    assert (base / "closed/a").is_dir()


def test_folders_of_a_base_in_the_place_of_which_is_another_stay(base):
    folders(base, "a/b")
    kept, found = Base(base), older(base)
    base.rename(base.with_name("before"))
    folders(base, "a/b")
    with pytest.raises(NoSuchBucket):
        remove_emptied(kept, found, all_of_them)
    assert (base / "a/b").is_dir()


def test_that_a_base_is_gone_finds_no_folder(base):
    folders(base, "a/b")
    kept = Base(base)
    base.rename(base.with_name("before"))
    assert survey(kept, NOW) == Surveyed()
