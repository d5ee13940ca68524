"""converge(key): looks at the source as it is now and makes every target equal to it.

This is the only way anything is ever written or deleted. Who names the key, an event or a listing, does not
matter, nor how often, nor in which order: an event is a hint, and what counts is what the source says when asked.

After writing, the source is asked again; if it has changed meanwhile, everything is looked at once more. So of two
workers on one key, the one that wrote stale bytes sees that and repairs it, and if it dies before, its message is
delivered again (docs/DESIGN.md, "Two workers").
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Protocol

from replicator.apply import Applier, Progress
from replicator.budget import ByteBudget
from replicator.compare import compare
from replicator.copying import SMALL, Copier
from replicator.decide import NOT_AT_TARGET, TAGS, Action, Do, Limits, decide
from replicator.diff import Row
from replicator.errors import (
    ChangedMeanwhile,
    Corrupted,
    NoSuchKey,
    NoSuchUpload,
    NotAnObject,
    Rejected,
    SourceKeepsChanging,
    StoreError,
    TooLargeForNow,
    Unsupported,
)
from replicator.model import Deletes, Did, Evidence, Listed, MiB, ObjectState, Observed, Outcome, Verdict, Version
from replicator.multipart import is_md5, parts_of
from replicator.parts import RESUME_FROM
from replicator.publish import Publisher
from replicator.store import ObjectStore, SourceStore

ROUNDS = 8
"""How often a key is looked at when its source changes under us, before that is reported."""

SLOWEST = 20 * MiB
"""Bytes per second at which a single-part object is expected to stream, when there is a deadline."""

LOOK_AGAIN = (NoSuchKey, NoSuchUpload, ChangedMeanwhile, Corrupted)
"""Errors that say that what was looked at is not there any more, or that bytes did not arrive as they were."""

APPEARANCES = 3
"""How often a key may be not found and yet be listed before that is reported."""

CORRUPTED_ROUNDS = 2
"""How often bytes may arrive wrong before that is reported: each round sends the whole object."""

HELD = "held back by the brake on deletes"
"""Why a delete was not made that `may_delete` did not allow."""

BEGUN = "begun, its parts are copied one by one"

DONE = {
    Do.NOTHING: Did.IN_SYNC,
    Do.KEEP: Did.KEPT,
    Do.COPY: Did.COPIED,
    Do.METADATA: Did.METADATA,
    Do.TAGS: Did.TAGS,
    Do.DELETE: Did.DELETED,
}


class HandOut(Protocol):
    """Large objects that are not copied by whoever meets them, but by many, part by part."""

    def takes(self, state: ObjectState) -> bool:
        """Whether this object of the source is to be copied so."""

    async def begin(self, key: str, source: Observed, targets: Sequence[str]) -> list[Exception | None]:
        """Begins it at the targets of these names, and hands out the parts; one error for each target, in order.

        None stands for one where it is begun, or will be tried again without us. Idempotent. Raises a StoreError of
        the source, and QueueError when the parts could not be handed out.
        """


class Converger:
    """Converges keys of one source to its targets.

    deletes: what to do at the targets when the source's object is gone. budget: bytes in memory for all keys.
    resume_from: size in bytes from which interrupted uploads are taken up again.
    confirm: ask the source again after every write. A bulk run may leave that to its next pass, for new keys.
    now: seconds since the epoch.
    trash: prefix at the targets that takes what is deleted, "" for none.
    may_delete: asked before the deletes of a key, if given; what it does not allow is an outcome HELD.
    check_replace: asked before an object that was not written by this call is replaced by other bytes, if given; raises
    a StoreError if it must not be.
    hand_out: takes large objects off our hands, if given.
    """

    def __init__(
        self,
        source: SourceStore,
        targets: Sequence[ObjectStore],
        *,
        deletes: Deletes,
        budget: ByteBudget | None = None,
        confirm: bool = True,
        resume_from: int = RESUME_FROM,
        trash: str = "",
        may_delete: Callable[[str], Awaitable[bool]] | None = None,
        check_replace: Callable[[str], Awaitable[None]] | None = None,
        hand_out: HandOut | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.source = source
        self.publishers = [Publisher(target) for target in targets]
        self.deletes = deletes
        self.confirm = confirm
        copier = Copier(source, budget=budget or ByteBudget(256 * MiB), resume_from=resume_from)
        self._applier = Applier(copier, trash=trash)
        self._may_delete = may_delete
        self._check_replace = check_replace
        self._hand_out = hand_out
        self._clock = clock
        self._now = now
        self._server_side = [target.can_copy_from(source) for target in targets]

    async def converge(
        self,
        key: str,
        listed: Row | None = None,
        *,
        guess: Listed | None = None,
        confirm: bool = False,
        seconds: float | None = None,
        released: bool = False,
        targets: Collection[str] | None = None,
    ) -> list[Outcome]:
        """Makes every target equal to the source for this key; one outcome for each target, in order.

        Idempotent. Never raises an Exception: what failed is an outcome FAILED with its error, and one target's
        failure does not hold back the others.

        listed: what listings said, which may save asking. guess: what an event said of the source's object, which is
        likely to be new; nothing of it need be true. confirm: even if this converger need not. seconds: in which it
        has to be done: an object that cannot be resumed and is too large for that is not begun. released: deletes are
        made without asking `may_delete`. targets: names of those that it is about, where that is not all.
        """
        started, began = self._clock(), self._now()
        deadline = None if seconds is None else started + seconds
        progress = [
            Progress(publisher) for publisher in self.publishers if targets is None or publisher.target.name in targets
        ]
        try:
            if not (
                (listed is not None and await self._copy_unseen(key, listed, progress, confirm=confirm))
                or (guess is not None and await self._copy_guessed(key, guess, progress))
            ):
                await self._rounds(key, progress, deadline, released=released)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one key must not stop the others
            for one in progress:
                one.error = one.error or error
        taken = self._clock() - started
        return [_outcome(key, one, began, taken) for one in progress]

    async def look(self, key: str) -> tuple[Observed | None, list[Action]]:
        """The source's object, and what converge would do for each target now. Changes nothing. Raises StoreError."""
        source = await self._observe_source(key)
        targets = [await self._observe_target(key, publisher) for publisher in self.publishers]
        return source, [decide(source, target, deletes=self.deletes) for target in targets]

    async def _copy_unseen(self, key: str, listed: Row, progress: list[Progress], *, confirm: bool) -> bool:
        """The short way for a new object: GET and PUT, or HEAD and COPY inside one service, and HEAD to confirm.

        False if the long way is to be gone.
        """
        entry = listed.source
        if entry is None or any(listed.targets) or (self._hand_out is not None and parts_of(entry.etag) is not None):
            return False
        try:
            if all(self._server_side):
                observed = await self._observe_source(key)
                if observed is None or (self._hand_out is not None and self._hand_out.takes(observed.state)):
                    return False
                for one in progress:
                    one.action = NOT_AT_TARGET
                await self._applier.copy(key, observed, progress)
            elif any(self._server_side) or entry.size > SMALL or parts_of(entry.etag) is not None:
                return False
            else:
                observed = await self._applier.copy_unseen(key, entry.size, progress)
        except LOOK_AGAIN:
            return False
        if any(isinstance(one.error, LOOK_AGAIN) for one in progress):
            return False
        for one in progress:
            one.source = observed
        return not (self.confirm or confirm or observed.tags) or _same(observed, await self._observe_source(key))

    async def _copy_guessed(self, key: str, guess: Listed, progress: list[Progress]) -> bool:
        """The short way where nobody has looked at the targets: they are asked to take the object only if it is new.

        False, as if nothing were tried, if the long way is to be gone.
        """
        if guess.size > SMALL or not is_md5(guess.etag) or any(self._server_side):
            return False
        if not all(one.publisher.takes_only_new and not one.publisher.foreign_etags for one in progress):
            return False
        try:
            observed = await self._applier.copy_unseen(key, guess.size, progress, only_new=True)
        except StoreError:
            return False
        for one in progress:
            one.source = observed
            if isinstance(one.error, (Rejected, Unsupported)):
                one.publisher.takes_only_new = False
        return not any(one.error for one in progress) and _same(observed, await self._observe_source(key))

    async def _rounds(self, key: str, progress: list[Progress], deadline: float | None, *, released: bool) -> None:
        """Looks, acts and looks again until the source is the one that was acted upon."""
        source = await self._observe_source(key)
        broken: Exception | None = None
        corrupted = 0
        for _ in range(ROUNDS):
            try:
                self._check_time(key, source, deadline)
                if not await self._round(key, source, progress, released=released):
                    return
                broken = None
            except LOOK_AGAIN as error:
                broken = error
            corrupted += any(isinstance(error, Corrupted) for error in (broken, *(one.error for one in progress)))
            if corrupted == CORRUPTED_ROUNDS:
                break
            again = await self._observe_source(key)
            settled = broken is None and not any(isinstance(one.error, LOOK_AGAIN) for one in progress)
            if settled and _same(source, again):
                return
            source = again
        if broken is not None:
            raise broken
        if not any(one.error for one in progress):
            raise SourceKeepsChanging(f"{self.source.name}{key} changed {ROUNDS} times while it was copied")

    def _check_time(self, key: str, source: Observed | None, deadline: float | None) -> None:
        """Refuses what would surely be cut off: an object without parts has nothing to go on from the next time."""
        if deadline is None or source is None or parts_of(source.state.etag) is not None:
            return
        if self._hand_out is not None and self._hand_out.takes(source.state):
            return
        left = deadline - self._clock()
        if source.state.size > max(SMALL, left * SLOWEST):
            raise TooLargeForNow(
                f"{key!r}: {source.state.size} bytes in one part are too many for the {left:.0f} s left: "
                "copy it with `replicator migrate`"
            )

    async def _round(self, key: str, source: Observed | None, progress: list[Progress], *, released: bool) -> bool:
        """Acts once on what the source was seen to be; whether anything was, or may have been, written."""
        copies: list[Progress] = []
        allowed: bool | None = True if released or self._may_delete is None else None
        wrote = False
        for one in progress:
            before, one.error, one.source = one.source, None, source
            one.did = None if one.did is Did.HELD else one.did
            try:
                target = await self._observe_target(key, one.publisher)
                limits = Limits(one.beyond, tags=one.publisher.holds_tags and TAGS not in one.beyond)
                one.action = decide(source, target, deletes=self.deletes, limits=limits)
                if one.action.do is Do.DELETE and allowed is None and self._may_delete is not None:
                    allowed = await self._may_delete(key)
                if one.action.do is Do.COPY:
                    if target is not None and self._check_replace is not None and not _is_ours(one, before, target):
                        await self._check_replace(key)
                    copies.append(one)
                elif one.action.do is Do.DELETE and not allowed:
                    one.did = Did.HELD
                elif one.action.do not in (Do.NOTHING, Do.KEEP):
                    wrote = True
                    await self._applier.amend(key, source, target, one)
            except StoreError as error:
                one.error = error
        if copies and source is not None:
            await self._copy(key, source, copies)
        return wrote or bool(copies)

    async def _copy(self, key: str, source: Observed, copies: list[Progress]) -> None:
        """Copies the bytes, or begins to. Raises a StoreError of the source."""
        if self._hand_out is None or source.state.archived or not self._hand_out.takes(source.state):
            await self._applier.copy(key, source, copies)
            return
        errors = await self._hand_out.begin(key, source, [one.publisher.target.name for one in copies])
        for one, error in zip(copies, errors, strict=True):
            one.did, one.wrote, one.error = Did.BEGUN, one.action, error

    async def _observe_source(self, key: str) -> Observed | None:
        """The source's object as it is now; None only when its absence is proved.

        Raises ChangedMeanwhile when it is again and again not found, yet listed.
        """
        appeared: ChangedMeanwhile | None = None
        for _ in range(APPEARANCES):
            try:
                return await _observe(self.source, key)
            except NoSuchKey:
                try:
                    await self.source.confirm_absent(key)
                except ChangedMeanwhile as error:  # written since it was not found: look again
                    appeared = error
                    continue
                return None
        raise appeared or AssertionError("looked at least once")

    async def _observe_target(self, key: str, publisher: Publisher) -> Observed | None:
        try:
            return await _observe(publisher.target, key)
        except NoSuchKey:
            return None


async def _observe(store: SourceStore, key: str) -> Observed:
    state = await store.head(key)
    tags = await store.get_tags(key, state.version_id) if state.tag_count else ()
    return Observed(state, tags)


def _outcome(key: str, one: Progress, began: float, seconds: float) -> Outcome:
    action = one.wrote or one.action or Action(Do.NOTHING, "")
    did, reason = one.did or DONE[action.do], action.reason
    if did is Did.HELD:
        reason = f"{HELD}: {reason}"
    elif did is Did.BEGUN:
        reason = f"{BEGUN}: {reason}"
    if one.error is not None:
        did, reason = Did.SKIPPED if isinstance(one.error, NotAnObject) else Did.FAILED, str(one.error)
    state = one.source.state if one.source is not None else None
    return Outcome(
        key=key,
        target=one.publisher.target.name,
        did=did,
        reason=reason,
        evidence=one.evidence or (Evidence.NONE if did is Did.DELETED else action.evidence),
        bytes=one.bytes,
        seconds=seconds,
        not_kept=tuple(sorted(one.not_kept.union(action.not_kept))),
        source=_version(state) if state is not None else None,
        began=began,
        failure=one.error,
    )


def _is_ours(one: Progress, before: Observed | None, target: Observed) -> bool:
    """Whether the target's object is still the one that this call wrote."""
    return one.wrote is not None and before is not None and compare(before.state, target.state).verdict is Verdict.SAME


def _version(state: ObjectState) -> Version:
    return Version(state.size, state.etag, state.modified, state.version_id, state.believable_from)


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
