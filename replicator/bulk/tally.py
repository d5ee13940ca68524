"""What a run has done so far: the numbers behind progress, summary and exit code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from replicator.bulk.tasks import Counts, Pulse
from replicator.model import Did, Outcome

WRITES = frozenset({Did.COPIED, Did.MOVED, Did.METADATA, Did.TAGS, Did.DELETED})


@dataclass(slots=True)
class Tally:
    """Counters of one run. Objects are counted once for each target.

    counts: what was seen in this pass where everything is done. failed: keys that are not as they should be, as they
    were last tried in this pass; failed_before: at the end of the pass before. deleted: objects, by the name of their
    target; deleted_before: in the passes before this one. The rest is for the eye. listed: objects
    of the source listed in this pass. found_bytes, worked_bytes: of objects that need work in this pass, as far as
    listed, and of those that had it. listing_done: whether all are listed. sent: bytes. throttled: requests that a
    service refused as too many. limit: requests in flight allowed where it did so last.
    """

    counts: Counts = field(default_factory=Counts)
    did: Counter[Did] = field(default_factory=Counter)
    not_kept: Counter[str] = field(default_factory=Counter)
    bytes: int = 0
    passes: int = 0
    pass_writes: int = 0
    failed: int = 0
    failed_before: int = 0
    deleted: Counter[str] = field(default_factory=Counter)
    deleted_before: Counter[str] = field(default_factory=Counter)
    listed: int = 0
    found_bytes: int = 0
    worked_bytes: int = 0
    listing_done: bool = False
    sent: int = 0
    throttled: int = 0
    limit: int = 0

    def start_pass(self) -> None:
        """Failures are tried again in every pass, so that only those of the last one count."""
        self.passes += 1
        self.pass_writes = 0
        self.failed_before, self.failed, self.counts = self.failed, 0, Counts()
        self.deleted_before = self.deleted.copy()
        self.listed = self.found_bytes = self.worked_bytes = 0
        self.listing_done = False

    def add(self, outcome: Outcome) -> None:
        """Counts an outcome; but for failures, which may pass, and for what every pass skips anew."""
        if outcome.did is Did.FAILED or (outcome.did is Did.SKIPPED and self.passes > 1):
            return
        self.did[outcome.did] += 1
        self.bytes += outcome.bytes
        if outcome.did is Did.DELETED:
            self.deleted[outcome.target] += 1
        # What a target cannot keep stays different for ever: writing it again is no progress.
        if outcome.did in WRITES and not (self.passes > 1 and outcome.not_kept):
            self.pass_writes += 1
        for loss in outcome.not_kept:
            self.not_kept[loss.split(" ")[0] if loss.startswith("metadata ") else loss] += 1

    def pulse(self, pulse: Pulse) -> None:
        """Takes in what is for the eye."""
        self.listed += pulse.listed
        self.found_bytes += pulse.found
        self.worked_bytes += pulse.worked
        self.sent += pulse.sent
        self.throttled += pulse.throttled
        self.limit = pulse.limit if pulse.throttled else self.limit

    @property
    def compared(self) -> int:
        """Keys of the source that are done with in this pass."""
        return self.counts.source

    @property
    def extra(self) -> int:
        """Objects that only a target lists."""
        return sum(self.counts.extra)

    @property
    def written(self) -> int:
        """Objects written or deleted in the whole run."""
        return sum(self.did[did] for did in WRITES)

    def to_json(self) -> dict[str, Any]:
        """What a run that goes on later has to know."""
        counts = self.counts
        return {
            "counts": [counts.source, counts.targets, counts.extra],
            "did": {did.value: number for did, number in self.did.items()},
            "not_kept": dict(self.not_kept),
            "deleted": [self.deleted, self.deleted_before],
            "numbers": [self.bytes, self.passes, self.pass_writes, self.failed, self.failed_before],
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Takes up what to_json gave."""
        self.counts = Counts(*saved["counts"])
        self.did = Counter({Did(did): number for did, number in saved["did"].items()})
        self.not_kept = Counter(saved["not_kept"])
        self.deleted, self.deleted_before = map(Counter, saved["deleted"])
        self.bytes, self.passes, self.pass_writes, self.failed, self.failed_before = saved["numbers"]
