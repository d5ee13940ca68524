"""replicator serve as a process: what it answers, to whom, and how it ends."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from prometheus_client.parser import text_string_to_metric_families

from replicator.errors import ConfigurationError
from replicator.metrics import Metrics
from replicator.web.listen import Listen
from replicator.web.pages import metrics_application
from replicator.web.server import serve
from tests.functional.test_presign import ask, side_of
from tests.runs import ROOT, SECONDS
from tests.servers.base import HOST, free_port, free_ports, http_answers
from tests.servers.lab import boto_client, new_bucket

TOKEN = "correct-horse-battery"
COMMAND = [sys.executable, "-m", "replicator", "serve"]
ANYWHERE = {"TARGET_BUCKET": "the-bucket", "TARGET_ACCESS_KEY_ID": "id", "TARGET_SECRET_ACCESS_KEY": "hush-hush"}
URLS = {**ANYWHERE, "URLS_PREFIXES": "reports", "URLS_TOKEN": TOKEN}


def variables(changes):
    given = {**os.environ, "PYTHONPATH": str(ROOT), **changes}
    return {name: value for name, value in given.items() if value is not None}


@contextmanager
def serving(*arguments, ports, **changes):
    """A running server; yields its process. What it says is checked when it has ended."""
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        env=variables(changes),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + SECONDS
        while not all(http_answers(port, "/healthz") for port in ports):
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield process
        if process.poll() is None:
            process.terminate()
        out, err = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
        process.wait()
    assert out == ""
    assert "Traceback" not in err, err
    for secret in (TOKEN, "X-Amz-Signature", changes.get("TARGET_SECRET_ACCESS_KEY", TOKEN)):
        assert secret not in err


def get(port, path, method="GET", body=None, **headers):
    """(status, headers, body) from the server on a port of this machine."""
    connection = http.client.HTTPConnection(HOST, port, timeout=SECONDS)
    try:
        connection.request(method, path, body=body, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def wish(port, token=TOKEN, **fields):
    """(status, document) of a request for a URL."""
    headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
    status, got, body = get(port, "/urls", "POST", json.dumps(fields), **headers)
    assert got["Cache-Control"] == "no-store"
    assert got["Content-Type"].startswith("application/json")
    return status, json.loads(body)


def counted(port):
    _, headers, body = get(port, "/metrics")
    assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
    samples = [one for family in text_string_to_metric_families(body.decode()) for one in family.samples]
    return {(one.name, *one.labels.values()): one.value for one in samples}


@pytest.fixture(scope="module")
def urls_server(rgw_endpoint):
    """(port of /urls, port of /metrics, bucket, client) of a server before a store that checks signatures."""
    bucket, client = new_bucket(rgw_endpoint), boto_client(rgw_endpoint)
    client.put_object(Bucket=bucket, Key="public/reports/ü 1.txt", Body=b"report")
    client.put_object(Bucket=bucket, Key="public/private/1.txt", Body=b"hush")
    urls, metrics = free_ports(2)
    side = side_of(rgw_endpoint, bucket)
    changes = {
        "TARGET_BUCKET": "another",
        "URLS_BUCKET": f"{bucket}/public",
        "TARGET_ENDPOINT": side.endpoint,
        "TARGET_ACCESS_KEY_ID": side.access_key_id,
        "TARGET_SECRET_ACCESS_KEY": side.secret_access_key,
        "URLS_PREFIXES": "reports,incoming",
        "URLS_METHODS": "get,put",
        "URLS_MAX_EXPIRY": "30m",
        "URLS_TOKEN": TOKEN,
    }
    arguments = ("--urls", f"{HOST}:{urls}", "--metrics", f"{HOST}:{metrics}")
    with serving(*arguments, ports=(urls, metrics), **changes):
        yield urls, metrics, bucket, client


# Metrics and health


def test_metrics_and_health_are_shown():
    port = free_port()
    with serving("--metrics", f"{HOST}:{port}", ports=[port]):
        assert counted(port)["replicator_healthy",] == 1
        status, headers, body = get(port, "/healthz")
        assert (status, json.loads(body), headers["Cache-Control"]) == (200, {"status": "ok"}, "no-store")
        for path, method, expected in (("/", "GET", 404), ("/urls", "POST", 404), ("/metrics", "POST", 405)):
            status, headers, body = get(port, path, method)
            assert (status, list(json.loads(body))) == (expected, ["error"])
            assert headers["Cache-Control"] == "no-store"


def test_a_port_alone_is_every_address_of_the_machine():
    port = free_port()
    with serving("--metrics", f":{port}", ports=[port]):
        assert get(port, "/healthz")[0] == 200


async def test_what_is_not_well_is_told_with_its_reason():
    port, metrics = free_port(), Metrics()
    async with serve(Listen(HOST, port), metrics_application(metrics)):
        for reason, status in ((None, 200), ("the folder is gone", 503), (None, 200)):
            metrics.healthy(reason)
            answer = await asyncio.to_thread(get, port, "/healthz")
            assert answer[0] == status
            assert json.loads(answer[2]).get("reason") == reason
    assert not http_answers(port)


async def test_a_server_on_a_taken_port_says_so_and_the_first_goes_on():
    listen = Listen(HOST, free_port())
    async with serve(listen, metrics_application(Metrics())):
        with pytest.raises(ConfigurationError, match=f"{listen}: Address already in use"):
            async with serve(listen, metrics_application(Metrics())):
                raise AssertionError("two on one port")
        assert (await asyncio.to_thread(get, listen.port, "/healthz"))[0] == 200


# URLs


def test_who_knows_the_token_gets_a_url_that_works(urls_server):
    urls, metrics, _, _ = urls_server
    status, answer = wish(urls, key="reports/ü 1.txt", expires="5m", download_as="1.txt")
    assert (status, answer["method"], answer["expires"]) == (200, "get", 300)
    status, headers, body = ask(answer["url"])
    assert (status, body) == (200, b"report")
    assert headers["Content-Disposition"].startswith('attachment; filename="1.txt"')
    assert counted(metrics)["replicator_url_requests_total", "200"] >= 1


def test_an_upload_goes_below_the_prefix_of_the_location(urls_server):
    urls, _, bucket, client = urls_server
    status, answer = wish(urls, key="incoming/new", method="put")
    assert (status, answer["expires"]) == (200, 900)
    assert ask(answer["url"], "PUT", b"new")[0] == 200
    assert client.get_object(Bucket=bucket, Key="public/incoming/new")["Body"].read() == b"new"


@pytest.mark.parametrize("token", [None, "", "x", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "ü" * 16])
def test_who_does_not_know_the_token_gets_nothing(urls_server, token):
    urls, metrics, _, _ = urls_server
    before = counted(metrics).get(("replicator_url_requests_total", "401"), 0)
    status, answer = wish(urls, token, key="reports/ü 1.txt")
    assert (status, list(answer)) == (401, ["error"])
    assert counted(metrics)["replicator_url_requests_total", "401"] == before + 1


@pytest.mark.parametrize("header", [TOKEN, f"Basic {TOKEN}", f"bearer{TOKEN}", f"Bearer {TOKEN}, Bearer {TOKEN}"])
def test_the_token_is_taken_only_as_it_should_be_given(urls_server, header):
    status, headers, _ = get(urls_server[0], "/urls", "POST", '{"key": "reports/1"}', Authorization=header)
    assert (status, headers["WWW-Authenticate"]) == (401, "Bearer")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"key": "private/1.txt"}, 403),
        ({"key": "reports2/1.txt"}, 403),
        ({"key": "reports/../private/1.txt"}, 403),
        ({"key": "../reports/1.txt"}, 403),
        ({"key": "reports/1.txt", "expires": 1801}, 403),
        ({"key": "reports/1.txt", "expires": 0}, 400),
        ({"key": "reports/1.txt", "method": "delete"}, 400),
        ({"key": "reports/1.txt", "download_as": "a\r\nb: c"}, 400),
        ({}, 400),
    ],
)
def test_what_is_not_allowed_or_makes_no_sense_gets_an_error_and_no_url(urls_server, fields, expected):
    status, answer = wish(urls_server[0], **fields)
    assert (status, list(answer)) == (expected, ["error"])


def test_a_body_that_is_too_large_is_refused(urls_server):
    assert wish(urls_server[0], key="reports/" + "k" * 9000)[0] == 413


def test_other_methods_and_paths_are_errors_of_json(urls_server):
    for path, method, expected in (("/urls", "GET", 405), ("/metrics", "GET", 404)):
        status, headers, body = get(urls_server[0], path, method)
        assert (status, list(json.loads(body))) == (expected, ["error"])
        assert headers["Cache-Control"] == "no-store"


# How it begins and ends


def refused(*arguments, **changes):
    """The one line of a server that does not begin."""
    done = subprocess.run(
        [*COMMAND, *arguments], env=variables(changes), capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert (done.returncode, done.stdout) == (2, ""), done
    (line,) = done.stderr.splitlines()
    assert "hush" not in line
    return line


@pytest.mark.parametrize(
    ("arguments", "changes", "word"),
    [
        ([], {}, "--metrics"),
        (["--metrics", "nonsense"], {}, "--metrics 'nonsense'"),
        (["--metrics", "203.0.113.1:9108"], {}, "203.0.113.1:9108"),
        (["--urls", ":0"], URLS, "--urls"),
        (["--urls", ":8080"], {**URLS, "URLS_PREFIXES": None}, "URLS_PREFIXES"),
        (["--urls", ":8080"], {**URLS, "URLS_TOKEN": None}, "URLS_TOKEN"),
        (["--urls", ":8080"], {**URLS, "URLS_TOKEN": "hush-too-short"}, "URLS_TOKEN"),
        (["--urls", ":8080"], {**URLS, "URLS_TOKEN": "hush with some blanks"}, "URLS_TOKEN"),
        (["--urls", ":8080"], {**URLS, "URLS_MAX_EXPIRY": "30d"}, "URLS_MAX_EXPIRY"),
        (["--urls", ":8080"], {**URLS, "TARGET_BUCKET": None}, "TARGET_BUCKET"),
        (["--urls", ":8080"], {**URLS, "TARGET_ACCESS_KEY_ID": None, "TARGET_SECRET_ACCESS_KEY": None}, "credentials"),
    ],
)
def test_what_cannot_be_served_is_one_line_and_exit_code_2(arguments, changes, word):
    assert word in refused(*arguments, **changes)


@pytest.mark.parametrize("option", ["--metrics", "--urls"])
def test_a_port_that_is_taken_is_one_line_and_exit_code_2(option):
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        address = f"{HOST}:{taken.getsockname()[1]}"
        line = refused(option, address, **URLS)
    assert f"cannot listen at {address}: Address already in use" in line


@pytest.mark.parametrize(("how", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_ends_it_even_while_a_request_hangs(how, code):
    """Within which time is in tests/unit/test_stopping.py."""
    port = free_port()
    with (
        serving("--urls", f"{HOST}:{port}", ports=[port], **URLS) as process,
        socket.create_connection((HOST, port)) as slow,
    ):
        slow.sendall(
            f"POST /urls HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 9\r\n\r\n".encode()
        )
        time.sleep(0.3)
        process.send_signal(how)
        assert process.wait(SECONDS) == code


def test_the_command_line_loads_no_server_until_it_is_needed():
    heavy = "('aiohttp', 'prometheus_client', 'boto3', 'botocore')"
    program = f"import replicator.cli.main, sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "[]", "")
