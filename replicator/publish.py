"""Publishes one object at one target: leaves out what the target refuses to hold, and says so."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from replicator.errors import Rejected, Transient, Unsupported
from replicator.model import Evidence, ObjectState, Observed
from replicator.store import Data, ObjectStore, Stream, Write, Written

Answer = TypeVar("Answer")

DEFAULT_CLASSES = frozenset({"", "STANDARD"})


@dataclass(frozen=True, slots=True)
class Copied:
    """What a copy to one target brought.

    evidence: what proves the copy. bytes: sent. not_kept: what the target refused.
    state: the target's object as it was read back after publishing, where that was done.
    resumed: an upload begun earlier was completed, whose attributes may be those of then.
    """

    evidence: Evidence
    bytes: int
    not_kept: tuple[str, ...] = ()
    state: ObjectState | None = None
    resumed: bool = False


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
        self.foreign_etags = False
        """Whether its ETags were seen not to be digests of what was sent (encryption, a proxy)."""
        self._refused: set[str] = set()

    @property
    def holds_tags(self) -> bool:
        """Whether the target has not yet refused tags."""
        return TAGS not in self._refused

    def refuses_tags(self) -> None:
        """Notes that the target has refused tags elsewhere."""
        self._refused.add(TAGS)

    async def put(self, key: str, body: Data, write: Write) -> tuple[Written, tuple[str, ...]]:
        """Publishes a whole object; also says what was left out."""
        return await self._until_accepted(write, lambda wanted: self.target.put(key, body, wanted))

    async def put_stream(self, key: str, body: Stream, write: Write) -> tuple[Written, tuple[str, ...]]:
        """The same for a body that can be sent only once: after a refusal, a later attempt leaves more out."""
        wanted, lost = self.bearable(write)
        try:
            return await self.target.put(key, body, wanted), lost
        except (Unsupported, Rejected) as error:
            features = _features(wanted)
            if not features:
                raise
            self._refused.update(features)
            raise Transient(error.operation, error.target, error.detail, code=error.code) from error

    async def create_upload(self, key: str, write: Write) -> tuple[str, tuple[str, ...]]:
        """Starts a multipart upload; also says what was left out."""
        return await self._until_accepted(write, lambda wanted: self.target.create_upload(key, wanted))

    def bearable(self, write: Write) -> tuple[Write, tuple[str, ...]]:
        """The write without what this target is known to refuse, and what that is."""
        refused = [feature for feature in _features(write) if feature in self._refused]
        return _without(write, refused), tuple(refused)

    async def _until_accepted(
        self, write: Write, attempt: Callable[[Write], Awaitable[Answer]]
    ) -> tuple[Answer, tuple[str, ...]]:
        """Tries the write; when it is refused, without each of its features in turn, then without all of them.

        What is accepted only without a feature teaches that the target does not hold it.
        """
        wanted, lost = self.bearable(write)
        try:
            return await attempt(wanted), lost
        except (Unsupported, Rejected) as error:
            refusal = error
        features = _features(wanted)
        for left_out in [[feature] for feature in features] + ([features] if len(features) > 1 else []):
            try:
                answer = await attempt(_without(wanted, left_out))
            except (Unsupported, Rejected):
                continue
            self._refused.update(left_out)
            return answer, (*lost, *left_out)
        raise refusal


TAGS = "tags"
REDIRECT = "website-redirect"
CLASS = "storage class "


def _features(write: Write) -> list[str]:
    """What of a write a store may refuse to hold, in words."""
    features = [CLASS + write.storage_class] if write.storage_class else []
    features += [TAGS] if write.tags else []
    return features + ([REDIRECT] if write.attributes.website_redirect is not None else [])


def _without(write: Write, features: Sequence[str]) -> Write:
    for feature in features:
        if feature == TAGS:
            write = replace(write, tags=())
        elif feature == REDIRECT:
            write = replace(write, attributes=replace(write.attributes, website_redirect=None))
        else:
            write = replace(write, storage_class="")
    return write
