"""What a run has done so far: the numbers behind progress, summary and exit code."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from replicator.model import Did, Outcome

WRITES = frozenset({Did.COPIED, Did.METADATA, Did.TAGS, Did.DELETED})


@dataclass(slots=True)
class Tally:
    """Counters of one run. Objects are counted once for each target.

    compared: keys of the source looked at in this pass. failed: keys that failed when they were last tried.
    failed_before: those of the pass before. found: objects and bytes that need work in this pass, as far as listed.
    listing_done: whether all of them are found. extra: listed only at a target.
    """

    compared: int = 0
    did: Counter[Did] = field(default_factory=Counter)
    bytes: int = 0
    failed: int = 0
    failed_before: int = 0
    extra: int = 0
    found_objects: int = 0
    found_bytes: int = 0
    worked_bytes: int = 0
    listing_done: bool = False
    passes: int = 0
    not_kept: Counter[str] = field(default_factory=Counter)
    pass_writes: int = 0

    def start_pass(self) -> None:
        """Failures are tried again in every pass, so that only those of the last one count."""
        self.passes += 1
        self.pass_writes = 0
        self.failed_before, self.failed = self.failed, 0
        self.extra = self.compared = 0
        self.found_objects = self.found_bytes = self.worked_bytes = 0
        self.listing_done = False

    def add(self, outcome: Outcome) -> None:
        """Counts an outcome."""
        if outcome.did is Did.FAILED:
            self.failed += 1
            return
        self.did[outcome.did] += 1
        self.bytes += outcome.bytes
        # What a target cannot keep stays different for ever: writing it again is no progress.
        if outcome.did in WRITES and not (self.passes > 1 and outcome.not_kept):
            self.pass_writes += 1
        for loss in outcome.not_kept:
            self.not_kept[loss.split(" ")[0] if loss.startswith("metadata ") else loss] += 1

    @property
    def written(self) -> int:
        """Objects written or deleted in the whole run."""
        return sum(self.did[did] for did in WRITES)
