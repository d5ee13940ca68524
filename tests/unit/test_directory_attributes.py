"""What an object gets beside a file's bytes: a Content-Type by the name, and what the command line gives to all."""

from __future__ import annotations

import mimetypes
import os
import time

import pytest

from replicator.directory.attributes import attributes_of, fingerprint, parse_attributes, type_by_name
from replicator.directory.beneath import Base
from replicator.directory.store import DirectoryStore
from replicator.errors import ConfigurationError
from replicator.model import Attributes
from tests.folders import put

TYPES = {
    "index.html": "text/html",
    "a.png": "image/png",
    "a.PNG": "image/png",
    "READ.ME.HtMl": "text/html",
    "deep/in.it/a.css": "text/css",
    "html/plain": None,
    "a.html/plain": None,
    "unknown.thing": None,
    "no-extension": None,
    "png": None,
    ".png": None,
    ".hidden": None,
    "folder/.html": None,
    ".hidden.png": "image/png",
    "a.": None,
    "a.html.": None,
    "a.html ": None,
    "a.html\n": None,
    "a.html~": None,
    "a.tar.gz": "application/gzip",
    "a.tgz": "application/gzip",
    "page.html.gz": "application/gzip",
    "a.csv.bz2": "application/x-bzip2",
    "a.json.xz": "application/x-xz",
    "a.gz": "application/gzip",
    "a.tar": "application/x-tar",
    "a.Z": None,
    "a.css.br": None,
    "日本語.html": "text/html",
    "é.pñg": None,
    "\U0001f600.json": "application/json",
    "new\nline.png": "image/png",
    "data:text,x.png": "image/png",
    "data:,": None,
    "http://host/a.png": "image/png",
    "http:a.png": "image/png",
    "a.png?x=y.html": "text/html",
    "a?b#c;d.png": "image/png",
    "a.png;type=a": None,
    "percent%2Epng": None,
    "[a.png": "image/png",
    "a]b[.png": "image/png",
    "C:\\a.png": "image/png",
    "latin-\udce4.png": "image/png",
    "": None,
    "/": None,
}


@pytest.mark.parametrize("key", TYPES)
def test_the_content_type_follows_from_the_name(key):
    assert type_by_name(key) == TYPES[key]
    assert attributes_of(key, Attributes()) == Attributes(content_type=TYPES[key])


def test_the_content_type_does_not_depend_on_what_the_machine_knows():
    before = type_by_name("a.thing"), type_by_name("a.html")
    known = dict(mimetypes.types_map)
    try:
        mimetypes.add_type("application/thing", ".thing")
        mimetypes.add_type("text/other", ".html")
        assert (type_by_name("a.thing"), type_by_name("a.html")) == before == (None, "text/html")
    finally:
        mimetypes.types_map.clear()
        mimetypes.types_map.update(known)


def test_a_content_type_that_is_given_is_that_of_all_and_the_rest_is_kept():
    given = Attributes(content_type="text/x", cache_control="no-cache", metadata=(("a", "b"),))
    assert attributes_of("a.png", given) == given
    rest = Attributes(cache_control="no-cache", metadata=(("a", "b"),))
    assert attributes_of("a.png", rest) == Attributes("image/png", cache_control="no-cache", metadata=(("a", "b"),))


# --header and --metadata


def test_every_header_that_an_object_has_can_be_given():
    headers = [
        "Content-Type: text/plain; charset=utf-8",
        "content-encoding:gzip",
        'CONTENT-DISPOSITION:   attachment; filename="a: b"  ',
        "Content-Language : de",
        "Cache-Control: max-age=60, public",
        "Expires: Wed, 21 Oct 2026 07:28:00 GMT",
        "x-amz-website-redirect-location: /a=b",
    ]
    assert parse_attributes(headers, []) == Attributes(
        content_type="text/plain; charset=utf-8",
        content_encoding="gzip",
        content_disposition='attachment; filename="a: b"',
        content_language="de",
        cache_control="max-age=60, public",
        expires="Wed, 21 Oct 2026 07:28:00 GMT",
        website_redirect="/a=b",
    )


def test_metadata_is_kept_by_name_in_lower_case_and_sorted():
    given = parse_attributes([], ["b=1", "Owner=me=you", "a_x= 2 ", "b=3"])
    assert given.metadata == (("a_x", "2"), ("b", "3"), ("owner", "me=you"))


def test_of_a_header_that_is_given_twice_the_last_counts():
    assert parse_attributes(["Expires: 1", "expires: 2"], []) == Attributes(expires="2")


BROKEN_LINES = ["a\nb", "a\r\nX-Injected: 1", "a\rb", "a\u2028b", "a\x85b"]
BAD_VALUES = ["", " ", "a\0b", "a\tb", "a\x7fb", "ä", "\U0001f600", "\udce4", *BROKEN_LINES]


@pytest.mark.parametrize("value", BAD_VALUES)
def test_a_value_that_no_header_holds_is_refused(value):
    with pytest.raises(ConfigurationError, match="--header .*printable ASCII"):
        parse_attributes([f"Cache-Control: {value}"], [])
    with pytest.raises(ConfigurationError, match="--metadata .*printable ASCII"):
        parse_attributes([], [f"name={value}"])


NOT_OURS = ["X-Unknown: x", "Content-Length: 1", "x-amz-acl: public-read", "Content-MD5: x", "metadata: x"]
NO_HEADER = ["", ":", ": x", "Cache-Control", "Cache-Control=x", "Cache\nControl: x", "Cache Control: x"]


@pytest.mark.parametrize("header", [*NOT_OURS, *NO_HEADER])
def test_a_header_that_no_object_has_is_refused(header):
    with pytest.raises(ConfigurationError, match="Cache-Control"):
        parse_attributes([header], [])


NO_NAME = ["", "=", "=x", "name", "a b=x", " a=x", "a =x", "ä=x", "a\nb=x", "a:b=x", "a\r\n: b=x", "a\n=x"]


@pytest.mark.parametrize("text", NO_NAME)
def test_a_name_that_no_metadata_has_is_refused(text):
    with pytest.raises(ConfigurationError, match="NAME=VALUE"):
        parse_attributes([], [text])


# Versions


ALIKE = [
    Attributes(),
    Attributes(cache_control="a"),
    Attributes(cache_control="b"),
    Attributes(expires="a"),
    Attributes(content_type="a"),
    Attributes(metadata=(("a", "b"),)),
    Attributes(metadata=(("a", "b"), ("c", "d"))),
    Attributes(metadata=(("a", "b', 'c"),)),
]


def test_other_attributes_have_another_fingerprint_and_none_have_none():
    assert len({fingerprint(one) for one in ALIKE}) == len(ALIKE)
    assert fingerprint(Attributes()) == ""
    assert fingerprint(parse_attributes(["Expires: 1"], ["a=b"])) == fingerprint(
        parse_attributes(["expires:1"], ["A=b"])
    )


async def test_a_version_changes_with_the_attributes_of_all_objects_and_not_by_itself(tmp_path):
    put(tmp_path, "file.png")
    versions = []
    for common in (*ALIKE, *ALIKE):
        async with DirectoryStore(Base(tmp_path), common=common) as store:
            state = await store.head("file.png")
            assert state.attributes == attributes_of("file.png", common)
            assert (await store.fetch("file.png", limit=1)).state == state
            versions.append(state.version_id)
    assert versions[: len(ALIKE)] == versions[len(ALIKE) :]
    assert len(set(versions)) == len(ALIKE)


@pytest.mark.parametrize("moment", [0, -1, -5_000_000_000, 10_000_000_000])
async def test_a_file_of_any_age_has_a_version_and_a_time(tmp_path, moment):
    path = put(tmp_path, "file")
    try:
        os.utime(path, (moment, moment))
    except OverflowError:
        pytest.skip("the file system does not know such times")
    async with DirectoryStore(Base(tmp_path), clock=time.time) as store:
        state = await store.head("file")
        assert state.modified == path.stat().st_mtime
        assert state.version_id
        os.utime(path, (moment + 1, moment + 1))
        assert (await store.head("file")).version_id != state.version_id
