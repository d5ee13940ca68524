"""A log line for each file."""

from __future__ import annotations

import logging

from replicator.errors import NotAnObject
from replicator.logs import logger
from replicator.model import Did, Outcome


class LogReport:
    """Logs what was done at INFO, and what failed or was left alone at WARNING, with the reason. Is a Report."""

    def add(self, outcome: Outcome) -> None:
        """Logs one outcome."""
        if outcome.did is Did.IN_SYNC:
            return
        level = logging.WARNING if outcome.did in (Did.FAILED, Did.SKIPPED, Did.KEPT) else logging.INFO
        if logger.isEnabledFor(level):
            reason = outcome.failure.detail if isinstance(outcome.failure, NotAnObject) else outcome.reason
            logger.log(level, "%s %s: %s (%s)", outcome.did.value, outcome.key, reason, outcome.target)

    def flush(self) -> None:
        """Does nothing."""
