"""A folder as a source: what is in it is listed in the order of keys, and nothing in it is taken for absent.

What a file's bytes and ETag are is in test_directory_digests.py, its attributes are in test_directory_attributes.py.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import unicodedata
from contextlib import suppress
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st

from replicator.bulk.splitting import LAST
from replicator.directory.beneath import Base
from replicator.directory.store import DirectoryStore
from replicator.errors import (
    AccessDenied,
    ChangedMeanwhile,
    ConfigurationError,
    NoSuchBucket,
    NoSuchKey,
    NotAnObject,
    Rejected,
    StoreError,
)
from tests.folders import counting_opens, keys_of, put, tree, unprivileged

LIMIT = 1 << 20


def anything(key):
    return True


NEIGHBOURS = ("a-b", "a.b/x", "a/b", "a/b-c", "a/b.d/e", "a/b0", "a0", "a b/c", "a+b", "ab/c/d", "ab/c-d", "A")
STRANGE = (
    " leading",
    "trailing ",
    "plus+sign",
    "percent%20",
    "percent%",
    "control-\x01\x1f\x7f",
    "line\nbreak",
    "tab\tcr\r",
    "back\\slash",
    "quote'\"`",
    "...",
    ".hidden/.too",
    "-rf",
    "~",
    unicodedata.normalize("NFC", "é/nfc"),
    unicodedata.normalize("NFD", "é/nfd"),
    "日本語/キー",
    "\ue000 private use",
    "\uffff at the end of the plane",
    "\U0001f600/under a face",
    "\U0010ffff",
    "n" * 255,
    "ü" * 127 + "/" + "\U0001f600" * 63,
)
EVERYTHING = sorted({*NEIGHBOURS, *STRANGE}, key=str.encode)

ALL_WAYS = {
    "check": lambda store, key: store.check(),
    "head": lambda store, key: store.head(key),
    "part": lambda store, key: store.head(key, part=1),
    "fetch": lambda store, key: store.fetch(key, limit=LIMIT),
    "confirm_absent": lambda store, key: store.confirm_absent(key),
    "list": lambda store, key: keys_of(store),
    "list after": lambda store, key: keys_of(store, after=key),
    "adopt": lambda store, key: store.adopt(key, "0" * 32),
    "is_empty": lambda store, key: store.is_empty(anything),
    "activity": lambda store, key: store.activity(key),
    "remove": lambda store, key: store.remove(key, "1-2-3"),
}
OF_A_KEY = {way: ALL_WAYS[way] for way in ("head", "part", "fetch", "adopt", "activity", "remove")}


@pytest.fixture
def base(tmp_path):
    (tmp_path / "base").mkdir()
    return tmp_path / "base"


def opened(path):
    return DirectoryStore(Base(path))


# Listing


@pytest.mark.parametrize("page_size", [1, 2, 7, 1000])
async def test_everything_is_listed_in_the_order_of_utf_8_bytes(base, page_size):
    tree(base, EVERYTHING)
    async with opened(base) as store:
        assert await keys_of(store, page_size=page_size) == EVERYTHING


@pytest.mark.parametrize("page_size", [1, 2, 1000])
async def test_a_listing_goes_on_after_every_key_and_every_text_near_one(base, page_size):
    tree(base, EVERYTHING)
    near = {text for key in EVERYTHING for text in (key, key[:-1], key + "/", key + "\x01", key + LAST, key + "/x")}
    async with opened(base) as store:
        for after in near:
            rest = [key for key in EVERYTHING if key > after]
            assert await keys_of(store, after, page_size) == rest, after


async def test_what_is_listed_can_be_read_and_is_not_absent(base):
    tree(base, EVERYTHING)
    async with opened(base) as store:
        for key in await keys_of(store):
            assert bytes((await store.fetch(key, limit=LIMIT)).data) == key.encode()
            with pytest.raises(ChangedMeanwhile):
                await store.confirm_absent(key)


async def test_thousands_of_files_in_one_folder_come_in_order(base):
    keys = sorted([f"many/{number}" for number in range(3000)] + [f"many/{number}-/x" for number in range(0, 3000, 97)])
    tree(base, keys)
    async with opened(base) as store:
        assert await keys_of(store, page_size=64) == keys
        assert await keys_of(store, after=keys[1500]) == keys[1501:]


async def test_a_tree_of_300_levels_is_walked_and_read(base):
    keys = ["d/" * level + "f" for level in range(300)]
    tree(base, keys)
    async with opened(base) as store:
        assert await keys_of(store) == sorted(keys)
        assert await keys_of(store, after="d/" * 150) == sorted(key for key in keys if key > "d/" * 150)
        assert bytes((await store.fetch(keys[-1], limit=LIMIT)).data) == keys[-1].encode()


async def test_a_path_longer_than_the_system_takes_is_listed_and_refused_for_its_length(base):
    key = ("d" * 200 + "/") * 30 + "f"
    put(base, key)
    put(base, "z")
    async with opened(base) as store:
        assert await keys_of(store) == [key, "z"]
        for ask in (*OF_A_KEY.values(), ALL_WAYS["confirm_absent"]):
            with pytest.raises(Rejected, match="6031 bytes"):
                await ask(store, key)


async def test_a_file_is_read_where_base_and_key_together_are_longer_than_the_system_takes(tmp_path):
    deep = tmp_path
    while len(str(deep)) < 3700:
        deep /= "b" * 200
    deep.mkdir(parents=True)
    key = "/".join(["k" * 200] * 5)
    put(deep, key, b"far down")
    assert len(f"{deep}/{key}") > 4096
    async with opened(deep) as store:
        assert await keys_of(store) == [key]
        assert bytes((await store.fetch(key, limit=LIMIT)).data) == b"far down"


@pytest.mark.parametrize(("size", "error"), [(1024, ChangedMeanwhile), (1025, Rejected)])
async def test_a_key_may_have_1024_bytes_and_no_more(base, size, error):
    key = "ü/" * 200 + "k" * (size - 200 * 3 - 200) + "/" + "k" * 199
    put(base, key)
    async with opened(base) as store:
        assert len(key.encode()) == size
        assert await keys_of(store) == [key]
        with pytest.raises(error):
            await store.confirm_absent(key)


async def test_a_folder_without_a_file_lists_nothing_and_is_empty(base):
    (base / "a" / "b").mkdir(parents=True)
    async with opened(base) as store:
        assert await keys_of(store) == []
        assert await store.is_empty(anything)
        put(base, "a/b/c")
        assert not await store.is_empty(anything)
        assert await store.is_empty(lambda key: key != "a/b/c")


NAMES = st.text(st.sampled_from("ab-./0\x01é\ue000\U0001f600"), min_size=1, max_size=7)


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    return tmp_path_factory.mktemp("trees")


@hypothesis.given(st.lists(NAMES, max_size=25), st.lists(NAMES | st.just(LAST), max_size=3), st.integers(1, 4))
@hypothesis.settings(max_examples=150)
def test_any_pages_of_any_tree_from_anywhere_are_its_sorted_keys(trees, names, texts, page_size):
    base = trees / "one"
    base.mkdir()
    keys = set()
    try:
        for name in names:
            if all(part not in ("", ".", "..") for part in name.split("/")):
                with suppress(NotADirectoryError, IsADirectoryError):
                    put(base, name)
                    keys.add(name)

        async def look():
            async with opened(base) as store:
                for after in {"", *texts, *keys, *(key + LAST for key in keys), *(key[:-1] for key in keys)}:
                    rest = sorted((key for key in keys if key > after), key=str.encode)
                    assert await keys_of(store, after, page_size) == rest

        asyncio.run(look())
    finally:
        shutil.rmtree(base)


# While it is listed


async def test_what_vanishes_while_it_is_listed_is_left_out_and_the_rest_is_listed(base):
    tree(base, ["a", "b/1", "b/2", "c/1", "d", "e"])
    async with opened(base) as store:
        pages = store.list_pages(page_size=1)
        assert [entry.key for entry in await anext(pages)] == ["a"]
        shutil.rmtree(base / "b")
        (base / "d").unlink()
        assert [entry.key async for page in pages for entry in page] == ["c/1", "e"]


async def test_a_folder_that_becomes_a_link_while_it_is_listed_is_not_entered(base, tmp_path):
    tree(base, ["a", "b/1", "c"])
    put(tmp_path, "outside/secret")
    async with opened(base) as store:
        pages = store.list_pages(page_size=1)
        await anext(pages)
        shutil.rmtree(base / "b")
        (base / "b").symlink_to(tmp_path / "outside")
        assert [entry.key async for page in pages for entry in page] == ["c"]
        for key in ("b", "b/1", "b/secret"):
            with pytest.raises(NotAnObject):
                await store.confirm_absent(key)


async def test_a_folder_whose_files_were_listed_is_not_read_through_a_link_in_its_place(base, tmp_path):
    tree(base, ["b/passwd"])
    secret = put(tmp_path, "outside/passwd", b"secret")
    async with opened(base) as store:
        assert await keys_of(store) == ["b/passwd"]
        shutil.rmtree(base / "b")
        (base / "b").symlink_to(tmp_path / "outside")
        with counting_opens(secret) as opens:
            for ask in (*OF_A_KEY.values(), ALL_WAYS["confirm_absent"]):
                with pytest.raises(NotAnObject, match="b is a symbolic link"):
                    await ask(store, "b/passwd")
            assert opens() == 0
        assert secret.read_bytes() == b"secret"


@pytest.mark.parametrize("by", ["link", "pipe"])
async def test_a_file_that_becomes_something_else_between_the_look_and_the_opening_is_not_read(base, tmp_path, by):
    secret = put(tmp_path, "secret", b"secret")
    file = put(base, "file")

    def swapped():  # the clock is asked after the look, and before the file is opened
        file.unlink()
        file.symlink_to(secret) if by == "link" else os.mkfifo(file)
        return 1e10

    async with DirectoryStore(Base(base), clock=swapped) as store:
        with counting_opens(secret) as opens:
            with pytest.raises(NotAnObject if by == "link" else StoreError):
                await store.head("file")
            assert opens() == 0


# Things that are no files


def make_odd(path: Path, kind: str, outside: Path) -> None:
    put(outside, "folder/file")
    match kind:
        case "link to a file":
            path.symlink_to(outside / "folder/file")
        case "link to a folder":
            path.symlink_to(outside / "folder")
        case "link to its own folder":
            path.symlink_to(".")
        case "broken link":
            path.symlink_to(outside / "nowhere")
        case "link to itself":
            path.symlink_to(path)
        case "pipe":
            os.mkfifo(path)
        case "socket":
            with socket.socket(socket.AF_UNIX) as one:
                one.bind(str(path))
        case "character device" | "block device":
            is_character = kind.startswith("c")
            try:  # /dev/null; a block device that is not there
                os.mknod(path, 0o020666 if is_character else 0o060666, os.makedev(1, 3) if is_character else 0xFFFF)
            except PermissionError:
                pytest.skip("needs the right to make devices")


LINKS = ["link to a file", "link to a folder", "link to its own folder", "broken link", "link to itself"]
ODD = [*LINKS, "pipe", "socket", "character device", "block device"]


@pytest.fixture
def short(tmp_path, monkeypatch):
    """A short path, relative: a socket's name may have 107 bytes."""
    monkeypatch.chdir(tmp_path)
    Path("b").mkdir()
    return Path("b")


@pytest.mark.parametrize("kind", ODD)
async def test_what_is_no_file_is_listed_and_neither_read_nor_absent(short, tmp_path, kind):
    put(short, "a")
    make_odd(short / "odd", kind, tmp_path)
    put(short, "z")
    async with opened(short) as store:
        assert await keys_of(store) == ["a", "odd", "z"]
        for ask in (*OF_A_KEY.values(), ALL_WAYS["confirm_absent"]):
            with pytest.raises(NotAnObject):
                await ask(store, "odd")
        assert (short / "odd").lstat()


@pytest.mark.parametrize("kind", ["pipe", "character device"])
async def test_a_pipe_or_device_is_never_opened(short, tmp_path, kind):
    make_odd(short / "odd", kind, tmp_path)
    async with opened(short) as store:
        with counting_opens(short / "odd") as opens:
            for ask in ALL_WAYS.values():
                with suppress(NotAnObject):
                    await ask(store, "odd")
                with suppress(NoSuchKey, NotAnObject):
                    await ask(store, "odd/below")
            assert opens() == 0
            os.close(os.open(short / "odd", os.O_RDONLY | os.O_NONBLOCK))
            assert opens() == 1


@pytest.mark.parametrize("kind", LINKS)
@pytest.mark.parametrize("key", ["odd/file", "odd/", "odd/deeper/file", "odd/odd/file"])
async def test_what_would_be_behind_a_link_is_neither_read_nor_absent(short, tmp_path, kind, key):
    make_odd(short / "odd", kind, tmp_path)
    async with opened(short) as store:
        for way in ("head", "fetch", "confirm_absent"):
            if way == "fetch" and key.endswith("/"):
                continue  # no listing has such a key: it is head that tells what is wrong
            with pytest.raises(NotAnObject):
                await ALL_WAYS[way](store, key)


async def test_a_folder_with_nothing_but_a_link_is_not_empty(base):
    (base / "a").mkdir()
    (base / "a" / "link").symlink_to("nowhere")
    async with opened(base) as store:
        assert not await store.is_empty(anything)


# What may not be read


async def test_a_file_that_may_not_be_read_is_there_and_denied(base):
    tree(base, ["a", "closed", "z"])
    (base / "closed").chmod(0)
    with unprivileged():
        async with opened(base) as store:
            assert await keys_of(store) == ["a", "closed", "z"]
            for way in ("head", "fetch", "activity", "remove"):
                with pytest.raises(AccessDenied):
                    await ALL_WAYS[way](store, "closed")
            with pytest.raises(ChangedMeanwhile):
                await store.confirm_absent("closed")


BELOW = ["closed/", "closed/file", "closed/deeper/file", "closed/nothing"]


async def test_a_folder_that_may_not_be_entered_is_listed_by_itself_and_nothing_below_is_absent(base):
    tree(base, ["closed-", "closed/file", "closed/deeper/file", "closed0"])
    (base / "closed").chmod(0)
    with unprivileged():
        async with opened(base) as store:
            assert await keys_of(store) == ["closed-", "closed/", "closed0"]
            assert not await store.is_empty(anything)
            for key in BELOW:
                for way in ("head", "confirm_absent"):
                    with pytest.raises(AccessDenied):
                        await ALL_WAYS[way](store, key)
    (base / "closed").chmod(0o755)


async def test_of_a_folder_that_may_only_be_listed_every_name_is_listed_and_none_is_absent(base):
    tree(base, ["closed/deeper/file", "closed/file", "z"])
    (base / "closed" / "link").symlink_to("file")
    (base / "closed").chmod(0o400)
    with unprivileged():
        async with opened(base) as store:
            assert await keys_of(store) == ["closed/deeper/", "closed/file", "closed/link", "z"]
            for key in ("closed/deeper/", "closed/file", "closed/link", "closed/deeper/file", "closed/nothing"):
                for way in ("head", "confirm_absent"):
                    with pytest.raises(AccessDenied):
                        await ALL_WAYS[way](store, key)
    (base / "closed").chmod(0o755)


async def test_of_a_folder_that_may_only_be_searched_files_can_be_read_and_are_not_absent(base):
    tree(base, ["closed/file", "z"])
    (base / "closed").chmod(0o100)
    with unprivileged():
        async with opened(base) as store:
            assert await keys_of(store) == ["closed/", "z"]
            assert not await store.is_empty(anything)
            assert bytes((await store.fetch("closed/file", limit=LIMIT)).data) == b"closed/file"
            with pytest.raises(ChangedMeanwhile):
                await store.confirm_absent("closed/file")
            for way in ("head", "confirm_absent"):
                with pytest.raises(AccessDenied, match="left alone"):
                    await ALL_WAYS[way](store, "closed/")
    (base / "closed").chmod(0o755)


@pytest.mark.parametrize("mode", [0, 0o100])
async def test_a_folder_that_cannot_be_listed_is_not_nothing(base, mode):
    (base / "closed").mkdir(mode=mode)
    with unprivileged():
        async with opened(base) as store:
            assert not await store.is_empty(anything)


async def test_files_of_a_folder_that_is_closed_while_it_is_listed_are_still_listed(base):
    tree(base, ["closed/deeper/1", "closed/deeper/2", "z"])
    with unprivileged():
        async with opened(base) as store:
            pages = store.list_pages(page_size=1)
            assert [entry.key for entry in await anext(pages)] == ["closed/deeper/1"]
            (base / "closed").chmod(0)
            assert [entry.key async for page in pages for entry in page] == ["closed/deeper/2", "z"]
    (base / "closed").chmod(0o755)


@pytest.mark.parametrize("mode", [0, 0o100, 0o400])
async def test_a_base_that_may_not_be_read_is_an_error_and_nothing_is_absent(base, mode):
    tree(base, ["file"])
    with unprivileged():
        async with opened(base) as store:
            base.chmod(mode)
            for key in ("file", "nothing", "folder/nothing"):
                with pytest.raises(AccessDenied):
                    await store.confirm_absent(key)
            if mode == 0o400:
                assert await keys_of(store) == ["file"]
            else:
                for way in ("check", "list"):
                    with pytest.raises(AccessDenied):
                        await ALL_WAYS[way](store, "")
    base.chmod(0o755)


# Names that no key can have


@pytest.mark.parametrize("key", ["latin-\udce4", "folder-\udcff/file", "\udc80", "cut-\udcf0\udc9f\udc98"])
async def test_a_name_that_is_not_utf_8_is_listed_and_refused(base, key):
    tree(base, ["a", key, "\ue000"])
    async with opened(base) as store:
        for size in (1, 1000):
            assert await keys_of(store, page_size=size) == sorted(["a", key, "\ue000"])
        assert await keys_of(store, after=key) == sorted(one for one in ("a", "\ue000") if one > key)
        for ask in (*OF_A_KEY.values(), ALL_WAYS["confirm_absent"]):
            with pytest.raises(Rejected, match="not UTF-8"):
                await ask(store, key)


LEADING_OUT = ["..", "./a", "a/.", "a/..", "../x", "a/../../x", "a/../a/b", "/etc/passwd"]
NOWHERE = ["", "/", "//", ".", "a//b", "a/b/", "a/", "x\0y", "\0", "f/below", "f/", "a", "no"]
TOO_LONG = ["n" * 300, "a/" + "n" * 256]


@pytest.mark.parametrize("key", [*LEADING_OUT, *NOWHERE, *TOO_LONG])
async def test_a_key_that_no_file_has_is_absent_whatever_is_outside(base, tmp_path, key):
    tree(base, ["a/b", "f"])
    secret = put(tmp_path, "x")
    async with opened(base) as store:
        with counting_opens(secret) as opens:
            for way in ("head", "part", "fetch", "adopt", "activity", "remove"):
                with pytest.raises(NoSuchKey):
                    await ALL_WAYS[way](store, key)
            await store.confirm_absent(key)
            assert opens() == 0
    assert secret.exists()


@pytest.mark.parametrize("key", ["n" * 5000, "a/" + "n" * 5000, "a/" * 600 + "b", "\ud800", "a/\udfff/b"])
async def test_a_key_that_s3_would_not_take_is_refused(base, key):
    tree(base, ["a/b"])
    async with opened(base) as store:
        for ask in (*OF_A_KEY.values(), ALL_WAYS["confirm_absent"]):
            with pytest.raises(Rejected):
                await ask(store, key)


# The base


def renamed(base):
    base.rename(base.with_name("elsewhere"))


def replaced_by_an_empty_folder(base):
    renamed(base)
    base.mkdir()


def replaced_by_a_full_folder(base):
    replaced_by_an_empty_folder(base)
    tree(base, ["file", "folder/file"])


def replaced_by_a_link_to_itself(base):
    renamed(base)
    base.symlink_to("elsewhere")


def replaced_by_a_file(base):
    renamed(base)
    base.write_bytes(b"file")


def removed_and_made_anew(base):
    """The file system may well give it the same inode."""
    shutil.rmtree(base)
    base.mkdir()


def replaced_further_up(base):
    base.parent.rename(base.parent.with_name("further-up"))
    base.mkdir(parents=True)
    tree(base, ["file", "folder/file"])


GONE = [
    renamed,
    replaced_by_an_empty_folder,
    replaced_by_a_full_folder,
    replaced_by_a_link_to_itself,
    replaced_by_a_file,
    removed_and_made_anew,
    replaced_further_up,
]


@pytest.mark.parametrize("gone", GONE)
@pytest.mark.parametrize("key", ["file", "folder/file", "nothing"])
async def test_a_base_that_is_gone_is_an_error_and_nothing_is_absent(tmp_path, gone, key):
    base = tmp_path / "up" / "base"
    base.mkdir(parents=True)
    tree(base, ["file", "folder/file"])
    async with opened(base) as store:
        await store.check()
        gone(base)
        for ask in ALL_WAYS.values():
            with pytest.raises(NoSuchBucket):
                await ask(store, key)


@pytest.mark.parametrize("gone", GONE)
@pytest.mark.parametrize("pages", [0, 1, 2, 3])
async def test_a_base_that_goes_while_it_is_listed_does_not_end_the_listing(tmp_path, gone, pages):
    base = tmp_path / "up" / "base"
    base.mkdir(parents=True)
    tree(base, ["a/1", "a/2", "b", "c/1", "d"])
    async with opened(base) as store:
        listing = store.list_pages(page_size=1)
        for _ in range(pages):
            await anext(listing)
        gone(base)
        with pytest.raises(NoSuchBucket):
            [page async for page in listing]


@pytest.mark.parametrize("how", ["unmounted", "covered"])
async def test_a_base_that_is_unmounted_or_mounted_over_is_an_error_and_nothing_is_absent(base, how):
    put(base, "file", b"on the disk below")
    mount = ["mount", "-t", "tmpfs", "none", base]  # every one has the same inode for its root
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("needs the right to mount")
    try:
        put(base, "mounted")
        async with opened(base) as store:
            assert await keys_of(store) == ["mounted"]
            subprocess.run(["umount", "-l", base] if how == "unmounted" else mount, check=True)
            for ask in ALL_WAYS.values():
                with pytest.raises(NoSuchBucket, match="unmounted"):
                    await ask(store, "mounted")
    finally:
        while subprocess.run(["umount", "-l", base], capture_output=True, check=False).returncode == 0:
            pass


async def test_what_is_on_a_disk_beneath_the_base_is_not_absent_once_that_is_unmounted(base):
    tree(base, ["a", "disk/on the disk below"])
    (base / "disk" / "on the disk below").unlink()
    mount = ["mount", "-t", "tmpfs", "none", base / "disk"]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("needs the right to mount")
    try:
        put(base, "disk/file")
        async with opened(base) as store:
            assert await keys_of(store) == ["a", "disk/file"]
            subprocess.run(["umount", base / "disk"], check=True)
            for ask in (*OF_A_KEY.values(), ALL_WAYS["confirm_absent"]):
                with pytest.raises(NoSuchBucket, match="disk"):
                    await ask(store, "disk/file")
            await store.confirm_absent("nothing")
    finally:
        subprocess.run(["umount", "-l", base / "disk"], capture_output=True, check=False)


@pytest.mark.parametrize("path", ["nothing", "file", "loop", "broken", "file/below"])
def test_a_base_must_be_a_folder_that_is_there(tmp_path, path):
    put(tmp_path, "file")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "broken").symlink_to("nowhere")
    with pytest.raises(ConfigurationError, match=path.rpartition("/")[2]):
        Base(tmp_path / path)


async def test_a_base_may_be_given_by_a_link_which_counts_as_it_was_at_the_start(base, tmp_path):
    put(base, "file")
    put(tmp_path, "other/another")
    link = tmp_path / "link"
    link.symlink_to(base)
    async with opened(link) as store:
        link.unlink()
        link.symlink_to(tmp_path / "other")
        assert await keys_of(store) == ["file"]
        assert store.name == f"{base.resolve()}/"
