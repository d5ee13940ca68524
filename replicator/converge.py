"""converge(key): looks at the source as it is now and makes every target equal to it.

This is the only way anything is ever written or deleted. Who names the key (an event, a listing, a directory) does
not matter, nor how often, nor in which order: an event is a hint, and what counts is what the source says when asked.

After writing, the source is asked again; if it has changed meanwhile, everything is looked at once more. So of two
workers on one key, the one that wrote stale bytes sees that and repairs it, and if it dies before, its message is
delivered again (docs/DESIGN.md, "Two workers").
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from replicator.budget import ByteBudget
from replicator.compare import compare_attributes
from replicator.copying import SMALL, Copier
from replicator.decide import Action, Do, Limits, decide
from replicator.diff import Row
from replicator.errors import (
    Archived,
    ChangedMeanwhile,
    Corrupted,
    NoSuchKey,
    ReplicatorError,
    SourceKeepsChanging,
    StoreError,
    TooLargeForNow,
    Unsupported,
)
from replicator.model import Deletes, Did, MiB, ObjectState, Observed, Outcome, Tags
from replicator.multipart import parts_of
from replicator.parts import RESUME_FROM
from replicator.publish import Copied, Publisher
from replicator.server_side import copy_server_side
from replicator.store import ObjectStore

ROUNDS = 8
"""How often a key is looked at when its source changes under us, before that is reported."""

SLOWEST = 20 * MiB
"""Bytes per second at which a single-part object is expected to stream, when there is a deadline."""

DONE = {
    Do.NOTHING: Did.IN_SYNC,
    Do.KEEP: Did.KEPT,
    Do.COPY: Did.COPIED,
    Do.METADATA: Did.METADATA,
    Do.TAGS: Did.TAGS,
    Do.DELETE: Did.DELETED,
}


@dataclass(slots=True)
class _Progress:
    """What one converge call has done to one target so far."""

    action: Action | None = None
    did: Did | None = None
    wrote: Action | None = None
    copied: Copied | None = None
    bytes: int = 0
    not_kept: frozenset[str] = field(default_factory=frozenset)
    beyond: frozenset[str] = field(default_factory=frozenset)
    error: Exception | None = None


class Converger:
    """Converges keys of one source to its targets.

    deletes: what to do at the targets when the source's object is gone. budget: bytes in memory for all keys.
    resume_from: size in bytes from which interrupted uploads are taken up again.
    confirm: ask the source again after every write. A bulk run may leave that to its next pass, for new keys.
    """

    def __init__(
        self,
        source: ObjectStore,
        targets: Sequence[ObjectStore],
        *,
        deletes: Deletes,
        budget: ByteBudget | None = None,
        confirm: bool = True,
        resume_from: int = RESUME_FROM,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.source = source
        self.publishers = [Publisher(target) for target in targets]
        self.deletes = deletes
        self.confirm = confirm
        self._copier = Copier(source, budget=budget or ByteBudget(256 * MiB), resume_from=resume_from)
        self._clock = clock
        self._server_side = any(target.can_copy_from(source) for target in targets)

    async def converge(self, key: str, listed: Row | None = None, *, seconds: float | None = None) -> list[Outcome]:
        """Makes every target equal to the source for this key; one outcome for each target, in order.

        Idempotent. Never raises a ReplicatorError: what failed is an outcome FAILED with its error, and one target's
        failure does not hold back the others. listed: what listings said, which may save asking. seconds: in which it
        has to be done: an object that cannot be resumed and is too large for that is not begun.
        """
        started = self._clock()
        deadline = None if seconds is None else started + seconds
        progress = [_Progress() for _ in self.publishers]
        try:
            unseen = listed is not None and not self.confirm and await self._copy_unseen(key, listed, progress)
            if not unseen:
                await self._rounds(key, progress, deadline)
        except ReplicatorError as error:
            for one in progress:
                one.error = one.error or error
        seconds = self._clock() - started
        return [
            self._outcome(key, publisher, one, seconds)
            for publisher, one in zip(self.publishers, progress, strict=True)
        ]

    async def look(self, key: str) -> list[Action]:
        """What converge would do for each target now. Changes nothing. Raises StoreError."""
        source = await self._observe_source(key)
        return [
            decide(source, await self._observe_target(key, publisher), deletes=self.deletes)
            for publisher in self.publishers
        ]

    async def _copy_unseen(self, key: str, listed: Row, progress: list[_Progress]) -> bool:
        """The short way for a small object that no target lists: GET and PUT. False if it is not to be gone."""
        entry = listed.source
        if (
            self._server_side
            or entry is None
            or entry.size > SMALL
            or parts_of(entry.etag) is not None
            or any(listed.targets)
        ):
            return False
        try:
            observed, results = await self._copier.copy_unseen(key, entry.size, self.publishers)
        except (NoSuchKey, ChangedMeanwhile):
            return False
        for publisher, one, result in zip(self.publishers, progress, results, strict=True):
            one.action = Action(Do.COPY, "not at the target")
            await self._note(key, observed, publisher, one, result)
        if any(isinstance(one.error, (ChangedMeanwhile, Corrupted)) for one in progress):
            return False
        return not observed.tags or await self._unchanged(key, observed)

    async def _rounds(self, key: str, progress: list[_Progress], deadline: float | None) -> None:
        """Looks, acts and looks again until the source is the one that was acted upon."""
        source = await self._observe_source(key)
        for _ in range(ROUNDS):
            try:
                self._check_time(key, source, deadline)
                wrote = await self._round(key, source, progress)
            except (NoSuchKey, ChangedMeanwhile, Corrupted):  # the source is another one by now
                wrote = True
            if not wrote:
                return
            again = await self._observe_source(key)
            if _same(source, again) and not any(_look_again(one.error) for one in progress):
                return
            source = again
        errors = [one.error for one in progress if one.error is not None]
        raise errors[0] if errors else SourceKeepsChanging(f"{self.source.name}{key} changed {ROUNDS} times")

    def _check_time(self, key: str, source: Observed | None, deadline: float | None) -> None:
        """Refuses what would surely be cut off: a part-less object has nothing to go on from the next time."""
        if deadline is None or source is None or parts_of(source.state.etag) is not None:
            return
        left = deadline - self._clock()
        if source.state.size > max(SMALL, left * SLOWEST):
            raise TooLargeForNow(
                f"{key!r}: {source.state.size} bytes in one part are too many for the {left:.0f} s left: "
                "copy it with `replicator migrate`"
            )

    async def _round(self, key: str, source: Observed | None, progress: list[_Progress]) -> bool:
        """Acts once on what the source was seen to be; whether anything was, or may have been, written."""
        copies: list[int] = []
        wrote = False
        for index, publisher in enumerate(self.publishers):
            one = progress[index]
            one.error = None
            try:
                target = await self._observe_target(key, publisher)
                one.action = self._decide(source, target, publisher, one)
                if one.action.do is Do.COPY:
                    copies.append(index)
                elif one.action.do not in (Do.NOTHING, Do.KEEP):
                    wrote = True
                    await self._amend(key, source, target, publisher, one)
            except StoreError as error:
                one.error = error
        if copies and source is not None:
            await self._copy(key, source, [(self.publishers[n], progress[n]) for n in copies])
        return wrote or bool(copies)

    def _decide(self, source: Observed | None, target: Observed | None, publisher: Publisher, one: _Progress) -> Action:
        limits = Limits(one.beyond, tags=publisher.holds_tags and "tags" not in one.beyond)
        return decide(source, target, deletes=self.deletes, limits=limits)

    async def _copy(self, key: str, source: Observed, targets: Sequence[tuple[Publisher, _Progress]]) -> None:
        if source.state.archived:
            for _, one in targets:
                one.error = Archived(
                    "GetObject", key, f"lies in {source.state.storage_class}: restore it, then run again"
                )
            return
        results = await self._copier.copy(key, source, [publisher for publisher, _ in targets])
        for (publisher, one), result in zip(targets, results, strict=True):
            await self._note(key, source, publisher, one, result)

    async def _note(
        self, key: str, source: Observed, publisher: Publisher, one: _Progress, result: Copied | Exception
    ) -> None:
        """Takes down what a copy came to, and checks what the target made of it."""
        if isinstance(result, Exception):
            if not isinstance(result, ReplicatorError):
                raise result
            one.error = result
            return
        one.did, one.wrote, one.copied, one.error = Did.COPIED, one.action, result, None
        one.bytes += result.bytes
        one.not_kept = frozenset(result.not_kept)
        if _needs_audit(source) or result.resumed:
            try:
                await self._audit(key, source, publisher, one, result.state)
            except StoreError as error:
                one.error = error

    async def _audit(
        self, key: str, source: Observed, publisher: Publisher, one: _Progress, state: ObjectState | None
    ) -> None:
        """Reads back an object that has more than bytes and a type: what the target did not keep is named."""
        state = state or await publisher.target.head(key)
        ours = state.etag == source.state.etag or state.stamp == source.state.etag
        if not ours:
            raise ChangedMeanwhile("HeadObject", key, "another object is there after writing")
        difference = compare_attributes(source.state.attributes, state.attributes)
        if difference.differing and one.copied is not None and one.copied.resumed:
            raise ChangedMeanwhile("HeadObject", key, "the upload that was resumed had older attributes")
        lost = {*difference.differing, *difference.renamed}
        if source.state.lost_metadata:
            lost.add(f"{source.state.lost_metadata} metadata entries that the source cannot tell")
        if (
            state.tag_count != len(source.tags)
            and publisher.holds_tags
            and not await self._tag(key, source.tags, publisher)
        ):
            lost.add("tags")
        one.beyond = frozenset(difference.differing) | ({"tags"} & lost)
        one.not_kept |= lost

    async def _tag(self, key: str, tags: Tags, publisher: Publisher) -> bool:
        """Sets tags by themselves; False where the target has none to set."""
        try:
            await publisher.target.put_tags(key, tags)
        except Unsupported:
            publisher.refuses_tags()
            return False
        return True

    async def _amend(
        self,
        key: str,
        source: Observed | None,
        target: Observed | None,
        publisher: Publisher,
        one: _Progress,
    ) -> None:
        """Carries out a DELETE, TAGS or METADATA action."""
        action = one.action
        if action is None or (source is None and action.do is not Do.DELETE):
            return
        if source is None:
            await publisher.target.delete(key)
            one.did, one.wrote, one.copied = Did.DELETED, action, None
        elif action.do is Do.TAGS:
            if await self._tag(key, source.tags, publisher):
                one.did, one.wrote = one.did or Did.TAGS, action
            else:
                one.beyond |= {"tags"}
                one.not_kept |= {"tags"}
        elif target is not None:
            await self._update_metadata(key, source, target, publisher, one)

    async def _update_metadata(
        self, key: str, source: Observed, target: Observed, publisher: Publisher, one: _Progress
    ) -> None:
        """Replaces attributes and tags by copying the target's object onto itself; with its bytes if it must be."""
        wanted = Observed(replace(target.state, attributes=source.state.attributes, archived=False), tags=source.tags)
        result = await copy_server_side(publisher.target, key, wanted, publisher, parallel=4, stamp=target.state.stamp)
        if isinstance(result, Copied):
            await self._note(key, source, publisher, one, result)
            one.did = Did.METADATA
        else:
            await self._copy(key, source, [(publisher, one)])

    async def _observe_source(self, key: str) -> Observed | None:
        """The source's object as it is now; None only when its absence is proved."""
        try:
            return await self._observe(self.source, key)
        except NoSuchKey:
            await self.source.confirm_absent(key)
            return None

    async def _observe_target(self, key: str, publisher: Publisher) -> Observed | None:
        try:
            return await self._observe(publisher.target, key)
        except NoSuchKey:
            return None

    async def _observe(self, store: ObjectStore, key: str) -> Observed:
        state = await store.head(key)
        tags = await store.get_tags(key, state.version_id) if state.tag_count else ()
        return Observed(state, tags)

    async def _unchanged(self, key: str, observed: Observed) -> bool:
        return _same(observed, await self._observe_source(key))

    def _outcome(self, key: str, publisher: Publisher, one: _Progress, seconds: float) -> Outcome:
        action = one.wrote or one.action or Action(Do.NOTHING, "")
        did, reason = one.did or DONE[action.do], action.reason
        if one.error is not None:
            did, reason = Did.FAILED, str(one.error)
        return Outcome(
            key=key,
            target=publisher.target.name,
            did=did,
            reason=reason,
            evidence=one.copied.evidence if one.copied else action.evidence,
            bytes=one.bytes,
            seconds=seconds,
            not_kept=tuple(sorted(one.not_kept | frozenset(action.not_kept))),
            failure=one.error,
        )


def _needs_audit(source: Observed) -> bool:
    """Whether an object has more than its bytes and a type, so that a target may have lost something."""
    return bool(source.tags or source.state.lost_metadata) or not source.state.attributes.only_type


def _look_again(error: Exception | None) -> bool:
    return isinstance(error, (ChangedMeanwhile, Corrupted, NoSuchKey))


def _same(one: Observed | None, other: Observed | None) -> bool:
    """Whether the source was not written between two looks. A GET and a HEAD of one version are the same."""
    if one is None or other is None:
        return one is other
    return (
        one.state.etag == other.state.etag
        and one.state.size == other.state.size
        and one.state.modified == other.state.modified
        and one.state.version_id == other.state.version_id
        and one.state.attributes == other.state.attributes
        and one.tags == other.tags
    )
