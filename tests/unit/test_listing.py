"""Listings that lie are found out: no page is believed that does not continue the one before."""

from __future__ import annotations

from contextlib import asynccontextmanager
from urllib.parse import parse_qs

import pytest

from replicator.errors import AccessDenied, UntrustworthyListing
from replicator.s3.client import Endpoint, Retry, S3Client
from replicator.s3.listing import MAX_EMPTY_PAGES, list_objects
from replicator.s3.signing import Keys
from tests.fakes.http_server import HttpServer, answering, ok

REST = "<LastModified>2026-11-20T12:00:00.000Z</LastModified><ETag>e</ETag><Size>1</Size>"


def page(keys, token=None, *, more=None):
    more = token is not None if more is None else more
    entries = "".join(f"<Contents><Key>{key}</Key>{REST}</Contents>" for key in keys)
    following = f"<NextContinuationToken>{token}</NextContinuationToken>" if token is not None else ""
    truncated = f"<IsTruncated>{str(more).lower()}</IsTruncated>"
    return ok(f"<ListBucketResult>{truncated}{following}{entries}</ListBucketResult>".encode())


async def no_sleep(seconds):
    pass


@asynccontextmanager
async def listing(*pages, prefix="", after="", page_size=1000):
    async with (
        HttpServer(answering(*pages)) as server,
        S3Client(
            Endpoint(server.url), "bucket", lambda: Keys("A", "B"), sleep=no_sleep, retry=Retry(2), clock=lambda: 1e9
        ) as client,
    ):
        yield server, list_objects(client, prefix, after=after, page_size=page_size), client


async def read(found, seen):
    """Notes the keys page by page, so that they are known when the listing fails."""
    async for entries in found:
        seen.extend(entry.key for entry in entries)


async def keys_of(*pages, **options):
    async with listing(*pages, **options) as (_, found, _client):
        return [[entry.key for entry in entries] async for entries in found]


async def doubted(*pages, **options):
    """The keys that were seen before the listing was found out, and what was said of it."""
    seen = []
    async with listing(*pages, **options) as (_, found, _client):
        with pytest.raises(UntrustworthyListing) as raised:
            await read(found, seen)
    return seen, str(raised.value)


def queries(server):
    return [
        {name: values[0] for name, values in parse_qs(request.target.partition("?")[2], keep_blank_values=True).items()}
        for request in server.requests
    ]


async def test_pages_follow_their_tokens_to_the_end():
    assert await keys_of(page(["a", "a-b"], "t1"), page(["a/b"], "t2"), page(["b"])) == [["a", "a-b"], ["a/b"], ["b"]]


async def test_each_page_is_asked_for_by_the_token_of_the_one_before():
    async with listing(page(["p/b"], "a+/="), page(["p/c"]), prefix="p/", after="a b", page_size=2) as (
        server,
        found,
        _,
    ):
        assert [entry.key async for entries in found for entry in entries] == ["b", "c"]
        common = {"list-type": "2", "encoding-type": "url", "max-keys": "2", "prefix": "p/"}
        assert queries(server) == [{**common, "start-after": "p/a b"}, {**common, "continuation-token": "a+/="}]


async def test_a_listing_from_the_start_does_not_say_where():
    async with listing(page([])) as (server, found, _):
        assert [entries async for entries in found] == []
        assert queries(server) == [{"list-type": "2", "encoding-type": "url", "max-keys": "1000", "prefix": ""}]


async def test_an_object_named_like_the_prefix_is_no_part_of_it():
    assert await keys_of(page(["dir/", "dir/a"]), prefix="dir/") == [["a"]]


async def test_empty_pages_between_others_are_skipped():
    assert await keys_of(page([], "t1"), page(["a"], "t2"), page([], "t3"), page(["b"])) == [["a"], ["b"]]


async def test_a_page_that_comes_again_is_an_error():
    seen, text = await doubted(page(["a", "b"], "t1"), page(["a", "b"], "t2"))
    assert seen == ["a", "b"]
    assert "has 'a' after 'b'" in text


async def test_the_last_key_again_is_an_error():
    seen, _ = await doubted(page(["a", "b"], "t1"), page(["b", "c"]))
    assert seen == ["a", "b"]


async def test_a_page_that_goes_backwards_is_an_error():
    seen, _ = await doubted(page(["m"], "t1"), page(["n", "c"]))
    assert seen == ["m"]


async def test_a_page_out_of_order_is_not_handed_out_in_part():
    seen, _ = await doubted(page(["b", "a"]))
    assert seen == []


async def test_an_order_that_is_not_that_of_bytes_is_an_error():
    seen, _ = await doubted(page(["a/b", "a-b"]))
    assert seen == []


@pytest.mark.parametrize("first", ["a", "b"])
async def test_a_store_that_ignores_where_to_start_is_an_error(first):
    seen, _ = await doubted(page([first, "c"]), after="b")
    assert seen == []


async def test_more_without_a_token_is_an_error_and_not_an_end():
    seen, text = await doubted(page(["a"], more=True))
    assert seen == ["a"]
    assert "does not advance" in text


@pytest.mark.parametrize("keys", [[], ["b"]])
async def test_more_without_a_token_is_an_error_on_a_later_page_too(keys):
    seen, text = await doubted(page(["a"], "t1"), page(keys, more=True), page(["c"]))
    assert seen == ["a", *keys]
    assert "does not advance" in text


@pytest.mark.parametrize("keys", [[], ["b"]])
async def test_the_same_token_again_is_an_error(keys):
    _, text = await doubted(page(["a"], "t1"), page(keys, "t1"))
    assert "does not advance" in text


async def test_empty_pages_without_end_are_an_error():
    pages = [page([], f"t{number}") for number in range(MAX_EMPTY_PAGES + 10)]
    async with listing(*pages) as (server, found, _):
        with pytest.raises(UntrustworthyListing, match="does not advance"):
            await anext(found)
        assert len(server.requests) == MAX_EMPTY_PAGES + 1


async def test_as_many_empty_pages_as_are_allowed_are_no_error():
    pages = [page([], f"t{number}") for number in range(MAX_EMPTY_PAGES)]
    assert await keys_of(*pages, page(["a"], "x"), page([], "y"), page(["b"])) == [["a"], ["b"]]


async def test_a_key_outside_the_prefix_is_an_error():
    seen, text = await doubted(page(["dir/a"], "t1"), page(["other"]), prefix="dir/")
    assert seen == ["a"]
    assert "prefix" in text


@pytest.mark.parametrize("body", [b"", b"<ListBucketResult>", b"<html/>", b"<!DOCTYPE a><ListBucketResult/>"])
async def test_a_page_that_cannot_be_read_is_an_error_and_not_an_end(body):
    seen, text = await doubted(page(["a"], "t1"), ok(body))
    assert seen == ["a"]
    assert "cannot be read" in text


async def test_a_refusal_in_the_middle_is_raised():
    seen = []
    async with listing(page(["a"], "t1"), ok(status="403 Forbidden")) as (_, found, _client):
        with pytest.raises(AccessDenied):
            await read(found, seen)
    assert seen == ["a"]


async def test_a_passing_failure_in_the_middle_is_retried():
    assert await keys_of(page(["a"], "t1"), ok(status="500 X"), page(["b"])) == [["a"], ["b"]]


async def test_a_last_page_with_more_than_was_asked_for_is_an_error():
    _, text = await doubted(page(["a", "b", "c"]), page_size=2)
    assert "3 entries where 2 were asked for" in text


async def test_the_clock_of_the_store_is_noted():
    dated = ok(
        b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>", "Date: Sun, 09 Sep 2001 01:47:00 GMT"
    )
    async with listing(dated) as (_, found, client):
        assert [entries async for entries in found] == []
        assert client.skew == 20.0
