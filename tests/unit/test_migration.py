"""What a bulk run and a verification promise, on stores in memory."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace

import pytest

from replicator.bulk.plan import MOST_PASSES, Plan
from replicator.bulk.tally import Tally
from replicator.bulk.verify import Findings, Verification
from replicator.errors import AccessDenied, NoSuchBucket, Refused, SourceKeepsChanging, StoreError, Transient
from replicator.filters import KeyFilter, Rule
from replicator.model import Attributes, Deletes, Did, Evidence, MiB
from replicator.store import Write
from tests.fakes.memory import Bucket, MemoryStore, Quirks
from tests.runs import migration

BEGAN = 1_000_000.0
LONG_AGO = BEGAN - 10_000
WRITES = {
    "PutObject",
    "DeleteObject",
    "CopyObject",
    "PutObjectTagging",
    "CreateMultipartUpload",
    "UploadPart",
    "UploadPartCopy",
    "CompleteMultipartUpload",
}
TEXT, HTML = Attributes(content_type="text/plain"), Attributes(content_type="text/html")
PAGE = Attributes(content_type="text/html", website_redirect="/elsewhere")
RED, BLUE = (("team", "red"),), (("team", "blue"),)
LARGE, OTHER = b"0123456789abcdef" * (6 * MiB // 16), b"fedcba9876543210" * (6 * MiB // 16)
PART = 5 * MiB


class Lines:
    """A report that keeps everything."""

    def __init__(self):
        self.outcomes = []

    def add(self, outcome):
        self.outcomes.append(outcome)

    def flush(self):
        pass

    def keys(self, did):
        return sorted(one.key for one in self.outcomes if one.did is did)

    def of(self, key):
        return [one for one in self.outcomes if one.key == key]


class Place(MemoryStore):
    """A store with what happens at its requests. effects: called with operation and key; may raise."""

    def __init__(self, name="to", objects=(), **quirks):
        self.effects = []
        super().__init__(Bucket(now=LONG_AGO), name=f"memory://{name}/", quirks=Quirks(**quirks), step=self._happen)
        for key in objects:
            self.bucket.write(key, f"data of {key}".encode(), TEXT)
        self.bucket.now = BEGAN

    async def _happen(self, operation, key):
        for effect in list(self.effects):
            effect(operation, key)

    def writes(self):
        return [call for call in self.calls if call in WRITES]


def fail_on(place, operation, keys, error=None):
    def effect(happening, key):
        if happening == operation and key in keys:
            raise error or AccessDenied(operation, key, "not allowed", code="AccessDenied")

    place.effects.append(effect)


def once(place, operation, key, action):
    """Does something when that is first asked of the store."""

    def effect(happening, about):
        if (happening, about) == (operation, key):
            place.effects.remove(effect)
            action()

    place.effects.append(effect)


def content(place):
    """All that has to be equal at the end."""
    return {
        key: (stored.data, stored.attributes, stored.tags, stored.etag) for key, stored in place.bucket.objects.items()
    }


def keys_of(place):
    return sorted(place.bucket.objects)


async def migrate(source, *targets, **plan):
    """One run as a process of its own; its tally and report."""
    lines, tally = Lines(), Tally()
    concurrency = plan.pop("concurrency", 4)
    async with migration(
        source, targets, Plan(**plan), concurrency=concurrency, report=lines, tally=tally, clock=lambda: BEGAN
    ) as run:
        await run.run()
    return run, tally, lines


async def verify(source, *targets, rules=()):
    lines = Lines()
    run = Verification(
        source,
        targets,
        keys=KeyFilter(rules),
        concurrency=4,
        report=lines,
        findings=(findings := Findings()),
        tally=Tally(),
    )
    assert await run.run() is findings
    return findings, lines


KEYS = [f"dir {n % 3}/{n:02}" for n in range(20)]


# Copying


async def test_a_run_copies_everything():
    source, target = Place("from", KEYS), Place()
    source.bucket.write("in parts", LARGE, HTML, part_size=PART)
    source.bucket.write("tagged", b"x", HTML, tags=RED)
    source.bucket.write("empty", b"")
    run, tally, lines = await migrate(source, target)
    assert content(target) == content(source)
    assert (tally.did[Did.COPIED], tally.written, tally.failed, run.still_changing) == (23, 23, 0, False)
    assert tally.bytes == sum(len(stored.data) for stored in source.bucket.objects.values())
    assert lines.keys(Did.COPIED) == keys_of(source)


async def test_an_empty_source_is_no_reason_to_fail():
    _, tally, lines = await migrate(Place("from"), Place())
    assert (tally.written, tally.failed, tally.compared, lines.outcomes) == (0, 0, 0, [])


async def test_a_second_run_looks_at_the_listings_only():
    source, target = Place("from", KEYS), Place()
    source.bucket.now = LONG_AGO
    source.bucket.write("in parts", LARGE, HTML, part_size=PART)
    await migrate(source, target)
    source.calls.clear()
    target.calls.clear()
    run, tally, lines = await migrate(source, target)
    assert set(source.calls) | set(target.calls) == {"ListObjectsV2"}
    assert (tally.written, tally.passes, tally.compared, run.still_changing) == (0, 1, 21, False)
    assert lines.keys(Did.IN_SYNC) == keys_of(source)


async def test_only_what_is_missing_or_differs_is_written():
    source, target = Place("from", KEYS), Place()
    await migrate(source, target)
    source.bucket.write(KEYS[3], b"other", TEXT)
    source.bucket.write("new", b"new", TEXT)
    target.calls.clear()
    _, tally, lines = await migrate(source, target)
    assert content(target) == content(source)
    assert target.writes() == ["PutObject"] * 2
    assert lines.keys(Did.COPIED) == sorted([KEYS[3], "new"])
    assert tally.did[Did.COPIED] == 2


async def test_metadata_that_changed_is_found_by_the_age_of_its_object():
    source, target = Place("from", KEYS), Place()
    await migrate(source, target)
    source.bucket.now = BEGAN + 50
    source.bucket.write(KEYS[0], f"data of {KEYS[0]}".encode(), HTML)
    _, tally, lines = await migrate(source, target)
    assert content(target) == content(source)
    assert lines.keys(Did.METADATA) == [KEYS[0]]
    assert tally.did[Did.COPIED] == 0


async def test_every_target_gets_what_it_lacks():
    source, one, other = Place("from", KEYS), Place("one"), Place("other", own_etags=True)
    await migrate(source, one)
    one.calls.clear()
    _, tally, lines = await migrate(source, one, other)
    assert content(one) == content(source)
    assert {key: value[0] for key, value in content(other).items()} == {
        key: value[0] for key, value in content(source).items()
    }
    assert one.writes() == []
    assert tally.did[Did.COPIED] == len(KEYS)
    assert Counter(line.target for line in lines.outcomes if line.did is Did.COPIED) == {other.name: len(KEYS)}


async def test_a_target_that_fails_does_not_hold_back_another():
    source, bad, good = Place("from", KEYS), Place("bad"), Place("good")
    fail_on(bad, "PutObject", KEYS)
    _, tally, lines = await migrate(source, bad, good)
    assert content(good) == content(source)
    assert (tally.did[Did.COPIED], tally.failed) == (len(KEYS), len(KEYS))
    assert {line.target for line in lines.outcomes if line.did is Did.FAILED} == {bad.name}


# Failures


async def test_failing_keys_do_not_stop_others_and_count_once():
    source, target = Place("from", KEYS), Place()
    fail_on(source, "GetObject", KEYS[5:6])
    fail_on(target, "PutObject", KEYS[7:8], Transient("PutObject", KEYS[7], "HTTP 500"))
    _, tally, lines = await migrate(source, target)
    assert tally.passes > 1
    assert keys_of(target) == sorted(set(KEYS) - {KEYS[5], KEYS[7]})
    assert tally.failed == 2
    assert set(lines.keys(Did.FAILED)) == {KEYS[5], KEYS[7]}
    assert {type(one.failure) for one in lines.of(KEYS[5])} == {AccessDenied}
    assert "HTTP 500" in lines.of(KEYS[7])[0].reason


async def test_a_failure_that_passes_is_no_failure_in_the_end():
    source, target = Place("from", KEYS), Place()

    def refuse():
        raise AccessDenied("PutObject", KEYS[4], "for a while")

    once(target, "PutObject", KEYS[4], refuse)
    _, tally, lines = await migrate(source, target)
    assert content(target) == content(source)
    assert tally.failed == 0
    assert [one.did for one in lines.of(KEYS[4])] == [Did.FAILED, Did.COPIED]


async def test_a_source_without_a_bucket_is_an_error_and_no_empty_source():
    source, target = Place("from"), Place("to", KEYS)
    source.bucket.exists = False
    with pytest.raises(NoSuchBucket):
        await migrate(source, target, deletes=Deletes.MIRROR)
    assert keys_of(target) == sorted(KEYS)


# Deletes


async def test_deletes_are_kept_unless_they_are_wanted():
    source, target = Place("from", KEYS), Place("to", [*KEYS, "extra"])
    _, tally, _ = await migrate(source, target)
    assert "extra" in target.bucket.objects
    assert (tally.extra, tally.did[Did.DELETED]) == (1, 0)
    assert "DeleteObject" not in target.calls


async def test_deletes_follow_when_they_are_wanted():
    source, target = Place("from", KEYS), Place("to", [*KEYS[:4], "extra 1", "zz"])
    run, tally, lines = await migrate(source, target, deletes=Deletes.MIRROR)
    assert content(target) == content(source)
    assert lines.keys(Did.DELETED) == ["extra 1", "zz"]
    assert (tally.did[Did.DELETED], tally.extra, run.still_changing) == (2, 0, False)


async def test_deletes_follow_though_nothing_is_to_be_copied():
    source, target = Place("from", KEYS), Place()
    await migrate(source, target)
    target.bucket.write("extra", b"x")
    _, tally, _ = await migrate(source, target, deletes=Deletes.MIRROR)
    assert keys_of(target) == sorted(KEYS)
    assert tally.did[Did.DELETED] == 1


async def test_nothing_is_deleted_before_everything_is_copied():
    source, target = Place("from", KEYS), Place("to", ["! first of all", "extra", "zz"])
    there = []

    def effect(operation, key):
        if operation == "DeleteObject":
            there.append(set(target.bucket.objects) >= set(KEYS))

    target.effects.append(effect)
    await migrate(source, target, deletes=Deletes.MIRROR, concurrency=1)
    assert there == [True] * 3
    assert keys_of(target) == sorted(KEYS)


async def test_each_delete_is_confirmed_by_the_source_at_that_moment():
    source, target = Place("from", ["a", "z"]), Place("to", ["a", "late", "z"])

    def effect(operation, key):
        if (operation, key) == ("HeadObject", "late"):
            source.bucket.write("late", b"arrived", TEXT)

    source.effects.append(effect)
    _, tally, _ = await migrate(source, target, deletes=Deletes.MIRROR)
    assert content(target) == content(source)
    assert tally.did[Did.DELETED] == 0
    assert "DeleteObject" not in target.calls


async def test_nothing_is_deleted_when_the_source_will_not_say_that_it_is_gone():
    source, target = Place("from", KEYS), Place("to", [*KEYS, "extra"])
    fail_on(source, "HeadObject", ["extra"])
    _, tally, lines = await migrate(source, target, deletes=Deletes.MIRROR)
    assert "extra" in target.bucket.objects
    assert tally.failed == 1
    assert set(lines.keys(Did.FAILED)) == {"extra"}


async def test_deletes_are_refused_when_the_source_lists_nothing():
    source, target = Place("from"), Place("to", KEYS)
    with pytest.raises(Refused, match=r"memory://from/ lists no object, the targets list 20: nothing was deleted"):
        await migrate(source, target, deletes=Deletes.MIRROR)
    assert keys_of(target) == sorted(KEYS)
    assert target.writes() == []


async def test_deletes_are_refused_when_the_source_lists_nothing_that_is_included():
    source, target = Place("from", ["other"]), Place("to", KEYS)
    rules = KeyFilter([Rule(False, "*"), Rule(True, "dir*")])
    with pytest.raises(Refused):
        await migrate(source, target, deletes=Deletes.MIRROR, keys=rules)
    assert target.writes() == []


async def test_an_empty_source_with_empty_targets_is_not_refused():
    _, tally, _ = await migrate(Place("from"), Place(), deletes=Deletes.MIRROR)
    assert tally.written == 0


def fail_listing(place, *, page, listing=1):
    """Fails the given page of the given listing; how many listings were begun."""
    seen = {"listings": 0, "pages": 0}
    begin = place.list_pages

    def list_pages(*, after=""):
        seen["listings"] += 1
        seen["pages"] = 0
        return begin(after=after)

    def effect(operation, key):
        if (operation, key) != ("ListObjectsV2", "") or seen["listings"] != listing:
            return
        seen["pages"] += 1
        if seen["pages"] == page:
            raise Transient("ListObjectsV2", "from", "HTTP 500")

    place.list_pages = list_pages
    place.effects.append(effect)


@pytest.mark.parametrize("page", [1, 2, 4])
async def test_a_listing_that_fails_in_the_middle_deletes_nothing_and_is_an_error(page):
    source, target = Place("from", KEYS), Place("to", [*KEYS, "! first", "dir 1/extra", "zz"])
    fail_listing(source, page=page)
    with pytest.raises(StoreError, match="HTTP 500"):
        await migrate(source, target, deletes=Deletes.MIRROR)
    assert "DeleteObject" not in target.calls


async def test_a_listing_of_a_target_that_fails_is_an_error():
    source, target = Place("from", KEYS), Place("to", KEYS)
    fail_listing(target, page=3)
    with pytest.raises(StoreError, match="HTTP 500"):
        await migrate(source, target, deletes=Deletes.MIRROR)
    assert "DeleteObject" not in target.calls


async def test_a_delete_that_fails_is_a_failure():
    source, target = Place("from", KEYS), Place("to", [*KEYS, "extra", "other"])
    fail_on(target, "DeleteObject", ["extra"])
    _, tally, lines = await migrate(source, target, deletes=Deletes.MIRROR)
    assert (tally.failed, tally.did[Did.DELETED]) == (1, 1)
    assert keys_of(target) == sorted([*KEYS, "extra"])
    assert set(lines.keys(Did.FAILED)) == {"extra"}


# Filters


async def test_a_key_that_is_excluded_is_neither_copied_nor_deleted():
    source = Place("from", ["keep.txt", "new.tmp", "new.txt"])
    target = Place("to", ["keep.txt", "old.tmp", "old.txt"])
    rules = KeyFilter([Rule(False, "*.tmp")])
    _, tally, lines = await migrate(source, target, deletes=Deletes.MIRROR, keys=rules)
    assert keys_of(target) == ["keep.txt", "new.txt", "old.tmp"]
    assert not lines.of("new.tmp") + lines.of("old.tmp")
    assert tally.extra == 0


# Dry runs


async def test_a_dry_run_changes_nothing_and_announces_everything():
    source = Place("from", KEYS)
    target = Place("to", [*KEYS[:10], "extra"])
    target.bucket.write(KEYS[0], b"other bytes", TEXT)
    target.bucket.write(KEYS[1], f"data of {KEYS[1]}".encode(), HTML)
    source.bucket.now = BEGAN + 50
    source.bucket.write(KEYS[1], f"data of {KEYS[1]}".encode(), TEXT)
    before = content(target)
    run, tally, lines = await migrate(source, target, deletes=Deletes.MIRROR, dry_run=True)
    assert content(target) == before
    assert source.writes() + target.writes() == []
    assert "GetObject" not in source.calls
    assert lines.keys(Did.COPIED) == sorted([KEYS[0], *KEYS[10:]])
    assert lines.keys(Did.METADATA) == [KEYS[1]]
    assert lines.keys(Did.DELETED) == ["extra"]
    assert (tally.passes, tally.failed, run.still_changing) == (1, 0, False)
    assert tally.bytes == sum(len(source.bucket.objects[key].data) for key in lines.keys(Did.COPIED))


async def test_a_dry_run_announces_what_the_run_then_does():
    source, target = Place("from", KEYS), Place("to", [*KEYS[:4], "extra", "more"])
    target.bucket.write(KEYS[2], b"other", TEXT)
    _, announced, foretold = await migrate(source, target, deletes=Deletes.MIRROR, dry_run=True)
    _, done, told = await migrate(source, target, deletes=Deletes.MIRROR)
    for did in (Did.COPIED, Did.DELETED, Did.METADATA):
        assert foretold.keys(did) == told.keys(did)
    assert (announced.written, announced.bytes) == (done.written, done.bytes)


async def test_a_dry_run_without_deletes_announces_none():
    source, target = Place("from", KEYS), Place("to", [*KEYS, "extra"])
    _, tally, lines = await migrate(source, target, dry_run=True)
    assert (lines.keys(Did.DELETED), tally.extra) == ([], 1)


async def test_a_dry_run_for_several_targets_announces_for_each():
    source, one, other = Place("from", KEYS), Place("one", KEYS[:5]), Place("other")
    _, _, lines = await migrate(source, one, other, dry_run=True)
    copied = Counter(line.target for line in lines.outcomes if line.did is Did.COPIED)
    assert copied == {one.name: 15, other.name: 20}


async def test_a_dry_run_names_what_it_could_not_look_at():
    source, target = Place("from", KEYS), Place()
    await migrate(source, target)
    target.bucket.write(KEYS[2], b"other", TEXT)
    fail_on(source, "HeadObject", KEYS)
    _, tally, lines = await migrate(source, target, dry_run=True)
    assert tally.failed == 1
    assert lines.keys(Did.FAILED) == [KEYS[2]]


async def test_a_dry_run_is_refused_as_the_run_would_be():
    target = Place("to", KEYS)
    with pytest.raises(Refused):
        await migrate(Place("from"), target, deletes=Deletes.MIRROR, dry_run=True)
    assert target.writes() == []


# Changes while the run is on


@pytest.mark.parametrize("operation", ["GetObject", "GetObject:answered"])
@pytest.mark.parametrize(
    "change",
    [
        {"data": b"other bytes, another length"},
        {"data": f"DATA OF {KEYS[6]}".encode()},
        {"attributes": HTML},
        {"tags": BLUE, "attributes": HTML},
    ],
)
async def test_an_object_that_changes_while_it_is_copied_ends_equal(operation, change):
    source, target = Place("from", KEYS), Place()
    source.bucket.write("zz big", LARGE, TEXT, part_size=PART)
    key = KEYS[6]

    def overwrite():
        old = source.bucket.objects[key]
        source.bucket.write(
            key, change.get("data", old.data), change.get("attributes", old.attributes), tags=change.get("tags", ())
        )

    once(source, operation, key, overwrite)
    run, _, _ = await migrate(source, target)
    assert content(target) == content(source)
    assert not run.still_changing


@pytest.mark.parametrize("operation", ["HeadObject", "HeadObject:answered", "GetObject", "GetObject:answered"])
async def test_an_object_of_parts_that_is_overwritten_while_it_is_copied_ends_equal(operation):
    source, target = Place("from", KEYS), Place()
    source.bucket.write("big", LARGE, TEXT, part_size=PART)
    once(source, operation, "big", lambda: source.bucket.write("big", OTHER, HTML, part_size=PART))
    await migrate(source, target)
    assert content(target) == content(source)
    assert target.bucket.objects["big"].data == OTHER


async def test_metadata_that_changes_after_its_object_was_copied_ends_equal():
    source, target = Place("from", KEYS), Place()
    key = KEYS[0]

    def relabel():
        source.bucket.write(key, f"data of {key}".encode(), HTML)

    once(target, "PutObject:answered", KEYS[8], relabel)
    await migrate(source, target, concurrency=1)
    assert target.bucket.objects[key].attributes == HTML
    assert content(target) == content(source)


async def test_metadata_that_changes_between_reading_and_writing_ends_equal_though_the_copy_is_younger():
    source, target = Place("from", KEYS), Place()
    key = KEYS[5]
    target.bucket.now = BEGAN + 100

    def relabel():
        source.bucket.now = BEGAN + 1
        source.bucket.write(key, f"data of {key}".encode(), HTML)

    once(source, "GetObject:answered", key, relabel)
    await migrate(source, target)
    assert content(target) == content(source)


async def test_an_object_that_vanishes_while_it_is_copied_is_no_failure():
    source, target = Place("from", KEYS), Place()
    once(source, "GetObject", KEYS[6], lambda: source.bucket.objects.pop(KEYS[6]))
    _, tally, _ = await migrate(source, target)
    assert content(target) == content(source)
    assert tally.failed == 0


async def test_an_object_that_vanishes_after_it_was_copied_is_deleted_again():
    source, target = Place("from", KEYS), Place()
    once(target, "PutObject:answered", KEYS[19], lambda: source.bucket.objects.pop(KEYS[0]))
    _, tally, _ = await migrate(source, target, deletes=Deletes.MIRROR)
    assert content(target) == content(source)
    assert tally.did[Did.DELETED] == 1


async def test_an_object_that_arrives_behind_the_listing_is_copied_in_a_later_pass():
    source, target = Place("from", KEYS), Place()
    once(target, "PutObject", KEYS[19], lambda: source.bucket.write("! new", b"new", TEXT))
    _, tally, _ = await migrate(source, target)
    assert content(target) == content(source)
    assert tally.passes > 1


async def test_a_source_that_changes_for_ever_ends_the_run_and_it_says_so():
    source, target = Place("from", KEYS), Place()
    new = []

    def effect(operation, key):
        if operation == "PutObject:answered" and key in (KEYS[19], *new[-1:]):
            new.append(f"! behind the listing {99 - len(new)}")
            source.bucket.write(new[-1], b"new", TEXT)

    target.effects.append(effect)
    run, tally, _ = await migrate(source, target)
    assert (tally.passes, tally.failed) == (MOST_PASSES, 0)
    assert run.still_changing
    assert len(new) == MOST_PASSES


async def test_a_run_of_one_pass_confirms_new_objects_since_nobody_looks_at_them_again():
    source, target = Place("from", KEYS), Place()
    once(target, "PutObject", KEYS[3], lambda: source.bucket.write(KEYS[3], b"written meanwhile", TEXT))
    run, tally, _ = await migrate(source, target, passes=1)
    assert content(target) == content(source)
    assert (tally.passes, tally.failed, run.still_changing) == (1, 0, False)


async def test_an_object_that_changes_for_ever_is_a_failure_that_says_so():
    source, target = Place("from", KEYS), Place()
    count = iter(range(10**6))

    def effect(operation, key):
        if (operation, key) == ("PutObject:answered", KEYS[3]):
            source.bucket.now += 10
            source.bucket.write(KEYS[3], f"version {next(count)}".encode(), TEXT)

    target.effects.append(effect)
    _, tally, lines = await migrate(source, target)
    assert tally.failed == 1
    assert {type(one.failure) for one in lines.outcomes if one.did is Did.FAILED} == {SourceKeepsChanging}
    assert set(lines.keys(Did.FAILED)) == {KEYS[3]}
    assert keys_of(target) == sorted(KEYS)
    assert next(count) < 1000


# What a target cannot keep


@pytest.mark.parametrize(
    ("quirks", "attributes", "tags", "lost"),
    [
        ({"holds_tags": False}, TEXT, RED, {"tags"}),
        ({"drops_redirect": True}, PAGE, (), {"website-redirect"}),
        ({"folds_underscores": True}, replace(TEXT, metadata=(("a_b", "1"),)), (), {"metadata name a_b"}),
        ({"own_etags": True, "holds_tags": False}, TEXT, RED, {"tags"}),
        (
            {"own_etags": True, "folds_underscores": True},
            replace(TEXT, metadata=(("a_b", "1"),)),
            (),
            {"metadata name a_b"},
        ),
    ],
)
async def test_a_run_ends_although_the_target_cannot_keep_something(quirks, attributes, tags, lost):
    source, target = Place("from"), Place("to", **quirks)
    source.bucket.write("lossy", b"x", attributes, tags=tags)  # written as the run begins: looked at in every pass
    source.bucket.write("lossy in parts", LARGE, attributes, tags=tags, part_size=PART)
    run, tally, lines = await migrate(source, target)
    assert tally.passes < MOST_PASSES
    assert (tally.failed, run.still_changing) == (0, False)
    for key in ("lossy", "lossy in parts"):
        assert target.bucket.objects[key].data == source.bucket.objects[key].data
        assert set(lines.of(key)[0].not_kept) == lost
    run, tally, lines = await migrate(source, target)
    assert (tally.did[Did.COPIED], tally.failed, run.still_changing) == (0, 0, False)


async def test_an_unknown_storage_class_is_left_out_and_named():
    source, target = Place("from"), Place("to", storage_classes=False)
    source.bucket.objects["cold"] = replace(source.bucket.write("cold", b"x", TEXT), storage_class="GLACIER_IR")
    _, tally, lines = await migrate(source, target)
    assert target.bucket.objects["cold"].storage_class == ""
    assert lines.of("cold")[0].not_kept == ("storage class GLACIER_IR",)
    assert tally.not_kept["storage class GLACIER_IR"] >= 1


# Deep


async def test_only_a_deep_run_finds_tags_that_changed():
    source, target = Place("from", KEYS), Place()
    await migrate(source, target)
    stored = source.bucket.objects[KEYS[2]]
    source.bucket.objects[KEYS[2]] = replace(stored, tags=RED)
    _, shallow, _ = await migrate(source, target)
    assert (shallow.written, target.bucket.objects[KEYS[2]].tags) == (0, ())
    target.calls.clear()
    _, deep, lines = await migrate(source, target, deep=True)
    assert content(target) == content(source)
    assert (deep.written, lines.keys(Did.TAGS)) == (1, [KEYS[2]])
    assert target.writes() == ["PutObjectTagging"]


async def test_a_deep_run_reports_every_object_once():
    source, target = Place("from", KEYS), Place("to", KEYS)
    _, tally, lines = await migrate(source, target, deep=True)
    assert (tally.written, tally.compared, lines.keys(Did.IN_SYNC)) == (0, len(KEYS), sorted(KEYS))


# Bounds


async def test_no_more_objects_are_in_flight_than_was_allowed():
    source, target = Place("from", KEYS), Place()
    flying, most = set(), []

    def effect(operation, key):
        if operation == "GetObject":
            flying.add(key)
            most.append(len(flying))
        elif operation == "PutObject:answered":
            flying.discard(key)

    source.effects.append(effect)
    target.effects.append(effect)
    await migrate(source, target, concurrency=3)
    assert 1 <= max(most) <= 3


async def test_a_run_that_is_cancelled_ends():
    source, target = Place("from", KEYS), Place()
    begun = asyncio.Event()
    never = asyncio.Event()

    async def step(operation, key):
        if operation == "PutObject":
            begun.set()
            await never.wait()

    target._step = step
    run = asyncio.ensure_future(migrate(source, target))
    await begun.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert asyncio.all_tasks() == {asyncio.current_task()}


# Verification


async def test_verification_finds_nothing_when_all_is_equal():
    source, target = Place("from", KEYS), Place()
    source.bucket.write("in parts", LARGE, HTML, part_size=PART)
    source.bucket.write("tagged", b"x", HTML, tags=RED)
    await migrate(source, target)
    before = content(target)
    target.calls.clear()
    findings, lines = await verify(source, target)
    assert findings.equal
    assert (findings.same, findings.different, findings.failed) == ({Evidence.ETAG: 22}, {}, 0)
    assert lines.keys(Did.IN_SYNC) == keys_of(source)
    assert target.writes() == []
    assert content(target) == before


async def test_verification_names_every_difference():
    source, target = Place("from", KEYS), Place("to", KEYS)
    source.bucket.write("missing", b"x", TEXT)
    target.bucket.write("extra", b"x", TEXT)
    target.bucket.write(KEYS[0], b"other", TEXT)
    target.bucket.write(KEYS[1], f"DATA OF {KEYS[1]}".encode(), TEXT)
    target.bucket.write(KEYS[2], f"data of {KEYS[2]}".encode(), HTML)
    target.bucket.write(KEYS[3], f"data of {KEYS[3]}".encode(), TEXT, tags=BLUE)
    findings, lines = await verify(source, target)
    assert not findings.equal
    assert findings.different == {"missing at the target": 1, "only at the target": 1, "differs": 4}
    assert findings.same.total() == len(KEYS) - 4
    reasons = {line.key: line.reason for line in lines.outcomes if line.did is Did.DIFFERS}
    assert reasons.keys() == {"missing", "extra", *KEYS[:4]}
    assert "missing at the target" in reasons["missing"]
    assert "only at the target" in reasons["extra"]
    assert "size" in reasons[KEYS[0]]
    assert "etag" in reasons[KEYS[1]]
    assert "content-type" in reasons[KEYS[2]]
    assert "tags" in reasons[KEYS[3]]


async def test_verification_names_metadata_that_differs():
    source, target = Place("from"), Place()
    source.bucket.write("key", b"x", replace(TEXT, metadata=(("owner", "me"),)))
    target.bucket.write("key", b"x", replace(TEXT, metadata=(("owner", "you"),)))
    _, lines = await verify(source, target)
    assert "metadata owner" in lines.outcomes[0].reason


async def test_what_cannot_be_compared_is_neither_equal_nor_different():
    source, target = Place("from", KEYS), Place("to", KEYS)
    fail_on(source, "HeadObject", KEYS[:1])
    fail_on(target, "HeadObject", KEYS[1:2])
    findings, lines = await verify(source, target)
    assert not findings.equal
    assert (findings.failed, findings.different) == (2, {})
    assert set(lines.keys(Did.FAILED)) == set(KEYS[:2])


async def test_bytes_that_cannot_be_proved_equal_are_a_difference():
    source, target = Place("from", ["key"]), Place("to", own_etags=True)
    await target.put("key", b"data of key", Write(attributes=TEXT))
    findings, lines = await verify(source, target)
    assert not findings.equal
    assert "not provably the same" in lines.outcomes[0].reason


async def test_a_copy_on_a_target_with_etags_of_its_own_is_equal_by_its_stamp():
    source, target = Place("from", KEYS), Place("to", own_etags=True)
    await migrate(source, target)
    findings, _ = await verify(source, target)
    assert findings.equal
    assert findings.same == {Evidence.STAMP: len(KEYS)}


async def test_names_of_metadata_that_a_target_folds_are_told_as_not_kept():
    source, target = Place("from"), Place("to", folds_underscores=True)
    source.bucket.write("key", b"x", replace(TEXT, metadata=(("a_b", "1"),)))
    await migrate(source, target)
    findings, lines = await verify(source, target)
    assert (findings.equal, findings.not_kept) == (True, 1)
    assert lines.outcomes[0].not_kept == ("metadata name a_b",)


async def test_verification_compares_every_target():
    source, one, other = Place("from", KEYS), Place("one", KEYS), Place("other", KEYS[1:])
    findings, lines = await verify(source, one, other)
    assert findings.different == {"missing at the target": 1}
    assert findings.same.total() == 2 * len(KEYS) - 1
    assert [line.target for line in lines.outcomes if line.did is Did.DIFFERS] == [other.name]


async def test_verification_leaves_out_what_is_excluded():
    source, target = Place("from", ["a.txt", "b.tmp"]), Place("to", ["a.txt", "c.tmp"])
    findings, lines = await verify(source, target, rules=[Rule(False, "*.tmp")])
    assert findings.equal
    assert [line.key for line in lines.outcomes] == ["a.txt"]


async def test_a_listing_that_fails_ends_the_verification_with_its_error():
    source, target = Place("from", KEYS), Place("to", KEYS)
    fail_listing(target, page=2)
    with pytest.raises(StoreError, match="HTTP 500"):
        await verify(source, target)
