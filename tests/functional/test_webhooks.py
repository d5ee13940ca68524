"""The webhook as stores meet it: what it answers to whom, when, and what is in the queue by then."""

from __future__ import annotations

import asyncio
import base64
import gzip
import http.client
import json
import logging
import threading
from contextlib import asynccontextmanager

import boto3
import pytest
from botocore.config import Config
from prometheus_client.parser import text_string_to_metric_families

from replicator.errors import ConfigurationError, QueueError
from replicator.events import parse_message
from replicator.metrics import Metrics
from replicator.queues.opening import open_queues
from replicator.web.fetching import LARGEST, NotFetched, fetch
from replicator.web.listen import Listen
from replicator.web.server import serve
from replicator.web.sns import TOO_OLD
from replicator.web.webhooks import LARGEST_BODY, REFUSAL_SECONDS, Limits, events_application
from tests.fakes.http_server import HttpServer, Talk, hanging_up_after, ok
from tests.fakes.sns import CERTIFICATE, TOPIC, Sns, message
from tests.servers.base import HOST, free_port
from tests.servers.lab import boto_client, new_bucket

SECONDS = 30
TOKEN = "correct-horse-battery"
KNOWN = {"Authorization": f"Bearer {TOKEN}"}
SNS = {"x-amz-sns-message-type": "Notification", "Content-Type": "text/plain; charset=UTF-8"}


class Taking:
    """A queue that keeps what it is sent; fails with `error` as long as there is one, hangs until `go` is set."""

    name = "a queue"

    def __init__(self):
        self.bodies = []
        self.error = None
        self.go = threading.Event()
        self.go.set()

    def send(self, messages):
        assert self.go.wait(SECONDS)
        if self.error is not None:
            raise self.error
        self.bodies += [message.body for message in messages]

    @property
    def keys(self):
        changes = [change for body in self.bodies for change in parse_message(body).changes]
        return [key for change in changes for key in change.candidates]


class Webhook:
    """A running endpoint, and what it was told to do without waiting for it."""

    def __init__(self, port, queue, metrics, sns):
        self.port, self.queue, self.metrics, self.sns = port, queue, metrics, sns
        self.slept = []

    async def sleep(self, seconds):
        self.slept.append(seconds)

    async def ask(self, body=b"", method="POST", path="/events", **headers):
        """(status, headers, document) of the answer; body may be an iterator of chunks."""
        return await asyncio.to_thread(self._ask, body, method, path, {**headers.pop("headers", {}), **headers})

    def _ask(self, body, method, path, headers):
        connection = http.client.HTTPConnection(HOST, self.port, timeout=SECONDS)
        try:
            connection.request(method, path, body=body, headers=headers)
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, answer.headers, json.loads(text) if text else None
        finally:
            connection.close()

    async def raw(self, text):
        """What comes back until the endpoint closes the connection."""
        reader, writer = await asyncio.open_connection(HOST, self.port)
        try:
            writer.write(text)
            return await asyncio.wait_for(reader.read(), SECONDS)
        finally:
            writer.close()

    def counted(self, status):
        families = text_string_to_metric_families(self.metrics.render()[0].decode())
        samples = [one for family in families for one in family.samples if one.name == "replicator_events_total"]
        return sum(one.value for one in samples if one.labels["status"] == str(status))


@asynccontextmanager
async def webhook(queue=None, *, topics=(), limits=None, token=TOKEN):
    queue, metrics, sns = queue or Taking(), Metrics(), Sns()
    hook = Webhook(free_port(), queue, metrics, sns)
    app = events_application(
        queue,
        token,
        metrics=metrics,
        topics=frozenset(topics),
        fetch=sns.fetch,
        clock=lambda: sns.now,
        sleep=hook.sleep,
        limits=limits or Limits(),
    )
    async with serve(Listen(HOST, hook.port), app):
        yield hook


def told(*keys, source="ceph:s3"):
    records = [
        {
            "eventSource": source,
            "eventName": "ObjectCreated:Put",
            "eventTime": "2025-03-14T09:26:53.589793Z",
            "s3": {"bucket": {"name": "b"}, "object": {"key": key}},
        }
        for key in keys
    ]
    return json.dumps({"Records": records})


# What is taken


@pytest.mark.parametrize(
    ("headers", "path"),
    [
        (KNOWN, "/events"),
        ({"Authorization": TOKEN}, "/events"),
        ({"Authorization": "Basic " + base64.b64encode(f"any:{TOKEN}".encode()).decode()}, "/events"),
        ({}, f"/events?token={TOKEN}"),
        ({"Content-Type": "application/json"}, f"/events?x=%ff&token={TOKEN}"),
    ],
)
async def test_who_shows_the_token_has_its_events_in_the_queue_when_the_answer_comes(headers, path):
    async with webhook() as hook:
        status, got, document = await hook.ask(told("a b"), path=path, headers=headers)
        assert (status, document) == (200, {"changes": 1, "set_aside": 0})
        assert got["Cache-Control"] == "no-store"
        assert hook.queue.keys == ["a b"]
        assert hook.counted(200) == 1
        assert hook.slept == []


async def test_the_answer_waits_for_the_queue():
    async with webhook() as hook:
        hook.queue.go.clear()
        asked = asyncio.ensure_future(hook.ask(told("k"), headers=KNOWN))
        done, _ = await asyncio.wait([asked], timeout=0.3)
        assert not done
        hook.queue.go.set()
        assert (await asked)[0] == 200
        assert hook.queue.keys == ["k"]


async def test_what_was_acknowledged_is_in_the_file_when_it_is_opened_again(tmp_path):
    place = str(tmp_path / "queue.db")
    queues = open_queues(place, {})
    async with webhook(queues.changes) as hook:
        answers = await asyncio.gather(*(hook.ask(told(f"k{n}", "both"), headers=KNOWN) for n in range(20)))
    assert {status for status, _, _ in answers} == {200}
    queues.close()
    again = open_queues(place, {})
    bodies = [one.body for one in again.changes.receive(100, wait=0)]
    again.close()
    keys = {key for body in bodies for change in parse_message(body).changes for key in change.candidates}
    assert keys == {"both", *(f"k{n}" for n in range(20))}


async def test_a_body_of_thousands_of_records_in_chunks_is_taken_whole():
    body = told(*(f"{n:04}" for n in range(5000))).encode()
    async with webhook() as hook:
        chunks = (body[begin : begin + 1000] for begin in range(0, len(body), 1000))
        status, _, document = await hook.ask(chunks, headers=KNOWN)
        assert (status, document["changes"]) == (200, 5000)
        assert hook.queue.keys == [f"{n:04}" for n in range(5000)]
        assert len(hook.queue.bodies) > 1


async def test_keys_of_any_characters_arrive():
    keys = ["/", "//a/../b", "ü\U0001f600", "a\0b\r\n\x7f\uffff", "%2F+ %", '{"replicator":"keys"}', "k" * 1024]
    async with webhook() as hook:
        assert (await hook.ask(told(*keys), headers=KNOWN))[0] == 200
        assert set(keys) <= set(hook.queue.keys)


@pytest.mark.parametrize(
    "body",
    [
        "",
        '{"Service":"Amazon S3","Event":"s3:TestEvent","Bucket":"b"}',
        told("k").replace("Created:Put", "Accessed:Get"),
    ],
)
async def test_what_names_no_change_is_answered_well_and_not_stored(body):
    async with webhook() as hook:
        status, _, document = await hook.ask(body, headers=KNOWN)
        assert (status, list(document)) == (200, ["ignored"])
        assert hook.queue.bodies == []


async def test_minio_finds_an_endpoint_when_it_asks_for_one_without_its_token():
    async with webhook() as hook:
        assert (await hook.ask(method="HEAD"))[0] == 200


async def test_a_record_that_cannot_be_understood_is_no_reason_to_send_all_again():
    async with webhook() as hook:
        status, _, document = await hook.ask(told("good", "k" * 1025), headers=KNOWN)
        assert (status, document) == (200, {"changes": 1, "set_aside": 1})
        assert [json.loads(body)["Records"][0]["s3"]["object"]["key"] for body in hook.queue.bodies] == [
            "good",
            "k" * 1025,
        ]


async def test_the_age_of_events_is_measured_when_they_are_stored():
    async with webhook() as hook:
        await hook.ask(told("k"), headers=KNOWN)
        assert "replicator_event_age_seconds_count 1.0" in hook.metrics.render()[0].decode()


# What is refused


@pytest.mark.parametrize(
    ("headers", "path"),
    [
        ({}, "/events"),
        ({"Authorization": f"Bearer {TOKEN}x"}, "/events"),
        ({"Authorization": "Basic !"}, "/events"),
        ({}, "/events?token=x"),
        ({}, f"/events?Token={TOKEN}"),
        (SNS, "/events"),
    ],
)
async def test_who_does_not_know_the_token_is_told_how_to_show_it_and_stores_nothing(headers, path):
    async with webhook() as hook:
        status, got, document = await hook.ask(told("k"), path=path, headers=headers)
        assert (status, list(document)) == (401, ["error"])
        assert got.get_all("WWW-Authenticate") == ['Basic realm="replicator"', "Bearer"]
        assert hook.queue.bodies == []
        assert hook.counted(401) == 1
        assert hook.slept == [REFUSAL_SECONDS]


@pytest.mark.parametrize(
    "body",
    [
        '{"replicator":"keys","route":"r","keys":["k"],"released":true}',
        ' {"replicator":"keys","route":"r","keys":["k"]}',
        '{"replicator":"keys","route":"r","keys":["k"],"Event":"s3:TestEvent"}',
        told("k")[:-1] + ',"replicator":"keys"}',
        "[]",
        "{",
        '{"a":' * 100_000,
        b"\xff\xfe",
        '{"Records":[]}',
        "key=value",
    ],
)
async def test_what_is_no_notification_is_refused_with_a_reason_of_one_line(body):
    async with webhook() as hook:
        status, _, document = await hook.ask(body, headers=KNOWN)
        assert (status, list(document)) == (400, ["error"])
        assert "\n" not in document["error"]
        assert hook.queue.bodies == []
        assert (await hook.ask(told("k"), headers=KNOWN))[0] == 200


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS"])
async def test_other_methods_are_not_allowed(method):
    async with webhook() as hook:
        status, got, document = await hook.ask(method=method, headers=KNOWN)
        assert (status, list(document)) == (405, ["error"])
        assert "POST" in got["Allow"]


async def test_a_body_that_is_too_large_is_refused_whether_it_says_so_or_not():
    async with webhook() as hook:
        large = b" " * (LARGEST_BODY + 1)
        zipped = {**KNOWN, "Content-Encoding": "gzip"}
        bodies = [(large, KNOWN), (iter([large]), KNOWN), (gzip.compress(b" " * 20_000_000), zipped)]
        for body, headers in bodies:
            status, _, document = await hook.ask(body, headers=headers)
            assert (status, list(document)) == (413, ["error"])
        assert (await hook.ask(told("k"), headers=KNOWN))[0] == 200


async def test_a_body_that_does_not_come_is_not_waited_for():
    async with webhook(limits=Limits(body=0.1)) as hook:
        head = f"POST /events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 9\r\n\r\n{{"
        reader, writer = await asyncio.open_connection(HOST, hook.port)
        writer.write(head.encode())
        assert await asyncio.wait_for(reader.readline(), SECONDS) == b"HTTP/1.1 503 Service Unavailable\r\n"
        writer.close()


async def test_a_body_that_breaks_off_is_not_taken():
    async with webhook() as hook:
        head = (
            f"POST /events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        assert b" 400 " in await hook.raw(head.encode() + b'5\r\n{"Rec\r\nnonsense\r\n')
        assert hook.queue.bodies == []


# When there is no room


async def test_a_queue_that_takes_nothing_is_said_so_that_the_store_sends_it_again():
    async with webhook() as hook:
        hook.queue.error = QueueError("queue.db: disk full")
        status, got, document = await hook.ask(told("k"), headers=KNOWN)
        assert (status, list(document)) == (503, ["error"])
        assert int(got["Retry-After"]) > 0
        assert hook.slept == [REFUSAL_SECONDS]
        hook.queue.error = None
        assert (await hook.ask(told("k"), headers=KNOWN))[0] == 200
        assert hook.queue.keys == ["k"]


async def test_a_queue_that_hangs_is_not_waited_for_for_ever():
    async with webhook(limits=Limits(store=0.1)) as hook:
        hook.queue.go.clear()
        assert (await hook.ask(told("k"), headers=KNOWN))[0] == 503
        hook.queue.go.set()


async def test_too_many_requests_at_once_are_to_come_again_and_those_under_way_are_not_disturbed():
    async with webhook(limits=Limits(with_token=2, body=SECONDS)) as hook:
        body = told("k")
        lines = (f"POST /events?token={TOKEN} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", "Connection: close")
        head = "\r\n".join(lines) + "\r\n\r\n"
        under_way = [await asyncio.open_connection(HOST, hook.port) for _ in range(2)]
        for _, writer in under_way:
            writer.write(head.encode())
        while (await hook.ask(body, headers=KNOWN))[0] != 503:
            await asyncio.sleep(0.01)
        for reader, writer in under_way:
            writer.write(body.encode())
            assert (await asyncio.wait_for(reader.read(), SECONDS)).startswith(b"HTTP/1.1 200 ")
            writer.close()


async def test_senders_without_a_token_cannot_take_the_places_of_those_with_one():
    async with webhook(topics=[TOPIC], limits=Limits(without_token=1)) as hook:
        head = b"POST /events HTTP/1.1\r\nHost: x\r\nx-amz-sns-message-type: Notification\r\nContent-Length: 9\r\n\r\n"
        _, writer = await asyncio.open_connection(HOST, hook.port)
        writer.write(head)
        while (await hook.ask(b"{}", headers=SNS))[0] != 503:
            await asyncio.sleep(0.01)
        assert (await hook.ask(told("k"), headers=KNOWN))[0] == 200
        writer.close()


# SNS


async def test_a_message_of_sns_of_an_allowed_topic_needs_no_token():
    async with webhook(topics=[TOPIC]) as hook:
        status, _, document = await hook.ask(json.dumps(message(Message=told("a+b", source="aws:s3"))), headers=SNS)
        assert (status, document) == (200, {"changes": 1, "set_aside": 0})
        assert hook.queue.keys == ["a b"]


@pytest.mark.parametrize("headers", [SNS, {**SNS, **KNOWN}, KNOWN])
async def test_a_message_of_sns_is_proved_whoever_brings_it(headers):
    forged = {**message(), "Message": told("k")}
    async with webhook(topics=[TOPIC]) as hook:
        status, _, document = await hook.ask(json.dumps(forged), headers=headers)
        assert (status, document["error"]) == (403, "Signature is not of this message")
        assert hook.queue.bodies == []


@pytest.mark.parametrize(
    ("added", "keys"),
    [
        ({"Event": "s3:TestEvent"}, ["good"]),
        ({"action": "PutObject", "bucket": "b", "object": {"key": "evil"}}, ["good"]),
        ({"detail-type": "x", "source": "aws.s3", "detail": {"object": {"key": "evil"}}}, ["good"]),
        ({"Records": json.loads(told("evil"))["Records"]}, []),
    ],
)
async def test_fields_that_are_not_signed_are_not_believed(added, keys):
    async with webhook(topics=[TOPIC]) as hook:
        status, _, _ = await hook.ask(json.dumps({**message(Message=told("good")), **added}), headers=SNS)
        assert (status, hook.queue.keys) == (200 if keys else 401, keys)


async def test_without_allowed_topics_nothing_of_sns_is_taken_not_even_with_the_token():
    async with webhook() as hook:
        status, _, document = await hook.ask(json.dumps(message(Message=told("k"))), headers={**SNS, **KNOWN})
        assert status == 403
        assert "SNS_TOPICS" in document["error"]
        assert hook.queue.bodies == hook.sns.asked == []


async def test_what_sns_delivers_raw_needs_the_token_since_it_is_not_signed():
    raw = {**SNS, "x-amz-sns-rawdelivery": "true"}
    async with webhook(topics=[TOPIC]) as hook:
        assert (await hook.ask(told("k"), headers=raw))[0] == 401
        assert hook.queue.bodies == []
        assert (await hook.ask(told("k"), headers={**raw, **KNOWN}))[0] == 200
        assert hook.queue.keys == ["k"]


@pytest.mark.parametrize("ahead", [TOO_OLD + 300, -3600])
async def test_a_message_of_sns_at_the_wrong_time_is_to_be_sent_again_as_it_may_be_our_clock(ahead, caplog):
    async with webhook(topics=[TOPIC]) as hook:
        hook.sns.now += ahead
        assert (await hook.ask(json.dumps(message(Message=told("k"))), headers=SNS))[0] == 503
        assert hook.queue.bodies == []
    assert "is the clock here right?" in caplog.text


async def test_a_certificate_that_cannot_be_fetched_is_a_reason_to_send_again():
    async with webhook(topics=[TOPIC]) as hook:
        del hook.sns.answers[CERTIFICATE]
        status, got, _ = await hook.ask(json.dumps(message(Message=told("k"))), headers=SNS)
        assert (status, got["Retry-After"]) == (503, "5")


async def test_a_subscription_to_an_allowed_topic_is_confirmed_and_to_another_is_not():
    async with webhook(topics=[TOPIC]) as hook:
        document = message("SubscriptionConfirmation")
        assert (await hook.ask(json.dumps(document), headers=SNS))[0] == 200
        assert hook.sns.asked == [CERTIFICATE, document["SubscribeURL"]]
        other = message("SubscriptionConfirmation", TopicArn=TOPIC + "2")
        assert (await hook.ask(json.dumps(other), headers=SNS))[0] == 403
        assert len(hook.sns.asked) == 2
        assert hook.queue.bodies == []


@pytest.mark.parametrize("inner", ['{"replicator":"keys","route":"r","keys":["k"]}', "hello", "[]"])
async def test_a_message_of_sns_that_is_no_notification_of_a_store_is_refused(inner):
    async with webhook(topics=[TOPIC]) as hook:
        assert (await hook.ask(json.dumps(message(Message=inner)), headers=SNS))[0] == 400
        assert hook.queue.bodies == []


# Secrets


BROKEN = [
    b"POST /events?token=%s HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 9000 + b"\r\n\r\n",
    b"POST /events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s" + b"a" * 9000 + b"\r\n\r\n",
    b"POST /events?token=%s\0 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /events?token=%s" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST http://[bad?token=%s HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /events HTTP/1.1\r\nHost: x\r\nAuthorization %s\r\n\r\n",
    b"POST /events HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%s\r\n",
    b"\x16\x03\x01 %s\r\n\r\n",
]


@pytest.mark.parametrize("request_line", BROKEN)
async def test_a_request_that_is_no_http_is_refused_and_its_token_is_not_logged(request_line, caplog):
    caplog.set_level(logging.DEBUG)
    async with webhook() as hook:
        await hook.raw(request_line.replace(b"%s", TOKEN.encode()))
        assert (await hook.ask(told("k"), headers=KNOWN))[0] == 200
    assert TOKEN not in caplog.text


async def test_an_error_of_ours_is_logged_without_the_token_and_answered_with_500(caplog):
    async with webhook() as hook:
        hook.queue.error = ZeroDivisionError("a bug")
        status = await asyncio.to_thread(_status_of, hook.port, f"/events?token={TOKEN}", told("k"))
        assert status == 500
    assert "ZeroDivisionError" in caplog.text
    assert TOKEN not in caplog.text


def _status_of(port, path, body):
    connection = http.client.HTTPConnection(HOST, port, timeout=SECONDS)
    try:
        connection.request("POST", path, body=body)
        return connection.getresponse().status
    finally:
        connection.close()


async def test_nothing_that_is_answered_or_logged_shows_the_token(caplog):
    caplog.set_level(logging.DEBUG)
    async with webhook(topics=[TOPIC]) as hook:
        for body in (b"", b"{", told("k" * 1025), json.dumps(message()), told("k")):
            for path in ("/events", f"/events?token={TOKEN}", f"/other?token={TOKEN}"):
                assert TOKEN not in str(await hook.ask(body, path=path, headers=KNOWN))
    assert TOKEN not in caplog.text


def test_an_endpoint_without_a_token_is_not_begun():
    with pytest.raises(ConfigurationError, match="EVENTS_TOKEN"):
        events_application(Taking(), "", metrics=Metrics())


# A store


async def test_events_of_a_real_rgw_arrive_with_their_awkward_keys(rgw_endpoint):
    keys = ["in/a b+ü%2F.txt", "plain", "a//b"]
    bucket, client = new_bucket(rgw_endpoint), boto_client(rgw_endpoint)
    async with webhook() as hook:
        await asyncio.to_thread(_notify, rgw_endpoint, bucket, f"http://{HOST}:{hook.port}/events?token={TOKEN}")
        for key in keys:
            await asyncio.to_thread(client.put_object, Bucket=bucket, Key=key, Body=b"x")
        await asyncio.to_thread(client.delete_object, Bucket=bucket, Key="plain")
        assert set(keys) <= set(hook.queue.keys)
        assert hook.counted(200) == 4
        assert hook.counted(400) == hook.counted(401) == 0


def _notify(endpoint, bucket, url):
    """Has RGW tell of every change; it waits for the answer, as the topic is not persistent."""
    sns = boto3.client(
        "sns",
        endpoint_url=endpoint.url,
        region_name=endpoint.region,
        aws_access_key_id=endpoint.access_key,
        aws_secret_access_key=endpoint.secret_key,
        config=Config(retries={"max_attempts": 1}),
    )
    topic = sns.create_topic(Name=bucket, Attributes={"push-endpoint": url})["TopicArn"]
    events = ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]
    boto_client(endpoint).put_bucket_notification_configuration(
        Bucket=bucket,
        NotificationConfiguration={"TopicConfigurations": [{"Id": "hook", "TopicArn": topic, "Events": events}]},
    )


# What is fetched


async def test_what_is_fetched_is_the_body_of_a_good_answer():
    body = b"pem" * 10_000
    async with HttpServer(hanging_up_after(ok(body))) as server:
        assert await fetch(f"{server.url}/a.pem?Token=t0ken") == body
    (request,) = server.requests
    assert (request.method, request.target) == ("GET", "/a.pem?Token=t0ken")


@pytest.mark.parametrize(
    "answer",
    [
        ok(b"x", status="404 Not Found"),
        ok(b"x" * (LARGEST + 1)),
        ok(b"x" * 9)[:-1],
        b"nonsense\r\n\r\n",
        b"",
    ],
)
async def test_any_other_answer_is_an_error_that_shows_no_more_than_the_host(answer):
    async with HttpServer(hanging_up_after(answer)) as server:
        with pytest.raises(NotFetched) as raised:
            await fetch(f"{server.url}/a.pem?Token=t0ken")
    assert HOST in str(raised.value)
    assert "t0ken" not in str(raised.value)


async def test_nobody_is_led_elsewhere():
    led = ok(b"", "Location: /elsewhere", status="302 Found")
    async with HttpServer(hanging_up_after(led), hanging_up_after(ok(b"pem"))) as server:
        with pytest.raises(NotFetched, match="302"):
            await fetch(f"{server.url}/a.pem")
    assert [request.target for request in server.requests] == ["/a.pem"]


async def test_an_answer_that_does_not_come_is_not_waited_for():
    async with HttpServer(Talk.closed) as server:
        with pytest.raises(NotFetched, match=HOST):
            await fetch(server.url, seconds=0.1)
