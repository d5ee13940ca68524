"""Markers at the prefix of a store ("photos/" in the store of "photos/"): their key within the store is empty.

The request for an empty key is one for the bucket itself: DELETE would delete the bucket, PUT make another one.
"""

from contextlib import closing, suppress
from urllib.parse import urlsplit

import pytest

from replicator.bulk.plan import Plan
from replicator.bulk.tally import Tally
from replicator.converge import Converger
from replicator.errors import Refused
from replicator.model import Attributes, Deletes
from tests.fakes.memory import MemoryStore
from tests.runs import migration
from tests.servers.lab import boto_client, new_bucket, open_store

SERVERS = ["moto_endpoint", "rgw_endpoint"]
TEXT = Attributes(content_type="text/plain")


@pytest.fixture
def endpoint(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def boto(endpoint):
    with closing(boto_client(endpoint)) as client:
        yield client


def on_moto(test):
    return pytest.mark.parametrize("endpoint", ["moto_endpoint"], indirect=True)(test)


def on_all(test):
    return pytest.mark.parametrize("endpoint", SERVERS, indirect=True)(test)


def writes_to_the_bucket_itself(store):
    """A list that will hold the requests of the store that would change its bucket and not an object."""
    seen = []
    send = store.client.send

    async def watched(call):
        path = urlsplit(store.client.target(call)).path
        if call.method in ("PUT", "DELETE", "POST") and path.rstrip("/") == f"/{store.client.bucket}":
            seen.append(f"{call.method} {path} {call.operation}")
        return await send(call)

    store.client.send = watched
    return seen


def send_all_bytes(*stores):
    """Forbids copies by the server, which it would make between two buckets of its own."""
    for store in stores:
        store.can_copy_from = lambda other: False


def buckets(boto):
    return [bucket["Name"] for bucket in boto.list_buckets()["Buckets"]]


async def migrate(source, target, **plan):
    tally = Tally()
    async with migration(source, [target], Plan(**plan), tally=tally) as run:
        await run.run()
    return tally


@on_all
async def test_a_marker_at_the_prefix_of_the_source_does_not_become_a_request_for_the_target_bucket(endpoint, boto):
    here, there = new_bucket(endpoint), new_bucket(endpoint)
    boto.put_object(Bucket=here, Key="photos/", Body=b"")
    boto.put_object(Bucket=here, Key="photos/x", Body=b"x")
    async with open_store(endpoint, here, "photos/") as source, open_store(endpoint, there) as target:
        send_all_bytes(source, target)
        seen = writes_to_the_bucket_itself(target)
        await migrate(source, target)
    assert seen == []


@on_all
async def test_the_deletion_of_a_marker_at_the_prefix_does_not_delete_the_target_bucket(endpoint, boto):
    here, there = new_bucket(endpoint), new_bucket(endpoint)
    boto.put_object(Bucket=here, Key="other", Body=b"")
    async with open_store(endpoint, here, "photos/") as source, open_store(endpoint, there) as target:
        await Converger(source, [target], deletes=Deletes.MIRROR).converge("")
    assert there in buckets(boto)


@on_moto
async def test_a_marker_that_disappears_after_it_was_listed_does_not_delete_the_target_bucket(endpoint, boto):
    """The run may be refused: the source lists nothing any more."""
    here, there = new_bucket(endpoint), new_bucket(endpoint)
    boto.put_object(Bucket=here, Key="photos/", Body=b"")
    boto.put_object(Bucket=here, Key="z", Body=b"")
    async with open_store(endpoint, here, "photos/") as source, open_store(endpoint, there) as target:
        pages = source.list_pages

        async def list_pages(*, after=""):
            async for page in pages(after=after):
                boto.delete_object(Bucket=here, Key="photos/")
                yield page

        source.list_pages = list_pages
        seen = writes_to_the_bucket_itself(target)
        with suppress(Refused):
            await migrate(source, target, deletes=Deletes.MIRROR)
    assert there in buckets(boto)
    assert seen == []


@on_moto
async def test_a_marker_at_the_prefix_of_the_target_is_no_failure(endpoint, boto):
    here, there = new_bucket(endpoint), new_bucket(endpoint)
    boto.put_object(Bucket=here, Key="z", Body=b"z")
    boto.put_object(Bucket=there, Key="photos/", Body=b"")
    async with open_store(endpoint, here) as source, open_store(endpoint, there, "photos/") as target:
        send_all_bytes(source, target)
        tally = await migrate(source, target, deletes=Deletes.MIRROR)
    assert tally.failed == 0


@on_moto
async def test_metadata_that_is_no_utf8_fails_its_object_and_not_the_run(endpoint):
    source = MemoryStore(name="source/")
    latin = Attributes(content_type="text/plain", metadata=(("n", "caf\udce9"),))  # the header has the bytes caf\xe9
    source.bucket.write("a", b"x", latin)
    source.bucket.write("b", b"y", TEXT)
    async with open_store(endpoint, new_bucket(endpoint)) as target:
        tally = await migrate(source, target)
    assert tally.failed == 1
