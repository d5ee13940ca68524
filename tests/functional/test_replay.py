"""Changes through S3 -> SQS -> the Chalice app: duplicated, out of order and while a writer goes on writing."""

from __future__ import annotations

import io
import json
import logging
import os
import random
import sys
import threading
import time

import boto3
import pytest

from replicator.catalogue.catalogue import open_catalogue
from replicator.catalogue.database import Wanted
from replicator.catalogue.entries import State
from tests.lambda_pump import LambdaPump, load_app
from tests.runs import ROOT, run_command
from tests.servers.lab import boto_client, new_bucket

SECONDS = 100
FIRST_WAIT = 10
"""Seconds for which a message that failed is put off the first time."""
SECRET = "very-hush-hush"
KEYS = [f"dir {n % 3}/key+{n:02} ü" for n in range(24)]
VARIABLES = (
    "SOURCE_BUCKET",
    "TARGET_BUCKET",
    "SOURCE_ENDPOINT",
    "TARGET_ENDPOINT",
    "SOURCE_ACCESS_KEY_ID",
    "SOURCE_SECRET_ACCESS_KEY",
    "TARGET_ACCESS_KEY_ID",
    "TARGET_SECRET_ACCESS_KEY",
    "AWS_ENDPOINT_URL_SQS",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_DEFAULT_REGION",
    "DELETES",
    "DATABASE_URL",
    "QUEUE",
    "QUEUE_URL",
    "DEAD_LETTERS_URL",
    "HOLD_QUEUE_URL",
    "BRAKE_TABLE",
    "POWERTOOLS_METRICS_NAMESPACE",
    "POWERTOOLS_DEV",
)


class Live:
    """A source bucket that tells a queue of its changes, a target, and the app between them."""

    def __init__(self, here, there, monkeypatch, **more):
        self.source, self.target = boto_client(here), boto_client(there)
        self.source_bucket, self.target_bucket = new_bucket(here), new_bucket(there)
        self.sqs = boto3.client(
            "sqs",
            endpoint_url=here.url,
            region_name=here.region,
            aws_access_key_id=here.access_key,
            aws_secret_access_key=here.secret_key,
        )
        name = f"replicator-{self.source_bucket}"
        self.inbox = self._new_queue(name)
        self.told = self._new_queue(name + "-told")
        self.notify()
        assert [json.loads(body)["Event"] for body in self.events()] == ["s3:TestEvent"]
        self.environment = {
            "SOURCE_BUCKET": self.source_bucket,
            "TARGET_BUCKET": self.target_bucket,
            "SOURCE_ENDPOINT": here.url,
            "TARGET_ENDPOINT": there.url,
            "SOURCE_ACCESS_KEY_ID": here.access_key,
            "SOURCE_SECRET_ACCESS_KEY": SECRET,
            "TARGET_ACCESS_KEY_ID": there.access_key,
            "TARGET_SECRET_ACCESS_KEY": there.secret_key,
            "AWS_ENDPOINT_URL_SQS": here.url,
            "AWS_ACCESS_KEY_ID": here.access_key,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": here.region,
            "DELETES": "mirror",
            **more,
        }
        for variable in VARIABLES:  # load_app sets them for good: this has them restored
            monkeypatch.setenv(variable, "")
            monkeypatch.delenv(variable)
        self.secrets = {SECRET, there.secret_key}
        self.app = load_app(self.environment)
        self.log = io.StringIO()
        self.handler = logging.StreamHandler(self.log)
        self.handler.setFormatter(self.app.logger.registered_formatter)
        self.app.logger.addHandler(self.handler)
        self.pump = LambdaPump(self.sqs, self.inbox, self.app)

    def _new_queue(self, name):
        """In it, what was received and is not settled never comes again, as far as a test can tell."""
        return self.sqs.create_queue(QueueName=name, Attributes={"VisibilityTimeout": "3600"})["QueueUrl"]

    def notify(self):
        attributes = self.sqs.get_queue_attributes(QueueUrl=self.told, AttributeNames=["QueueArn"])["Attributes"]
        events = ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]
        self.source.put_bucket_notification_configuration(
            Bucket=self.source_bucket,
            NotificationConfiguration={"QueueConfigurations": [{"QueueArn": attributes["QueueArn"], "Events": events}]},
        )

    def events(self):
        """All that the bucket has told so far; told once."""
        bodies = []
        while messages := self.sqs.receive_message(QueueUrl=self.told, MaxNumberOfMessages=10).get("Messages"):
            for message in messages:
                bodies.append(message["Body"])
                self.sqs.delete_message(QueueUrl=self.told, ReceiptHandle=message["ReceiptHandle"])
        return bodies

    def deliver(self, bodies):
        for start in range(0, len(bodies), 10):
            entries = [{"Id": str(n), "MessageBody": body} for n, body in enumerate(bodies[start : start + 10])]
            self.sqs.send_message_batch(QueueUrl=self.inbox, Entries=entries)

    def put(self, key, body, **more):
        self.source.put_object(Bucket=self.source_bucket, Key=key, Body=body, **more)

    def remove(self, key):
        self.source.delete_object(Bucket=self.source_bucket, Key=key)

    def content(self):
        listed = self.target.list_objects_v2(Bucket=self.target_bucket).get("Contents", [])
        keys = [entry["Key"] for entry in listed]
        return {key: self.target.get_object(Bucket=self.target_bucket, Key=key)["Body"].read() for key in keys}

    def waiting(self):
        """Messages that are to be received, and those that are held back."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.sqs.get_queue_attributes(QueueUrl=self.inbox, AttributeNames=names)["Attributes"]
        return [int(found[name]) for name in names]

    def verify(self):
        variables = {**os.environ, "PYTHONPATH": str(ROOT), **self.environment}
        return run_command([sys.executable, "-m", "replicator", "verify"], variables, seconds=SECONDS)

    def said(self, *more):
        """What was logged, in which no secret is."""
        text = self.log.getvalue()
        assert not [secret for secret in self.secrets if secret in "".join([text, *more])]
        return text

    def close(self):
        self.app.logger.removeHandler(self.handler)
        self.app.the_mirror(self.pump.arn).close()
        for client in (self.source, self.target, self.sqs):
            client.close()


@pytest.fixture
def live(moto_endpoint, rgw_endpoint, monkeypatch):
    """From moto, which does not check signatures, so that there is a secret to be looked for."""
    live = Live(moto_endpoint, rgw_endpoint, monkeypatch)
    yield live
    live.close()


def test_a_catalogue_is_told_of_what_was_mirrored(moto_endpoint, rgw_endpoint, monkeypatch, tmp_path):
    place = f"sqlite:///{tmp_path / 'catalog.db'}"
    live = Live(moto_endpoint, rgw_endpoint, monkeypatch, DATABASE_URL=place)
    try:
        live.put("stays", b"12345")
        live.put("goes", b"x")
        live.deliver(live.events())
        live.pump.drain()
        live.remove("goes")
        live.deliver(live.events())
        live.pump.drain()
    finally:
        live.close()
    with open_catalogue(place, warn=print) as catalogue:
        found = {entry.key: (entry.state, entry.size) for entry in catalogue.find(wanted=Wanted(deleted=True))}
    assert found == {"stays": (State.UPLOADED, 5), "goes": (State.DELETED, 1)}


def write_at_random(live, chooser, count, halfway):
    """Halfway it waits for the mirror to have begun."""
    for n in range(count):
        if n == count // 2:
            assert halfway.wait(SECONDS)
        key = chooser.choice(KEYS)
        what = chooser.random()
        if what < 0.25:
            live.remove(key)
        elif what < 0.4:
            live.put(key, b"relabelled", ContentType=chooser.choice(["text/plain", "text/html"]))
        elif what < 0.5:
            live.put(key, b"tagged", Tagging=f"n={n}")
        else:
            live.put(key, chooser.randbytes(chooser.choice([0, 1, 1000, 70_000])))


@pytest.mark.parametrize("seed", [1, 2])
def test_targets_end_equal_though_events_come_three_times_in_any_order_while_a_writer_writes(live, seed, capsys):
    chooser = random.Random(seed)
    begun = threading.Event()
    writer = threading.Thread(target=write_at_random, args=[live, random.Random(1000 + seed), 120, begun])
    backlog = []
    writer.start()
    while writer.is_alive() or backlog:
        backlog += live.events() * 3
        chooser.shuffle(backlog)
        batch, backlog = backlog[:20], backlog[20:]
        live.deliver(batch)
        while live.pump.pump():
            begun.set()
    writer.join()
    rest = live.events() * 3
    chooser.shuffle(rest)
    live.deliver(rest)
    live.pump.drain()
    assert begun.is_set()
    assert live.pump.failed_invocations == 0
    assert live.waiting() == [0, 0]
    done = live.verify()
    assert (done.returncode, done.stderr) == (0, ""), done
    assert live.content()
    printed = capsys.readouterr()
    assert '"message":"copied"' in live.said(printed.out, printed.err, done.stdout)
    assert "ReplicationLag" in printed.out


def test_deleted_keys_that_are_told_of_late_do_not_undo_what_came_after(live):
    live.put("key", b"first")
    live.remove("key")
    live.put("key", b"last")
    created, removed, again = live.events()
    for order in ([again, removed], [created], [removed, removed, created]):
        live.deliver(order)
        live.pump.drain()
        assert live.content() == {"key": b"last"}


POISON = ["not JSON", json.dumps({"Records": []}), json.dumps({"hello": "world"})]


def test_of_a_batch_that_fails_in_part_only_the_bad_half_comes_again(live, capsys):
    for n in range(4):
        live.put(f"good {n}", b"x")
    good = live.events()
    assert len(good) == 4
    mixed = [body for pair in zip(good, [*POISON, json.dumps({"a": SECRET})], strict=True) for body in pair]
    live.deliver(mixed)
    began = time.monotonic()
    assert live.pump.pump() == 8
    assert live.pump.failed_invocations == 1
    assert set(live.content()) == {f"good {n}" for n in range(4)}
    assert sum(live.waiting()) == 4
    for message in hidden(live):  # put off, and not for ever
        assert message["Body"] not in good
    assert time.monotonic() - began > FIRST_WAIT - 1
    printed = capsys.readouterr()
    assert live.said(printed.out, printed.err).count("message failed") == 4


def hidden(live):
    """What is put off comes again: waits for the first back-off to pass."""
    found, ends = [], time.monotonic() + SECONDS
    while len(found) < 4:
        answer = live.sqs.receive_message(
            QueueUrl=live.inbox, MaxNumberOfMessages=10, WaitTimeSeconds=15, AttributeNames=["ApproximateReceiveCount"]
        )
        messages = answer.get("Messages", [])
        assert messages or time.monotonic() < ends, "what failed does not come again"
        assert {message["Attributes"]["ApproximateReceiveCount"] for message in messages} <= {"2"}
        found += messages
    return found


def test_a_batch_that_succeeds_is_deleted_and_not_delivered_again(live):
    for n in range(3):
        live.put(f"good {n}", b"x")
    live.deliver(live.events())
    assert live.pump.pump() == 3
    assert (live.waiting(), live.pump.failed_invocations) == ([0, 0], 0)


def test_a_foreign_bucket_and_a_test_event_in_one_batch_are_told_apart(live):
    live.put("good", b"x")
    (event,) = live.events()
    live.deliver([event.replace(live.source_bucket, "another-bucket"), json.dumps({"Event": "s3:TestEvent"}), event])
    live.pump.pump()
    assert sum(live.waiting()) == 1
    assert live.content() == {"good": b"x"}
    assert "another-bucket" in live.said()
    assert "s3:TestEvent" in live.said()


def test_a_target_that_is_gone_loses_no_message(live):
    live.put("good", b"x")
    (event,) = live.events()
    live.target.delete_bucket(Bucket=live.target_bucket)
    live.deliver([event])
    live.pump.pump()
    assert (sum(live.waiting()), live.pump.failed_invocations) == (1, 1)


def test_a_source_that_is_gone_deletes_nothing(live):
    live.put("good", b"x")
    live.deliver(live.events())
    live.pump.pump()
    live.remove("good")
    (event,) = live.events()
    live.source.delete_bucket(Bucket=live.source_bucket)
    live.deliver([event])
    live.pump.pump()
    assert live.content() == {"good": b"x"}
    assert (sum(live.waiting()), live.pump.failed_invocations) == (1, 1)
