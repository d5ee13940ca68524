"""The disks that are mounted beneath a folder, as the system tells (Linux)."""

from __future__ import annotations

import re
from pathlib import Path

TABLE = Path("/proc/self/mountinfo")
"""proc(5): the fifth field is the mount point, with blanks and the like as octal numbers."""

_OCTAL = re.compile(rb"\\([0-7]{3})")


def mounted_beneath(base: Path, table: Path = TABLE) -> list[str]:
    """Paths below the base; none where the system does not tell."""
    try:
        lines = table.read_bytes().splitlines()
    except OSError:
        return []
    points = [_OCTAL.sub(lambda found: bytes([int(found[1], 8)]), line.split(b" ")[4]) for line in lines]
    above = bytes(base) + b"/" if base != Path("/") else b"/"
    found = {point[len(above) :] for point in points if point.startswith(above) and len(point) > len(above)}
    return sorted(point.decode("utf-8", "surrogateescape") for point in found)
