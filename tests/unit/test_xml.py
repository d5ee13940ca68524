"""The XML of stores, good and bad."""

from __future__ import annotations

from urllib.parse import quote, quote_plus
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.model import Listed
from replicator.s3.xml import (
    MalformedXml,
    complete_multipart,
    parse,
    parse_error,
    parse_list_page,
    parse_tags,
    tagging,
)
from tests.awkward import AWKWARD_KEYS, PLAIN_KEYS, TAGS

NAMESPACE = ' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
URL = "<EncodingType>url</EncodingType>"
TIME = "<LastModified>2026-11-20T12:00:00.000Z</LastModified>"
ETAG = "<ETag>&quot;abc&quot;</ETag>"


def contents(key, size="3", *, time=TIME, etag=ETAG, rest=""):
    """An entry as the known stores write it."""
    return f"<Contents><Key>{key}</Key>{time}{etag}<Size>{size}</Size>{rest}</Contents>"


def unusual(key, size="3", *, time=TIME, etag=ETAG, rest=""):
    """The same in an order and with blanks that none of them has."""
    return f"<Contents>\n <Size>{size}</Size>{etag} {time}{rest}\n<Key>{key}</Key></Contents>"


FORMS = pytest.mark.parametrize("entry", [contents, unusual])


def page(*parts, end="<IsTruncated>false</IsTruncated>", namespace=NAMESPACE):
    return f"<ListBucketResult{namespace}>{end}{''.join(parts)}</ListBucketResult>".encode()


@pytest.mark.parametrize(
    "document",
    [b"", b"   ", b"no xml", b"<a>", b"<a></b>", b"<a/><b/>", b"<a>\x00</a>", b"<a>\xff</a>", b"<a>&#1;</a>"]
    + [b"<a>&unknown;</a>", b"<a b='1' b='2'/>"],
)
def test_broken_xml_is_refused(document):
    with pytest.raises(MalformedXml):
        parse(document)


def refuses(reader, document):
    try:
        reader(document)
    except MalformedXml:
        return True
    return False


@given(st.binary(max_size=60))
def test_junk_is_refused_with_the_right_error_if_it_is_no_xml(junk):
    refuses(parse, junk)  # or understands it, since junk may happen to be XML; nothing else
    assert refuses(lambda document: parse_list_page(document, ""), junk)
    assert parse_error(junk) == {}
    assert parse_tags(junk) is None


@pytest.mark.parametrize(
    "declaration",
    [
        b'<!DOCTYPE a [<!ENTITY x "expanded">]>',
        b'<!DOCTYPE a SYSTEM "file:///etc/passwd">',
        b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
        b"<!doctype a>",
    ],
)
@pytest.mark.parametrize("document", [b"<a>&x;</a>", b"<Error><Code>&x;</Code></Error>", b"<Tagging/>"])
def test_a_document_type_is_refused_by_every_reader(declaration, document):
    hostile = b'<?xml version="1.0"?>' + declaration + document
    with pytest.raises(MalformedXml, match="document type"):
        parse(hostile)
    with pytest.raises(MalformedXml, match="document type"):
        parse_list_page(hostile, "")
    assert parse_error(hostile) == {}
    assert parse_tags(hostile) is None


NOON = 1795176000.0


@FORMS
@pytest.mark.parametrize("namespace", ["", NAMESPACE, ' xmlns="http://obs.example.com/"'])
def test_names_are_matched_without_their_namespace(namespace, entry):
    document = page(entry("a"), namespace=namespace)
    assert list(parse_list_page(document, "").entries) == [Listed("a", 3, "abc", NOON, "")]


@FORMS
@pytest.mark.parametrize(
    "time", ["2026-11-20T12:00:00Z", "2026-11-20T13:00:00.000+01:00", "2026-11-20T12:00:00.000000Z"]
)
def test_times_are_read_in_every_form_that_stores_write(time, entry):
    document = page(entry("a", time=f"<LastModified>{time}</LastModified>"))
    assert parse_list_page(document, "").entries[0].modified == NOON


@FORMS
def test_an_entry_tells_its_storage_class_and_may_tell_more(entry):
    rest = "<Owner><ID>x</ID><Key>no</Key></Owner><StorageClass>GLACIER</StorageClass><Type>Normal</Type>"
    assert list(parse_list_page(page(entry("a", rest=rest)), "").entries) == [Listed("a", 3, "abc", NOON, "GLACIER")]


def test_checksums_between_the_fields_are_no_obstacle():
    etag = ETAG + "<ChecksumAlgorithm>CRC32</ChecksumAlgorithm><ChecksumType>FULL_OBJECT</ChecksumType>"
    assert list(parse_list_page(page(contents("a", etag=etag)), "").entries) == [Listed("a", 3, "abc", NOON, "")]


@FORMS
@pytest.mark.parametrize("etag", ["abc", "&quot;abc&quot;", '"abc"', "&#34;abc&#34;"])
def test_etags_have_no_quotes(etag, entry):
    document = page(entry("a", etag=f"<ETag>{etag}</ETag>"))
    assert list(parse_list_page(document, "").entries) == [Listed("a", 3, "abc", NOON, "")]


@FORMS
def test_one_unusual_entry_does_not_change_the_others(entry):
    document = page(contents("a"), entry("b&amp;c"), contents("d"))
    assert [found.key for found in parse_list_page(document, "").entries] == ["a", "b&c", "d"]


KEYS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=6)


@given(st.lists(st.tuples(KEYS, st.integers(0, 10**13)), max_size=5), st.booleans())
def test_usual_and_unusual_pages_are_read_alike(objects, encoded):
    marker = URL if encoded else ""
    written = [(escape(quote(key) if encoded else key), str(size)) for key, size in objects]
    usual, other = (
        parse_list_page(page(*(form(*entry) for entry in written), marker), "") for form in (contents, unusual)
    )
    assert (list(usual.entries), *usual[1:]) == (list(other.entries), *other[1:])
    assert [(entry.key, entry.size) for entry in usual.entries] == objects


@pytest.mark.parametrize("key", AWKWARD_KEYS + PLAIN_KEYS)
@FORMS
@pytest.mark.parametrize("encode", [quote, quote_plus, lambda key: quote(key, safe="")])
def test_every_key_is_decoded_where_the_answer_says_that_it_is_encoded(key, encode, entry):
    document = page(entry(escape(encode(key))), URL)
    assert parse_list_page(document, "").entries[0].key == key


@FORMS
@pytest.mark.parametrize("key", ["a%20b", "a+b", "%zz", "%", "ä%C3%A4"])
def test_a_key_is_left_as_it_is_where_the_answer_does_not_say_that_it_is_encoded(key, entry):
    assert parse_list_page(page(entry(key)), "").entries[0].key == key


@FORMS
def test_an_encoded_key_that_is_no_utf8_is_refused(entry):
    with pytest.raises(MalformedXml):
        parse_list_page(page(entry("%FF"), URL), "")


CONTROLS = [bytes([code]) for code in range(32) if code not in (9, 10, 13)]


@pytest.mark.parametrize("control", CONTROLS, ids=[control.hex() for control in CONTROLS])
def test_control_characters_that_rgw_echoes_do_not_hide_the_page(control):
    for echoed in (control, b"&#x%x;" % control[0], b"&#x0%X;" % control[0], b"&#%d;" % control[0]):
        document = page("<Prefix>pECHO</Prefix>", contents("p%01x"), URL).replace(b"ECHO", echoed)
        assert [entry.key for entry in parse_list_page(document, "p").entries] == ["\x01x"]


@pytest.mark.parametrize("allowed", ["&#9;", "&#10;", "&#xd;", "&#x20;", "&#65;", "&#x1f600;", "&#100;", "&#310;"])
def test_characters_that_xml_allows_are_not_dropped_beside_echoed_ones(allowed):
    document = page("<Prefix>\x01</Prefix>", contents("a", etag=f"<ETag>{allowed}x</ETag>"), URL)
    expected = ElementTree.fromstring(f"<a>{allowed}x</a>").text  # noqa: S314 - our own
    assert parse_list_page(document, "").entries[0].etag == expected


def test_control_characters_in_a_page_that_is_not_encoded_are_refused():
    with pytest.raises(MalformedXml):
        parse_list_page(page("<Prefix>\x01</Prefix>", contents("a")), "")


def test_keys_are_relative_to_the_prefix():
    document = page(contents("dir/"), contents("dir/a"), contents("dir//b"))
    assert [entry.key for entry in parse_list_page(document, "dir/").entries] == ["", "a", "/b"]


@FORMS
@pytest.mark.parametrize("key", ["other/a", "di", "", "Dir/a"])
def test_a_key_outside_the_prefix_is_refused(key, entry):
    with pytest.raises(MalformedXml, match="prefix"):
        parse_list_page(page(entry("dir/a"), entry(key)), "dir/")


BROKEN = {
    "no key": f"<Contents>{TIME}{ETAG}<Size>3</Size></Contents>",
    "an empty key": contents(""),
    "no size": f"<Contents><Key>a</Key>{TIME}{ETAG}</Contents>",
    "no time": contents("a", time=""),
    "a size that is no number": contents("a", size="many"),
    "an empty size": contents("a", size=""),
    "a time that is none": contents("a", time="<LastModified>yesterday</LastModified>"),
    "no end": contents("a").removesuffix("</Contents>"),
    "no start": contents("a").removeprefix("<Contents>"),
    "an entry within an entry": contents("a", rest=contents("b")),
}


@pytest.mark.parametrize("entry", BROKEN.values(), ids=BROKEN.keys())
def test_an_entry_that_cannot_be_read_spoils_its_page(entry):
    with pytest.raises(MalformedXml):
        parse_list_page(page(contents("0"), entry), "")


@FORMS
@pytest.mark.parametrize("cut", range(1, 60))
def test_a_page_that_is_cut_short_is_refused(entry, cut):
    with pytest.raises(MalformedXml):
        parse_list_page(page(entry("a"), entry("b"))[:-cut], "")


@pytest.mark.parametrize("document", [b"<Error><Code>SlowDown</Code></Error>", b"<html/>", b"<ListBucketsResult/>"])
def test_another_document_is_no_page(document):
    with pytest.raises(MalformedXml, match="not a ListBucketResult"):
        parse_list_page(document, "")


@pytest.mark.parametrize(
    ("end", "truncated", "token"),
    [
        ("<IsTruncated>false</IsTruncated>", False, None),
        ("<IsTruncated>true</IsTruncated>", True, None),
        ("<IsTruncated>true</IsTruncated><NextContinuationToken/>", True, None),
        ("<IsTruncated>true</IsTruncated><NextContinuationToken>a+/=</NextContinuationToken>", True, "a+/="),
    ],
)
def test_a_page_says_whether_there_is_more(end, truncated, token):
    assert parse_list_page(page(end=end), "") == ([], truncated, token)


@pytest.mark.parametrize(
    ("document", "fields"),
    [
        (b"<Error><Code>A</Code><Message>b &amp; c</Message></Error>", {"Code": "A", "Message": "b & c"}),
        (f"<Error{NAMESPACE}><Code>A</Code></Error>".encode(), {"Code": "A"}),
        (b'<?xml version="1.0"?>\n \n<Error><Code>A</Code></Error>', {"Code": "A"}),
        (b"<Errors><Error><Code>A</Code></Error></Errors>", {}),
        (b"<ErrorDocument/>", {}),
        (b"<html><body>503 <Error></body></html>", {}),
        (b"", {}),
    ],
)
def test_an_error_document_is_read_and_anything_else_is_none(document, fields):
    assert parse_error(document) == fields


def test_tags_are_read_and_sorted():
    document = f"<Tagging{NAMESPACE}><TagSet>{tag('z', '1')}{tag('a', '')}</TagSet></Tagging>".encode()
    assert parse_tags(document) == (("a", ""), ("z", "1"))
    assert parse_tags(b"<Tagging><TagSet/></Tagging>") == ()


def tag(key, value):
    return f"<Tag><Key>{key}</Key><Value>{value}</Value></Tag>"


@pytest.mark.parametrize("document", [b"", b"an object", b"<Error/>", b"<TagSet/>", b"<Tagging>"])
def test_what_is_no_tag_set_is_none_and_not_an_empty_one(document):
    assert parse_tags(document) is None


TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8)


@given(st.dictionaries(TEXT, TEXT, max_size=5))
def test_tags_survive_writing_and_reading(tags):
    pairs = tuple(sorted(tags.items()))
    assert parse_tags(tagging(pairs)) == pairs


def test_awkward_tags_survive_writing_and_reading():
    awkward = tuple(sorted({*TAGS, ("<&>\"'", "]]>"), ("+ -=._:/@", "ä😀"), ("empty", "")}))
    assert parse_tags(tagging(awkward)) == awkward


def test_a_completion_names_its_parts_in_order():
    root = ElementTree.fromstring(complete_multipart(["aa", "b<&b"]))  # noqa: S314 - our own
    parts = [{child.tag: child.text for child in part} for part in root]
    assert root.tag == "CompleteMultipartUpload"
    assert parts == [{"PartNumber": "1", "ETag": '"aa"'}, {"PartNumber": "2", "ETag": '"b<&b"'}]
