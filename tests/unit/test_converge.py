"""What converge promises, one promise at a time; tests/faults has them all at once, at random."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace

import pytest

from replicator import errors
from replicator.budget import ByteBudget
from replicator.converge import ROUNDS, Converger
from replicator.copying import SMALL
from replicator.decide import Do
from replicator.diff import Row
from replicator.errors import (
    AccessDenied,
    Archived,
    ChangedMeanwhile,
    NoSuchBucket,
    ReplicatorError,
    SourceKeepsChanging,
    StoreError,
    Transient,
)
from replicator.model import Attributes, Deletes, Did, Evidence, Listed, MiB, Outcome
from replicator.multipart import composite_etag
from replicator.store import Fetched
from tests.fakes.memory import Bucket, MemoryStore, Quirks, Stored

TEXT = Attributes(content_type="text/plain")
OWNED = Attributes(content_type="text/plain", metadata=(("owner", "me"),))
RED, BLUE = (("team", "red"),), (("team", "blue"),)


def md5(data):
    return hashlib.md5(data).hexdigest()


def denied(operation, key="key"):
    return AccessDenied(operation, key, "not allowed", code="AccessDenied")


class Steps:
    """What happens before or (with ":answered") after the requests of a store."""

    def __init__(self):
        self._effects = {}

    async def __call__(self, operation, key):
        for effect in self._effects.get(operation, []):
            effect()

    def always(self, operation, effect):
        self._effects.setdefault(operation, []).append(effect)

    def once(self, operation, effect):
        def first():
            self._effects[operation].remove(first)
            effect()

        self.always(operation, first)

    def fail(self, operation, error=None):
        def raise_it():
            raise error or denied(operation)

        self.always(operation, raise_it)


class Place(MemoryStore):
    """A store with its steps. archived: keys in an archive. server_copies: whether it can read any other store."""

    def __init__(self, name, *, server_copies=False, **quirks):
        self.steps = Steps()
        self.server_copies = server_copies
        self.archived = set()
        super().__init__(Bucket(), name=name, quirks=Quirks(**quirks), step=self.steps)

    async def head(self, key, *, part=None):
        state = await super().head(key, part=part)
        return replace(state, archived=True, storage_class="GLACIER") if key in self.archived else state

    def can_copy_from(self, source):
        return self.server_copies or super().can_copy_from(source)

    @property
    def objects(self):
        return self.bucket.objects

    def content(self, key="key"):
        stored = self.objects[key]
        return (stored.data, stored.attributes, stored.tags)


def place(name="target/", **quirks):
    return Place(name, **quirks)


def of(source, *targets, deletes=Deletes.MIRROR, **settings):
    return Converger(source, targets, deletes=deletes, **settings)


async def converge(source, *targets, key="key", **settings):
    """The outcome, or outcomes for several targets."""
    outcomes = await of(source, *targets, **settings).converge(key)
    assert [outcome.key for outcome in outcomes] == [key] * len(targets)
    assert [outcome.target for outcome in outcomes] == [target.name for target in targets]
    return outcomes[0] if len(targets) == 1 else outcomes


def facts(outcome):
    return (outcome.did, outcome.reason, outcome.evidence, outcome.bytes, outcome.not_kept)


async def in_sync_again(source, *targets):
    """Whether a new process finds nothing to do, and does nothing."""
    for target in targets:
        target.calls.clear()
    outcomes = await of(source, *targets).converge("key")
    idle = all(set(target.calls) <= {"HeadObject", "GetObjectTagging"} for target in targets)
    return idle and all(outcome.did is Did.IN_SYNC for outcome in outcomes)


@pytest.fixture
def source():
    return place("source/")


@pytest.fixture
def target():
    return place()


# --- what was done, why, and what proves it


async def test_a_missing_object_is_copied_and_proved_by_its_etag(source, target):
    source.bucket.write("key", b"hello", OWNED, tags=RED)
    outcome = await converge(source, target)
    assert facts(outcome) == (Did.COPIED, "not at the target", Evidence.ETAG, 5, ())
    assert outcome.failure is None
    assert target.content() == source.content()
    assert await in_sync_again(source, target)


async def test_an_empty_object_is_copied(source, target):
    source.bucket.write("key", b"")
    assert facts(await converge(source, target)) == (Did.COPIED, "not at the target", Evidence.ETAG, 0, ())
    assert target.content() == source.content()


@pytest.mark.parametrize(("old", "reason"), [(b"HELLO", "differs by etag"), (b"longer", "differs by size")])
async def test_a_changed_object_is_copied(source, target, old, reason):
    source.bucket.write("key", b"hello", TEXT)
    target.bucket.write("key", old, TEXT)
    assert facts(await converge(source, target)) == (Did.COPIED, reason, Evidence.ETAG, 5, ())
    assert target.content() == source.content()


async def test_an_object_that_may_be_the_same_is_copied(source, target):
    source.bucket.write("key", b"hello" * 10, part_size=20)
    target.bucket.write("key", b"hello" * 10, part_size=30)
    target.bucket.objects["key"] = replace(target.objects["key"], modified=9e9)
    outcome = await converge(source, target)
    assert (outcome.did, outcome.reason) == (Did.COPIED, "not provably the same")
    assert await in_sync_again(source, target)


async def test_what_is_equal_is_left_alone(source, target):
    for store in (source, target):
        store.bucket.write("key", b"hello", OWNED, tags=RED)
    assert facts(await converge(source, target)) == (Did.IN_SYNC, "same", Evidence.ETAG, 0, ())
    assert target.calls == ["HeadObject", "GetObjectTagging"]
    assert "GetObject" not in source.calls


async def test_other_metadata_is_set_without_moving_bytes(source, target):
    source.bucket.write("key", b"hello", OWNED, tags=RED)
    target.bucket.write("key", b"hello", TEXT, tags=BLUE)
    outcome = await converge(source, target)
    assert facts(outcome) == (Did.METADATA, "differs in metadata owner", Evidence.ETAG, 0, ())
    assert target.content() == source.content()
    assert "GetObject" not in source.calls
    assert target.calls.count("CopyObject") == 1
    assert "PutObject" not in target.calls


async def test_other_metadata_of_a_multipart_object_is_set_in_its_own_layout(source, target):
    data = bytes(11 * MiB)
    source.bucket.write("key", data, OWNED, part_size=5 * MiB)
    target.bucket.write("key", data, TEXT, part_size=5 * MiB)
    assert facts(await converge(source, target))[:4] == (Did.METADATA, "differs in metadata owner", Evidence.ETAG, 0)
    assert target.calls.count("UploadPartCopy") == 3
    assert target.objects["key"].etag == source.objects["key"].etag
    assert target.content() == source.content()


async def test_a_multipart_object_of_unsuitable_parts_gets_its_metadata_with_its_bytes(source, target):
    """Parts under 5 MiB cannot be made again by copying them: S3 refuses them."""
    for store, attributes in ((source, OWNED), (target, TEXT)):
        store.bucket.write("key", b"hello" * 10, attributes, part_size=20)
    outcome = await converge(source, target)
    assert (outcome.did, outcome.failure) == (Did.COPIED, None)
    assert target.content() == source.content()
    assert await in_sync_again(source, target)


async def test_other_tags_are_set_by_themselves(source, target):
    source.bucket.write("key", b"hello", TEXT, tags=RED)
    target.bucket.write("key", b"hello", TEXT, tags=BLUE)
    assert facts(await converge(source, target)) == (Did.TAGS, "differs in tags", Evidence.ETAG, 0, ())
    assert target.content() == source.content()
    assert {"PutObject", "CopyObject"}.isdisjoint(target.calls)


async def test_tags_that_are_gone_at_the_source_go_at_the_target(source, target):
    source.bucket.write("key", b"hello", TEXT)
    target.bucket.write("key", b"hello", TEXT, tags=BLUE)
    assert (await converge(source, target)).did is Did.TAGS
    assert target.objects["key"].tags == ()


async def test_what_is_gone_at_the_source_is_deleted(source, target):
    target.bucket.write("key", b"hello")
    target.bucket.write("other", b"hello")
    assert facts(await converge(source, target)) == (Did.DELETED, "gone at the source", Evidence.NONE, 0, ())
    assert set(target.objects) == {"other"}


async def test_what_is_gone_at_the_source_is_kept_where_deletes_are_not_mirrored(source, target):
    target.bucket.write("key", b"hello")
    outcome = await converge(source, target, deletes=Deletes.KEEP)
    assert facts(outcome) == (Did.KEPT, "gone at the source, but deletes are not mirrored", Evidence.NONE, 0, ())
    assert set(target.objects) == {"key"}


async def test_what_is_nowhere_is_in_sync(source, target):
    assert facts(await converge(source, target)) == (Did.IN_SYNC, "at neither side", Evidence.NONE, 0, ())


async def test_an_archived_object_is_reported_and_its_old_copy_stays(source, target):
    source.bucket.write("key", b"hello")
    source.archived.add("key")
    target.bucket.write("key", b"old")
    outcome = await converge(source, target)
    assert isinstance(outcome.failure, Archived)
    assert (outcome.did, outcome.bytes) == (Did.FAILED, 0)
    assert "GLACIER" in outcome.reason
    assert target.objects["key"].data == b"old"
    assert "GetObject" not in source.calls


async def test_an_archived_object_that_is_there_already_is_in_sync(source, target):
    for store in (source, target):
        store.bucket.write("key", b"hello")
    source.archived.add("key")
    assert (await converge(source, target)).did is Did.IN_SYNC


async def test_the_seconds_are_those_of_the_clock(source, target):
    times = iter([100.0, 107.5])
    outcome = await converge(source, target, clock=lambda: next(times))
    assert outcome.seconds == 7.5


async def test_looking_says_what_would_be_done_and_does_nothing(source, target):
    other = place("other/")
    source.bucket.write("key", b"hello")
    target.bucket.write("key", b"HELLO")
    seen, actions = await of(source, target, other).look("key")
    assert seen is not None
    assert seen.state.size == 5
    assert [(action.do, action.reason) for action in actions] == [
        (Do.COPY, "differs by etag"),
        (Do.COPY, "not at the target"),
    ]
    assert (target.objects["key"].data, other.objects) == (b"HELLO", {})


# --- several targets


async def test_each_target_gets_what_it_needs(source):
    targets = [place(f"target{n}/") for n in range(4)]
    source.bucket.write("key", b"hello", OWNED, tags=RED)
    targets[1].bucket.write("key", b"hello", TEXT, tags=RED)
    targets[2].bucket.write("key", b"hello", OWNED)
    targets[3].bucket.write("key", b"hello", OWNED, tags=RED)
    outcomes = await converge(source, *targets)
    assert [outcome.did for outcome in outcomes] == [Did.COPIED, Did.METADATA, Did.TAGS, Did.IN_SYNC]
    assert all(target.content() == source.content() for target in targets)


SHAPES = {
    "small": (b"hello", None, 1),
    "streamed": (bytes(SMALL + 1), None, 5),
    "in parts": (bytes(11 * MiB), 5 * MiB, 3),
}


@pytest.mark.parametrize(("data", "part_size", "reads"), SHAPES.values(), ids=SHAPES.keys())
async def test_the_source_is_read_once_for_all_targets(source, data, part_size, reads):
    targets = [place(f"target{n}/") for n in range(3)]
    source.bucket.write("key", data, part_size=part_size)
    outcomes = await converge(source, *targets)
    assert [facts(outcome)[::2] for outcome in outcomes] == [(Did.COPIED, Evidence.ETAG, ())] * 3
    assert source.calls.count("GetObject") == reads
    assert all(target.objects["key"].etag == source.objects["key"].etag for target in targets)


REFUSED_AT = {
    "small": ["HeadObject", "PutObject"],
    "streamed": ["HeadObject", "PutObject"],
    "in parts": ["HeadObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload"],
}


@pytest.mark.parametrize(("shape", "operation"), [(shape, name) for shape, all_ in REFUSED_AT.items() for name in all_])
@pytest.mark.parametrize("bad", [0, 1])
async def test_a_target_that_refuses_does_not_hold_back_the_other(source, shape, operation, bad):
    data, part_size, _ = SHAPES[shape]
    targets = [place("target0/"), place("target1/")]
    targets[bad].steps.fail(operation)
    source.bucket.write("key", data, part_size=part_size)
    outcomes = await converge(source, *targets)
    failed, well = outcomes[bad], outcomes[1 - bad]
    assert (failed.did, type(failed.failure)) == (Did.FAILED, AccessDenied)
    assert "not allowed" in failed.reason
    assert facts(well) == (Did.COPIED, "not at the target", Evidence.ETAG, len(data), ())
    assert targets[1 - bad].content() == source.content()
    assert targets[bad].objects == {}
    assert targets[bad].bucket.uploads == {}


@pytest.mark.parametrize("operation", ["CopyObject", "PutObjectTagging", "DeleteObject"])
async def test_a_target_that_refuses_a_change_does_not_hold_back_the_other(source, operation):
    targets = [place("target0/"), place("target1/")]
    if operation != "DeleteObject":
        source.bucket.write("key", b"hello", OWNED if operation == "CopyObject" else TEXT, tags=RED)
    for target in targets:
        target.bucket.write("key", b"hello", TEXT)
    targets[0].steps.fail(operation)
    if operation == "CopyObject":
        targets[0].steps.fail("PutObject")  # the other way to the same end
    failed, well = await converge(source, *targets)
    assert (failed.did, type(failed.failure)) == (Did.FAILED, AccessDenied)
    assert (
        well.did is {"CopyObject": Did.METADATA, "PutObjectTagging": Did.TAGS, "DeleteObject": Did.DELETED}[operation]
    )
    assert targets[1].objects.keys() == source.objects.keys()


# --- what a target cannot hold


async def test_a_target_with_etags_of_its_own_gets_a_stamp_and_then_nothing(source):
    target = place(own_etags=True)
    source.bucket.write("key", b"hello", OWNED)
    assert facts(await converge(source, target)) == (Did.COPIED, "not at the target", Evidence.STAMP, 5, ())
    assert target.objects["key"].stamp == md5(b"hello")
    assert target.content() == source.content()
    assert await in_sync_again(source, target)


@pytest.mark.parametrize(("data", "part_size", "reads"), SHAPES.values(), ids=SHAPES.keys())
async def test_objects_of_every_shape_are_stamped_where_etags_are_foreign(source, data, part_size, reads):
    target = place(own_etags=True)
    source.bucket.write("key", data, part_size=part_size)
    outcome = await converge(source, target)
    assert (outcome.did, outcome.evidence) == (Did.COPIED, Evidence.STAMP)
    assert target.objects["key"].stamp == source.objects["key"].etag
    assert target.content() == source.content()
    assert target.bucket.uploads == {}
    assert await in_sync_again(source, target)


async def test_only_the_first_object_in_parts_is_sent_twice_where_the_etag_of_a_whole_is_of_all_bytes(source):
    target = place(whole_etags=True)
    for key in ("one", "two"):
        source.bucket.write(key, bytes(11 * MiB), part_size=5 * MiB)
    converger = Converger(source, [target], deletes=Deletes.MIRROR)
    for key in ("one", "two"):
        [outcome] = await converger.converge(key)
        assert outcome.did is Did.COPIED, outcome
        assert target.objects[key].stamp == source.objects[key].etag
        assert target.objects[key].etag == md5(bytes(11 * MiB))
    assert target.calls.count("CompleteMultipartUpload") == 3
    assert target.content("two") == source.content("two")
    [again] = await Converger(source, [target], deletes=Deletes.MIRROR).converge("one")
    assert again.did is Did.IN_SYNC


async def test_a_stamp_does_not_hide_a_change_of_the_same_size(source):
    target = place(own_etags=True)
    source.bucket.write("key", b"hello")
    await converge(source, target)
    source.bucket.write("key", b"HELLO")
    assert facts(await converge(source, target))[:3] == (
        Did.COPIED,
        "differs by stamped source etag",
        Evidence.STAMP,
    )
    assert target.objects["key"].data == b"HELLO"


async def test_a_change_of_metadata_keeps_the_stamp(source):
    target = place(own_etags=True)
    source.bucket.write("key", b"hello", TEXT)
    await converge(source, target)
    source.bucket.write("key", b"hello", OWNED)
    outcome = await converge(source, target)
    assert (outcome.did, outcome.bytes) == (Did.METADATA, 0)
    assert target.objects["key"].stamp == md5(b"hello")
    assert target.content() == source.content()
    assert await in_sync_again(source, target)


async def test_folded_underscores_are_reported_and_then_left(source):
    target = place(folds_underscores=True)
    source.bucket.write("key", b"hello", Attributes(metadata=(("a_b", "1"),)))
    outcome = await converge(source, target)
    assert (outcome.did, outcome.not_kept) == (Did.COPIED, ("metadata name a_b",))
    assert target.objects["key"].attributes.metadata == (("a-b", "1"),)
    assert await in_sync_again(source, target)
    assert (await converge(source, target)).not_kept == ("metadata name a_b",)


async def test_a_dropped_redirect_is_reported(source):
    target = place(drops_redirect=True)
    source.bucket.write("key", b"hello", replace(TEXT, website_redirect="/there"))
    outcome = await converge(source, target)
    assert (outcome.did, outcome.not_kept, outcome.failure) == (Did.COPIED, ("website-redirect",), None)
    assert target.content() == (b"hello", TEXT, ())


@pytest.mark.parametrize(("data", "part_size", "reads"), SHAPES.values(), ids=SHAPES.keys())
async def test_tags_that_a_target_refuses_are_reported_and_then_left(source, data, part_size, reads):
    target = place(holds_tags=False)
    source.bucket.write("key", data, OWNED, tags=RED, part_size=part_size)
    converger = of(source, target)
    [outcome] = await converger.converge("key")
    assert (outcome.did, outcome.not_kept) == (Did.COPIED, ("tags",))
    assert target.content() == (data, OWNED, ())
    [outcome] = await converger.converge("key")
    assert (outcome.did, outcome.not_kept) == (Did.IN_SYNC, ("tags",))


async def test_a_storage_class_that_a_target_refuses_is_reported_and_the_rest_is_kept(source):
    target = place(storage_classes=False)
    stored = source.bucket.write("key", b"hello", OWNED, tags=RED)
    source.objects["key"] = replace(stored, storage_class="STANDARD_IA")
    outcome = await converge(source, target)
    assert (outcome.did, outcome.not_kept) == (Did.COPIED, ("storage class STANDARD_IA",))
    assert target.content() == source.content()
    assert target.objects["key"].storage_class == ""
    assert await in_sync_again(source, target)


async def test_a_target_that_refused_a_storage_class_is_not_asked_again(source):
    target = place(storage_classes=False)
    converger = of(source, target)
    for key in ("one", "two"):
        source.objects[key] = replace(source.bucket.write(key, b"hello"), storage_class="STANDARD_IA")
        [outcome] = await converger.converge(key)
        assert outcome.not_kept == ("storage class STANDARD_IA",)
    assert target.calls.count("PutObject") == 3


async def test_a_storage_class_is_kept_where_it_can_be(source, target):
    source.objects["key"] = replace(source.bucket.write("key", b"hello"), storage_class="STANDARD_IA")
    assert facts(await converge(source, target))[4] == ()
    assert target.objects["key"].storage_class == "STANDARD_IA"


async def test_a_target_that_holds_neither_tags_nor_classes_still_gets_the_bytes(source):
    target = place(storage_classes=False, holds_tags=False)
    source.objects["key"] = replace(source.bucket.write("key", b"hello", OWNED, tags=RED), storage_class="STANDARD_IA")
    outcome = await converge(source, target)
    assert (outcome.did, outcome.not_kept) == (Did.COPIED, ("storage class STANDARD_IA", "tags"))
    assert target.content() == (b"hello", OWNED, ())


# --- layouts


def write_parts(store, *sizes):
    """An object whose parts have these sizes, each of other bytes."""
    parts = [bytes([number]) * size for number, size in enumerate(sizes, start=1)]
    etag = composite_etag([md5(part) for part in parts])
    stored = Stored(b"".join(parts), etag, store.bucket.now, TEXT, parts=tuple(sizes))
    store.objects["key"] = stored
    return stored


LAYOUTS = {
    "6, 5 and 1": (6 * MiB, 5 * MiB, MiB),
    "6, 5 and 5, which could be 6, 6 and 4": (6 * MiB, 5 * MiB, 5 * MiB),
    "5 and 9": (5 * MiB, 9 * MiB),
    "uniform": (5 * MiB, 5 * MiB, 1),
    "one small part": (5,),
    "one part": (9 * MiB,),
}


@pytest.mark.parametrize("sizes", LAYOUTS.values(), ids=LAYOUTS.keys())
@pytest.mark.parametrize("silent_completion", [False, True])
async def test_a_layout_that_the_source_tells_keeps_the_etag(source, sizes, silent_completion):
    target = place(silent_completion=silent_completion)
    stored = write_parts(source, *sizes)
    outcome = await converge(source, target)
    assert (outcome.did, outcome.evidence, outcome.failure) == (Did.COPIED, Evidence.ETAG, None)
    assert target.objects["key"].etag == stored.etag
    assert target.objects["key"].parts == sizes
    assert (target.content(), target.bucket.uploads) == (source.content(), {})
    assert await in_sync_again(source, target)


@pytest.mark.parametrize("sizes", [(8 * MiB, 8 * MiB, 3), (5 * MiB,) * 4, (9 * MiB,)])
async def test_a_layout_that_the_source_does_not_tell_is_guessed(target, sizes):
    source = place("source/", knows_parts=False)
    write_parts(source, *sizes)
    outcome = await converge(source, target)
    assert (outcome.did, outcome.evidence) == (Did.COPIED, Evidence.ETAG)
    assert target.objects["key"].parts == sizes


async def test_a_wrong_guess_is_found_out_before_it_is_published_and_stamped(target):
    source = place("source/", knows_parts=False)
    stored = write_parts(source, 6 * MiB, 5 * MiB, MiB)
    published = []
    target.steps.always("CompleteMultipartUpload:answered", lambda: published.append(target.objects["key"].stamp))
    outcome = await converge(source, target)
    assert (outcome.did, outcome.evidence) == (Did.COPIED, Evidence.STAMP)
    assert published == [stored.etag]
    assert (target.content(), target.bucket.uploads) == (source.content(), {})
    assert await in_sync_again(source, target)


async def test_parts_that_no_target_would_take_are_cut_anew_and_stamped(target):
    source = place("source/")
    stored = write_parts(source, 2 * MiB, 2 * MiB)
    outcome = await converge(source, target)
    assert (outcome.did, outcome.evidence) == (Did.COPIED, Evidence.STAMP)
    assert target.objects["key"].stamp == stored.etag
    assert await in_sync_again(source, target)


# --- a source that changes meanwhile


CHANGES = {
    "metadata": {"attributes": OWNED},
    "tags": {"tags": BLUE},
    "metadata and tags": {"attributes": OWNED, "tags": BLUE},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
@pytest.mark.parametrize("moment", ["PutObject", "PutObject:answered"])
async def test_a_change_within_the_same_second_is_seen_and_repaired(source, target, change, moment):
    """Same bytes, same ETag, same Last-Modified: only the attributes or tags tell."""
    source.bucket.write("key", b"hello", TEXT, tags=RED)

    def edit():
        source.objects["key"] = replace(source.objects["key"], **change)

    target.steps.once(moment, edit)
    outcome = await converge(source, target)
    assert outcome.failure is None
    assert target.content() == source.content()
    assert target.content() != (b"hello", TEXT, RED)


@pytest.mark.parametrize("data", [b"HELLO", b"longer than before", b""])
@pytest.mark.parametrize("moment", ["PutObject", "PutObject:answered"])
async def test_an_overwrite_after_the_read_is_seen_and_copied(source, target, data, moment):
    source.bucket.write("key", b"hello", TEXT)
    target.steps.once(moment, lambda: source.bucket.write("key", data, TEXT))
    outcome = await converge(source, target)
    assert (outcome.did, outcome.failure) == (Did.COPIED, None)
    assert outcome.bytes == 5 + len(data)
    assert target.content() == source.content()


@pytest.mark.parametrize("moment", ["HeadObject:answered", "GetObject"])
async def test_an_overwrite_between_looking_and_reading_is_not_mixed_up(source, target, moment):
    source.bucket.write("key", b"hello", TEXT)
    source.steps.once(moment, lambda: source.bucket.write("key", b"HELLO", OWNED))
    assert (await converge(source, target)).did is Did.COPIED
    assert target.content() == (b"HELLO", OWNED, ())


async def test_an_overwrite_between_two_parts_is_not_torn(source, target):
    write_parts(source, 5 * MiB, 5 * MiB, 5 * MiB)
    seen = []

    def overwrite_at_the_second():
        seen.append(1)
        if len(seen) == 2:
            source.bucket.write("key", b"new" * 5 * MiB, TEXT, part_size=5 * MiB)

    source.steps.always("GetObject", overwrite_at_the_second)
    assert (await converge(source, target)).did is Did.COPIED
    assert target.content() == source.content()
    assert target.bucket.uploads == {}


@pytest.mark.parametrize(("data", "part_size", "reads"), SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("there", [False, True])
async def test_an_object_that_vanishes_while_it_is_copied_is_gone_at_the_target(
    source, target, data, part_size, reads, there
):
    source.bucket.write("key", data, part_size=part_size)
    if there:
        target.bucket.write("key", b"old")
    source.steps.once("GetObject", lambda: source.objects.pop("key"))
    outcome = await converge(source, target)
    assert (outcome.did, outcome.failure) == (Did.DELETED if there else Did.IN_SYNC, None)
    assert (target.objects, target.bucket.uploads) == ({}, {})


async def test_an_object_that_vanishes_after_it_was_copied_is_deleted_again(source, target):
    source.bucket.write("key", b"hello")
    target.steps.once("PutObject:answered", lambda: source.objects.pop("key"))
    assert (await converge(source, target)).did is Did.DELETED
    assert target.objects == {}


async def test_an_object_that_comes_back_while_its_copy_is_deleted_is_copied_again(source, target):
    target.bucket.write("key", b"old")
    target.steps.once("DeleteObject", lambda: source.bucket.write("key", b"new"))
    assert (await converge(source, target)).did is Did.COPIED
    assert target.content() == source.content()


async def test_a_source_that_never_stands_still_is_reported_after_some_rounds(source, target):
    numbers = iter(range(10**6))
    source.bucket.write("key", b"first")
    target.steps.always("PutObject", lambda: source.bucket.write("key", str(next(numbers)).encode()))
    outcome = await converge(source, target)
    assert (outcome.did, type(outcome.failure)) == (Did.FAILED, SourceKeepsChanging)
    assert target.calls.count("PutObject") == ROUNDS


# --- no unwarranted delete


async def test_a_source_bucket_that_is_gone_never_deletes(source, target):
    target.bucket.write("key", b"hello")
    source.bucket.exists = False
    outcome = await converge(source, target)
    assert (outcome.did, type(outcome.failure)) == (Did.FAILED, NoSuchBucket)
    assert target.content() == (b"hello", Attributes(), ())
    assert "DeleteObject" not in target.calls


async def test_a_source_bucket_that_vanishes_between_two_questions_never_deletes(source, target):
    target.bucket.write("key", b"hello")

    def vanish():
        source.bucket.exists = False

    source.steps.once("ListObjectsV2", vanish)
    assert (await converge(source, target)).did is Did.FAILED
    assert "key" in target.objects


@pytest.mark.parametrize("operation", ["HeadObject", "ListObjectsV2"])
@pytest.mark.parametrize("kind", [AccessDenied, Transient, NoSuchBucket, errors.Throttled, errors.Rejected])
async def test_an_absence_that_is_not_proved_never_deletes(source, target, operation, kind):
    target.bucket.write("key", b"hello")
    source.steps.fail(operation, kind(operation, "key", "made to fail"))
    outcome = await converge(source, target)
    assert (outcome.did, type(outcome.failure)) == (Did.FAILED, kind)
    assert "DeleteObject" not in target.calls


async def test_an_object_that_is_hidden_from_head_but_listed_is_not_deleted(source, target):
    for store in (source, target):
        store.bucket.write("key", b"hello")
    source.steps.fail("HeadObject", errors.NoSuchKey("HeadObject", "key", "not yet"))
    outcome = await converge(source, target)
    assert (outcome.did, type(outcome.failure)) == (Did.FAILED, ChangedMeanwhile)
    assert "key" in target.objects


async def test_a_missing_target_bucket_is_an_error_and_not_an_absent_object(source, target):
    source.bucket.write("key", b"hello")
    target.bucket.exists = False
    outcome = await converge(source, target)
    assert (outcome.did, type(outcome.failure)) == (Did.FAILED, NoSuchBucket)


# --- failures


def kinds_of(base):
    return [base, *(kind for sub in base.__subclasses__() for kind in kinds_of(sub))]


OPERATIONS = [
    *("HeadObject", "ListObjectsV2", "GetObject", "GetObjectTagging", "PutObject", "PutObjectTagging", "DeleteObject"),
    *("CopyObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload", "AbortMultipartUpload"),
]


@pytest.mark.parametrize("kind", kinds_of(StoreError), ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("when", ["", ":answered"])
async def test_no_error_of_a_store_is_raised(kind, when):
    for failing in ("source", "target"):
        for operation in OPERATIONS:
            source, target = place("source/"), place()
            source.bucket.write("small", b"hello", OWNED, tags=RED)
            source.bucket.write("parts", b"hello", OWNED, tags=RED, part_size=5)
            source.bucket.write("edited", b"hello", OWNED)
            source.bucket.write("tagged", b"hello", tags=RED)
            for key in ("edited", "tagged", "gone"):
                target.bucket.write(key, b"hello")
            broken = source if failing == "source" else target
            broken.steps.fail(operation + when, kind(operation, "key", "made to fail"))
            converger = of(source, target)
            for key in ("small", "parts", "edited", "tagged", "gone"):
                [outcome] = await converger.converge(key)
                assert isinstance(outcome, Outcome)
                assert (outcome.did in (Did.FAILED, Did.SKIPPED)) is (outcome.failure is not None)
            nameless = operation == "CreateMultipartUpload" and when == ":answered"
            if failing == "source" or not (nameless or operation == "AbortMultipartUpload"):
                assert target.bucket.uploads == {}


async def test_an_error_that_nobody_expects_is_a_failure_of_its_key_alone(source, target):
    source.bucket.write("key", b"hello")
    target.steps.fail("PutObject", KeyError("a bug"))
    outcome = await converge(source, target)
    assert (outcome.did, type(outcome.failure)) == (Did.FAILED, KeyError)


@pytest.mark.parametrize("operation", ["UploadPart", "UploadPart:answered", "CompleteMultipartUpload"])
@pytest.mark.parametrize("kind", [AccessDenied, Transient, ChangedMeanwhile])
async def test_unfinished_uploads_are_dropped_after_a_failure_at_the_target(source, target, operation, kind):
    write_parts(source, 5 * MiB, 5 * MiB, 1)
    target.steps.fail(operation, kind("UploadPart", "key", "made to fail"))
    assert (await converge(source, target)).did is Did.FAILED
    assert (target.bucket.uploads, target.objects) == ({}, {})
    assert "CreateMultipartUpload" in target.calls


async def test_unfinished_uploads_are_dropped_at_all_targets_after_a_failure_at_the_source(source):
    targets = [place("target0/"), place("target1/")]
    write_parts(source, 5 * MiB, 5 * MiB, 1)
    source.steps.fail("GetObject")
    outcomes = await converge(source, *targets)
    assert [type(outcome.failure) for outcome in outcomes] == [AccessDenied, AccessDenied]
    assert [target.bucket.uploads for target in targets] == [{}, {}]


@pytest.mark.parametrize("operation", ["GetObject", "UploadPart", "CompleteMultipartUpload"])
async def test_unfinished_uploads_are_dropped_on_cancellation_and_all_bytes_given_back(source, target, operation):
    write_parts(source, 5 * MiB, 5 * MiB, 1)
    budget = ByteBudget(20 * MiB)
    task = asyncio.create_task(converge(source, target, budget=budget))
    (source if operation == "GetObject" else target).steps.once(operation, task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
    for _ in range(10):
        await asyncio.sleep(0)
    assert (target.bucket.uploads, budget.lent) == ({}, 0)


@pytest.mark.parametrize(("data", "part_size", "reads"), SHAPES.values(), ids=SHAPES.keys())
async def test_a_failure_gives_all_bytes_back(source, target, data, part_size, reads):
    budget = ByteBudget(64 * MiB)
    source.bucket.write("key", data, part_size=part_size)
    for operation in ("PutObject", "UploadPart"):
        target.steps.fail(operation)
    assert (await converge(source, target, budget=budget)).did is Did.FAILED
    assert budget.lent == 0


async def test_a_completion_whose_answer_was_lost_is_believed_when_the_object_is_there(source, target):
    write_parts(source, 5 * MiB, 1)
    lost = errors.NoSuchUpload("CompleteMultipartUpload", "key", "completed before")
    target.steps.fail("CompleteMultipartUpload:answered", lost)
    outcome = await converge(source, target)
    assert (outcome.did, outcome.evidence, outcome.failure) == (Did.COPIED, Evidence.ETAG, None)


@pytest.mark.parametrize(("data", "part_size", "reads"), SHAPES.values(), ids=SHAPES.keys())
async def test_a_byte_that_arrives_wrong_once_is_not_published_for_good(target, data, part_size, reads):
    class Flipping(Place):
        flips = 1

        async def fetch(self, key, **how):
            fetched = await super().fetch(key, **how)
            if not self.flips:
                return fetched
            self.flips -= 1
            return Fetched(fetched.state, b"\xff" + bytes(fetched.data[1:]))

    source = Flipping("source/")
    source.bucket.write("key", data, part_size=part_size)
    assert (await converge(source, target)).did is Did.COPIED
    assert target.content() == source.content()


# --- server-side copies


@pytest.mark.parametrize(("data", "part_size", "reads"), SHAPES.values(), ids=SHAPES.keys())
async def test_a_target_that_can_read_the_source_copies_by_itself(source, data, part_size, reads):
    target = place(server_copies=True)
    source.bucket.write("key", data, OWNED, tags=RED, part_size=part_size)
    assert facts(await converge(source, target)) == (Did.COPIED, "not at the target", Evidence.ETAG, 0, ())
    assert "GetObject" not in source.calls
    assert target.content() == source.content()
    assert target.objects["key"].etag == source.objects["key"].etag


@pytest.mark.parametrize("operation", ["CopyObject", "UploadPartCopy"])
@pytest.mark.parametrize("kind", [AccessDenied, errors.Unsupported, errors.Rejected])
async def test_a_server_side_copy_that_is_refused_is_done_with_bytes(source, operation, kind):
    target = place(server_copies=True)
    source.bucket.write("key", bytes(6 * MiB), OWNED, part_size=5 * MiB if operation == "UploadPartCopy" else None)
    target.steps.fail(operation, kind(operation, "key", "made to fail"))
    outcome = await converge(source, target)
    assert (outcome.did, outcome.bytes) == (Did.COPIED, 6 * MiB)
    assert (target.content(), target.bucket.uploads) == (source.content(), {})


async def test_one_target_copies_by_itself_and_the_other_gets_the_bytes(source):
    near, far = place("near/", server_copies=True), place("far/")
    source.bucket.write("key", b"hello", OWNED)
    assert [outcome.bytes for outcome in await converge(source, near, far)] == [0, 5]
    assert near.content() == far.content() == source.content()


async def test_an_overwrite_before_a_server_side_copy_is_copied_instead(source):
    target = place(server_copies=True)
    source.bucket.write("key", b"hello")
    target.steps.once("CopyObject", lambda: source.bucket.write("key", b"HELLO"))
    assert (await converge(source, target)).did is Did.COPIED
    assert target.content() == source.content()


# --- the short way of a bulk run


def row(source, targets=(None,), key="key"):
    stored = source.objects[key]
    return Row(key, Listed(key, len(stored.data), stored.etag, stored.modified), targets)


async def unseen(source, *targets, listed=None, **settings):
    listed = listed or row(source, (None,) * len(targets))
    return await of(source, *targets, **{"confirm": False, **settings}).converge("key", listed)


@pytest.mark.parametrize("data", [b"", b"hello", bytes(8 * MiB)])
async def test_a_new_small_object_takes_one_get_and_one_put(source, data):
    targets = [place("target0/"), place("target1/")]
    source.bucket.write("key", data, TEXT)
    outcomes = await unseen(source, *targets)
    assert [facts(one) for one in outcomes] == [(Did.COPIED, "not at the target", Evidence.ETAG, len(data), ())] * 2
    assert source.calls == ["GetObject"]
    assert [target.calls for target in targets] == [["PutObject"], ["PutObject"]]
    assert [target.content() for target in targets] == [source.content()] * 2


async def test_a_confirming_converger_looks_at_new_objects_again(source, target):
    source.bucket.write("key", b"hello")
    await unseen(source, target, confirm=True)
    assert source.calls == ["GetObject", "HeadObject"]
    assert target.content() == source.content()


async def test_a_confirming_converger_follows_a_new_object_that_changes_meanwhile(source, target):
    source.bucket.write("key", b"hello")
    listed = row(source)
    target.steps.once("PutObject", lambda: source.bucket.write("key", b"HELLO"))
    await unseen(source, target, listed=listed, confirm=True)
    assert target.content() == source.content()
    assert target.objects["key"].data == b"HELLO"


# --- the short way of an event


def told(source, key="key"):
    stored = source.objects[key]
    return Listed(key, len(stored.data), stored.etag, 0.0)


async def by_event(source, *targets, guess=None, **settings):
    return await of(source, *targets, **settings).converge("key", guess=guess or told(source))


async def test_a_new_object_of_an_event_takes_a_get_a_put_and_a_look_back(source):
    targets = [place("target0/"), place("target1/")]
    source.bucket.write("key", b"hello", TEXT)
    outcomes = await by_event(source, *targets)
    assert [one.did for one in outcomes] == [Did.COPIED] * 2
    assert source.calls == ["GetObject", "HeadObject"]
    assert [target.calls for target in targets] == [["PutObject"]] * 2
    assert [target.content() for target in targets] == [source.content()] * 2


async def test_an_object_that_is_there_is_not_written_again_by_an_event(source, target):
    source.bucket.write("key", b"hello", TEXT)
    await by_event(source, target)
    modified = target.objects["key"].modified
    (outcome,) = await by_event(source, target)
    assert (outcome.did, target.objects["key"].modified) == (Did.IN_SYNC, modified)


@pytest.mark.parametrize(
    "guess",
    [
        Listed("key", 0, "d41d8cd98f00b204e9800998ecf8427e", 0.0),
        Listed("key", 10**12, "d41d8cd98f00b204e9800998ecf8427e", 0.0),
        Listed("key", 5, "d41d8cd98f00b204e9800998ecf8427e-7", 0.0),
        Listed("key", 5, "", 0.0),
        Listed("key", 3, "no md5", 0.0),
    ],
)
@pytest.mark.parametrize("part_size", [None, 5 * MiB])
async def test_whatever_an_event_says_the_target_ends_equal(source, target, guess, part_size):
    source.bucket.write("key", bytes(6 * MiB), OWNED, tags=RED, part_size=part_size)
    (outcome,) = await by_event(source, target, guess=guess)
    assert outcome.did is Did.COPIED
    assert target.content() == source.content()


async def test_an_event_of_an_object_that_is_gone_deletes_it(source, target):
    source.bucket.write("key", b"hello")
    await converge(source, target)
    guess = told(source)
    del source.objects["key"]
    (outcome,) = await by_event(source, target, guess=guess)
    assert (outcome.did, list(target.objects)) == (Did.DELETED, [])


async def test_an_object_that_changes_while_an_event_has_it_copied_is_followed(source, target):
    source.bucket.write("key", b"hello")
    target.steps.once("PutObject", lambda: source.bucket.write("key", b"HELLO"))
    await by_event(source, target)
    assert target.objects["key"].data == b"HELLO"


@pytest.mark.parametrize("kind", [errors.Unsupported, errors.Rejected])
async def test_a_target_that_does_not_know_conditions_is_asked_once_and_gets_it_the_long_way(source, target, kind):
    source.bucket.write("key", b"hello")
    converger = of(source, target)

    def refuse():
        raise kind("PutObject", "key", "no conditions here")

    target.steps.once("PutObject", refuse)
    (outcome,) = await converger.converge("key", guess=told(source))
    assert (outcome.did, target.content()) == (Did.COPIED, source.content())
    assert not converger.publishers[0].takes_only_new


async def test_what_a_brake_does_not_allow_is_held_and_what_is_released_is_deleted(source, target):
    source.bucket.write("key", b"hello")
    await converge(source, target)
    del source.objects["key"]

    async def never(_):
        return False

    (outcome,) = await of(source, target, may_delete=never).converge("key")
    assert (outcome.did, list(target.objects)) == (Did.HELD, ["key"])
    assert "brake" in outcome.reason
    (outcome,) = await of(source, target, may_delete=never).converge("key", released=True)
    assert (outcome.did, list(target.objects)) == (Did.DELETED, [])


async def test_a_brake_is_asked_once_for_all_targets_and_not_at_all_where_nothing_is_to_delete(source):
    targets, asked = [place("target0/"), place("target1/")], []

    async def allow(key):
        asked.append(key)
        return True

    source.bucket.write("key", b"hello")
    await of(source, *targets, may_delete=allow).converge("key")
    assert asked == []
    del source.objects["key"]
    await of(source, *targets, may_delete=allow).converge("key")
    await of(source, *targets, may_delete=allow).converge("key")
    assert asked == ["key"]
    assert [list(target.objects) for target in targets] == [[], []]


async def test_without_a_listing_nothing_is_copied_unseen(source, target):
    source.bucket.write("key", b"hello")
    await converge(source, target, confirm=False)
    assert source.calls[0] == "HeadObject"


@pytest.mark.parametrize("targets", [1, 2])
async def test_what_a_target_lists_is_looked_at(source, targets):
    stores = [place(f"target{n}/") for n in range(targets)]
    source.bucket.write("key", b"hello", TEXT)
    there = Listed("key", 5, md5(b"hello"), 0.0)
    stores[-1].bucket.write("key", b"hello", TEXT)
    outcomes = await unseen(source, *stores, listed=row(source, (None,) * (targets - 1) + (there,)))
    assert outcomes[-1].did is Did.IN_SYNC
    assert "PutObject" not in stores[-1].calls


async def test_what_only_a_target_lists_is_deleted_after_asking(source, target):
    target.bucket.write("key", b"hello")
    [outcome] = await unseen(source, target, listed=Row("key", None, (Listed("key", 5, "x", 0.0),)))
    assert outcome.did is Did.DELETED
    assert source.calls[:2] == ["HeadObject", "ListObjectsV2"]


@pytest.mark.parametrize(("data", "part_size"), [(bytes(SMALL + 1), None), (bytes(6 * MiB), 5 * MiB)])
async def test_large_and_multipart_objects_are_looked_at(source, target, data, part_size):
    source.bucket.write("key", data, part_size=part_size)
    [outcome] = await unseen(source, target)
    assert (outcome.did, source.calls[0]) == (Did.COPIED, "HeadObject")
    assert target.objects["key"].etag == source.objects["key"].etag


BECAME = {
    "too large": lambda source: source.bucket.write("key", bytes(SMALL + 1), TEXT),
    "multipart": lambda source: source.bucket.write("key", bytes(6 * MiB), TEXT, part_size=5 * MiB),
    "larger": lambda source: source.bucket.write("key", bytes(6 * MiB), OWNED, tags=RED),
}


@pytest.mark.parametrize("change", BECAME.values(), ids=BECAME.keys())
async def test_an_object_that_became_another_since_it_was_listed_is_copied_as_it_is(source, target, change):
    source.bucket.write("key", b"hello", TEXT)
    source.steps.once("GetObject", lambda: change(source))
    [outcome] = await unseen(source, target)
    assert (outcome.did, outcome.evidence) == (Did.COPIED, Evidence.ETAG)
    assert target.content() == source.content()
    assert target.objects["key"].etag == source.objects["key"].etag


async def test_an_object_that_vanished_since_it_was_listed_is_in_sync(source, target):
    source.bucket.write("key", b"hello", TEXT)
    source.steps.once("GetObject", lambda: source.objects.pop("key"))
    [outcome] = await unseen(source, target)
    assert facts(outcome)[:2] == (Did.IN_SYNC, "at neither side")
    assert target.calls == ["HeadObject"]


async def test_an_object_that_vanished_with_its_bucket_is_an_error(source, target):
    source.bucket.write("key", b"hello", TEXT)
    listed = row(source)
    source.bucket.exists = False
    [outcome] = await unseen(source, target, listed=listed)
    assert isinstance(outcome.failure, NoSuchBucket)


async def test_an_unseen_copy_with_attributes_is_read_back(source):
    target = place(drops_redirect=True)
    source.bucket.write("key", b"hello", replace(TEXT, website_redirect="/there"))
    [outcome] = await unseen(source, target)
    assert (outcome.did, outcome.not_kept) == (Did.COPIED, ("website-redirect",))
    assert (source.calls, target.calls) == (["GetObject"], ["PutObject", "HeadObject"])


async def test_tags_that_change_during_an_unseen_copy_are_repaired(source, target):
    source.bucket.write("key", b"hello", TEXT, tags=RED)

    def edit():
        source.objects["key"] = replace(source.objects["key"], tags=BLUE)

    target.steps.once("PutObject", edit)
    [outcome] = await unseen(source, target)
    assert outcome.failure is None
    assert target.content() == source.content()


async def test_an_unseen_copy_that_one_target_refuses_is_made_at_the_other(source):
    targets = [place("target0/"), place("target1/")]
    targets[0].steps.fail("PutObject")
    source.bucket.write("key", b"hello")
    failed, well = await unseen(source, *targets)
    assert (failed.did, type(failed.failure), well.did) == (Did.FAILED, AccessDenied, Did.COPIED)
    assert source.calls == ["GetObject"]


async def test_an_unseen_copy_is_stamped_where_etags_are_foreign(source):
    target = place(own_etags=True)
    source.bucket.write("key", b"hello", TEXT)
    [outcome] = await unseen(source, target)
    assert outcome.evidence is Evidence.STAMP
    assert await in_sync_again(source, target)


async def test_a_service_that_can_copy_by_itself_is_not_sent_bytes_unseen(source):
    target = place(server_copies=True)
    source.bucket.write("key", b"hello", TEXT)
    [outcome] = await unseen(source, target)
    assert (outcome.did, outcome.bytes) == (Did.COPIED, 0)
    assert "GetObject" not in source.calls


def test_every_error_of_a_store_is_a_replicator_error():
    assert issubclass(StoreError, ReplicatorError)
    assert len(kinds_of(StoreError)) >= 12
