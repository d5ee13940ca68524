"""The servers the other tests rely on start, keep what is put into them, and are gone afterwards."""

import signal
import sys

import boto3
import pytest
from botocore.config import Config

from tests.servers import Endpoint, ServerError, base, rclone

PATH_STYLE = Config(s3={"addressing_style": "path"}, request_checksum_calculation="when_required")

SERVERS = [
    "moto_endpoint",
    "rclone_endpoint",
    "second_rclone_endpoint",
    "rgw_endpoint",
    "second_rgw_endpoint",
    "swift_endpoint",
]


def s3_client(endpoint: Endpoint):
    return boto3.client(
        "s3",
        endpoint_url=endpoint.url,
        region_name=endpoint.region,
        aws_access_key_id=endpoint.access_key,
        aws_secret_access_key=endpoint.secret_key,
        config=PATH_STYLE,
    )


@pytest.mark.parametrize("fixture", SERVERS)
def test_a_server_gives_back_what_was_put(fixture, request):
    s3 = s3_client(request.getfixturevalue(fixture))
    s3.create_bucket(Bucket="round-trip")
    s3.put_object(Bucket="round-trip", Key="a/b.txt", Body=b"hello", Metadata={"colour": "green"})

    got = s3.get_object(Bucket="round-trip", Key="a/b.txt")

    assert got["Body"].read() == b"hello"
    assert {name.lower(): value for name, value in got["Metadata"].items()} == {"colour": "green"}
    s3.delete_object(Bucket="round-trip", Key="a/b.txt")
    s3.delete_bucket(Bucket="round-trip")
    s3.close()


def test_two_servers_of_one_kind_share_nothing(rclone_endpoint, second_rclone_endpoint):
    first, second = s3_client(rclone_endpoint), s3_client(second_rclone_endpoint)
    first.create_bucket(Bucket="only-here")

    assert "only-here" in [bucket["Name"] for bucket in first.list_buckets()["Buckets"]]
    assert "only-here" not in [bucket["Name"] for bucket in second.list_buckets()["Buckets"]]
    first.close()
    second.close()


def test_rclone_serves_a_folder(tmp_path):
    (tmp_path / "data" / "shelf").mkdir(parents=True)
    (tmp_path / "data" / "shelf" / "book.txt").write_bytes(b"pages")
    with rclone.serve(tmp_path, folder=tmp_path / "data") as endpoint:
        s3 = s3_client(endpoint)
        assert s3.get_object(Bucket="shelf", Key="book.txt")["Body"].read() == b"pages"
        s3.close()


def test_a_stopped_server_no_longer_answers(tmp_path):
    with rclone.serve(tmp_path) as endpoint:
        port = int(endpoint.url.rpartition(":")[2])
        assert base.accepts(port)
    assert not base.accepts(port)


def test_a_server_that_ends_while_starting_is_an_error_with_its_last_words(tmp_path):
    command = [sys.executable, "-c", "print('no such device'); raise SystemExit(3)"]
    with (
        pytest.raises(ServerError, match=r"(?s)frail ended while starting.*no such device"),
        base.running("frail", command, state=tmp_path, ready=lambda: False),
    ):
        pytest.fail("it never was ready")


def test_a_server_that_never_answers_is_an_error(tmp_path):
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    server = base.start("mute", command, state=tmp_path)
    with pytest.raises(ServerError, match="mute does not answer"):
        base.wait_until_ready(server, lambda: False, seconds=0.2)
    server.stop()
    assert not server.alive


def test_stopping_ends_the_workers_too_even_those_that_ignore_the_signal(tmp_path):
    port = base.free_port()
    worker = (
        "import signal, socket, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        f"listening = socket.create_server(('127.0.0.1', {port})); time.sleep(60)"
    )
    parent = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {worker!r}]); time.sleep(60)"
    server = base.start("family", [sys.executable, "-c", parent], state=tmp_path)
    base.wait_until_ready(server, lambda: base.accepts(port))

    server.stop(signal.SIGTERM, patience=0.2)

    assert not server.alive
    assert not base.accepts(port)
