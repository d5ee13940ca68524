"""Prints some outcomes as they happen, beside the report."""

from __future__ import annotations

from collections.abc import Callable

import click

from replicator.bulk.report import Report
from replicator.logs import printable
from replicator.model import Outcome


class EchoingReport:
    """Hands every outcome on, and prints the line that `line_of` makes of it, if any; to stderr if `err`."""

    def __init__(self, report: Report, line_of: Callable[[Outcome], str | None], *, err: bool = False) -> None:
        self._report = report
        self._line_of = line_of
        self._err = err

    def flush(self) -> None:
        """Flushes the report."""
        self._report.flush()

    def add(self, outcome: Outcome) -> None:
        """Reports an outcome, and prints its line; what a key could do to a terminal is escaped."""
        self._report.add(outcome)
        line = self._line_of(outcome)
        if line is not None:
            click.echo(printable(line), err=self._err)
