"""Carries out what was decided for a key at its targets, and reads back what they made of it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from replicator.compare import compare, compare_attributes
from replicator.copying import Copier
from replicator.decide import NOT_AT_TARGET, TAGS, Action, Do
from replicator.errors import Archived, ChangedMeanwhile, NoSuchKey, Rejected, StoreError, Unproven, Unsupported
from replicator.model import Did, Evidence, ObjectState, Observed, Tags, Verdict
from replicator.publish import Copied, Publisher, write_of
from replicator.server_side import copy_server_side
from replicator.store import ObjectStore


@dataclass(slots=True)
class Progress:
    """What one converge call has done to one target so far.

    source: what was acted upon last. action: decided last. did, wrote, evidence: what was written last, why, and what
    proves it. beyond: differences that were seen to remain after writing. error: of the last round.
    """

    publisher: Publisher
    source: Observed | None = None
    action: Action | None = None
    did: Did | None = None
    wrote: Action | None = None
    evidence: Evidence | None = None
    bytes: int = 0
    not_kept: frozenset[str] = field(default_factory=frozenset)
    beyond: frozenset[str] = field(default_factory=frozenset)
    error: Exception | None = None


class Applier:
    """Writes to targets. Errors of a target are noted in its Progress; those of the source are raised.

    trash: what the keys of deleted objects begin with where they are kept at the target; "" to delete for good.
    """

    def __init__(self, copier: Copier, *, trash: str = "") -> None:
        self._copier = copier
        self._trash = trash

    async def copy_unseen(
        self, key: str, size: int, progress: Sequence[Progress], *, only_new: bool = False
    ) -> Observed:
        """Copies a small object known only from a listing to targets that do not list it; what was copied.

        only_new: a target that has the key is to refuse it, with ChangedMeanwhile as its error.

        Raises NoSuchKey or ChangedMeanwhile when the object is not of that kind any more.
        """
        publishers = [one.publisher for one in progress]
        observed, results = await self._copier.copy_unseen(key, size, publishers, only_new=only_new)
        for one, result in zip(progress, results, strict=True):
            one.action = NOT_AT_TARGET
            await self._note(key, observed, one, result)
        return observed

    async def copy(self, key: str, source: Observed, progress: Sequence[Progress]) -> None:
        """Copies the bytes to these targets. Raises a StoreError of the source."""
        if source.state.archived:
            for one in progress:
                reason = f"lies in {source.state.storage_class}: restore it, then run again"
                one.error = Archived("GetObject", key, reason)
            return
        results = await self._copier.copy(key, source, [one.publisher for one in progress])
        for one, result in zip(progress, results, strict=True):
            await self._note(key, source, one, result)

    async def amend(self, key: str, source: Observed | None, target: Observed | None, one: Progress) -> None:
        """Carries out a DELETE, TAGS or METADATA action. Raises StoreError."""
        if source is None:
            if self._trash and target is not None:
                await self._keep(key, target, one)
            await one.publisher.target.delete(key)
            one.did, one.wrote, one.evidence = Did.DELETED, one.action, None
        elif one.action is not None and one.action.do is Do.TAGS:
            await self._amend_tags(key, source.tags, one, one.action)
        elif target is not None:
            await self._amend_metadata(key, source, target, one)

    async def _keep(self, key: str, target: Observed, one: Progress) -> None:
        """Copies an object that is to be deleted into the trash. Raises StoreError when that cannot be done."""
        store, to = one.publisher.target, await self._free(key, one.publisher.target)
        stamp = target.state.stamp or target.state.etag  # with one, a store that changes ETags may do so
        result = await copy_server_side(store, key, target.state, one.publisher, write_of(target, stamp=stamp), to=to)
        if isinstance(result, Exception):
            raise result
        if result is None or not await self._kept(to, target, one.publisher):
            raise Rejected("CopyObject", to, "could not be kept in the trash as it is, and was not deleted")
        if one.action is not None:
            one.action = replace(one.action, reason=f"{one.action.reason}, moved to {to}")

    async def _free(self, key: str, store: ObjectStore) -> str:
        """A key in the trash that is not taken: somebody may have written anew what this run has deleted already."""
        for number in itertools.count(1):
            to = f"{self._trash}{'' if number == 1 else f'again {number}/'}{key}"
            try:
                await store.head(to)
            except NoSuchKey:
                return to
        raise AssertionError("numbers do not end")

    async def _kept(self, to: str, target: Observed, publisher: Publisher) -> bool:
        """Whether all of an object is in the trash; Ceph RGW has to be given its tags once more."""
        state = await publisher.target.head(to)
        if state.size != target.state.size or compare_attributes(target.state.attributes, state.attributes).differing:
            return False
        return state.tag_count == len(target.tags) or await self._tag(to, target.tags, publisher)

    async def _amend_tags(self, key: str, tags: Tags, one: Progress, action: Action) -> None:
        if await self._tag(key, tags, one.publisher):
            one.did, one.wrote = one.did or Did.TAGS, action
            return
        one.beyond |= {TAGS}
        one.not_kept |= {TAGS}
        one.action = replace(action, do=Do.NOTHING, reason="same but for tags")

    async def _amend_metadata(self, key: str, source: Observed, target: Observed, one: Progress) -> None:
        """Replaces attributes and tags by copying the target's object onto itself; with its bytes if it must be."""
        stamp = None if target.state.etag == source.state.etag else source.state.etag
        write = one.publisher.amendment_of(source, target.state, stamp=stamp)
        result = await copy_server_side(one.publisher.target, key, target.state, one.publisher, write)
        if isinstance(result, Copied):
            await self._note(key, source, one, result, did=Did.METADATA)
        else:
            await self.copy(key, source, [one])

    async def _note(
        self, key: str, source: Observed, one: Progress, result: Copied | Exception, *, did: Did = Did.COPIED
    ) -> None:
        """Takes down what a copy came to, and checks what the target made of it."""
        if isinstance(result, Exception):
            one.error = result
            return
        one.did, one.wrote, one.evidence, one.error = did, one.action, result.evidence, None
        one.bytes += result.bytes
        one.not_kept = frozenset(result.not_kept)
        if _needs_audit(source) or result.resumed:
            try:
                await self._audit(key, source, one, result)
            except StoreError as error:
                one.error = error

    async def _audit(self, key: str, source: Observed, one: Progress, result: Copied) -> None:
        """Reads back an object that has more than bytes and a type: what the target did not keep is named.

        Raises ChangedMeanwhile when it is not what was written, or was begun with older attributes or tags.
        """
        state = result.state or await one.publisher.target.head(key)
        if not _is_copy_of(source.state, state):
            raise ChangedMeanwhile("HeadObject", key, "another object is there after writing")
        difference = compare_attributes(source.state.attributes, state.attributes)
        if result.resumed and (
            difference.differing
            or state.stamp not in (None, source.state.etag)
            or await self._tags_differ(key, source.tags, state, one.publisher)
        ):
            raise ChangedMeanwhile("HeadObject", key, "what was published had other attributes or tags")
        lost = {*difference.differing, *difference.renamed}
        if source.state.lost_metadata:
            lost.add(f"{source.state.lost_metadata} metadata entries that the source cannot tell")
        if state.tag_count != len(source.tags) and not (
            one.publisher.holds_tags and await self._tag(key, source.tags, one.publisher)
        ):
            lost.add(TAGS)
        one.beyond = frozenset(difference.differing) | ({TAGS} & lost)
        one.not_kept |= lost

    async def _tags_differ(self, key: str, tags: Tags, state: ObjectState, publisher: Publisher) -> bool:
        if not publisher.holds_tags or (state.tag_count == 0 and not tags):
            return False
        return state.tag_count != len(tags) or await publisher.target.get_tags(key) != tags

    async def _tag(self, key: str, tags: Tags, publisher: Publisher) -> bool:
        """Sets tags by themselves; False where the target has none to set."""
        try:
            await publisher.target.put_tags(key, tags)
        except Unsupported as error:
            if not isinstance(error, Unproven):
                publisher.refuses_tags()
            return False
        return True


def _is_copy_of(source: ObjectState, state: ObjectState) -> bool:
    """Whether a target's object, read back, is what was just written: equal or stamped, or equal by checksum."""
    return compare(source, state).verdict is Verdict.SAME


def _needs_audit(source: Observed) -> bool:
    """Whether an object has more than its bytes and a type, so that a target may have lost something."""
    return bool(source.tags or source.state.lost_metadata) or not source.state.attributes.only_type
