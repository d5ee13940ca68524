"""What the file system tells of a folder, by watchfiles."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

STEP, DEBOUNCE, HEARTBEAT = 100, 400, 1000
"""Milliseconds: without a change after which what has changed is told, at most; and between words when nothing does."""


async def hints_of(base: Path) -> AsyncIterator[Sequence[str]]:
    """Watches a folder and all below it; yields the keys of what changes, as Watch takes them. Raises OSError.

    The first word, which may be empty, says that it has begun.
    Where the system tells nothing (network disks), WATCHFILES_FORCE_POLLING=1 makes it look by itself.
    """
    from watchfiles import Change, awatch

    told = awatch(
        base,
        watch_filter=None,
        step=STEP,
        debounce=DEBOUNCE,
        rust_timeout=HEARTBEAT,
        yield_on_timeout=True,
        ignore_permission_denied=True,
    )
    try:
        async for changes in told:
            yield [key for change, path in changes for key in _keys(change is Change.deleted, path, base)]
    except Exception as error:  # its own kinds, in groups: a name that is not UTF-8, a limit of the system
        raise OSError(_innermost(error)) from error


def _keys(deleted: bool, path: str, base: Path) -> list[str]:
    """A folder that is renamed is told of by its own name only; of one that changed, what is in it tells."""
    key = os.path.relpath(path, base)
    if key == ".":
        return [""] if deleted else []
    if deleted:
        return [key, f"{key}/"]
    return [key if not os.path.isdir(path) or os.path.islink(path) else f"{key}/"]


def _innermost(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"
