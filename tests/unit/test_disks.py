"""Disks that are mounted in a folder: one that is missing is no empty folder."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from replicator.directory.beneath import Base
from replicator.directory.mounts import is_remote, mounted_beneath
from replicator.directory.store import DirectoryStore
from replicator.errors import NoSuchBucket, Refused
from replicator.push.disks import check_disks

TABLE = """22 1 0:21 / /proc rw shared:12 - proc proc rw
40 1 8:1 / /srv rw - ext4 /dev/sda1 rw
41 40 8:2 / /srv/data rw - ext4 /dev/sdb1 rw
42 40 8:3 / /srv/data/a\\040b\\134c rw - ext4 /dev/sdc1 rw
43 40 8:3 / /srv/database rw - ext4 /dev/sdc1 rw
50 1 0:52 / /mnt/nas rw,relatime shared:30 - nfs4 nas:/export rw,vers=4.2
51 1 0:53 / /mnt/share rw - cifs //nas/share rw
"""


@pytest.mark.parametrize(
    ("base", "found"),
    [
        ("/srv", ["data", "data/a b\\c", "database"]),
        ("/srv/data", ["a b\\c"]),
        ("/srv/dat", []),
        ("/", ["mnt/nas", "mnt/share", "proc", "srv", "srv/data", "srv/data/a b\\c", "srv/database"]),
    ],
)
def test_the_table_of_the_system_tells_what_is_mounted_beneath_a_folder(tmp_path, base, found):
    table = tmp_path / "mountinfo"
    table.write_text(TABLE.replace("\\\\", "\\"))
    assert mounted_beneath(Path(base), table) == found


@pytest.mark.parametrize(("device", "remote"), [((0, 52), True), ((0, 53), True), ((8, 2), False), ((8, 52), False)])
def test_the_table_tells_what_is_a_networks(tmp_path, device, remote):
    table = tmp_path / "mountinfo"
    table.write_text(TABLE)
    assert is_remote(os.makedev(*device), table) is remote


def test_without_a_table_nothing_is_known_to_be_mounted(tmp_path):
    assert mounted_beneath(Path("/"), tmp_path / "none") == []
    assert not is_remote(0, tmp_path / "none")


@pytest.fixture
def disk(tmp_path):
    """A folder with a disk in it, and how it is unmounted."""
    base = tmp_path / "base"
    (base / "disk").mkdir(parents=True)
    (base / "file").write_text("file")
    mount = ["mount", "-t", "tmpfs", "none", base / "disk"]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("needs the right to mount")
    (base / "disk" / "photo").write_text("photo")

    def unmount():
        return subprocess.run(["umount", "-l", base / "disk"], capture_output=True, check=False)

    yield base, unmount
    unmount()


async def test_what_is_on_a_disk_that_vanishes_is_not_absent_nor_is_its_folder_empty(disk):
    base, unmount = disk
    async with DirectoryStore(Base(base)) as store:
        assert (await store.head("disk/photo")).size == 5
        unmount()
        for ask in (store.head, store.confirm_absent):
            with pytest.raises(NoSuchBucket, match="gone"):
                await ask("disk/photo")
        with pytest.raises(NoSuchBucket):
            _ = [page async for page in store.list_pages()]
        assert (await store.head("file")).size == 4  # the rest is as it was


async def test_a_folder_of_the_same_disk_that_was_mounted_is_missed_like_a_disk(disk, tmp_path):
    """As containers have theirs: the folder beneath is on the same device."""
    base, unmount = disk
    unmount()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "photo").write_text("photo")
    subprocess.run(["mount", "--bind", tmp_path / "photos", base / "disk"], check=True)
    async with DirectoryStore(Base(base)) as store:
        assert (await store.head("disk/photo")).size == 5
        unmount()
        with pytest.raises(NoSuchBucket, match="gone"):
            await store.confirm_absent("disk/photo")


def test_a_disk_that_is_missing_since_the_run_before_holds_this_one_back(disk, tmp_path):
    base, unmount = disk
    check_disks(Base(base), tmp_path / "state")
    check_disks(Base(base), tmp_path / "state")
    unmount()
    with pytest.raises(Refused, match="was a mounted disk") as refused:
        check_disks(Base(base), tmp_path / "state")
    [record] = (tmp_path / "state").iterdir()
    assert str(record) in str(refused.value)
    record.unlink()  # as it says
    check_disks(Base(base), tmp_path / "state")


@pytest.mark.parametrize("text", ["", "{", "[1, 2", "\udcff"], ids=repr)
def test_a_record_that_cannot_be_read_is_none(tmp_path, text):
    (tmp_path / "base").mkdir()
    base = Base(tmp_path / "base")
    check_disks(base, tmp_path)
    for record in tmp_path.glob("disks-*"):
        record.write_bytes(text.encode("utf-8", "surrogateescape"))
    check_disks(base, tmp_path)


def test_nowhere_to_remember_is_no_error(tmp_path):
    base = Base(tmp_path)
    check_disks(base, None)
    (tmp_path / "file").write_text("")
    check_disks(base, tmp_path / "file" / "state")
