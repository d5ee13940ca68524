"""Publishes one object at one target: leaves out what the target refuses to hold, and says so."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from replicator.errors import Rejected, Transient, Unsupported
from replicator.model import Evidence, ObjectState, Observed
from replicator.store import ObjectStore, Stream, Write, Written

Answer = TypeVar("Answer")

DEFAULT_CLASSES = frozenset({"", "STANDARD"})


@dataclass(frozen=True, slots=True)
class Copied:
    """What a copy to one target brought.

    evidence: what proves the copy. bytes: sent. not_kept: what the target refused. state: the target's object as it
    was read back after publishing, where that was done.
    """

    evidence: Evidence
    bytes: int
    not_kept: tuple[str, ...] = ()
    state: ObjectState | None = None


def write_of(observed: Observed, *, stamp: str | None = None, md5: bytes | None = None) -> Write:
    """All of an object that is published beside its bytes. stamp, md5: as Write has them."""
    storage_class = observed.state.storage_class
    return Write(
        attributes=observed.state.attributes,
        tags=observed.tags,
        md5=md5,
        stamp=stamp,
        storage_class="" if storage_class in DEFAULT_CLASSES else storage_class,
    )


class Publisher:
    """Writes to one target and remembers which features it has refused, so that it is not asked again.

    Only refusals are remembered (a feature's 501, an unknown storage class): facts about the service.
    """

    def __init__(self, target: ObjectStore) -> None:
        self.target = target
        self.holds_tags = True
        self.foreign_etags = False
        """Whether its ETags were seen not to be digests of what was sent (encryption, a proxy)."""
        self._refused_classes: set[str] = set()

    async def put(self, key: str, body: bytes | bytearray, write: Write) -> tuple[Written, tuple[str, ...]]:
        """Publishes a whole object; also says what was left out."""
        return await self._until_accepted(write, lambda wanted: self.target.put(key, body, wanted))

    async def put_stream(self, key: str, body: Stream, write: Write) -> tuple[Written, tuple[str, ...]]:
        """The same for a body that can be sent only once: a refusal teaches, and is Transient for the next attempt."""
        wanted, lost = self.bearable(write)
        try:
            return await self.target.put(key, body, wanted), lost
        except (Unsupported, Rejected) as error:
            smaller = self._smaller(wanted)
            if smaller is None:
                raise
            self._learn(wanted, smaller)
            raise Transient(error.operation, error.target, error.detail, code=error.code) from error

    async def create_upload(self, key: str, write: Write) -> tuple[str, tuple[str, ...]]:
        """Starts a multipart upload; also says what was left out."""
        return await self._until_accepted(write, lambda wanted: self.target.create_upload(key, wanted))

    async def _until_accepted(
        self, write: Write, attempt: Callable[[Write], Awaitable[Answer]]
    ) -> tuple[Answer, tuple[str, ...]]:
        """Tries the write, and smaller ones while it is refused; learns from what is accepted at last."""
        wanted, _ = self.bearable(write)
        refused: list[tuple[Write, Write]] = []
        while True:
            try:
                answer = await attempt(wanted)
                break
            except (Unsupported, Rejected):
                smaller = self._smaller(wanted)
                if smaller is None:
                    raise
            refused.append((wanted, smaller))
            wanted = smaller
        for pair in refused:
            self._learn(*pair)
        return answer, _left_out(write, wanted)

    def bearable(self, write: Write) -> tuple[Write, tuple[str, ...]]:
        """The write without what this target is known to refuse."""
        wanted = write
        if wanted.storage_class in self._refused_classes:
            wanted = replace(wanted, storage_class="")
        if wanted.tags and not self.holds_tags:
            wanted = replace(wanted, tags=())
        return wanted, _left_out(write, wanted)

    def _smaller(self, write: Write) -> Write | None:
        """The next smaller write to try after a refusal: without storage class, then without tags."""
        if write.storage_class:
            return replace(write, storage_class="")
        if write.tags:
            return replace(write, tags=())
        return None

    def _learn(self, refused: Write, accepted: Write) -> None:
        if refused.storage_class and not accepted.storage_class:
            self._refused_classes.add(refused.storage_class)
        elif refused.tags and not accepted.tags:
            self.holds_tags = False


def _left_out(wanted: Write, sent: Write) -> tuple[str, ...]:
    lost = []
    if wanted.storage_class != sent.storage_class:
        lost.append(f"storage class {wanted.storage_class}")
    if wanted.tags != sent.tags:
        lost.append("tags")
    return tuple(lost)
