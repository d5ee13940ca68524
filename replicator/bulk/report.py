"""The report: a line of JSON for each object and target."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TextIO

from replicator.errors import ConfigurationError
from replicator.model import Outcome


class Report(Protocol):
    """Takes outcomes as they come."""

    def add(self, outcome: Outcome) -> None:
        """Notes one outcome."""

    def flush(self) -> None:
        """Puts what was noted where a kill does not reach it. Any thread may call it, also while outcomes are noted."""


class NoReport:
    """Forgets everything."""

    def add(self, outcome: Outcome) -> None:
        """Does nothing."""

    def flush(self) -> None:
        """Does nothing."""


class Reports:
    """Several in one."""

    def __init__(self, *reports: Report) -> None:
        self._reports = reports

    def add(self, outcome: Outcome) -> None:
        """Notes the outcome in each."""
        for report in self._reports:
            report.add(outcome)

    def flush(self) -> None:
        """Flushes each."""
        for report in self._reports:
            report.flush()


class JsonlReport:
    """Writes {"key", "target", "action", "reason", "evidence", "bytes", "seconds", "not_kept", "error"} lines."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def add(self, outcome: Outcome) -> None:
        """Writes one line. Keys that are no valid Unicode are escaped, as JSON does."""
        line = {
            "key": outcome.key,
            "target": outcome.target,
            "action": outcome.did.value,
            "reason": outcome.reason,
            "evidence": outcome.evidence.value,
            "bytes": outcome.bytes,
            "seconds": round(outcome.seconds, 6),
            "not_kept": list(outcome.not_kept),
            "error": type(outcome.failure).__name__ if outcome.failure else None,
        }
        self._stream.write(json.dumps(line) + "\n")

    def flush(self) -> None:
        """Writes what is still in memory."""
        self._stream.flush()


@contextmanager
def open_report(path: Path | None, *, goes_on: bool = False) -> Iterator[Report]:
    """The report of a run; refused before anything is done when the file cannot be written.

    goes_on: with a run that was cut off, so that what its report has is kept.
    """
    if path is None:
        yield NoReport()
        return
    try:
        stream = path.open("a" if goes_on else "w", encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"--report {path}: {error.strerror}") from error
    with stream:
        yield JsonlReport(stream)
