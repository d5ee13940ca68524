"""The brakes: when deletes are held back until a person has had a look. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from replicator.bulk.tasks import Counts
from replicator.errors import ConfigurationError, Refused

FEW = 100
"""Deletes that need no word from a person, unless one was given."""


@dataclass(frozen=True, slots=True)
class MaxDelete:
    """How much of a target may be deleted: a number of objects, or a share of them in percent.

    Without either: 10 % of a target's objects, and FEW in any case.
    """

    objects: int | None = None
    percent: float | None = None

    def allows(self, deletes: int, objects: int) -> bool:
        """Whether so many of a target's objects may be deleted."""
        if self.objects is not None:
            return deletes <= self.objects
        if self.percent is not None:
            return deletes * 100 <= objects * self.percent
        return deletes <= FEW or deletes * 10 <= objects


def parse_max_delete(text: str) -> MaxDelete:
    """ "500" or "2.5%". Raises ConfigurationError."""
    number = re.fullmatch(r"(\d{1,18})|(\d{1,3}(?:\.\d{1,6})?)%", text.strip(), re.ASCII)
    if number is None or (number[2] and float(number[2]) > 100):
        raise ConfigurationError(f"--max-delete {text!r}: must be a number of objects, as 500, or a share, as 2.5%")
    return MaxDelete(objects=int(number[1])) if number[1] else MaxDelete(percent=float(number[2]))


def check_deletes(
    counts: Counts, targets: Sequence[str], source: str, limit: MaxDelete, *, before: Sequence[int] = ()
) -> None:
    """Raises Refused if what a run has seen speaks against deleting what only the targets list.

    | the source lists | only at a target                      | deletes          |
    |------------------|---------------------------------------|------------------|
    | nothing          | any                                   | refused          |
    | something        | none                                  | there are none   |
    | something        | within the limit at every target      | allowed          |
    | something        | more than the limit at some target    | refused, for all |

    counts: of the whole pass, all of whose listings have come to their end. before: objects that earlier passes of the
    run deleted at each target, if there were any: the limit is the run's.
    """
    if not any(counts.extra):
        return
    if counts.source == 0:
        raise Refused(
            f"{source} lists no object, the targets list {max(counts.targets):,}: nothing was deleted. Check the "
            "source's bucket and prefix, or that the folder is mounted; to empty a target on purpose, delete its "
            "objects there"
        )
    gone = before or [0] * len(targets)
    for name, extra, objects, deleted in zip(targets, counts.extra, counts.targets, gone, strict=True):
        if extra and not limit.allows(deleted + extra, deleted + objects):
            share = 100 * extra / objects
            so_far = f"{deleted:,} were deleted before, and these stay" if deleted else "nothing was deleted"
            raise Refused(
                f"{extra:,} of the {objects:,} objects at {name} ({share:.1f} %) are not at the source: {so_far}. "
                f"If they are to go, say --max-delete {deleted + extra}; --dry-run names them"
            )
