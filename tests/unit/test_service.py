"""The service that takes messages off a queue: nothing is lost, kept hidden or done twice, however it ends."""

from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import asynccontextmanager

import pytest

from replicator.errors import QueueError
from replicator.items import KeysItem, RangeItem, encode
from replicator.live.batch import Handled
from replicator.live.service import KEEP_EVERY, PAUSE, VISIBILITY, Service
from replicator.queues.database import QueueFile
from replicator.queues.local import CHANGES, DEAD_LETTERS, WORK, LocalQueue
from replicator.queues.opening import Queues
from replicator.queues.queue import Depth, Outgoing

AGES = 3600.0
LIMIT = 60


class Clock:
    def __init__(self):
        self.now = 1.7e9

    def __call__(self):
        return self.now


class Watched:
    """A queue that notes what it is asked, and can be told to hang or to be away.

    fails: what raises QueueError. gates: what waits, in its thread, until the event is set.
    """

    def __init__(self, queue):
        self.queue = queue
        self.name = queue.name
        self.calls = []
        self.fails = {}
        self.gates = {}

    def _at(self, name):
        self.calls.append(name)
        gate = self.gates.get(name)
        if gate is not None:
            assert gate.wait(LIMIT)
        if name in self.fails:
            raise QueueError(self.fails[name])

    def receive(self, most, *, wait):
        found = self.queue.receive(most, wait=min(wait, 0.01))
        try:
            self._at("receive")
        except QueueError:
            self.queue.put_off([(one, 0) for one in found])
            raise
        return found

    def send(self, messages):
        self._at("send")
        self.queue.send(messages)

    def delete(self, messages):
        self._at("delete")
        return self.queue.delete(messages)

    def put_off(self, messages):
        self._at(f"put off {messages[0][1]}")
        return self.queue.put_off(messages)

    def depth(self):
        return self.queue.depth()


class Sleeping:
    """Sleeps until it is woken. asked: for which seconds."""

    def __init__(self):
        self.asked = []
        self._sleeping = []

    async def __call__(self, seconds):
        self.asked.append(seconds)
        woken = asyncio.get_running_loop().create_future()
        self._sleeping.append(woken)
        await woken

    def wake(self):
        for one in self._sleeping:
            if not one.done():
                one.set_result(None)
        self._sleeping.clear()


class Desk:
    """A queue in a file, and a service at it. handle: does the work, given the messages."""

    def __init__(self, path):
        self.clock = Clock()
        self.file = QueueFile(path)
        self.changes = Watched(self.local(CHANGES))
        self.dead_letters = self.local(DEAD_LETTERS)
        self.queues = Queues(self.changes, self.dead_letters, None, self.file)
        self.handled = []
        self.at_work = []
        self.told = []
        self.well = []
        self.sleep = Sleeping()
        self.ended = asyncio.Event()
        self.work = lambda messages: None

    def local(self, name):
        return LocalQueue(self.file, name, visibility=VISIBILITY, receives=12, clock=self.clock)

    async def handle(self, messages, *, seconds):
        assert seconds > 0
        self.at_work.append([one.body for one in messages])
        work = self.work(messages)
        if work is not None:
            await work
        self.handled += [one.body for one in messages]
        return [Handled(one) for one in messages]

    async def tell(self, handled):
        self.told.append(handled)

    @asynccontextmanager
    async def running(self, *bodies, batches=3, drain=AGES):
        """The service, as a task; told to end after the block, in which it is to come to its end."""
        self.send(*bodies)
        service = Service(
            self.queues,
            self,
            told=self.tell,
            well=self.well.append,
            batches=batches,
            drain=drain,
            sleep=self.sleep,
        )
        task = asyncio.create_task(service.run(self.ended))
        try:
            async with asyncio.timeout(LIMIT):
                yield task
                self.ended.set()
                await asyncio.wait([task])
        finally:
            for gate in self.changes.gates.values():
                gate.set()
            task.cancel()
            await asyncio.wait([task])
        assert asyncio.all_tasks() == {asyncio.current_task()}, "nothing goes on behind its back"
        if not task.cancelled():
            task.result()

    def send(self, *bodies):
        if bodies:
            self.changes.queue.send([Outgoing(body) for body in bodies])

    @property
    def left(self):
        return self.changes.queue.depth()


@pytest.fixture
def desk(tmp_path):
    desk = Desk(tmp_path / "queue.db")
    yield desk
    desk.file.close()


@pytest.fixture
def said(caplog):
    """Lines of the log."""
    caplog.set_level(logging.INFO, logger="replicator")
    return lambda: [record.getMessage() for record in caplog.records]


async def until(condition):
    while not condition():
        await asyncio.sleep(0.002)


async def forever(messages=None):
    await asyncio.Event().wait()


async def test_what_a_queue_gives_is_handled_told_of_and_deleted(desk):
    async with desk.running("a", "b"):
        await until(lambda: len(desk.handled) == 2)
        desk.send("c")
        await until(lambda: len(desk.handled) == 3)
    assert sorted(desk.handled) == ["a", "b", "c"]
    assert sorted(one.message.body for batch in desk.told for one in batch) == ["a", "b", "c"]
    assert desk.left == Depth(0, 0, 0)
    assert desk.well == []


async def test_what_fails_comes_again_later(desk):
    async def fail(messages, *, seconds):
        return [Handled(one, "not now") for one in messages]

    desk.handle = fail
    async with desk.running("a"):
        await until(lambda: "put off 10" in desk.changes.calls)
    assert desk.left == Depth(0, 1, 0)
    desk.clock.now += 10
    assert [one.body for one in desk.changes.queue.receive(1, wait=0)] == ["a"]


# Changes and work


@pytest.fixture
def both(desk):
    """The desk with a queue of its own for work items. items: sends some."""
    desk.work_items = Watched(desk.local(WORK))
    desk.queues = Queues(desk.changes, desk.dead_letters, None, desk.file, desk.work_items)
    desk.items = lambda *bodies: desk.work_items.queue.send([Outgoing(body) for body in bodies])
    return desk


async def test_a_change_does_not_wait_for_work_items_however_many_and_however_long(both):
    go_on = asyncio.Event()
    ranges = [encode(RangeItem("r", str(n))) for n in range(20)]
    both.items(*ranges)
    both.work = lambda messages: go_on.wait() if messages[0].body in ranges else None
    async with both.running(batches=2):
        await until(lambda: len(both.at_work) == 20)
        both.send("change")
        await until(lambda: both.handled == ["change"])
        go_on.set()
        await until(lambda: len(both.told) == 21)
    assert (both.left, both.work_items.depth()) == (Depth(0, 0, 0), Depth(0, 0, 0))


async def test_each_is_settled_with_the_queue_that_it_came_from(both):
    async def fail(messages, *, seconds):
        return [Handled(one, None if one.body.endswith("good") else "not now") for one in messages]

    both.handle = fail
    both.items("item good", "item bad")
    async with both.running("change good", "change bad"):
        await until(lambda: len([one for batch in both.told for one in batch]) == 4)
    assert (both.left, both.work_items.depth()) == (Depth(0, 1, 0), Depth(0, 1, 0))
    both.clock.now += 10
    assert [one.body for one in both.work_items.queue.receive(9, wait=0)] == ["item bad"]


async def test_what_is_at_work_of_either_is_put_back_when_there_is_no_time_left(both):
    both.work = forever
    both.items("item")
    async with both.running("change", drain=0.01):
        await until(lambda: len(both.at_work) == 2)
    assert (both.left, both.work_items.depth()) == (Depth(1, 0, 0), Depth(1, 0, 0))


async def test_it_is_well_again_when_both_queues_can_be_used(both):
    both.work_items.fails["receive"] = "no route to host"
    async with both.running("change"):
        await until(lambda: both.handled == ["change"] and PAUSE in both.sleep.asked)
        assert both.well == ["no route to host"], "that one of them can be used is not enough"
        both.work_items.fails.clear()
        both.sleep.wake()
        await until(lambda: len(both.well) == 2)
    assert both.well == ["no route to host", None]


# How it ends


async def test_a_batch_that_ends_in_time_is_settled(desk):
    go_on = asyncio.Event()
    desk.work = lambda messages: go_on.wait()
    async with desk.running("a") as task:
        await until(lambda: desk.at_work)
        desk.ended.set()
        await asyncio.sleep(0.05)
        assert not task.done()
        go_on.set()
    assert desk.handled == ["a"]
    assert desk.left == Depth(0, 0, 0)


async def test_a_batch_that_takes_too_long_is_put_back_when_the_service_ends(desk):
    desk.work = forever
    async with desk.running("a", "b", drain=0.05):
        await until(lambda: desk.at_work)
    assert desk.handled == []
    assert desk.left == Depth(2, 0, 0)


async def test_what_comes_while_it_ends_is_put_back_and_not_begun(desk):
    gate = desk.changes.gates["receive"] = threading.Event()
    async with desk.running("a", drain=0.01):
        await until(lambda: "receive" in desk.changes.calls)
        desk.ended.set()
        await asyncio.sleep(0.05)
        gate.set()
    assert desk.at_work == []
    assert desk.left == Depth(1, 0, 0)


@pytest.mark.parametrize("more", [0, 1, 3])
async def test_what_comes_when_it_is_cancelled_is_put_back_however_often_it_is_cancelled(desk, more):
    gate = desk.changes.gates["receive"] = threading.Event()
    async with desk.running("a") as task:
        await until(lambda: "receive" in desk.changes.calls)
        for _ in range(1 + more):
            task.cancel()
            await asyncio.sleep(0.01)
        assert not task.done()
        gate.set()
    assert task.cancelled()
    assert desk.at_work == []
    assert desk.left == Depth(1, 0, 0)


async def test_who_is_cancelled_puts_back_at_once_what_is_at_work(desk):
    desk.work = forever
    async with desk.running("a", "b") as task:
        await until(lambda: desk.at_work)
        gate = desk.changes.gates["put off 0"] = threading.Event()
        task.cancel()
        await until(lambda: "put off 0" in desk.changes.calls)
        task.cancel()
        await asyncio.sleep(0.02)
        assert not task.done()
        gate.set()
    assert desk.left == Depth(2, 0, 0)


@pytest.mark.parametrize("steps", range(12))
async def test_whenever_it_is_cancelled_every_message_is_done_or_waits(desk, steps):
    async with desk.running("a", encode(KeysItem("r", ("b",)))) as task:
        await until(lambda: "receive" in desk.changes.calls)
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
    assert desk.left.in_flight == 0
    assert desk.left.waiting + len(desk.told) >= 2


async def test_what_is_done_is_settled_though_it_is_cancelled_by_then(desk):
    gate = desk.changes.gates["delete"] = threading.Event()
    async with desk.running("a") as task:
        await until(lambda: "delete" in desk.changes.calls)
        task.cancel()
        await asyncio.sleep(0.02)
        gate.set()
    assert "put off 0" not in desk.changes.calls
    assert desk.left == Depth(0, 0, 0)


async def test_a_queue_that_is_away_does_not_hold_up_the_end(desk):
    desk.changes.fails["receive"] = "away"
    async with desk.running():
        await until(lambda: desk.sleep.asked)
    assert PAUSE in desk.sleep.asked


async def test_a_bug_ends_it_and_what_was_at_work_comes_again(desk):
    async def fail(messages):
        raise ZeroDivisionError("what a bug")

    desk.work = fail
    with pytest.raises(ZeroDivisionError):
        async with desk.running("a", drain=0.1) as task:
            await asyncio.wait([task])
    assert desk.left == Depth(1, 0, 0)


# A queue that cannot be used


async def test_a_queue_that_does_not_answer_is_asked_again_by_one_alone_after_a_pause(desk, said):
    desk.changes.fails["receive"] = "no route to host"
    async with desk.running("a", batches=8):
        for times in range(1, 4):
            await until(lambda n=times: len(desk.sleep.asked) == n)
            await asyncio.sleep(0.02)
            assert desk.changes.calls == ["receive"] * times
            desk.sleep.wake()
        await until(lambda: len(desk.sleep.asked) == 4)
        assert desk.sleep.asked == [PAUSE] * 4
        assert desk.well == ["no route to host"]
        assert said() == ["the queue cannot be used, and is tried again: no route to host"]
        desk.changes.fails.clear()
        desk.sleep.wake()
        await until(lambda: desk.handled)
    assert desk.well == ["no route to host", None]
    assert said()[1:] == ["the queue can be used again"]
    assert desk.left == Depth(0, 0, 0)


async def test_what_cannot_be_settled_comes_again_and_the_service_is_unwell_until_it_can(desk):
    desk.changes.fails["delete"] = "not allowed"
    async with desk.running("a"):
        await until(lambda: desk.well)
        assert desk.well == ["not allowed"]
        assert desk.left == Depth(0, 1, 0)
        await until(lambda: desk.changes.calls.count("receive") > 5)
        assert desk.well == ["not allowed"], "that it can receive is not enough"
        desk.changes.fails.clear()
        desk.clock.now += VISIBILITY
        await until(lambda: len(desk.handled) == 2)
    assert desk.well == ["not allowed", None]
    assert desk.left == Depth(0, 0, 0)


# What is at work is kept


async def test_messages_that_are_at_work_for_long_are_not_given_out_again(desk):
    go_on = asyncio.Event()
    desk.work = lambda messages: go_on.wait()
    async with desk.running("a", "b"):
        await until(lambda: desk.at_work)
        for times in range(1, 10):
            await until(lambda n=times: desk.sleep.asked.count(KEEP_EVERY) == n)
            desk.clock.now += KEEP_EVERY
            desk.sleep.wake()
        await until(lambda: desk.changes.calls.count(f"put off {VISIBILITY}") == 9)
        assert len(desk.at_work) == 1
        go_on.set()
    assert desk.handled == ["a", "b"]
    assert desk.left == Depth(0, 0, 0)


async def test_messages_are_not_kept_any_more_when_they_are_done(desk):
    async with desk.running("a"):
        await until(lambda: desk.told)
        desk.sleep.wake()
        await asyncio.sleep(0.02)
    assert f"put off {VISIBILITY}" not in desk.changes.calls


@pytest.mark.parametrize("ends", ["settled", "put back"])
async def test_what_is_being_kept_is_kept_before_it_is_settled_or_put_back(desk, ends):
    """Else it would be kept for a minute after that."""
    go_on = asyncio.Event()

    async def fail(messages, *, seconds):
        desk.at_work.append(messages)
        await go_on.wait()
        return [Handled(one, "not now") for one in messages]

    desk.handle = fail
    gate = desk.changes.gates[f"put off {VISIBILITY}"] = threading.Event()
    async with desk.running("a", drain=AGES if ends == "settled" else 0.01):
        await until(lambda: KEEP_EVERY in desk.sleep.asked)
        desk.sleep.wake()
        await until(lambda: f"put off {VISIBILITY}" in desk.changes.calls)
        desk.ended.set()
        if ends == "settled":
            go_on.set()
        await asyncio.sleep(0.05)
        assert not {"put off 0", "put off 10"}.intersection(desk.changes.calls)
        gate.set()
    asked = [call for call in desk.changes.calls if call.startswith("put off")]
    assert asked == [f"put off {VISIBILITY}", "put off 10" if ends == "settled" else "put off 0"]


async def test_a_queue_that_cannot_keep_a_message_does_not_end_the_work_on_it(desk):
    go_on = asyncio.Event()
    desk.work = lambda messages: go_on.wait()
    desk.changes.fails[f"put off {VISIBILITY}"] = "away"
    async with desk.running("a"):
        await until(lambda: KEEP_EVERY in desk.sleep.asked)
        desk.sleep.wake()
        await until(lambda: f"put off {VISIBILITY}" in desk.changes.calls)
        go_on.set()
    assert desk.handled == ["a"]
    assert desk.left == Depth(0, 0, 0)


# Work items


async def test_notifications_need_not_wait_for_the_work_items_that_came_with_them(desk):
    item = encode(RangeItem("r"))
    go_on = asyncio.Event()
    desk.work = lambda messages: go_on.wait() if messages[0].body == item else None
    async with desk.running("a", item, "b"):
        await until(lambda: desk.told)
        assert desk.handled == ["a", "b"]
        assert desk.at_work == [["a", "b"], [item]]
        await until(lambda: desk.left == Depth(0, 1, 0))
        go_on.set()
    assert desk.left == Depth(0, 0, 0)
