"""Disks that are mounted, as the system tells (Linux)."""

from __future__ import annotations

import os
import re
from pathlib import Path

TABLE = Path("/proc/self/mountinfo")
"""proc(5): the third field is the device, as major:minor, the fifth the mount point, with blanks and the like as octal
numbers; the kind of file system comes after a hyphen, behind some fields more."""

REMOTE = frozenset({"nfs", "nfs4", "cifs", "smb3", "ceph", "afs", "lustre", "gfs2", "ocfs2"})
"""File systems that others may write to as well."""

_OCTAL = re.compile(rb"\\([0-7]{3})")


def mounted_beneath(base: Path, table: Path = TABLE) -> list[str]:
    """Paths below the base; none where the system does not tell."""
    points = [_OCTAL.sub(lambda found: bytes([int(found[1], 8)]), line.split(b" ")[4]) for line in _lines(table)]
    above = bytes(base) + b"/" if base != Path("/") else b"/"
    found = {point[len(above) :] for point in points if point.startswith(above) and len(point) > len(above)}
    return sorted(point.decode("utf-8", "surrogateescape") for point in found)


def is_remote(device: int, table: Path = TABLE) -> bool:
    """Whether a device, as stat(2) has it, is a network's. False where the system does not tell."""
    number = f"{os.major(device)}:{os.minor(device)}".encode()
    found = [line.partition(b" - ")[2].split(b" ")[0] for line in _lines(table) if line.split(b" ")[2] == number]
    return any(kind.decode("ascii", "replace") in REMOTE for kind in found)


def _lines(table: Path) -> list[bytes]:
    try:
        return table.read_bytes().splitlines()
    except OSError:
        return []
