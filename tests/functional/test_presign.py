"""Presigned URLs, tried by plain HTTP as anybody would who was given one: no client of ours or boto3's takes part."""

from __future__ import annotations

import http.client
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from replicator.errors import ConfigurationError
from replicator.s3.presigning import KEYS_LAST, Presigner
from replicator.sides import Side
from replicator.urls import UrlPolicy
from tests.awkward import AWKWARD_KEYS
from tests.servers.lab import boto_client, new_bucket

ROOT = Path(__file__).parents[2]
SECONDS = 60
AWS = Side(role="target", bucket="the-bucket", access_key_id="id", secret_access_key="hush")


def ask(url, method="GET", body=None):
    """(status, headers, body) of the request that a URL stands for, its path sent byte for byte."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=SECONDS)
    try:
        connection.request(method, f"{parts.path}?{parts.query}", body=body)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def side_of(endpoint, bucket, **more):
    keys = {"access_key_id": endpoint.access_key, "secret_access_key": endpoint.secret_key}
    return Side(role="target", bucket=bucket, endpoint=endpoint.url, region=endpoint.region, **keys | more)


@pytest.fixture(scope="module", params=["rgw", "moto"])
def endpoint(request):
    return request.getfixturevalue(f"{request.param}_endpoint")


@pytest.fixture(scope="module")
def bucket(endpoint):
    return new_bucket(endpoint)


@pytest.fixture(scope="module")
def client(endpoint):
    return boto_client(endpoint)


@pytest.fixture(scope="module")
def rgw_side(rgw_endpoint):
    """At a store that checks signatures, with an object `key`."""
    bucket = new_bucket(rgw_endpoint)
    boto_client(rgw_endpoint).put_object(Bucket=bucket, Key="key", Body=b"data", ContentType="text/plain")
    return side_of(rgw_endpoint, bucket)


@pytest.mark.parametrize("key", AWKWARD_KEYS)
def test_an_object_of_any_key_is_put_and_got(endpoint, bucket, client, key):
    if endpoint.name == "moto" and "\n" in key:
        pytest.skip("moto finds no route for a path with a line break")
    side, data = side_of(endpoint, bucket), f"data of {key}".encode()
    status, _, said = ask(Presigner(side).presign(key, method="put", expires=60), "PUT", data)
    assert status == 200, said
    listed = client.list_objects_v2(Bucket=bucket).get("Contents", [])
    assert key in {entry["Key"] for entry in listed}
    assert ask(Presigner(side).presign(key, method="get", expires=60))[::2] == (200, data)
    client.delete_object(Bucket=bucket, Key=key)


def test_a_key_is_below_the_prefix_of_its_side(endpoint, bucket, client):
    client.put_object(Bucket=bucket, Key="a dir/key", Body=b"below")
    below = side_of(endpoint, bucket, prefix="a dir/")
    assert ask(Presigner(below).presign("key", method="get", expires=60))[::2] == (200, b"below")


@pytest.mark.parametrize("name", ["plain.pdf", 'a "b"; 5%.pdf', "übung & 日本.pdf", "plus+and=.pdf"])
def test_the_name_of_a_download_comes_back_in_a_header(endpoint, bucket, client, name):
    client.put_object(Bucket=bucket, Key="download", Body=b"x")
    side = side_of(endpoint, bucket)
    status, headers, _ = ask(Presigner(side).presign("download", method="get", expires=60, download_as=name))
    assert status == 200
    encoded = re.fullmatch(r"attachment; filename=\".*\"; filename\*=UTF-8''(.*)", headers["Content-Disposition"])
    assert unquote(encoded[1]) == name


# What a store that checks signatures refuses


@pytest.mark.parametrize(("signed", "tried"), [("get", "PUT"), ("put", "GET"), ("get", "DELETE"), ("put", "DELETE")])
def test_a_url_is_for_one_method(rgw_side, signed, tried):
    url = Presigner(rgw_side).presign("key", method=signed, expires=60)
    assert ask(url, tried, b"other" if tried == "PUT" else None)[0] == 403
    assert ask(Presigner(rgw_side).presign("key", method="get", expires=60))[::2] == (200, b"data")


@pytest.mark.parametrize("method", ["get", "put"])
def test_a_url_ends_when_it_was_said_to(rgw_side, method):
    url = Presigner(rgw_side).presign("expiring", method="put", expires=1)
    url = url if method == "put" else Presigner(rgw_side).presign("key", method="get", expires=1)
    time.sleep(2.5)
    status, _, said = ask(url, method.upper(), b"late" if method == "put" else None)
    assert status == 403, said
    assert ask(Presigner(rgw_side).presign("expiring", method="get", expires=60))[0] == 404


@pytest.mark.parametrize("change", [("/key?", "/kex?"), ("X-Amz-Expires=60", "X-Amz-Expires=6000"), ("a.pdf", "b.pdf")])
def test_a_url_that_was_changed_is_refused(rgw_side, change):
    url = Presigner(rgw_side).presign("key", method="get", expires=60, download_as="a.pdf")
    assert ask(url)[0] == 200
    assert ask(url.replace(*change))[0] == 403


def test_another_key_signs_in_vain(rgw_side, rgw_endpoint):
    wrong = side_of(rgw_endpoint, rgw_side.bucket, secret_access_key="guessed")
    assert ask(Presigner(wrong).presign("key", method="get", expires=60))[0] == 403


# What is signed, and with what


def test_at_aws_the_bucket_is_in_the_host_and_the_region_in_the_signature():
    url = urlsplit(Presigner(AWS).presign("a/b c", method="get", expires=604800))
    assert (url.scheme, url.netloc, url.path) == ("https", "the-bucket.s3.us-east-1.amazonaws.com", "/a/b%20c")
    query = parse_qs(url.query)
    assert query["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"]
    assert query["X-Amz-Credential"][0].endswith("/us-east-1/s3/aws4_request")
    assert (query["X-Amz-Expires"], query["X-Amz-SignedHeaders"]) == (["604800"], ["host"])


@pytest.mark.parametrize(
    ("more", "begin"),
    [
        ({"region": "eu-west-1"}, "https://the-bucket.s3.eu-west-1.amazonaws.com/key?"),
        ({"addressing": "path"}, "https://s3.us-east-1.amazonaws.com/the-bucket/key?"),
        ({"bucket": "with.dots"}, "https://s3.us-east-1.amazonaws.com/with.dots/key?"),
        ({"endpoint": "http://[::1]:9000"}, "http://[::1]:9000/the-bucket/key?"),
        ({"endpoint": "https://there:443/", "addressing": "virtual"}, "https://the-bucket.there/key?"),
    ],
)
def test_the_address_is_the_one_that_the_data_goes_to(more, begin):
    side = Side(
        **{name: getattr(AWS, name) for name in ("role", "bucket", "access_key_id", "secret_access_key")} | more
    )
    assert Presigner(side).presign("key", method="get", expires=1).startswith(begin)


def test_the_token_of_temporary_keys_is_part_of_the_url_and_the_secret_is_not():
    side = Side(role="target", bucket="bbb", access_key_id="id", secret_access_key="hush", session_token="a+token/=")
    url = Presigner(side).presign("key", method="get", expires=1)
    assert parse_qs(urlsplit(url).query)["X-Amz-Security-Token"] == ["a+token/="]
    assert "hush" not in url


@pytest.mark.parametrize(
    ("key", "more", "word"),
    [
        ("key", {"expires": 0}, "7d"),
        ("key", {"expires": 604801}, "7d"),
        ("key", {"method": "put", "download_as": "x"}, "only for get"),
        ("key", {"download_as": "a\nb"}, "download-as"),
        ("", {}, "names no object"),
        ("half \udc80", {}, "UTF-8"),
    ],
)
def test_what_cannot_be_signed_is_refused(key, more, word):
    with pytest.raises(ConfigurationError, match=word):
        Presigner(AWS).presign(key, **{"method": "get", "expires": 60, **more})


def test_keys_are_fetched_anew_for_who_presigns_for_long():
    now, asked = [0.0], []

    def read(secret_id):
        asked.append(secret_id)
        return f'{{"access_key_id": "id-{len(asked)}", "secret_access_key": "hush"}}'

    presigner = Presigner(
        Side(role="target", bucket="bbb", secret_id="in/manager"), read_secret=read, clock=lambda: now[0]
    )
    for now[0], number in ((0.0, 1), (KEYS_LAST, 1), (KEYS_LAST + 1, 2), (2 * KEYS_LAST, 2), (2 * KEYS_LAST + 2, 3)):
        assert f"X-Amz-Credential=id-{number}%2F" in presigner.presign("key", method="get", expires=60)


def test_keys_that_cannot_be_fetched_now_are_an_answer_and_no_secret(caplog):
    now, told = [0.0], ['{"access_key_id": "id", "secret_access_key": "hush"}']

    def read(_):
        if not told:
            raise ConfigurationError("the manager is away")
        return told.pop()

    side = Side(role="target", bucket="bbb", secret_id="in/manager")
    presigner = Presigner(side, read_secret=read, clock=lambda: now[0])
    now[0] = KEYS_LAST + 1
    status, document = presigner.answer(b'{"key": "key"}', UrlPolicy(allowed_prefixes=("*",)))
    assert (status, "later" in document["error"]) == (503, True)
    assert "the manager is away" in caplog.text
    assert "away" not in document["error"]


def test_no_url_is_logged(caplog):
    caplog.set_level("INFO")
    status, document = Presigner(AWS).answer(b'{"key": "key"}', UrlPolicy(allowed_prefixes=("*",)))
    assert (status, document["method"], document["expires"]) == (200, "get", 900)
    assert document["url"].startswith("https://")
    assert caplog.records == []


# The command


def command(*arguments, cwd=None, **variables):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    return subprocess.run(
        [sys.executable, "-m", "replicator", "presign", *arguments],
        env=environment,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def variables_of(endpoint, side="TARGET"):
    return {
        f"{side}_ENDPOINT": endpoint.url,
        f"{side}_ACCESS_KEY_ID": endpoint.access_key,
        f"{side}_SECRET_ACCESS_KEY": endpoint.secret_key,
    }


def printed(done):
    assert (done.returncode, done.stderr) == (0, "")
    (url,) = done.stdout.splitlines()
    return url


@pytest.mark.parametrize("key", ["plain", "dir/", "trailing ", "/leading", "//two", "../up", "a+b %41ü", "a:b"])
def test_the_command_prints_a_url_for_exactly_that_key(rgw_endpoint, rgw_side, key):
    boto_client(rgw_endpoint).put_object(Bucket=rgw_side.bucket, Key=key, Body=key.encode())
    for location in (f"s3://{rgw_side.bucket}/{key}", f"{rgw_side.bucket}/{key}"):
        url = printed(command(location, "--expires", "90s", **variables_of(rgw_endpoint)))
        assert "X-Amz-Expires=90&" in url
        assert ask(url)[::2] == (200, key.encode())


def test_the_command_presigns_uploads_and_names_downloads(rgw_endpoint, rgw_side):
    location, variables = f"s3://{rgw_side.bucket}/uploaded", variables_of(rgw_endpoint)
    assert ask(printed(command(location, "--method", "put", **variables)), "PUT", b"new")[0] == 200
    status, headers, data = ask(printed(command(location, "--download-as", "n.txt", **variables)))
    assert (status, data) == (200, b"new")
    assert headers["Content-Disposition"].startswith('attachment; filename="n.txt"')


def test_the_command_takes_the_source_an_option_or_a_named_endpoint(rgw_endpoint, rgw_side, tmp_path):
    location = f"s3://{rgw_side.bucket}/key"
    assert ask(printed(command(location, "--side", "source", **variables_of(rgw_endpoint, "SOURCE"))))[0] == 200
    variables = {**variables_of(rgw_endpoint), "TARGET_ENDPOINT": "http://nowhere.invalid"}
    assert ask(printed(command(location, "--endpoint", rgw_endpoint.url, **variables)))[0] == 200
    (tmp_path / "replicator.toml").write_text(f'[endpoints.my-ceph]\nurl = "{rgw_endpoint.url}"\n')
    keys = {name: value for name, value in variables_of(rgw_endpoint, "MY_CEPH").items() if "KEY" in name}
    assert ask(printed(command(f"my-ceph:{rgw_side.bucket}/key", cwd=tmp_path, **keys)))[0] == 200


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["s3://the-bucket"], "KEY"),
        (["s3://the-bucket/"], "KEY"),
        (["s3:/the-bucket/key"], "LOCATION"),
        ([""], "LOCATION"),
        (["nowhere:the-bucket/key"], "nowhere"),
        (["nowhere:the-bucket/key", "--region", "eu"], "--region"),
        (["the-bucket/key", "--expires", "8d"], "7d"),
        (["the-bucket/key", "--expires", "0s"], "7d"),
        (["the-bucket/key", "--expires", "1"], "--expires"),
        (["the-bucket/key", "--method", "delete"], "delete"),
        (["the-bucket/key", "--method", "put", "--download-as", "x"], "only for get"),
        (["the-bucket/key", "--download-as", "a/b"], "download-as"),
        ([b"the-bucket/\x80"], "UTF-8"),
    ],
)
def test_wrong_usage_is_one_line_and_prints_no_url(arguments, word):
    done = command(*arguments, TARGET_ACCESS_KEY_ID="id", TARGET_SECRET_ACCESS_KEY="hush-hush")
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert word in line
    assert "hush" not in line


def test_the_help_says_that_temporary_keys_end_a_url():
    assert "temporary" in command("--help").stdout
