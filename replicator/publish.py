"""Publishes at one target: leaves out what the target refuses to hold, and says so."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

from replicator.decide import TAGS
from replicator.errors import Corrupted, Rejected, StoreError, Unsupported
from replicator.model import Evidence, ObjectState, Observed
from replicator.reading import digest_of, pin_of
from replicator.storage_classes import class_of
from replicator.store import Data, ObjectStore, Write, Written

Answer = TypeVar("Answer")

REDIRECT = "website-redirect"
CLASS = "storage class "

NOT_IMPLEMENTED = frozenset({"NotImplemented", "HTTP 501", "MethodNotAllowed", "HTTP 405"})
"""Codes that are about a feature and not about its value."""


@dataclass(frozen=True, slots=True)
class Copied:
    """What a copy to one target brought.

    evidence: what proves the copy. bytes: sent. not_kept: what the target refused.
    state: the target's object as it was read back after publishing, where that was done.
    resumed: what was published may have been begun earlier, or by somebody else, with the attributes of then.
    """

    evidence: Evidence
    bytes: int
    not_kept: tuple[str, ...] = ()
    state: ObjectState | None = None
    resumed: bool = False


def write_of(observed: Observed, *, stamp: str | None = None, md5: bytes | None = None) -> Write:
    """All of an object that is published beside its bytes, as it is. stamp, md5: as Write has them."""
    return Write(
        attributes=observed.state.attributes,
        tags=observed.tags,
        md5=md5,
        stamp=stamp,
        storage_class=class_of(observed.state.storage_class),
    )


class Variant(NamedTuple):
    """A write that a target may accept, and the features that it leaves out."""

    write: Write
    left_out: tuple[str, ...]


class Publisher:
    """Writes to one target and remembers which features it has refused, so that it is not asked again.

    A feature counts as refused only when a write was accepted that differed in nothing else; and tags and redirects,
    whose values may be what was refused, only when the refusal says that they are not implemented.
    """

    def __init__(self, target: ObjectStore) -> None:
        self.target = target
        self.foreign_etags = False
        """Whether its ETags were seen not to be digests of what was sent (encryption, a proxy)."""
        self.takes_only_new = True
        """Whether it has not yet refused a write because that was to be taken only if the key is not there."""
        self.foreign_composites = False
        """The same of objects in parts, whose ETags rclone makes of all bytes."""
        self._refused: set[str] = set()

    def write_of(self, observed: Observed, *, stamp: str | None = None, md5: bytes | None = None) -> Write:
        """What is published here of a source's object: as it is, in the storage class that the target wants for it."""
        write = write_of(observed, stamp=stamp, md5=md5)
        wanted = self.target.storage_classes.wanted(observed.state.storage_class)
        return write if wanted is None else replace(write, storage_class=wanted)

    def amendment_of(self, source: Observed, target: ObjectState, *, stamp: str | None = None) -> Write:
        """What is published when the target's object is copied onto itself, to be the source's in all but its bytes.

        It stays in its storage class, unless the target wants another for the source's.
        """
        wanted = self.target.storage_classes.wanted(source.state.storage_class)
        return replace(
            write_of(source, stamp=stamp), storage_class=class_of(target.storage_class) if wanted is None else wanted
        )

    async def settle_etag(self, key: str, written: Written, digest: bytes) -> None:
        """Finds out what an answered ETag means that is not the digest of what was sent. Raises Corrupted.

        The first time, the object is read back: either the target has ETags of its own, or it holds other bytes.
        """
        if written.etag == digest.hex() or self.foreign_etags:
            return
        state = await self.target.head(key)
        if await digest_of(self.target, key, state) != digest:
            with suppress(StoreError):  # what is wrong must not carry a stamp that proves it
                await self.target.copy(self.target, key, key, pin_of(state), Write(attributes=state.attributes))
            raise Corrupted("PutObject", key, "the target holds other bytes than were sent")
        self.foreign_etags = True

    @property
    def holds_tags(self) -> bool:
        """Whether the target has not yet refused tags."""
        return TAGS not in self._refused

    def refuses_tags(self) -> None:
        """Notes that the target has refused tags by themselves."""
        self._refused.add(TAGS)

    def accepted(self, variant: Variant, refusal: Exception | None) -> None:
        """Notes that a variant was accepted, after the write as a whole was met with `refusal`."""
        absent = isinstance(refusal, Unsupported) and refusal.code in NOT_IMPLEMENTED
        self._refused.update(feature for feature in variant.left_out if absent or feature.startswith(CLASS))

    def variants(self, write: Write) -> list[Variant]:
        """What to try, in order: the write without what is known to be refused, without one feature more, without all.

        Never empty.
        """
        known = tuple(feature for feature in _features(write) if feature in self._refused)
        features = [feature for feature in _features(write) if feature not in known]
        further = [(), *((feature,) for feature in features), *([tuple(features)] if len(features) > 1 else [])]
        return [Variant(_without(write, (*known, *more)), (*known, *more)) for more in further]

    async def put(self, key: str, body: Data, write: Write) -> tuple[Written, tuple[str, ...]]:
        """Publishes a whole object; also says what was left out."""
        return await self.until_accepted(write, lambda wanted: self.target.put(key, body, wanted))

    async def until_accepted(
        self, write: Write, attempt: Callable[[Write], Awaitable[Answer]]
    ) -> tuple[Answer, tuple[str, ...]]:
        """Tries the variants of a write until one is not refused; its answer, and what it leaves out.

        Raises the first refusal when all are refused.
        """
        if not _features(write):
            return await attempt(write), ()
        refusal: Unsupported | Rejected | None = None
        for variant in self.variants(write):
            try:
                answer = await attempt(variant.write)
            except (Unsupported, Rejected) as error:
                refusal = refusal or error
                continue
            self.accepted(variant, refusal)
            return answer, variant.left_out
        raise refusal or AssertionError("a write has at least one variant")


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
