"""Settling messages: what is done is deleted, what failed comes again later."""

from __future__ import annotations

import boto3
import pytest

from replicator.events import QueueMessage
from replicator.live.batch import Handled
from replicator.live.queue import BATCH, FIRST_WAIT, LONGEST_WAIT, SqsQueue, backoff

ARN = "arn:aws:sqs:eu-central-1:123456789012:the-queue"


class FakeSqs:
    """Plays boto3's client. refusing: receipts that are refused."""

    def __init__(self, refusing=()):
        self.refusing = refusing
        self.asked = []
        self.deleted = []
        self.put_off = {}
        self.sizes = []

    def get_queue_url(self, *, QueueName, QueueOwnerAWSAccountId):
        self.asked.append((QueueName, QueueOwnerAWSAccountId))
        return {"QueueUrl": "http://queue"}

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
        assert url == "http://queue"
        assert 1 <= len(entries) <= 10
        assert len({entry["Id"] for entry in entries}) == len(entries)
        self.sizes.append(len(entries))

    def _answer(self, entries):
        bad = [entry for entry in entries if entry["ReceiptHandle"] in self.refusing]
        failed = [{"Id": one["Id"], "SenderFault": True, "Code": "X", "Message": "handle expired"} for one in bad]
        return {"Successful": [], "Failed": failed} if failed else {"Successful": []}


def handled(number, error=None, *, receive_count=1, receipt=None, ignored=None):
    text = receipt or f"receipt {number}"
    return Handled(QueueMessage(f"id {number}", text, "{}", receive_count, ARN), error, ignored)


@pytest.mark.parametrize(
    ("count", "seconds"),
    [(0, 10), (1, 10), (2, 20), (3, 40), (4, 80), (5, 160), (6, 320), (7, 640), (8, 900), (1000, 900), (10**9, 900)],
)
def test_a_message_waits_twice_as_long_each_time(count, seconds):
    assert backoff(count) == seconds
    assert FIRST_WAIT <= backoff(count) <= LONGEST_WAIT


def test_what_is_done_is_deleted_and_what_failed_is_put_off():
    sqs = FakeSqs()
    batch = [handled(0), handled(1, "failed"), handled(2, ignored="s3:TestEvent"), handled(3, "x", receive_count=3)]
    assert SqsQueue(ARN, sqs).settle(batch) == []
    assert sqs.deleted == ["receipt 0", "receipt 2"]
    assert sqs.put_off == {"receipt 1": 10, "receipt 3": 40}


def test_the_queue_is_asked_for_by_its_name_and_account_and_only_once():
    sqs = FakeSqs()
    queue = SqsQueue(ARN, sqs)
    queue.settle([handled(0), handled(1, "failed")])
    queue.settle([handled(2)])
    assert sqs.asked == [("the-queue", "123456789012")]


def test_nothing_to_settle_asks_nothing():
    sqs = FakeSqs()
    assert SqsQueue(ARN, sqs).settle([]) == []
    assert (sqs.asked, sqs.sizes) == ([], [])


def test_refusals_are_returned_and_the_others_are_settled():
    sqs = FakeSqs(refusing={"receipt 1", "receipt 3"})
    batch = [handled(0), handled(1), handled(2, "failed"), handled(3, "failed")]
    assert SqsQueue(ARN, sqs).settle(batch) == ["delete: handle expired", "put off: handle expired"]
    assert sqs.deleted == ["receipt 0"]
    assert sqs.put_off == {"receipt 2": 10}


@pytest.mark.parametrize(("count", "sizes"), [(10, [10]), (11, [10, 1]), (25, [10, 10, 5])])
def test_no_request_has_more_than_ten_messages(count, sizes):
    sqs = FakeSqs()
    SqsQueue(ARN, sqs).settle([handled(n) for n in range(count)] + [handled(100 + n, "x") for n in range(count)])
    assert sqs.sizes == sizes * 2
    assert len(sqs.deleted) == len(set(sqs.deleted)) == len(sqs.put_off) == count
    assert BATCH == 10


# The same on moto


@pytest.fixture
def queue(moto_endpoint, request):
    """(client, URL, ARN) of a queue of its own."""
    sqs = boto3.client(
        "sqs",
        endpoint_url=moto_endpoint.url,
        region_name="us-east-1",
        aws_access_key_id=moto_endpoint.access_key,
        aws_secret_access_key=moto_endpoint.secret_key,
    )
    url = sqs.create_queue(QueueName=f"settle-{abs(hash(request.node.name))}")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    yield sqs, url, arn
    sqs.delete_queue(QueueUrl=url)
    sqs.close()


def receive(sqs, url):
    answer = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, AttributeNames=["ApproximateReceiveCount"])
    return answer.get("Messages", [])


def receive_all(sqs, url):
    received = []
    while more := receive(sqs, url):
        received += more
    return received


def counts(sqs, url):
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    return [int(attributes[name]) for name in names]


def test_a_real_queue_loses_the_good_and_holds_back_the_failed(queue):
    sqs, url, arn = queue
    for n in range(25):
        sqs.send_message(QueueUrl=url, MessageBody=f"{n}")
    messages = receive_all(sqs, url)
    assert len(messages) == 25
    batch = [
        handled(n, "failed" if int(one["Body"]) % 2 else None, receipt=one["ReceiptHandle"])
        for n, one in enumerate(messages)
    ]
    assert SqsQueue(arn, sqs).settle(batch) == []
    assert counts(sqs, url) == [0, 12]
    assert receive(sqs, url) == []


def test_a_receipt_that_a_real_queue_does_not_know_is_a_refusal(queue):
    sqs, url, arn = queue
    sqs.send_message(QueueUrl=url, MessageBody="good")
    (good,) = receive(sqs, url)
    batch = [handled(0, receipt=good["ReceiptHandle"]), handled(1, "failed", receipt="unknown")]
    (refusal,) = SqsQueue(arn, sqs).settle(batch)
    assert refusal.startswith("put off: ")
    assert counts(sqs, url) == [0, 0]
