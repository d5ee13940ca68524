"""What SQS is asked, and what its answers mean. What a queue promises is in tests/contract/test_queues.py."""

from __future__ import annotations

import threading

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from replicator.errors import QueueError
from replicator.events import QueueMessage
from replicator.queues.queue import FIRST_WAIT, LONGEST_WAIT, Depth, Outgoing, backoff
from replicator.queues.sqs import BATCH, LARGEST, SqsQueue, _region

ARN = "arn:aws:sqs:eu-central-1:123456789012:the-queue"
URL = "https://sqs.eu-central-1.amazonaws.com/123456789012/the-queue"


class FakeSqs:
    """Plays boto3's client. refusing: receipts and bodies that are refused. error: what all requests raise."""

    def __init__(self, refusing=(), error=None):
        self.refusing = refusing
        self.error = error
        self.asked = []
        self.sent = []
        self.deleted = []
        self.put_off = {}
        self.sizes = []
        self.received = []

    def get_queue_url(self, *, QueueName, QueueOwnerAWSAccountId):
        self.asked.append((QueueName, QueueOwnerAWSAccountId))
        return {"QueueUrl": URL}

    def send_message_batch(self, *, QueueUrl, Entries):
        self._check(QueueUrl, Entries)
        assert sum(map(size, Entries)) <= LARGEST
        self.sent += [entry for entry in Entries if entry["MessageBody"] not in self.refusing]
        return self._answer(Entries, "MessageBody")

    def receive_message(self, **asked):
        if self.error:
            raise self.error
        self.received.append(asked)
        return {}

    def delete_message_batch(self, *, QueueUrl, Entries):
        self._check(QueueUrl, Entries)
        self.deleted += [entry["ReceiptHandle"] for entry in Entries if entry["ReceiptHandle"] not in self.refusing]
        return self._answer(Entries)

    def change_message_visibility_batch(self, *, QueueUrl, Entries):
        self._check(QueueUrl, Entries)
        self.put_off |= {
            entry["ReceiptHandle"]: entry["VisibilityTimeout"]
            for entry in Entries
            if entry["ReceiptHandle"] not in self.refusing
        }
        return self._answer(Entries)

    def _check(self, url, entries):
        if self.error:
            raise self.error
        assert url == URL
        assert 1 <= len(entries) <= 10
        assert len({entry["Id"] for entry in entries}) == len(entries)
        self.sizes.append(len(entries))

    def _answer(self, entries, field="ReceiptHandle"):
        bad = [entry for entry in entries if entry[field] in self.refusing]
        failed = [{"Id": one["Id"], "SenderFault": True, "Code": "X", "Message": "handle expired"} for one in bad]
        return {"Successful": [], "Failed": failed} if failed else {"Successful": []}


def size(entry):
    """As SQS counts it: names, types and values of attributes are a part of the message."""
    attributes = entry.get("MessageAttributes", {}).items()
    texts = [entry["MessageBody"], *(text for name, one in attributes for text in (name, *one.values()))]
    return sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)


def message(number):
    return QueueMessage(f"id {number}", f"receipt {number}", "{}", 1, ARN)


@pytest.mark.parametrize(
    ("count", "seconds"),
    [(0, 10), (1, 10), (2, 20), (3, 40), (4, 80), (5, 160), (6, 320), (7, 640), (8, 900), (1000, 900), (10**9, 900)],
)
def test_a_message_waits_twice_as_long_each_time(count, seconds):
    assert backoff(count) == seconds
    assert FIRST_WAIT <= backoff(count) <= LONGEST_WAIT


def test_a_queue_with_an_arn_is_asked_for_by_its_name_and_account_and_only_once():
    sqs = FakeSqs()
    queue = SqsQueue(ARN, sqs)
    queue.delete([message(0)])
    queue.put_off([(message(1), 10)])
    queue.receive(1, wait=0)
    assert sqs.asked == [("the-queue", "123456789012")]
    assert (sqs.deleted, sqs.put_off) == (["receipt 0"], {"receipt 1": 10})


def test_a_queue_with_a_url_is_not_asked_for():
    sqs = FakeSqs()
    SqsQueue(URL, sqs).delete([message(0)])
    assert (sqs.asked, sqs.deleted) == ([], ["receipt 0"])


def test_nothing_to_do_asks_nothing():
    sqs = FakeSqs()
    queue = SqsQueue(ARN, sqs)
    queue.send([])
    assert (queue.delete([]), queue.put_off([])) == ([], [])
    assert (sqs.asked, sqs.sizes) == ([], [])


def test_refusals_are_returned_and_the_others_are_done():
    sqs = FakeSqs(refusing={"receipt 1", "receipt 3"})
    queue = SqsQueue(ARN, sqs)
    assert queue.delete([message(0), message(1)]) == ["delete: handle expired"]
    assert queue.put_off([(message(2), 20), (message(3), 20)]) == ["put off: handle expired"]
    assert (sqs.deleted, sqs.put_off) == (["receipt 0"], {"receipt 2": 20})


@pytest.mark.parametrize(("count", "sizes"), [(10, [10]), (11, [10, 1]), (25, [10, 10, 5])])
def test_no_request_has_more_than_ten_messages(count, sizes):
    sqs = FakeSqs()
    queue = SqsQueue(ARN, sqs)
    queue.delete([message(n) for n in range(count)])
    queue.put_off([(message(n), 10) for n in range(count)])
    queue.send([Outgoing(str(n)) for n in range(count)])
    assert sqs.sizes == sizes * 3
    assert len(sqs.deleted) == len(set(sqs.deleted)) == len(sqs.put_off) == len(sqs.sent) == count
    assert BATCH == 10


@pytest.mark.parametrize("reason", ["", "r" * 600, "é" * 100])
@pytest.mark.parametrize("length", [1, LARGEST // 10 - 100, LARGEST // 10, LARGEST // 2, LARGEST - 515, LARGEST])
def test_no_request_is_larger_than_every_queue_takes(length, reason):
    sqs = FakeSqs()
    SqsQueue(ARN, sqs).send([Outgoing("x" * length, reason=reason) for _ in range(23)])
    assert [len(entry["MessageBody"]) for entry in sqs.sent] == [length] * 23


def test_a_body_with_half_a_character_is_left_to_sqs_to_refuse():
    sqs = FakeSqs(refusing={"\ud800"})
    with pytest.raises(QueueError, match="the-queue: send: X: handle expired"):
        SqsQueue(ARN, sqs).send([Outgoing("\ud800", reason="\ud800")])


def test_one_message_that_is_refused_is_an_error():
    sqs = FakeSqs(refusing={"bad"})
    with pytest.raises(QueueError, match="the-queue: send: X: handle expired"):
        SqsQueue(ARN, sqs).send([Outgoing("good"), Outgoing("bad")])


@pytest.mark.parametrize(
    "error",
    [
        EndpointConnectionError(endpoint_url="https://sqs"),
        ClientError({"Error": {"Code": "AWS.SimpleQueueService.NonExistentQueue", "Message": "none"}}, "SendMessage"),
    ],
)
def test_what_sqs_says_is_an_error_of_the_queue(error):
    queue = SqsQueue(URL, FakeSqs(error=error))
    requests = {
        "send": lambda: queue.send([Outgoing("{}")]),
        "receive": lambda: queue.receive(1, wait=0),
        "delete": lambda: queue.delete([message(0)]),
        "put off": lambda: queue.put_off([(message(0), 10)]),
    }
    for operation, request in requests.items():
        with pytest.raises(QueueError) as raised:
            request()
        assert str(raised.value) == f"{URL}: {operation}: {error}"


@pytest.mark.parametrize(
    ("most", "wait", "asked"), [(0, 0, (1, 0)), (1, 0.9, (1, 0)), (10, 20, (10, 20)), (1000, 60, (10, 20))]
)
def test_sqs_is_asked_for_no_more_than_it_gives(most, wait, asked):
    sqs = FakeSqs()
    SqsQueue(URL, sqs).receive(most, wait=wait)
    assert [(one["MaxNumberOfMessages"], one["WaitTimeSeconds"]) for one in sqs.received] == [asked]


@pytest.mark.parametrize(
    ("name", "region"),
    [
        (ARN, "eu-central-1"),
        ("arn:aws-us-gov:sqs:us-gov-west-1:123456789012:q", "us-gov-west-1"),
        (URL, "eu-central-1"),
        ("https://sqs.cn-north-1.amazonaws.com.cn/123456789012/q", "cn-north-1"),
        ("https://sqs-fips.us-east-2.amazonaws.com/123456789012/q", "us-east-2"),
        ("https://us-west-2.queue.amazonaws.com/123456789012/q", "us-west-2"),
        ("https://vpce-0a1b-c2d3.sqs.ap-southeast-2.vpce.amazonaws.com/123456789012/q", "ap-southeast-2"),
        ("https://queue.amazonaws.com/123456789012/q", None),
        ("http://127.0.0.1:5000/123456789012/q", None),
        ("http://sqs.us-east-1.example.org/123456789012/q", None),
    ],
)
def test_the_region_is_that_of_the_queue(name, region):
    assert _region(name) == region


def test_the_first_use_by_many_threads_makes_one_client(moto_endpoint, monkeypatch):
    for name, value in (("AWS_ACCESS_KEY_ID", "testing"), ("AWS_SECRET_ACCESS_KEY", "testing")):
        monkeypatch.setenv(name, value)
    sqs = boto3.client("sqs", endpoint_url=moto_endpoint.url, region_name="us-east-1")
    url = sqs.create_queue(QueueName="many-threads")["QueueUrl"]
    queue = SqsQueue(url, endpoint=moto_endpoint.url)
    together = threading.Barrier(8)
    clients, failures = set(), []

    def use():
        try:
            together.wait(60)
            queue.send([Outgoing("{}")])
            clients.add(queue._sqs())
        except Exception as error:  # noqa: BLE001 - the main thread tells
            failures.append(error)

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert len(clients) == 1
    assert queue.depth() == Depth(8, 0, 0)
    for client in (*clients, sqs):
        client.close()
