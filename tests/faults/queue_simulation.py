"""One randomised run of the queue engine with large objects, decided by one seed.

A writer changes one or two keys of the source: large objects in parts, many of which look alike, small ones, none. Each
change is an event. Workers handle the messages of a queue that gives them late, twice and in any order; some have too
little time, some are cancelled, requests fail before or after they took effect, and a worker may die between any two
steps: then it forgets what it knew, and nothing of it runs any more, not even what cleans up.

When all is quiet, every message that was ever sent is given once more. The targets have to be equal then.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections import Counter
from dataclasses import dataclass, field

from replicator.bulk.report import NoReport
from replicator.errors import PoisonMessage, ReplicatorError, Throttled, Transient
from replicator.items import Item, KeysItem, PartsItem, decode, encode, is_item
from replicator.live.batch import KeyTask, Task
from replicator.live.brake import DeleteBrake, MemoryCounter
from replicator.live.route import RouteWork
from replicator.model import Attributes, Did, MiB, Tags
from replicator.settings import Settings
from replicator.store import Write
from tests.fakes.memory import Bucket, MemoryStore, Quirks, Stored, Upload

ROUTE = "default"
PART = 5 * MiB
LARGE_FROM = 4 * MiB
"""So an item has a single part."""

MOST_DELIVERIES = 3000
"""More than any run needs: beyond it, something is retried for ever."""

SETTINGS = Settings.from_env(
    {
        "SOURCE_BUCKET": "from",
        "TARGET_BUCKET": "to",
        "DELETES": "mirror",
        **{f"{side}_{name}": "x" for side in ("SOURCE", "TARGET") for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY")},
    }
)


class Died(BaseException):
    """The worker's process is gone."""


@dataclass
class World:
    """The state of one run.

    queue: messages that wait. ever: all that were sent. sent: number of PartsItems that were. named: (target, id) of
    uploads that were in one. faults: whether requests fail, workers die, and messages come twice.
    """

    random: random.Random
    source: Bucket = field(default_factory=Bucket)
    targets: list[Bucket] = field(default_factory=list)
    queue: list[str] = field(default_factory=list)
    ever: list[str] = field(default_factory=list)
    named: set[tuple[str, str]] = field(default_factory=set)
    writing: bool = True
    in_flight: int = 0
    deliveries: int = 0
    sent: int = 0
    largest: int = 0
    changes: int = 0
    faults: bool = True
    happened: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def put(self, body: str) -> None:
        """Sends a message."""
        self.queue.append(body)
        self.ever.append(body)

    def note(self, kind: str, what: object = "") -> None:
        """Remembers a fault."""
        self.counts[kind] += 1
        self.happened.append(f"{kind} {what}".strip())


class FreeBrake(DeleteBrake):
    """Lets every delete pass, and asks no thread for it."""

    async def allows(self, key: str) -> bool:
        return True


class Process:
    """A worker's process: stores and a route of its own, until it dies."""

    def __init__(self, world: World, quirks: list[Quirks]) -> None:
        self.world = world
        self.dead = False
        self.task: asyncio.Task[None] | None = None
        source = MemoryStore(world.source, name="source/", quirks=quirks[0], step=self.step)
        targets = [
            MemoryStore(bucket, name=f"target{n}/", quirks=quirks[n + 1], step=self.step)
            for n, bucket in enumerate(world.targets)
        ]
        brake = FreeBrake(MemoryCounter(), ROUTE)
        self.work = RouteWork(
            SETTINGS,
            source,
            targets,
            brake=brake,
            send=self.send,
            report=NoReport(),
            large_from=LARGE_FROM,
            now=lambda: max(bucket.now for bucket in world.targets),
        )

    async def step(self, operation: str, key: str) -> None:
        """Before and after each effect of a request."""
        world, chance = self.world, self.world.random
        if self.dead:
            raise Died(operation)
        pause = chance.choice((0, 0, 0, 1, 3, None))
        if pause is None:
            await asyncio.sleep(chance.choice((0.1, 1.0)))
        for _ in range(pause or 0):
            await asyncio.sleep(0)
        for bucket in (world.source, *world.targets):
            bucket.now += chance.choice((0.0, 0.1, 1.0))
        if self.dead:
            raise Died(operation)
        await self._fault(operation, key)

    async def _fault(self, operation: str, key: str) -> None:
        world, fate = self.world, self.world.random.random()
        if not world.faults:
            return
        if fate < 0.008:
            world.note("died", operation)
            self.dead = True
            raise Died(operation)
        if fate < 0.012 and self.task is not None:
            world.note("cancelled", operation)
            self.task.cancel()
            await asyncio.sleep(0)
        elif fate < 0.03:
            world.note("failed", operation)
            raise world.random.choice((Transient, Throttled))(operation, key, "made to fail")

    async def send(self, items: list[Item]) -> None:
        """Some are sent, and then it may die or fail: SQS takes ten at once."""
        for item in items:
            await self.step("SendMessage", "")
            body = encode(item)
            self.world.put(body)
            if isinstance(item, PartsItem):
                self.world.sent += 1
                self.world.named.update(item.uploads)
        await self.step("SendMessage:answered", "")

    async def handle(self, body: str, seconds: float) -> bool:
        """Whether the message is done."""
        item = decode(body) if is_item(body) else None
        keys = (body,) if item is None else item.keys if isinstance(item, KeysItem) else ()
        tasks: list[Task] = [KeyTask(ROUTE, key) for key in keys]
        if isinstance(item, PartsItem):
            tasks.append(item)
        try:
            for task in tasks:
                outcomes = await self.work.do(task, seconds=seconds)
                if any(outcome.did is Did.FAILED for outcome in outcomes):
                    return False
        except PoisonMessage:
            raise
        except ReplicatorError:
            return False
        return True


def _large(world: World) -> tuple[bytes, int]:
    """A large object, and the size of its parts. Many have the same layout, and parts in common."""
    count = world.random.choice((2, 3, 3, 4, 6))
    size = world.random.choice((PART, PART, PART, 6 * MiB))
    letters = [world.random.choice((b"x", b"x", b"y")) for _ in range(count)]
    last = world.random.choice((1, 1, 3 * MiB))
    world.largest = max(world.largest, count)
    return b"".join(letter * size for letter in letters[:-1]) + letters[-1] * last, size


def _attributes(chance: random.Random) -> Attributes:
    metadata = chance.choice(((), (("a", "b"),)))
    return Attributes(content_type=chance.choice(("text/plain", "image/png")), metadata=metadata)


def _tags(chance: random.Random) -> Tags:
    return chance.choice(((), (), (("team", "red"),)))


def change(world: World, key: str, earlier: list[tuple[bytes, int]]) -> None:
    """What a writer does to a key."""
    chance, before = world.random, world.source.objects.get(key)
    kind = chance.choice(("large", "large", "large", "again", "small", "delete", "metadata"))
    if kind == "delete":
        world.source.objects.pop(key, None)
    elif kind == "small":
        world.source.write(key, b"small", _attributes(chance), tags=_tags(chance))
    elif kind == "metadata" and before is not None:
        world.source.objects[key] = Stored(
            before.data, before.etag, world.source.now, _attributes(chance), _tags(chance), parts=before.parts
        )
    else:
        data, part_size = chance.choice(earlier) if kind == "again" and earlier else _large(world)
        earlier.append((data, part_size))
        world.source.write(key, data, _attributes(chance), tags=_tags(chance), part_size=part_size)
    world.changes += 1
    world.note("changed", f"{key} {kind}")


def lose_upload(world: World) -> None:
    """An operator, or a rule of the bucket, aborts what is unfinished."""
    bucket = world.random.choice(world.targets)
    if bucket.uploads:
        world.note("lost", id := world.random.choice(list(bucket.uploads)))
        del bucket.uploads[id]


def leave_upload(world: World, key: str) -> None:
    """A bulk run that was killed has left an upload with some parts of the object."""
    stored, number_of_target = world.source.objects.get(key), world.random.randrange(len(world.targets))
    if stored is None or len(stored.parts) < 2:
        return
    offset, upload = 0, Upload(key, Write())
    for number, size in enumerate(stored.parts[:-1], start=1):
        data = stored.data[offset : offset + size]
        offset += size
        if world.random.random() < 0.6:
            upload.parts[number], upload.etags[number] = data, hashlib.md5(data).hexdigest()
    if upload.parts:
        id = f"bulk-{key}"
        world.targets[number_of_target].uploads[id] = upload
        world.note("left", f"{id} {list(upload.parts)}")


async def _write(world: World, keys: tuple[str, ...], changes: int) -> None:
    earlier: list[tuple[bytes, int]] = []
    loses = world.random.random() < 0.3
    if world.random.random() < 0.2:
        for key in keys:
            change(world, key, earlier)
            leave_upload(world, key)
            world.put(key)
    for _ in range(changes):
        for _ in range(world.random.choice((0, 1, 20, 100, 300))):
            await asyncio.sleep(0)
        if world.random.random() < 0.3:
            await asyncio.sleep(world.random.choice((0.5, 5.0, 50.0)))
        key = world.random.choice(keys)
        if loses and world.random.random() < 0.5:
            lose_upload(world)
        change(world, key, earlier)
        world.put(key)
    for _ in range(world.random.choice((0, 1, 3)) if loses else 0):
        await asyncio.sleep(world.random.choice((0.5, 5.0, 50.0)))
        lose_upload(world)
    world.writing = False


async def _worker(world: World, quirks: list[Quirks]) -> None:
    process = Process(world, quirks)
    while world.writing or world.queue or world.in_flight:
        if not world.queue:
            await asyncio.sleep(0.01)
            continue
        world.deliveries += 1
        if world.deliveries > MOST_DELIVERIES:
            raise AssertionError("something is retried for ever")
        if world.deliveries > MOST_DELIVERIES // 4:
            world.faults = False
        body = world.queue.pop(world.random.randrange(len(world.queue)))
        if world.faults and world.random.random() < 0.1:
            world.queue.append(body)
            world.note("twice")
        await _deliver(world, process, body)
        if process.dead:
            process = Process(world, quirks)


async def _deliver(world: World, process: Process, body: str) -> None:
    """One message to one worker. It comes again unless it is done; a little later, as its visibility has to end."""
    world.in_flight += 1
    seconds = world.random.choice((0.5, 4.0, 1000.0)) if world.faults else 1000.0
    done = False

    async def handle() -> None:
        nonlocal done
        done = await process.handle(body, seconds)

    process.task = asyncio.ensure_future(handle())
    try:
        await asyncio.wait([process.task])
        error = None if process.task.cancelled() else process.task.exception()
        if error is not None and not isinstance(error, Died):
            raise error
        if not done:
            await asyncio.sleep(world.random.choice((0.0, 1.0, 10.0)))
            for bucket in world.targets:  # and more, by the clocks of the stores
                bucket.now += 20.0
            world.queue.append(body)
    finally:
        world.in_flight -= 1


def _quirks(chance: random.Random, targets: int) -> list[Quirks]:
    """Of the source, and of the targets."""
    kinds = ("plain", "plain", "plain", "own", "whole")
    source = Quirks(knows_parts=chance.random() < 0.7)
    there = [chance.choice(kinds) for _ in range(targets)]
    return [
        source,
        *(
            Quirks(own_etags=kind == "own", whole_etags=kind == "whole", silent_completion=chance.random() < 0.5)
            for kind in there
        ),
    ]


async def run(seed: int) -> World:
    """Plays one run to its end and returns what is there then."""
    chance = random.Random(seed)
    world = World(chance, targets=[Bucket() for _ in range(chance.choice((1, 1, 2)))])
    quirks = _quirks(chance, len(world.targets))
    keys = ("a",) if chance.random() < 0.7 else ("a", "b")
    world.note("quirks", quirks)
    writer = _write(world, keys, chance.choice((1, 1, 2, 3, 5, 8)))
    workers = [_worker(world, quirks) for _ in range(chance.choice((1, 2, 4)))]
    await asyncio.gather(writer, *workers)
    world.faults = False
    world.queue = [body for body in world.ever for _ in range(chance.choice((0, 1, 2)))]
    world.deliveries = 0
    await asyncio.gather(*(_worker(world, quirks) for _ in range(2)))
    return world


def content(bucket: Bucket) -> dict[str, tuple[bytes, Attributes, Tags]]:
    """What must be equal at the end."""
    return {key: (stored.data, stored.attributes, stored.tags) for key, stored in bucket.objects.items()}
