"""replicator serve --queue as a process: what becomes of messages while it runs, and however it ends."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from urllib.parse import quote_plus

import boto3
import pytest

from replicator.items import KeysItem, encode
from replicator.queues.opening import open_queues
from replicator.queues.queue import Depth, Outgoing
from tests.fakes.watched_s3 import watched
from tests.pushes import until
from tests.runs import ROOT, SECONDS, variables_between
from tests.servers.base import HOST, free_port, http_answers

SECRET = "hush-hush-hush"
TOKEN = "a-token-that-nobody-may-see"
KEY = "a key\nwith a second line, é and \x1b[31m"


def variables(source, target, **changes):
    given = {
        **variables_between(source.url, target.url),
        "SOURCE_BUCKET": "from",
        "TARGET_BUCKET": "to",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        **changes,
    }
    return {name: value for name, value in given.items() if value is not None}


class Serving:
    """A service that runs. said: its log, up to now."""

    def __init__(self, process, log, port):
        self.process = process
        self._log = log
        self.port = port

    @property
    def said(self):
        return self._log.read_text(errors="replace")

    def health(self):
        """(status, document)"""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=SECONDS)
        try:
            connection.request("GET", "/healthz")
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def ends(self, *signals):
        """Its exit code after these signals, one after the other."""
        for number in signals:
            self.process.send_signal(number)
            time.sleep(0.2)
        return self.process.wait(SECONDS)


@contextmanager
def serving(queue, environment, state, *options):
    """The service, listening; whatever it says, it has neither tracebacks nor secrets."""
    port = free_port()
    command = [sys.executable, "-m", "replicator", "serve", "--queue", str(queue), "--metrics", f"{HOST}:{port}"]
    log = state / f"serve-{port}.log"
    with log.open("w") as out:
        process = subprocess.Popen([*command, *options], env=environment, stdout=out, stderr=out)
    serving = Serving(process, log, port)
    try:
        assert until(lambda: http_answers(port, "/healthz") or process.poll() is not None)
        assert process.poll() is None, serving.said
        yield serving
        if process.poll() is None:
            assert serving.ends(signal.SIGTERM) == 0, serving.said
    finally:
        process.kill()
        process.wait()
    for word in ("Traceback", "was destroyed", "never retrieved", "never awaited", SECRET, TOKEN):
        assert word not in serving.said, serving.said


class World:
    """Two stores, and a queue in a file. hang: keys that the source does not answer for until `go_on` is set."""

    def __init__(self, stack, state):
        self.state = state
        self.hang = set()
        self.asked = threading.Event()
        self.go_on = threading.Event()
        self.source = stack.enter_context(watched(self._rule))
        self.target = stack.enter_context(watched())
        stack.callback(self.go_on.set)
        self.place = state / "queue.db"
        self.queues = open_queues(str(self.place), {})
        stack.callback(self.queues.close)
        self.changes, self.dead_letters, self.held = self.queues.changes, self.queues.dead_letters, self.queues.held

    def _rule(self, asked):
        if asked.key in self.hang:
            self.asked.set()
            self.go_on.wait(SECONDS)

    def variables(self, **changes):
        return variables(self.source, self.target, **changes)

    def serving(self, *options, **changes):
        return serving(self.place, self.variables(**changes), self.state, *options)

    def tell(self, *keys, bucket="from"):
        self.changes.send([Outgoing(event(key, bucket=bucket)) for key in keys])

    def dead(self):
        return {one.body: one.reason for one in self.dead_letters.receive(100, wait=0)}


def event(key, *, bucket="from"):
    record = {
        "eventSource": "aws:s3",
        "eventName": "ObjectCreated:Put",
        "eventTime": "2026-10-21T07:28:00Z",
        "s3": {"bucket": {"name": bucket}, "object": {"key": quote_plus(key)}},
    }
    return json.dumps({"Records": [record]})


@pytest.fixture
def world(tmp_path):
    with ExitStack() as stack:
        yield World(stack, tmp_path)


def test_what_a_queue_tells_of_is_mirrored_and_a_log_has_one_line_for_each_key(world):
    world.source.objects = {KEY: b"1", "b": b"2"}
    world.tell(KEY, "b", "not there")
    with world.serving() as serving:
        assert until(lambda: world.changes.depth() == Depth(0, 0, 0))
        assert world.target.objects == world.source.objects
        world.source.objects["c"] = b"3"
        world.tell("c")
        assert until(lambda: world.target.objects == world.source.objects)
        assert until(lambda: world.changes.depth() == Depth(0, 0, 0))
    assert sum(r"a key\nwith a second line" in line for line in serving.said.splitlines()) == 1
    assert "\x1b" not in serving.said


def test_one_message_of_many_kinds_does_not_hold_back_the_others(world):
    world.source.objects = {f"k{n}": b"x" for n in range(50)}
    bad = ["not JSON", event("k", bucket="foreign"), encode(KeysItem("no-such-route", ("k1",)))]
    world.tell(*world.source.objects)
    world.changes.send([Outgoing(body) for body in bad])
    with world.serving() as serving:
        assert until(lambda: world.changes.depth() == Depth(0, 0, 0))
        assert world.target.objects == world.source.objects
    dead = world.dead()
    assert set(dead) == set(bad)
    assert "'foreign'" in dead[bad[1]]
    assert "'no-such-route'" in dead[bad[2]]
    assert serving.said.count("failed for good") == 3


# How it ends


@pytest.mark.slow
def test_an_idle_service_ends_well(world):
    with world.serving() as serving:
        assert serving.ends(signal.SIGTERM) == 0
    with world.serving() as serving:
        assert serving.ends(signal.SIGINT) == 130
        assert "left hanging" not in serving.said


def test_what_is_at_work_may_end_before_the_service_does(world):
    world.source.objects = {"slow": b"1"}
    world.hang.add("slow")
    world.tell("slow")
    with world.serving("--drain", "60") as serving:
        assert world.asked.wait(SECONDS)
        serving.process.terminate()
        time.sleep(0.5)
        world.tell("later")
        assert serving.process.poll() is None
        world.go_on.set()
        assert serving.process.wait(SECONDS) == 0
    assert world.target.objects == {"slow": b"1"}
    assert world.changes.depth() == Depth(1, 0, 0), "what comes by then is left for the next one"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signals", "code"),
    [
        ([signal.SIGTERM], 0),
        ([signal.SIGTERM, signal.SIGTERM], 0),
        ([signal.SIGINT], 130),
        ([signal.SIGTERM, signal.SIGINT], 130),
        ([signal.SIGINT, signal.SIGINT], 130),
    ],
)
def test_what_cannot_end_in_time_is_put_back_and_the_next_service_does_it(world, signals, code):
    world.source.objects = {"slow": b"1", "quick": b"2"}
    world.hang.add("slow")
    world.tell("slow", "quick")
    drain = "1" if signals[-1] is signal.SIGTERM else "3600"
    with world.serving("--drain", drain) as serving:
        assert world.asked.wait(SECONDS)
        assert serving.ends(*signals) == code
    assert world.changes.depth() == Depth(2, 0, 0), "it waits, and is not hidden"
    world.hang.clear()
    world.go_on.set()
    with world.serving():
        assert until(lambda: world.changes.depth() == Depth(0, 0, 0))
    assert world.target.objects == world.source.objects


# Is it well?


@pytest.mark.slow
def test_it_is_unwell_while_its_queue_cannot_be_used(world, moto_endpoint):
    """A queue of SQS that is gone for a while."""
    name = f"serve-{os.getpid()}"
    sqs = boto3.client("sqs", endpoint_url=moto_endpoint.url, region_name="us-east-1", **account())
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    world.source.objects = {"a": b"1", "b": b"2"}
    environment = world.variables(AWS_REGION="us-east-1")
    with serving(url, environment, world.state) as running:
        sqs.send_message(QueueUrl=url, MessageBody=event("a"))
        assert until(lambda: "a" in world.target.objects)
        assert running.health() == (200, {"status": "ok"})
        sqs.delete_queue(QueueUrl=url)
        assert until(lambda: running.health()[0] == 503)
        reason = running.health()[1]["reason"]
        assert (name in reason, "\n" in reason, SECRET in reason) == (True, False, False)
        sqs.create_queue(QueueName=name)
        sqs.send_message(QueueUrl=url, MessageBody=event("b"))
        assert until(lambda: "b" in world.target.objects)
        assert until(lambda: running.health() == (200, {"status": "ok"}))
    assert running.said.count("cannot be used") == 1


def account():
    return {"aws_access_key_id": "any", "aws_secret_access_key": "any"}


def test_it_counts_the_deletes_that_are_held(world):
    world.held.send([Outgoing(encode(KeysItem("default", ("a",))), "a reason")])
    with world.serving() as serving:
        connection = http.client.HTTPConnection(HOST, serving.port, timeout=SECONDS)

        def counted():
            connection.request("GET", "/metrics")
            return b"\nreplicator_held 1.0\n" in connection.getresponse().read()

        assert until(counted)
        connection.close()


# Wrong settings


@pytest.mark.parametrize(
    ("options", "changes", "word"),
    [
        ([], {"TARGET_BUCKET": None}, "TARGET_BUCKET"),
        ([], {"LOG_LEVEL": "LOUD"}, "LOG_LEVEL"),
        ([], {"TARGET_ENDPOINT": "http://127.0.0.1:1"}, "TARGET_ENDPOINT"),
        ([], {"MAX_DELETES_PER_HOUR": "many"}, "MAX_DELETES_PER_HOUR"),
        (["--events", ":0"], {"EVENTS_TOKEN": TOKEN}, "--events"),
        (["--events", ":8080"], {"EVENTS_TOKEN": "short"}, "EVENTS_TOKEN"),
        (["--events", ":8080"], {"EVENTS_TOKEN": TOKEN, "SNS_TOPICS": "nonsense"}, "SNS_TOPICS"),
        (["--drain", "0"], {}, "--drain"),
        (["--queue", "nonsense"], {}, "nonsense"),
        (["--queue", "/no/such/folder/queue.db"], {}, "/no/such/folder"),
        (["--queue", "https://sqs.eu-central-1.amazonaws.com/123456789012/q.fifo"], {}, "FIFO"),
        (["--config", "/no/such.toml"], {}, "/no/such.toml"),
        (["--catalog", "nonsense://x"], {}, "nonsense"),
    ],
)
def test_wrong_settings_are_one_line_before_anything_listens(world, options, changes, word):
    port = free_port()
    command = [sys.executable, "-m", "replicator", "serve", "--queue", str(world.place), "--metrics", f"{HOST}:{port}"]
    done = subprocess.run(
        [*command, *options],
        env=world.variables(**changes),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, ""), done
    (line,) = done.stderr.splitlines()
    assert word in line
    assert SECRET not in line
    assert TOKEN not in line


# Several of them


@pytest.mark.slow
def test_two_services_share_a_queue_and_one_may_be_killed(world):
    """What the one had comes to the other after a minute."""
    world.source.objects = {f"k{n:03}": b"%d" % n for n in range(200)}
    world.hang.add("k100")
    with world.serving() as one:
        world.tell("k100")
        assert world.asked.wait(SECONDS)
        with world.serving() as other:
            world.tell(*world.source.objects)
            time.sleep(0.3)
            one.process.kill()
            world.hang.clear()
            world.go_on.set()
            assert until(lambda: world.changes.depth() == Depth(0, 0, 0), seconds=3 * SECONDS)
            assert other.process.poll() is None
        with suppress(ProcessLookupError):
            one.process.wait()
    assert world.target.objects == world.source.objects
    assert world.dead() == {}
