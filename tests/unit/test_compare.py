"""Each row of the truth table of replicator.compare.compare, and the rules for attributes and listings."""

from __future__ import annotations

import zlib
from dataclasses import replace

import pytest

from replicator.compare import CLOCK_MARGIN, GENERIC_TYPES, compare, compare_attributes, listed_in_sync
from replicator.converge import Converger
from replicator.model import Attributes, Deletes, Evidence, Listed, ObjectState, Verdict
from tests.fakes.memory import MemoryStore

A, B = "a" * 32, "b" * 32
SOURCE = ObjectState(size=5, etag=A, modified=1000.0)
YOUNGER, OLDER = 2000.0, 500.0


def state(etag=B, *, size=5, modified=YOUNGER, **others):
    return ObjectState(size=size, etag=etag, modified=modified, **others)


def opaque(etag=A):
    return replace(SOURCE, etag=etag, etag_is_md5=False)


def summed(value, algorithm="sha256", **others):
    return state(checksum=(algorithm, value), **others)


TRUTH = {
    "another size": (SOURCE, state(A, size=6), Verdict.DIFFERENT, Evidence.SIZE),
    "another size beats equal checksums": (
        replace(SOURCE, checksum=("sha256", "x")),
        summed("x", size=6),
        Verdict.DIFFERENT,
        Evidence.SIZE,
    ),
    "equal checksums": (replace(SOURCE, checksum=("sha256", "x")), summed("x"), Verdict.SAME, Evidence.CHECKSUM),
    "unequal checksums beat equal ETags": (
        replace(SOURCE, checksum=("sha256", "x")),
        summed("y", etag=A),
        Verdict.DIFFERENT,
        Evidence.CHECKSUM,
    ),
    "checksums of two kinds do not count": (
        replace(SOURCE, checksum=("sha256", "x")),
        summed("x", "crc32", etag=A),
        Verdict.SAME,
        Evidence.ETAG,
    ),
    "a checksum on one side only does not count": (SOURCE, summed("x", etag=A), Verdict.SAME, Evidence.ETAG),
    "equal ETags": (SOURCE, state(A), Verdict.SAME, Evidence.ETAG),
    "equal ETags beat another stamp": (SOURCE, state(A, stamp=B), Verdict.SAME, Evidence.ETAG),
    "stamped with the source's ETag": (SOURCE, state(stamp=A), Verdict.SAME, Evidence.STAMP),
    "stamped with another ETag": (SOURCE, state(stamp="c" * 32), Verdict.DIFFERENT, Evidence.STAMP),
    "stamped with another ETag, not comparable": (opaque(), state(stamp=B), Verdict.DIFFERENT, Evidence.STAMP),
    "unequal MD5s": (SOURCE, state(B), Verdict.DIFFERENT, Evidence.ETAG),
    "unequal ETags of as many parts": (
        replace(SOURCE, etag=f"{A}-3"),
        state(f"{B}-3"),
        Verdict.DIFFERENT,
        Evidence.ETAG,
    ),
    "ETags of different numbers of parts, younger": (
        replace(SOURCE, etag=f"{A}-3"),
        state(f"{B}-2"),
        Verdict.UNKNOWN,
        Evidence.SIZE_AND_TIME,
    ),
    "an MD5 and an ETag of parts, younger": (SOURCE, state(f"{B}-1"), Verdict.UNKNOWN, Evidence.SIZE_AND_TIME),
    "the source's ETag is no digest, younger": (opaque(), state(B), Verdict.UNKNOWN, Evidence.SIZE_AND_TIME),
    "the target's ETag is no digest, younger": (
        SOURCE,
        state(B, etag_is_md5=False),
        Verdict.UNKNOWN,
        Evidence.SIZE_AND_TIME,
    ),
    "ETags of a third kind, younger": (
        replace(SOURCE, etag="v1"),
        state("v2"),
        Verdict.UNKNOWN,
        Evidence.SIZE_AND_TIME,
    ),
    "not comparable and older": (opaque(), state(B, modified=OLDER), Verdict.UNKNOWN, Evidence.NONE),
    "not comparable and of the same time": (opaque(), state(B, modified=1000.0), Verdict.UNKNOWN, Evidence.NONE),
    "no ETag on either side proves nothing": (
        replace(SOURCE, etag=""),
        state(""),
        Verdict.UNKNOWN,
        Evidence.SIZE_AND_TIME,
    ),
}


@pytest.mark.parametrize("row", TRUTH.values(), ids=TRUTH.keys())
def test_bytes_are_compared_by_the_strongest_evidence(row):
    source, target, verdict, evidence = row
    assert compare(source, target) == (verdict, evidence)


PLAIN = Attributes(content_type="text/plain")

FIELDS = {
    "content-encoding": {"content_encoding": "gzip"},
    "content-disposition": {"content_disposition": "inline"},
    "content-language": {"content_language": "de"},
    "cache-control": {"cache_control": "no-store"},
    "expires": {"expires": "Wed, 21 Oct 2026 07:28:00 GMT"},
    "website-redirect": {"website_redirect": "/there"},
    "content-type": {"content_type": "image/png"},
    "metadata owner": {"metadata": (("owner", "me"),)},
}


@pytest.mark.parametrize(("name", "change"), FIELDS.items(), ids=FIELDS.keys())
def test_each_attribute_is_named_when_one_side_lacks_it(name, change):
    there = replace(PLAIN, **change)
    assert compare_attributes(there, PLAIN) == ((name,), ())
    assert compare_attributes(PLAIN, there) == ((name,), ())
    assert compare_attributes(there, there) == ((), ())


def test_every_field_of_attributes_is_compared():
    assert {name for change in FIELDS.values() for name in change} == set(Attributes.__slots__)


def metadata(*pairs):
    return Attributes(metadata=tuple(sorted(pairs)))


def test_a_metadata_value_that_differs_is_named():
    assert compare_attributes(metadata(("a", "1"), ("b", "2")), metadata(("a", "1"), ("b", "3"))).differing == (
        "metadata b",
    )


def test_an_underscore_that_came_back_as_hyphen_is_renamed_and_not_different():
    assert compare_attributes(metadata(("a_b_c", "1")), metadata(("a-b-c", "1"))) == ((), ("metadata name a_b_c",))


def test_a_renamed_entry_with_another_value_is_different():
    differing, renamed = compare_attributes(metadata(("a_b", "1")), metadata(("a-b", "2")))
    assert (differing, renamed) == (("metadata a-b", "metadata a_b"), ())


def test_a_hyphen_is_never_an_underscore_the_other_way_round():
    differing, renamed = compare_attributes(metadata(("a-b", "1")), metadata(("a_b", "1")))
    assert (differing, renamed) == (("metadata a-b", "metadata a_b"), ())


def test_an_entry_with_a_hyphen_of_its_own_does_not_stand_for_the_folded_one():
    differing, renamed = compare_attributes(metadata(("a_b", "1"), ("a-b", "1")), metadata(("a-b", "1")))
    assert (differing, renamed) == (("metadata a_b",), ())


@pytest.mark.parametrize("generic", sorted(name for name in GENERIC_TYPES if name))
def test_a_content_type_that_nobody_gave_equals_the_stores_own_word(generic):
    assert compare_attributes(Attributes(), Attributes(content_type=generic)).differing == ()
    assert compare_attributes(Attributes(content_type=generic), Attributes()).differing == ()


def test_a_generic_type_that_somebody_gave_is_not_another_generic_type():
    one, other = (Attributes(content_type=name) for name in ("binary/octet-stream", "application/octet-stream"))
    assert compare_attributes(one, other).differing == ("content-type",)


def test_a_type_that_says_something_is_not_generic():
    assert compare_attributes(Attributes(), PLAIN).differing == ("content-type",)


@pytest.mark.parametrize("word", ["=?UTF-8?B?WsO8cmljaA==?=", "=?utf-8?q?Z=C3=BCrich?=", "=?ISO-8859-1?Q?Z=FCrich?="])
def test_metadata_in_rfc_2047_words_equals_its_plain_text(word):
    assert compare_attributes(metadata(("city", "Zürich")), metadata(("city", word))) == ((), ())
    assert compare_attributes(metadata(("city", "Bern")), metadata(("city", word))).differing == ("metadata city",)


@pytest.mark.parametrize("word", ["=?no-such-charset?q?x?=", "=?utf-8?q?=FF?=", "=??=", "=?="])
def test_what_only_looks_like_a_word_is_taken_as_it_is(word):
    assert compare_attributes(metadata(("n", "x")), metadata(("n", word))).differing == ("metadata n",)


def listed(etag=A, *, size=5, modified=1000.0):
    return Listed("key", size, etag, modified)


AFTER = 1000.0 + CLOCK_MARGIN

IN_SYNC = {
    "younger copy": (listed(), listed(modified=AFTER + 1), 0.0, None, True),
    "copy too young to tell": (listed(), listed(modified=AFTER), 0.0, None, False),
    "source changed after the copy": (listed(modified=3000.0), listed(modified=2000.0), 0.0, None, False),
    "another ETag": (listed(), listed(B, modified=AFTER + 1), 0.0, None, False),
    "another size": (listed(), listed(size=6, modified=AFTER + 1), 0.0, None, False),
    "no ETags": (listed(""), listed("", modified=AFTER + 1), 0.0, None, False),
    "source's clock is ahead": (listed(modified=1060.0), listed(modified=AFTER + 1), 60.0, None, True),
    "source's clock is behind": (listed(modified=1000.0), listed(modified=AFTER + 1), -60.0, None, False),
    "not changed since, and older": (listed(), listed(modified=AFTER + 1), 0.0, AFTER + 1, True),
    "not changed since, but younger": (listed(), listed(modified=1.0), 0.0, AFTER + 1, False),
    "changed since": (listed(), listed(modified=9000.0), 0.0, AFTER, False),
}


@pytest.mark.parametrize("row", IN_SYNC.values(), ids=IN_SYNC.keys())
def test_listings_are_believed_only_where_they_prove_equality(row):
    source, target, skew, changed_since, expected = row
    assert listed_in_sync(source, target, skew, changed_since) is expected


class Summing(MemoryStore):
    """A store that tells the CRC-32 of each object."""

    async def head(self, key, *, part=None):
        told = await super().head(key, part=part)
        return replace(told, checksum=("crc32", str(zlib.crc32(self.bucket.objects[key].data))))


def sealed(data):
    """The data and its CRC-32, as many file formats end: the CRC-32 of the whole is the same for any data."""
    return data + zlib.crc32(data).to_bytes(4, "little")


async def test_other_content_with_an_equal_crc32_is_copied():
    source, target = Summing(name="source/"), Summing(name="target/")
    source.bucket.write("key", sealed(b"old content"), PLAIN)
    await Converger(source, [target], deletes=Deletes.MIRROR).converge("key")
    source.bucket.now += 10
    source.bucket.write("key", sealed(b"new content"), PLAIN)
    await Converger(source, [target], deletes=Deletes.MIRROR).converge("key")
    assert target.bucket.objects["key"].data == source.bucket.objects["key"].data
