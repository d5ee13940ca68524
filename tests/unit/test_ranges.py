"""A range is done, or what is left of it is sent, whatever cuts it short; no key is forgotten, none is deleted here."""

from __future__ import annotations

import asyncio
import functools
import random

import pytest

from replicator.converge import Converger
from replicator.errors import QueueError, Refused, StoreError, TooLargeForNow, Transient, UntrustworthyListing
from replicator.filters import KeyFilter, Rule
from replicator.items import MOST_KEYS, KeysItem, RangeItem, decode, encode
from replicator.live.ranges import MOST_GIVEN, SPLIT_EVERY, Ranges
from replicator.model import Attributes, Deletes, Did, MiB
from tests.fakes.hurried_loop import hurried
from tests.fakes.memory import MemoryStore

ROUTE = "route"
LONG = 1000.0
OLD, NEW = 1_000.0, 2_000_000.0


class Notes:
    """A report that remembers what was done to keys. broken: raises instead, as a full disk would."""

    def __init__(self):
        self.did = []
        self.broken = False

    def add(self, outcome):
        if self.broken:
            raise OSError("No space left on device")
        self.did.append((outcome.key, outcome.did))

    def flush(self):
        pass


class World:
    """A source, targets, and the ranges of a route between them; what they send is in `sent`.

    step: as in MemoryStore, of the source. sending: called before items are sent.
    """

    def __init__(
        self, keys=(), *, there=(), targets=1, step=None, deletes=Deletes.MIRROR, chosen=None, concurrency=4, may=None
    ):
        given = {} if step is None else {"step": step}
        self.source = MemoryStore(name="source/", **given)
        self.targets = [MemoryStore(name=f"target{n}/") for n in range(targets)]
        for target in self.targets:
            target.bucket.now = NEW
        for key in keys:
            self.write(key)
        for key in there:
            self.targets[0].bucket.write(key, b"there")
        self.sent = []
        self.sending = lambda items: None
        self.report = Notes()
        converger = Converger(self.source, self.targets, deletes=deletes, may_delete=may)
        self.ranges = Ranges(
            converger, chosen=chosen or KeyFilter(), send=self.send, report=self.report, concurrency=concurrency
        )

    def write(self, key, data=None):
        self.source.bucket.now = OLD
        self.source.bucket.write(key, key.encode() if data is None else data)

    async def send(self, items):
        self.sending(items)
        await asyncio.sleep(0)
        assert items, "nothing is no message"
        self.sent += [decode(encode(item)) for item in items]

    async def work(self, item=None, *, seconds=LONG):
        await self.ranges.work(item or RangeItem(ROUTE), seconds=seconds)

    async def work_off(self, *items, seconds=LONG, most=1000):
        """Works until there is no range any more; how many there were. Keys that are apart stay in `sent`."""
        waiting, done = list(items or [RangeItem(ROUTE)]), 0
        while waiting:
            done += 1
            assert done < most, "ranges do not end"
            await self.work(waiting.pop(), seconds=seconds)
            waiting += [item for item in self.sent if isinstance(item, RangeItem)]
            self.sent = [item for item in self.sent if not isinstance(item, RangeItem)]
        return done

    @property
    def apart(self):
        return [key for item in self.sent if isinstance(item, KeysItem) for key in item.keys]

    def copied(self, target=0):
        return {key: stored.data for key, stored in self.targets[target].bucket.objects.items()}

    def wanted(self):
        return {key: stored.data for key, stored in self.source.bucket.objects.items()}


def numbered(count):
    return [f"{n:05}" for n in range(count)]


def in_no_time(test):
    """Runs a test in a loop whose clock moves only when nothing else does."""

    @functools.wraps(test)
    def run(*arguments, **named):
        hurried(test(*arguments, **named))

    return run


def running():
    return asyncio.all_tasks() - {asyncio.current_task()}


async def settle():
    for _ in range(50):
        await asyncio.sleep(0)


# What becomes of keys


async def test_what_differs_is_copied_and_nothing_is_sent():
    world = World(numbered(20), targets=2)
    world.targets[0].bucket.write("00003", b"other")
    await world.work()
    assert world.copied(0) == world.copied(1) == world.wanted()
    assert world.sent == []
    assert len(world.report.did) == 40


async def test_what_is_in_sync_by_the_listings_is_not_looked_at():
    world = World(numbered(5))
    await world.work()
    world.source.calls.clear()
    world.report.did.clear()
    await world.work()
    assert world.report.did == []
    assert "HeadObject" not in world.source.calls


async def test_a_deep_range_looks_at_every_object():
    world = World(numbered(5))
    await world.work()
    await world.work(RangeItem(ROUTE, deep=True))
    assert [did for _, did in world.report.did] == [Did.COPIED] * 5 + [Did.IN_SYNC] * 5


async def test_only_the_keys_of_the_range_are_touched_the_last_one_included():
    world = World(numbered(9), there=["00004", "00008"])
    await world.work(RangeItem(ROUTE, "00002", "00005"))
    assert sorted(key for key, data in world.copied().items() if data != b"there") == ["00003", "00004", "00005"]
    assert world.apart == []


async def test_what_only_targets_have_is_sent_apart_and_not_deleted_here():
    extra = [f"extra {n:04}" for n in range(2 * MOST_KEYS + 50)]
    world = World(["00000"], there=extra)
    await world.work()
    assert set(world.copied()) == {"00000", *extra}
    assert sorted(world.apart) == extra
    assert max(len(item.keys) for item in world.sent) <= MOST_KEYS
    assert len(world.sent) <= 2 * len(extra) / MOST_KEYS


async def test_where_deletes_are_not_mirrored_nothing_is_sent():
    world = World(["a"], there=["extra"], deletes=Deletes.KEEP)
    await world.work()
    assert (world.sent, set(world.copied())) == ([], {"a", "extra"})


async def test_a_source_that_lists_nothing_at_all_is_refused_and_nothing_is_sent():
    world = World(there=numbered(3))
    with pytest.raises(Refused, match="source/ lists no object at all"):
        await world.work()
    assert world.sent == []
    assert len(world.copied()) == 3


async def test_a_range_without_objects_of_a_source_that_has_some_elsewhere_is_not_refused():
    world = World(["z"], there=["a", "b"])
    await world.work(RangeItem(ROUTE, "", "m"))
    assert world.apart == ["a", "b"]


async def test_without_a_single_key_on_any_side_nothing_happens():
    world = World()
    await world.work()
    assert (world.sent, world.report.did) == ([], [])


async def test_filters_hold_on_both_sides():
    chosen = KeyFilter([Rule(False, "*"), Rule(True, "logs/*")])
    world = World(["a", "logs/1"], there=["b", "logs/2"], chosen=chosen)
    await world.work()
    assert set(world.copied()) == {"b", "logs/1", "logs/2"}
    assert world.apart == ["logs/2"]


async def test_a_key_that_fails_is_sent_apart_and_holds_up_nobody():
    async def step(operation, key):
        if key == "00003" and operation == "GetObject":
            raise Transient(operation, key, "HTTP 500")

    world = World(numbered(9), step=step)
    await world.work()
    assert world.apart == ["00003"]
    assert len(world.copied()) == 8
    assert ("00003", Did.FAILED) in world.report.did


async def test_a_delete_that_the_brake_holds_back_is_sent_apart_and_not_forgotten():
    async def never(key):
        return False

    async def step(operation, key):
        if operation in ("HeadObject", "GetObject"):  # listed, and gone since
            world.source.bucket.objects.pop("b", None)

    world = World(["a", "b"], there=["b"], step=step, may=never)
    await world.work()
    assert world.apart == ["b"]
    assert ("b", Did.HELD) in world.report.did


async def test_a_report_that_cannot_be_written_fails_the_range():
    world = World(numbered(9))
    world.report.broken = True
    with pytest.raises(OSError, match="No space left"):
        await world.work()
    assert not running()


# Time


class Slow:
    """A step in which some requests take so many seconds of the loop's own time."""

    def __init__(self, operations=("GetObject",), seconds=0.02, keys=None):
        self.operations = operations
        self.seconds = seconds
        self.keys = keys

    async def __call__(self, operation, key):
        if operation in self.operations and (self.keys is None or key in self.keys):
            await asyncio.sleep(self.seconds)


@in_no_time
async def test_what_the_time_is_too_short_for_is_sent_and_ends_equal():
    world = World(numbered(60), step=Slow(), concurrency=2)
    rounds = await world.work_off(seconds=0.2)
    assert rounds > 2
    assert world.copied() == world.wanted()
    assert world.apart == []


@in_no_time
async def test_a_page_that_takes_longer_than_there_is_time_gets_further_each_time():
    world = World(numbered(12), step=Slow(), concurrency=1)
    world.source.list_pages = lambda **asked: MemoryStore.list_pages(world.source, **{**asked, "page_size": 1000})
    assert await world.work_off(seconds=0.15) > 2
    assert world.copied() == world.wanted()


@in_no_time
async def test_where_not_a_single_key_could_be_done_the_message_is_to_come_again():
    world = World(["a", "b"], step=Slow(seconds=60))
    with pytest.raises(TooLargeForNow, match="no key after ''"):
        await world.work(seconds=0.05)
    assert world.sent == []
    assert not running()


@in_no_time
async def test_what_is_left_begins_before_the_first_key_that_is_not_done():
    world = World(numbered(20), step=Slow(seconds=60, keys={"00007"}), concurrency=8)
    await world.work(seconds=0.4)
    assert world.sent == [RangeItem(ROUTE, "00006")]
    assert world.copied().keys() >= set(numbered(7))


@in_no_time
async def test_the_end_of_the_range_and_how_it_looks_are_kept_in_what_is_left():
    world = World(numbered(30), step=Slow(seconds=60, keys={"00007"}))
    await world.work(RangeItem(ROUTE, "00002", "00020", deep=True), seconds=0.4)
    assert world.sent == [RangeItem(ROUTE, "00006", "00020", deep=True)]


@in_no_time
async def test_what_needed_no_work_counts_as_done_where_listing_takes_long():
    world = World(numbered(21))
    await world.work()
    world.source.list_pages = _one_page_a_second(world.source)
    await world.work(seconds=4.0)
    assert world.sent == [RangeItem(ROUTE, "00005")]


@in_no_time
async def test_there_is_time_left_to_send_what_is_left():
    """Whoever calls it ends it after the time given, whatever it is doing."""
    world = World(numbered(200), step=Slow(seconds=0.05), concurrency=1)
    await asyncio.wait_for(world.work(seconds=1.0), timeout=1.0)
    assert [item for item in world.sent if isinstance(item, RangeItem)]


@in_no_time
async def test_few_keys_are_remembered_while_the_first_one_takes_long():
    keys = numbered(MOST_GIVEN + 1500)
    world = World(keys, step=Slow(seconds=LONG, keys={keys[0]}), concurrency=50)
    world.source.list_pages = lambda **asked: MemoryStore.list_pages(world.source, **{**asked, "page_size": 1000})
    world.targets[0].list_pages = _from_the_start_only(world.targets[0])
    with pytest.raises(TooLargeForNow):
        await world.work(seconds=100.0)
    assert MOST_GIVEN - 50 < len(world.copied()) <= MOST_GIVEN


@pytest.mark.parametrize("seed", range(40))
@in_no_time
async def test_cut_short_anywhere_nothing_is_forgotten(seed):
    """Cancelled at any request, and delivered again; or out of time, and sent on."""
    chance = random.Random(seed)
    left = chance.randrange(1, 150)

    async def step(operation, key):
        nonlocal left
        left -= 1
        if left == 0:
            killed.cancel()
        if chance.random() < 0.2:
            await asyncio.sleep(0.001)

    extra = [f"{n:05}x" for n in range(0, 40, 3)]
    world = World(numbered(40), there=extra, step=step, concurrency=chance.choice((1, 3, 8)), targets=2)
    killed = asyncio.ensure_future(world.work(seconds=chance.choice((0.02, LONG))))
    await asyncio.wait([killed])
    await settle()
    assert not running()
    waiting = [RangeItem(ROUTE)] if killed.cancelled() or killed.exception() else []
    waiting += [item for item in world.sent if isinstance(item, RangeItem)]
    world.sent = [item for item in world.sent if isinstance(item, KeysItem)]
    if waiting:
        await world.work_off(*waiting)
    for key, data in world.wanted().items():
        assert world.copied(0)[key] == world.copied(1)[key] == data
    assert set(world.apart) == set(extra)


# Splitting


@in_no_time
async def test_a_long_range_is_cut_and_the_pieces_are_all_of_it():
    world = World([f"{letter}/{n:03}" for letter in "abcdefgh" for n in range(20)])
    rounds = await world.work_off()
    assert rounds > 2
    assert world.copied() == world.wanted()


@in_no_time
async def test_what_was_sent_of_a_range_is_not_done_by_whoever_sent_it():
    world = World([f"{letter}/{n:03}" for letter in "abc" for n in range(20)])
    await world.work()
    (far,) = world.sent
    assert far.upto is None
    assert list(world.copied()) == [key for key in world.wanted() if key <= far.after]


@in_no_time
async def test_cut_short_after_it_was_cut_in_two_only_the_near_half_is_left():
    world = World([f"{letter}/{n:03}" for letter in "abc" for n in range(20)], step=Slow(seconds=60, keys={"b/001"}))
    await world.work(seconds=10)
    far, left = world.sent
    assert (left.after, left.upto, far.upto) == ("b/000", far.after, None)


@in_no_time
async def test_a_long_range_that_is_delivered_twice_ends_equal_and_does_not_multiply():
    world = World([f"{letter}/{n:03}" for letter in "abcdefgh" for n in range(20)])
    once = await world.work_off()
    again = World([f"{letter}/{n:03}" for letter in "abcdefgh" for n in range(20)])
    twice = await again.work_off(RangeItem(ROUTE), RangeItem(ROUTE))
    assert again.copied() == again.wanted()
    assert twice <= 2 * once


async def cut_off_while_it_sends(world, sent_before):
    """Time runs out over the first that is sent, which is sent by then, or is not."""
    hanging = []

    async def send(items):
        if not hanging:
            hanging.append(items)
            world.sent += items if sent_before else []
            await asyncio.sleep(60)
        world.sent += items

    world.ranges.send = send
    await world.work(seconds=0.2)
    assert hanging


@pytest.mark.parametrize("sent_before", [True, False])
@in_no_time
async def test_cut_off_while_the_far_half_is_sent_nothing_is_left_out(sent_before):
    """It is sent, or it is not, when time runs out over it: in either case what is left covers all."""
    world = World([f"{letter}/{n:03}" for letter in "ab" for n in range(40)])
    await cut_off_while_it_sends(world, sent_before)
    waiting = [item for item in world.sent if isinstance(item, RangeItem)]
    world.sent = []
    await world.work_off(*waiting)
    assert world.copied() == world.wanted()


@pytest.mark.parametrize("sent_before", [True, False])
@in_no_time
async def test_cut_off_while_keys_are_sent_apart_none_of_them_is_left_out(sent_before):
    """They may not have been sent, and what is left of the range begins behind them."""
    extra = [f"{key}x" for key in numbered(150)]
    world = World(numbered(300), there=extra)
    for store, size in ((world.source, 50), (world.targets[0], 1000)):
        store.list_pages = functools.partial(MemoryStore.list_pages, store, page_size=size)
    await cut_off_while_it_sends(world, sent_before)
    waiting = [item for item in world.sent if isinstance(item, RangeItem)]
    world.sent = [item for item in world.sent if isinstance(item, KeysItem)]
    await world.work_off(*waiting)
    assert set(world.apart) == set(extra)


async def test_keys_that_are_sent_apart_are_of_the_source_that_was_meant():
    world = World(["a"], there=["extra"])
    await world.work(RangeItem(ROUTE, source="s3://meant/"))
    assert world.sent == [KeysItem(ROUTE, ("extra",), source="s3://meant/")]


@in_no_time
async def test_a_range_that_cannot_be_cut_is_done_to_its_end():
    world = World(numbered(3 * SPLIT_EVERY * 3))
    world.targets[0].list_pages = _from_the_start_only(world.targets[0])
    await world.work_off()
    assert world.copied() == world.wanted()


def _one_page_a_second(store):
    async def list_pages(**asked):
        async for page in MemoryStore.list_pages(store, **asked):
            await asyncio.sleep(1)
            yield page

    return list_pages


def _from_the_start_only(store):
    async def list_pages(*, after="", page_size=3):
        if after:
            raise UntrustworthyListing("ListObjectsV2", store.name, "does not begin there")
        async for page in MemoryStore.list_pages(store, page_size=page_size):
            yield page

    return list_pages


# What goes wrong


async def test_a_queue_that_does_not_answer_fails_the_range_and_nothing_runs_on():
    def refuse(items):
        raise QueueError("the queue: send: no answer")

    world = World(["a"], there=["extra"])
    world.sending = refuse
    with pytest.raises(QueueError):
        await world.work()
    await settle()
    assert not running()
    world.sending = lambda items: None
    await world.work()
    assert world.apart == ["extra"]


@pytest.mark.parametrize("side", ["source", "target"])
@pytest.mark.parametrize(("error", "fails"), [(Transient, False), (UntrustworthyListing, True)])
async def test_a_listing_that_breaks_off_deletes_nothing_and_only_one_that_is_in_order_counts_up_to_there(
    side, error, fails
):
    world = World(numbered(30), there=["00000x", "00001x", "00002x", "zzz"])
    there = world.copied()
    store = world.source if side == "source" else world.targets[0]
    whole = store.list_pages

    async def list_pages(**asked):
        pages = 0
        async for page in whole(**asked):
            pages += 1
            if pages == 2 and not asked.get("after"):
                raise error("ListObjectsV2", store.name, "broke")
            yield page

    store.list_pages = list_pages
    if fails:
        with pytest.raises(error):
            await world.work()
        assert world.sent == []
    else:
        await world.work()
        assert [item.after > "" for item in world.sent if isinstance(item, RangeItem)] == [True]
    await settle()
    assert not running()
    store.list_pages = whole
    left = [item for item in world.sent if isinstance(item, RangeItem)]
    world.sent = [item for item in world.sent if isinstance(item, KeysItem)]
    await world.work_off(*left)
    assert world.copied() == {**world.wanted(), **there}
    assert set(world.apart) == set(there)


@pytest.mark.parametrize("broken", [{"Transient": 0.1}, {"UntrustworthyListing": ("c/", "e/", "g/")}])
@in_no_time
async def test_where_listings_break_off_again_and_again_ranges_do_not_multiply(broken):
    """Each is tried twelve times, as messages are; done again as a whole, it would send its far halves again."""
    chance = random.Random(1)
    world = World([f"{a}/{b}/{n:02}" for a in "abcdefgh" for b in "abcdefgh" for n in range(16)], concurrency=64)
    whole = world.source.list_pages

    async def list_pages(**asked):
        async for page in whole(**asked):
            if asked.get("page_size") != 1:
                if chance.random() < broken.get("Transient", 0.0):
                    raise Transient("ListObjectsV2", "source/", "made to fail")
                if any(entry.key.startswith(broken.get("UntrustworthyListing", ())) for entry in page):
                    raise UntrustworthyListing("ListObjectsV2", "source/", "not in order")
            yield page

    world.source.list_pages = list_pages
    waiting, dead, handled = [(RangeItem(ROUTE), 1)], [], 0
    while waiting:
        handled += 1
        assert handled < 500, "ranges multiply"
        item, tries = waiting.pop(0)
        try:
            await world.work(item)
        except StoreError:
            (waiting if tries < 12 else dead).append((item, tries + 1))
        waiting += [(item, 1) for item in world.sent]
        world.sent = []
    for key in world.wanted().keys() - world.copied().keys():
        assert any(one.after < key <= (one.upto or key) for one, _ in dead), "is in no message any more"
    assert len(dead) <= len(broken.get("UntrustworthyListing", ()))


async def test_a_source_that_is_not_listed_in_order_is_not_believed_at_the_end_of_a_range():
    """The key at which the range was cut is there, and the listing went past where it should have been."""
    world = World(["a", "b", "c"])
    whole = world.source.list_pages

    async def list_pages(**asked):
        async for page in whole(**asked):
            yield [entry for entry in page if entry.key != "b"]

    world.source.list_pages = list_pages
    world.source.bucket.now = OLD
    with pytest.raises(UntrustworthyListing):
        await world.work(RangeItem(ROUTE, "", "b"))


@in_no_time
async def test_a_large_object_in_one_part_goes_apart_where_the_time_is_too_short_for_it():
    world = World(["small"])
    world.source.bucket.now = OLD
    world.source.bucket.write("large", bytes(33 * MiB), Attributes())
    await world.work(seconds=1.0)
    assert world.apart == ["large"]
    assert list(world.copied()) == ["small"]


async def test_what_runs_at_once_is_bounded_for_all_ranges_together():
    most = now = 0

    async def step(operation, key):
        nonlocal most, now
        if operation == "GetObject":
            now += 1
            most = max(most, now)
            await asyncio.sleep(0.001)
            now -= 1

    world = World(numbered(60), step=step, concurrency=3)
    await asyncio.gather(*(world.work(RangeItem(ROUTE, f"{n}0000".zfill(5)[:5])) for n in range(3)))
    assert most <= 3
