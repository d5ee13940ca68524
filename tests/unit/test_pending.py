"""Keys that have changed: each is looked at when it is quiet, or before long, and less often while it fails."""

from __future__ import annotations

import hypothesis
import pytest
from hypothesis import strategies as st

from replicator.push.pending import FIRST_RETRY, LAST_RETRY, LONGEST_WAIT, MOST, QUIET, Pending


@pytest.fixture
def pending():
    return Pending()


def take(pending, now):
    return pending.take(now, MOST)


def test_nothing_waits_at_first(pending):
    assert (len(pending), pending.next(), take(pending, 1e9), pending.overflown) == (0, None, {}, False)


def test_a_key_waits_until_it_is_quiet(pending):
    pending.touched("a", 100.0)
    assert (len(pending), pending.next()) == (1, 100 + QUIET)
    assert take(pending, 100 + QUIET - 0.01) == {}
    assert take(pending, 100 + QUIET) == {"a": 0}
    assert (len(pending), pending.next(), take(pending, 1e9)) == (0, None, {})


def test_each_further_change_makes_it_wait_anew(pending):
    for moment in (100.0, 100.3, 100.6):
        pending.touched("a", moment)
        assert take(pending, moment) == {}
    assert take(pending, 100.6 + QUIET - 0.01) == {}
    assert take(pending, 100.6 + QUIET) == {"a": 0}


def test_a_key_that_changes_all_the_time_waits_no_longer_than_that(pending):
    taken = []
    for step in range(1000):
        moment = 100 + step * 0.1
        pending.touched("a", moment)
        taken += [moment for _ in take(pending, moment)]
    assert taken[0] == pytest.approx(100 + LONGEST_WAIT)
    gaps = [later - earlier for earlier, later in zip(taken, taken[1:], strict=False)]
    assert gaps
    assert all(LONGEST_WAIT <= gap < LONGEST_WAIT + 0.2 for gap in gaps)


def test_keys_do_not_wait_for_each_other(pending):
    pending.touched("a", 100.0)
    pending.touched("b", 100.2)
    pending.touched("a", 100.4)
    assert take(pending, 100.2 + QUIET) == {"b": 0}
    assert take(pending, 100.4 + QUIET) == {"a": 0}


def test_many_changes_at_one_moment_are_one(pending):
    for _ in range(5):
        pending.touched("a", 100.0)
    assert (len(pending), take(pending, 200.0), take(pending, 200.0)) == (1, {"a": 0}, {})


def test_no_more_are_taken_than_were_asked_for_the_first_that_are_due_come_first(pending):
    for number in range(5):
        pending.touched(str(number), 100.0 + number)
    taken = [pending.take(200.0, most) for most in (0, 2, 1, 9)]
    assert taken == [{}, {"0": 0, "1": 0}, {"2": 0}, {"3": 0, "4": 0}]


def test_a_key_that_was_taken_late_is_due_at_once_and_not_in_the_past(pending):
    pending.touched("a", 100.0)
    pending.touched("a", 150.0)
    assert take(pending, 150.0) == {"a": 0}


def test_a_key_that_fails_is_tried_less_and_less_often(pending):
    waits = []
    now = 0.0
    for failures in range(1, 15):
        pending.failed("a", now, failures)
        due = pending.next()
        waits.append(due - now)
        assert take(pending, due - 0.01) == {}
        assert take(pending, due) == {"a": failures}
        now = due
    assert waits[:4] == [FIRST_RETRY, 2 * FIRST_RETRY, 4 * FIRST_RETRY, 8 * FIRST_RETRY]
    assert waits == sorted(waits)
    assert waits[-1] == LAST_RETRY


def test_a_key_that_changes_while_it_waits_to_be_tried_again_is_tried_soon_and_as_if_anew(pending):
    pending.failed("a", 100.0, 9)
    pending.touched("a", 101.0)
    assert take(pending, 101 + QUIET) == {"a": 0}
    assert (len(pending), take(pending, 1e9)) == (0, {})


def test_a_key_that_changed_while_it_was_failing_does_not_wait_for_that(pending):
    pending.touched("a", 100.0)
    assert take(pending, 101.0) == {"a": 0}
    pending.touched("a", 102.0)
    pending.failed("a", 103.0, 1)
    assert take(pending, 103.0) == {"a": 0}
    assert take(pending, 1e9) == {}


def test_the_long_wait_of_a_key_that_failed_does_not_count_as_its_change(pending):
    pending.failed("a", 100.0, 9)
    pending.touched("a", 100 + LONGEST_WAIT + 50)
    assert take(pending, 100 + LONGEST_WAIT + 50) == {}


def test_as_many_as_there_is_room_for_are_held(pending):
    for number in range(MOST):
        pending.touched(str(number), 0.0)
    assert (len(pending), pending.overflown) == (MOST, False)
    assert len(take(pending, 1.0)) == MOST


@pytest.mark.parametrize("how", ["touched", "failed"])
def test_with_one_more_all_are_let_go_and_it_is_said_until_somebody_has_looked(pending, how):
    for number in range(MOST):
        pending.touched(str(number), 0.0)
    pending.touched("one more", 0.0) if how == "touched" else pending.failed("one more", 0.0, 1)
    assert (len(pending), pending.overflown, pending.next(), take(pending, 1e9)) == (0, True, None, {})
    pending.touched("later", 10.0)
    assert (pending.overflown, take(pending, 11.0)) == (True, {"later": 0})
    pending.reset()
    assert not pending.overflown


STEPS = st.tuples(st.sampled_from(["touched", "failed", "take"]), st.sampled_from("abc"), st.floats(0, 20))


@hypothesis.given(st.lists(STEPS, max_size=60))
def test_nothing_is_ever_lost_nor_taken_early_whatever_happens(steps):
    pending, now = Pending(), 0.0
    since, last = {}, {}
    for what, key, later in steps:
        now += later
        if what == "touched":
            pending.touched(key, now)
            since.setdefault(key, now)
            last[key] = now
        elif what == "failed":
            pending.failed(key, now, 3)
            since.setdefault(key, now)
            last.setdefault(key, now)
        else:
            for taken in take(pending, now):
                assert now >= min(last[taken] + QUIET, since[taken] + LONGEST_WAIT)
                del since[taken], last[taken]
        assert len(pending) == len(since)
        assert pending.next() is not None or not since
    while (due := pending.next()) is not None:
        for taken in take(pending, due):
            del since[taken]
    assert not since
