"""replicator connect and disconnect at real servers: what the bucket then tells whom, and what of others is left alone.

At Ceph RGW a receiver on this machine is called; what docs/CONNECT.md says of these calls is held to here.
"""

from __future__ import annotations

import json
import threading
import time
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
import pytest

from replicator.aws.clients import Clients
from replicator.aws.notifications import connect, disconnect
from replicator.cli.main import main
from replicator.errors import ConfigurationError, Refused
from replicator.events import parse_message
from replicator.notifications import ALWAYS, topic_name
from tests.servers.base import HOST, Endpoint, free_port
from tests.servers.lab import boto_client, new_bucket

pytestmark = pytest.mark.timeout(300)

SECONDS = 120
ID = "replicator-1"
LAMBDA = "arn:aws:lambda:us-east-1:123456789012:function:thumbnails"
SAMPLE = Path(__file__).parents[1] / "events" / "rgw_http_put.json"


class Keeper:
    """A store that gives back the XML that was put; moto does not show EventBridge. puts: headers of each PUT."""

    def __init__(self, document=b"<NotificationConfiguration/>"):
        self.document = document
        self.puts = []
        kept = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                self.answer(kept.document)

            def do_PUT(self):
                kept.document = self.rfile.read(int(self.headers["Content-Length"]))
                kept.puts.append({name.lower(): value for name, value in self.headers.items()})
                self.answer(b"")

            def answer(self, body):
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer((HOST, 0), Handler)
        address = f"http://{HOST}:{self.server.server_address[1]}"
        self.endpoint = Endpoint(name="keeper", url=address, access_key="id", secret_key="hush")


class Receiver:
    """What was posted to it: paths, headers and bodies, in order."""

    def __init__(self, port):
        self.requests = []
        self.status = 200
        seen = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                seen.requests.append((self.path, {n.lower(): v for n, v in self.headers.items()}, json.loads(body)))
                self.send_response(seen.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer((HOST, port), Handler)
        self.url = f"http://{HOST}:{self.server.server_address[1]}"

    def told(self):
        records = [record for _, _, body in list(self.requests) for record in body["Records"]]
        return [(record["eventName"], record["s3"]["object"]["key"]) for record in records]

    def wait_for(self, wanted):
        """Waits until all of `wanted` was told, each at least once; what else was told is returned as well."""
        deadline = time.monotonic() + SECONDS
        while not set(wanted) <= set(self.told()):
            assert time.monotonic() < deadline, f"told only {self.told()}"
            time.sleep(0.02)
        return self.told()


@contextmanager
def answering(one):
    """Answers requests within the block."""
    thread = threading.Thread(target=one.server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield one
    finally:
        one.server.shutdown()
        thread.join()
        one.server.server_close()


def receiving(port=0):
    return answering(Receiver(port))


@pytest.fixture
def receiver():
    with receiving() as one:
        yield one


def clients_of(endpoint):
    return Clients(access_key_id=endpoint.access_key, secret_access_key=endpoint.secret_key)


@pytest.fixture
def rgw(rgw_endpoint):
    with closing(boto_client(rgw_endpoint)) as client:
        yield client


@pytest.fixture
def moto(moto_endpoint):
    with closing(boto_client(moto_endpoint)) as client:
        yield client


@pytest.fixture
def queue(moto_endpoint):
    """(URL, ARN) of a new queue."""
    with closing(service(moto_endpoint, "sqs")) as sqs:
        url = sqs.create_queue(QueueName=f"q{free_port()}")["QueueUrl"]
        yield url, sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]


def service(endpoint, name):
    keys = {"aws_access_key_id": endpoint.access_key, "aws_secret_access_key": endpoint.secret_key}
    return boto3.client(name, endpoint_url=endpoint.url, region_name=endpoint.region, **keys)


def configuration(client, bucket):
    answer = client.get_bucket_notification_configuration(Bucket=bucket)
    return {name: value for name, value in answer.items() if name != "ResponseMetadata"}


@pytest.fixture
def as_source(monkeypatch):
    """Has the command line use an endpoint."""

    def use(endpoint):
        monkeypatch.setenv("SOURCE_ENDPOINT", endpoint.url)
        monkeypatch.setenv("SOURCE_ACCESS_KEY_ID", endpoint.access_key)
        monkeypatch.setenv("SOURCE_SECRET_ACCESS_KEY", endpoint.secret_key)

    return use


# ------------------------------------------------------------------------------------------------ Ceph RGW


def test_rgw_calls_a_url_for_each_change_and_no_longer_after_disconnect(rgw, rgw_endpoint, receiver):
    bucket, clients = new_bucket(rgw_endpoint), clients_of(rgw_endpoint)
    url = f"{receiver.url}/events?token=a%2Fb"
    said = connect(rgw, bucket, url, id=ID, persistent=False, clients=clients)
    assert "does not tell of changes of tags: reconciliation has to find them" in "\n".join(said)
    assert "token" not in "\n".join(said)

    rgw.put_object(Bucket=bucket, Key="2026/ä + 50% #1.txt", Body=b"hello", Metadata={"run": "42"}, Tagging="a=b")
    rgw.copy_object(Bucket=bucket, Key="copied", CopySource={"Bucket": bucket, "Key": "2026/ä + 50% #1.txt"})
    upload = rgw.create_multipart_upload(Bucket=bucket, Key="parts")["UploadId"]
    part = rgw.upload_part(Bucket=bucket, Key="parts", UploadId=upload, PartNumber=1, Body=b"x")
    rgw.complete_multipart_upload(
        Bucket=bucket,
        Key="parts",
        UploadId=upload,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
    )
    rgw.put_object_tagging(Bucket=bucket, Key="copied", Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})
    rgw.delete_object(Bucket=bucket, Key="copied")
    rgw.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    rgw.delete_object(Bucket=bucket, Key="parts")

    # A topic that is not persistent is called before the client is answered: nothing has to be waited for.
    assert receiver.told() == [
        ("ObjectCreated:Put", "2026/ä + 50% #1.txt"),
        ("ObjectCreated:Copy", "copied"),
        ("ObjectCreated:CompleteMultipartUpload", "parts"),
        ("ObjectRemoved:Delete", "copied"),
        ("ObjectRemoved:DeleteMarkerCreated", "parts"),
    ]
    path, headers, body = receiver.requests[0]
    assert path == "/events?token=a%2Fb"
    assert set(headers) == {"host", "accept", "content-type", "content-length"}
    assert headers["content-type"] == "application/json"
    assert shape(body) == shape(json.loads(SAMPLE.read_text()))
    assert parse_message(json.dumps(body)).changes[0].candidates[0] == "2026/ä + 50% #1.txt"

    assert disconnect(rgw, bucket, id=ID, clients=clients) == [
        f"{bucket}: removed {ID}",
        f"topic {topic_name(bucket, ID)}: removed",
    ]
    rgw.put_object(Bucket=bucket, Key="afterwards", Body=b"x")
    assert len(receiver.requests) == 5
    assert disconnect(rgw, bucket, id=ID, clients=clients) == []


def shape(value):
    """The names and types in a document, without what they are."""
    if isinstance(value, dict):
        return {name: shape(one) for name, one in value.items()}
    return [shape(one) for one in value] if isinstance(value, list) else type(value).__name__


def test_rgw_tells_only_of_keys_below_the_prefix_and_leaves_what_others_have(rgw, rgw_endpoint, receiver):
    bucket, clients = new_bucket(rgw_endpoint), clients_of(rgw_endpoint)
    with receiving() as other:
        connect(rgw, bucket, other.url, id="theirs", persistent=False, clients=clients)
        before = configuration(rgw, bucket)
        connect(rgw, bucket, receiver.url, prefix="in/", id=ID, persistent=False, clients=clients)
        assert connect(rgw, bucket, receiver.url, prefix="in/", id=ID, persistent=False, clients=clients) == []

        rgw.put_object(Bucket=bucket, Key="in/a", Body=b"x")
        rgw.put_object(Bucket=bucket, Key="out/a", Body=b"x")

        assert receiver.told() == [("ObjectCreated:Put", "in/a")]
        assert other.told() == [("ObjectCreated:Put", "in/a"), ("ObjectCreated:Put", "out/a")]
        disconnect(rgw, bucket, id=ID, clients=clients)
        assert configuration(rgw, bucket) == before
        rgw.put_object(Bucket=bucket, Key="in/b", Body=b"x")
        assert other.told()[-1] == ("ObjectCreated:Put", "in/b")


def test_rgw_calls_the_new_url_when_it_is_changed(rgw, rgw_endpoint, receiver):
    bucket, clients = new_bucket(rgw_endpoint), clients_of(rgw_endpoint)
    with receiving() as old:
        connect(rgw, bucket, old.url, id=ID, persistent=False, clients=clients)
        assert connect(rgw, bucket, receiver.url, id=ID, persistent=False, clients=clients) != []
        rgw.put_object(Bucket=bucket, Key="a", Body=b"x")
        assert (old.told(), receiver.told()) == ([], [("ObjectCreated:Put", "a")])


def test_the_url_of_a_topic_that_keeps_what_was_not_taken_is_not_changed(rgw, rgw_endpoint):
    """Seen: what waits goes on to the old URL for ever, and all that is behind it is sent again each time."""
    bucket, clients = new_bucket(rgw_endpoint), clients_of(rgw_endpoint)
    old, new = f"http://{HOST}:9/old?token=hush", f"http://{HOST}:9/new"
    connect(rgw, bucket, old, id=ID, clients=clients)
    assert connect(rgw, bucket, old, id=ID, clients=clients) == []
    with pytest.raises(Refused, match=f"calls http://{HOST}:9/old and keeps what was not taken") as refusal:
        connect(rgw, bucket, new, id=ID, clients=clients)
    assert "hush" not in str(refusal.value)
    assert connect(rgw, bucket, old, id=ID, clients=clients) == []
    connect(rgw, bucket, new, id="replicator-2", clients=clients)
    disconnect(rgw, bucket, id=ID, clients=clients)
    assert [one["Id"] for one in configuration(rgw, bucket)["TopicConfigurations"]] == ["replicator-2"]


@pytest.mark.slow
def test_rgw_keeps_what_a_webhook_did_not_take(rgw, rgw_endpoint):
    """A new persistent topic is called up to 30 s late: RGW looks for new queues that often."""
    bucket, clients, port = new_bucket(rgw_endpoint), clients_of(rgw_endpoint), free_port()
    connect(rgw, bucket, f"http://{HOST}:{port}/", id=ID, clients=clients)
    rgw.put_object(Bucket=bucket, Key="while-away", Body=b"x")
    with receiving(port) as receiver:
        receiver.status = 503
        receiver.wait_for([("ObjectCreated:Put", "while-away")])
        receiver.status = 200
        rgw.delete_object(Bucket=bucket, Key="while-away")
        receiver.wait_for([("ObjectRemoved:Delete", "while-away")])
        disconnect(rgw, bucket, id=ID, clients=clients)


def test_at_rgw_the_same_id_for_another_topic_is_refused_and_nothing_made(rgw, rgw_endpoint, receiver):
    bucket, clients = new_bucket(rgw_endpoint), clients_of(rgw_endpoint)
    with closing(service(rgw_endpoint, "sns")) as sns:
        arn = sns.create_topic(Name="by-hand", Attributes={"push-endpoint": receiver.url})["TopicArn"]
        connect(rgw, bucket, arn, id=ID, clients=clients)
        before = configuration(rgw, bucket), topics(sns)
        with pytest.raises(Refused, match=f"{ID} tells {arn} already"):
            connect(rgw, bucket, receiver.url, id=ID, clients=clients)
        assert (configuration(rgw, bucket), topics(sns)) == before
        assert disconnect(rgw, bucket, id=ID, clients=clients) == [f"{bucket}: removed {ID}"]
        assert arn in topics(sns), "a topic that was not made here is not removed either"


def topics(sns):
    return {topic["TopicArn"] for topic in sns.list_topics()["Topics"]}


@pytest.mark.parametrize(
    ("destination", "why"),
    [
        ("http://user:hush@127.0.0.1:9/events?token=hush", "only when asked over https"),
        ("arn:aws:sns:default::no-such-topic", "cannot tell arn:aws:sns:default::no-such-topic: NoSuchKey"),
        ("EVENTBRIDGE", "has no EventBridge"),
    ],
)
def test_what_rgw_cannot_tell_is_refused_in_words(rgw, rgw_endpoint, destination, why):
    bucket = new_bucket(rgw_endpoint)
    with pytest.raises(ConfigurationError, match=why) as refusal:
        connect(rgw, bucket, destination, id=ID, clients=clients_of(rgw_endpoint))
    assert "hush" not in str(refusal.value)
    assert configuration(rgw, bucket) == {}


def test_the_commands_say_what_they_do_and_that_there_is_nothing_to_do(rgw, rgw_endpoint, receiver, as_source, capsys):
    as_source(rgw_endpoint)
    bucket = new_bucket(rgw_endpoint)
    arguments = [f"s3://{bucket}/in", f"{receiver.url}/events?token=hush", "--no-persistent", "--id", "x"]
    assert main(["connect", *arguments, "--dry-run"]) == 0
    assert configuration(rgw, bucket) == {}
    would = capsys.readouterr().out
    assert main(["connect", *arguments]) == 0
    done = capsys.readouterr().out
    assert all(line.startswith("would change: ") for line in would.splitlines())
    assert would.splitlines()[0] == "would change: " + done.splitlines()[0]
    assert main(["connect", *arguments]) == 0
    assert capsys.readouterr().out == "nothing to do\n"
    assert [one["Id"] for one in configuration(rgw, bucket)["TopicConfigurations"]] == ["replicator-x"]
    assert main(["disconnect", f"s3://{bucket}/in", "--id", "x"]) == 0
    assert main(["disconnect", f"s3://{bucket}/in", "--id", "x"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "nothing to do"
    assert "hush" not in would + done


# ------------------------------------------------------------------------------------------------ SQS, SNS, EventBridge


def test_a_queue_is_told_beside_what_others_have(moto, moto_endpoint, queue):
    bucket, (_, arn) = new_bucket(moto_endpoint), queue
    theirs = {
        "LambdaFunctionConfigurations": [
            {
                "Id": "thumbnails",
                "LambdaFunctionArn": LAMBDA,
                "Events": ["s3:ObjectCreated:Put"],
                "Filter": {
                    "Key": {"FilterRules": [{"Name": "suffix", "Value": ".jpg"}, {"Name": "prefix", "Value": "a/"}]}
                },
            }
        ],
        "EventBridgeConfiguration": {},
    }
    moto.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=theirs)
    before = configuration(moto, bucket)

    assert connect(moto, bucket, arn, prefix="b/", id=ID) == [f"s3://{bucket}/b/: tells {arn} of its changes, as {ID}"]
    now = configuration(moto, bucket)
    (ours,) = now.pop("QueueConfigurations")
    assert now == before
    assert (ours["Id"], ours["QueueArn"]) == (ID, arn)
    assert set(ours["Events"]) > set(ALWAYS)
    assert ours["Filter"]["Key"]["FilterRules"] == [{"Name": "prefix", "Value": "b/"}]
    assert connect(moto, bucket, arn, prefix="b/", id=ID) == []

    assert disconnect(moto, bucket, id=ID) == [f"{bucket}: removed {ID}"]
    assert configuration(moto, bucket) == before
    assert disconnect(moto, bucket, id=ID) == []


def test_an_overlap_is_refused_and_nothing_changed(moto, moto_endpoint, queue):
    bucket = new_bucket(moto_endpoint)
    connect(moto, bucket, queue[1], id="replicator-first")
    before = configuration(moto, bucket)
    with pytest.raises(Refused, match="replicator-first already tells"):
        connect(moto, bucket, queue[1], prefix="photos/", id=ID)
    assert configuration(moto, bucket) == before


def test_a_queue_may_be_given_by_its_url_and_hears_of_changes(moto, moto_endpoint, queue):
    bucket, (url, arn) = new_bucket(moto_endpoint), queue
    connect(moto, bucket, url, id=ID, clients=clients_of(moto_endpoint))
    assert configuration(moto, bucket)["QueueConfigurations"][0]["QueueArn"] == arn
    moto.put_object(Bucket=bucket, Key="a b", Body=b"x")
    with closing(service(moto_endpoint, "sqs")) as sqs:
        bodies = [one["Body"] for one in sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]]
    keys = [key for body in bodies for change in parse_message(body).changes for key in change.candidates]
    assert set(keys) == {"a b"}


def test_a_url_of_no_queue_is_refused_in_words(moto, moto_endpoint):
    bucket = new_bucket(moto_endpoint)
    with pytest.raises(ConfigurationError, match="there is no such queue"):
        connect(moto, bucket, f"{moto_endpoint.url}/123456789012/none", id=ID, clients=clients_of(moto_endpoint))


def test_a_topic_of_sns_is_told(moto, moto_endpoint):
    bucket = new_bucket(moto_endpoint)
    with closing(service(moto_endpoint, "sns")) as sns:
        arn = sns.create_topic(Name="all")["TopicArn"]
    connect(moto, bucket, arn, id=ID)
    assert [one["TopicArn"] for one in configuration(moto, bucket)["TopicConfigurations"]] == [arn]


def test_event_bridge_is_only_switched_off_by_its_name(as_source, capsys):
    with answering(Keeper()) as store, closing(boto_client(store.endpoint)) as client:
        as_source(store.endpoint)
        assert main(["connect", "the-bucket/photos", "EVENTBRIDGE"]) == 0
        assert "have its rule match photos/" in capsys.readouterr().err
        assert configuration(client, "the-bucket") == {"EventBridgeConfiguration": {}}
        assert main(["disconnect", "the-bucket"]) == 0
        assert configuration(client, "the-bucket") == {"EventBridgeConfiguration": {}}
        assert main(["disconnect", "the-bucket", "EVENTBRIDGE"]) == 0
        assert configuration(client, "the-bucket") == {}


def test_a_target_of_minio_is_told_and_event_bridge_stays():
    with answering(Keeper()) as store, closing(boto_client(store.endpoint)) as client:
        connect(client, "the-bucket", "EVENTBRIDGE", id=ID)
        connect(client, "the-bucket", "arn:minio:sqs::replicator:webhook", id=ID)
        now = configuration(client, "the-bucket")
        assert now["EventBridgeConfiguration"] == {}
        assert [one["QueueArn"] for one in now["QueueConfigurations"]] == ["arn:minio:sqs::replicator:webhook"]
        disconnect(client, "the-bucket", id=ID)
        assert configuration(client, "the-bucket") == {"EventBridgeConfiguration": {}}


def test_destinations_are_validated_when_ours_comes_and_not_when_it_goes():
    """AWS tries the destinations of others too: one of theirs that is gone must not keep ours from being removed."""
    with answering(Keeper()) as store, closing(boto_client(store.endpoint)) as client:
        connect(client, "the-bucket", "arn:aws:sqs:us-east-1:123456789012:q", id=ID)
        disconnect(client, "the-bucket", id=ID)
        assert [put.get("x-amz-skip-destination-validation") for put in store.puts] == ["false", "true"]


def test_what_boto3_would_drop_is_not_written_back():
    """Old versions of boto3 dropped EventBridge in this way."""
    document = b"<NotificationConfiguration><NewConfiguration><Id>x</Id></NewConfiguration></NotificationConfiguration>"
    with answering(Keeper(document)) as store, closing(boto_client(store.endpoint)) as client:
        with pytest.raises(Refused, match="contain NewConfiguration"):
            connect(client, "the-bucket", "arn:aws:sqs:us-east-1:123456789012:q", id=ID)
        assert store.document == document


def test_a_webhook_is_only_for_rgw(moto, moto_endpoint):
    bucket = new_bucket(moto_endpoint)
    with pytest.raises(ConfigurationError, match="only Ceph RGW calls a URL"):
        connect(moto, bucket, "http://127.0.0.1:9/events?token=hush", id=ID)
    assert configuration(moto, bucket) == {}


def test_a_bucket_that_is_not_there_is_no_crash(moto_endpoint, as_source, capsys):
    as_source(moto_endpoint)
    assert main(["connect", "no-such-bucket", "EVENTBRIDGE"]) == 2
    assert capsys.readouterr().err == "replicator: no-such-bucket: there is no such bucket\n"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["connect", "the-bucket", "somewhere"], "DESTINATION: is none that a bucket can tell"),
        (["connect", "the-bucket", "EVENTBRIDGE", "--id", "a b"], "--id 'a b': must be"),
        (["disconnect", "the-bucket", "arn:aws:sqs:us-east-1:123456789012:q"], "no destination but EVENTBRIDGE"),
        (
            ["connect", "name:the-bucket", "EVENTBRIDGE", "--source-endpoint", "http://h"],
            "its endpoint is in replicator.toml",
        ),
    ],
)
def test_wrong_usage_is_told_before_anything_is_asked(arguments, why, monkeypatch, capsys):
    monkeypatch.setenv("SOURCE_ENDPOINT", f"http://{HOST}:1")
    assert main(arguments) == 2
    assert why in capsys.readouterr().err
