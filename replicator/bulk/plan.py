"""What a run is to do."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime

from replicator.bulk.brakes import MaxDelete
from replicator.filters import KeyFilter
from replicator.model import Deletes

MOST_PASSES = 8
"""A source that is still changing after so many passes needs the live mirror."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is to do.

    dry_run: only say what would be done. deep: look at every object. one_look: no later pass comes that would find
    what changes meanwhile. passes: at the most; fewer than MOST_PASSES where something else follows the changes.
    max_delete: how many deletes need no word from a person. trash: prefix below each target that takes what would be
    deleted, "" to delete.
    """

    deletes: Deletes = Deletes.KEEP
    dry_run: bool = False
    deep: bool = False
    one_look: bool = False
    passes: int = MOST_PASSES
    keys: KeyFilter = field(default_factory=KeyFilter)
    max_delete: MaxDelete = field(default_factory=MaxDelete)
    trash: str = ""


_TRASHED = re.compile(r"(?:^|/)\d{8}T\d{6}Z-[0-9a-f]{6}/")


def trash_of_run(prefix: str, began: datetime, token: str) -> str:
    """Where a run that begins then puts what it deletes. token: six hexadecimal digits, others for every run."""
    return f"{prefix}{began:%Y%m%dT%H%M%SZ}-{token}/"


def is_trashed(key: str) -> bool:
    """Whether a key lies in the trash of some run: no run deletes that."""
    return _TRASHED.search(key) is not None
