"""Reaches what lies beneath the base folder, and nothing else: no link is followed, no name leads out of it.

The base itself is opened anew for every use, and has to be the folder that it was at the start, and so has every disk
that was mounted beneath it: when one is unmounted, or another folder is put in its place, everything here fails rather
than seem empty.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from replicator.directory.mounts import mounted_beneath
from replicator.errors import (
    AccessDenied,
    ConfigurationError,
    NoSuchBucket,
    NoSuchKey,
    NotAnObject,
    Rejected,
    StoreError,
    Transient,
)
from replicator.model import LONGEST_KEY

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PASSING = (os.O_PATH if hasattr(os, "O_PATH") else os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_KINDS = (
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class Base:
    """The base folder. Every method raises NoSuchBucket when it is not there any more, or another one."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigurationError if there is no such folder, or names of files would be taken for other ones."""
        if sys.getfilesystemencoding().lower() != "utf-8":
            encoding = sys.getfilesystemencoding()
            raise ConfigurationError(f"names of files would be read as {encoding}: set PYTHONUTF8=1, or LC_ALL=C.UTF-8")
        try:
            self.path = path.resolve(strict=True)
            found = self.path.stat()
        except (OSError, RuntimeError) as error:
            raise ConfigurationError(f"{path}: {_words(error)}: give a folder that is there") from error
        if not stat.S_ISDIR(found.st_mode):
            raise ConfigurationError(f"{path}: is not a folder")
        if not os.path.ismount(self.path):  # which is told by its device, and which somebody may want to unmount
            # Held open, or a folder that takes its place could be given the same inode.
            weakref.finalize(self, os.close, os.open(self.path, _PASSING))
        self._identity = _identity(found)
        self._disks: dict[tuple[str, ...], tuple[int, int]] = {}
        self.note_disks()

    def note_disks(self) -> frozenset[str]:
        """Remembers the disks that are mounted beneath the base now, beside those before; all, as paths below it.

        The base itself, if it is one, is "".
        """
        for path in mounted_beneath(self.path):
            with suppress(OSError):
                self._disks[tuple(path.split("/"))] = _identity(os.stat(self.path / path))
        return frozenset(["/".join(names) for names in self._disks] + [""] * os.path.ismount(self.path))

    @contextmanager
    def folder(self, names: Sequence[str] = (), *, to_list: bool = False) -> Iterator[int]:
        """A descriptor of the folder that is reached by these names, to list it or to reach what is in it.

        Raises NoSuchKey when there is none, NotAnObject when a link is in the way, AccessDenied, Transient.
        """
        descriptor = self._open(_FOLDER if to_list and not names else _PASSING)
        try:
            for number, name in enumerate(names):
                flags = _FOLDER if to_list and number == len(names) - 1 else _PASSING
                descriptor = _step(descriptor, name, flags, "/".join(names))
                if self._disks:
                    self._check_disk(names[: number + 1], descriptor)
            yield descriptor
        finally:
            os.close(descriptor)

    def _check_disk(self, names: Sequence[str], descriptor: int) -> None:
        disk = self._disks.get(tuple(names))
        if disk is not None and _identity(os.fstat(descriptor)) != disk:
            raise NoSuchBucket("open", str(self.path.joinpath(*names)), "the disk that was mounted there is gone")

    def _open(self, flags: int) -> int:
        try:
            descriptor = os.open(self.path, flags)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM):
                raise AccessDenied("open", str(self.path), _words(error)) from error
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise NoSuchBucket("open", str(self.path), "the folder is not there any more") from error
            raise Transient("open", str(self.path), _words(error)) from error
        found = os.fstat(descriptor)
        if _identity(found) != self._identity:
            os.close(descriptor)
            raise NoSuchBucket("open", str(self.path), "is not the folder that it was: unmounted, or replaced")
        return descriptor

    @contextmanager
    def file(self, key: str) -> Iterator[tuple[int, str, os.stat_result]]:
        """Of a regular file: a descriptor of the folder it is in, its name there, and what it is.

        Raises NoSuchKey when there is none, NotAnObject when something else is, Rejected when S3 takes no such key.
        """
        names = names_of(key)
        with self.folder(names[:-1]) as folder:
            try:
                found = os.stat(names[-1], dir_fd=folder, follow_symlinks=False)
            except OSError as error:
                raise meant_by(error, key) from error
            if stat.S_ISDIR(found.st_mode):
                raise NoSuchKey("stat", key, "is a folder")
            _refuse_other_kinds(key, found)
            yield folder, names[-1], found


def _identity(found: os.stat_result) -> tuple[int, int]:
    """Not the device alone: a folder may be mounted on another one of its own disk."""
    return found.st_dev, found.st_ino


def names_of(key: str) -> list[str]:
    """The names that lead to the file with this key. Raises NoSuchKey where no file can have it, and Rejected."""
    names = key.split("/")
    if any(name in ("", ".", "..") or "\0" in name for name in names):
        raise NoSuchKey("stat", key, "no file can have this name")
    try:
        size = len(key.encode())
    except UnicodeEncodeError as error:
        raise Rejected("PutObject", key, "the name is not UTF-8, and no key can be made of it: rename it") from error
    if size > LONGEST_KEY:
        raise Rejected("PutObject", key, f"the path has {size} bytes, and a key may have {LONGEST_KEY}: shorten it")
    return names


def names_of_folder(prefix: str) -> list[str]:
    """The names that lead to a folder, of its keys' common beginning: ["a", "b"] of "a/b/"."""
    return prefix.split("/")[:-1]


def meant_by(error: OSError, key: str) -> StoreError:
    """What an error of the system about a file means."""
    words = _words(error)
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR | errno.ENAMETOOLONG:
            return NoSuchKey("open", key, words)
        case errno.ELOOP:
            return NotAnObject("open", key, "is a symbolic link, which is not followed")
        case errno.EACCES | errno.EPERM:
            return AccessDenied("open", key, words)
        case _:
            return Transient("open", key, words)


def _step(folder: int, name: str, flags: int, path: str) -> int:
    """Goes on to the folder of that name; the one before is closed, but when this fails."""
    try:
        further = os.open(name, flags, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP) and _is_link(folder, name):
            raise NotAnObject("open", path, f"{name} is a symbolic link, which is not followed") from error
        raise meant_by(error, path) from error
    os.close(folder)
    return further


def _is_link(folder: int, name: str) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except OSError:
        return False


def _refuse_other_kinds(key: str, found: os.stat_result) -> None:
    for is_kind, words in _KINDS:
        if is_kind(found.st_mode):
            raise NotAnObject("stat", key, f"is {words}, which is left alone")


def _words(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
