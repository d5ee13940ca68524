"""AIMD with a clock that is told the time."""

from __future__ import annotations

import asyncio
import random

import pytest

from replicator.s3.throttle import CALM, AdaptiveLimit


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


async def settle():
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.fixture
def clock():
    return Clock()


async def test_as_many_requests_run_as_the_ceiling_allows_and_no_more(clock):
    limit = AdaptiveLimit(3, clock=clock)
    for _ in range(3):
        await limit.acquire()
    fourth = asyncio.create_task(limit.acquire())
    await settle()
    assert (fourth.done(), limit.in_flight) == (False, 3)
    limit.release()
    await settle()
    assert (fourth.done(), limit.in_flight) == (True, 3)


def test_throttling_halves_the_limit(clock):
    limit = AdaptiveLimit(100, clock=clock)
    limit.slowed_down()
    assert (limit.limit, limit.throttled) == (50, 1)


def test_a_burst_of_throttled_answers_counts_once(clock):
    limit = AdaptiveLimit(100, clock=clock)
    limit.slowed_down()
    clock.now += CALM * 0.99
    limit.slowed_down()
    assert (limit.limit, limit.throttled) == (50, 2)
    clock.now += CALM * 0.01
    limit.slowed_down()
    assert limit.limit == 25


def test_one_request_is_always_allowed(clock):
    limit = AdaptiveLimit(8, clock=clock)
    for _ in range(20):
        clock.now += CALM
        limit.slowed_down()
    assert limit.limit == 1


def test_as_many_successes_as_the_limit_add_about_one(clock):
    limit = AdaptiveLimit(100, clock=clock)
    limit.slowed_down()
    for _ in range(50):
        limit.succeeded()
    assert 50.9 < limit.limit <= 51


def test_successes_never_lift_the_limit_over_the_ceiling(clock):
    limit = AdaptiveLimit(4, clock=clock)
    limit.succeeded()
    assert limit.limit == 4
    limit.slowed_down()
    for _ in range(100):
        limit.succeeded()
    assert limit.limit == 4


async def test_after_throttling_the_next_waits_until_enough_are_back(clock):
    limit = AdaptiveLimit(4, clock=clock)
    for _ in range(4):
        await limit.acquire()
    limit.slowed_down()
    waiting = asyncio.create_task(limit.acquire())
    for expected in (False, False, True):
        limit.release()
        await settle()
        assert waiting.done() is expected
    assert limit.in_flight == 2


async def test_those_who_wait_are_served_in_the_order_they_came(clock):
    limit, log = AdaptiveLimit(1, clock=clock), []

    async def use(number):
        await limit.acquire()
        log.append(number)
        await asyncio.sleep(0)
        limit.release()

    await asyncio.gather(*(use(number) for number in range(6)))
    assert log == [0, 1, 2, 3, 4, 5]


async def test_cancelling_one_who_waits_takes_no_place(clock):
    limit = AdaptiveLimit(1, clock=clock)
    await limit.acquire()
    leaving, waiting = (asyncio.create_task(limit.acquire()) for _ in range(2))
    await settle()
    leaving.cancel()
    limit.release()
    await settle()
    assert (leaving.cancelled(), waiting.done(), limit.in_flight) == (True, True, 1)


async def test_cancelling_one_whose_turn_has_just_come_passes_it_on(clock):
    limit = AdaptiveLimit(1, clock=clock)
    await limit.acquire()
    unlucky, waiting = (asyncio.create_task(limit.acquire()) for _ in range(2))
    await settle()
    limit.release()
    unlucky.cancel()
    await settle()
    assert (unlucky.cancelled(), waiting.done(), limit.in_flight) == (True, True, 1)


@pytest.mark.parametrize("seed", range(40))
async def test_cancellation_at_any_point_gives_every_place_back(seed):
    chooser, clock = random.Random(seed), Clock()
    limit, running = AdaptiveLimit(4, clock=clock), 0

    async def use():
        nonlocal running
        await limit.acquire()
        running += 1
        assert running <= limit.ceiling
        try:
            for _ in range(chooser.randrange(3)):
                await asyncio.sleep(0)
            (limit.slowed_down if chooser.random() < 0.2 else limit.succeeded)()
        finally:
            running -= 1
            limit.release()

    tasks = [asyncio.create_task(use()) for _ in range(40)]
    async with asyncio.timeout(60):
        while not all(task.done() for task in tasks):
            clock.now += chooser.choice((0.0, 0.0, CALM))
            if chooser.random() < 0.3:
                chooser.choice(tasks).cancel()
            await asyncio.sleep(0)
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} <= {type(None), asyncio.CancelledError}
    assert (limit.in_flight, running) == (0, 0)
    async with asyncio.timeout(60):
        await limit.acquire()
