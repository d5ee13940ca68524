"""How fast requests pass, over all processes; and how many retries a success allows."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
import time
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.s3.pace import AHEAD, Limits, Pace, SharedRate
from replicator.s3.throttle import EARNED, RETRIES, RetryBudget

ROOT = Path(__file__).parents[2]


class Clock:
    """A clock that sleeping moves on."""

    def __init__(self, now=1000.0):
        self.now = now
        self.slept = []

    def __call__(self):
        return self.now

    async def sleep(self, seconds):
        assert seconds > 0
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def rate_of(tmp_path, clock):
    opened = []

    def make(rate, name="file", clock=clock):
        opened.append(SharedRate(tmp_path / name, rate, clock=clock, sleep=clock.sleep))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


async def test_units_pass_at_their_rate(rate_of, clock):
    rate = rate_of(10)
    passed = []
    for _ in range(50):
        await rate.take(1)
        passed.append(clock.now - 1000)
    assert passed[-1] == pytest.approx(49 / 10 - AHEAD)
    late = passed[5:]
    assert all(after - before == pytest.approx(0.1) for before, after in pairwise(late))


async def test_a_pause_saves_up_no_more_than_a_moment(rate_of, clock):
    rate = rate_of(100)
    await rate.take(1)
    clock.now += 3600
    began = clock.now
    for _ in range(200):
        await rate.take(1)
    assert clock.now - began == pytest.approx(199 / 100 - AHEAD)


async def test_many_units_at_once_are_paid_for_by_whoever_comes_next(rate_of, clock):
    rate = rate_of(1000)
    await rate.take(5000)
    assert clock.slept == []
    await rate.take(1)
    assert clock.slept == [pytest.approx(5 - AHEAD)]


async def test_nothing_costs_nothing(rate_of, clock):
    rate = rate_of(1)
    for _ in range(10):
        await rate.take(0)
    assert clock.slept == []


async def test_those_who_wait_are_served_in_the_order_they_came(rate_of):
    reserved = []

    async def sleep(seconds):
        reserved.append(seconds)

    one = rate_of(10)
    one._sleep = sleep
    await asyncio.gather(*(one.take(1) for _ in range(10)))
    assert reserved == sorted(reserved)
    assert all(after - before == pytest.approx(0.1) for before, after in pairwise(reserved))


async def test_two_that_share_a_file_share_the_rate(rate_of, clock):
    one, other = rate_of(10), rate_of(10)
    for _ in range(25):
        await one.take(1)
        await other.take(1)
    assert clock.now - 1000 == pytest.approx(49 / 10 - AHEAD)


async def test_other_files_have_rates_of_their_own(rate_of, clock):
    one, other = rate_of(10), rate_of(10, "other")
    for _ in range(25):
        await one.take(1)
        await other.take(1)
    assert clock.now - 1000 == pytest.approx(24 / 10 - AHEAD)


async def test_one_who_is_cancelled_while_it_waits_blocks_nobody(rate_of, clock):
    rate = rate_of(10)
    never = asyncio.Event()

    async def sleep(seconds):
        await never.wait()

    await rate.take(5)
    patient, rate._sleep = rate._sleep, sleep
    waiting = asyncio.create_task(rate.take(1))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    rate._sleep = patient
    await rate.take(1)
    assert clock.slept == [pytest.approx(0.6 - AHEAD)]


@given(st.lists(st.tuples(st.integers(0, 2), st.floats(0, 2), st.floats(0, 50)), min_size=1, max_size=30))
def test_no_stretch_of_time_sees_more_than_its_share_of_all_who_share_a_rate(tmp_path_factory, steps):
    """What passes in any stretch is at most its length at the rate, a moment ahead, and the last that was let pass."""
    clock, file = Clock(), tmp_path_factory.mktemp("pace") / "file"
    rates = [SharedRate(file, 10, clock=clock, sleep=clock.sleep) for _ in range(3)]
    passed = []

    async def run():
        for which, pause, units in steps:
            clock.now += pause
            await rates[which].take(units)
            passed.append((clock.now, units))

    asyncio.run(run())
    for rate in rates:
        rate.close()
    for first, (began, _) in enumerate(passed):
        for last in range(first, len(passed)):
            units = sum(units for _, units in passed[first:last])  # the last one passes on credit
            assert units <= 10 * (passed[last][0] - began + AHEAD) + 1e-6


def test_the_pace_of_an_endpoint_is_shared_by_its_name_and_no_other(tmp_path):
    limits = Limits(tmp_path, max_rps=10, bandwidth=1000)
    paces = [limits.at(url) for url in ("https://a", "https://a/", "https://b")]
    assert len(list(tmp_path.iterdir())) == 4
    for pace in paces:
        pace.close()


def test_what_is_not_limited_has_no_file(tmp_path):
    assert Limits(tmp_path).at("https://a") == Pace()
    pace = Limits(tmp_path, max_rps=1).at("https://a")
    assert pace.bytes_ is None
    pace.close()
    assert len(list(tmp_path.iterdir())) == 1


# Processes


def child(script, *arguments):
    code = f"import os, sys; sys.path[:0] = {[str(ROOT), *sys.path]!r}\n" + textwrap.dedent(script)
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


TAKE = """
import asyncio, time
from pathlib import Path
from replicator.s3.pace import SharedRate
async def run():
    rate = SharedRate(Path(sys.argv[1]), float(sys.argv[2]))
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(int(sys.argv[3])):
        await rate.take(1)
        print(time.monotonic(), flush=True)
asyncio.run(run())
"""


def test_processes_share_a_rate(tmp_path):
    processes = [child(TAKE, tmp_path / "file", 100, 50) for _ in range(2)]
    try:
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        began = time.monotonic()
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        times = sorted(float(line) for process in processes for line in process.communicate(timeout=60)[0].split())
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert len(times) == 100
    assert times[-1] - began >= 99 / 100 - AHEAD - 0.05  # a timer may be a little early


DIE_WITH_THE_LOCK = """
import fcntl
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
fcntl.lockf(file, fcntl.LOCK_EX)
print("ready", flush=True)
sys.stdin.read()
"""


async def test_a_process_that_is_killed_while_it_holds_the_lock_stops_nobody(tmp_path):
    process = child(DIE_WITH_THE_LOCK, tmp_path / "file")
    rate = SharedRate(tmp_path / "file", 1000)
    try:
        assert process.stdout.readline() == "ready\n"
        taking = asyncio.create_task(asyncio.to_thread(rate._reserve, 1))
        await asyncio.sleep(0.2)
        assert not taking.done()
        process.kill()
        async with asyncio.timeout(60):
            await taking
    finally:
        process.kill()
        process.communicate()
        rate.close()


def test_the_file_is_not_left_to_programs_that_are_started(tmp_path):
    rate = SharedRate(tmp_path / "file", 1)
    assert not os.get_inheritable(rate._file)
    rate.close()


async def test_the_real_clock_keeps_time(tmp_path):
    rate = SharedRate(tmp_path / "file", 100)
    began = time.monotonic()
    for _ in range(31):
        await rate.take(1)
    assert time.monotonic() - began >= 0.3 - AHEAD - 0.01
    rate.close()


# Retries


def test_so_many_retries_need_no_success():
    budget = RetryBudget()
    assert [budget.spend() for _ in range(RETRIES + 3)] == [True] * RETRIES + [False] * 3


def test_successes_earn_retries_and_never_more_than_at_the_start():
    budget = RetryBudget()
    for _ in range(1000):
        budget.earn()
    assert sum(budget.spend() for _ in range(2 * RETRIES)) == RETRIES
    for _ in range(int(10 / EARNED)):
        budget.earn()
    assert sum(budget.spend() for _ in range(100)) == 10


def test_half_a_retry_is_none():
    budget = RetryBudget()
    for _ in range(RETRIES):
        budget.spend()
    budget.earn()
    assert not budget.spend()
    budget.earn()
    assert budget.spend()


@given(st.lists(st.booleans(), max_size=600))
def test_retries_within_the_budget_are_never_more_than_it_had_and_earned(steps):
    budget = RetryBudget()
    earned = within = 0
    for success in steps:
        if success:
            budget.earn()
            earned += 1
        else:
            within += budget.spend()
        assert within <= RETRIES + EARNED * earned
