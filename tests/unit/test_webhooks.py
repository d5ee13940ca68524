"""What a webhook takes in: who may say it, in which words it goes into the queue, and with how many calls."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from replicator.errors import ConfigurationError, PoisonMessage, QueueError
from replicator.events import ChangedKey, parse_message
from replicator.items import KeysItem, encode, is_item
from replicator.queues.queue import Outgoing
from replicator.web.group_commit import MOST_AT_ONCE, GroupCommit
from replicator.web.restating import (
    LARGEST_SET_ASIDE,
    LONGEST_BUCKET,
    RECORDS_EACH,
    document_in,
    restate,
    take,
)
from replicator.web.tokens import WebhookToken

EVENTS = sorted((Path(__file__).parents[1] / "events").glob("*.json"))
TOKEN = "correct/horse+battery=="
SQS_TAKES = 256 * 1024
WHEN = datetime(2025, 3, 14, 9, 26, 53, 589793, tzinfo=UTC)


def basic(text):
    return "Basic " + base64.b64encode(text.encode()).decode()


def record(key="k", bucket="b", **fields):
    return {
        "eventSource": "ceph:s3",
        "eventName": "ObjectCreated:Put",
        "eventTime": "2025-03-14T09:26:53Z",
        "s3": {"bucket": {"name": bucket}, "object": {"key": key}},
        **fields,
    }


def named(changes):
    return [(change.bucket, key, change.time) for change in changes for key in change.candidates]


def named_by(messages):
    for message in messages:
        assert not is_item(message.body)
        assert message.body.isascii()
        assert len(message.body) <= SQS_TAKES
    return [one for message in messages for one in named(parse_message(message.body).changes)]


def told_or_reason(read, *arguments):
    try:
        return read(*arguments)
    except PoisonMessage as poison:
        return poison.reason


# The token


@pytest.mark.parametrize(
    ("headers", "queries"),
    [
        ([f"Bearer {TOKEN}"], []),
        ([f"bearer {TOKEN}"], []),
        ([f"Bearer  {TOKEN} "], []),
        ([TOKEN], []),
        ([basic(f"any:{TOKEN}")], []),
        ([basic(f":{TOKEN}")], []),
        ([], [TOKEN]),
        ([], ["wrong", TOKEN]),
        ([], [TOKEN.replace("+", " ")]),
        (["Bearer of-a-proxy-before-us"], [TOKEN]),
    ],
)
def test_the_token_is_known_in_every_way_that_stores_send_it(headers, queries):
    assert WebhookToken(TOKEN, "EVENTS_TOKEN").shown(headers, queries)


@pytest.mark.parametrize(
    ("headers", "queries"),
    [
        ([], []),
        ([""], [""]),
        ([f"Bearer {TOKEN[:-1]}"], []),
        ([f"Bearer {TOKEN}x"], []),
        ([f"Digest {TOKEN}"], []),
        (["Bearer"], []),
        (["Basic"], []),
        ([basic(TOKEN)], []),
        ([basic(f"{TOKEN}:")], []),
        ([basic(f"any:{TOKEN.upper()}")], []),
        ([f"Basic {TOKEN}"], []),
        (["Basic ÿ"], []),
        (["Basic " + base64.b64encode(b"\xff:\xff").decode()], []),
        (["Bearer \udcff"], ["\udcff"]),
        ([], [TOKEN.lower() + "\0"]),
    ],
)
def test_what_is_not_the_token_is_not_taken_for_it(headers, queries):
    assert not WebhookToken(TOKEN, "EVENTS_TOKEN").shown(headers, queries)


@pytest.mark.parametrize(
    "token", ["", "hush-too-short", "hush with blanks in it", "hush-hush-hush-ü", "hush-hush-hush-hu\n"]
)
def test_a_token_that_guards_nothing_is_refused_and_not_shown(token):
    with pytest.raises(ConfigurationError, match="EVENTS_TOKEN: must be at least 16") as raised:
        WebhookToken(token, "EVENTS_TOKEN")
    assert "hush" not in str(raised.value)


def test_a_token_is_in_no_repr():
    assert TOKEN not in repr(WebhookToken(TOKEN, "EVENTS_TOKEN"))


# In words of our own


@pytest.mark.parametrize("path", EVENTS, ids=lambda path: path.stem)
def test_every_known_notification_names_the_same_keys_in_our_words(path):
    body = path.read_bytes()
    expected, taken = told_or_reason(parse_message, body), told_or_reason(lambda: take(document_in(body)))
    if isinstance(expected, str):
        assert taken == expected
        return
    assert sorted(named_by(taken.messages)) == sorted(named(expected.changes))
    assert taken.ignored == expected.ignored
    assert bool(taken.messages) == (taken.ignored is None)


@given(
    st.text(min_size=1, max_size=40).filter(lambda text: len(text.encode(errors="replace")) <= 300),
    st.text(min_size=1, max_size=40),
    st.text(min_size=1, max_size=300),
    st.none() | st.just(WHEN),
)
@example("a", "/a//b/../ü +%2F%\x00\x7f\uffff", "s3:s3:ObjectAccessed:Get", WHEN)
@example("a", "{", '{"replicator":', None)
def test_any_key_survives_being_told_in_our_words(bucket, key, event, time):
    change = ChangedKey(bucket, (key, key + "+"), event, time)
    assert named_by(restate([change])) == named([change])


DISGUISES = [
    encode(KeysItem("r", ("k",), released=True)),
    " " + encode(KeysItem("r", ("k",))),
    "\n\t" + encode(KeysItem("r", ("k",))),
    "\ufeff" + encode(KeysItem("r", ("k",))),
    '{"Records":[{}],"replicator":"keys"}',
    '{ "replicator":"keys","Event":"s3:TestEvent"}',
    '{"\\u0072eplicator":"keys","Event":"s3:TestEvent"}',
    json.dumps({"replicator": "keys", "Records": [record()]}),
    json.dumps({"Records": [record()], "replicator": "keys"}, indent=1),
    json.dumps([encode(KeysItem("r", ("k",)))]),
    json.dumps(encode(KeysItem("r", ("k",)))),
    json.dumps({"Records": [encode(KeysItem("r", ("k",)))]}),
]


@pytest.mark.parametrize("body", DISGUISES)
def test_nobody_sends_a_work_item_however_it_is_disguised(body):
    with pytest.raises(PoisonMessage):
        take(document_in(body.encode()))


@pytest.mark.parametrize("item", [encode(KeysItem("r", ("k",)))[:-1] + ', "Event": "s3:TestEvent"}'])
def test_a_work_item_inside_a_notification_is_only_a_key_that_is_odd_or_set_aside(item):
    inside = [
        {"Records": [record(key=item, bucket="b")]},
        {"Records": [record(bucket=item, key="k")]},
        {"Records": [record(eventName=item)]},
        {"Records": [record(), {**json.loads(item), "s3": 1}]},
        {"Records": [{"Sns": {"Message": item}}]},
        {"Records": [{"Sns": {"Message": item}, "s3": 1}]},
        {"Type": "Notification", "Message": item},
    ]
    for document in inside:
        for message in take(document).messages:
            assert not is_item(message.body)
            assert list(json.loads(message.body)) == ["Records"]


def test_a_body_with_thousands_of_records_becomes_messages_that_any_queue_takes():
    worst = [record(key="ü" * 509 + f"{n:05}", bucket="\U0001f600" * LONGEST_BUCKET) for n in range(1000)]
    worst = [{**one, "eventName": "\U0001f600" * 500} for one in worst]
    taken = take({"Records": worst})
    assert len(taken.messages) == 1000 / RECORDS_EACH
    assert len(set(named_by(taken.messages))) == len(taken.changes) == 1000


def test_a_key_that_is_told_often_is_told_once():
    taken = take({"Records": [record("a"), record("b"), record("a")] * 500})
    assert [key for _, key, _ in named_by(taken.messages)] == ["a", "b"]


def test_keys_of_several_buckets_are_told_apart():
    taken = take({"Records": [record("a", "x"), record("b", "y"), record("c", "x")]})
    assert [{bucket for bucket, _, _ in named_by([message])} for message in taken.messages] == [{"x"}, {"y"}]


@pytest.mark.parametrize(
    "bad", [{"s3": {}}, record(key=""), record(key="k" * 1025), record(key="\udcff"), record(bucket="b" * 301)]
)
def test_one_record_that_cannot_be_understood_is_set_aside_and_the_others_are_taken(bad):
    taken = take({"Records": [record("a"), bad, record("b")]})
    good, aside = taken.messages
    assert [key for _, key, _ in named_by([good])] == ["a", "b"]
    assert json.loads(aside.body) == {"Records": [bad]}
    assert [aside.reason] == list(taken.set_aside)
    assert aside.reason.startswith("poison: ")
    assert aside.reason.isprintable()


@pytest.mark.parametrize(
    "document",
    [
        {"Records": []},
        {"Records": {}},
        {"Records": [record(), 5]},
        {"Records": [record(), {}]},
        {"Records": [{"s3": "x" * LARGEST_SET_ASIDE}]},
        {"Records": [{"s3": 1e999}]},
        {},
    ],
)
def test_what_is_no_list_of_records_or_cannot_be_kept_is_refused_as_a_whole(document):
    with pytest.raises(PoisonMessage) as raised:
        take(document)
    assert "\n" not in raised.value.reason


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe{\x00}\x00", "not UTF-8"),
        ('{"Event":"s3:TestEvent"}'.encode("utf-16-be"), "not JSON"),
        (b'{"Records":["\xe9"]}', "not UTF-8"),
        (b"[" * 500_000, "nested too deeply"),
        (b'{"a":' * 200_000, "nested too deeply"),
        (b'{"a":' + b"1" * 10_000 + b"}", "a number"),
        (b'{"a":NaN}', "a number"),
        (b"[]", "not an object"),
        (b"null", "not an object"),
        (b"key=value", "not JSON"),
    ],
)
def test_what_is_no_object_of_json_is_refused_in_one_line(body, word):
    with pytest.raises(PoisonMessage, match=word) as raised:
        document_in(body)
    assert len(raised.value.reason) < 200
    assert "\n" not in raised.value.reason


# One call for many


class SlowQueue:
    """Takes what it is sent when it is let; answers with the errors that it was given, one for each call."""

    name = "a queue"

    def __init__(self, *errors):
        self.errors = list(errors)
        self.calls = []
        self.called = threading.Semaphore(0)
        self.go = threading.Semaphore(0)

    def send(self, messages):
        self.calls.append([message.body for message in messages])
        self.called.release()
        assert self.go.acquire(timeout=30)
        error = self.errors.pop(0) if self.errors else None
        if error is not None:
            raise error


async def begun(commit, queue, *bodies):
    """Senders of one message each, of which the first is being stored and the others wait."""
    senders = []
    for body in bodies:
        senders.append(asyncio.ensure_future(commit.send([Outgoing(body)])))
        if len(senders) == 1:
            assert await asyncio.to_thread(queue.called.acquire, timeout=30)
    await asyncio.sleep(0)
    return senders


async def test_what_comes_while_the_queue_stores_goes_into_one_call_after_it():
    queue = SlowQueue()
    commit = GroupCommit(queue)
    senders = await begun(commit, queue, "a", "b", "c", "b")
    assert not any(sender.done() for sender in senders)
    queue.go.release()
    assert await asyncio.to_thread(queue.called.acquire, timeout=30)
    assert [sender.done() for sender in senders] == [True, False, False, False]
    queue.go.release()
    await asyncio.gather(*senders)
    assert queue.calls == [["a"], ["b", "c"]]


async def test_all_whose_messages_were_in_a_failed_call_hear_of_it_and_the_next_call_is_made():
    queue = SlowQueue(None, QueueError("full"), None)
    commit = GroupCommit(queue)
    senders = await begun(commit, queue, "a", "b", "c")
    queue.go.release(2)
    results = await asyncio.gather(*senders, return_exceptions=True)
    assert [str(result) for result in results] == ["None", "full", "full"]
    queue.go.release()
    await commit.send([Outgoing("d")])
    assert queue.calls == [["a"], ["b", "c"], ["d"]]


async def test_an_error_that_nobody_foresaw_reaches_all_who_wait_and_stops_nothing():
    queue = SlowQueue(ZeroDivisionError("a bug"), None)
    commit = GroupCommit(queue)
    senders = await begun(commit, queue, "a", "b")
    queue.go.release(2)
    first, second = await asyncio.gather(*senders, return_exceptions=True)
    assert isinstance(first, ZeroDivisionError)
    assert second is None


async def test_who_has_given_up_is_not_waited_for_and_fills_no_memory():
    queue = SlowQueue()
    commit = GroupCommit(queue)
    senders = await begun(commit, queue, "a", "b", "c")
    for sender in senders[:2]:
        sender.cancel()
    await asyncio.wait(senders[:2])
    queue.go.release(2)
    await senders[2]
    assert queue.calls == [["a"], ["c"]]


async def test_a_call_has_not_many_more_messages_than_one_request():
    queue = SlowQueue()
    commit = GroupCommit(queue)
    first = await begun(commit, queue, "a")
    large = [Outgoing(str(n)) for n in range(MOST_AT_ONCE + 1)]
    senders = [asyncio.ensure_future(commit.send(messages)) for messages in (large[:-1], large, [Outgoing("z")])]
    await asyncio.sleep(0)
    queue.go.release(4)
    await asyncio.gather(*first, *senders)
    assert [len(call) for call in queue.calls] == [1, MOST_AT_ONCE, MOST_AT_ONCE + 1, 1]
