"""A synthetic S3 server for listings of millions of keys, read only, in constant memory and with little CPU.

python -m tests.benchmarks.listing_server --port 9100 --keys 1000000 [--layout flat] [--latency-ms 20]

Every bucket has the same objects. Those of buckets whose names start with "source" are a day older than the others',
as they would be had they been copied. Signatures are not checked. GET /?counts tells what was asked for.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from email.utils import format_datetime, formatdate
from pathlib import Path
from typing import cast
from urllib.parse import parse_qs, unquote
from xml.sax.saxutils import escape

import uvloop

from tests.benchmarks.virtual_bucket import LAYOUTS, MTIME, VirtualKeys, contents, encode, walk
from tests.servers import Endpoint
from tests.servers.base import HOST, free_port, http_answers, running

ROOT = Path(__file__).parents[2]
MOST_KEYS = 1000
XML = b'<?xml version="1.0" encoding="UTF-8"?>\n'
NAMESPACE = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'

Answer = tuple[int, Mapping[str, str], list[bytes]]
REASONS = {200: "OK", 404: "Not Found", 501: "Not Implemented"}


class Buckets:
    """Answers requests. Knows no network."""

    def __init__(self, keys: VirtualKeys) -> None:
        self.keys = keys
        self.counts: Counter[str] = Counter()

    def answer(self, method: str, target: str) -> Answer:
        path, _, query = target.partition("?")
        asked = {name: values[0] for name, values in parse_qs(query, keep_blank_values=True).items()}
        bucket, _, key = unquote(path[1:]).partition("/")
        if not bucket:
            return 200, {}, [json.dumps(self.counts).encode()] if "counts" in asked else [_element("ListAllMyBuckets")]
        kind = f"{method} {'object' if key else 'bucket'}"
        self.counts[kind] += 1
        if kind == "HEAD object":
            return self._head(bucket, key)
        if kind in ("HEAD bucket", "PUT bucket"):
            return 200, {}, []
        if kind != "GET bucket":
            return _error(501, "NotImplemented", f"{kind}: only listings and HEAD are served")
        if "location" in asked:
            return 200, {}, [_element("LocationConstraint")]
        if "versioning" in asked:
            return 200, {}, [_element("VersioningConfiguration")]
        return self._list(bucket, asked)

    def _head(self, bucket: str, key: str) -> Answer:
        index = self.keys.find(key)
        if index is None:
            return _error(404, "NoSuchKey", "The specified key does not exist.")
        found = self.keys.describe(index, _day(bucket))
        modified = format_datetime(datetime.fromisoformat(found.modified), usegmt=True)
        headers = {"ETag": f'"{found.etag}"', "Last-Modified": modified, "Content-Length": str(found.size)}
        return 200, {**headers, "Content-Type": "binary/octet-stream", "x-amz-meta-mtime": MTIME}, []

    def _list(self, bucket: str, asked: Mapping[str, str]) -> Answer:
        prefix, delimiter, encoded = asked.get("prefix", ""), asked.get("delimiter", ""), "encoding-type" in asked
        if delimiter not in ("", "/"):
            return _error(501, "NotImplemented", "A delimiter other than a slash")
        limit = min(MOST_KEYS, int(asked.get("max-keys", MOST_KEYS)))
        shown, following = walk(self.keys, prefix, delimiter, self._start(asked), limit)
        pieces, commons, number = list[bytes](), list[str](), 0
        for item in shown:
            if isinstance(item, range):
                pieces += contents(self.keys, item, encoded=encoded, day=_day(bucket))
                number += len(item)
            else:
                commons.append(f"<CommonPrefixes><Prefix>{_text(item, encoded)}</Prefix></CommonPrefixes>")
        fields = {"Name": bucket, "Prefix": _text(prefix, encoded), "MaxKeys": str(limit)}
        fields |= {name: value for name, value in _optional(asked, encoded).items() if value}
        fields["IsTruncated"] = "true" if following is not None else "false"
        if asked.get("list-type") == "2":
            fields["KeyCount"] = str(number + len(commons))
            if following is not None:
                fields["NextContinuationToken"] = f"next-{following}"
        elif following is not None and delimiter:
            last = shown[-1]
            fields["NextMarker"] = _text(self.keys.key(last[-1]) if isinstance(last, range) else last, encoded)
        head = "".join(f"<{name}>{value}</{name}>" for name, value in fields.items())
        body = [XML, f"<ListBucketResult {NAMESPACE}>{head}".encode(), *pieces, "".join(commons).encode()]
        return 200, {}, [*body, b"</ListBucketResult>"]

    def _start(self, asked: Mapping[str, str]) -> int:
        if token := asked.get("continuation-token"):
            return int(token.removeprefix("next-"))
        marker, delimiter = asked.get("marker", ""), asked.get("delimiter", "")
        if marker and delimiter and marker.endswith(delimiter):
            return self.keys.below(marker)[1]  # a common prefix that was shown: not to be shown again
        after = marker or asked.get("start-after", "")
        return self.keys.after(after) if after else 0


def _optional(asked: Mapping[str, str], encoded: bool) -> dict[str, str]:
    """The fields that echo the question."""
    return {
        "Delimiter": asked.get("delimiter", ""),
        "EncodingType": "url" if encoded else "",
        "StartAfter": _text(asked.get("start-after", ""), encoded),
        "Marker": _text(asked.get("marker", ""), encoded),
        "ContinuationToken": asked.get("continuation-token", ""),
    }


def _day(bucket: str) -> int:
    return 1 if bucket.startswith("source") else 2


def _text(text: str, encoded: bool) -> str:
    return encode(text) if encoded else escape(text)


def _element(name: str) -> bytes:
    return XML + f"<{name} {NAMESPACE}/>".encode()


def _error(status: int, code: str, message: str) -> Answer:
    return status, {}, [XML + f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()]


class Connection(asyncio.Protocol):
    """One client: HTTP/1.1 with keep-alive."""

    transport: asyncio.Transport

    def __init__(self, buckets: Buckets, latency: float) -> None:
        self.buckets, self.latency = buckets, latency
        self.received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's are such without saying so

    def data_received(self, data: bytes) -> None:
        self.received += data
        while b"\r\n\r\n" in self.received:
            head, _, rest = self.received.partition(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            length = int(headers.get("content-length", "0"))
            if len(rest) < length:
                return
            self.received = rest[length:]
            method, target, _ = first.split(" ")
            self._respond(method, self.buckets.answer(method, target))

    def _respond(self, method: str, answer: Answer) -> None:
        status, headers, pieces = answer
        body = b"".join(pieces)
        fields = {
            "Date": formatdate(usegmt=True),
            "Server": "AmazonS3",
            "Content-Type": "application/xml",
            "Content-Length": str(len(body)),
            **headers,
        }
        lines = [f"HTTP/1.1 {status} {REASONS[status]}", *(f"{name}: {value}" for name, value in fields.items())]
        message = "\r\n".join([*lines, "", ""]).encode() + (b"" if method == "HEAD" else body)
        if self.latency:
            asyncio.get_running_loop().call_later(self.latency, self.transport.write, message)
        else:
            self.transport.write(message)


@contextmanager
def serve_listing(keys: int, *, layout: str = "dirs", latency: float = 0.0) -> Iterator[Endpoint]:
    """Runs the server as a process of its own. latency: seconds before each answer."""
    port = free_port()
    command = [sys.executable, "-m", "tests.benchmarks.listing_server", "--port", str(port), "--keys", str(keys)]
    command += ["--layout", layout, "--latency-ms", str(latency * 1000)]
    with (
        tempfile.TemporaryDirectory(prefix="listing-server-") as state,
        running("listing", command, state=Path(state), env={"PYTHONPATH": str(ROOT)}, ready=lambda: http_answers(port)),
    ):
        yield Endpoint(name="listing", url=f"http://{HOST}:{port}", access_key="any", secret_key="any-secret")


def counts(endpoint: Endpoint) -> dict[str, int]:
    """What a server has been asked for until now, by kind: "GET bucket" is a page of a listing."""
    connection = http.client.HTTPConnection(endpoint.url.removeprefix("http://"))
    try:
        connection.request("GET", "/?counts")
        answered: dict[str, int] = json.load(connection.getresponse())
        return answered
    finally:
        connection.close()


async def _serve(port: int, keys: VirtualKeys, latency: float) -> None:
    buckets = Buckets(keys)
    server = await asyncio.get_running_loop().create_server(lambda: Connection(buckets, latency), HOST, port)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--keys", type=int, required=True)
    parser.add_argument("--layout", choices=sorted(LAYOUTS), default="dirs")
    parser.add_argument("--latency-ms", type=float, default=0.0)
    chosen = parser.parse_args()
    uvloop.run(_serve(chosen.port, VirtualKeys(chosen.keys, chosen.layout), chosen.latency_ms / 1000))


if __name__ == "__main__":
    main()
