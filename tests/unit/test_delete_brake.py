"""The brake of the live mirror: at most so many deletes an hour, whoever asks, and none that is not counted."""

from __future__ import annotations

import asyncio
import logging
import random
import threading

import pytest

from replicator.errors import ReplicatorError
from replicator.live.brake import CLOSED_SECONDS, HOUR, LARGEST_LOT, NOTE_SECONDS, DeleteBrake, MemoryCounter

ROUTE = "a-to-b"
NOON = 500_000.0 * HOUR


class Clock:
    def __init__(self):
        self.now = NOON

    def __call__(self):
        return self.now


class Watched:
    """A counter that remembers what it was asked, may be away, and may answer late."""

    def __init__(self, counter=None):
        self.counter = counter or MemoryCounter()
        self.away = False
        self.takes = []
        self.notes = []
        self.before = lambda: None

    def take(self, route, hour, wanted, limit):
        self.takes.append((wanted, limit))
        self._answer()
        return self.counter.take(route, hour, wanted, limit)

    def note(self, route, hour, changes):
        self._answer()
        self.notes.append((hour, changes))
        self.counter.note(route, hour, changes)

    def recent(self, route, first, last):
        self._answer()
        return self.counter.recent(route, first, last)

    def _answer(self):
        self.before()
        if self.away:
            raise ReplicatorError("DynamoDB table t: no answer")


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def counter():
    return Watched()


async def allowed(brake, count, start=0):
    """How many of so many new keys may be deleted, all asked for at once."""
    answers = await asyncio.gather(*(brake.allows(f"k{start + n}") for n in range(count)))
    return sum(answers)


async def test_the_first_deletes_pass_and_the_others_are_parked(counter, clock):
    brake = DeleteBrake(counter, ROUTE, least=1000, share=0, clock=clock)
    assert [await brake.allows(f"k{n}") for n in range(1500)] == [True] * 1000 + [False] * 500


async def test_five_thousand_at_once_cost_few_requests(counter, clock):
    brake = DeleteBrake(counter, ROUTE, clock=clock)
    assert await allowed(brake, 5000) == 1000
    assert len(counter.takes) < 60
    assert max(wanted for wanted, _ in counter.takes) == LARGEST_LOT


async def test_a_lot_is_no_larger_than_what_was_used_before_and_one(counter, clock):
    brake = DeleteBrake(counter, ROUTE, clock=clock)
    await allowed(brake, 40)
    lots = [wanted for wanted, _ in counter.takes]
    assert lots == [1, 2, 4, 8, 16, 25]
    assert all(lot <= sum(lots[:n]) + 1 for n, lot in enumerate(lots))


async def test_many_workers_together_let_no_more_pass_than_one(clock):
    counter = MemoryCounter()
    brakes = [DeleteBrake(counter, ROUTE, least=300, share=0, clock=clock) for _ in range(7)]
    counts = await asyncio.gather(*(allowed(brake, 100) for brake in brakes))
    assert sum(counts) <= 300
    assert sum(counts) > 200


async def test_with_nothing_every_delete_is_parked_and_nobody_is_asked_to_count(counter, clock):
    brake = DeleteBrake(counter, ROUTE, least=0, share=0, clock=clock)
    brake.changed(1_000_000)
    await brake.flush()
    assert await allowed(brake, 20) == 0
    assert counter.takes == []
    assert "more than 0 deletes" in brake.reason


async def test_a_tenth_of_the_changes_of_a_day_pass_where_that_is_more(counter, clock):
    counter.note(ROUTE, int(NOON // HOUR) - 24, 1_000_000)
    counter.note(ROUTE, int(NOON // HOUR) - 23, 200)
    brake = DeleteBrake(counter, ROUTE, least=10, share=0.1, clock=clock)
    brake.changed(159)
    assert await allowed(brake, 100) == 35


async def test_what_others_change_meanwhile_counts_from_the_next_look_on(counter, clock):
    brake = DeleteBrake(counter, ROUTE, least=10, share=0.1, clock=clock)
    assert await allowed(brake, 50) == 10
    counter.note(ROUTE, int(NOON // HOUR), 300)
    assert await allowed(brake, 50, 50) == 0
    clock.now += CLOSED_SECONDS
    assert await allowed(brake, 50, 100) == 20


async def test_a_spent_budget_is_not_asked_for_again_and_again(counter, clock):
    brake = DeleteBrake(counter, ROUTE, least=5, share=0.1, clock=clock)
    await allowed(brake, 100)
    for n in range(100):
        assert not await brake.allows(f"more {n}")
    assert [wanted for wanted, _ in counter.takes] == [1, 2, 4, 8]


async def test_the_reason_names_route_hour_and_number(counter, clock):
    brake = DeleteBrake(counter, ROUTE, least=1000, share=0, clock=clock)
    await allowed(brake, 1001)
    assert brake.reason == "more than 1,000 deletes of route a-to-b since 2027-01-15 08:00 UTC"


async def test_a_key_that_may_be_deleted_may_be_tried_again_within_the_hour(counter, clock):
    brake = DeleteBrake(counter, ROUTE, least=2, share=0, clock=clock)
    assert [await brake.allows(key) for key in ("a", "a", "a", "b", "c", "a")] == [True] * 4 + [False, True]
    clock.now += HOUR
    assert [await brake.allows(key) for key in ("d", "e", "a")] == [True, True, False]


# While deletes wait for a person


async def test_while_more_wait_than_an_hour_allows_none_passes_in_any_hour_and_then_they_do_again(counter, clock):
    waiting = [101]

    async def asked():
        return waiting[0]

    brake = DeleteBrake(counter, ROUTE, least=100, waiting=asked, clock=clock)
    for hour in range(3):
        assert await allowed(brake, 5, 10 * hour) == 0
        clock.now += HOUR
    assert "wait for a person" in brake.reason
    assert counter.takes == []
    waiting[0] = 100  # else what is held back itself could keep the brake shut for ever
    assert await allowed(brake, 5, 50) == 5
    waiting[0] = 101
    assert await allowed(brake, 1000, 100) < 2 * LARGEST_LOT, "what was taken already passes"


async def test_where_nobody_can_say_whether_others_wait_none_passes(counter, clock):
    async def away():
        raise ReplicatorError("queue: no answer")

    brake = DeleteBrake(counter, ROUTE, waiting=away, clock=clock)
    assert await allowed(brake, 5) == 0
    assert "queue: no answer" in brake.reason


# Hours


async def test_the_next_hour_begins_with_a_whole_budget_and_without_what_was_left(counter, clock):
    brake = DeleteBrake(counter, ROUTE, least=100, share=0, clock=clock)
    assert await allowed(brake, 41) == 41
    clock.now += HOUR
    assert await allowed(brake, 300, 1000) == 100
    clock.now += HOUR
    assert await allowed(brake, 300, 2000) == 100


async def test_around_the_end_of_an_hour_no_more_than_two_budgets_pass(counter, clock):
    clock.now = NOON + HOUR - 1
    brakes = [DeleteBrake(counter, ROUTE, least=100, share=0, clock=clock) for _ in range(5)]
    passed = 0
    for second in range(4):
        for n, brake in enumerate(brakes):
            passed += await allowed(brake, 60, 1000 * second + 100 * n)
        clock.now += 0.5
    assert passed <= 200


async def test_a_lot_that_arrives_after_its_hour_is_not_spent(counter, clock):
    def hour_ends():
        clock.now = NOON + HOUR
        counter.before = lambda: None

    brake = DeleteBrake(counter, ROUTE, least=1, share=0, clock=clock)
    counter.before = hour_ends
    assert await brake.allows("a")
    assert len(counter.takes) == 2
    assert not await brake.allows("b")


async def test_a_lot_of_an_hour_that_somebody_else_saw_end_is_not_spent(counter, clock):
    asked, go_on = threading.Event(), threading.Event()

    def wait():
        counter.before = lambda: None
        asked.set()
        go_on.wait(30)

    counter.before = wait
    brake = DeleteBrake(counter, ROUTE, least=1, share=0, clock=clock)
    first = asyncio.ensure_future(brake.allows("a"))
    await asyncio.to_thread(asked.wait, 30)
    clock.now += HOUR
    second = asyncio.ensure_future(brake.allows("b"))
    await asyncio.sleep(0)
    go_on.set()
    assert sorted(await asyncio.gather(first, second)) == [False, True]


async def test_a_key_of_the_hour_before_is_counted_anew(counter, clock):
    brake = DeleteBrake(counter, ROUTE, least=1, share=0, clock=clock)
    assert await brake.allows("a")
    clock.now += HOUR
    assert await brake.allows("a")
    assert not await brake.allows("b")


# A counter that is away


async def test_nothing_is_deleted_that_cannot_be_counted(counter, clock):
    counter.away = True
    brake = DeleteBrake(counter, ROUTE, clock=clock)
    assert await allowed(brake, 50) == 0
    assert len(counter.takes) == 1
    assert "cannot be reached" in brake.reason
    assert "DynamoDB table t: no answer" in brake.reason


async def test_a_counter_that_is_back_is_asked_after_a_while(counter, clock):
    counter.away = True
    brake = DeleteBrake(counter, ROUTE, clock=clock)
    assert not await brake.allows("a")
    counter.away = False
    assert not await brake.allows("a")
    clock.now += CLOSED_SECONDS
    assert await brake.allows("a")


async def test_what_was_counted_before_may_still_be_deleted_when_the_counter_goes(counter, clock):
    brake = DeleteBrake(counter, ROUTE, clock=clock)
    await allowed(brake, 4)  # of lots of 1, 2 and 4
    counter.away = True
    assert await allowed(brake, 10, 100) == 3


async def test_changes_that_cannot_be_noted_disturb_nobody_and_are_noted_later(counter, clock, caplog):
    brake = DeleteBrake(counter, ROUTE, clock=clock)
    counter.away = True
    brake.changed(5)
    with caplog.at_level(logging.WARNING):
        await brake.flush()
    assert "no answer" in caplog.text
    counter.away = False
    brake.changed(2)
    await brake.flush(last=True)
    assert counter.notes == [(NOON // HOUR, 7)]


async def test_an_error_of_our_own_is_not_taken_for_a_counter_that_is_away(counter, clock):
    def broken():
        raise ZeroDivisionError

    counter.before = broken
    with pytest.raises(ZeroDivisionError):
        await DeleteBrake(counter, ROUTE, clock=clock).allows("a")


async def test_who_waits_is_answered_when_the_one_who_asks_is_cancelled(counter, clock):
    asked, go_on = threading.Event(), threading.Event()

    def wait():
        asked.set()
        go_on.wait(30)

    counter.before = wait
    brake = DeleteBrake(counter, ROUTE, clock=clock)
    first = asyncio.ensure_future(brake.allows("a"))
    await asyncio.to_thread(asked.wait, 30)
    second = asyncio.ensure_future(brake.allows("b"))
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    go_on.set()
    assert first.cancelled()
    assert await second


# Changes


async def test_changes_are_noted_in_one_go_and_not_for_each_batch(counter, clock):
    brake = DeleteBrake(counter, ROUTE, clock=clock)
    for _ in range(100):
        brake.changed(10)
        await brake.flush()
        clock.now += NOTE_SECONDS / 50
    await brake.flush(last=True)
    assert sum(changes for _, changes in counter.notes) == 1000
    assert len(counter.notes) <= 4


async def test_changes_belong_to_the_hour_in_which_they_were_made(counter, clock):
    brake = DeleteBrake(counter, ROUTE, clock=clock)
    brake.changed(3)
    clock.now += HOUR
    brake.changed(4)
    await brake.flush()
    assert sorted(counter.notes) == [(NOON // HOUR, 3), (NOON // HOUR + 1, 4)]


async def test_what_did_not_change_is_not_noted(counter, clock):
    brake = DeleteBrake(counter, ROUTE, clock=clock)
    brake.changed(0)
    await brake.flush(last=True)
    assert counter.notes == []


# At random


@pytest.mark.parametrize("seed", range(20))
async def test_whatever_happens_no_hour_has_more_than_its_budget(seed, clock):
    dice = random.Random(seed)
    counter = Watched()
    least, share = dice.randrange(0, 60), dice.choice([0, 0.1, 0.5])
    brakes = [DeleteBrake(counter, ROUTE, least=least, share=share, clock=clock) for _ in range(4)]
    passed: dict[int, int] = {}
    for step in range(60):
        brake = dice.choice(brakes)
        counter.away = dice.random() < 0.1
        if dice.random() < 0.3:
            brake.changed(dice.randrange(50))
            await brake.flush(last=dice.random() < 0.5)
        hour = int(clock() // HOUR)
        passed[hour] = passed.get(hour, 0) + await allowed(brake, dice.randrange(30), 100 * step)
        clock.now += dice.choice([0, 1, CLOSED_SECONDS, 500])
    for hour, count in passed.items():
        assert count <= max(least, int(share * counter.counter.recent(ROUTE, hour - 23, hour)))
