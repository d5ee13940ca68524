"""When a file is complete: when it has been left alone for a while, or when the time in its path is over. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from replicator.errors import ConfigurationError

SPANS = {"d": timedelta(days=1), "H": timedelta(hours=1)}
"""The time that a path tells of which ends with such a directive: a file of that day or hour is written until it is
over. That of a minute is complete within seconds, and counts from its beginning.
"""

DIGITS = {"Y": 4, "m": 2, "d": 2, "H": 2, "M": 2, "S": 2}
"""Directives of strftime that a pattern may have, and how many digits each stands for."""


class TimePath:
    """A pattern such as "{location}/%Y/%m/%d/%H/%M-{topic}.dat"; {...} is any part of a name.

    Raises ConfigurationError for one without a year, month and day.
    """

    def __init__(self, pattern: str) -> None:
        expression = ""
        for piece in re.split(r"(%.?|\{[^{}]*\})", pattern):
            if piece.startswith("%"):
                if piece[1:] not in DIGITS or f"(?P<{piece[1]}>" in expression:
                    raise ConfigurationError(f"--time-path {pattern!r}: {piece} is not one of %Y %m %d %H %M %S, once")
                expression += rf"(?P<{piece[1]}>[0-9]{{{DIGITS[piece[1]]}}})"
            elif piece.startswith("{") and piece.endswith("}"):
                expression += r"[^/]+"
            elif "{" in piece or "}" in piece:
                raise ConfigurationError(f"--time-path {pattern!r}: a brace is not closed; write {{name}} for any name")
            else:
                expression += re.escape(piece)
        missing = [name for name in "Ymd" if f"(?P<{name}>" not in expression]
        if missing:
            raise ConfigurationError(f"--time-path {pattern!r}: has no %{missing[0]}; %Y, %m and %d are needed")
        self._expression = re.compile(expression)
        self._span = next(
            (SPANS.get(name, timedelta()) for name in "SMHd" if f"(?P<{name}>" in expression), timedelta()
        )

    def time_of(self, key: str) -> float | None:
        """When the local time that a key tells has come, or its day or hour is over, in seconds since the epoch.

        None if it tells none, as with month 13.
        """
        found = self._expression.fullmatch(key)
        if found is None:
            return None
        told = {name: int(value) for name, value in found.groupdict().items()}
        try:
            time = datetime(  # noqa: DTZ001 - a path tells local time, as its writer's `date` does
                told["Y"], told["m"], told["d"], told.get("H", 0), told.get("M", 0), told.get("S", 0)
            )
            return (time + self._span).timestamp()  # by the clock on the wall: an hour can be there twice
        except (ValueError, OverflowError):
            return None


@dataclass(frozen=True, slots=True)
class Settle:
    """seconds: for which a file must have been left alone. path: tells the time by the name, where there is one."""

    seconds: float
    path: TimePath | None = None

    def settled_at(self, key: str, modified: float) -> float:
        """When a file is complete, in seconds since the epoch. modified: its time, if its name tells none."""
        told = self.path.time_of(key) if self.path is not None else None
        return (modified if told is None else told) + self.seconds
