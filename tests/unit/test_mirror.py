"""The mirror of several routes: which keys are whose, what is held back, when stores are opened and closed."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import replace
from urllib.parse import quote_plus

import pytest

from replicator.errors import AccessDenied, ConfigurationError, PoisonMessage, QueueError
from replicator.events import QueueMessage
from replicator.items import KeysItem, PartsItem, RangeItem, decode, encode
from replicator.live.brake import MemoryCounter
from replicator.live.mirror import FRESH, Mirror
from replicator.model import Did, MiB
from replicator.multipart import Part
from replicator.queues.opening import Queues
from replicator.queues.queue import Depth, Outgoing
from replicator.routes import read_routes
from tests.fakes.memory import MemoryStore

PLENTY = 60.0

CONFIG = {
    "endpoints": {"here": {"url": "http://127.0.0.1:1"}, "there": {"url": "http://127.0.0.1:2"}},
    "routes": {
        "photos": {"source": "here:from/photos/", "targets": ["there:photos"], "deletes": "mirror"},
        "all": {"source": "here:from", "targets": ["there:all"], "keys": ["exclude *.tmp"], "max_deletes_per_hour": 0},
        "other": {"source": "here:another", "targets": ["there:other"]},
    },
}
KEYS = {f"{side}_{name}": "x" for side in ("SOURCE", "TARGET") for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY")}


class Kept:
    """A queue that keeps what is sent, and may be away."""

    name = "a queue"

    def __init__(self):
        self.sent = []
        self.away = False

    def send(self, messages: list[Outgoing]):
        if self.away:
            raise QueueError("a queue: send: away")
        self.sent += [(decode(one.body), one.reason) for one in messages]

    def depth(self):
        return Depth(len(self.sent), 0, 0)


class World:
    """A mirror of the routes of CONFIG, between stores in memory.

    opened, closed: names of routes, in order. refused: routes whose stores refuse everything now. broken: routes that
    cannot be opened.
    """

    def __init__(self, *, held=True):
        self.stores = {name: (MemoryStore(name=f"{name} source/"), self.target(name)) for name in CONFIG["routes"]}
        self.opened, self.closed = [], []
        self.refused, self.broken = set(), set()
        self.now = 1000.0
        self.changes, self.held = Kept(), Kept()
        self.at_work = {}
        self.step = None
        routes = read_routes(KEYS, CONFIG)
        queues = Queues(self.changes, None, self.held if held else None)
        self.mirror = Mirror(routes, queues, MemoryCounter(), opening=self.opening, clock=lambda: self.now)

    def target(self, name):
        async def step(operation, key):
            await asyncio.sleep(0)
            if self.step is not None:
                await self.step(operation, key)
            assert self.is_open(name), "who uses a store has it open"
            if name in self.refused:
                raise AccessDenied(operation, key, "refused")

        return MemoryStore(name=f"{name}/", step=step)

    def is_open(self, name):
        return self.opened.count(name) > self.closed.count(name)

    @asynccontextmanager
    async def opening(self, settings, *, read_secret):
        await asyncio.sleep(0)
        if settings.name in self.broken:
            raise ConfigurationError("TARGET_SECRET_ID=x: no such secret")
        self.opened.append(settings.name)
        source, target = self.stores[settings.name]
        yield source, [target]
        self.closed.append(settings.name)

    def write(self, route, *keys):
        for key in keys:
            self.stores[route][0].bucket.write(key, key.encode())

    def copied(self, route):
        return sorted(self.stores[route][1].bucket.objects)

    async def handle(self, *bodies):
        messages = [QueueMessage(str(n), str(n), body, 1, "") for n, body in enumerate(bodies)]
        handled = await self.mirror.handle(messages, seconds=PLENTY)
        assert [one.message for one in handled] == messages
        return handled


def event(*keys, bucket="from"):
    return json.dumps(
        {
            "Records": [
                {
                    "eventSource": "aws:s3",
                    "eventName": "ObjectCreated:Put",
                    "eventTime": "2026-10-21T07:28:00Z",
                    "s3": {"bucket": {"name": bucket}, "object": {"key": quote_plus(key)}},
                }
                for key in keys
            ]
        }
    )


@pytest.fixture
def world():
    return World()


# Whose keys


async def test_a_key_goes_to_every_route_that_takes_it_and_to_no_other(world):
    world.write("photos", "1.jpg", "2.tmp")
    world.write("all", "photos/1.jpg", "photos/2.tmp", "text")
    handled = await world.handle(event("photos/1.jpg"), event("photos/2.tmp", "text"))
    assert [one.error for one in handled] == [None, None]
    assert world.copied("photos") == ["1.jpg", "2.tmp"]
    assert world.copied("all") == ["photos/1.jpg", "text"]
    assert world.copied("other") == []
    assert sorted(world.opened) == ["all", "photos"]
    await world.mirror.close()


async def test_a_key_that_no_route_takes_is_done(world):
    (one,) = await world.handle(event("a.tmp"))
    assert (one.error, one.ignored, world.opened) == (None, "no key of a route", [])


async def test_a_bucket_that_is_no_source_is_poison_that_names_those_that_are(world):
    (one,) = await world.handle(event("a", bucket="foreign"))
    assert one.poison
    assert all(name in one.error for name in ("'foreign'", "'from'", "'another'"))


@pytest.mark.parametrize(
    "item",
    [KeysItem("gone", ("a",)), RangeItem("gone"), PartsItem("gone", "a", "e", (("t", "u"),), (Part(1, 0, 1),), 1)],
)
async def test_a_work_item_of_an_unknown_route_is_poison_and_the_others_are_done(world, item):
    world.write("other", "b")
    one, other = await world.handle(encode(item), event("b", bucket="another"))
    assert (one.poison, "'gone'" in one.error) == (True, True)
    assert other.error is None
    assert world.copied("other") == ["b"]
    await world.mirror.close()


async def test_a_filter_holds_for_work_items_too(world):
    world.write("all", "a.tmp", "b")
    (one,) = await world.handle(encode(KeysItem("all", ("a.tmp", "b"))))
    assert one.error is None
    assert world.copied("all") == ["b"]
    await world.mirror.close()


async def test_a_route_that_fails_does_not_hold_back_another(world):
    world.write("photos", "1")
    world.write("all", "photos/1")
    world.broken.add("all")
    (one,) = await world.handle(event("photos/1"))
    assert one.error == "TARGET_SECRET_ID=x: no such secret"
    assert not one.poison
    assert world.copied("photos") == ["1"]
    world.broken.clear()
    (one,) = await world.handle(event("photos/1"))
    assert one.error is None
    assert world.copied("all") == ["photos/1"]
    await world.mirror.close()


# Deletes that are held back


def gone(world, *keys):
    """Keys that the route `all`, which lets no delete pass, has at its target only; its source is not empty."""
    world.write("all", "still there")
    for key in keys:
        world.stores["all"][1].bucket.write(key, b"old")


@pytest.fixture
def mirrors_deletes(monkeypatch):
    monkeypatch.setitem(CONFIG["routes"]["all"], "deletes", "mirror")
    monkeypatch.setitem(CONFIG["routes"]["photos"], "deletes", "keep")


async def test_a_delete_that_is_held_back_is_in_the_hold_queue_when_its_message_is_done(mirrors_deletes):
    world = World()
    gone(world, "a", "b")
    world.write("all", "c")
    handled = await world.handle(event("a", "c"), event("b"), event("a"))
    assert [one.error for one in handled] == [None] * 3
    assert sorted(item.keys for item, _ in world.held.sent) == [("a",), ("b",)]
    assert all(item.route == "all" and not item.released and "route all" in reason for item, reason in world.held.sent)
    assert world.copied("all") == ["a", "b", "c"]
    await world.mirror.close()


@pytest.mark.parametrize("there", [True, False])
async def test_a_message_whose_delete_cannot_be_held_fails_and_the_others_do_not(mirrors_deletes, there):
    world = World(held=there)
    world.held.away = True
    gone(world, "a")
    world.write("all", "c")
    held, both, good = await world.handle(event("a"), event("a", "c"), event("c"))
    problem = "away" if there else "HOLD_QUEUE_URL"
    assert problem in held.error
    assert problem in both.error
    assert (held.poison, both.poison, good.error) == (False, False, None)
    assert world.copied("all") == ["a", "c"]
    await world.mirror.close()


async def test_a_delete_of_a_message_that_failed_is_parked_once_it_succeeds(mirrors_deletes):
    """Else it would be parked by every try."""
    world = World()
    gone(world, "a")
    world.write("photos", "1")
    world.write("all", "photos/1")
    world.refused.add("photos")
    for _ in range(3):
        (one,) = await world.handle(event("a", "photos/1"))
        assert "refused" in one.error
    assert world.held.sent == []
    world.refused.clear()
    (one,) = await world.handle(event("a", "photos/1"))
    assert one.error is None
    assert [item.keys for item, _ in world.held.sent] == [("a",)]
    await world.mirror.close()


async def test_what_a_person_has_released_is_deleted(mirrors_deletes):
    world = World()
    gone(world, "a")
    (one,) = await world.handle(encode(KeysItem("all", ("a",), released=True)))
    assert (one.error, world.held.sent, world.copied("all")) == (None, [], [])
    await world.mirror.close()


async def test_a_delete_that_is_released_when_the_route_begins_elsewhere_is_not_done(mirrors_deletes, monkeypatch):
    """What a person has let pass is that this source no longer has the key, not that another one never had it."""
    world = World()
    gone(world, "a")
    await world.handle(event("a"))
    ((held, _),) = world.held.sent
    monkeypatch.setitem(CONFIG["routes"]["all"], "source", "here:moved")
    moved = World()
    gone(moved, "a")
    (one,) = await moved.handle(encode(replace(held, released=True)))
    assert one.poison
    assert "begins at s3://moved/ here, and s3://from/ is meant" in one.error
    assert moved.copied("all") == ["a"]
    for each in (world, moved):
        await each.mirror.close()


async def test_a_delete_that_a_piece_of_a_large_object_meets_is_held_back_as_well(mirrors_deletes):
    world = World()
    data = b"x" * MiB
    gone(world)
    etag = world.stores["all"][1].bucket.write("large", data).etag
    item = PartsItem("all", "large", etag, ((world.stores["all"][1].name, "no-such-upload"),), (Part(1, 0, MiB),), 1)
    (one,) = await world.handle(encode(item))
    assert one.error is None
    assert [parked.keys for parked, _ in world.held.sent] == [("large",)]
    await world.mirror.close()


async def test_a_single_key_whose_delete_cannot_be_held_is_an_error(mirrors_deletes):
    world = World()
    gone(world, "a")
    outcomes = await world.mirror.converge("from", "a", seconds=PLENTY)
    assert [outcome.did for outcome in outcomes] == [Did.HELD]
    assert [item.keys for item, _ in world.held.sent] == [("a",)]
    world.held.away = True
    with pytest.raises(QueueError):
        await world.mirror.converge("from", "a", seconds=PLENTY)
    with pytest.raises(PoisonMessage):
        await world.mirror.converge("from", "a.tmp", seconds=PLENTY)
    await world.mirror.close()


# Stores


async def test_a_route_is_opened_once_by_whoever_needs_it_first_and_closed_at_the_end(world):
    keys = [f"k{n}" for n in range(20)]
    world.write("other", *keys)
    await world.handle(*(event(key, bucket="another") for key in keys[:10]))
    await world.handle(*(event(key, bucket="another") for key in keys[10:]))
    assert world.copied("other") == sorted(keys)
    assert (world.opened, world.closed) == (["other"], [])
    await world.mirror.close()
    assert world.closed == ["other"]


@pytest.mark.parametrize("item", [event("k", bucket="another"), encode(RangeItem("other"))])
async def test_credentials_that_are_refused_are_read_anew(world, item):
    world.write("other", "k")
    await world.handle(event("k", bucket="another"))
    world.write("other", "l")
    world.now += FRESH + 1
    world.refused.add("other")
    (one,) = await world.handle(item)
    assert "refused" in one.error
    assert (world.opened, world.closed) == (["other"], ["other"])
    world.refused.clear()
    (one,) = await world.handle(item)
    assert one.error is None
    assert world.opened == ["other", "other"]
    await world.mirror.close()
    assert world.closed == ["other", "other"]


async def test_credentials_that_were_just_read_are_not_read_again_for_what_stays_refused(world):
    world.write("other", *(f"k{n}" for n in range(20)))
    world.refused.add("other")
    for _ in range(3):
        handled = await world.handle(*(event(f"k{n}", bucket="another") for n in range(20)))
        assert all("refused" in one.error for one in handled)
        assert world.opened == ["other"]
    world.now += FRESH + 1
    for _ in range(3):
        await world.handle(*(event(f"k{n}", bucket="another") for n in range(20)))
    assert len(world.opened) == 2
    await world.mirror.close()
    assert world.closed == world.opened


async def test_stores_are_not_closed_under_those_who_still_use_them(world):
    """The stores themselves say so when they are used."""
    world.write("other", "refused", "slow", "late")
    await world.handle(event("late", bucket="another"))
    world.now += FRESH + 1
    slow, go_on = asyncio.Event(), asyncio.Event()

    async def step(operation, key):
        if key == "refused":
            raise AccessDenied(operation, key, "refused")
        if key == "slow":
            slow.set()
            await go_on.wait()
            raise AccessDenied(operation, key, "refused")

    world.step = step
    under_way = asyncio.create_task(world.handle(event("slow", bucket="another")))
    await slow.wait()
    (one,) = await world.handle(event("refused", bucket="another"))
    assert "refused" in one.error
    assert (world.opened, world.closed) == (["other"], [])
    world.step = None
    await world.handle(event("late", bucket="another"))
    assert (world.opened, world.closed) == (["other", "other"], [])
    go_on.set()
    (one,) = await under_way
    assert "refused" in one.error
    assert world.closed == ["other"]
    await world.handle(event("late", bucket="another"))
    assert world.opened == ["other", "other"], "what was refused is not what is open now"
    await world.mirror.close()
    assert world.closed == ["other", "other"]


async def test_nothing_goes_on_when_handling_is_cancelled(world):
    world.write("other", "k")
    begun = asyncio.Event()

    async def step(operation, key):
        begun.set()
        await asyncio.Event().wait()

    world.step = step
    handling = asyncio.create_task(world.handle(event("k", bucket="another"), encode(RangeItem("other"))))
    await begun.wait()
    handling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await handling
    assert asyncio.all_tasks() == {asyncio.current_task()}
    await world.mirror.close()
    assert world.closed == world.opened


@pytest.mark.parametrize(
    "item",
    [RangeItem("other", source="s3://from/photos/"), KeysItem("other", ("a",), source="s3://from/")],
)
async def test_work_that_is_meant_for_another_source_is_not_done(item):
    world = World()
    (one,) = await world.handle(encode(item))
    assert one.poison
    assert "'other' begins at s3://another/ here, and s3://from/" in one.error
    assert world.opened == []


@pytest.mark.parametrize("item", [RangeItem("other", source="s3://another/"), KeysItem("other", ("a",))])
async def test_work_that_is_meant_for_this_source_or_for_any_is_done(item):
    world = World()
    (one,) = await world.handle(encode(item))
    assert (one.error, world.opened) == (None, ["other"])
