"""What becomes of each message of a batch."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from urllib.parse import quote_plus

import pytest

from replicator.errors import AccessDenied, PoisonMessage, QueueError
from replicator.events import QueueMessage
from replicator.items import KeysItem, PartsItem, RangeItem, encode
from replicator.live.batch import OUT_OF_TIME, KeyTask, handle_messages
from replicator.model import Did, Outcome
from replicator.multipart import Part
from tests.fakes.hurried_loop import in_hurried_loop

PLENTY = 60.0


def message(body, number=0):
    return QueueMessage(f"id {number}", f"receipt {number}", body, 1, "arn:aws:sqs:us-east-1:123456789012:queue")


def record(key, bucket="from", *, source="aws:s3", when="2026-10-21T07:28:00Z"):
    told = quote_plus(key) if source == "aws:s3" else key
    return {
        "eventSource": source,
        "eventName": "ObjectCreated:Put",
        "eventTime": when,
        "s3": {"bucket": {"name": bucket}, "object": {"key": told}},
    }


def event(*keys, **more):
    return json.dumps({"Records": [record(key, **more) for key in keys]})


class Converging:
    """Plays the converger, and notes what it was asked for. failing: outcomes or exceptions by key."""

    def __init__(self, **failing):
        self.failing = failing
        self.asked = []

    async def __call__(self, key):
        self.asked.append(key)
        await asyncio.sleep(0)
        what = self.failing.get(key)
        if isinstance(what, Outcome):
            return [what]
        if what is not None:
            raise what
        return [Outcome(key, "s3://to/", Did.COPIED, "not at the target")]


def failed(key, reason="403"):
    return Outcome(key, "s3://to/", Did.FAILED, reason, failure=AccessDenied("GetObject", f"from/{key}", reason))


async def handle(converge, *bodies, prefix="", seconds=PLENTY):
    """Handles bodies on one route, of the bucket `from` below a prefix; converge: is given the keys."""

    def meant(change):
        if change.bucket != "from":
            raise PoisonMessage(f"is about {change.bucket!r}, not 'from'")
        return [
            KeyTask("route", key.removeprefix(prefix))
            for key in change.candidates
            if key.startswith(prefix) and key != prefix
        ]

    return await do(lambda task: converge(task.key), *bodies, meant=meant, seconds=seconds)


async def do(work, *bodies, meant=None, seconds=PLENTY):
    messages = [message(body, number) for number, body in enumerate(bodies)]
    handled = await handle_messages(messages, meant=meant, do=work, seconds=seconds)
    assert [one.message for one in handled] == messages
    return handled


async def test_an_empty_batch_is_handled():
    assert await handle(Converging()) == []


async def test_every_message_gets_the_outcomes_of_its_keys():
    one, other = await handle(Converging(), event("a"), event("b b", "ü+"))
    assert (one.error, one.ignored) == (None, None)
    assert [outcome.key for outcome in one.outcomes] == ["a"]
    assert [outcome.key for outcome in other.outcomes] == ["b b", "ü+"]


async def test_a_key_is_converged_once_in_a_batch_however_often_it_is_named():
    converge = Converging()
    handled = await handle(converge, event("a", "b", "a"), event("b"), event("a"), event("a"))
    assert sorted(converge.asked) == ["a", "b"]
    assert [one.error for one in handled] == [None] * 4
    assert [[outcome.key for outcome in one.outcomes] for one in handled[1:]] == [["b"], ["a"], ["a"]]


async def test_keys_are_converged_at_the_same_time():
    meeting = asyncio.Barrier(3)

    async def converge(key):
        await meeting.wait()
        return []

    handled = await handle(converge, event("a", "b"), event("c"))
    assert [one.error for one in handled] == [None, None]


@pytest.mark.parametrize("body", ["", "not JSON", "[]", "{}", '{"Records": []}', '{"Records": [{"eventSource": 7}]}'])
async def test_a_poisoned_message_is_an_error_and_the_others_are_handled(body):
    converge = Converging()
    good, bad, last = await handle(converge, event("a"), body, event("b"))
    assert bad.error.startswith("poison: ")
    assert (bad.outcomes, bad.ignored, bad.poison) == ((), None, True)
    assert (good.error, last.error) == (None, None)
    assert converge.asked == ["a", "b"]


async def test_a_message_with_one_bad_record_is_poison_as_a_whole():
    converge = Converging()
    body = json.dumps({"Records": [record("a"), {"eventSource": "aws:dynamodb"}]})
    (bad,) = await handle(converge, body)
    assert bad.error.startswith("poison: ")
    assert converge.asked == []


async def test_a_foreign_bucket_is_poison_that_names_both():
    converge = Converging()
    foreign, good = await handle(converge, event("a", bucket="another"), event("b"))
    assert "'another'" in foreign.error
    assert "'from'" in foreign.error
    assert foreign.error.startswith("poison: ")
    assert good.error is None
    assert converge.asked == ["b"]


async def test_keys_are_taken_relative_to_the_prefix_and_others_are_left_alone():
    converge = Converging()
    inside, outside, both = await handle(
        converge, event("logs/a"), event("other/a"), event("logs/deep/b", "logs", "logs2/c"), prefix="logs/"
    )
    assert converge.asked == ["a", "deep/b"]
    assert (inside.error, inside.ignored) == (None, None)
    assert (outside.error, outside.ignored) == (None, "no key of a route")
    assert (both.error, both.ignored) == (None, None)


async def test_the_marker_of_the_prefix_itself_is_no_key_below_it():
    converge = Converging()
    (one,) = await handle(converge, event("logs/"), prefix="logs/")
    assert one.ignored == "no key of a route"
    assert converge.asked == []


async def test_a_foreign_bucket_is_poison_whatever_its_prefix():
    (one,) = await handle(Converging(), event("elsewhere/a", bucket="another"), prefix="logs/")
    assert one.error.startswith("poison: ")


async def test_every_spelling_that_a_key_may_have_is_converged():
    converge = Converging()
    (one,) = await handle(converge, event("a+b%20c", source="ceph:s3"))
    assert converge.asked == ["a+b%20c", "a b c"]
    assert [outcome.key for outcome in one.outcomes] == ["a+b%20c", "a b c"]


async def test_one_spelling_that_fails_makes_the_message_come_again():
    (one,) = await handle(Converging(**{"a b": failed("a b")}), event("a+b", source="ceph:s3"))
    assert one.error == "'a b': 403"


async def test_a_test_event_is_ignored():
    converge = Converging()
    (one,) = await handle(converge, json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent"}))
    assert (one.error, one.ignored, converge.asked) == (None, "s3:TestEvent", [])


async def test_one_failing_key_does_not_hold_back_others():
    handled = await handle(Converging(b=failed("b")), event("a"), event("a", "b", "c"), event("c"))
    assert [one.error for one in handled] == [None, "'b': 403", None]
    assert [outcome.key for outcome in handled[1].outcomes] == ["a", "b", "c"]


async def test_all_failures_of_a_message_are_named():
    (one,) = await handle(Converging(a=failed("a", "first"), c=failed("c", "second")), event("a", "b", "c"))
    assert one.error == "'a': first; 'c': second"


async def test_an_exception_becomes_the_error_of_the_messages_that_name_the_key():
    handled = await handle(Converging(b=ZeroDivisionError("what a bug")), event("a", "b"), event("a"), event("b"))
    assert [one.error for one in handled] == [
        "'b': ZeroDivisionError: what a bug",
        None,
        "'b': ZeroDivisionError: what a bug",
    ]
    assert [outcome.key for outcome in handled[0].outcomes] == ["a"]


@in_hurried_loop
async def test_what_is_not_done_in_time_is_cancelled_and_comes_again():
    cancelled = []

    async def converge(key):
        if key == "slow":
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(key)
                raise
        return [Outcome(key, "s3://to/", Did.COPIED, "")]

    quick, slow, both = await handle(converge, event("a"), event("slow"), event("b", "slow"), seconds=0.05)
    assert cancelled == ["slow"]
    assert quick.error is None
    assert slow.error == both.error == f"'slow': {OUT_OF_TIME}"
    assert [outcome.key for outcome in both.outcomes] == ["b"]
    assert asyncio.all_tasks() == {asyncio.current_task()}


@in_hurried_loop
async def test_what_fails_while_it_is_cancelled_is_still_a_failure_of_its_message():
    async def converge(key):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise OSError("while cleaning up") from None

    (one,) = await handle(converge, event("slow"), seconds=0.05)
    assert one.error == "'slow': OSError: while cleaning up"


async def test_the_time_of_the_oldest_change_is_told():
    body = json.dumps({"Records": [record("a", when="2026-10-21T07:28:05Z"), record("b", when="2026-10-21T07:28:00Z")]})
    (one,) = await handle(Converging(), body)
    assert one.changed == datetime(2026, 10, 21, 7, 28, tzinfo=UTC)


async def test_a_change_without_a_time_is_still_a_change():
    (one,) = await handle(Converging(), event("a", when="yesterday"))
    assert (one.changed, one.error) == (None, None)


# --- work items


ITEMS = [
    RangeItem("route", "a", "b"),
    PartsItem("route", "key", "etag", (("s3://to/", "upload"),), (Part(1, 0, 5),), 1),
]


async def test_keys_of_an_item_are_tasks_of_their_own():
    asked = []

    async def work(task):
        asked.append(task)
        return [failed(task.key)] if task.key == "b" else []

    good, bad = await do(work, encode(KeysItem("one", ("a",), released=True)), encode(KeysItem("two", ("a", "b"))))
    assert asked == [KeyTask("one", "a", released=True), KeyTask("two", "a"), KeyTask("two", "b")]
    assert (good.error, bad.error) == (None, "'b': 403")


@pytest.mark.parametrize("item", ITEMS)
async def test_an_item_is_done_once_however_often_it_is_in_a_batch(item):
    asked = []

    async def work(task):
        asked.append(task)
        return []

    handled = await do(work, encode(item), encode(item))
    assert asked == [item]
    assert [one.error for one in handled] == [None, None]


@pytest.mark.parametrize("item", ITEMS)
async def test_an_item_that_fails_comes_again_and_says_why(item):
    async def work(_):
        raise QueueError("queue: send: no answer")

    (one,) = await do(work, encode(item))
    assert (one.error, one.poison) == ("queue: send: no answer", False)


@pytest.mark.parametrize("item", ITEMS)
async def test_an_item_that_can_never_be_done_is_poison(item):
    async def work(_):
        raise PoisonMessage("there is no route 'route' here")

    (one,) = await do(work, encode(item))
    assert (one.error, one.poison) == ("there is no route 'route' here", True)


@pytest.mark.parametrize(
    "body",
    ['{"replicator": "range"}', '{"replicator": 1}', '{"replicator": "dance", "route": "x"}', '{"replicator": ["'],
)
async def test_an_item_that_cannot_be_read_is_poison(body):
    (one,) = await do(None, body)
    assert one.poison
    assert one.error.startswith("poison: work item: ")


async def test_deletes_that_were_held_back_are_told_with_their_routes():
    async def work(task):
        return [Outcome(task.key, "s3://to/", Did.HELD if task.key != "b" else Did.DELETED, "gone")]

    (one,) = await do(work, encode(KeysItem("route", ("a", "b", "c"))))
    assert one.error is None
    assert one.held == (KeyTask("route", "a"), KeyTask("route", "c"))
