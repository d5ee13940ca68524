"""POST /urls of the Chalice app, through chalice's own test client; the URLs are tried by plain HTTP."""

from __future__ import annotations

import json
import sys

import pytest
from chalice.app import IAMAuthorizer
from chalice.test import Client

from tests.functional.test_presign import ask
from tests.lambda_pump import load_app
from tests.servers.lab import boto_client, new_bucket

pytestmark = pytest.mark.filterwarnings("ignore:.*IAMAuthorizer")  # which the test client does not play

VARIABLES = (
    *("SOURCE_BUCKET", "SOURCE_ENDPOINT", "TARGET_BUCKET", "TARGET_ENDPOINT", "ENDPOINT", "TARGET_SECRET_ID"),
    *("TARGET_ACCESS_KEY_ID", "TARGET_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION", "QUEUE", "TRACING"),
    *("URLS_PREFIXES", "URLS_MAX_EXPIRY", "URLS_METHODS", "URLS_BUCKET"),
    *("AWS_ENDPOINT_URL_SECRETS_MANAGER", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
    *("POWERTOOLS_METRICS_NAMESPACE", "POWERTOOLS_DEV"),
)


@pytest.fixture
def load(monkeypatch):
    """Loads the app with variables, which are gone afterwards."""
    for variable in VARIABLES:
        monkeypatch.setenv(variable, "")
        monkeypatch.delenv(variable)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return load_app


@pytest.fixture
def bucket(rgw_endpoint):
    name = new_bucket(rgw_endpoint)
    boto_client(rgw_endpoint).put_object(Bucket=name, Key="public/reports/ü 1", Body=b"report")
    return name


@pytest.fixture
def environment(rgw_endpoint, bucket):
    return {
        "SOURCE_BUCKET": "the-source",
        "TARGET_BUCKET": f"{bucket}/public",
        "TARGET_ENDPOINT": rgw_endpoint.url,
        "TARGET_ACCESS_KEY_ID": rgw_endpoint.access_key,
        "TARGET_SECRET_ACCESS_KEY": rgw_endpoint.secret_key,
        "AWS_DEFAULT_REGION": "us-east-1",
        "URLS_PREFIXES": "reports",
    }


def post(app, body, **headers):
    with Client(app.app) as client:
        given = body if isinstance(body, bytes) else json.dumps(body).encode()
        return client.http.post("/urls", headers={"Content-Type": "application/json", **headers}, body=given)


def test_without_prefixes_there_is_no_route(load, environment):
    assert not load({**environment, "URLS_PREFIXES": ""}).app.routes


def test_the_route_is_guarded_by_iam(load, environment):
    routes = load(environment).app.routes
    assert [(path, [*methods]) for path, methods in routes.items()] == [("/urls", ["POST"])]
    assert isinstance(routes["/urls"]["POST"].authorizer, IAMAuthorizer)


def test_a_request_gets_a_url_that_works_and_no_log_has_it(load, environment, capsys):
    app = load(environment)
    answer = post(app, {"key": "reports/ü 1", "expires": "5m", "download_as": "1.txt"})
    assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-store")
    assert (answer.json_body["method"], answer.json_body["expires"]) == ("get", 300)
    status, headers, body = ask(answer.json_body["url"])
    assert (status, body) == (200, b"report")
    assert headers["Content-Disposition"].startswith('attachment; filename="1.txt"')
    said = capsys.readouterr()
    assert "UrlsSigned" in said.out
    assert "X-Amz" not in said.out + said.err


def test_an_upload_is_for_whom_it_was_allowed(load, environment, bucket, rgw_endpoint):
    assert post(load(environment), {"key": "reports/new", "method": "put"}).status_code == 403
    answer = post(load({**environment, "URLS_METHODS": "put"}), {"key": "reports/new", "method": "put"})
    assert ask(answer.json_body["url"], "PUT", b"new")[0] == 200
    client = boto_client(rgw_endpoint)
    assert client.get_object(Bucket=bucket, Key="public/reports/new")["Body"].read() == b"new"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"key": "private/1"}, 403),
        ({"key": "reports2/1"}, 403),
        ({"key": "reports/../private/1"}, 403),
        ({"key": "reports/1", "expires": "2h"}, 403),
        ({"key": "reports/1", "expires": "soon"}, 400),
        ({}, 400),
        (b"not JSON", 400),
        (b"", 400),
        (b"\xff\xfe", 400),
        (b"{" * 10_000, 400),
    ],
)
def test_what_is_not_allowed_or_makes_no_sense_gets_an_error_and_no_url(load, environment, capsys, body, status):
    answer = post(load(environment), body)
    assert (answer.status_code, list(answer.json_body)) == (status, ["error"])
    assert answer.headers["Cache-Control"] == "no-store"
    assert "UrlsRefused" in capsys.readouterr().out


def test_the_keys_may_be_in_the_secrets_manager(load, environment, bucket, rgw_endpoint, moto_endpoint):
    import boto3

    here = {"endpoint_url": moto_endpoint.url, "region_name": "us-east-1"}
    here |= {"aws_access_key_id": "any", "aws_secret_access_key": "any"}
    manager = boto3.client("secretsmanager", **here)
    keys = {"access_key_id": rgw_endpoint.access_key, "secret_access_key": rgw_endpoint.secret_key}
    manager.create_secret(Name=f"keys-of-{bucket}", SecretString=json.dumps(keys))
    manager.close()
    own = {"TARGET_ACCESS_KEY_ID": "", "TARGET_SECRET_ACCESS_KEY": "", "TARGET_SECRET_ID": f"keys-of-{bucket}"}
    aws = {"AWS_ENDPOINT_URL_SECRETS_MANAGER": moto_endpoint.url, "AWS_ACCESS_KEY_ID": "any"}
    app = load({**environment, **own, **aws, "AWS_SECRET_ACCESS_KEY": "any"})
    answer = post(app, {"key": "reports/ü 1"})
    assert ask(answer.json_body["url"])[::2] == (200, b"report")
