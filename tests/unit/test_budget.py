"""Loans of bytes: first come first served, never more than there is, all given back."""

from __future__ import annotations

import asyncio
import random

import pytest

from replicator.budget import ByteBudget


async def settle():
    """Lets everything that can run do so."""
    for _ in range(20):
        await asyncio.sleep(0)


class Borrower:
    """A task that holds a loan until it is told to give it back."""

    def __init__(self, budget, size, log=None, name=""):
        self.enough = asyncio.Event()
        self.holds = False
        self.task = asyncio.create_task(self._borrow(budget, size, log, name))

    async def _borrow(self, budget, size, log, name):
        async with budget.lend(size):
            if log is not None:
                log.append(name)
            self.holds = True
            await self.enough.wait()

    async def give_back(self):
        self.enough.set()
        await self.task
        await settle()

    async def cancel(self):
        self.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await self.task
        await settle()


async def borrow(budget, size, **others):
    borrower = Borrower(budget, size, **others)
    await settle()
    return borrower


async def test_what_fits_is_lent_at_once_and_given_back():
    budget = ByteBudget(10)
    async with budget.lend(4), budget.lend(6):
        assert budget.lent == 10
    assert budget.lent == 0


async def test_an_error_in_the_block_gives_the_loan_back():
    budget = ByteBudget(10)
    with pytest.raises(KeyError):
        async with budget.lend(4):
            raise KeyError
    assert budget.lent == 0


async def test_what_does_not_fit_waits():
    budget = ByteBudget(10)
    first = await borrow(budget, 6)
    second = await borrow(budget, 5)
    assert (first.holds, second.holds, budget.lent) == (True, False, 6)
    await first.give_back()
    assert (second.holds, budget.lent) == (True, 5)
    await second.give_back()
    assert budget.lent == 0


async def test_a_small_loan_does_not_overtake_a_large_one_that_waits():
    budget = ByteBudget(10)
    first = await borrow(budget, 6)
    large, small = await borrow(budget, 8), await borrow(budget, 1)
    assert (large.holds, small.holds) == (False, False)
    await first.give_back()
    assert (large.holds, small.holds) == (True, True)
    await large.give_back()
    await small.give_back()
    assert budget.lent == 0


async def test_those_who_wait_are_served_in_the_order_they_came():
    budget, log = ByteBudget(1), []
    holder = await borrow(budget, 1)
    waiting = [await borrow(budget, 1, log=log, name=number) for number in range(5)]
    for borrower in [holder, *waiting]:
        await borrower.give_back()
    assert log == [0, 1, 2, 3, 4]


async def test_a_loan_larger_than_all_waits_until_nothing_else_is_lent_and_is_then_alone():
    budget = ByteBudget(10)
    first, second = await borrow(budget, 3), await borrow(budget, 3)
    oversized = await borrow(budget, 100)
    behind = await borrow(budget, 1)
    await first.give_back()
    assert not oversized.holds
    await second.give_back()
    assert (oversized.holds, behind.holds, budget.lent) == (True, False, 100)
    await oversized.give_back()
    assert (behind.holds, budget.lent) == (True, 1)
    await behind.give_back()


async def test_an_oversized_loan_is_lent_at_once_when_nothing_else_is():
    budget = ByteBudget(10)
    async with budget.lend(11):
        assert budget.lent == 11
    assert budget.lent == 0


async def test_nothing_can_always_be_lent_to_whoever_does_not_have_to_wait():
    budget = ByteBudget(0)
    async with budget.lend(0), budget.lend(0):
        assert budget.lent == 0


async def test_cancelling_a_holder_serves_the_next():
    budget = ByteBudget(10)
    holder, waiting = await borrow(budget, 10), await borrow(budget, 10)
    await holder.cancel()
    assert waiting.holds
    await waiting.give_back()
    assert budget.lent == 0


async def test_cancelling_one_who_waits_takes_nothing():
    budget = ByteBudget(10)
    holder, leaving, waiting = [await borrow(budget, 10) for _ in range(3)]
    await leaving.cancel()
    assert budget.lent == 10
    await holder.give_back()
    assert waiting.holds
    await waiting.give_back()
    assert budget.lent == 0


async def test_cancelling_a_large_one_who_waits_lets_the_small_ones_behind_it_go():
    budget = ByteBudget(10)
    holder, large, small = await borrow(budget, 5), await borrow(budget, 8), await borrow(budget, 2)
    assert not small.holds
    await large.cancel()
    assert (small.holds, budget.lent) == (True, 7)
    await small.give_back()
    await holder.give_back()
    assert budget.lent == 0


async def test_cancelling_one_whose_turn_has_just_come_passes_it_on():
    budget = ByteBudget(10)
    async with budget.lend(10):
        unlucky, waiting = await borrow(budget, 10), await borrow(budget, 10)
    assert (budget.lent, unlucky.holds) == (10, False)  # it is its turn now, but it has not run yet
    unlucky.task.cancel()
    await settle()
    assert (unlucky.holds, waiting.holds, budget.lent) == (False, True, 10)
    await waiting.give_back()
    assert budget.lent == 0


@pytest.mark.parametrize("seed", range(60))
async def test_cancellation_at_any_point_gives_everything_back(seed):
    chooser = random.Random(seed)
    budget = ByteBudget(10)
    held = 0

    async def use(size):
        nonlocal held
        async with budget.lend(size):
            held += size
            assert held == size or held <= budget.total
            try:
                for _ in range(chooser.randrange(4)):
                    await asyncio.sleep(0)
            finally:
                held -= size

    tasks = [asyncio.create_task(use(chooser.choice((0, 1, 3, 5, 10, 15)))) for _ in range(30)]
    while not all(task.done() for task in tasks):
        if chooser.random() < 0.4:
            chooser.choice(tasks).cancel()
        await asyncio.sleep(0)
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} <= {type(None), asyncio.CancelledError}
    assert (budget.lent, held) == (0, 0)
    async with asyncio.timeout(60), budget.lend(10):
        assert budget.lent == 10
