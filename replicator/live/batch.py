"""Converges the keys that a batch of messages names, each key once, and says of each message how it ended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from replicator.errors import PoisonMessage
from replicator.events import Notification, QueueMessage, parse_message
from replicator.model import Did, Outcome

Converge = Callable[[str], Awaitable[list[Outcome]]]

OUT_OF_TIME = "not finished in the time of this invocation: goes on when the message comes again"


@dataclass(frozen=True, slots=True)
class Handled:
    """How one message ended.

    error: why it must come again, None if all its keys are converged. ignored: why it names none of our keys.
    changed: when the change happened, as told. outcomes: of all keys it may mean.
    """

    message: QueueMessage
    error: str | None = None
    ignored: str | None = None
    changed: datetime | None = None
    outcomes: tuple[Outcome, ...] = ()


@dataclass(frozen=True, slots=True)
class _Read:
    """A message and the keys it may mean, relative to the source's prefix."""

    message: QueueMessage
    keys: tuple[str, ...] = ()
    error: str | None = None
    ignored: str | None = None
    changed: datetime | None = None


async def converge_messages(
    messages: Sequence[QueueMessage], *, bucket: str, prefix: str, converge: Converge, seconds: float
) -> list[Handled]:
    """Handles a batch; one result for each message, in order. Raises nothing for what is wrong with one of them.

    bucket, prefix: of the source. seconds: after so many, what is still under way is given up; large objects go on
    from their parts when the message comes again.
    """
    read = [_read(message, bucket, prefix) for message in messages]
    keys = dict.fromkeys(key for one in read for key in one.keys)
    tasks = {key: asyncio.ensure_future(converge(key)) for key in keys}
    if tasks:
        _, late = await asyncio.wait(tasks.values(), timeout=seconds)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
    return [_handled(one, tasks) for one in read]


def _read(message: QueueMessage, bucket: str, prefix: str) -> _Read:
    try:
        notification = parse_message(message.body)
        keys = _keys(notification, bucket, prefix)
    except PoisonMessage as error:
        return _Read(message, error=f"poison: {error.reason}")
    changed = min((change.time for change in notification.changes if change.time is not None), default=None)
    ignored = notification.ignored or (None if keys else f"no key below {prefix!r}")
    return _Read(message, keys, ignored=ignored, changed=changed)


def _keys(notification: Notification, bucket: str, prefix: str) -> tuple[str, ...]:
    """The keys below the prefix, relative to it. A foreign bucket is poison: some notification is set up wrongly."""
    for change in notification.changes:
        if change.bucket != bucket:
            raise PoisonMessage(f"is about bucket {change.bucket!r}, and {bucket!r} is mirrored here")
    candidates = (key for change in notification.changes for key in change.candidates)
    return tuple(key.removeprefix(prefix) for key in candidates if key.startswith(prefix) and key != prefix)


def _handled(read: _Read, tasks: Mapping[str, asyncio.Future[list[Outcome]]]) -> Handled:
    if read.error is not None or read.ignored is not None:
        return Handled(read.message, read.error, read.ignored, read.changed)
    outcomes: list[Outcome] = []
    errors: list[str] = []
    for key in read.keys:
        task = tasks[key]
        if task.cancelled():
            errors.append(f"{key!r}: {OUT_OF_TIME}")
        elif (failure := task.exception()) is not None:
            errors.append(f"{key!r}: {type(failure).__name__}: {failure}")
        else:
            outcomes += task.result()
    errors += [f"{outcome.key!r}: {outcome.reason}" for outcome in outcomes if outcome.did is Did.FAILED]
    return Handled(read.message, "; ".join(errors) or None, None, read.changed, tuple(outcomes))
