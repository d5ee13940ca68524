"""Sizes and numbers as people read them."""

from __future__ import annotations

UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def unit_of(size: float) -> tuple[str, int]:
    """The name and the bytes of the largest unit that is not above."""
    power = next((power for power in reversed(range(len(UNITS))) if size >= 1024**power), 0)
    return UNITS[power], 1024**power


def bytes_in_words(size: float) -> str:
    """1536 -> "1.5 KiB"."""
    name, unit = unit_of(size)
    return f"{size / unit:,.0f} B" if unit == 1 else f"{size / unit:,.1f} {name}"


def counted(number: int, noun: str) -> str:
    """As "1 delete" or "1,234 deletes"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
