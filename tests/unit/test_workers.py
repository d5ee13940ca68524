"""Workers: all run to their end, or the first error takes the others with it."""

from __future__ import annotations

import asyncio

import pytest

from replicator.workers import run_workers


async def test_all_workers_run_at_once_and_to_their_end():
    started, finished = 0, 0
    everybody = asyncio.Event()

    async def work():
        nonlocal started, finished
        started += 1
        if started == 4:
            everybody.set()
        async with asyncio.timeout(60):
            await everybody.wait()
        finished += 1

    await run_workers(4, work)
    assert (started, finished) == (4, 4)


async def test_no_workers_are_done_at_once():
    async def work():
        raise AssertionError("nobody was to work")

    await run_workers(0, work)


async def test_workers_share_what_is_to_do():
    items, done = iter(range(100)), []

    async def work():
        for item in items:
            await asyncio.sleep(0)
            done.append(item)

    await run_workers(7, work)
    assert sorted(done) == list(range(100))


def numbered(works):
    return iter(works).__next__


@pytest.mark.parametrize("position", range(3))
async def test_the_first_error_cancels_the_others_and_is_raised_as_it_is(position):
    error = KeyError("mine")
    tidied = []

    async def fail():
        await asyncio.sleep(0)
        raise error

    async def wait():
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            tidied.append("tidied")

    works = [wait, wait]
    works.insert(position, fail)
    following = numbered(works)
    with pytest.raises(KeyError) as raised:
        await run_workers(3, lambda: following()())
    assert raised.value is error
    assert tidied == ["tidied", "tidied"], "they have ended before the error is raised"


async def test_of_two_errors_the_first_is_raised():
    async def fail(steps, error):
        for _ in range(steps):
            await asyncio.sleep(0)
        raise error

    following = numbered([lambda: fail(5, KeyError("late")), lambda: fail(1, ValueError("early"))])
    with pytest.raises(ValueError, match="early"):
        await run_workers(2, lambda: following()())


@pytest.mark.parametrize("steps", range(4))
async def test_cancellation_cancels_every_worker_and_waits_for_it(steps):
    running = set()
    numbers = iter(range(3))

    async def work():
        number = next(numbers)
        running.add(number)
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            running.discard(number)

    task = asyncio.create_task(run_workers(3, work))
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert running == set()
    assert asyncio.all_tasks() == {asyncio.current_task()}
