"""Listings of unfinished uploads."""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import unquote_plus
from xml.etree.ElementTree import Element

from replicator.errors import Transient
from replicator.s3.client import Call, S3Client, encode_query
from replicator.s3.connection import Response
from replicator.s3.xml import MalformedXml, local_name, parse, texts, time_of


async def list_uploads(client: S3Client, prefix: str) -> AsyncIterator[tuple[dict[str, str], bool]]:
    """The texts of each unfinished upload; and whether keys are encoded.

    Raises Transient for a listing that does not advance.
    """
    markers: dict[str, str] = {}
    seen: set[tuple[str, ...]] = set()
    while True:
        query = encode_query(encoding_type="url", prefix=prefix, uploads="", **markers)
        response = await client.send(Call("ListMultipartUploads", "GET", query=query))
        root = document_of(response, "ListMultipartUploads", client.bucket)
        fields = texts(root)
        for element in root:
            if local_name(element) == "Upload":
                yield texts(element), fields.get("EncodingType") == "url"
        if fields.get("IsTruncated") != "true":
            return
        markers = {
            "key_marker": unquote_plus(fields.get("NextKeyMarker", "")),
            "upload_id_marker": fields.get("NextUploadIdMarker", ""),
        }
        if tuple(markers.values()) in seen:
            raise Transient("ListMultipartUploads", client.bucket, "the listing of uploads does not advance")
        seen.add(tuple(markers.values()))


def time_in(fields: dict[str, str], name: str) -> float:
    """A time among an element's texts; infinite when there is none that can be read: what has no age is not old."""
    try:
        return time_of(fields[name])
    except (KeyError, MalformedXml):
        return float("inf")


def document_of(response: Response, operation: str, about: str) -> Element:
    """The XML of an answer. Raises Transient when it is none."""
    try:
        return parse(response.document)
    except MalformedXml as error:
        raise Transient(operation, about, f"the answer cannot be read: {error}") from error
