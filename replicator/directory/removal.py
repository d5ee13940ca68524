"""Removes files that were moved away, and folders that this left empty."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from replicator.directory.beneath import Base, meant_by
from replicator.errors import ChangedMeanwhile, NoSuchBucket, StoreError


def is_being_written(folder: int, name: str, key: str) -> bool:
    """Whether somebody has the file open to write, where the system tells (Linux, files of one's own, local disks)."""
    with _opened(folder, name, key) as descriptor:
        return not _lease(descriptor)


def remove(folder: int, name: str, key: str, is_the_one: Callable[[os.stat_result], bool]) -> None:
    """Unlinks a file if it is the one that is meant, and nobody has it open to write.

    Raises ChangedMeanwhile otherwise, and AccessDenied. Between the look and the removal are microseconds: a writer
    that opens an existing file within them writes to one that nobody sees any more.
    """
    with _opened(folder, name, key) as descriptor:
        if not _lease(descriptor):
            raise ChangedMeanwhile("unlink", key, "the file is open for writing")
        there = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if not (is_the_one(os.fstat(descriptor)) and is_the_one(there)):
            raise ChangedMeanwhile("unlink", key, "the file has changed since it was uploaded")
        os.unlink(name, dir_fd=folder)


def folders_older_than(base: Base, moment: float) -> list[str]:
    """The folders beneath the base whose content was last changed before; parents before children.

    Leaves out what cannot be listed.
    """
    found: list[str] = []
    waiting = [""]
    while waiting:
        prefix = waiting.pop()
        names = prefix.split("/")[:-1]
        with suppress(StoreError, OSError), base.folder(names, to_list=True) as folder:
            if prefix and os.fstat(folder).st_mtime < moment:
                found.append(prefix)
            with os.scandir(folder) as entries:
                waiting += [f"{prefix}{one.name}/" for one in entries if one.is_dir(follow_symlinks=False)]
    return found


def remove_emptied(base: Base, folders: list[str]) -> list[str]:
    """Removes those that are empty, children first; which those were. Never the base. Raises NoSuchBucket."""
    removed = []
    for prefix in sorted(folders, reverse=True):
        names = prefix.split("/")[:-1]
        try:
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


def _lease(descriptor: int) -> bool:
    """Takes a read lease, which the system gives while no one has the file open to write; False when someone has.

    True, too, where there are no leases: on network disks, on files of other users, and outside Linux. It ends with the
    descriptor. See fcntl(2), "Leases".
    """
    if not hasattr(fcntl, "F_SETLEASE"):
        return True
    with suppress(OSError):  # the signal of a broken lease would end the process: one that is ignored takes its place
        fcntl.fcntl(descriptor, fcntl.F_SETSIG if hasattr(fcntl, "F_SETSIG") else 10, signal.SIGURG)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
