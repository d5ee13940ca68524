"""Walks a folder in the order of the keys that its files have.

That is not the order of a walk by names: "a-b" comes before "a/b", since "-" sorts before "/". A folder is taken
for its name with a "/" behind it when its neighbours are sorted.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

from replicator.directory.beneath import Base, meant_by, names_of_folder
from replicator.errors import AccessDenied, NoSuchKey, NotAnObject


class Found(NamedTuple):
    """A file, or anything that is no folder; or, with a "/" at the end of its key, a folder that cannot be listed.

    stat: None if that cannot be had.
    """

    key: str
    stat: os.stat_result | None


def walk(base: Base, *, after: str = "", chunk: int = 1000) -> Iterator[Found]:
    """All that lies beneath the base, in the order of keys, from the first key after `after` on.

    chunk: how many files are looked at at once. Holds the names of the folders that it is in. What vanishes meanwhile
    is left out. Raises NoSuchBucket, AccessDenied for the base itself, and Transient, rather than end early.
    """
    stack = [("", iter(_names(base, "", after)))]
    while stack:
        prefix, names = stack[-1]
        files: list[str] = []
        folder = ""
        for name in names:
            if name.endswith("/"):
                folder = name
                break
            files.append(name)
            if len(files) == chunk:
                break
        else:
            stack.pop()
        yield from _look(base, prefix, files)
        if folder:
            try:
                stack.append((prefix + folder, iter(_names(base, prefix + folder, after))))
            except AccessDenied:
                if prefix + folder > after:
                    yield Found(prefix + folder, None)
            except (NoSuchKey, NotAnObject):  # gone, or replaced by something else, meanwhile
                continue


def is_empty(base: Base, chosen: Callable[[str], bool]) -> bool:
    """Whether there is no file beneath the base that is chosen by its key; what cannot be listed counts as one."""
    waiting = [""]
    while waiting:
        prefix = waiting.pop()
        try:
            with base.folder(names_of_folder(prefix), to_list=True) as folder, os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(f"{prefix}{entry.name}/")
                    elif chosen(prefix + entry.name):
                        return False
        except AccessDenied:
            return False
        except (NoSuchKey, NotAnObject):
            continue
        except OSError as error:
            raise meant_by(error, prefix) from error
    return True


def _names(base: Base, prefix: str, after: str) -> list[str]:
    """What is in a folder, sorted; folders with "/" at the end. Only what may lead to keys after `after`."""
    try:
        with base.folder(names_of_folder(prefix), to_list=True) as folder, os.scandir(folder) as entries:
            names = [f"{entry.name}/" if entry.is_dir(follow_symlinks=False) else entry.name for entry in entries]
    except OSError as error:
        raise meant_by(error, prefix) from error
    if after > prefix:
        names = [
            name for name in names if prefix + name > after or (name[-1] == "/" and after.startswith(prefix + name))
        ]
    return sorted(names)


def _look(base: Base, prefix: str, names: list[str]) -> list[Found]:
    if not names:
        return []
    try:
        with base.folder(names_of_folder(prefix)) as folder:
            found = [_stat(folder, prefix, name) for name in names]
    except (NoSuchKey, NotAnObject):
        return []
    except AccessDenied:
        return [Found(prefix + name, None) for name in names]
    return [one for one in found if one is not None]


def _stat(folder: int, prefix: str, name: str) -> Found | None:
    try:
        return Found(prefix + name, os.stat(name, dir_fd=folder, follow_symlinks=False))
    except OSError as error:
        meaning = meant_by(error, prefix + name)
        if isinstance(meaning, NoSuchKey):
            return None
        if isinstance(meaning, AccessDenied):
            return Found(prefix + name, None)
        raise meaning from error
