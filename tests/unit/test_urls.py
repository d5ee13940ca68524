"""Which requests for presigned URLs are understood, which are allowed, and what is said about the others."""

from __future__ import annotations

import json

import pytest

from replicator.errors import ConfigurationError
from replicator.urls import (
    LARGEST_REQUEST,
    MalformedRequest,
    NotAllowed,
    UrlPolicy,
    UrlRequest,
    content_disposition,
    location_of_urls,
    parse_request,
)
from tests.awkward import AWKWARD_KEYS

ALL = UrlPolicy(allowed_prefixes=("*",), max_expires=3600, methods=frozenset({"get", "put"}))
REPORTS = UrlPolicy(allowed_prefixes=("reports",))


def parse(policy=ALL, **fields):
    return parse_request(json.dumps({"key": "reports/1", **fields}).encode(), policy)


def refusal(kind, policy=ALL, **fields):
    with pytest.raises(kind) as caught:
        parse(policy, **fields)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# What a request says


def test_a_key_is_enough_of_a_request():
    assert parse() == UrlRequest("reports/1", "get", 900, None)


def test_a_request_says_method_expiry_and_name():
    asked = parse(key="reports/ü", method="get", expires=5, download_as="a b.pdf")
    assert asked == UrlRequest("reports/ü", "get", 5, "a b.pdf")
    assert parse(method="PUT", expires="15m") == UrlRequest("reports/1", "put", 900)


def test_what_a_request_does_not_say_about_expiry_is_never_more_than_allowed():
    assert parse(UrlPolicy(allowed_prefixes=("*",), max_expires=60)).expires == 60


@pytest.mark.parametrize("key", [key for key in AWKWARD_KEYS if ".." not in key.split("/")])
def test_a_key_is_taken_as_it_is(key):
    assert parse(key=key).key == key


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"key": None}, "key"),
        ({"key": ""}, "key"),
        ({"key": 7}, "key"),
        ({"key": ["a"]}, "key"),
        ({"key": "k" * 1025}, "key"),
        ({"key": "ü" * 513}, "key"),
        ({"key": "half \ud800"}, "key"),
        ({"method": "delete"}, "method"),
        ({"method": None}, "method"),
        ({"method": ["get"]}, "method"),
        ({"expires": 0}, "expires"),
        ({"expires": -1}, "expires"),
        ({"expires": True}, "expires"),
        ({"expires": 1.5}, "expires"),
        ({"expires": 604801}, "expires"),
        ({"expires": "8d"}, "expires"),
        ({"expires": "0s"}, "expires"),
        ({"expires": "900"}, "expires"),
        ({"expires": "soon"}, "expires"),
        ({"download_as": "x", "method": "put"}, "download_as"),
        ({"download_as": 1}, "download_as"),
        ({"download_as": ""}, "download-as"),
        ({"download_as": "a\r\nSet-Cookie: b"}, "download-as"),
        ({"download_as": "../x"}, "download-as"),
        ({"download_as": "half \ud800"}, "download-as"),
        ({"expire": 900}, "body"),
    ],
)
def test_a_request_that_makes_no_sense_is_malformed_and_the_field_is_named(fields, field):
    text = refusal(MalformedRequest, **fields)
    assert text.startswith(f"{field}: ")
    assert "Set-Cookie" not in text


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'"key"', b"null", b"\xff\xfe", b"[" * 8000, b'{"key": "' + b"k" * LARGEST_REQUEST + b'"}'],
)
def test_a_body_that_is_no_object_of_json_is_malformed(body):
    with pytest.raises(MalformedRequest, match="^body: ") as caught:
        parse_request(body, ALL)
    assert caught.value.status == 400


# What is allowed


@pytest.mark.parametrize("policy", [UrlPolicy(), UrlPolicy(allowed_prefixes=("",)), UrlPolicy.from_env({})])
def test_nothing_is_allowed_unless_it_was_said(policy):
    assert "URLS_PREFIXES" in refusal(NotAllowed, policy)
    assert NotAllowed.status == 403


@pytest.mark.parametrize("prefix", ["reports", "reports/"])
@pytest.mark.parametrize("key", ["reports/", "reports/1", "reports/deep/er", "reports//x", "reports/./x"])
def test_a_prefix_allows_what_is_below_it(prefix, key):
    assert parse(UrlPolicy(allowed_prefixes=(prefix,)), key=key).key == key


@pytest.mark.parametrize("key", ["reports", "reports2/1", "Reports/1", "/reports/1", "x/reports/1", "./reports/1", "*"])
def test_a_prefix_is_a_directory_and_allows_nothing_beside_it(key):
    refusal(NotAllowed, REPORTS, key=key)


@pytest.mark.parametrize("key", ["reports/../secret", "reports/..", "reports/a/../../secret"])
@pytest.mark.parametrize("policy", [REPORTS, ALL])
def test_a_key_that_some_stores_would_take_for_a_path_upwards_is_not_allowed(policy, key):
    assert "'..'" in refusal(NotAllowed, policy, key=key)
    assert parse(key="reports/..a/b..").key == "reports/..a/b.."


def test_a_method_and_a_longer_expiry_than_was_said_are_not_allowed():
    assert "URLS_METHODS" in refusal(NotAllowed, REPORTS, method="put")
    assert "3600" in refusal(NotAllowed, REPORTS, expires=3601)
    assert parse(REPORTS, expires="1h").expires == 3600


def test_what_is_refused_is_not_repeated():
    for fields in ({"key": "hush/hush"}, {"key": "reports/../hush"}, {"method": "hush"}, {"expires": "hush"}):
        kind = NotAllowed if "key" in fields else MalformedRequest
        assert "hush" not in refusal(kind, REPORTS, **fields)


# What the settings say


def test_a_policy_comes_from_the_variables():
    policy = UrlPolicy.from_env(
        {"URLS_PREFIXES": " reports, a/b/ ,,", "URLS_MAX_EXPIRY": "2d", "URLS_METHODS": "GET, put"}
    )
    assert policy == UrlPolicy(
        allowed_prefixes=("reports", "a/b/"), max_expires=172800, methods=frozenset({"get", "put"})
    )
    assert policy.directories == ("reports/", "a/b/")


def test_an_hour_and_get_are_what_is_usual():
    assert UrlPolicy.from_env({"URLS_PREFIXES": "*", "URLS_METHODS": "", "URLS_MAX_EXPIRY": ""}) == UrlPolicy(
        allowed_prefixes=("*",), max_expires=3600, methods=frozenset({"get"})
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [("URLS_MAX_EXPIRY", "8d"), ("URLS_MAX_EXPIRY", "0s"), ("URLS_MAX_EXPIRY", "1"), ("URLS_METHODS", "get,delete")],
)
def test_a_policy_that_cannot_be_is_refused_with_its_variable(name, value):
    with pytest.raises(ConfigurationError, match=name):
        UrlPolicy.from_env({name: value})


def test_urls_are_for_the_target_unless_a_bucket_is_named():
    variables = {"TARGET_BUCKET": "to/dir", "TARGET_ENDPOINT": "https://there", "URLS_BUCKET": ""}
    side = location_of_urls(variables)
    assert (side.bucket, side.prefix, side.endpoint) == ("to", "dir/", "https://there")
    other = location_of_urls({**variables, "URLS_BUCKET": "s3://other/public"})
    assert (other.bucket, other.prefix, other.endpoint) == ("other", "public/", "https://there")


@pytest.mark.parametrize("name", ["URLS_BUCKET", "TARGET_BUCKET"])
def test_a_location_that_is_none_is_refused_with_its_variable(name):
    with pytest.raises(ConfigurationError, match=f"^{name}="):
        location_of_urls({name: "s3:/x"})


# The name of a download


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("plain.pdf", "attachment; filename=\"plain.pdf\"; filename*=UTF-8''plain.pdf"),
        ('a "b" 5%.txt', "attachment; filename=\"a _b_ 5_.txt\"; filename*=UTF-8''a%20%22b%22%205%25.txt"),
        ("ü;x=1.txt", "attachment; filename=\"_;x=1.txt\"; filename*=UTF-8''%C3%BC%3Bx%3D1.txt"),
        ("it's (1)*.txt", "attachment; filename=\"it's (1)*.txt\"; filename*=UTF-8''it%27s%20%281%29%2A.txt"),
    ],
)
def test_a_name_is_said_in_a_form_that_nothing_can_be_added_to(name, header):
    assert content_disposition(name) == header


@pytest.mark.parametrize("name", ["", "a/b", "a\\b", "a\nb", "a\x00", "a\x7f", "a\x85b", "ü" * 128, "half \udc80"])
def test_what_is_no_files_name_is_refused(name):
    with pytest.raises(ConfigurationError, match="download-as"):
        content_disposition(name)
