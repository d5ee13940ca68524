"""replicator migrate --engine sqs: sends the work to a queue, and waits until others have done it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Container, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import click

from replicator.cli.keys import keys_to_converge
from replicator.cli.loop import EXIT_INTERRUPTED, run_async
from replicator.errors import ConfigurationError, QueueError
from replicator.items import Item, RangeItem, encode, keys_items
from replicator.live.cutting import cut_ranges
from replicator.queues.opening import Queues, open_queues
from replicator.queues.queue import Outgoing
from replicator.s3.opening import check_sides, open_store
from replicator.settings import Settings

Answer = TypeVar("Answer")

RANGES = 32
"""To begin with: for so many workers there is something to do at once."""

LOOK_EVERY = 2.0
"""Seconds between two looks at the queue."""

QUIET_LOOKS = 2
"""So often in a row the queue has to be empty."""

QUIET_LOOKS_AT_SQS = 30
"""Its numbers are approximate, and right a minute after the last message was sent."""

SAY_EVERY = 10.0
"""Seconds between two lines about what is left."""

NOT_OURS = {
    "delete": "whether deletes are mirrored is said by the route of the workers (deletes, or DELETES)",
    "max_delete": "the workers have a brake of their own: max_deletes_per_hour of the route",
    "trash": "the workers delete for good",
    "passes": "all is done once, and every copy is looked at again",
    "dry_run": "run it without --engine sqs",
    "state": "the queue remembers what is to do",
    "abort_stale": "run it without --engine sqs",
    "html": "the workers report: see their logs, or --catalog",
    "report": "the workers report: see their logs, or --catalog",
    "catalog": "the workers note what they do: give it to them",
    "processes": "start more workers instead",
    "concurrency": "the workers have their own",
    "max_rps": "the workers have their own",
    "bandwidth": "the workers have their own",
    "include": "keys are chosen by the route of the workers",
    "exclude": "keys are chosen by the route of the workers",
}
"""Options that say what only the workers can heed."""


@dataclass(frozen=True, slots=True)
class ByQueue:
    """What is asked for. keys, inventory: where the keys are named, if they are not to be listed. wait: to the end."""

    queue: str
    deep: bool
    keys: Path | None
    inventory: str | None
    wait: bool


def check_options(given: Container[str]) -> None:
    """Raises ConfigurationError for options that are not for this engine. given: names of those that were given."""
    for name, reason in NOT_OURS.items():
        if name in given:
            raise ConfigurationError(f"--{name.replace('_', '-')} is not for --engine sqs: {reason}")


def migrate_by_queue(settings: Settings, asked: ByQueue) -> int:
    """Sends the work, and waits; the exit code: 1 when some of it finally failed, 3 when deletes were held back.

    Interrupted, it leaves what is sent to the workers.
    """
    with closing(open_queues(asked.queue, os.environ)) as queues:
        run = _Run(settings, asked, queues)
        try:
            return run_async(run.run)
        except KeyboardInterrupt:
            if not run.sent:
                raise
            rest = "" if run.all_sent else ", but not all was sent: run it again"
            _say(f"stopped waiting; the workers go on with the {run.sent:,} work items that were sent{rest}")
            return EXIT_INTERRUPTED


class _Run:
    """One migration by a queue. sent: work items, up to now."""

    def __init__(self, settings: Settings, asked: ByQueue, queues: Queues) -> None:
        self._settings = settings
        self._asked = asked
        self._queues = queues
        self.sent = 0
        self.all_sent = False

    async def run(self) -> int:
        """The exit code."""
        settings, queues = self._settings, self._queues
        await check_sides((settings.source, *settings.targets))
        before = await asyncio.to_thread(_set_aside, queues)
        async for items in _items(settings, self._asked):
            await asyncio.to_thread(queues.items.send, [Outgoing(encode(item)) for item in items])
            self.sent += len(items)
        self.all_sent = True
        _say(f"sent {self.sent:,} work items of route {settings.name} to {queues.items.name}")
        if not self._asked.wait:
            return 0
        changes = "" if queues.work else ". Where changes go there too and never end: set WORK_QUEUE_URL, or --no-wait"
        _say(f"waiting until that queue is empty of everything; Ctrl-C ends the waiting, not the work{changes}")
        await wait_until_empty(queues)
        return self._verdict(before, await _patiently(lambda: _set_aside(queues)))

    def _verdict(self, before: tuple[int, int], after: tuple[int, int]) -> int:
        failed, held = (max(now - then, 0) for now, then in zip(after, before, strict=True))
        if failed:
            _say(f"{failed:,} messages finally failed: see replicator failures --queue {self._asked.queue}")
        if held:
            _say(f"{held:,} deletes were held back: see replicator held --queue {self._asked.queue}")
        if not failed and not held:
            where = (
                ""
                if self._queues.work
                else " there (workers with a WORK_QUEUE_URL may go on in that: set it here, too)"
            )
            _say(f"all done{where}; replicator verify compares both sides")
        return 1 if failed else 3 if held else 0


async def _items(settings: Settings, asked: ByQueue) -> AsyncIterator[Sequence[Item]]:
    """The work, in batches."""
    about = settings.source.location
    async with keys_to_converge(settings, settings.keys, keys=asked.keys, inventory=asked.inventory) as batches:
        if batches is None:
            async with open_store(settings.source, concurrency=4) as source:
                ranges = await cut_ranges(source, RANGES)
            yield [RangeItem(settings.name, one.after, one.upto, asked.deep, about) for one in ranges]
            return
        async for keys in batches:
            yield list(keys_items(settings.name, keys, about))


async def wait_until_empty(queues: Queues, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
    """Returns when nothing is to do any more, be it in the queue or at work; says now and then what is left."""
    quiet, looks = 0, 0
    while quiet < (QUIET_LOOKS if queues.file is not None else QUIET_LOOKS_AT_SQS):
        await sleep(LOOK_EVERY)
        depth = await _patiently(queues.items.depth, sleep=sleep)
        quiet = quiet + 1 if not any(depth) else 0
        looks += 1
        if any(depth) and looks % round(SAY_EVERY / LOOK_EVERY) == 0:
            hint = "" if depth.in_flight else ": is there a worker, replicator serve, at this queue?"
            _say(
                f"{depth.waiting:,} messages wait, {depth.in_flight:,} are at work, {depth.delayed:,} are put off{hint}"
            )


async def _patiently(ask: Callable[[], Answer], *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> Answer:
    """What a queue answers; one that cannot be asked now is asked again, and that is said once."""
    problem = None
    while True:
        try:
            return await asyncio.to_thread(ask)
        except QueueError as error:
            if str(error) != problem:
                _say(f"{error}: tried again")
            problem = str(error)
        await sleep(LOOK_EVERY)


def _set_aside(queues: Queues) -> tuple[int, int]:
    """Dead letters, and deletes that were held back."""
    failed, held = (queue.depth() if queue is not None else () for queue in (queues.dead_letters, queues.held))
    return sum(failed), sum(held)


def _say(text: str) -> None:
    click.echo(f"replicator: {text}", err=True)
