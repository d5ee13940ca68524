"""replicator migrate --engine sqs: sends the work to a queue, and waits until others have done it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Container, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import click

from replicator.cli.keys import keys_to_converge
from replicator.cli.loop import run_async
from replicator.errors import ConfigurationError
from replicator.items import Item, RangeItem, encode, keys_items
from replicator.live.cutting import cut_ranges
from replicator.queues.opening import Queues, open_queues
from replicator.queues.queue import Outgoing
from replicator.s3.opening import check_sides, open_store
from replicator.settings import Settings

RANGES = 32
"""To begin with: for so many workers there is something to do at once."""

LOOK_EVERY = 2.0
"""Seconds between two looks at the queue."""

QUIET_LOOKS = 3
"""The numbers that SQS tells are approximate: so often in a row it has to be empty."""

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
    """Sends the work, and waits; the exit code: 1 when some of it finally failed, 3 when deletes were held back."""
    with closing(open_queues(asked.queue, os.environ)) as queues:
        return run_async(lambda: _migrate(settings, asked, queues))


async def _migrate(settings: Settings, asked: ByQueue, queues: Queues) -> int:
    await check_sides((settings.source, *settings.targets))
    before = await asyncio.to_thread(_set_aside, queues)
    sent = 0
    async for items in _items(settings, asked):
        await asyncio.to_thread(queues.changes.send, [Outgoing(encode(item)) for item in items])
        sent += len(items)
    _say(f"sent {sent:,} work items of route {settings.name} to {queues.changes.name}")
    if not asked.wait:
        return 0
    await _wait(queues)
    failed, held = (max(now - then, 0) for now, then in zip(_set_aside(queues), before, strict=True))
    if failed:
        _say(f"{failed:,} messages finally failed: see replicator failures --queue {queues.changes.name}")
    if held:
        _say(f"{held:,} deletes were held back: see replicator held --queue {queues.changes.name}")
    if not failed and not held:
        _say("all done; replicator verify compares both sides")
    return 1 if failed else 3 if held else 0


async def _items(settings: Settings, asked: ByQueue) -> AsyncIterator[Sequence[Item]]:
    """The work, in batches."""
    async with keys_to_converge(settings, settings.keys, keys=asked.keys, inventory=asked.inventory) as batches:
        if batches is None:
            async with open_store(settings.source, concurrency=4) as source:
                ranges = await cut_ranges(source, RANGES)
            yield [RangeItem(settings.name, one.after, one.upto, asked.deep) for one in ranges]
            return
        async for keys in batches:
            yield list(keys_items(settings.name, keys))


async def _wait(queues: Queues) -> None:
    """Returns when nothing is to do any more. What cannot be asked now is asked again."""
    quiet, told = 0, None
    while quiet < QUIET_LOOKS:
        await asyncio.sleep(LOOK_EVERY)
        depth = await asyncio.to_thread(queues.changes.depth)
        quiet = quiet + 1 if not any(depth) else 0
        if depth != told and any(depth):
            _say(f"{depth.waiting:,} messages wait, {depth.in_flight:,} are at work, {depth.delayed:,} are put off")
            told = depth


def _set_aside(queues: Queues) -> tuple[int, int]:
    """Dead letters, and deletes that were held back."""
    failed, held = (queue.depth() if queue is not None else () for queue in (queues.dead_letters, queues.held))
    return sum(failed), sum(held)


def _say(text: str) -> None:
    click.echo(f"replicator: {text}", err=True)
