"""What to do about one key of one target. Pure: states in, an Action out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from replicator.compare import compare, compare_attributes
from replicator.model import Deletes, Evidence, Observed, Verdict


class Do(Enum):
    """The kinds of action."""

    NOTHING = "nothing"
    KEEP = "keep"
    COPY = "copy"
    METADATA = "update metadata"
    TAGS = "update tags"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Action:
    """What to do, why, and the evidence for the equality or difference of the bytes.

    not_kept: differences that are known to be beyond what the target can hold.
    """

    do: Do
    reason: str
    evidence: Evidence = Evidence.NONE
    not_kept: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Limits:
    """What a target is known not to hold: found out by writing it and reading it back.

    attributes: names as compare_attributes gives them. tags: whether it holds tags at all.
    """

    attributes: frozenset[str] = frozenset()
    tags: bool = True


ANYTHING = Limits()

TAGS = "tags"
"""What a target lacks that holds no tags, as it stands in not_kept."""

NOT_AT_TARGET = Action(Do.COPY, "not at the target")


def decide(
    source: Observed | None,
    target: Observed | None,
    *,
    deletes: Deletes,
    limits: Limits = ANYTHING,
) -> Action:
    """Decides from what both sides are now. None means: proved absent.

    | source  | target  | bytes               | attributes | tags | deletes | action   |
    |---------|---------|---------------------|------------|------|---------|----------|
    | absent  | absent  |                     |            |      |         | NOTHING  |
    | absent  | present |                     |            |      | MIRROR  | DELETE   |
    | absent  | present |                     |            |      | KEEP    | KEEP     |
    | present | absent  |                     |            |      |         | COPY     |
    | present | present | DIFFERENT           |            |      |         | COPY     |
    | present | present | UNKNOWN             |            |      |         | COPY     |
    | present | present | SAME                | differ     |      |         | METADATA |
    | present | present | SAME, stale stamp   |            |      |         | METADATA |
    | present | present | SAME                | same       | !=   |         | TAGS     |
    | present | present | SAME                | same       | ==   |         | NOTHING  |

    A stamp is stale when it names another version although the ETags are equal: it would prove that version later.
    A difference within `limits` counts as same and is named in not_kept. A METADATA action sets the tags too.
    """
    if source is None:
        return _decide_absent(target, deletes)
    if target is None:
        return NOT_AT_TARGET
    verdict, evidence = compare(source.state, target.state)
    if verdict is not Verdict.SAME:
        reason = f"differs by {evidence.value}" if verdict is Verdict.DIFFERENT else "not provably the same"
        return Action(Do.COPY, reason, evidence)
    differing, renamed = compare_attributes(source.state.attributes, target.state.attributes)
    open_differences = [name for name in differing if name not in limits.attributes]
    not_kept = [*renamed, *(name for name in differing if name in limits.attributes)]
    tags_differ = source.tags != target.tags
    if tags_differ and not limits.tags:
        not_kept.append(TAGS)
    if target.state.stamp is not None and target.state.stamp != source.state.etag and evidence is not Evidence.STAMP:
        open_differences.append("the stamp of another version")
    if open_differences:
        return Action(Do.METADATA, "differs in " + ", ".join(open_differences), evidence, tuple(not_kept))
    if tags_differ and limits.tags:
        return Action(Do.TAGS, "differs in tags", evidence, tuple(not_kept))
    return Action(Do.NOTHING, "same", evidence, tuple(not_kept))


def _decide_absent(target: Observed | None, deletes: Deletes) -> Action:
    if target is None:
        return Action(Do.NOTHING, "at neither side")
    if deletes is Deletes.KEEP:
        return Action(Do.KEEP, "gone at the source, but deletes are not mirrored")
    return Action(Do.DELETE, "gone at the source")
