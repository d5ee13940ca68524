"""Each row of the truth table of replicator.decide.decide, and what a target's limits change."""

from __future__ import annotations

from dataclasses import replace

import pytest

from replicator.decide import Do, Limits, decide
from replicator.model import Attributes, Deletes, Evidence, ObjectState, Observed

A, B = "a" * 32, "b" * 32
TEXT, IMAGE = Attributes(content_type="text/plain"), Attributes(content_type="image/png")
RED, BLUE = (("team", "red"),), (("team", "blue"),)
MOVED = replace(TEXT, website_redirect="/there")


def observed(etag=A, attributes=TEXT, tags=(), **others):
    return Observed(ObjectState(size=5, etag=etag, modified=1000.0, attributes=attributes, **others), tags)


UNKNOWN = {"etag_is_md5": False}

TRUTH = {
    "absent everywhere": (None, None, Do.NOTHING, "at neither side", Evidence.NONE),
    "gone at the source": (None, observed(), Do.DELETE, "gone at the source", Evidence.NONE),
    "not at the target": (observed(), None, Do.COPY, "not at the target", Evidence.NONE),
    "other bytes": (observed(), observed(B), Do.COPY, "differs by etag", Evidence.ETAG),
    "perhaps other bytes": (observed(**UNKNOWN), observed(B), Do.COPY, "not provably the same", Evidence.NONE),
    "other bytes and all else": (observed(), observed(B, IMAGE, RED), Do.COPY, "differs by etag", Evidence.ETAG),
    "other attributes": (observed(), observed(A, IMAGE), Do.METADATA, "differs in content-type", Evidence.ETAG),
    "other attributes and tags": (
        observed(tags=RED),
        observed(A, IMAGE, BLUE),
        Do.METADATA,
        "differs in content-type",
        Evidence.ETAG,
    ),
    "other tags": (observed(tags=RED), observed(tags=BLUE), Do.TAGS, "differs in tags", Evidence.ETAG),
    "tags gone": (observed(), observed(tags=BLUE), Do.TAGS, "differs in tags", Evidence.ETAG),
    "the same": (observed(tags=RED), observed(tags=RED), Do.NOTHING, "same", Evidence.ETAG),
    "the same by its stamp": (
        observed(**UNKNOWN),
        observed(B, stamp=A),
        Do.NOTHING,
        "same",
        Evidence.STAMP,
    ),
}


@pytest.mark.parametrize("row", TRUTH.values(), ids=TRUTH.keys())
def test_what_is_to_be_done_follows_from_both_sides(row):
    source, target, do, reason, evidence = row
    action = decide(source, target, deletes=Deletes.MIRROR)
    assert (action.do, action.reason, action.evidence, action.not_kept) == (do, reason, evidence, ())


def test_a_delete_is_not_mirrored_where_targets_keep():
    assert decide(None, observed(), deletes=Deletes.KEEP).do is Do.KEEP


@pytest.mark.parametrize("row", [row for name, row in TRUTH.items() if name != "gone at the source"])
def test_keeping_changes_nothing_but_deletes(row):
    assert decide(row[0], row[1], deletes=Deletes.KEEP).do is row[2]


def test_a_difference_beyond_the_target_is_named_and_left():
    limits = Limits(frozenset({"website-redirect"}))
    action = decide(observed(A, MOVED), observed(A, TEXT), deletes=Deletes.MIRROR, limits=limits)
    assert (action.do, action.not_kept) == (Do.NOTHING, ("website-redirect",))


def test_a_difference_within_the_targets_means_is_mended_beside_one_beyond_them():
    limits = Limits(frozenset({"website-redirect"}))
    action = decide(observed(A, MOVED), observed(A, IMAGE), deletes=Deletes.MIRROR, limits=limits)
    assert (action.do, action.reason, action.not_kept) == (
        Do.METADATA,
        "differs in content-type",
        ("website-redirect",),
    )


def test_tags_that_a_target_cannot_hold_are_named_and_left():
    action = decide(observed(tags=RED), observed(), deletes=Deletes.MIRROR, limits=Limits(tags=False))
    assert (action.do, action.not_kept) == (Do.NOTHING, ("tags",))


def test_a_target_without_tags_loses_nothing_of_an_untagged_object():
    action = decide(observed(), observed(), deletes=Deletes.MIRROR, limits=Limits(tags=False))
    assert (action.do, action.not_kept) == (Do.NOTHING, ())


def test_renamed_metadata_is_named_and_left():
    source = observed(A, replace(TEXT, metadata=(("a_b", "1"),)))
    target = observed(A, replace(TEXT, metadata=(("a-b", "1"),)))
    action = decide(source, target, deletes=Deletes.MIRROR)
    assert (action.do, action.not_kept) == (Do.NOTHING, ("metadata name a_b",))
