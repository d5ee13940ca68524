"""One randomised run of writers, events, workers and faults against the in-memory store, decided by one seed.

Writers change a few keys of the source and send an event for each change. Events are delivered late, out of order and
more than once. Workers converge the keys they receive; a message is gone only when its worker has said that all is
well. Requests fail before or after they took effect, bytes arrive wrong, and a worker may die between any two steps.
When the writers have stopped and the queue is empty, every target must be equal to the source.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field

from replicator.converge import Converger
from replicator.errors import Throttled, Transient
from replicator.model import Attributes, Deletes, Did, Listed, MiB, Tags
from replicator.parts import RESUME_FROM
from replicator.store import Fetched, Pin, Span
from tests.fakes.memory import Bucket, MemoryStore, Quirks, Stored

KEYS = ("a", "a/b", "ä+ %41")
MOST_DELIVERIES = 4000
"""More than any run needs: beyond it, something is retried for ever."""


class Died(BaseException):
    """The worker's process is gone: nothing of it runs any more."""


class FlakyStore(MemoryStore):
    """A MemoryStore that now and then delivers a wrong byte."""

    def __init__(self, bucket: Bucket, world: World, *, name: str, quirks: Quirks) -> None:
        super().__init__(bucket, name=name, quirks=quirks, step=world.step)
        self._world = world

    async def fetch(
        self,
        key: str,
        *,
        limit: int,
        span: Span | None = None,
        pin: Pin | None = None,
        into: memoryview | None = None,
    ) -> Fetched:
        fetched = await super().fetch(key, limit=limit, span=span, pin=pin, into=into)
        if fetched.data and self._world.faults and self._world.random.random() < 0.02:
            self._world.happened.append("wrong byte")
            wrong = bytearray(fetched.data)
            wrong[self._world.random.randrange(len(wrong))] ^= self._world.random.randrange(1, 256)
            return Fetched(fetched.state, bytes(wrong))
        return fetched


@dataclass
class World:
    """The state of one run."""

    random: random.Random
    source: Bucket = field(default_factory=Bucket)
    targets: list[Bucket] = field(default_factory=list)
    queue: list[str] = field(default_factory=list)
    writers: int = 0
    in_flight: int = 0
    deliveries: int = 0
    faults: bool = True
    mortal: bool = True
    happened: list[str] = field(default_factory=list)

    async def step(self, operation: str, key: str) -> None:
        """Before and after each effect of a request: others run, time passes, things go wrong."""
        for _ in range(self.random.choice((0, 0, 1, 2, 7))):
            await asyncio.sleep(0)
        for bucket in (self.source, *self.targets):
            bucket.now += self.random.choice((0.0, 0.0, 0.1, 1.0))
        chance = self.random.random()
        if self.mortal and chance < 0.01:
            self.happened.append(f"died at {operation}")
            raise Died(operation)
        if self.faults and chance < 0.05:
            self.happened.append(f"failed at {operation}")
            kind = self.random.choice((Transient, Throttled))
            raise kind(operation, key, "made to fail")


async def _write(world: World, changes: int, large: bool) -> None:
    """An outside writer: puts, deletes, changes metadata or tags, and sends an event after each change."""
    for _ in range(changes):
        for _ in range(world.random.choice((0, 1, 3, 20))):
            await asyncio.sleep(0)
        world.source.now += world.random.choice((0.0, 0.2, 1.0))
        key = world.random.choice(KEYS)
        _change(world, key, large)
        world.queue.extend([key] * world.random.choice((1, 1, 1, 3)))
    world.writers -= 1


def _change(world: World, key: str, large: bool) -> None:
    chooser = world.random
    before = world.source.objects.get(key)
    kind = chooser.choice(("put", "put", "put", "delete", "metadata", "tags"))
    if kind == "delete":
        world.source.objects.pop(key, None)
    elif kind == "put" or before is None:
        data = chooser.choice((b"", b"x", b"old", b"new", chooser.randbytes(3)))
        part_size = chooser.choice((None, None, 64))
        if large and chooser.random() < 0.5:
            data, part_size = chooser.choice((b"x", b"y")) * (5 * MiB) + data, chooser.choice((None, 5 * MiB))
        attributes, tags = (_attributes(chooser), _tags(chooser))
        world.source.write(key, data, attributes, tags=tags, part_size=part_size if data else None)
    else:
        attributes = _attributes(chooser) if kind == "metadata" else before.attributes
        tags = _tags(chooser) if kind == "tags" else before.tags
        modified = world.source.now if kind == "metadata" else before.modified
        world.source.objects[key] = Stored(before.data, before.etag, modified, attributes, tags, parts=before.parts)


def _attributes(chooser: random.Random) -> Attributes:
    metadata = chooser.choice(((), (("owner", "me"),), (("owner", "you"), ("x-y", "1"))))
    return Attributes(content_type=chooser.choice(("text/plain", "image/png")), metadata=metadata)


def _tags(chooser: random.Random) -> Tags:
    return chooser.choice(((), (), (("team", "red"),), (("team", "blue"), ("x", "y"))))


async def _worker(world: World, converger: Converger) -> None:
    """Receives messages until all is done. A dead worker's message comes back; another worker takes its place."""
    while world.writers or world.queue or world.in_flight:
        if not world.queue:
            await asyncio.sleep(0)
            continue
        world.deliveries += 1
        if world.deliveries > MOST_DELIVERIES:
            raise AssertionError("something is retried for ever")
        if world.deliveries > MOST_DELIVERIES // 4:
            world.faults = world.mortal = False
        key = world.queue.pop(world.random.randrange(len(world.queue)))
        world.in_flight += 1
        try:
            outcomes = await converger.converge(key, guess=_guess(world, key))
            well = all(outcome.did is not Did.FAILED for outcome in outcomes)
        except Died:
            well = False
        finally:
            world.in_flight -= 1
        if not well:
            world.queue.append(key)


def _guess(world: World, key: str) -> Listed | None:
    """What the event says of the object, if anything: of now, of some other key, or of what has never been."""
    chooser = world.random
    if chooser.random() < 0.3:
        return None
    stored = world.source.objects.get(chooser.choice((key, key, key, *KEYS)))
    if stored is None:
        return Listed(key, chooser.choice((0, 1, 10**12)), "d41d8cd98f00b204e9800998ecf8427e", 0.0)
    return Listed(key, len(stored.data), stored.etag, 0.0)


async def run(seed: int, *, large: bool = False) -> World:
    """Plays one run to its end and returns what is there then."""
    chooser = random.Random(seed)
    world = World(chooser, targets=[Bucket() for _ in range(chooser.choice((1, 1, 2)))])
    world.targets[0].now += chooser.choice((-5000.0, 0.0, 5000.0))
    own_etags = chooser.random() < 0.15
    source = FlakyStore(world.source, world, name="source/", quirks=Quirks(knows_parts=chooser.random() < 0.6))
    targets = [
        FlakyStore(
            bucket,
            world,
            name=f"target{n}/",
            quirks=Quirks(
                own_etags=own_etags and n == 0,
                silent_completion=chooser.random() < 0.5,
                conditions=chooser.random() < 0.7,
            ),
        )
        for n, bucket in enumerate(world.targets)
    ]
    world.writers = 2
    writers = [_write(world, chooser.randrange(2, 9), large) for _ in range(world.writers)]
    resume_from = chooser.choice((0, RESUME_FROM))
    workers = [
        _worker(world, Converger(source, targets, deletes=Deletes.MIRROR, resume_from=resume_from))
        for _ in range(chooser.choice((1, 2, 4)))
    ]
    await asyncio.gather(*writers, *workers)
    return world


def content(bucket: Bucket) -> dict[str, tuple[bytes, Attributes, Tags]]:
    """What must be equal at the end."""
    return {key: (stored.data, stored.attributes, stored.tags) for key, stored in bucket.objects.items()}
