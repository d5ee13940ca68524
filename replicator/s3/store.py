"""The S3 store: S3's operations as replicator.store.ObjectStore names them."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from urllib.parse import quote, unquote, unquote_plus

from replicator.errors import (
    ChangedMeanwhile,
    NoSuchBucket,
    NoSuchKey,
    NoSuchUpload,
    Rejected,
    Transient,
    Unproven,
    Unsupported,
)
from replicator.model import Listed, ObjectState, Tags
from replicator.multipart import Part
from replicator.s3.client import SMALL_ANSWER, Call, S3Client, encode_query
from replicator.s3.connection import Response
from replicator.s3.headers import state_of, write_headers
from replicator.s3.listing import list_objects, list_page
from replicator.s3.uploads import document_of, list_uploads, time_in
from replicator.s3.xml import (
    complete_multipart,
    local_name,
    parse_tags,
    tagging,
    texts,
)
from replicator.storage_classes import AS_AT_THE_SOURCE, StorageClasses
from replicator.store import Body, Fetched, Load, PendingUpload, Pin, SourceStore, Span, Write, Written

TAGGING_FAILURES = 3
"""How often GET ?tagging may fail before a store counts as having no tags: rclone's answers 500 each time."""


class S3Store:
    """A bucket below a prefix. Implements ObjectStore; the contracts are there.

    prefix: "" or a string that ends with "/". name: what it is called in outcomes; "": by its location.
    storage_classes: as ObjectStore has them.
    """

    def __init__(
        self,
        client: S3Client,
        prefix: str = "",
        *,
        name: str = "",
        storage_classes: StorageClasses = AS_AT_THE_SOURCE,
    ) -> None:
        self.client = client
        self._name = name or f"s3://{client.bucket}/{prefix}"
        self.prefix = prefix
        self.storage_classes = storage_classes
        self._tagging_proven = False
        self._tagging_failures = 0

    @property
    def name(self) -> str:
        return self._name

    @property
    def clock_skew(self) -> float:
        return self.client.skew

    @property
    def load(self) -> Load:
        limit = self.client.limit
        return Load(self.client.sent, limit.throttled, int(limit.limit))

    async def check(self) -> None:
        await self._first_entry("")

    async def head(self, key: str, *, part: int | None = None) -> ObjectState:
        query = f"partNumber={part}" if part is not None else ""
        headers = [("x-amz-checksum-mode", "ENABLED")]
        response = await self._send("HeadObject", "HEAD", key, query=query, headers=headers)
        state = state_of(response.headers)
        if part is not None and state.parts is not None:
            return state_of(response.headers, size=int(response.headers.get("content-length", "0")))
        return state

    async def confirm_absent(self, key: str) -> None:
        if await self._first_entry(key) == "":
            raise ChangedMeanwhile("HeadObject", self._about(key), "not found, yet it is listed")

    async def _first_entry(self, prefix: str) -> str | None:
        """The first key that starts with `prefix`, without it; None if there is none. Proves that the bucket lists."""
        try:
            page = await list_page(self.client, self.prefix + prefix, page_size=1)
        except NoSuchKey as error:  # a bare 404 for a bucket is about the bucket
            raise NoSuchBucket(error.operation, error.target, error.detail, code=error.code) from error
        if page.truncated and not page.entries:
            raise Transient("ListObjectsV2", self._about(prefix), "an empty page that is not the last proves nothing")
        return page.entries[0].key if page.entries else None

    async def fetch(
        self,
        key: str,
        *,
        limit: int,
        span: Span | None = None,
        pin: Pin | None = None,
        into: memoryview | None = None,
    ) -> Fetched:
        headers: list[tuple[str, str]] = []
        query = ""
        if span is not None:
            headers.append(("range", f"bytes={span.first}-{span.last}"))
        if pin is not None:
            headers.append(("if-match", f'"{pin.etag}"'))
            if pin.version_id is not None:
                query = encode_query(versionId=pin.version_id)
        response = await self._send("GetObject", "GET", key, query=query, headers=headers, limit=limit, into=into)
        state = state_of(response.headers)
        expected = state.size if span is None else min(span.last + 1, state.size) - span.first
        if len(response.body) != expected or (span is not None and expected != span.size):
            raise Transient("GetObject", self._about(key), f"got {len(response.body)} bytes instead of {expected}")
        return Fetched(state, response.body)

    async def put(self, key: str, body: Body, write: Write) -> Written:
        response = await self._send("PutObject", "PUT", key, headers=write_headers(write), body=body)
        return Written(_etag(response), response.headers.get("x-amz-version-id"))

    async def delete(self, key: str) -> None:
        try:
            await self._send("DeleteObject", "DELETE", key)
        except NoSuchKey as error:
            if error.code != "NoSuchKey":  # a bare 404 may be about the bucket
                raise

    def list_pages(self, *, after: str = "", page_size: int = 1000) -> AsyncIterator[Sequence[Listed]]:
        return list_objects(self.client, self.prefix, after=after, page_size=page_size)

    async def get_tags(self, key: str, version_id: str | None = None) -> Tags:
        query = encode_query(tagging="", **({"versionId": version_id} if version_id else {}))
        response = await self._send("GetObjectTagging", "GET", key, query=query)
        if not response.body:  # Ceph RGW, of an object that never had any
            return ()
        tags = parse_tags(response.document)
        if tags is None:
            raise Unsupported("GetObjectTagging", self._about(key), "the answer is no tag set", code="NoTagSet")
        self._tagging_proven = True
        return tags

    async def put_tags(self, key: str, tags: Tags) -> None:
        """As promised by the port. Some stores answer 200 to PUT ?tagging and replace the object by the XML (rclone
        serve s3), so it is sent only where GET ?tagging was seen to be understood.
        """
        if not self._tagging_proven:
            await self._prove_tagging(key)
        body = tagging(tags)
        md5 = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
        headers = [("content-md5", md5), ("content-type", "application/xml")]
        await self._send("PutObjectTagging", "PUT", key, query="tagging=", headers=headers, body=body)

    async def _prove_tagging(self, key: str) -> None:
        """Asks for tags. A store that fails again and again at that, and at nothing else, does not know them.

        An empty answer about an object that is not empty is no object, so the question was understood.
        """
        try:
            await self.get_tags(key)
            if not self._tagging_proven and (await self.head(key)).size == 0:
                raise Unproven("GetObjectTagging", self._about(key), "the answer is no tag set")
        except Transient as error:
            self._tagging_failures += 1
            if self._tagging_failures < TAGGING_FAILURES:
                raise
            raise Unsupported(error.operation, error.target, error.detail, code=error.code) from error

    def can_copy_from(self, source: SourceStore) -> bool:
        return isinstance(source, S3Store) and self.client.same_account(source.client)

    async def copy(self, source: SourceStore, source_key: str, key: str, pin: Pin, write: Write) -> Written:
        headers = [
            *_copy_source(source, source_key, pin),
            ("x-amz-metadata-directive", "REPLACE"),
            ("x-amz-tagging-directive", "REPLACE"),
            *write_headers(write),
        ]
        response = await self._send("CopyObject", "PUT", key, headers=headers, late_error=True)
        fields = _answer(response, "CopyObject", self._about(key))
        return Written(fields.get("ETag", "").strip('"'), response.headers.get("x-amz-version-id"))

    async def create_upload(self, key: str, write: Write) -> str:
        response = await self._send(
            "CreateMultipartUpload", "POST", key, query="uploads=", headers=write_headers(write)
        )
        upload = _answer(response, "CreateMultipartUpload", self._about(key)).get("UploadId", "")
        if not upload:
            raise Transient("CreateMultipartUpload", self._about(key), "the answer names no upload")
        return upload

    async def put_part(self, key: str, upload: str, part: Part, body: Body, *, md5: bytes | None = None) -> str:
        query = encode_query(partNumber=part.number, uploadId=upload)
        headers = [("content-md5", base64.b64encode(md5).decode())] if md5 is not None else []
        return _etag(await self._send("UploadPart", "PUT", key, query=query, headers=headers, body=body))

    async def copy_part(self, key: str, upload: str, part: Part, source: SourceStore, source_key: str, pin: Pin) -> str:
        query = encode_query(partNumber=part.number, uploadId=upload)
        headers = [
            *_copy_source(source, source_key, pin),
            ("x-amz-copy-source-range", f"bytes={part.offset}-{part.last}"),
        ]
        response = await self._send("UploadPartCopy", "PUT", key, query=query, headers=headers, late_error=True)
        return _answer(response, "UploadPartCopy", self._about(key)).get("ETag", "").strip('"')

    async def list_parts(self, key: str, upload: str) -> dict[int, Listed]:
        parts: dict[int, Listed] = {}
        marker = 0
        while True:
            query = encode_query(part_number_marker=marker, uploadId=upload)
            try:
                response = await self._send("ListParts", "GET", key, query=query)
            except NoSuchKey as error:  # so says Ceph RGW
                raise NoSuchUpload(error.operation, error.target, error.detail, code=error.code) from error
            root = document_of(response, "ListParts", self._about(key))
            fields = texts(root)
            for element in root:
                if local_name(element) == "Part":
                    part = texts(element)
                    etag = part.get("ETag", "").strip('"')
                    number, size = _number(part, "PartNumber"), _number(part, "Size")
                    modified = time_in(part, "LastModified")
                    parts[number] = Listed(key, size, etag, modified, fields.get("StorageClass", ""))
            if fields.get("IsTruncated") != "true":
                return parts
            following = _number(fields, "NextPartNumberMarker")
            if following <= marker:
                raise Transient("ListParts", self._about(key), "the listing of parts does not advance")
            marker = following

    async def pending_uploads(self, prefix: str = "") -> AsyncIterator[PendingUpload]:
        async for fields, encoded in list_uploads(self.client, self.prefix + prefix):
            # Ceph RGW encodes without saying so. Whoever acts on a name that was none finds no such upload.
            name = (unquote_plus if encoded else unquote)(fields.get("Key", ""))
            if name.startswith(self.prefix + prefix) and fields.get("UploadId"):
                yield PendingUpload(name[len(self.prefix) :], fields["UploadId"], time_in(fields, "Initiated"))

    async def list_uploads(self, key: str) -> list[str]:
        full = self.prefix + key
        wanted = {full, quote(full, safe="/~"), quote(full, safe="~")}  # some stores encode without saying so
        mine = [fields async for fields, _ in list_uploads(self.client, full) if fields.get("Key") in wanted]
        mine.sort(key=lambda fields: fields.get("Initiated", ""), reverse=True)
        return [fields["UploadId"] for fields in mine if fields.get("UploadId")]

    async def complete_upload(self, key: str, upload: str, etags: list[str]) -> Written:
        query = encode_query(uploadId=upload)
        response = await self._send(
            "CompleteMultipartUpload",
            "POST",
            key,
            query=query,
            body=complete_multipart(etags),
            late_error=True,
        )
        fields = _answer(response, "CompleteMultipartUpload", self._about(key))
        return Written(fields.get("ETag", "").strip('"'), response.headers.get("x-amz-version-id"))

    async def abort_upload(self, key: str, upload: str) -> None:
        with suppress(NoSuchUpload, NoSuchKey):
            await self._send("AbortMultipartUpload", "DELETE", key, query=encode_query(uploadId=upload))

    async def _send(
        self,
        operation: str,
        method: str,
        key: str,
        *,
        query: str = "",
        headers: list[tuple[str, str]] | None = None,
        body: Body = b"",
        limit: int = SMALL_ANSWER,
        late_error: bool = False,
        into: memoryview | None = None,
    ) -> Response:
        if not self.prefix + key:  # "DELETE /bucket/" would be about the bucket itself
            raise Rejected(operation, self.client.bucket, "an object has no empty key")
        return await self.client.send(
            Call(operation, method, self.prefix + key, query, headers or (), body, limit, late_error, into)
        )

    def _about(self, key: str) -> str:
        return f"{self.client.bucket}/{self.prefix}{key}"


def _etag(response: Response) -> str:
    return response.headers.get("etag", "").strip('"')


def _number(fields: dict[str, str], name: str) -> int:
    text = fields.get(name, "")
    if not text.isdecimal():
        raise Transient("ListParts", name, f"the answer has no number there but {text[:40]!r}")
    return int(text)


def _answer(response: Response, operation: str, about: str) -> dict[str, str]:
    return texts(document_of(response, operation, about))


def _copy_source(source: SourceStore, key: str, pin: Pin) -> list[tuple[str, str]]:
    """Names the object to copy from. The source is an S3Store: can_copy_from said so."""
    assert isinstance(source, S3Store)  # noqa: S101 - narrows the type
    version = f"?versionId={quote(pin.version_id, safe='')}" if pin.version_id else ""
    path = quote(f"{source.client.bucket}/{source.prefix}{key}", safe="/~")
    return [("x-amz-copy-source", f"/{path}{version}"), ("x-amz-copy-source-if-match", f'"{pin.etag}"')]
