"""What every queue promises, on SQS (moto) and on a file.

A limit listed here is asserted, not skipped.
"""

from __future__ import annotations

import itertools
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest
from botocore.config import Config

from replicator.errors import QueueError
from replicator.events import QueueMessage
from replicator.queues.database import QueueFile
from replicator.queues.local import CHANGES, DEAD_LETTERS, LocalQueue
from replicator.queues.queue import Depth, Outgoing, Queue
from replicator.queues.sqs import LARGEST, SqsQueue
from tests.servers import Endpoint
from tests.servers.base import free_port

RECEIVES = 3
_numbers = itertools.count()


@dataclass
class Lab:
    """One kind of queue. make: a queue with this visibility timeout in seconds, and its dead letters."""

    name: str
    make: Callable[[int], tuple[Queue, Queue]]
    away: Queue
    limits: frozenset[str] = frozenset()

    def can(self, ability: str) -> bool:
        return ability not in self.limits


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Lab]:
    file = QueueFile(tmp_path / "queue.db")
    closed = QueueFile(tmp_path / "closed.db")
    closed.close()

    def make(visibility: int) -> tuple[Queue, Queue]:
        changes = LocalQueue(file, CHANGES, visibility=visibility, receives=RECEIVES)
        return changes, LocalQueue(file, DEAD_LETTERS, visibility=visibility)

    yield Lab("file", make, LocalQueue(closed, CHANGES))
    file.close()


@pytest.fixture
def moto(moto_endpoint: Endpoint) -> Iterator[Lab]:
    def client(url):
        return boto3.client(
            "sqs",
            endpoint_url=url,
            region_name="us-east-1",
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
            config=Config(retries={"total_max_attempts": 1}),
        )

    sqs, nobody = client(moto_endpoint.url), client(f"http://127.0.0.1:{free_port()}")

    def make(visibility: int) -> tuple[Queue, Queue]:
        name = f"queue-{os.getpid()}-{next(_numbers)}"
        dead = sqs.create_queue(QueueName=f"{name}-dead")["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        redrive = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": RECEIVES})
        attributes = {"VisibilityTimeout": str(visibility), "RedrivePolicy": redrive}
        url = sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
        return SqsQueue(url, sqs), SqsQueue(dead, sqs)

    away = SqsQueue("http://127.0.0.1/123456789012/away", nobody)
    yield Lab("moto", make, away, frozenset({"old receipts are void", "reasons of its own", "long reasons"}))
    sqs.close()
    nobody.close()


@pytest.fixture(params=["file", "moto"])
def lab(request: pytest.FixtureRequest) -> Lab:
    return request.getfixturevalue("local" if request.param == "file" else "moto")


@pytest.fixture
def queue(lab: Lab) -> Queue:
    return lab.make(600)[0]


def drain(queue: Queue) -> list[QueueMessage]:
    """All that is given out now."""
    received = []
    while found := queue.receive(10, wait=0):
        received += found
    return received


def eventually(queue: Queue) -> QueueMessage:
    """The next message, which is due before long."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if found := queue.receive(1, wait=1):
            return found[0]
    pytest.fail("it never came")


def one(queue: Queue, body: str = "{}", **more) -> QueueMessage:
    """Sends one message and receives it."""
    queue.send([Outgoing(body, **more)])
    (found,) = queue.receive(1, wait=0)
    return found


def test_a_message_arrives_as_it_was_sent(queue):
    before = time.time()
    message = one(queue, '{"some": "body"}')
    assert (message.body, message.receive_count, message.reason) == ('{"some": "body"}', 1, "")
    assert message.message_id
    assert message.sent is not None
    assert before - 1 <= message.sent <= time.time() + 1  # SQS knows milliseconds


def test_what_was_given_out_is_not_given_out_again_within_its_time(queue):
    one(queue)
    assert queue.receive(10, wait=0) == []
    assert queue.depth() == Depth(waiting=0, in_flight=1, delayed=0)


def test_what_was_given_out_and_not_settled_comes_again_after_its_time(lab):
    queue, _ = lab.make(1)
    first = one(queue, "again")
    second = eventually(queue)
    assert (second.message_id, second.body, second.receive_count) == (first.message_id, "again", 2)
    assert second.receipt_handle != first.receipt_handle
    assert second.sent == first.sent


def test_what_was_deleted_is_gone_and_may_be_deleted_again(queue):
    message = one(queue)
    assert queue.delete([message]) == []
    assert queue.delete([message]) == []
    assert queue.depth() == Depth(0, 0, 0)


def test_what_was_put_off_comes_when_it_is_due_and_not_before(queue):
    message = one(queue)
    assert queue.put_off([(message, 600)]) == []
    assert queue.receive(10, wait=0) == []
    assert queue.depth().in_flight == 1
    assert queue.put_off([(message, 0)]) == []
    (again,) = queue.receive(10, wait=0)
    assert (again.message_id, again.receive_count) == (message.message_id, 2)


def test_what_was_put_off_can_still_be_deleted(queue):
    message = one(queue)
    assert queue.put_off([(message, 600)]) == []
    assert queue.delete([message]) == []
    assert queue.depth() == Depth(0, 0, 0)


def test_what_is_deleted_cannot_be_put_off(queue):
    message = one(queue)
    queue.delete([message])
    (refusal,) = queue.put_off([(message, 0)])
    assert refusal.startswith("put off: ")
    assert queue.receive(10, wait=0) == []


def test_a_delayed_message_is_not_given_out_yet(queue):
    queue.send([Outgoing("later", delay=600), Outgoing("now")])
    assert [message.body for message in drain(queue)] == ["now"]
    assert queue.depth() == Depth(waiting=0, in_flight=1, delayed=1)


def test_a_delayed_message_comes_when_it_is_due(queue):
    queue.send([Outgoing("later", delay=1)])
    message = eventually(queue)
    assert (message.body, message.receive_count) == ("later", 1)


@pytest.mark.parametrize("number", [1, 10, 11, 57])
def test_many_are_sent_received_put_off_and_deleted_in_one_call(queue, number):
    bodies = {f"message {n}" for n in range(number)}
    queue.send([Outgoing(body) for body in bodies])
    assert queue.depth() == Depth(number, 0, 0)
    received = drain(queue)
    assert len(received) == number
    assert {message.body for message in received} == bodies
    assert len({message.message_id for message in received}) == number
    assert queue.put_off([(message, 0) for message in received]) == []
    again = drain(queue)
    assert len(again) == number
    assert queue.delete(again) == []
    assert queue.depth() == Depth(0, 0, 0)


@pytest.mark.parametrize("most", [1, 2, 10])
def test_no_more_are_given_out_than_were_asked_for(queue, most):
    queue.send([Outgoing(str(n)) for n in range(12)])
    assert 1 <= len(queue.receive(most, wait=0)) <= most


def test_nothing_to_do_is_nothing_done(queue):
    queue.send([])
    assert (queue.delete([]), queue.put_off([]), queue.receive(10, wait=0)) == ([], [], [])


def test_a_receipt_that_is_none_is_refused_and_the_others_are_settled(queue):
    good, late = one(queue), one(queue)
    bad = QueueMessage("id", "no receipt", "{}", 1)
    (refusal,) = queue.put_off([(bad, 0), (late, 0)])
    assert refusal.startswith("put off: ")
    (refusal,) = queue.delete([bad, good])
    assert refusal.startswith("delete: ")
    assert queue.depth() == Depth(waiting=1, in_flight=0, delayed=0)


def test_the_receipt_of_an_earlier_delivery_may_be_void_but_never_an_error(lab):
    queue, _ = lab.make(600)
    first = one(queue)
    queue.put_off([(first, 0)])
    (second,) = queue.receive(1, wait=0)
    refused = queue.delete([first])
    if lab.can("old receipts are void"):
        assert len(refused) == 1
        assert queue.depth().in_flight == 1
    else:
        assert refused == []
        assert queue.depth() == Depth(0, 0, 0)
    assert queue.delete([second]) == []
    assert queue.depth() == Depth(0, 0, 0)


def test_a_reason_travels_with_its_message(queue):
    reason = "AccessDenied: 'some \"key\"' at C:\\somewhere, 403"
    message = one(queue, "{}", reason=reason)
    assert message.reason.replace("\\\\", "\\").replace("\\'", "'") == reason
    assert "\n" not in one(queue, "{}", reason="no character in it: é").reason


def test_a_reason_is_never_in_the_way_of_its_message(lab):
    queue, _ = lab.make(600)
    long = one(queue, "{}", reason="r" * 5000)
    assert long.reason == "r" * (5000 if lab.can("long reasons") else 500)
    body = json.dumps("x" * (LARGEST - 2))
    assert one(queue, body, reason="what happened to it").body == body
    assert one(queue, body[:-20] + '"', reason="r" * 500).body == body[:-20] + '"'


@pytest.mark.parametrize(
    "body",
    [
        "x",
        " ",
        "not JSON",
        '{"key": "\\ud800 \\u0000 \\uffff"}',
        '{"key": "ä ﷽ 😀 \U0010fffd \ue000 a\u0301 \u202e\u2028"}',
        "\t\n line \r\n",
        '{"key": "%00 %ff + &amp; <![CDATA[ ]]> \' \\" `; drop table messages; --"}',
        "😀" * (LARGEST // 4),
    ],
    ids=["one", "space", "text", "escapes", "unicode", "white", "quotes", "largest"],
)
def test_every_body_that_sqs_takes_comes_back_as_it_was(queue, body):
    assert one(queue, body).body == body


def test_large_messages_are_sent_in_one_call(queue):
    bodies = [f"{n}" * 200_000 for n in range(5)]
    queue.send([Outgoing(body, reason="large") for body in bodies])
    assert sorted(message.body for message in drain(queue)) == bodies


def test_what_is_never_settled_becomes_a_dead_letter(lab):
    queue, dead_letters = lab.make(600)
    message = one(queue, "hopeless")
    for _ in range(RECEIVES - 1):
        queue.put_off([(message, 0)])
        (message,) = queue.receive(1, wait=0)
    assert message.receive_count == RECEIVES
    assert dead_letters.receive(10, wait=0) == []
    queue.put_off([(message, 0)])
    assert queue.receive(10, wait=0) == []
    (dead,) = dead_letters.receive(10, wait=0)
    assert (dead.body, dead.sent) == ("hopeless", message.sent)
    assert dead.reason == ("received 3 times and never settled" if lab.can("reasons of its own") else "")
    assert queue.depth() == Depth(0, 0, 0)
    assert dead_letters.delete([dead]) == []
    assert dead_letters.depth() == Depth(0, 0, 0)


def test_who_waits_gets_what_is_sent_meanwhile(queue):
    received = []
    waiting = threading.Thread(target=lambda: received.append(eventually(queue)))
    waiting.start()
    queue.send([Outgoing("at last")])
    waiting.join(60)
    assert [message.body for message in received] == ["at last"]


def test_a_queue_that_is_away_is_an_error_of_one_line(lab):
    message = QueueMessage("id", "1-1", "{}", 1)
    requests = [
        lambda: lab.away.send([Outgoing("{}")]),
        lambda: lab.away.receive(1, wait=0),
        lambda: lab.away.delete([message]),
        lambda: lab.away.put_off([(message, 0)]),
        lambda: lab.away.depth(),
    ]
    for request in requests:
        with pytest.raises(QueueError) as raised:
            request()
        assert "\n" not in str(raised.value)
        assert lab.away.name.split(": ")[0] in str(raised.value)
