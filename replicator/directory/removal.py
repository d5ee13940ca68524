"""Removes files that were moved away, and folders that this left empty.

A file is first taken aside, into a folder beside it, and looked at there: whoever puts another one in its place, by a
rename, does that before, and then it is put back; or after, and it is not touched. What a crash leaves aside is put
back by the next run.
"""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import Lock

from replicator.directory.beneath import Base, meant_by, names_of_folder
from replicator.errors import ChangedMeanwhile, NoSuchBucket, Rejected, StoreError

ASIDE = ".replicator-moving-"
"""What the name of the folder for the file that is just being removed begins with; the rest is the process."""

_F_SETSIG = 10
"""fcntl(2), on Linux; Python names it from 3.13 on."""

_one_at_a_time = Lock()


@dataclass(frozen=True, slots=True)
class Surveyed:
    """What was found beneath a base: folders that were last changed before a moment, and those for what is aside."""

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
        with _folder_aside(folder) as aside:
            os.rename(name, name, src_dir_fd=folder, dst_dir_fd=aside)
            taken = os.stat(name, dir_fd=aside, follow_symlinks=False)
            if _as_it_was(seen, taken):
                os.unlink(name, dir_fd=aside)
                return
            _put_back(aside, folder, name, key)
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
                waiting += [f"{prefix}{one.name}/" for one in entries if one.is_dir(follow_symlinks=False)]
    return found


def put_all_back(base: Base, aside: list[str]) -> list[str]:
    """Puts back what a crash has left aside; the keys of what could not be, since a newer file is in its place."""
    left = []
    for prefix in aside:
        parts = names_of_folder(prefix)
        with suppress(StoreError, OSError), base.folder(parts[:-1]) as folder:
            with base.folder(parts, to_list=True) as beside:
                for name in os.listdir(beside):
                    try:
                        _put_back(beside, folder, name, prefix + name)
                    except StoreError:
                        left.append(prefix + name)
            os.rmdir(parts[-1], dir_fd=folder)
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
def _folder_aside(folder: int) -> Iterator[int]:
    name = f"{ASIDE}{os.getpid()}"
    with suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=folder)
    aside = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        yield aside
    finally:
        os.close(aside)
        with suppress(OSError):  # what could not be put back is in it
            os.rmdir(name, dir_fd=folder)


def _as_it_was(seen: os.stat_result, taken: os.stat_result) -> bool:
    """Whether a file that was taken aside is the one that was seen before; that it was renamed changes its ctime."""
    return os.path.samestat(seen, taken) and (seen.st_size, seen.st_mtime_ns) == (taken.st_size, taken.st_mtime_ns)


def _put_back(aside: int, folder: int, name: str, key: str) -> None:
    """Never in the place of another file. Raises Rejected if there is one: both are kept."""
    try:
        try:
            os.link(name, name, src_dir_fd=aside, dst_dir_fd=folder, follow_symlinks=False)
        except PermissionError:  # a file system without links
            if _is_there(folder, name):
                raise FileExistsError from None
            os.rename(name, name, src_dir_fd=aside, dst_dir_fd=folder)
            return
    except FileExistsError:
        raise Rejected(
            "rename", key, f"a newer file took its place; the older one is in {ASIDE}... beside it"
        ) from None
    os.unlink(name, dir_fd=aside)


def _is_there(folder: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


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
    except BlockingIOError:
        return True
    except OSError:
        return None
    return False
