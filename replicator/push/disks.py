"""Remembers from run to run which disks were mounted in a folder: one that is missing is no empty folder."""

from __future__ import annotations

import json
import zlib
from contextlib import suppress
from pathlib import Path

from replicator.directory.beneath import Base
from replicator.errors import Refused


def check_disks(base: Base, state: Path | None, *, remember: bool = True) -> None:
    """Raises Refused if a disk is missing that was there in the run before. remember: those of this one.

    state: folder for what is remembered; None for nowhere. A state that cannot be written or read is none.
    """
    now = base.note_disks()
    if state is None:
        return
    record = state / f"disks-{zlib.crc32(bytes(base.path)):08x}.json"
    before: frozenset[str] = frozenset()
    with suppress(OSError, ValueError, TypeError):
        before = frozenset(json.loads(record.read_text()))
    lost = sorted(before - now)
    if lost:
        raise Refused(
            f"{base.path / lost[0]} was a mounted disk when this folder was last pushed, and is none now: nothing was "
            f"done. Mount it; or, if it is gone for good, remove {record}"
        )
    if remember and now != before:
        with suppress(OSError):
            state.mkdir(mode=0o700, parents=True, exist_ok=True)
            fresh = record.with_suffix(".new")
            fresh.write_text(json.dumps(sorted(now)))
            fresh.replace(record)
