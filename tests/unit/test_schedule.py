"""Which ranges wait and which run: together with what is done they are all keys, each once, whatever happens."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from replicator.bulk.schedule import LONG, SLOTS, Schedule
from replicator.bulk.tasks import Range

KEYS = st.text("abcz\U0010ffff", min_size=1, max_size=3)
END = "\U0010ffff" * 9


def end_of(one):
    return END if one.upto is None else one.upto


class Ranges(RuleBasedStateMachine):
    """Plays a run: a model of what each range under way should be now, checked against what the schedule says."""

    @initialize(cuts=st.sets(KEYS, max_size=4), workers=st.integers(1, 4))
    def begin(self, cuts, workers):
        bounds = ["", *sorted(cuts), None]
        self.waiting = [Range(bounds[n] or "", bounds[n + 1]) for n in range(len(bounds) - 1)]
        self.running = {}
        self.done = []
        self.gone = set()
        self.workers = set(range(workers))
        self.schedule = Schedule(self.waiting, range(workers))
        self.asked = None

    def a_running(self, data):
        return data.draw(st.sampled_from(sorted(self.running)))

    def load(self, worker):
        return sum(who == worker for who, _ in self.running.values())

    @rule()
    def give(self):
        given = self.schedule.give()
        free = [worker for worker in self.workers if self.load(worker) < SLOTS]
        assert (given is not None) == bool(self.waiting and free)
        if given is not None:
            assert given.range in self.waiting
            assert given.id not in self.running
            assert given.worker in self.workers
            assert self.load(given.worker) == min(self.load(worker) for worker in self.workers) < SLOTS
            self.waiting.remove(given.range)
            self.running[given.id] = (given.worker, given.range)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), key=KEYS)
    def settled(self, data, key):
        number = self.a_running(data)
        worker, was = self.running[number]
        if was.after < key and key <= end_of(was):
            assert self.schedule.settled(number, key) == was
            self.done.append(Range(was.after, key))
            self.running[number] = (worker, Range(key, was.upto))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), pages=st.integers(1, 20))
    def listed(self, data, pages):
        self.schedule.listed(self.a_running(data), pages)

    @rule()
    def ask(self):
        asked = self.schedule.ask()
        if asked is not None:
            assert self.asked is None
            assert not self.waiting
            assert asked[0] == self.running[asked[1]][0]
            self.asked = asked[1]

    @precondition(lambda self: self.asked is not None)
    @rule(key=KEYS)
    def split(self, key):
        number, self.asked = self.asked, None
        worker, was = self.running[number]
        if not was.after < key < end_of(was):
            assert self.schedule.split(number, None) is None
            return
        now, rest = Range(was.after, key), Range(key, was.upto)
        assert self.schedule.split(number, key) == (was, now, rest)
        self.running[number] = (worker, now)
        self.waiting.append(rest)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def finished(self, data):
        number = self.a_running(data)
        _, was = self.running.pop(number)
        assert self.schedule.finished(number) == was
        self.done.append(was)
        self.asked = None if self.asked == number else self.asked

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def failed(self, data):
        number = self.a_running(data)
        _, was = self.running.pop(number)
        self.schedule.fail(number)
        self.asked = None if self.asked == number else self.asked

    @precondition(lambda self: len(self.workers) > 1)
    @rule(data=st.data())
    def lost(self, data):
        worker = data.draw(st.sampled_from(sorted(self.workers)))
        mine = [number for number, (who, _) in self.running.items() if who == worker]
        assert self.schedule.lost(worker) == len(mine)
        self.workers.remove(worker)
        for number in mine:
            self.waiting.append(self.running.pop(number)[1])
            self.asked = None if self.asked == number else self.asked

    @rule(number=st.integers(1000, 1010), key=KEYS)
    def stale_words(self, number, key):
        """What comes late from ranges that are no more changes nothing."""
        assert self.schedule.settled(number, key) is None
        assert self.schedule.split(number, key) is None
        assert self.schedule.finished(number) is None
        self.schedule.fail(number)
        self.schedule.listed(number, 3)

    @invariant()
    def all_keys_are_somewhere_and_only_once(self):
        running = [one for _, one in self.running.values()]
        pieces = [*self.waiting, *running, *self.done, *self.schedule.failed]
        spans = sorted((one.after, end_of(one)) for one in pieces if one.after != end_of(one))
        assert spans[0][0] == ""
        assert spans[-1][1] == END
        assert all(here[1] == there[0] for here, there in zip(spans, spans[1:], strict=False))
        assert self.schedule.done == (not self.waiting and not self.running)

    def teardown(self):
        """Whatever came before: with a worker alive, all that waits is handed out."""
        if not hasattr(self, "schedule"):
            return
        while not self.schedule.done:
            given = self.schedule.give()
            if given is not None:
                assert given.range in self.waiting
                self.waiting.remove(given.range)
                self.running[given.id] = (given.worker, given.range)
            else:
                number, (_, was) = self.running.popitem()
                assert self.schedule.finished(number) == was
        assert not self.waiting
        assert not self.running


TestRanges = Ranges.TestCase
TestRanges.settings = settings(max_examples=150, stateful_step_count=40)


def test_ranges_go_to_the_worker_that_has_the_fewest_and_never_more_than_its_slots():
    schedule = Schedule([Range(f"{n:03}", f"{n + 1:03}") for n in range(3 * SLOTS)], [0, 1])
    given = [schedule.give() for _ in range(2 * SLOTS)]
    assert [one.worker for one in given] == [0, 1] * SLOTS
    assert [one.range.after for one in given] == [f"{n:03}" for n in range(2 * SLOTS)]
    assert len({one.id for one in given}) == 2 * SLOTS
    assert schedule.give() is None
    schedule.finished(given[2].id)
    assert schedule.give().worker == 0


def test_nothing_is_given_without_workers():
    schedule = Schedule([Range()], [0])
    schedule.give()
    schedule.lost(0)
    assert (schedule.give(), schedule.ask(), schedule.done) == (None, None, False)


def two_running(pages):
    schedule = Schedule([Range("", "m"), Range("m", None)], [0, 1])
    for count in pages:
        schedule.listed(schedule.give().id, count)
    return schedule


def test_a_worker_with_nothing_has_the_longest_range_split_after_one_page():
    schedule = Schedule([Range("", "m"), Range("m", None)], [0, 1, 2])
    ids = [schedule.give().id for _ in range(2)]
    assert schedule.ask() is None
    schedule.listed(ids[0], 1)
    schedule.listed(ids[1], 2)
    assert schedule.ask() == (1, ids[1])


@pytest.mark.parametrize(("pages", "expected"), [(LONG - 1, None), (LONG, (0, 1))])
def test_busy_workers_with_room_have_only_long_ranges_split(pages, expected):
    assert two_running([pages, 0]).ask() == expected


def test_one_range_at_a_time_is_asked_to_split():
    schedule = two_running([20, 30])
    assert schedule.ask() == (1, 2)
    assert schedule.ask() is None
    schedule.split(2, "q")
    assert schedule.ask() is None  # a range waits
    assert schedule.give().range == Range("q", None)
    assert schedule.ask() == (0, 1)


@pytest.mark.parametrize("end", ["finished", "fail", "lost"])
def test_a_range_that_ends_before_it_answers_lets_another_be_asked(end):
    schedule = two_running([20, 30])
    schedule.ask()
    if end == "lost":
        schedule.lost(1)
        assert schedule.give().range == Range("m", None)
    else:
        getattr(schedule, end)(2)
    assert schedule.ask() == (0, 1)
    assert schedule.split(2, "q") is None


@given(st.integers(1, 14))
def test_a_range_that_cannot_be_split_is_asked_ever_less_often(times):
    schedule = Schedule([Range()], [0, 1])
    number = schedule.give().id
    waited = []
    for _ in range(times):
        pages = 0
        while (asked := schedule.ask()) is None:
            schedule.listed(number, 1)
            pages += 1
        assert asked == (0, number)
        assert schedule.split(number, None) is None
        waited.append(pages)
    assert waited == [1, *(1 + (LONG << min(n, 10)) for n in range(times - 1))]


def test_a_split_makes_up_for_refusals():
    schedule = Schedule([Range()], [0, 1])
    number = schedule.give().id
    for _ in range(3):
        schedule.listed(number, 1000)
        schedule.ask()
        schedule.split(number, None)
    schedule.listed(number, 1000)
    schedule.ask()
    schedule.split(number, "m")
    schedule.finished(schedule.give().id)
    schedule.listed(number, 1)
    assert schedule.ask() == (0, number)


def test_full_workers_split_nothing():
    schedule = Schedule([Range(f"{n:03}", f"{n + 1:03}") for n in range(SLOTS)], [0])
    for _ in range(SLOTS):
        schedule.listed(schedule.give().id, 1000)
    assert schedule.ask() is None
    schedule.finished(1)
    assert schedule.ask() is not None


@pytest.mark.parametrize("end", ["z", None])
def test_a_cut_leaves_both_parts_and_nothing_else(end):
    schedule = Schedule([Range("b", end)], [0, 1])
    number = schedule.give().id
    schedule.settled(number, "d")
    schedule.listed(number, 1)
    assert schedule.ask() == (0, number)
    assert schedule.split(number, "m") == (Range("d", end), Range("d", "m"), Range("m", end))
    assert schedule.give().range == Range("m", end)
    assert schedule.finished(number) == Range("d", "m")
