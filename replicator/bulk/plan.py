"""What a run is to do."""

from __future__ import annotations

from dataclasses import dataclass, field

from replicator.bulk.brakes import MaxDelete
from replicator.bulk.filters import KeyFilter
from replicator.model import Deletes


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is to do.

    dry_run: only say what would be done. deep: look at every object. one_look: no later pass comes that would find
    what changes meanwhile. max_delete: how many deletes need no word from a person. trash: prefix below each target
    that takes what would be deleted, "" to delete.
    """

    deletes: Deletes = Deletes.KEEP
    dry_run: bool = False
    deep: bool = False
    one_look: bool = False
    keys: KeyFilter = field(default_factory=KeyFilter)
    max_delete: MaxDelete = field(default_factory=MaxDelete)
    trash: str = ""
