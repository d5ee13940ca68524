"""What is read in messages that were set aside; and that a look at them takes nothing away."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from replicator.errors import QueueError
from replicator.events import QueueMessage
from replicator.items import KeysItem, PartsItem, RangeItem, encode
from replicator.multipart import Part
from replicator.queues.letters import Kind, read_letter
from replicator.queues.looking import HELD_BACK, looking

EVENTS = Path(__file__).parents[1] / "events"


def message(body, **facts):
    return QueueMessage("id", "receipt", body, 12, **facts)


PARTS = PartsItem("r", "big", "e-3", (("t", "u"),), (Part(1, 0, 5), Part(2, 5, 5)), 3)


@pytest.mark.parametrize(
    ("item", "kind", "keys", "about"),
    [
        (KeysItem("r", ("a", "b")), Kind.KEYS, ("a", "b"), ""),
        (RangeItem("r", "a", "b"), Kind.RANGE, (), "every key after 'a' up to 'b'"),
        (RangeItem("r"), Kind.RANGE, (), "every key after '' up to the end"),
        (PARTS, Kind.PARTS, ("big",), "2 parts of a large object"),
    ],
)
def test_a_work_item_says_its_route_and_keys(item, kind, keys, about):
    letter = read_letter(message(encode(item)))
    assert (letter.kind, letter.route, letter.bucket, letter.keys, letter.about) == (kind, "r", "", keys, about)


def test_a_notification_says_its_bucket_and_every_spelling_of_its_keys():
    letter = read_letter(message((EVENTS / "ceph_put_encoded_looking.json").read_text()))
    assert (letter.kind, letter.route) == (Kind.NOTIFICATION, "")
    assert letter.bucket
    assert len(letter.keys) == 2


def test_a_test_event_has_no_key_and_says_what_it_is():
    letter = read_letter(message((EVENTS / "s3_test_event.json").read_text()))
    assert (letter.keys, letter.about) == ((), "s3:TestEvent")


@pytest.mark.parametrize("body", ["", "{", "[]", '{"replicator":1}', '{"replicator":"keys"}', "\ud800", "x" * 10**6])
def test_what_cannot_be_read_is_poison_and_shown_in_one_short_line(body):
    letter = read_letter(message(body))
    assert letter.kind is Kind.POISON
    assert letter.keys == ()
    assert len(letter.about) < 400
    assert letter.about.isprintable()
    assert letter.about.encode()


def test_a_reason_that_was_not_told_is_how_often_it_was_given_out():
    assert read_letter(message("x", reason="AccessDenied")).reason == "AccessDenied"
    assert "given out 12 times" in read_letter(message("x")).reason


# Looking


class Forgetful:
    """A queue that gives out messages again although they are hidden, and may cease to answer."""

    name = "q"

    def __init__(self, count, *, again=()):
        self.waiting = [QueueMessage(f"m{n}", f"r{n}", "body", 1) for n in range(count)]
        self.given = []
        self.again = list(again)
        self.hidden = {}
        self.deleted = []
        self.broken = False

    def receive(self, most, *, wait):
        if self.broken:
            raise QueueError("no answer")
        if self.given and self.again:
            one = self.given[self.again.pop()]
            return [replace(one, receipt_handle=f"{one.receipt_handle} again")]
        batch, self.waiting = self.waiting[:most], self.waiting[most:]
        self.given += batch
        return batch

    def put_off(self, messages):
        if self.broken:
            raise QueueError("no answer")
        self.hidden |= {one.receipt_handle: seconds for one, seconds in messages}
        return []

    def delete(self, messages):
        self.deleted += [one.receipt_handle for one in messages]
        return []


def test_every_message_is_seen_once_kept_from_others_meanwhile_and_put_back():
    queue = Forgetful(25)
    with looking(queue, most=100) as look:
        seen = [one.message_id for batch in look.batches() for one in batch]
        assert set(queue.hidden.values()) == {HELD_BACK}
    assert seen == [f"m{n}" for n in range(25)]
    assert queue.hidden == {f"r{n}": 0 for n in range(25)}
    assert not look.more


def test_what_is_done_is_deleted_and_not_put_back():
    queue = Forgetful(3)
    with looking(queue, most=100) as look:
        for batch in look.batches():
            look.done(batch[:2])
    assert queue.deleted == ["r0", "r1"]
    assert queue.hidden["r2"] == 0
    assert queue.hidden["r0"] == HELD_BACK


def test_a_message_that_comes_twice_is_seen_once_and_put_back_by_its_last_receipt():
    queue = Forgetful(13, again=[1])
    with looking(queue, most=100) as look:
        seen = [one.message_id for batch in look.batches() for one in batch]
    assert seen == [f"m{n}" for n in range(13)]
    assert queue.hidden["r1 again"] == 0


def test_a_look_ends_although_a_queue_gives_the_same_again_and_again():
    queue = Forgetful(5, again=[0] * 1000)
    with looking(queue, most=100) as look:
        assert sum(map(len, look.batches())) == 5
    assert queue.hidden["r4"] == 0


def test_a_block_that_fails_puts_back_what_was_looked_at():
    queue = Forgetful(5)
    with pytest.raises(ZeroDivisionError), looking(queue, most=100) as look:
        _ = [len(batch) / 0 for batch in look.batches()]
    assert set(queue.hidden.values()) == {0}


def test_a_queue_that_ceases_to_answer_is_the_error_that_is_told():
    queue = Forgetful(25)
    queue.broken = True
    with pytest.raises(QueueError, match="no answer"), looking(queue, most=100) as look:
        next(look.batches())
