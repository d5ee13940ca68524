"""Which queues a text means."""

from __future__ import annotations

import itertools
import json
import os

import boto3
import pytest
from botocore.exceptions import ClientError

from replicator.errors import ConfigurationError, QueueError, Unreachable
from replicator.queues.local import CHANGES, LocalQueue
from replicator.queues.opening import open_queues, unusable
from replicator.queues.queue import Outgoing
from replicator.queues.sqs import SqsQueue
from tests.servers.base import free_port

ARN = "arn:aws:sqs:eu-central-1:123456789012:changes"
URL = "https://sqs.eu-central-1.amazonaws.com/123456789012/changes"
DEAD = "https://sqs.eu-central-1.amazonaws.com/123456789012/dead"
HELD = "https://sqs.eu-central-1.amazonaws.com/123456789012/held"
WORK = "https://sqs.eu-central-1.amazonaws.com/123456789012/work"

_numbers = itertools.count()


@pytest.fixture
def sqs(moto_endpoint, monkeypatch):
    """A client of moto, with its keys in the environment, as a user has them."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    client = boto3.client("sqs", endpoint_url=moto_endpoint.url, region_name="us-east-1")
    yield client
    client.close()


def new_queue(sqs, **attributes):
    """(URL, ARN)"""
    name = f"opening-{os.getpid()}-{next(_numbers)}"
    url = sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
    return url, sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]


def test_a_path_is_a_file_with_four_queues(tmp_path):
    queues = open_queues(f" {tmp_path / 'queue.db'} ", {"DEAD_LETTERS_URL": DEAD})
    opened = [queues.changes, queues.dead_letters, queues.held, queues.work]
    assert [queue.name.split(": ") for queue in opened] == [
        [str(tmp_path / "queue.db"), name] for name in ("changes", "dead letters", "held", "work")
    ]
    for queue in opened:
        queue.send([Outgoing(queue.name)])
    for queue in opened:
        assert [message.body for message in queue.receive(10, wait=0)] == [queue.name]
    queues.close()
    queues.close()


def test_only_what_workers_take_has_dead_letters(tmp_path):
    queues = open_queues(str(tmp_path / "queue.db"), {})
    queues.changes.send([Outgoing("a change")])
    queues.work.send([Outgoing("work")])
    queues.held.send([Outgoing("held")])
    for queue in (*queues.served, queues.held):
        while message := queue.receive(1, wait=0):
            if message[0].receive_count == 15:
                break
            queue.put_off([(message[0], 0)])
    assert [queue.depth() for queue in queues.served] == [(0, 0, 0)] * 2
    assert [message.body for message in queues.dead_letters.receive(10, wait=0)] == ["a change", "work"]
    assert queues.held.depth().in_flight == 1
    queues.close()


def test_a_file_may_have_to_be_there(tmp_path):
    path = str(tmp_path / "queue.db")
    with pytest.raises(ConfigurationError, match="there are no queues in this place"):
        open_queues(path, {}, create=False)
    open_queues(path, {}).close()
    open_queues(path, {}, create=False).close()


def test_the_visibility_of_a_file_is_as_was_said(tmp_path):
    queues = open_queues(str(tmp_path / "queue.db"), {}, visibility=1e-6)
    queues.changes.send([Outgoing("{}")])
    assert len(queues.changes.receive(1, wait=0)) == 1
    assert len(queues.changes.receive(1, wait=20)) == 1
    queues.close()


def test_the_home_folder_may_be_written_as_usual(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    open_queues("~/queue.db", {}).close()
    assert (tmp_path / "queue.db").exists()


@pytest.mark.parametrize("text", [URL, ARN, "https://eu-west-1.queue.amazonaws.com/123456789012/changes"])
def test_queues_of_sqs_that_are_all_named_are_opened_without_a_request(text):
    queues = open_queues(text, {"DEAD_LETTERS_URL": DEAD, "HOLD_QUEUE_URL": f" {HELD} ", "WORK_QUEUE_URL": WORK})
    opened = [queues.changes, queues.dead_letters, queues.held, queues.work]
    assert all(isinstance(queue, SqsQueue) for queue in opened)
    assert [queue.name for queue in opened] == [text, DEAD, HELD, WORK]
    queues.close()


def test_the_dead_letters_of_sqs_are_those_of_its_redrive_policy(sqs, moto_endpoint):
    dead, dead_arn = new_queue(sqs)
    url, _ = new_queue(sqs, RedrivePolicy=json.dumps({"deadLetterTargetArn": dead_arn, "maxReceiveCount": 5}))
    queues = open_queues(url, {})
    assert queues.held is None
    assert queues.dead_letters.name == dead_arn
    queues.dead_letters.send([Outgoing("dead", reason="why")])
    (message,) = SqsQueue(dead, sqs).receive(10, wait=0)
    assert (message.body, message.reason) == ("dead", "why")


def test_a_queue_of_sqs_without_redrive_policy_has_no_dead_letters(sqs):
    url, _ = new_queue(sqs)
    assert open_queues(url, {}).dead_letters is None


def test_an_endpoint_that_boto3_was_given_is_used(sqs, moto_endpoint, monkeypatch):
    _, arn = new_queue(sqs)
    url, _ = new_queue(sqs)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", moto_endpoint.url)
    for text in (arn, url.replace("127.0.0.1", "sqs.somewhere.invalid")):
        assert open_queues(text, os.environ).dead_letters is None


def test_a_queue_that_is_not_there_is_said_at_once(sqs, moto_endpoint):
    with pytest.raises(ConfigurationError, match="no-such-queue") as raised:
        open_queues(f"{moto_endpoint.url}/123456789012/no-such-queue", {})
    assert not isinstance(raised.value, Unreachable)
    assert "\n" not in str(raised.value)


def test_a_service_that_is_away_may_come_back(sqs):
    with pytest.raises(Unreachable, match="redrive policy"):
        open_queues(f"http://127.0.0.1:{free_port()}/123456789012/changes", {})


def test_who_may_not_ask_for_the_dead_letters_is_told_how_to_name_them():
    denied = ClientError({"Error": {"Code": "AccessDenied", "Message": "is not authorized"}}, "GetQueueAttributes")
    error = QueueError("the queue: AccessDenied")
    error.__cause__ = denied
    assert "allow sqs:GetQueueAttributes, or set DEAD_LETTERS_URL" in str(unusable(error))


@pytest.mark.parametrize(("status", "kind"), [(400, ConfigurationError), (403, ConfigurationError), (503, Unreachable)])
def test_only_an_answer_of_the_service_that_it_cannot_is_unreachable(status, kind):
    error = QueueError("the queue: what SQS says")
    error.__cause__ = ClientError({"Error": {}, "ResponseMetadata": {"HTTPStatusCode": status}}, "GetQueueAttributes")
    assert type(unusable(error)) is kind


def test_a_missing_region_is_said():
    with pytest.raises(ConfigurationError, match="region"):
        open_queues("https://queue.amazonaws.com/123456789012/changes", {})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "changes",
        "https://sqs.eu-central-1.amazonaws.com",
        "https://sqs.eu-central-1.amazonaws.com/",
        "https://sqs.eu-central-1.amazonaws.com/changes",
        "https://sqs.eu-central-1.amazonaws.com/the-account/changes",
        "https://sqs.eu-central-1.amazonaws.com/123456789012/a/changes",
        "https://bucket.s3.eu-central-1.amazonaws.com/123456789012/changes",
        "https://sqs.eu-central-1.amazonaws.com/123456789012/changes?Action=SendMessage",
        "https://user:secret@sqs.eu-central-1.amazonaws.com/123456789012/changes",
        "https://example.org/",
        "https://example.org/changes",
        "https://example.org//changes",
        "https://example.org/queues/what is this",
        "http://[broken/123456789012/changes",
        "http://host:port/123456789012/changes",
        "ftp://example.org/123456789012/changes",
        "s3://bucket/key",
        "sqlite:///queue.db",
        "arn:aws:sns:eu-central-1:123456789012:changes",
        "arn:aws:s3:::bucket",
        "arn:aws:sqs:eu-central-1:123456789012:",
        "arn:aws:sqs:eu-central-1:123456789012:changes:more",
        URL + ".fifo",
        ARN + ".fifo",
    ],
)
def test_what_is_no_queue_is_refused_in_one_line_and_nothing_is_made(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError) as raised:
        open_queues(text, {})
    assert "\n" not in str(raised.value)
    assert "secret" not in str(raised.value)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("variable", ["DEAD_LETTERS_URL", "HOLD_QUEUE_URL", "WORK_QUEUE_URL"])
@pytest.mark.parametrize("value", ["queue.db", "https://example.org/", URL, DEAD + ".fifo"])
def test_another_queue_that_is_none_or_the_same_is_refused(variable, value):
    with pytest.raises(ConfigurationError, match=variable):
        open_queues(URL, {"DEAD_LETTERS_URL": DEAD, variable: value})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("DEAD_LETTERS_URL", "HOLD_QUEUE_URL"),
        ("DEAD_LETTERS_URL", "WORK_QUEUE_URL"),
        ("WORK_QUEUE_URL", "HOLD_QUEUE_URL"),
    ],
)
def test_one_queue_for_two_things_is_refused(one, other):
    with pytest.raises(ConfigurationError, match=one):
        open_queues(URL, {one: DEAD, other: DEAD})


def test_without_a_queue_of_work_items_they_are_among_the_changes():
    queues = open_queues(URL, {"DEAD_LETTERS_URL": DEAD})
    assert queues.items is queues.changes
    assert queues.served == (queues.changes,)


def test_folders_and_foreign_files_are_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("some notes\n" * 100)
    for path in (tmp_path, tmp_path / "notes.txt", tmp_path / "missing" / "queue.db"):
        with pytest.raises(ConfigurationError) as raised:
            open_queues(str(path), {})
        assert str(raised.value).startswith(f"{path}: ")


def test_two_that_open_the_same_file_share_its_messages(tmp_path):
    first, second = (open_queues(str(tmp_path / "queue.db"), {}) for _ in range(2))
    first.changes.send([Outgoing("shared")])
    assert isinstance(second.changes, LocalQueue)
    assert second.changes.name.endswith(CHANGES)
    assert [message.body for message in second.changes.receive(10, wait=0)] == ["shared"]
    first.close()
    second.close()
