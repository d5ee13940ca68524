"""Headers to values and back."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from email.utils import format_datetime
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.model import STAMP, Attributes, ObjectState
from replicator.s3.headers import attributes_of, http_date, state_of, tagging_header, write_headers
from replicator.store import Write
from tests.awkward import RICH, TAGS

HEADERS = {
    "content-length": "5",
    "etag": '"abc"',
    "last-modified": "Fri, 20 Nov 2026 12:00:00 GMT",
    "content-type": "text/plain",
}
PLAIN = ObjectState(5, "abc", 1795176000.0, Attributes(content_type="text/plain"))

MOMENTS = st.datetimes(datetime(1970, 1, 1), datetime(2999, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001


@given(MOMENTS)
def test_an_http_date_is_its_time(moment):
    moment = moment.replace(microsecond=0)
    assert http_date(format_datetime(moment, usegmt=True)) == moment.timestamp()
    assert http_date(format_datetime(moment)) == moment.timestamp()


@pytest.mark.parametrize(
    "text",
    [
        "Fri, 20 Nov 2026 12:00:00 GMT",
        "Fri, 20 Nov 2026 12:00:00 +0000",
        "20 Nov 2026 13:00:00 +0100",
        "Friday, 20-Nov-26 12:00:00 GMT",
    ],
)
def test_dates_are_read_in_every_form_that_http_allows(text):
    assert http_date(text) == 1795176000.0


@pytest.mark.parametrize("text", ["", "yesterday", "Fri, 20 Foo 2026 12:00:00 GMT", "x" * 25 + " GMT", "2026-11-20"])
def test_what_is_no_date_is_zero(text):
    assert http_date(text) == 0.0


@given(st.text(max_size=40) | st.text("0123456789 :,GMTNov+-", max_size=35))
def test_junk_never_raises(text):
    assert isinstance(http_date(text), float)


def test_a_plain_object_is_what_its_headers_say():
    assert state_of(HEADERS) == PLAIN


VALUES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=10)
NAMES = st.from_regex(r"[a-z0-9][a-z0-9_.-]{0,8}", fullmatch=True)
OPTIONAL = st.none() | VALUES


@given(
    st.builds(
        Attributes,
        content_type=OPTIONAL,
        content_encoding=OPTIONAL.filter(lambda value: value is None or "aws-chunked" not in value),
        content_disposition=OPTIONAL,
        content_language=OPTIONAL,
        cache_control=OPTIONAL,
        expires=OPTIONAL,
        website_redirect=OPTIONAL,
        metadata=st.dictionaries(NAMES, VALUES, max_size=4).map(lambda pairs: tuple(sorted(pairs.items()))),
    )
)
def test_attributes_survive_writing_and_reading(attributes):
    assert attributes_of(dict(write_headers(Write(attributes=attributes)))) == attributes


def test_rich_attributes_are_written_under_the_names_of_s3():
    headers = dict(write_headers(Write(attributes=RICH, storage_class="GLACIER_IR", md5=b"\x00" * 16, stamp="s-3")))
    assert headers["content-encoding"] == "gzip"
    assert headers["x-amz-meta-note"] == "a + b = c; d"
    assert headers["x-amz-storage-class"] == "GLACIER_IR"
    assert base64.b64decode(headers["content-md5"]) == b"\x00" * 16
    assert headers[f"x-amz-meta-{STAMP}"] == "s-3"
    assert "x-amz-tagging" not in headers


def test_nothing_is_written_that_was_not_there():
    assert write_headers(Write()) == []


def test_the_stamp_is_read_apart_from_the_metadata():
    state = state_of({**HEADERS, f"x-amz-meta-{STAMP}": "abc-2", "x-amz-meta-a": "1"})
    assert (state.stamp, state.attributes.metadata) == ("abc-2", (("a", "1"),))


def test_the_stamp_of_a_source_is_not_handed_on_as_metadata():
    state = state_of({**HEADERS, f"x-amz-meta-{STAMP}": "abc-2"})
    assert STAMP not in str(write_headers(Write(attributes=state.attributes)))


@pytest.mark.parametrize(
    ("value", "kept"),
    [("gzip", "gzip"), ("aws-chunked", None), ("gzip, aws-chunked", "gzip"), ("aws-chunked,gzip,br", "gzip, br")],
)
def test_the_encoding_of_a_transfer_does_not_belong_to_the_object(value, kept):
    assert attributes_of({"content-encoding": value}).content_encoding == kept


@pytest.mark.parametrize(
    ("content_range", "size"),
    [("bytes 0-4/100", 100), ("bytes 0-4/*", 5), ("bytes */100", 100), ("", 5), ("junk", 5), ("bytes 0-4/x", 5)],
)
def test_the_size_is_that_of_the_whole_object(content_range, size):
    assert state_of({**HEADERS, "content-range": content_range}).size == size


def test_a_size_that_was_asked_for_otherwise_is_taken():
    assert state_of(HEADERS, size=7).size == 7


ARCHIVED = {
    "standard": ({}, False),
    "glacier": ({"x-amz-storage-class": "GLACIER"}, True),
    "deep archive": ({"x-amz-storage-class": "DEEP_ARCHIVE"}, True),
    "instant retrieval": ({"x-amz-storage-class": "GLACIER_IR"}, False),
    "being restored": ({"x-amz-storage-class": "GLACIER", "x-amz-restore": 'ongoing-request="true"'}, True),
    "restored": (
        {
            "x-amz-storage-class": "DEEP_ARCHIVE",
            "x-amz-restore": 'ongoing-request="false", expiry-date="Fri, 21 Dec 2026 00:00:00 GMT"',
        },
        False,
    ),
}


@pytest.mark.parametrize(("headers", "archived"), ARCHIVED.values(), ids=ARCHIVED.keys())
def test_an_archived_object_is_one_that_cannot_be_read_now(headers, archived):
    assert state_of({**HEADERS, **headers}).archived is archived


CHECKSUMS = {
    "none": ({}, None),
    "of the whole": ({"x-amz-checksum-type": "FULL_OBJECT", "x-amz-checksum-crc32": "x"}, ("crc32", "x")),
    "of the parts": ({"x-amz-checksum-type": "COMPOSITE", "x-amz-checksum-sha256": "x-3"}, None),
    "of an unknown kind": ({"x-amz-checksum-sha256": "x"}, None),
    "kind without a checksum": ({"x-amz-checksum-type": "FULL_OBJECT"}, None),
    "the strongest": (
        {"x-amz-checksum-type": "FULL_OBJECT", "x-amz-checksum-crc32": "x", "x-amz-checksum-sha256": "y"},
        ("sha256", "y"),
    ),
}


@pytest.mark.parametrize(("headers", "checksum"), CHECKSUMS.values(), ids=CHECKSUMS.keys())
def test_only_checksums_of_the_whole_object_count(headers, checksum):
    assert state_of({**HEADERS, **headers}).checksum == checksum


DIGESTS = {
    "none": ({}, True),
    "S3's keys": ({"x-amz-server-side-encryption": "AES256"}, True),
    "KMS": ({"x-amz-server-side-encryption": "aws:kms"}, False),
    "KMS twice": ({"x-amz-server-side-encryption": "aws:kms:dsse"}, False),
    "the customer's keys": ({"x-amz-server-side-encryption-customer-algorithm": "AES256"}, False),
}


@pytest.mark.parametrize(("headers", "is_md5"), DIGESTS.values(), ids=DIGESTS.keys())
def test_the_etag_of_an_encrypted_object_is_no_digest(headers, is_md5):
    assert state_of({**HEADERS, **headers}).etag_is_md5 is is_md5


@pytest.mark.parametrize(("header", "parts"), [(None, None), ("3", 3), ("", None), ("many", None)])
def test_an_unknown_number_of_parts_is_not_one(header, parts):
    assert state_of({**HEADERS, **({"x-amz-mp-parts-count": header} if header is not None else {})}).parts == parts


@pytest.mark.parametrize(("header", "version"), [("v1", "v1"), ("null", None), ("", None)])
def test_the_null_version_is_none(header, version):
    assert state_of({**HEADERS, "x-amz-version-id": header}).version_id == version


def test_numbers_of_tags_and_of_lost_metadata_are_read():
    state = state_of({**HEADERS, "x-amz-tagging-count": "2", "x-amz-missing-meta": "1"})
    assert (state.tag_count, state.lost_metadata) == (2, 1)
    assert (state_of(HEADERS).tag_count, state_of(HEADERS).lost_metadata) == (0, 0)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)


@given(st.dictionaries(TEXT, TEXT, max_size=5))
def test_tags_are_written_as_a_query_that_gives_them_back(tags):
    header = tagging_header(tuple(tags.items()))
    assert dict(parse_qsl(header, keep_blank_values=True, strict_parsing=bool(tags))) == tags
    assert header.isascii()
    assert not set(header) & set("+ \r\n")


def test_awkward_tags_are_written_byte_for_byte():
    assert tagging_header(TAGS) == "project=replicator&stage%2Fx=a%20b%2Bc%3Dd%40e"
