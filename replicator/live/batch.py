"""Does what a batch of messages asks for, each task once, and says of each message how it ended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from replicator.errors import PoisonMessage, ReplicatorError
from replicator.events import ChangedKey, QueueMessage, parse_message
from replicator.items import KeysItem, PartsItem, RangeItem, decode, is_item
from replicator.model import Did, Listed, Outcome

OUT_OF_TIME = "not finished in the time of this invocation: goes on when the message comes again"


@dataclass(frozen=True, slots=True)
class KeyTask:
    """Converge one key of a route.

    released: its delete may pass the brake. source: as in KeysItem. guess: the source's object, as told.
    """

    route: str
    key: str
    released: bool = False
    source: str = ""
    guess: Listed | None = field(default=None, compare=False)


Task = KeyTask | RangeItem | PartsItem

Do = Callable[[Task], Awaitable[list[Outcome]]]


@dataclass(frozen=True, slots=True)
class Handled:
    """How one message ended.

    error: why it must come again, None if all that it asks for is done. poison: it will never do. ignored: why it names
    none of our keys. changed: when the change happened, as told. outcomes: of all keys it may mean; those of a range
    are not among them. held: keys whose deletes were held back.
    """

    message: QueueMessage
    error: str | None = None
    ignored: str | None = None
    changed: datetime | None = None
    outcomes: tuple[Outcome, ...] = ()
    poison: bool = False
    held: tuple[KeyTask, ...] = ()


@dataclass(frozen=True, slots=True)
class _Read:
    """A message and the tasks it may mean."""

    message: QueueMessage
    tasks: tuple[Task, ...] = ()
    poison: str | None = None
    ignored: str | None = None
    changed: datetime | None = None


async def handle_messages(
    messages: Sequence[QueueMessage], *, meant: Callable[[ChangedKey], Sequence[KeyTask]], do: Do, seconds: float
) -> list[Handled]:
    """Handles a batch; one result for each message, in order. Raises nothing for what is wrong with one of them.

    meant: the keys of our routes that a change is about; raises PoisonMessage for a bucket of no route. do: does a
    task. seconds: after so many, what is still under way is given up; large objects go on from their parts when the
    message comes again.
    """
    read = [_read(message, meant) for message in messages]
    asked = dict.fromkeys(task for one in read for task in one.tasks)
    tasks = {task: asyncio.ensure_future(do(task)) for task in asked}
    if tasks:
        try:
            await asyncio.wait(tasks.values(), timeout=seconds)
        finally:  # nothing goes on behind the back of a caller that is cancelled
            late = [task for task in tasks.values() if not task.done()]
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
    return [_handled(one, tasks) for one in read]


def _read(message: QueueMessage, meant: Callable[[ChangedKey], Sequence[KeyTask]]) -> _Read:
    try:
        if is_item(message.body):
            return _Read(message, _tasks_of(decode(message.body)))
        notification = parse_message(message.body)
        tasks = [task for change in notification.changes for task in meant(change)]
    except PoisonMessage as error:
        return _Read(message, poison=f"poison: {error.reason}")
    changed = min((change.time for change in notification.changes if change.time is not None), default=None)
    ignored = notification.ignored or (None if tasks else "no key of a route")
    return _Read(message, tuple(dict.fromkeys(tasks)), ignored=ignored, changed=changed)


def _tasks_of(item: KeysItem | RangeItem | PartsItem) -> tuple[Task, ...]:
    if isinstance(item, KeysItem):
        return tuple(KeyTask(item.route, key, item.released, item.source) for key in item.keys)
    return (item,)


def _handled(read: _Read, tasks: Mapping[Task, asyncio.Future[list[Outcome]]]) -> Handled:
    if read.poison is not None or read.ignored is not None:
        return Handled(read.message, read.poison, read.ignored, read.changed, poison=read.poison is not None)
    outcomes: list[Outcome] = []
    errors: list[str] = []
    poison = False
    held: list[KeyTask] = []
    for asked in read.tasks:
        task = tasks[asked]
        if task.cancelled():
            errors.append(f"{_name(asked)}: {OUT_OF_TIME}")
        elif (failure := task.exception()) is not None:
            poison = poison or isinstance(failure, PoisonMessage)
            errors.append(str(failure) if isinstance(failure, ReplicatorError) else _explained(asked, failure))
        else:
            outcomes += task.result()
            if not isinstance(asked, RangeItem) and any(outcome.did is Did.HELD for outcome in task.result()):
                held.append(asked if isinstance(asked, KeyTask) else KeyTask(asked.route, asked.key))
    errors += [f"{outcome.key!r}: {outcome.reason}" for outcome in outcomes if outcome.did is Did.FAILED]
    error = "; ".join(errors) or None
    return Handled(read.message, error, None, read.changed, tuple(outcomes), poison, tuple(held))


def _explained(task: Task, failure: BaseException) -> str:
    return f"{_name(task)}: {type(failure).__name__}: {failure}"


def _name(task: Task) -> str:
    match task:
        case KeyTask(key=key) | PartsItem(key=key):
            return repr(key)
        case RangeItem(after=after, upto=upto):
            return f"the keys after {after!a}" + (f" up to {upto!a}" if upto is not None else "")
