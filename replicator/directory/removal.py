"""Removes files that were moved away, and folders that this left empty.

A file is first taken aside, into a folder beside it, and looked at there: whoever puts another one in its place, by a
rename, does that before, and then it is put back; or after, and it is not touched. What a crash leaves aside is put
back by the next run.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from threading import Lock

from replicator.directory.beneath import Base, meant_by, names_of_folder
from replicator.directory.mounts import is_remote
from replicator.errors import ChangedMeanwhile, NoSuchBucket, Rejected, StoreError

ASIDE = ".replicator-moving-"
"""What the name of the folder for the file that is just being removed begins with; the rest is the process. On a full
disk there is no folder: this and its own name are what the file is called."""

_F_SETSIG = 10
"""fcntl(2), on Linux; Python names it from 3.13 on."""

_one_at_a_time = Lock()


@dataclass(frozen=True, slots=True)
class Surveyed:
    """What was found beneath a base: folders that were last changed before a moment, and what was taken aside.

    aside: files, or folders of them.
    """

    old: list[str] = field(default_factory=list)
    aside: list[str] = field(default_factory=list)


def is_being_written(folder: int, name: str, key: str) -> bool | None:
    """Whether somebody has the file open to write; None where the system does not tell.

    It tells on Linux, of one's own files (root: of all), on local disks. Raises StoreError.
    """
    with _opened(folder, name, key) as descriptor:
        return _has_writer(descriptor)


def remove(folder: int, name: str, key: str, is_the_one: Callable[[os.stat_result], bool]) -> None:
    """Removes a file if it is the one that is meant, and nobody has it open to write, as far as that can be told.

    Raises StoreError: ChangedMeanwhile otherwise, Rejected if it could not be put back.
    """
    with _opened(folder, name, key) as descriptor, _one_at_a_time:
        seen = os.fstat(descriptor)
        if not is_the_one(seen):
            raise ChangedMeanwhile("unlink", key, "the file has changed since it was uploaded")
        if _has_writer(descriptor):
            raise ChangedMeanwhile("unlink", key, "the file is open for writing")
        with _aside(folder, name) as (place, beside):
            os.rename(name, beside, src_dir_fd=folder, dst_dir_fd=place)
            taken = os.stat(beside, dir_fd=place, follow_symlinks=False)
            if _as_it_was(seen, taken):
                os.unlink(beside, dir_fd=place)
                return
            _put_back(place, beside, folder, name, key)
    raise ChangedMeanwhile("unlink", key, "another file was put in its place")


def survey(base: Base, moment: float) -> Surveyed:
    """Looks at all folders beneath the base; parents come before children. What cannot be listed is left out."""
    found = Surveyed()
    waiting = [""]
    while waiting:
        prefix = waiting.pop()
        with suppress(StoreError, OSError), base.folder(names_of_folder(prefix), to_list=True) as folder:
            if names_of_folder(prefix)[-1:] and names_of_folder(prefix)[-1].startswith(ASIDE):
                found.aside.append(prefix)
            elif prefix and os.fstat(folder).st_mtime < moment:
                found.old.append(prefix)
            with os.scandir(folder) as entries:
                for one in entries:
                    if one.is_dir(follow_symlinks=False):
                        waiting.append(f"{prefix}{one.name}/")
                    elif one.name.startswith(ASIDE):
                        found.aside.append(prefix + one.name)
    return found


def put_all_back(base: Base, aside: list[str]) -> list[str]:
    """Puts back what a crash has left aside; the keys of what could not be, since a newer file is in its place."""
    left = []
    for prefix in aside:
        parts = prefix.removesuffix("/").split("/")
        with suppress(StoreError, OSError), base.folder(parts[:-1]) as folder:
            if prefix[-1] != "/":
                left += _put_each_back(folder, [(parts[-1], parts[-1].removeprefix(ASIDE))], folder, prefix)
                continue
            with base.folder(parts, to_list=True) as place:
                left += _put_each_back(place, [(name, name) for name in os.listdir(place)], folder, prefix)
            os.rmdir(parts[-1], dir_fd=folder)
    return left


def _put_each_back(place: int, names: Sequence[tuple[str, str]], folder: int, prefix: str) -> list[str]:
    left = []
    for beside, name in names:
        try:
            _put_back(place, beside, folder, name, prefix)
        except StoreError:
            left.append(prefix + name if prefix[-1] == "/" else prefix)
    return left


def remove_emptied(base: Base, folders: list[str], is_ours: Callable[[str], bool]) -> list[str]:
    """Removes those that are empty, children first; which those were. Never the base. Raises NoSuchBucket.

    is_ours: whether something was moved away from below a folder.
    """
    removed = []
    for prefix in sorted(folders, reverse=True):
        names = names_of_folder(prefix)
        try:
            with base.folder(names, to_list=True) as folder, os.scandir(folder) as entries:
                if next(entries, None) is not None or not is_ours(prefix):
                    continue
            with base.folder(names[:-1]) as parent:
                os.rmdir(names[-1], dir_fd=parent)
        except NoSuchBucket:
            raise
        except (StoreError, OSError):  # not empty, not there any more, or not ours to remove
            continue
        removed.append(prefix)
    return removed


@contextmanager
def _opened(folder: int, name: str, key: str) -> Iterator[int]:
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError as error:
        raise meant_by(error, key) from error
    try:
        yield descriptor
    except OSError as error:
        raise meant_by(error, key) from error
    finally:
        os.close(descriptor)


@contextmanager
def _aside(folder: int, name: str) -> Iterator[tuple[int, str]]:
    """Where a file is taken aside, and its name there: in a folder of its own, or beside where it was."""
    for number in count(1):  # in one that is there a crash may have left a file of this name, which is nowhere else
        own = f"{ASIDE}{os.getpid()}-{number}"
        try:
            os.mkdir(own, 0o700, dir_fd=folder)
        except FileExistsError:
            continue
        except OSError as error:
            # A full disk has no room for a folder, and is the one from which files have to be moved.
            if error.errno not in (errno.ENOSPC, errno.EDQUOT) or _stat(folder, ASIDE + name) is not None:
                raise
            yield folder, ASIDE + name
            return
        break
    place = os.open(own, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        yield place, name
    finally:
        os.close(place)
        with suppress(OSError):  # what could not be put back is in it
            os.rmdir(own, dir_fd=folder)


def _as_it_was(seen: os.stat_result, taken: os.stat_result) -> bool:
    """Whether a file that was taken aside is the one that was seen before; that it was renamed changes its ctime."""
    return os.path.samestat(seen, taken) and (seen.st_size, seen.st_mtime_ns) == (taken.st_size, taken.st_mtime_ns)


def _put_back(place: int, beside: str, folder: int, name: str, key: str) -> None:
    """Never in the place of another file. Raises Rejected if there is one: both are kept."""
    try:
        os.link(beside, name, src_dir_fd=place, dst_dir_fd=folder, follow_symlinks=False)
    except OSError:  # something is there; or no links are to be had: a folder, a file system without, a full one
        there = _stat(folder, name)
        if there is None:
            os.rename(beside, name, src_dir_fd=place, dst_dir_fd=folder)
            return
        if not os.path.samestat(there, os.stat(beside, dir_fd=place, follow_symlinks=False)):  # else cut off right here
            words = f"a newer file took its place; the older one is in {ASIDE}... beside it"
            raise Rejected("rename", key, words) from None
    os.unlink(beside, dir_fd=place)


def _stat(folder: int, name: str) -> os.stat_result | None:
    """What is there; None for nothing."""
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _has_writer(descriptor: int) -> bool | None:
    """Tries to take a read lease, which the system gives while no one has the file open to write: fcntl(2), "Leases".

    None on network disks, on files of other users, and outside Linux. The lease ends with the descriptor.
    """
    if not hasattr(fcntl, "F_SETLEASE"):
        return None
    with suppress(OSError):  # the signal of a lease that is broken would end the process: one that is ignored instead
        fcntl.fcntl(descriptor, _F_SETSIG, signal.SIGURG)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except BlockingIOError:  # NFS and SMB say that, too, of files that the server has not lent to this machine
        return None if is_remote(os.fstat(descriptor).st_dev) else True
    except OSError:
        return None
    return False
