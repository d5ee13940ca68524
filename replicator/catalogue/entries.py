"""What the catalogue knows of one key, and how that follows from an outcome."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from replicator.model import Did, Outcome


class State(Enum):
    """What became of a key last. MOVED: uploaded, then removed from the folder."""

    UPLOADED = "uploaded"
    MOVED = "moved"
    DELETED = "deleted"
    SKIPPED = "skipped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One key of one route.

    size: bytes. etag: without quotes. modified: of the source. version: the source's name for the version that the
    ETag is of; None when it is not to be believed. uploaded_at: when it was last sent, or found to be there when it
    was moved; None when it never was from here. moved_at: when a file was removed after that, unless another was sent
    since: then the object is the only copy. recorded_at: when this became known. Times are seconds since the epoch.
    error: why it failed, in words.
    """

    route: str
    key: str
    state: State
    size: int | None = None
    etag: str | None = None
    modified: float | None = None
    version: str | None = None
    uploaded_at: float | None = None
    moved_at: float | None = None
    recorded_at: float
    error: str = ""

    def tells_of(self, route: str, key: str) -> bool:
        """Whether it is about this key; or, if that ends with "/", about one below it."""
        return self.route == route and (self.key.startswith(key) if key.endswith("/") else self.key == key)


_STATES = {
    Did.COPIED: State.UPLOADED,
    Did.METADATA: State.UPLOADED,
    Did.TAGS: State.UPLOADED,
    Did.IN_SYNC: State.UPLOADED,
    Did.MOVED: State.MOVED,
    Did.DELETED: State.DELETED,
    Did.SKIPPED: State.SKIPPED,
    Did.FAILED: State.FAILED,
}


def entry_of(outcome: Outcome, route: str, now: float) -> Entry | None:
    """What the catalogue is to remember of an outcome; None for nothing. now: seconds since the epoch.

    An entry that is not of an upload says nothing of size, ETag and times: what was known of the last upload stays.
    """
    state = _STATES.get(outcome.did)
    if state is None or (outcome.did is Did.IN_SYNC and outcome.source is None):
        return None
    if state not in (State.UPLOADED, State.MOVED):
        error = outcome.reason if state in (State.FAILED, State.SKIPPED) else ""
        return Entry(route=route, key=outcome.key, state=state, recorded_at=now, error=error)
    source = outcome.source
    return Entry(
        route=route,
        key=outcome.key,
        state=state,
        size=source.size if source else None,
        etag=source.etag if source else None,
        modified=source.modified if source else None,
        version=_believable_version(outcome),
        uploaded_at=now if outcome.did in (Did.COPIED, Did.MOVED) else None,
        moved_at=now if outcome.did is Did.MOVED else None,
        recorded_at=now,
    )


def _believable_version(outcome: Outcome) -> str | None:
    source = outcome.source
    if source is None or outcome.began < source.believable_from:
        return None
    return source.id
