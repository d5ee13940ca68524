"""The Lambda's functions with all their queues: a batch that fails in part, reconciliation, S3 Batch Operations."""

from __future__ import annotations

import json
import time
from pathlib import Path
from urllib.parse import quote_plus

import pytest

from replicator.items import KeysItem, RangeItem, decode, encode
from replicator.queues.queue import Outgoing
from replicator.queues.sqs import SqsQueue
from tests.deployed import deployed, stay_within_the_hour
from tests.servers import moto_quick

SECONDS = 100
ROUTE = "default"
REMOVED, CREATED = "ObjectRemoved:Delete", "ObjectCreated:Put"
NO_DELETES = {"MAX_DELETES_PER_HOUR": "0", "DELETE_SHARE": "0"}
JOB = json.loads((Path(__file__).parents[1] / "events" / "batch_operations_2_0.json").read_text())


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    with moto_quick.serve(tmp_path_factory.mktemp("moto")) as endpoint:
        yield endpoint


@pytest.fixture
def live(services, rclone_endpoint, second_rclone_endpoint):
    with deployed(services, rclone_endpoint, second_rclone_endpoint) as live:
        yield live


# A mapping without FunctionResponseTypes: a batch is deleted when the handler returns, and stays when it raises


def mixed(live, bad):
    """As many good events as bad ones, in turn; keys of the good ones."""
    good = [f"good {n}" for n in range(len(bad))]
    for key in good:
        live.put(key, b"x")
    live.deliver([body for key, other in zip(good, bad, strict=True) for body in (live.told(CREATED, key), other)])
    return set(good)


def test_of_a_batch_with_poison_the_good_half_is_done_and_the_rest_set_aside_at_once_with_its_reason(live):
    reasons = {
        "not JSON": "not JSON",
        live.told(CREATED, "key").replace(live.source_bucket, "another-bucket"): "another-bucket",
        encode(KeysItem("no-such-route", ("key",))): "no-such-route",
        '{"replicator": "parts"}': "route is not text",
    }
    good = mixed(live, list(reasons))
    assert live.pump.pump() == 8
    assert live.pump.failed_invocations == 1
    assert live.keys() == good
    letters = {one.body: one.reason for one in live.messages(live.dead_letters)}
    assert letters.keys() == reasons.keys()
    for body, reason in reasons.items():
        assert reason in letters[body]
    assert (live.waiting(), live.metrics()["FailedMessages"]) == (0, 4)


def test_of_a_batch_half_of_which_fails_for_now_that_half_alone_comes_again(live):
    """A delete that is held back cannot be parked where no hold queue is set: its message stays."""
    live.load(**NO_DELETES, HOLD_QUEUE_URL="")
    old = [f"old {n}" for n in range(4)]
    for key in old:
        live.put_both(key, b"x")
    live.remove(old)
    good = mixed(live, [live.told(REMOVED, key) for key in old])
    assert live.pump.pump() == 8
    assert (live.pump.failed_invocations, live.waiting(), live.waiting(live.dead_letters)) == (1, 4, 0)
    assert live.keys() == good | set(old)
    live.load(**NO_DELETES)
    ends = time.monotonic() + SECONDS
    while live.waiting():
        assert time.monotonic() < ends, "what failed does not come again"
        if not live.pump.pump():
            time.sleep(0.2)
    assert (live.pump.received, live.pump.failed_invocations) == (4, 0)
    assert {key for one in live.messages(live.held) for key in decode(one.body).keys} == set(old)


def test_a_dead_letter_that_cannot_be_sent_stays_where_it_was(live):
    live.load(DEAD_LETTERS_URL=live.dead_letters + "-gone")
    good = mixed(live, ["not JSON"])
    live.pump.pump()
    assert (live.keys(), live.waiting()) == (good, 1)
    assert "did not settle" in live.log


# Reconciliation


def test_what_no_event_told_of_is_made_equal_by_a_range_that_the_clock_sends(live):
    stay_within_the_hour(60)
    for key in ("same", "changed", "gone/1", "gone/2"):
        live.put_both(key, b"before")
    live.put("changed", b"AFTER!")
    live.put("new+1 ü", b"new")
    live.remove(["gone/1", "gone/2"])
    live.invoked.reconcile()
    (message,) = live.messages(live.inbox)
    assert decode(message.body) == RangeItem(ROUTE)
    live.pump.drain()
    assert live.keys() == {"same", "changed", "new+1 ü"}
    assert live.equal()
    said = live.metrics()
    assert (said["Copied"], said["Deleted"], said["Failed"], said["Held"]) == (2, 2, 0, 0)
    assert (live.waiting(), live.waiting(live.dead_letters), live.pump.failed_invocations) == (0, 0, 0)


def test_reconciling_deletes_no_more_than_the_brake_lets_pass(live):
    live.load(**NO_DELETES)
    live.put_both("stays", b"x")
    live.put_both("gone", b"x")
    live.remove(["gone"])
    live.invoked.reconcile()
    live.pump.drain()
    assert live.keys() == {"stays", "gone"}
    (held,) = live.messages(live.held)
    assert decode(held.body) == KeysItem(ROUTE, ("gone",), source=f"s3://{live.source_bucket}/")


def test_while_more_deletes_wait_for_a_person_than_an_hour_allows_none_is_made(live):
    """Else what is held is found again each day, and done within the budget of that day."""
    live.load(MAX_DELETES_PER_HOUR="1")
    for key in ("stays", "gone"):
        live.put_both(key, b"x")
    live.remove(["gone"])
    old = [Outgoing(encode(KeysItem(ROUTE, (key,)))) for key in ("of another day", "and another")]
    SqsQueue(live.held, live.sqs).send(old)
    live.invoked.reconcile()
    live.tell([(REMOVED, "gone")])
    live.pump.drain()
    assert live.keys() == {"stays", "gone"}
    held = {decode(one.body).keys: one.reason for one in live.messages(live.held)}
    assert "wait for a person" in held["gone",]


def test_a_source_that_lists_nothing_is_not_taken_for_one_that_was_emptied(live):
    live.put_both("key", b"x")
    live.remove(["key"])
    live.invoked.reconcile()
    live.pump.drain()
    assert (live.keys(), live.waiting(), live.waiting(live.held)) == ({"key"}, 1, 0)
    assert "lists no object at all" in live.log


# A queue of its own for work items


def test_the_stacks_work_items_wait_in_a_queue_of_their_own_and_are_settled_there(live):
    live.load(**NO_DELETES, WORK_QUEUE_URL=live.work)
    live.put("new", b"x")
    live.put_both("gone", b"x")
    live.remove(["gone"])
    live.invoked.reconcile()
    assert (live.waiting(), live.waiting(live.work)) == (0, 1)
    assert live.work_pump.pump() == 1
    (keys,) = live.messages(live.work)
    assert decode(keys.body).keys == ("gone",), "what a range sends goes there, too"
    live.work_pump.drain()
    assert (live.waiting(), live.waiting(live.work), live.waiting(live.held)) == (0, 0, 1)
    assert live.keys() == {"new", "gone"}


def test_changes_are_mirrored_while_work_items_wait(live):
    live.load(WORK_QUEUE_URL=live.work)
    live.invoked.reconcile()
    live.put("key", b"x")
    live.tell([(CREATED, "key")])
    live.pump.drain()
    assert live.keys() == {"key"}
    assert (live.waiting(), live.waiting(live.work)) == (0, 1)


# S3 Batch Operations


def test_a_job_is_told_of_each_of_its_objects_how_it_ended(live):
    live.load(**NO_DELETES)
    live.put("new+1 ü", b"x")
    live.put_both("same", b"x")
    live.put_both("gone", b"x")
    live.remove(["gone"])
    keys = ["new+1 ü", "same", "gone", "never was"]
    tasks = [task(f"t{n}", key, live.source_bucket) for n, key in enumerate(keys)]
    answer = live.invoked.batch({**JOB, "tasks": [*tasks, task("t4", "x", "another-bucket")]})
    assert (answer["invocationSchemaVersion"], answer["invocationId"]) == ("2.0", JOB["invocationId"])
    ends = {one["taskId"]: (one["resultCode"], one["resultString"]) for one in answer["results"]}
    assert {id: code for id, (code, _) in ends.items()} == {
        **{f"t{n}": "Succeeded" for n in range(4)},
        "t4": "PermanentFailure",
    }
    for id, words in {"t0": "copied 1", "t1": "in sync 1", "t2": "held 1", "t3": "in sync", "t4": "another"}.items():
        assert words in ends[id][1]
    assert live.keys() == {"new+1 ü", "same", "gone"}
    (held,) = live.messages(live.held)
    assert decode(held.body) == KeysItem(ROUTE, ("gone",), source=f"s3://{live.source_bucket}/")
    said = live.metrics()
    assert (said["Copied"], said["Held"], said["Failed"]) == (1, 1, 0)


def task(id, key, bucket):
    return {"taskId": id, "s3Key": quote_plus(key), "s3VersionId": None, "s3Bucket": bucket}
