"""S3 Inventories: what their manifests and files may look like, and what must never be believed."""

from __future__ import annotations

import asyncio
import csv
import gzip
import hashlib
import io
import json
import sys
from contextlib import aclosing, suppress
from urllib.parse import quote_plus

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from replicator.bulk import inventory
from replicator.bulk.inventory import CHUNK, inventory_keys
from replicator.errors import ChangedMeanwhile, ConfigurationError, Corrupted
from tests.fakes.memory import MemoryStore

MANIFEST = "inventories/src/daily/2024-01-01T00-00Z/manifest.json"
SCHEMA = "Bucket, Key, Size, ETag"
VERSIONS = "Bucket, Key, VersionId, IsLatest, IsDeleteMarker, Size"
AWKWARD = [
    "plain",
    "a b/c",
    "a+b",
    "50%",
    "a%20b",
    "%2B",
    'say "hi"',
    "one,two",
    "line\nbreak\r",
    "ä/日本/😀",
    " ",
    "tab\t;'|",
    "~*-_.!()",
]


def csv_of(rows: list[list[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)
    return gzip.compress(text.getvalue().encode())


def keys_as_csv(keys: list[str]) -> bytes:
    """A file as AWS writes it: every field quoted, keys URL-encoded, blanks as plus signs."""
    return csv_of([["src", quote_plus(key, safe="/*"), "1", "0" * 32] for key in keys])


def parquet_of(**columns: object) -> bytes:
    data = io.BytesIO()
    pq.write_table(pa.table(columns), data)
    return data.getvalue()


def keys_as_parquet(keys: list[str]) -> bytes:
    return parquet_of(bucket=["src"] * len(keys), key=pa.array(keys, pa.string()), size=[1] * len(keys))


def entry_of(key: str, data: bytes) -> dict[str, object]:
    return {"key": key, "size": len(data), "MD5checksum": hashlib.md5(data).hexdigest()}


def store_with(*files: bytes, form: str = "CSV", schema: str = SCHEMA, **other: object) -> MemoryStore:
    """The bucket with an inventory of "src". other: fields of the manifest that are not as usual."""
    store = MemoryStore(name="s3://inv/")
    entries = []
    for number, data in enumerate(files):
        key = f"inventories/src/daily/data/{number}"
        store.bucket.write(key, data)
        entries.append(entry_of(key, data))
    manifest = {
        "sourceBucket": "src",
        "destinationBucket": "arn:aws:s3:::inv",
        "version": "2016-11-30",
        "creationTimestamp": "1514944800000",
        "fileFormat": form,
        "fileSchema": schema,
        "files": entries,
    }
    store.bucket.write(MANIFEST, json.dumps({**manifest, **other}).encode())
    return store


def read(store: MemoryStore, tmp_path, *, prefix: str = "", source_bucket: str = "src") -> list[str]:
    """All keys; leaves nothing behind, whatever happens."""

    async def collect() -> list[str]:
        keys = inventory_keys(store, MANIFEST, source_bucket=source_bucket, prefix=prefix, scratch=tmp_path)
        return [key async for key in keys]

    try:
        return asyncio.run(collect())
    finally:
        assert list(tmp_path.iterdir()) == []


def refusal(store: MemoryStore, tmp_path, **options: str) -> str:
    with pytest.raises(ConfigurationError) as error:
        read(store, tmp_path, **options)
    return str(error.value)


def corruption(store: MemoryStore, tmp_path) -> str:
    with pytest.raises(Corrupted) as error:
        read(store, tmp_path)
    return str(error.value)


def test_keys_of_a_csv_are_decoded_whatever_is_in_them(tmp_path):
    assert read(store_with(keys_as_csv(AWKWARD)), tmp_path) == AWKWARD


def test_keys_of_a_parquet_are_not_url_encoded(tmp_path):
    assert read(store_with(keys_as_parquet(AWKWARD), form="Parquet", schema="message"), tmp_path) == AWKWARD


def test_a_blank_may_be_encoded_either_way_in_a_csv(tmp_path):
    data = csv_of([["src", text, "1", ""] for text in ("a+b", "a%20b", "a%2Bb", "a%2bb", "a%252Bb")])
    assert read(store_with(data), tmp_path) == ["a b", "a b", "a+b", "a+b", "a%2Bb"]


def test_the_schema_says_where_the_key_is(tmp_path):
    data = csv_of([["7", "src", "a"], ["8", "src", "b"]])
    assert read(store_with(data, schema="Size,Bucket , Key"), tmp_path) == ["a", "b"]


def test_lines_may_end_like_on_windows_and_the_last_one_not_at_all(tmp_path):
    data = gzip.compress(b'"src","a","1",""\r\nsrc,b,1,\n\n"src","c","1",""')
    assert read(store_with(data), tmp_path) == ["a", "b", "c"]


def test_the_files_are_read_one_after_the_other(tmp_path):
    files = [keys_as_csv(["a", "b"]), keys_as_csv([]), keys_as_csv(["c"])]
    assert read(store_with(*files), tmp_path) == ["a", "b", "c"]


def test_an_inventory_of_an_empty_bucket_has_no_keys(tmp_path):
    assert read(store_with(), tmp_path) == []
    assert read(store_with(keys_as_parquet([]), form="Parquet"), tmp_path, prefix="x/") == []


def test_keys_are_relative_to_the_prefix_and_only_those_below_it(tmp_path):
    keys = ["logs/", "logs/a", "logs", "logs2/b", "x/logs/c", "logs/logs/d", "Logs/e", "logs//f"]
    for store in (store_with(keys_as_csv(keys)), store_with(keys_as_parquet(keys), form="Parquet")):
        assert read(store, tmp_path, prefix="logs/") == ["a", "logs/d", "/f"]


def test_only_the_latest_versions_in_a_csv_count_and_no_delete_markers(tmp_path):
    rows = [
        ["src", "latest", "v2", "true", "false", "1"],
        ["src", "latest", "v1", "false", "false", "1"],
        ["src", "gone", "v2", "true", "true", ""],
        ["src", "gone", "v1", "false", "false", "1"],
        ["src", "shouted", "v2", "TRUE", "FALSE", "1"],
        ["src", "old-shouted", "v1", "False", "False", "1"],
        ["src", "marker-shouted", "v1", "True", "True", "1"],
        ["src", "unsaid", "", "", "", "1"],
    ]
    assert read(store_with(csv_of(rows), schema=VERSIONS), tmp_path) == ["latest", "shouted", "unsaid"]


def test_only_the_latest_versions_in_a_parquet_count_and_no_delete_markers(tmp_path):
    data = parquet_of(
        is_delete_marker=[False, False, True, False, None],
        key=["latest", "latest", "gone", "gone", "unsaid"],
        is_latest=[True, False, True, False, None],
    )
    assert read(store_with(data, form="Parquet"), tmp_path) == ["latest", "unsaid"]


def test_inventories_longer_than_a_chunk_come_whole(tmp_path):
    keys = [f"folder {n % 7}/{n:06}" + "x" * (n % 300) for n in range(20_000)]
    data = keys_as_csv(keys)
    assert len(gzip.decompress(data)) > 3 * CHUNK
    assert read(store_with(data), tmp_path) == keys
    assert read(store_with(keys_as_parquet(keys), form="Parquet"), tmp_path) == keys


def test_a_file_larger_than_a_window_is_fetched_in_windows(tmp_path, monkeypatch):
    monkeypatch.setattr("replicator.reading.WINDOW", 1000)
    keys = [hashlib.md5(str(n).encode()).hexdigest() for n in range(1000)]
    store = store_with(keys_as_csv(keys))
    assert read(store, tmp_path) == keys
    assert store.calls.count("GetObject") > 15


def test_one_file_lies_in_the_scratch_directory_while_it_is_read_and_none_later(tmp_path):
    store = store_with(keys_as_csv(["a", "b"]), keys_as_csv(["c", "d"]))

    async def look() -> list[int]:
        keys = inventory_keys(store, MANIFEST, source_bucket="src", prefix="", scratch=tmp_path)
        return [len(list(tmp_path.iterdir())) async for _ in keys]

    assert asyncio.run(look()) == [1, 1, 1, 1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", ["CSV", "Parquet"])
def test_a_reader_that_stops_early_leaves_nothing_behind(tmp_path, form):
    keys = [f"{n:05}" for n in range(10_000)]
    store = store_with(keys_as_csv(keys) if form == "CSV" else keys_as_parquet(keys), form=form)

    async def first() -> str:
        keys = inventory_keys(store, MANIFEST, source_bucket="src", prefix="", scratch=tmp_path)
        async with aclosing(keys):
            return await anext(keys)

    assert asyncio.run(first()) == "00000"
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_is_cancelled_while_a_file_comes_leaves_nothing_behind(tmp_path):
    async def stall(operation: str, key: str) -> None:
        if operation == "GetObject" and "data" in key:
            await asyncio.sleep(60)

    store = store_with(keys_as_csv(["a"]))
    store._step = stall

    async def cancelled() -> None:
        keys = inventory_keys(store, MANIFEST, source_bucket="src", prefix="", scratch=tmp_path)
        task = asyncio.ensure_future(anext(keys))
        while not list(tmp_path.iterdir()):
            await asyncio.sleep(0)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancelled())
    assert list(tmp_path.iterdir()) == []


def test_an_inventory_of_another_bucket_is_refused_and_named(tmp_path):
    text = refusal(store_with(keys_as_csv(["a"])), tmp_path, source_bucket="other")
    assert f"--inventory s3://inv/{MANIFEST}" in text
    assert "'src'" in text
    assert "'other'" in text


def test_orc_is_refused_with_what_to_use_instead(tmp_path):
    text = refusal(store_with(b"ORC", form="ORC"), tmp_path)
    assert "'ORC'" in text
    assert "CSV or Parquet" in text


def test_parquet_without_pyarrow_says_what_to_install_before_anything_is_fetched(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    store = store_with(keys_as_parquet(["a"]), form="Parquet")
    assert "bucket-replicator[parquet]" in refusal(store, tmp_path)
    assert store.calls == ["HeadObject", "GetObject"]


def test_csv_does_not_need_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    assert read(store_with(keys_as_csv(["a"])), tmp_path) == ["a"]


def test_a_manifest_that_is_not_there_is_a_wrong_setting(tmp_path):
    store = store_with()
    store.bucket.objects.clear()
    assert f"s3://inv/{MANIFEST} is not there" in refusal(store, tmp_path)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"d41d8cd98f00b204e9800998ecf8427e",
        b"s3://inv/data/1.csv.gz\n",
        b"\xff\xfe\xff",
        b"{" * 100_000,
        b"[" * 100_000,
        b'{"sourceBucket": ' + b"9" * 5000 + b"}",
        gzip.compress(b"{}"),
    ],
    ids=["empty", "checksum", "symlink.txt", "binary", "braces", "brackets", "digits", "gzip"],
)
def test_what_is_no_json_is_refused(tmp_path, data):
    store = store_with()
    store.bucket.write(MANIFEST, data)
    assert "give the manifest.json" in refusal(store, tmp_path)


@pytest.mark.parametrize("data", [b"{}", b"[]", b"null", b"7", b'"text"', b'{"Records": []}'])
def test_json_that_is_no_manifest_is_refused(tmp_path, data):
    store = store_with()
    store.bucket.write(MANIFEST, data)
    assert "no manifest.json of an S3 Inventory: 'sourceBucket'" in refusal(store, tmp_path)


@pytest.mark.parametrize("name", ["sourceBucket", "fileFormat", "fileSchema", "files"])
@pytest.mark.parametrize("value", [None, 7, True, {"a": 1}])
def test_a_field_of_a_wrong_type_is_named(tmp_path, name, value):
    assert repr(name) in refusal(store_with(keys_as_csv(["a"]), **{name: value}), tmp_path)


@pytest.mark.parametrize("schema", ["", "Bucket, Size", "Key, Key", "bucket, key", "message s3.inventory { }"])
def test_a_schema_that_does_not_say_where_the_key_is_is_refused(tmp_path, schema):
    assert "fileSchema" in refusal(store_with(keys_as_csv(["a"]), schema=schema), tmp_path)


GOOD = entry_of("data", b"x")


@pytest.mark.parametrize(
    "entry",
    [
        None,
        "data",
        [],
        {},
        {**GOOD, "key": ""},
        {**GOOD, "key": None},
        {**GOOD, "key": "\ud800"},
        {**GOOD, "size": -1},
        {**GOOD, "size": "1"},
        {**GOOD, "size": 1.5},
        {**GOOD, "size": True},
        {**GOOD, "MD5checksum": "5825f2e18e1695c2d030b9f6eexample"},
        {**GOOD, "MD5checksum": GOOD["MD5checksum"] + "\n"},
        {**GOOD, "MD5checksum": None},
    ],
    ids=repr,
)
def test_a_file_that_is_not_described_properly_is_refused_before_any_is_fetched(tmp_path, entry):
    data = keys_as_csv(["a"])
    store = store_with(data, files=[entry_of("inventories/src/daily/data/0", data), entry])
    assert refusal(store, tmp_path)
    assert store.calls == ["HeadObject", "GetObject"]


def test_a_manifest_of_absurd_size_is_not_fetched(tmp_path, monkeypatch):
    monkeypatch.setattr(inventory, "MOST_MANIFEST", 100)
    store = store_with()
    assert "too many for a manifest" in refusal(store, tmp_path)
    assert store.calls == ["HeadObject"]


def test_a_refusal_is_short_however_long_the_manifest(tmp_path):
    long = "x" * 1_000_000
    for other in ({"sourceBucket": long}, {"fileFormat": long}, {"files": [{**GOOD, "MD5checksum": long}]}):
        assert len(refusal(store_with(**other), tmp_path)) < 500


def test_a_file_that_is_gone_is_named_with_what_to_do(tmp_path):
    store = store_with(keys_as_csv(["a"]))
    del store.bucket.objects["inventories/src/daily/data/0"]
    text = refusal(store, tmp_path)
    assert "s3://inv/inventories/src/daily/data/0 is not there" in text
    assert "newer inventory" in text


def test_a_file_of_another_size_than_the_manifest_says_is_not_even_fetched(tmp_path):
    store = store_with(keys_as_csv(["a"]))
    store.bucket.write("inventories/src/daily/data/0", keys_as_csv(["a", "something else"]))
    text = corruption(store, tmp_path)
    assert "s3://inv/inventories/src/daily/data/0" in text
    assert "bytes instead of" in text
    assert store.calls == ["HeadObject", "GetObject", "HeadObject"]


def test_a_size_that_is_absurd_is_not_believed(tmp_path):
    entry = {**entry_of("inventories/src/daily/data/0", b""), "size": 10**30}
    assert "bytes instead of" in corruption(store_with(keys_as_csv(["a"]), files=[entry]), tmp_path)


def test_nothing_is_taken_from_a_file_with_another_md5_than_the_manifest_says(tmp_path):
    first, second = keys_as_csv(["a"]), keys_as_csv(["b"])
    entries = [entry_of(f"inventories/src/daily/data/{number}", data) for number, data in enumerate((first, second))]
    entries[1]["MD5checksum"] = entries[0]["MD5checksum"]
    store = store_with(first, second, files=entries)
    keys = inventory_keys(store, MANIFEST, source_bucket="src", prefix="", scratch=tmp_path)

    async def take() -> None:
        assert await anext(keys) == "a"
        with pytest.raises(Corrupted, match=r"data/1.* MD5 "):
            await anext(keys)

    asyncio.run(take())


def test_an_md5_in_capitals_is_the_same_md5(tmp_path):
    data = keys_as_csv(["a"])
    entry = entry_of("inventories/src/daily/data/0", data)
    entry["MD5checksum"] = str(entry["MD5checksum"]).upper()
    assert read(store_with(data, files=[entry]), tmp_path) == ["a"]


def test_a_file_that_is_replaced_while_it_comes_is_not_mixed(tmp_path, monkeypatch):
    monkeypatch.setattr("replicator.reading.WINDOW", 100)
    store = store_with(keys_as_csv([hashlib.md5(str(n).encode()).hexdigest() for n in range(100)]))
    key = "inventories/src/daily/data/0"

    async def replace(operation: str, about: str) -> None:
        if operation == "GetObject:answered" and about == key:
            store.bucket.write(key, b"x" * len(store.bucket.objects[key].data))

    store._step = replace
    with pytest.raises(ChangedMeanwhile):
        read(store, tmp_path)


@pytest.mark.parametrize("cut", [1, 9, 10, 15, 200, -1, -4, -8, -9])
def test_a_gzip_that_is_cut_off_is_corrupted(tmp_path, cut):
    keys = [hashlib.md5(str(n).encode()).hexdigest() for n in range(100)]
    assert "it cannot be unpacked" in corruption(store_with(keys_as_csv(keys)[:cut]), tmp_path)


def test_what_is_no_gzip_is_corrupted(tmp_path):
    for data in (b'"src","a","1",""\n', b"\x1f\x8b\x08\0\0\0\0\0\0\xffgarbage", keys_as_csv(["a"]) + b"garbage"):
        assert "it cannot be unpacked" in corruption(store_with(data), tmp_path)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'"src","a"', "2 columns instead of 4"),
        (b'"src","a","1","","more"', "5 columns instead of 4"),
        (b'"src","a"x,"1",""', "expected after"),
        (b'"src","a\nb","1",""\n', "a quote is not closed"),
        (b'"src","a,1,', "unexpected end"),
        (b'"src","%FF","1",""', "utf-8"),
        (b'"src","\xff","1",""', "utf-8"),
        (b'"src","' + b"a" * 200_000 + b'","1",""', "field larger"),
    ],
)
def test_a_row_that_makes_no_sense_is_corrupted(tmp_path, line, reason):
    assert reason in corruption(store_with(gzip.compress(line)), tmp_path)


def test_the_line_that_makes_no_sense_is_told(tmp_path):
    good = b'"src","a","1",""\n'
    ahead = 2 * CHUNK // len(good)
    assert f"line {ahead + 1}:" in corruption(store_with(gzip.compress(good * ahead + b"bad\n" + good)), tmp_path)


def test_a_bomb_without_line_ends_is_not_unpacked(tmp_path, monkeypatch):
    unpacked = []
    unpack = gzip.GzipFile.read
    monkeypatch.setattr(gzip.GzipFile, "read", lambda *of: unpacked.append(unpack(*of)) or unpacked[-1])
    bomb = gzip.compress(b"a" * (50 * CHUNK), compresslevel=1)
    assert "does not end" in corruption(store_with(bomb), tmp_path)
    assert sum(map(len, unpacked)) < 4 * CHUNK


def test_a_quote_that_is_never_closed_does_not_pile_up_lines(tmp_path, monkeypatch):
    unpacked = []
    unpack = gzip.GzipFile.read
    monkeypatch.setattr(gzip.GzipFile, "read", lambda *of: unpacked.append(unpack(*of)) or unpacked[-1])
    bomb = gzip.compress(b'"src","a' + b'\n","a' * (10 * CHUNK), compresslevel=1)
    assert "line " in corruption(store_with(bomb), tmp_path)
    assert sum(map(len, unpacked)) < 4 * CHUNK


@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1" * 100, keys_as_parquet(["a"])[:-9], keys_as_csv(["a"])])
def test_what_is_no_parquet_is_corrupted(tmp_path, data):
    assert "no Parquet that can be read" in corruption(store_with(data, form="Parquet"), tmp_path)


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"bucket": ["src"]}, "column 'key'"),
        ({"Key": ["a"]}, "column 'key'"),
        ({"key": [7]}, "column 'key'"),
        ({"key": [{"key": "a"}]}, "column 'key'"),
        ({"key": [["a"]]}, "column 'key'"),
        ({"key": pa.array([b"a"])}, "column 'key'"),
        ({"key": ["a"], "is_latest": ["true"]}, "column 'is_latest'"),
        ({"key": ["a"], "is_delete_marker": [0]}, "column 'is_delete_marker'"),
        ({"key": pa.array(["a", None])}, "a row of it has no key"),
        ({"key": pa.array([b"\xff"]).view(pa.string())}, "utf-8"),
    ],
)
def test_a_parquet_with_other_columns_than_an_inventory_is_corrupted(tmp_path, columns, reason):
    assert reason in corruption(store_with(parquet_of(**columns), form="Parquet"), tmp_path)


def test_a_parquet_with_a_column_twice_is_corrupted(tmp_path):
    data = io.BytesIO()
    pq.write_table(pa.table([pa.array(["a"]), pa.array(["b"])], names=["key", "key"]), data)
    assert "'key' is missing, of a wrong type, or there twice" in corruption(
        store_with(data.getvalue(), form="Parquet"), tmp_path
    )


def test_a_parquet_with_damaged_bytes_is_corrupted_or_read_but_no_crash(tmp_path):
    good = keys_as_parquet([f"key {n}" for n in range(50)])
    for position in range(4, len(good), 11):
        bad = good[:position] + bytes([good[position] ^ 0x55]) + good[position + 1 :]
        with suppress(Corrupted):
            read(store_with(bad, form="Parquet"), tmp_path)


def test_a_scratch_directory_that_cannot_be_written_is_a_wrong_setting(tmp_path):
    store = store_with(keys_as_csv(["a"]))

    async def first() -> None:
        await anext(inventory_keys(store, MANIFEST, source_bucket="src", prefix="", scratch=tmp_path / "none"))

    with pytest.raises(ConfigurationError, match=r"cannot write .*No such file"):
        asyncio.run(first())


def test_no_name_in_the_manifest_reaches_the_disk(tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    data = keys_as_csv(["a"])
    for key in ("../outside", "/etc/passwd", "a/b", "\0", ".."):
        store = store_with(files=[entry_of(key, data)])
        store.bucket.write(key, data)
        assert read(store, scratch) == ["a"]
    assert list(tmp_path.iterdir()) == [scratch]
