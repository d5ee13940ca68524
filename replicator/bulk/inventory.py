"""The keys of an S3 Inventory: what a bucket held when AWS last wrote it down, read instead of listed.

| in manifest.json                     | here                                                                     |
|--------------------------------------|--------------------------------------------------------------------------|
| sourceBucket                         | must be the bucket that the run is about                                 |
| fileFormat                           | CSV (gzip, no header) or Parquet; ORC is refused                         |
| fileSchema                           | the names of a CSV's columns; a Parquet file tells its own               |
| files: key, size, MD5checksum        | each is compared with what is downloaded, before a key of it is believed |

| in a row                             | here                                                                     |
|--------------------------------------|--------------------------------------------------------------------------|
| Key, or key in Parquet               | URL-encoded in a CSV, a blank as "+"; as it is in Parquet                |
| IsLatest, or is_latest               | false: an older version, left out. Not there: AWS lists only the latest  |
| IsDeleteMarker, or is_delete_marker  | true: left out                                                           |

An inventory is in no order and some days old: its keys are hints, and whoever takes them looks at the objects.
Format: https://docs.aws.amazon.com/AmazonS3/latest/userguide/storage-inventory-location.html and storage-inventory.html
"""

from __future__ import annotations

import asyncio
import csv
import gzip
import hashlib
import json
import re
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote_plus

from replicator.errors import ConfigurationError, Corrupted, NoSuchKey
from replicator.model import MiB, ObjectState
from replicator.reading import read_windows
from replicator.store import ObjectStore

MOST_MANIFEST = 16 * MiB
"""Bytes of a manifest: some 80,000 files, of which each lists many thousands of objects."""

CHUNK = MiB
"""Bytes of a CSV that are unpacked at once. No line is longer."""

ROWS = 4096
"""Rows of a Parquet file that are unpacked at once."""

UNWANTED = (("IsLatest", "false"), ("IsDeleteMarker", "true"))
"""What leaves a row of a CSV out, in lower case: AWS writes "true" and documents "TRUE"."""

COLUMNS = {"key": ("string", "large_string"), "is_latest": ("bool",), "is_delete_marker": ("bool",)}
"""The columns of a Parquet file that are read, and the types that they may have."""

Batches = Iterator[list[str]]
Kind = TypeVar("Kind")


@dataclass(frozen=True, slots=True)
class _File:
    """One file of an inventory as its manifest describes it. md5: in lower-case hex."""

    key: str
    size: int
    md5: str


async def inventory_keys(
    store: ObjectStore, manifest: str, *, source_bucket: str, prefix: str, scratch: Path
) -> AsyncIterator[str]:
    """The keys below `prefix` that an inventory of `source_bucket` lists, relative to it, in no order.

    store: the bucket that holds the inventory. manifest: the key of its manifest.json. scratch: a directory for one
    file of the inventory at a time; it is gone again when the last key of it is taken, or the iterator closed.

    Raises ConfigurationError before the first key when this is no inventory that can be read or not one of that
    bucket, and later when one of its files is gone or `scratch` is full; Corrupted when a file is not what the
    manifest says (before any key of it) or has a row that makes no sense.
    """
    data = await _read_manifest(store, manifest)
    try:
        files, batches_of = _parse(data, source_bucket)
    except ValueError as error:
        raise ConfigurationError(f"--inventory {store.name}{manifest}: {error}") from error
    path = scratch / "inventory-file"  # not named after anything in the manifest, which may hold any path
    for file in files:
        try:
            await _download(store, file, path)
            batches = batches_of(path)
            while (batch := await asyncio.to_thread(_following, batches)) is not None:
                for key in batch:
                    if key.startswith(prefix) and key != prefix:
                        yield key[len(prefix) :]
        except ValueError as error:
            raise Corrupted("GetObject", store.name + file.key, f"an inventory's file, but {error}") from error
        finally:
            path.unlink(missing_ok=True)


def _following(batches: Batches) -> list[str] | None:
    return next(batches, None)


async def _read_manifest(store: ObjectStore, manifest: str) -> bytes:
    """All of it, as long as it is of a size that a manifest can have."""
    state = await _head(store, manifest, "check the bucket and the key")
    if state.size > MOST_MANIFEST:
        raise ConfigurationError(
            f"--inventory {store.name}{manifest}: {state.size:,} bytes are too many for a manifest"
        )
    return b"".join([data async for data in read_windows(store, manifest, state)])


async def _head(store: ObjectStore, key: str, hint: str) -> ObjectState:
    try:
        return await store.head(key)
    except NoSuchKey as error:
        raise ConfigurationError(f"--inventory: {store.name}{key} is not there; {hint}") from error


def _parse(data: bytes, source_bucket: str) -> tuple[list[_File], Callable[[Path], Batches]]:
    """The files of an inventory, and what reads one of them. Raises ValueError."""
    try:
        manifest = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError("this is no JSON; give the manifest.json of an S3 Inventory") from error
    bucket = _field(manifest, "sourceBucket", str)
    if bucket != source_bucket:
        raise ValueError(f"this is an inventory of the bucket {bucket[:80]!r}, not of the source {source_bucket!r}")
    return [_file(entry) for entry in _field(manifest, "files", list)], _reader(manifest)


def _file(entry: object) -> _File:
    file = _File(_field(entry, "key", str), _field(entry, "size", int), _field(entry, "MD5checksum", str).lower())
    file.key.encode()  # JSON can hold what no key can: half of a surrogate pair
    if not file.key or file.size < 0 or not re.fullmatch("[0-9a-f]{32}", file.md5):
        raise ValueError(f"a file needs a key, a size and an MD5 in hex, which {str(entry)[:200]!r} has not")
    return file


def _reader(manifest: object) -> Callable[[Path], Batches]:
    form = _field(manifest, "fileFormat", str)
    if form.upper() == "CSV":
        columns = [name.strip() for name in _field(manifest, "fileSchema", str).split(",")]
        if columns.count("Key") != 1:
            raise ValueError("fileSchema must name the columns of a CSV, and Key among them")
        return partial(_csv_batches, columns=columns)
    if form.upper() != "PARQUET":
        raise ValueError(f"{form[:80]!r} cannot be read; have S3 write the inventory as CSV or Parquet")
    try:
        import pyarrow.parquet  # type: ignore[import-untyped] # noqa: F401
    except ImportError as error:
        raise ValueError("to read Parquet, install bucket-replicator[parquet]; or use a CSV inventory") from error
    return _parquet_batches


def _field(fields: object, name: str, kind: type[Kind]) -> Kind:
    value = fields.get(name) if isinstance(fields, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"no manifest.json of an S3 Inventory: {name!r} is missing or of a wrong type")
    return value


async def _download(store: ObjectStore, file: _File, path: Path) -> None:
    """Fetches a file. Raises ValueError unless it is the one that the manifest means."""
    state = await _head(store, file.key, "the manifest names it, so take a newer inventory")
    if state.size != file.size:
        raise ValueError(f"of {state.size:,} bytes instead of the {file.size:,} that the manifest says")
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with path.open("wb") as out:
            async for data in read_windows(store, file.key, state):
                await asyncio.to_thread(digest.update, data)
                await asyncio.to_thread(out.write, data)
    except OSError as error:
        raise ConfigurationError(f"--inventory: cannot write {path}: {error.strerror or error}") from error
    if digest.hexdigest() != file.md5:
        raise ValueError(f"its MD5 is {digest.hexdigest()} instead of {file.md5}, which the manifest says")


def _csv_batches(path: Path, columns: Sequence[str]) -> Batches:
    """The keys in a CSV file. Raises ValueError, as everything that reads files here does."""
    first = 1
    try:
        with gzip.open(path) as file:
            for lines in _lines(file):
                yield _csv_keys(lines, columns, first)
                first += len(lines)
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"it cannot be unpacked: {error}") from error


def _lines(file: gzip.GzipFile) -> Iterator[list[str]]:
    """All lines, as many at once as fit into a chunk."""
    rest = b""
    while chunk := file.read(CHUNK):
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > CHUNK:
            raise ValueError("a line of it does not end")
        yield [line.decode() for line in lines]
    yield [rest.decode()]


def _csv_keys(lines: list[str], columns: Sequence[str], first: int) -> list[str]:
    """The keys of these rows. first: the number of the first line.

    A row is one line, as keys are URL-encoded: a quote that is not closed does not pile up lines without end.
    """
    key = columns.index("Key")
    unwanted = [(columns.index(name), value) for name, value in UNWANTED if name in columns]
    keys = []
    reader = csv.reader(lines, strict=True)
    try:
        for number, row in enumerate(reader, 1):
            if reader.line_num != number:
                raise ValueError("a quote is not closed")
            if row and len(row) != len(columns):
                raise ValueError(f"{len(row)} columns instead of {len(columns)}")
            if row and not any(row[column].lower() == value for column, value in unwanted):
                keys.append(unquote_plus(row[key], errors="strict"))
    except (ValueError, csv.Error) as error:
        raise ValueError(f"in line {first + reader.line_num - 1}: {error}") from error
    return keys


def _parquet_batches(path: Path) -> Batches:
    """The keys in a Parquet file. How much memory a page of it takes is left to pyarrow."""
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path, buffer_size=CHUNK) as file:
            columns = _columns(file.schema_arrow)
            for batch in file.iter_batches(ROWS, columns=columns, use_threads=False):
                rows = batch.to_pydict()
                if None in rows["key"]:
                    raise ValueError("a row of it has no key")
                unknown = [None] * len(rows["key"])
                flags = zip(rows.get("is_latest", unknown), rows.get("is_delete_marker", unknown), strict=True)
                yield [
                    key
                    for key, (latest, marker) in zip(rows["key"], flags, strict=True)
                    if latest is not False and not marker
                ]
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"it is no Parquet that can be read: {error}") from error


def _columns(schema: Any) -> list[str]:  # noqa: ANN401 - a pyarrow.Schema, which has no types to check against
    """Which of COLUMNS a Parquet file has. Raises ValueError if they are not what an inventory's are."""
    columns = [name for name in COLUMNS if name in schema.names]
    odd = [
        name for name in columns if schema.names.count(name) > 1 or str(schema.field(name).type) not in COLUMNS[name]
    ]
    if odd or "key" not in columns:
        raise ValueError(f"its column {odd[0] if odd else 'key'!r} is missing, of a wrong type, or there twice")
    return columns
