"""How messages are settled: no good one waits for a bad one, no bad one is lost, and a dead letter has its reason."""

from __future__ import annotations

import pytest

from replicator.errors import QueueError
from replicator.events import QueueMessage
from replicator.live.batch import Handled
from replicator.live.settling import MOST_RECEIVES, is_final, settle
from replicator.queues.database import QueueFile
from replicator.queues.local import CHANGES, DEAD_LETTERS, RECEIVES, LocalQueue
from replicator.queues.queue import Depth, Outgoing, backoff

VISIBILITY = 60.0


class Clock:
    def __init__(self):
        self.now = 1.7e9

    def __call__(self):
        return self.now


class Away:
    """A queue of which some methods fail."""

    def __init__(self, queue, *fails):
        self._queue = queue
        self._fails = fails
        self.name = queue.name

    def __getattr__(self, name):
        if name in self._fails:
            raise QueueError(f"{self.name}: {name}: away")
        return getattr(self._queue, name)


class Desk:
    def __init__(self, path):
        self.clock = Clock()
        self.file = QueueFile(path)
        self.changes = LocalQueue(self.file, CHANGES, visibility=VISIBILITY, receives=RECEIVES, clock=self.clock)
        self.dead_letters = LocalQueue(self.file, DEAD_LETTERS, clock=self.clock)

    def receive(self, *bodies):
        """Messages by their bodies."""
        self.changes.send([Outgoing(body) for body in bodies])
        return {one.body: one for one in self.changes.receive(100, wait=0)}

    def dead(self):
        return {one.body: one.reason for one in self.dead_letters.receive(100, wait=0)}


@pytest.fixture
def desk(tmp_path):
    desk = Desk(tmp_path / "queue.db")
    yield desk
    desk.file.close()


def ended(message, error=None, *, poison=False):
    return Handled(message, error, poison=poison)


def test_what_is_done_is_deleted_what_failed_is_put_off_and_what_never_will_do_is_set_aside_at_once(desk):
    got = desk.receive("good", "bad", "poison", "also good")
    handled = [
        ended(got["poison"], "poison: names no key", poison=True),
        ended(got["good"]),
        ended(got["bad"], "'k': 403"),
        ended(got["also good"]),
    ]
    assert settle(desk.changes, desk.dead_letters, handled) == []
    assert desk.dead() == {"poison": "poison: names no key"}
    assert desk.changes.depth() == Depth(0, 1, 0)
    desk.clock.now += backoff(1)
    assert [one.body for one in desk.changes.receive(10, wait=0)] == ["bad"]


def test_nothing_to_settle_asks_nothing(desk):
    nobody = Away(desk.changes, "delete", "put_off", "send")
    assert settle(nobody, nobody, []) == []


def test_a_message_is_tried_later_and_later_and_its_last_failure_sets_it_aside_with_its_reason(desk):
    desk.changes.send([Outgoing("bad")])
    tries, began = 0, desk.clock.now
    while found := desk.changes.receive(1, wait=0):
        tries += 1
        assert found[0].receive_count == tries
        assert settle(desk.changes, desk.dead_letters, [ended(found[0], f"failed {tries}")]) == []
        desk.clock.now += backoff(tries) - 1
        assert desk.changes.receive(1, wait=0) == []
        desk.clock.now += 1
    assert tries == MOST_RECEIVES == RECEIVES, "or the queue would set it aside first, without its reason"
    assert 3600 < desk.clock.now - began < 7200
    assert desk.dead() == {"bad": f"failed {MOST_RECEIVES}"}


@pytest.mark.parametrize(
    ("receives", "error", "poison", "final"),
    [
        (1, None, False, False),
        (MOST_RECEIVES, None, False, False),
        (1, "403", False, False),
        (MOST_RECEIVES - 1, "403", False, False),
        (MOST_RECEIVES, "403", False, True),
        (MOST_RECEIVES + 5, "403", False, True),
        (1, "poison", True, True),
    ],
)
def test_what_has_failed_for_good(receives, error, poison, final):
    message = QueueMessage("id", "receipt", "{}", receives, "")
    assert is_final(ended(message, error, poison=poison)) is final


def test_while_dead_letters_cannot_be_sent_they_come_again_and_the_others_are_settled(desk):
    got = desk.receive("good", "poison", "bad")
    handled = [ended(got["good"]), ended(got["poison"], "no", poison=True), ended(got["bad"], "403")]
    (refused,) = settle(desk.changes, Away(desk.dead_letters, "send"), handled)
    assert "dead letters: send: away" in refused
    assert desk.dead() == {}
    desk.clock.now += backoff(1)
    assert sorted(one.body for one in desk.changes.receive(10, wait=0)) == ["bad", "poison"]


def test_without_dead_letters_what_never_will_do_is_put_off(desk):
    got = desk.receive("good", "poison")
    assert settle(desk.changes, None, [ended(got["good"]), ended(got["poison"], "no", poison=True)]) == []
    assert desk.changes.depth() == Depth(0, 1, 0)
    desk.clock.now += backoff(1)
    assert [one.body for one in desk.changes.receive(10, wait=0)] == ["poison"]


@pytest.mark.parametrize("fails", ["delete", "put_off"])
def test_a_queue_that_does_not_answer_is_an_error_and_everything_comes_again_or_is_a_dead_letter(desk, fails):
    got = desk.receive("good", "bad", "poison")
    handled = [ended(got["good"]), ended(got["bad"], "403"), ended(got["poison"], "no", poison=True)]
    with pytest.raises(QueueError):
        settle(Away(desk.changes, fails), desk.dead_letters, handled)
    assert desk.dead() == {"poison": "no"}
    desk.clock.now += VISIBILITY
    again = {one.body for one in desk.changes.receive(10, wait=0)}
    assert again == ({"good", "bad", "poison"} if fails == "delete" else {"bad"})


def test_a_message_that_was_given_out_again_meanwhile_is_refused_in_words_and_stays(desk):
    got = desk.receive("good", "bad")
    desk.clock.now += VISIBILITY
    assert len(desk.changes.receive(10, wait=0)) == 2
    refused = settle(desk.changes, desk.dead_letters, [ended(got["good"]), ended(got["bad"], "403")])
    assert [line.split(":")[0] for line in refused] == ["delete", "put off"]
    assert desk.changes.depth() == Depth(0, 2, 0)


def test_settling_twice_does_no_harm(desk):
    got = desk.receive("good", "bad")
    handled = [ended(got["good"]), ended(got["bad"], "403")]
    for _ in range(2):
        assert settle(desk.changes, desk.dead_letters, handled) == []
    assert desk.changes.depth() == Depth(0, 1, 0)


def test_two_messages_with_the_same_words_are_settled_each_by_itself(desk):
    desk.changes.send([Outgoing("same"), Outgoing("same")])
    one, other = desk.changes.receive(10, wait=0)
    assert settle(desk.changes, desk.dead_letters, [ended(one), ended(other, "403")]) == []
    desk.clock.now += backoff(1)
    assert [again.message_id for again in desk.changes.receive(10, wait=0)] == [other.message_id]
