"""What the Lambda says of its work: one line of JSON for each outcome, and metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit

from replicator.live.batch import Handled
from replicator.model import Did, Outcome

NAMES = {
    Did.COPIED: "Copied",
    Did.METADATA: "Updated",
    Did.TAGS: "Updated",
    Did.DELETED: "Deleted",
    Did.IN_SYNC: "InSync",
    Did.KEPT: "Kept",
    Did.HELD: "Held",
    Did.BEGUN: "Begun",
    Did.FAILED: "Failed",
}


class Telling:
    """Tells CloudWatch. Is a Report, for outcomes that belong to no message."""

    def __init__(self, logger: Logger, metrics: Metrics) -> None:
        self._logger = logger
        self._metrics = metrics
        self._counts: Counter[str] = Counter()
        self._bytes = 0
        self._lag: float | None = None
        self._counted: set[int] = set()
        """Ids of outcomes, which live until flush()."""

    def add(self, outcome: Outcome) -> None:
        """Tells of an outcome of a range."""
        self._say(outcome, {})
        self._count(outcome)

    def flush(self) -> None:
        """Gives CloudWatch what was counted: one value for each metric, of the lag the largest.

        One for each object would cost as much CPU as half a request.
        """
        counts, self._counts = self._counts, Counter()  # a range tells from a thread
        for name, count in counts.items():
            self._metrics.add_metric(name=name, unit=MetricUnit.Count, value=count)
        if self._bytes:
            self._metrics.add_metric(name="Bytes", unit=MetricUnit.Bytes, value=self._bytes)
        if self._lag is not None:
            self._metrics.add_metric(name="ReplicationLag", unit=MetricUnit.Seconds, value=self._lag)
        self._bytes, self._lag = 0, None
        self._counted.clear()

    def handled(self, one: Handled) -> None:
        """Tells of a message, and of its outcomes. Messages of a batch share those of a key that all of them name."""
        about = {"message_id": one.message.message_id, "receive_count": one.message.receive_count}
        for outcome in one.outcomes:
            self._say(outcome, about)
            if id(outcome) not in self._counted:
                self._counted.add(id(outcome))
                self._count(outcome)
        if one.error is not None:
            self._logger.error("message failed", extra={**about, "error": one.error})
            self._counts["FailedMessages"] += 1
        elif one.ignored is not None:
            self._logger.info("ignored", extra={**about, "reason": one.ignored})
            self._counts["Ignored"] += 1
        elif one.changed is not None:
            self._lag = max((datetime.now(UTC) - one.changed).total_seconds(), self._lag or 0.0)

    def _say(self, outcome: Outcome, about: Mapping[str, object]) -> None:
        fields = {"key": outcome.key, "target": outcome.target, "reason": outcome.reason, "bytes": outcome.bytes}
        fields |= {"evidence": outcome.evidence.value, "not_kept": list(outcome.not_kept)}
        self._logger.info(outcome.did.value, extra={**about, **fields, "seconds": round(outcome.seconds, 3)})

    def _count(self, outcome: Outcome) -> None:
        self._counts[NAMES[outcome.did]] += 1
        self._bytes += outcome.bytes
