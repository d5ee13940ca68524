"""Durations as people write them."""

from __future__ import annotations

import re

from replicator.errors import ConfigurationError

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def parse_duration(text: str, option: str) -> float:
    """Seconds of "90s", "30m", "36h", "7d" or "2w". Raises ConfigurationError, which names the option."""
    found = re.fullmatch(r"(\d{1,9})([smhdw])", text.strip(), re.ASCII)
    if found is None:
        raise ConfigurationError(f"{option} {text!r}: must be a number and a unit, as 30s, 36h or 7d")
    return float(int(found[1]) * _SECONDS[found[2]])
