"""A large object is copied by many, part by part; whatever befalls them, it ends equal and leaves nothing behind."""

from __future__ import annotations

import asyncio
import functools
from dataclasses import replace
from hashlib import md5

import pytest

from replicator.bulk.report import NoReport
from replicator.errors import (
    AccessDenied,
    Archived,
    Corrupted,
    PoisonMessage,
    QueueError,
    ReplicatorError,
    TooLargeForNow,
    Transient,
)
from replicator.items import KeysItem, PartsItem, decode, encode
from replicator.live.batch import KeyTask
from replicator.live.brake import DeleteBrake, MemoryCounter
from replicator.live.piece import MOST_PARTS, pieces
from replicator.live.places import IDLE, may_be_of
from replicator.live.route import RouteWork
from replicator.model import Attributes, Did, GiB, Listed, MiB, ObjectState, Observed
from replicator.multipart import MAX_PARTS, MAX_SINGLE, Part, composite_etag, from_sizes, uniform
from replicator.settings import Settings
from replicator.store import Write
from tests.fakes.hurried_loop import hurried
from tests.fakes.memory import Bucket, MemoryStore, Quirks

KEY = "big"
PART = 5 * MiB
LONG = 1000.0
SETTINGS = Settings.from_env(
    {
        "SOURCE_BUCKET": "from",
        "TARGET_BUCKET": "to",
        "DELETES": "mirror",
        **{f"{side}_{name}": "x" for side in ("SOURCE", "TARGET") for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY")},
    }
)
PLAIN = Quirks()
OWN = Quirks(own_etags=True)
WHOLE = Quirks(whole_etags=True)
SILENT = Quirks(silent_completion=True)


class Killed(BaseException):
    """The process is gone."""


def in_no_time(test):
    """Runs a test in a loop whose clock moves only when nothing else does."""

    @functools.wraps(test)
    def run(*arguments, **named):
        hurried(test(*arguments, **named))

    return run


class FreeBrake(DeleteBrake):
    async def allows(self, key):
        return True


def content(letters, size=PART):
    """Bytes of parts, each of one letter; the last one is short."""
    return b"".join(letter.encode() * size for letter in letters[:-1]) + letters[-1].encode() * 7


class World:
    """A source, targets, and a route that copies large objects from 4 MiB on; a part in an item.

    queue: items that wait. sent: all that were sent. before: awaited before each request (operation, key, store).
    """

    def __init__(self, letters="abcd", *, targets=(PLAIN,), knows_parts=True, shared=False, size=PART):
        self.source_bucket = Bucket()
        self.buckets = [self.source_bucket if shared else Bucket() for _ in targets]
        self.quirks = [Quirks(knows_parts=knows_parts), *targets]
        self.queue = []
        self.sent = []
        self.before = None
        self.sending = None
        self.later = 0.0
        if letters:
            self.write(letters, size=size)
        self.restart()

    def restart(self):
        """Another process, which knows nothing."""
        self.source = self._store(self.source_bucket, "source/", self.quirks[0])
        self.targets = [self._store(bucket, f"target{n}/", self.quirks[n + 1]) for n, bucket in enumerate(self.buckets)]
        self.route = RouteWork(
            SETTINGS,
            self.source,
            self.targets,
            brake=FreeBrake(MemoryCounter(), "default"),
            send=self._send,
            report=NoReport(),
            large_from=4 * MiB,
            now=lambda: self.buckets[0].now + self.later,
        )

    def _store(self, bucket, name, quirks):
        async def step(operation, key):
            await asyncio.sleep(0)
            if self.before is not None:
                await self.before(operation, key, name)

        return MemoryStore(bucket, name=name, quirks=quirks, step=step)

    async def _send(self, items):
        await asyncio.sleep(0)
        if self.sending is not None:
            await self.sending(items)
        items = [decode(encode(item)) for item in items]
        assert items
        self.sent += items
        self.queue += items

    def write(self, letters, attributes=None, *, tags=(), size=PART):
        self.source_bucket.now += 1
        return self.source_bucket.write(KEY, content(letters, size), attributes, tags=tags, part_size=size)

    async def meet(self):
        """As an event would have it."""
        return await self.route.do(KeyTask("default", KEY), seconds=LONG)

    async def do(self, item, *, seconds=LONG):
        if isinstance(item, KeysItem):
            tasks = [KeyTask(item.route, key) for key in item.keys]
            return [outcome for task in tasks for outcome in await self.route.do(task, seconds=seconds)]
        return await self.route.do(item, seconds=seconds)

    async def work_off(self, most=500):
        """Does items until there is none, those that fail again; how many it took."""
        done = 0
        while self.queue:
            done += 1
            assert done < most, "items do not end"
            item = self.queue.pop(0)
            try:
                outcomes = await self.do(item)
            except ReplicatorError:
                self.queue.append(item)
            else:
                if any(outcome.did is Did.FAILED for outcome in outcomes):
                    self.queue.append(item)
        return done

    def check(self):
        """All is equal, and nothing is left."""
        there = self.source_bucket.objects.get(KEY)
        for bucket in self.buckets:
            copy = bucket.objects.get(KEY)
            if there is None:
                assert copy is None
            else:
                assert (copy.data, copy.attributes, copy.tags) == (there.data, there.attributes, there.tags)
            assert bucket.uploads == {}

    def etag(self, target=0):
        return self.buckets[target].objects[KEY].etag

    def parts_sent(self, target=0):
        """How many, but for the few bytes by which it is found out what ETags are there."""
        return self.calls("UploadPart", target) - 1

    def uploads(self, target=0):
        return list(self.buckets[target].uploads)

    def calls(self, operation, target=0):
        return self.targets[target].calls.count(operation)


async def until_killed(coroutine):
    task = asyncio.ensure_future(coroutine)
    await asyncio.wait([task])
    return not task.cancelled() and isinstance(task.exception(), Killed)


# All is well


@pytest.mark.parametrize("quirks", [PLAIN, SILENT, OWN, WHOLE])
@pytest.mark.parametrize("knows_parts", [True, False])
@in_no_time
async def test_an_object_in_parts_is_copied_by_items_and_ends_equal(quirks, knows_parts):
    world = World(targets=[quirks], knows_parts=knows_parts)
    (outcome,) = await world.meet()
    assert outcome.did is Did.BEGUN
    await world.work_off()
    world.check()
    stored = world.buckets[0].objects[KEY]
    assert (
        world.etag() == world.source_bucket.objects[KEY].etag or stored.stamp == world.source_bucket.objects[KEY].etag
    )


@in_no_time
async def test_each_part_is_read_and_sent_once():
    world = World("abcdefgh")
    await world.meet()
    await world.work_off()
    assert world.parts_sent() == 8
    assert world.source.calls.count("GetObject") == 8
    assert len(world.sent) == 1 + 7


@in_no_time
async def test_with_several_targets_each_part_is_read_once():
    world = World("abcdef", targets=[PLAIN, OWN, SILENT])
    await world.meet()
    await world.work_off()
    world.check()
    assert world.source.calls.count("GetObject") == 6


@in_no_time
async def test_tags_and_attributes_arrive():
    world = World()
    world.write("abcd", Attributes(content_type="text/x", metadata=(("a", "b"),)), tags=(("t", "u"),))
    await world.meet()
    await world.work_off()
    world.check()


@in_no_time
async def test_what_changed_beside_the_bytes_meanwhile_arrives_too():
    world = World()
    await world.meet()
    world.write("abcd", Attributes(content_type="text/new"), tags=(("t", "u"),))
    await world.work_off()
    world.check()


@in_no_time
async def test_inside_one_service_no_bytes_pass_through_us():
    """A bucket that is copied to itself stands for two of one service."""
    world = World("abcd", shared=True)
    item = await _begun_inside(world)
    await world.do(item)
    await world.work_off()
    assert world.calls("UploadPartCopy") == 4
    assert world.parts_sent() == 0
    assert "GetObject" not in world.source.calls
    assert world.source_bucket.uploads == {}


async def _begun_inside(world):
    source = await world.source.head(KEY)
    assert await world.route._large.begin(KEY, Observed(source), ["target0/"]) == [None]
    (item,) = world.queue
    world.queue.clear()
    return item


@in_no_time
async def test_a_guess_of_the_layout_that_was_wrong_ends_equal_all_the_same():
    """9 MiB in two parts: 8 MiB is a likelier size of parts than 6 is."""
    world = World(None, knows_parts=False)
    world.source_bucket.write(KEY, b"x" * (9 * MiB), part_size=6 * MiB)
    await world.meet()
    await world.work_off()
    world.check()
    assert world.buckets[0].objects[KEY].stamp == world.source_bucket.objects[KEY].etag


@in_no_time
async def test_parts_of_many_sizes_keep_the_etag_where_the_store_tells_them():
    world = World(None)
    data, sizes = b"a" * 5 * MiB + b"b" * 7 * MiB + b"c" * 6 * MiB + b"d", (5 * MiB, 7 * MiB, 6 * MiB, 1)
    stored = world.source_bucket.write(KEY, data, part_size=len(data))
    _cut(world.source_bucket, stored, sizes)
    await world.meet()
    await world.work_off()
    world.check()
    assert world.etag() == world.source_bucket.objects[KEY].etag


def _cut(bucket, stored, sizes):
    """Makes a stored object one of parts of these sizes."""
    etags = [md5(stored.data[part.offset : part.last + 1]).hexdigest() for part in from_sizes(sizes)]
    bucket.objects[KEY] = replace(stored, etag=composite_etag(etags), parts=sizes)


@pytest.mark.parametrize(
    ("size", "etag", "taken"),
    [
        (4 * MiB - 1, "0" * 32 + "-2", False),
        (4 * MiB, "0" * 32 + "-2", True),
        (4 * MiB, "0" * 32 + "-1", True),
        (4 * MiB, "0" * 32, False),
        (MAX_SINGLE, "0" * 32, False),
        (MAX_SINGLE + 1, "0" * 32, True),
        (4 * MiB, "anything", False),
        (4 * MiB, "0" * 32 + "-10001", False),
    ],
)
def test_which_objects_are_copied_so(size, etag, taken):
    assert World(None).route._large.takes(ObjectState(size, etag, 0.0)) is taken


@in_no_time
async def test_a_huge_object_in_one_part_is_begun_however_short_the_time_is():
    """Some stores take more in one request than AWS does: it can be copied in parts, so no time is too short."""
    world = World(None)
    world.source_bucket.write(KEY, b"x")
    world.source.head = lambda key, part=None: _huge()
    world.source.fetch = lambda *_, **__: _nothing()
    (outcome,) = await world.route.do(KeyTask("default", KEY), seconds=1.0)
    assert not isinstance(outcome.failure, TooLargeForNow)


async def _huge():
    return ObjectState(100 * GiB, "0" * 32, 0.0)


async def _nothing():
    raise Transient("GetObject", KEY, "HTTP 500")


# Twice, late, and together


@in_no_time
async def test_two_who_meet_it_at_once_leave_one_object_and_no_upload():
    world = World("abcdef")
    await asyncio.gather(world.meet(), world.meet())
    assert len(world.uploads()) == 2
    await world.work_off()
    world.check()


@pytest.mark.parametrize("quirks", [PLAIN, OWN, WHOLE])
@in_no_time
async def test_two_who_meet_it_at_once_at_any_target(quirks):
    world = World("abc", targets=[quirks])
    await asyncio.gather(world.meet(), world.meet())
    await world.work_off()
    world.check()


@in_no_time
async def test_whoever_meets_it_again_goes_on_with_what_is_begun():
    world = World("abcdef")
    await world.meet()
    await world.do(world.queue.pop(0))
    await world.do(world.queue.pop(0))
    await world.meet()
    assert len(world.uploads()) == 1
    await world.work_off()
    world.check()
    assert world.parts_sent() == 6


@in_no_time
async def test_an_upload_that_has_all_parts_and_was_left_by_everybody_is_completed():
    world = World("abc")
    await world.meet()
    await world.do(world.queue.pop(0))
    pieces_of_all, world.queue = world.queue, []
    for number, item in enumerate(pieces_of_all):

        async def before(operation, key, name):
            if operation == "CompleteMultipartUpload":
                raise Killed

        world.before = before
        killed = await until_killed(world.do(item))
        assert killed is (number == len(pieces_of_all) - 1)
    world.before = None
    world.restart()
    await world.meet()
    await world.work_off()
    world.check()
    assert world.calls("UploadPart") == 0


@in_no_time
async def test_all_items_at_once_complete_it_once_and_nobody_fails():
    world = World("abcdef")
    await world.meet()
    await world.do(world.queue.pop(0))
    items, world.queue = world.queue * 2, []
    await asyncio.gather(*(world.do(item) for item in items))
    world.check()
    assert world.queue == []


@in_no_time
async def test_two_who_finish_at_once_are_both_done():
    world = World("ab")
    await world.meet()
    await world.do(world.queue.pop(0))
    (last,) = world.queue
    ready = asyncio.Barrier(2)

    async def before(operation, key, name):
        if operation == "CompleteMultipartUpload":
            await ready.wait()

    world.before = before
    await asyncio.gather(world.do(last), world.do(last))
    world.queue.clear()
    world.check()


@pytest.mark.parametrize("quirks", [PLAIN, OWN, WHOLE])
@in_no_time
async def test_every_item_once_more_when_all_is_done_changes_nothing(quirks):
    world = World("abcd", targets=[quirks])
    await world.meet()
    await world.work_off()
    modified = world.buckets[0].objects[KEY]
    world.queue = list(world.sent)
    await world.work_off()
    assert world.buckets[0].objects[KEY] is modified
    world.check()


@in_no_time
async def test_items_that_come_after_the_object_was_deleted_on_both_sides_do_nothing():
    world = World("abcd")
    await world.meet()
    await world.work_off()
    del world.source_bucket.objects[KEY]
    await world.meet()
    world.queue = list(world.sent)
    await world.work_off()
    world.check()


@in_no_time
async def test_items_that_come_after_it_was_deleted_at_the_target_alone_bring_it_back():
    world = World("abcd")
    await world.meet()
    await world.work_off()
    del world.buckets[0].objects[KEY]
    world.queue = list(world.sent)
    await world.work_off()
    world.check()


# Changes at the source


@pytest.mark.parametrize("moment", range(1, 5))
@pytest.mark.parametrize("change", ["alike", "other", "small", "gone", "gone and back"])
@pytest.mark.parametrize("told", ["before", "after"])
@in_no_time
async def test_another_object_at_the_source_while_parts_are_on_their_way(moment, change, told):
    """Told of the change before the old items come again, or after."""
    world = World("abcd")
    await world.meet()
    for _ in range(moment):
        await world.do(world.queue.pop(0))
    if change == "alike":
        world.write("abxd")  # of the same layout, and with parts in common
    elif change == "other":
        world.write("abcde")
    elif change == "small":
        world.source_bucket.write(KEY, b"small")
    else:
        stored = world.source_bucket.objects.pop(KEY)
        if change == "gone and back":
            world.source_bucket.objects[KEY] = stored
    old, world.queue = list(world.sent), []
    if told == "before":
        await world.meet()
        world.queue += old
    else:
        world.queue += old
        await world.work_off()
        await world.meet()
    await world.work_off()
    world.check()


@pytest.mark.parametrize("change", ["alike", "other", "small"])
@pytest.mark.parametrize("died_at", [None, "SendMessage", "AbortMultipartUpload", "HeadObject"])
@in_no_time
async def test_a_change_that_only_old_items_find_is_mirrored_though_whoever_finds_it_dies(died_at, change):
    """A migration of a bucket that tells of nothing: the old version is dropped, and the new one must be there."""
    world = World("abcd")
    await world.meet()
    await world.do(world.queue.pop(0))
    if change == "small":
        world.source_bucket.write(KEY, b"small")
    else:
        world.write("abxd" if change == "alike" else "wxyz")

    async def before(operation, key, name):
        if operation == died_at and name != world.source.name:
            raise Killed

    async def sending(items):
        await before("SendMessage", KEY, "")

    world.before, world.sending = before, sending
    assert await until_killed(world.do(world.queue[0])) is (died_at is not None)
    world.before = world.sending = None
    world.restart()
    await world.work_off()
    world.check()


@pytest.mark.parametrize("died_at", ["CompleteMultipartUpload:answered", "HeadObject"])
@pytest.mark.parametrize("change", ["alike", "small", "gone"])
@in_no_time
async def test_an_old_version_that_was_published_by_somebody_who_died_then_does_not_stay(died_at, change):
    """Between the last look at the source and the completion it changes, and the change is mirrored."""
    world = World("ab")
    await world.meet()
    await world.do(world.queue.pop(0))
    (last,) = world.queue
    world.queue = []
    completing = False

    async def before(operation, key, name):
        nonlocal completing
        if operation == "CompleteMultipartUpload" and not completing:
            completing = True
            world.before = None
            if change == "alike":
                world.write("xb")
            elif change == "small":
                world.source_bucket.write(KEY, b"small")
            else:
                del world.source_bucket.objects[KEY]
            await world.meet()
            world.queue.clear() if change != "alike" else None
            world.before = before
        elif completing and operation == died_at:
            raise Killed

    world.before = before
    assert await until_killed(world.do(last))
    world.before = None
    world.restart()
    world.queue.append(last)
    await world.work_off()
    world.check()


@in_no_time
async def test_old_items_do_not_multiply_those_of_the_new_version():
    world = World("abcdefghijkl")
    await world.meet()
    await world.do(world.queue.pop(0))
    world.write("mnopqrstuvwx")
    await world.meet()
    before = len(world.sent)
    await world.work_off()
    world.check()
    assert len(world.sent) - before <= 11


# Uploads that are lost


@in_no_time
async def test_an_upload_that_somebody_aborted_is_begun_anew_and_items_do_not_multiply():
    world = World("abcdefghijkl")
    await world.meet()
    await world.do(world.queue.pop(0))
    await world.do(world.queue.pop(0))
    world.buckets[0].uploads.clear()
    before = len(world.sent)
    await world.work_off()
    world.check()
    assert len(world.sent) - before <= 2 * 12


@pytest.mark.parametrize("quirks", [PLAIN, OWN])
@in_no_time
async def test_while_another_upload_is_under_way_none_is_begun(quirks):
    world = World("abcdef", targets=[quirks])
    await world.meet()
    await world.do(world.queue.pop(0))
    old, world.queue = world.queue, []
    world.buckets[0].uploads.clear()
    await world.do(old[0])
    await world.do(world.queue.pop(0))
    await world.do(world.queue.pop(0))
    (under_way,) = world.uploads()
    for item in old[1:]:
        with pytest.raises(ReplicatorError, match="another upload at target0/ is under way"):
            await world.do(item)
    assert world.uploads() == [under_way]
    world.queue += old
    await world.work_off()
    world.check()


@pytest.mark.parametrize("quirks", [PLAIN, OWN, WHOLE])
@in_no_time
async def test_an_upload_that_nobody_is_at_any_more_is_not_waited_for(quirks):
    """A run that was killed has left one, of another version, it may be."""
    world = World("abcdef", targets=[quirks])
    await world.meet()
    await world.do(world.queue.pop(0))
    left = await world.targets[0].create_upload(KEY, Write())
    await world.targets[0].put_part(KEY, left, Part(2, 0, PART), b"?" * PART)
    del world.buckets[0].uploads["upload-1"]
    with pytest.raises(ReplicatorError, match="is under way"):
        await world.do(world.queue[0])
    world.later = IDLE + 1
    await world.work_off()
    assert world.buckets[0].objects[KEY].data == world.source_bucket.objects[KEY].data
    assert set(world.uploads()) <= {left}


@in_no_time
async def test_a_target_that_may_not_list_uploads_is_no_obstacle():
    world = World("abc")

    async def before(operation, key, name):
        if operation == "ListMultipartUploads":
            raise AccessDenied(operation, key, "no")

    world.before = before
    await world.meet()
    await world.work_off()
    world.check()


# Whoever dies


@pytest.mark.parametrize("quirks", [PLAIN, OWN, WHOLE])
@pytest.mark.parametrize("at", range(40))
@in_no_time
async def test_whoever_begins_may_die_at_any_step(quirks, at):
    world = World("abc", targets=[quirks])
    await _killed_at(world, at, world.meet())
    await world.meet()
    await world.work_off()
    world.check()


@pytest.mark.parametrize("quirks", [PLAIN, OWN, WHOLE])
@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("at", range(0, 60, 2))
@in_no_time
async def test_whoever_does_an_item_may_die_at_any_step(quirks, which, at):
    world = World("abc", targets=[quirks])
    await world.meet()
    for _ in range(which):
        await world.do(world.queue.pop(0))
    item = world.queue.pop(0)
    await _killed_at(world, at, world.do(item))
    world.queue.append(item)
    await world.work_off()
    world.check()


async def _killed_at(world, at, coroutine):
    """Nothing of it runs from its step number `at` on, and whoever comes then knows nothing."""
    steps = 0

    async def before(operation, key, name):
        nonlocal steps
        steps += 1
        if steps > at:
            raise Killed

    async def sending(items):
        await before("SendMessage", "", "")

    world.before, world.sending = before, sending
    await until_killed(coroutine)
    world.before = world.sending = None
    world.restart()


@pytest.mark.parametrize("at", range(0, 40, 3))
@in_no_time
async def test_whoever_is_cancelled_leaves_no_task_and_no_upload_without_items(at):
    world = World("abc", targets=[OWN])
    steps = 0

    async def before(operation, key, name):
        nonlocal steps
        steps += 1
        if steps == at + 1:
            task.cancel()
            await asyncio.sleep(0)

    world.before = before
    task = asyncio.ensure_future(world.meet())
    await asyncio.wait([task])
    world.before = None
    for _ in range(20):
        await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()} | {
        task for task in asyncio.all_tasks() if "patient" in repr(task.get_coro())
    }
    await world.meet()
    await world.work_off()
    world.check()


@in_no_time
async def test_a_queue_that_takes_nothing_fails_the_key_and_leaves_no_upload():
    world = World("abc")

    async def refuse(items):
        raise QueueError("the queue: send: no answer")

    world.sending = refuse
    (outcome,) = await world.meet()
    assert (outcome.did, str(outcome.failure)) == (Did.FAILED, "the queue: send: no answer")
    assert world.uploads() == []
    world.sending = None
    await world.meet()
    await world.work_off()
    world.check()


# Targets that fail


@pytest.mark.parametrize("bad", [0, 1])
@pytest.mark.parametrize("operation", ["CreateMultipartUpload", "UploadPart", "ListParts", "CompleteMultipartUpload"])
@in_no_time
async def test_a_target_that_fails_holds_up_no_other(bad, operation):
    world = World("abcd", targets=[PLAIN, PLAIN])
    failing = True

    async def before(asked, key, name):
        if failing and asked == operation and name == f"target{bad}/":
            raise Transient(asked, key, "HTTP 503")

    world.before = before
    await world.meet()
    for _ in range(12):
        waiting, world.queue = world.queue, []
        for item in waiting:
            try:
                outcomes = await world.do(item)
            except ReplicatorError:
                world.queue.append(item)
            else:
                if any(outcome.did is Did.FAILED for outcome in outcomes):
                    world.queue.append(item)
    assert world.etag(1 - bad) == world.source_bucket.objects[KEY].etag
    assert KEY not in world.buckets[bad].objects
    assert world.parts_sent(1 - bad) == 4
    failing = False
    await world.work_off()
    world.check()
    assert len(world.sent) <= 3 * 5


@in_no_time
async def test_pieces_are_sent_once_though_a_target_does_not_say_what_it_has():
    world = World("abcd", targets=[PLAIN, PLAIN])
    await world.meet()

    async def before(operation, key, name):
        if operation == "ListParts" and name == "target1/":
            raise Transient(operation, key, "HTTP 503")

    world.before = before
    await world.do(world.queue.pop(0))
    assert sorted(part.number for item in world.queue for part in item.parts) == [1, 2, 3, 4]
    world.before = None
    await world.work_off()
    world.check()


@in_no_time
async def test_out_of_time_and_with_a_target_that_fails_an_item_comes_again_and_is_not_sent_on():
    world = World("abcdef", targets=[PLAIN, PLAIN])
    await world.meet()
    await world.do(world.queue.pop(0))
    (first, *_), parts = world.queue, tuple(part for item in world.queue for part in item.parts)
    world.queue = []

    async def before(operation, key, name):
        if operation == "UploadPart" and name == "target1/":
            raise Transient(operation, key, "HTTP 503")
        if operation == "UploadPart":
            await asyncio.sleep(10)

    world.before = before
    item = replace(first, parts=parts)
    with pytest.raises(Transient):
        await world.do(item, seconds=15)
    assert world.queue == []
    assert world.parts_sent() > 0
    world.before = None
    world.queue = [item]
    await world.work_off()
    world.check()


@in_no_time
async def test_where_no_target_can_be_begun_the_key_has_failed():
    world = World("abc")

    async def before(operation, key, name):
        if operation == "CreateMultipartUpload":
            raise AccessDenied(operation, key, "Access Denied")

    world.before = before
    (outcome,) = await world.meet()
    assert outcome.did is Did.FAILED
    assert isinstance(outcome.failure, AccessDenied)
    assert world.sent == []


@in_no_time
async def test_a_target_that_keeps_neither_etag_nor_stamp_is_not_filled_for_ever():
    world = World("abc", targets=[OWN])
    publish = world.targets[0]._publish

    def forgetful(key, data, write, parts):
        publish(key, data, replace(write, stamp=None), parts)

    world.targets[0]._publish = forgetful
    await world.meet()
    with pytest.raises(AssertionError, match="items do not end"):
        await world.work_off(most=60)
    assert world.calls("CompleteMultipartUpload") == 1
    (item,) = world.queue
    (outcome,) = await world.do(item)
    assert isinstance(outcome.failure, Corrupted)


@pytest.mark.parametrize("quirks", [PLAIN, OWN])
@in_no_time
async def test_a_part_that_somebody_else_has_put_into_the_upload_is_not_published(quirks):
    world = World("abcd", targets=[quirks])
    await world.meet()
    (upload,) = world.uploads()
    await world.targets[0].put_part(KEY, upload, Part(2, PART, 3), b"???")
    await world.work_off()
    world.check()
    assert world.calls("CompleteMultipartUpload") == 1


@in_no_time
async def test_a_wrong_byte_on_the_way_is_found_before_anything_is_published():
    world = World("abcd")
    fetch, wrong = world.source.fetch, iter([b"!"])

    async def once_wrong(key, **asked):
        fetched = await fetch(key, **asked)
        if asked.get("span") is not None and asked["span"].first == PART:
            for byte in wrong:
                data = bytearray(fetched.data)
                data[3:4] = byte
                return type(fetched)(fetched.state, bytes(data))
        return fetched

    world.source.fetch = once_wrong
    await world.meet()
    await world.work_off()
    world.check()


# Time


@in_no_time
async def test_what_the_time_was_too_short_for_is_sent_as_another_item():
    world = World("abcdef")
    await world.meet()
    await world.do(world.queue.pop(0))
    parts = tuple(part for item in world.queue for part in item.parts)
    (first, *_), world.queue = world.queue, []

    async def before(operation, key, name):
        if operation == "UploadPart":
            await asyncio.sleep(10)

    world.before = before
    item = replace(first, parts=parts)
    await asyncio.wait_for(world.do(item, seconds=15), timeout=15)
    (left,) = world.queue
    assert 0 < len(left.parts) < len(parts)
    world.before = None
    await world.work_off()
    world.check()


@in_no_time
async def test_where_not_a_single_part_could_be_copied_the_message_is_to_come_again():
    world = World("abc")
    await world.meet()
    await world.do(world.queue.pop(0))
    sent = len(world.sent)

    async def before(operation, key, name):
        if operation == "UploadPart":
            await asyncio.sleep(1000)

    world.before = before
    with pytest.raises(TooLargeForNow, match="none of 1 parts"):
        await world.do(world.queue[0], seconds=5)
    assert len(world.sent) == sent


# What cannot be


@in_no_time
async def test_an_item_about_a_target_that_is_not_there_any_more_is_poison():
    world = World("abc")
    item = PartsItem("default", KEY, "e-3", (("gone/", "u"),), (Part(1, 0, 5),), 3)
    with pytest.raises(PoisonMessage, match="has none of the targets"):
        await world.do(item)


@in_no_time
async def test_a_target_that_was_taken_out_of_the_route_does_not_hold_up_the_others():
    world = World("abc", targets=[PLAIN, PLAIN])
    await world.meet()
    world.quirks.pop()
    world.buckets.pop()
    world.restart()
    await world.work_off()
    world.check()


@in_no_time
async def test_an_object_that_is_archived_meanwhile_fails_with_the_reason_and_goes_on_when_it_is_restored():
    world = World("abc")
    await world.meet()
    fetch = world.source.fetch

    async def archived(key, **asked):
        raise Archived("GetObject", key, "lies in GLACIER")

    world.source.fetch = archived
    await world.do(world.queue.pop(0))
    with pytest.raises(Archived):
        await world.do(world.queue[0])
    world.source.fetch = fetch
    await world.work_off()
    world.check()


def test_pieces_are_all_parts_in_order_and_neither_too_large_nor_too_many():
    for layout in (uniform(100 * GiB, 5 * MiB)[:MAX_PARTS], uniform(10 * GiB, 3 * GiB), uniform(7, 7)):
        found = list(pieces(layout, 128 * MiB))
        assert tuple(part for piece in found for part in piece) == layout
        assert all(sum(part.size for part in piece) <= 128 * MiB or len(piece) == 1 for piece in found)
    assert max(map(len, pieces(uniform(5000, 1), GiB))) == MOST_PARTS


@pytest.mark.parametrize(
    ("sizes", "answer"), [({}, False), ({1: 5, 3: 5}, True), ({4: 1}, False), ({1: 11}, False), ({1: 5, 2: 6}, False)]
)
def test_what_may_be_of_a_version(sizes, answer):
    stored = {number: Listed(KEY, size, "e", 0.0) for number, size in sizes.items()}
    assert may_be_of(ObjectState(10, "0" * 32 + "-3", 0.0), stored) is answer
