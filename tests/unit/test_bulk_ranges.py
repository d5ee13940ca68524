"""Whole runs in ranges by several workers, which die, and runs that stop and go on: always equal, nothing lost.

Everything happens in an event loop whose clock jumps to the next thing that is waited for: a seed is one interleaving.
"""

from __future__ import annotations

import asyncio
import random
import shutil
from collections import Counter, deque

import pytest

from replicator.bulk.brakes import MaxDelete
from replicator.bulk.checkpoint import open_checkpoint
from replicator.bulk.crew import Lost
from replicator.bulk.engine import Migration
from replicator.bulk.jobs import MigrationJob
from replicator.bulk.plan import Plan
from replicator.bulk.tally import Tally
from replicator.bulk.tasks import Range, ScanTask, Split, SplitTask
from replicator.bulk.worker import Worker
from replicator.errors import AccessDenied, Refused, ReplicatorError, StoreError, Transient
from replicator.filters import KeyFilter, Rule
from replicator.model import Attributes, Deletes, Did, MiB
from tests.fakes.hurried_loop import hurried
from tests.fakes.memory import Bucket, MemoryStore

SEEDS = 30
"""Of each of the large tests: half a minute for all of them."""

BEGAN = 1_000_000.0
LONG_AGO = BEGAN - 10_000
ROUTE = "here -> there"
ANY_NUMBER = MaxDelete(percent=100)
PIECES = ("a", "b", "a/", "b/", "-", "é", "z", "\U0001f600", "0", "00", "/", " ", "\U0010ffff")


class Stopped(Exception):
    """What ends a run in these tests, as a signal would."""


class SlowStore(MemoryStore):
    """A store whose answers take a random time. effects: called with operation and key; may raise."""

    def __init__(self, bucket, name, chance):
        super().__init__(bucket, name=f"memory://{name}/", step=self._take_time)
        self.effects = []
        self.asked = []
        self._chance = chance

    async def list_pages(self, *, after="", page_size=3):
        async for page in super().list_pages(after=after, page_size=page_size):
            if page_size > 1:  # whole pages take longer than single keys
                await asyncio.sleep(self._chance.choice((0.1, 0.5, 1.5)))
            yield page

    async def _take_time(self, operation, key):
        await asyncio.sleep(self._chance.choice((0, 0.001, 0.02, 0.05, 0.3 if key else 0.01)))
        self.asked.append((operation, key))
        for effect in list(self.effects):
            effect(operation, key)


class SmallCrew:
    """Several workers in this loop, whose messages mix at random; as processes do, they may be killed.

    at: what is to be done before the n-th message is received; it may raise, and may call `kill`.
    """

    def __init__(self, count, open_worker, chance, at=None):
        self.workers = range(count)
        self.posted = []
        self.received = 0
        self.heard = []
        self._open_worker = open_worker
        self._chance = chance
        self._at = at or {}
        self._tasks = [asyncio.Queue() for _ in self.workers]
        self._sent = [deque() for _ in self.workers]
        self._running = []
        self._news = asyncio.Event()
        self._room = [asyncio.Event() for _ in self.workers]
        self._dead = set()

    async def post(self, worker, task):
        self.posted.append((worker, task))
        if worker not in self._dead:
            await self._tasks[worker].put(task)

    async def receive(self):
        self.received += 1
        happening = self._at.get(self.received)
        if happening is not None:
            await happening(self)
        while not any(self._sent):
            self._news.clear()
            await self._news.wait()
        worker = self._chance.choice([worker for worker in self.workers if self._sent[worker]])
        message = self._sent[worker].popleft()
        self._room[worker].set()
        self.heard.append(message)
        return worker, message

    async def kill(self, worker):
        """Ends a worker at once; what it sent last may not have left it."""
        if worker in self._dead:
            return
        self._dead.add(worker)
        self._running[worker].cancel()
        await asyncio.gather(self._running[worker], return_exceptions=True)
        sent = self._sent[worker]
        for _ in range(self._chance.randint(0, len(sent))):
            sent.pop()
        sent.append(Lost("killed"))
        self._news.set()

    async def _run(self, worker):
        async def send(message):
            if worker in self._dead:
                return
            self._sent[worker].append(message)
            self._news.set()
            while len(self._sent[worker]) > 4 and worker not in self._dead:
                self._room[worker].clear()
                await self._room[worker].wait()

        await self._open_worker(send).run(self._tasks[worker].get)

    async def __aenter__(self):
        self._running = [asyncio.create_task(self._run(worker)) for worker in self.workers]
        return self

    async def __aexit__(self, kind, error, trace):
        for running in self._running:
            running.cancel()
        ended = await asyncio.gather(*self._running, return_exceptions=True)
        broken = [one for one in ended if one is not None and not isinstance(one, asyncio.CancelledError)]
        if broken:
            raise broken[0]


class Lines:
    def __init__(self):
        self.outcomes = []

    def add(self, outcome):
        self.outcomes.append(outcome)

    def flush(self):
        pass

    def keys(self, *did):
        return [one.key for one in self.outcomes if one.did in did]


class World:
    """A source, targets and a state file; runs come and go."""

    def __init__(self, tmp_path, seed, *, targets=1, plan=None, workers=3, chance=None):
        self.chance = chance or random.Random(seed)
        self.source = SlowStore(Bucket(now=LONG_AGO), "from", self.chance)
        self.targets = [SlowStore(Bucket(now=LONG_AGO), f"to {n}", self.chance) for n in range(targets)]
        self.plan = plan or Plan(deletes=Deletes.MIRROR, max_delete=ANY_NUMBER)
        self.state = tmp_path / "state"
        self.lines = Lines()
        self.crew = None
        self.tally = None
        self.migration = None
        self.workers = workers
        for target in self.targets:
            target.effects.append(self._mind_deletes)

    def _mind_deletes(self, operation, key):
        if operation == "DeleteObject":
            assert key not in self.source.bucket.objects, f"{key!r} was deleted, yet the source has it"

    def fill(self, keys, *, alike=0.4, lacking=0.3, extra=0.15):
        """Some objects in sync, some of other bytes, some missing, some too many."""
        for key in keys:
            self.source.bucket.write(key, f"data of {key}".encode(), Attributes(content_type="text/plain"))
            for target in self.targets:
                target.bucket.now = LONG_AGO + 100
                drawn = self.chance.random()
                if drawn < alike:
                    target.bucket.objects[key] = target.bucket.write(
                        key, f"data of {key}".encode(), Attributes(content_type="text/plain")
                    )
                elif drawn > alike + lacking:
                    target.bucket.write(key, b"other", Attributes(content_type="text/plain"))
        for target in self.targets:
            for key in draw_keys(self.chance, int(len(keys) * extra) + self.chance.randint(0, 2)):
                if key not in self.source.bucket.objects:
                    target.bucket.write(key, b"too many")
            target.bucket.now = BEGAN
        self.source.bucket.now = BEGAN + 50

    def worker(self, send):
        job = MigrationJob(self.source, self.targets, self.plan, memory=8 * MiB, name_in_sync=False)
        hands = self.chance.choice((1, 3, 8))
        return Worker(self.source, self.targets, job, send, concurrency=hands, clock=lambda: self.source.bucket.now)

    async def run(self, at=None, keys=None):
        """One run as a process of its own."""
        self.tally = Tally()
        with open_checkpoint(self.state, ROUTE) as checkpoint:
            async with SmallCrew(self.workers, self.worker, self.chance, at) as self.crew:
                self.migration = Migration(
                    self.source,
                    self.targets,
                    self.plan,
                    crew=self.crew,
                    checkpoint=checkpoint,
                    report=self.lines,
                    tally=self.tally,
                    keys=keys,
                    clock=lambda: BEGAN,
                )
                await self.migration.run()

    def wanted(self):
        return [key for key in self.source.bucket.objects if self.plan.keys.includes(key)]

    def check_equal(self, *, failed=0):
        """All that is promised at the end of a run."""
        wanted = {key: self.source.bucket.objects[key].data for key in self.wanted()}
        mirrored = self.plan.deletes is Deletes.MIRROR
        for n, target in enumerate(self.targets):
            found = {key: one.data for key, one in target.bucket.objects.items() if self.plan.keys.includes(key)}
            extra = found.keys() - wanted.keys()
            assert {key: found.get(key) for key in wanted} == wanted
            assert not (extra and mirrored)
            assert (self.tally.counts.targets[n], self.tally.counts.extra[n]) == (len(found), len(extra))
        assert (self.tally.compared, self.tally.failed) == (len(wanted), failed)
        assert not self.migration.still_changing

    def ranges_left(self):
        with open_checkpoint(self.state, ROUTE) as checkpoint:
            return checkpoint.resume(), checkpoint.ranges(), [key for keys in checkpoint.candidates() for key in keys]

    def scanned(self, number):
        """The ranges that were handed out in a pass, and to how many workers."""
        tasks = [
            (who, task) for who, task in self.crew.posted if isinstance(task, ScanTask) and task.during.number == number
        ]
        return [task.range for _, task in tasks], len({who for who, _ in tasks})


def draw_keys(chance, count):
    """Keys that share prefixes, are prefixes of each other, and are not ASCII."""
    keys = set()
    stems = [""] + ["".join(chance.choices(PIECES, k=chance.randint(1, 12))) for _ in range(3)]
    for _ in range(count * 3):
        if len(keys) == count:
            break
        keys.add(chance.choice(stems) + "".join(chance.choices(PIECES, k=chance.randint(1, 4))))
    return sorted(keys)


def random_world(tmp_path, seed, **options):
    chance = random.Random(seed)
    rules = [Rule(False, "*é*")] if chance.random() < 0.2 else []
    plan = Plan(
        deletes=chance.choice((Deletes.MIRROR, Deletes.MIRROR, Deletes.KEEP)),
        max_delete=ANY_NUMBER,
        keys=KeyFilter(rules),
        deep=chance.random() < 0.1,
    )
    world = World(tmp_path, seed, targets=chance.choice((1, 1, 2)), plan=plan, chance=chance, **options)
    world.fill(["a key that every filter takes", *draw_keys(chance, chance.choice((5, 40, 120)))])
    return world


NAMES = [f"dir {n % 5}/{n:03}" for n in range(150)]


def lose(worker):
    return lambda crew: crew.kill(worker)


async def stop(crew):
    raise Stopped


# Splits


def test_a_long_listing_is_shared_by_all_workers(tmp_path):
    world = World(tmp_path, 1)
    world.fill(NAMES)
    hurried(world.run())
    world.check_equal()
    ranges, workers = world.scanned(1)
    assert workers == 3
    assert len(ranges) > 3
    assert sum(isinstance(one, Split) and one.at is not None for one in world.crew.heard) == len(
        [task for _, task in world.crew.posted if isinstance(task, ScanTask)]
    ) - len([n for n in range(1, 9) if world.scanned(n)[0]])


@pytest.mark.parametrize("seed", range(SEEDS))
def test_nothing_is_done_twice_when_nothing_goes_wrong(tmp_path, seed):
    world = random_world(tmp_path, seed)
    before = [dict(target.bucket.objects) for target in world.targets]
    hurried(world.run())
    world.check_equal()
    for target, was in zip(world.targets, before, strict=True):
        lacking = [
            key for key in world.wanted() if key not in was or was[key].data != world.source.bucket.objects[key].data
        ]
        assert Counter(key for operation, key in target.asked if operation == "PutObject") == Counter(lacking)
    if world.plan.deletes is Deletes.MIRROR:
        gone = sorted(world.lines.keys(Did.DELETED))
        assert gone == sorted(
            key
            for was in before
            for key in was
            if world.plan.keys.includes(key) and key not in world.source.bucket.objects
        )
    assert world.ranges_left() == (None, [], [])


def test_every_key_is_listed_in_one_range_only(tmp_path):
    splits = 0
    for seed in range(8):
        (folder := tmp_path / str(seed)).mkdir()
        world = World(folder, seed)
        world.fill(draw_keys(world.chance, 100))
        hurried(world.run())
        handed_out, _ = world.scanned(1)
        starts = sorted(one.after for one in handed_out)
        assert len(set(starts)) == len(starts), seed
        assert all(start == "" or start in world.source.bucket.objects for start in starts)
        splits += len(starts) - 1
    assert splits > 40


def test_a_target_that_cannot_list_from_a_key_keeps_the_range_whole(tmp_path):
    world = World(tmp_path, 1)
    world.fill(NAMES)
    begin = world.targets[0].list_pages

    def list_pages(*, after="", page_size=3):
        if after:
            raise Transient("ListObjectsV2", "to", "cannot begin there")
        return begin(after=after, page_size=page_size)

    world.targets[0].list_pages = list_pages
    hurried(world.run())
    world.check_equal()
    assert world.scanned(1)[0] == [Range()]
    assert any(isinstance(task, SplitTask) for _, task in world.crew.posted)


def test_a_source_that_fails_to_answer_where_to_split_is_listed_whole(tmp_path):
    world = World(tmp_path, 1)
    world.fill(NAMES)
    begin = world.source.list_pages

    def list_pages(*, after="", page_size=3):
        if page_size == 1:
            raise AccessDenied("ListObjectsV2", "from", "no start-after")
        return begin(after=after, page_size=page_size)

    world.source.list_pages = list_pages
    hurried(world.run())
    world.check_equal()
    assert world.scanned(1)[0] == [Range()]


# Lost workers


@pytest.mark.parametrize("seed", range(2 * SEEDS))
def test_what_a_lost_worker_had_is_done_by_the_others(tmp_path, seed):
    world = random_world(tmp_path, seed)
    moments = {world.chance.randint(1, 80): lose(worker) for worker in world.chance.sample(range(3), 2)}
    hurried(world.run(moments))
    world.check_equal()
    assert world.ranges_left() == (None, [], [])


@pytest.mark.parametrize("moment", [1, 2, 3, 5])
def test_a_worker_that_has_the_only_range_may_be_lost(tmp_path, moment):
    world = World(tmp_path, 3)
    world.fill(["only", "these"])
    hurried(world.run({moment: lose(0)}))
    world.check_equal()


def test_a_worker_that_has_the_only_batch_of_keys_may_be_lost(tmp_path):
    world = World(tmp_path, 3)
    world.fill(["a", "b"])

    async def batches():
        yield ["a", "b"]

    hurried(world.run({1: lose(0)}, keys=batches()))
    assert {key: one.data for key, one in world.targets[0].bucket.objects.items() if key in "ab"} == {
        "a": b"data of a",
        "b": b"data of b",
    }
    assert world.tally.compared == 2


@pytest.mark.parametrize("moment", range(1, 40, 3))
def test_keys_of_a_lost_worker_are_converged_by_the_others(tmp_path, moment):
    world = World(tmp_path, moment)
    world.fill(NAMES)

    async def batches():
        for n in range(0, len(NAMES), 10):
            yield NAMES[n : n + 10]

    hurried(world.run({moment: lose(0), moment + 4: lose(2)}, keys=batches()))
    assert {key: world.targets[0].bucket.objects[key].data for key in NAMES} == {
        key: f"data of {key}".encode() for key in NAMES
    }
    assert (world.tally.compared, world.tally.failed) == (150, 0)


def test_a_run_without_workers_ends_with_an_error_and_goes_on_later(tmp_path):
    world = World(tmp_path, 5)
    world.fill(NAMES)
    with pytest.raises(ReplicatorError, match="no worker is left: killed"):
        hurried(world.run({20: lose(0), 22: lose(1), 24: lose(2)}))
    saved, left, _ = world.ranges_left()
    assert saved is not None
    undone = [key for key in NAMES if any(one.after < key and (one.upto is None or key <= one.upto) for one in left)]
    assert world.tally.compared + len(undone) == len(NAMES)
    assert 0 < len(undone) < len(NAMES)  # what was done is not done again
    hurried(world.run())
    world.check_equal()


def test_after_a_worker_was_lost_a_pass_more_looks_whether_all_is_well(tmp_path):
    world = World(tmp_path, 6)
    world.fill(NAMES, alike=1, extra=0)
    for key in list(world.targets[0].bucket.objects):
        if key not in world.source.bucket.objects:
            del world.targets[0].bucket.objects[key]
    hurried(world.run({4: lose(1)}))
    world.check_equal()
    assert world.tally.passes == 2


# Runs that stop and go on


@pytest.mark.parametrize("seed", range(2 * SEEDS))
def test_a_run_that_is_stopped_goes_on_where_it_was(tmp_path, seed):
    world = random_world(tmp_path, seed)
    for _ in range(world.chance.randint(1, 4)):
        moments = {world.chance.randint(1, 60): stop}
        if world.chance.random() < 0.4:
            moments.setdefault(world.chance.randint(1, 60), lose(world.chance.randrange(3)))
        try:
            hurried(world.run(moments))
        except Stopped:
            continue
        break
    else:
        hurried(world.run())
    world.check_equal()
    assert world.ranges_left() == (None, [], [])


@pytest.mark.parametrize("seed", range(2 * SEEDS))
def test_a_run_that_is_killed_goes_on_from_its_last_commit(tmp_path, seed):
    world = random_world(tmp_path, seed)

    async def commit(crew):  # as every second of a real run
        world.migration._save()

    async def kill(crew):
        for suffix in ("", "-journal"):
            if (file := tmp_path / f"state{suffix}").exists():
                shutil.copy(file, tmp_path / f"kept{suffix}")
        raise Stopped

    for _ in range(3):
        moment = world.chance.randint(1, 70)
        commits = world.chance.sample(range(1, moment + 1), min(moment, 4))
        try:
            hurried(world.run({**dict.fromkeys(commits, commit), moment: kill}))
        except Stopped:
            for file in tmp_path.glob("kept*"):  # the state as it was then, without what the run did at its end
                file.replace(tmp_path / file.name.replace("kept", "state"))
        else:
            break
    hurried(world.run())
    world.check_equal()


@pytest.mark.parametrize("seed", range(SEEDS))
def test_what_was_settled_is_not_listed_again(tmp_path, seed):
    world = World(tmp_path, seed)
    world.fill(NAMES)
    with pytest.raises(Stopped):
        hurried(world.run({10 + seed: stop}))
    done = world.tally.compared
    _, left, _ = world.ranges_left()
    undone = [key for key in NAMES if any(one.after < key and (one.upto is None or key <= one.upto) for one in left)]
    assert world.tally.passes == 1
    assert done + len(undone) == len(NAMES)
    world.source.asked.clear()
    hurried(world.run())
    world.check_equal()
    assert sorted(world.scanned(1)[0])[0] == sorted(left)[0]
    assert {one.after for one in left} <= {one.after for one in world.scanned(1)[0]}


def test_outcomes_of_a_run_that_went_on_are_counted_over_both(tmp_path):
    world = World(tmp_path, 9)
    world.fill(NAMES, alike=0, lacking=1, extra=0)
    with pytest.raises(Stopped):
        hurried(world.run({30: stop}))
    before = world.tally.did[Did.COPIED]
    assert 0 < before < 150
    hurried(world.run())
    assert world.tally.did[Did.COPIED] >= 150 - 24  # those in the hands of three workers may have gone unsaid
    assert world.tally.did[Did.COPIED] > before
    world.check_equal()


# Failures


@pytest.mark.parametrize("seed", range(SEEDS))
def test_keys_that_fail_are_counted_once_whatever_happens(tmp_path, seed):
    world = random_world(tmp_path, seed)
    bad = world.chance.sample(world.wanted(), min(4, len(world.wanted())))

    def refuse(operation, key):
        if operation == "PutObject" and key in bad:
            raise AccessDenied(operation, key, "not this one")

    target = world.targets[0]
    for key in bad:
        target.bucket.objects.pop(key, None)
    target.effects.append(refuse)
    moments = {world.chance.randint(1, 50): lose(1), world.chance.randint(51, 70): stop}
    try:
        hurried(world.run(moments))
    except Stopped:
        hurried(world.run())
    assert world.tally.failed == len(bad)
    assert world.tally.compared == len(world.wanted())
    assert all(key in target.bucket.objects for key in world.wanted() if key not in bad)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_listing_that_fails_somewhere_deletes_nothing_and_is_made_up_for(tmp_path, seed):
    world = random_world(tmp_path, seed)
    broken = world.chance.choice([world.source, *world.targets])
    countdown = world.chance.randint(2, 30)
    begin = broken.list_pages

    async def list_pages(*, after="", page_size=3):
        nonlocal countdown
        async for page in begin(after=after, page_size=page_size):
            if page_size > 1:
                countdown -= 1
                if countdown == 0:
                    raise Transient("ListObjectsV2", broken.name, "HTTP 500")
            yield page

    broken.list_pages = list_pages
    try:
        hurried(world.run())
    except StoreError:
        assert countdown <= 0
        deleted = [key for target in world.targets for operation, key in target.asked if operation == "DeleteObject"]
        assert not deleted or world.tally.passes > 1
        saved, left, _ = world.ranges_left()
        assert saved is not None
        assert left
        hurried(world.run())
    world.check_equal()


def test_other_ranges_are_done_though_one_cannot_be_listed(tmp_path):
    world = World(tmp_path, 4)
    world.fill(NAMES)
    begin = world.source.list_pages

    async def list_pages(*, after="", page_size=3):
        async for page in begin(after=after, page_size=page_size):
            if page_size > 1 and any(entry.key == NAMES[7] for entry in page):
                raise Transient("ListObjectsV2", "from", "HTTP 500")
            yield page

    world.source.list_pages = list_pages
    with pytest.raises(Transient):
        hurried(world.run())
    _, left, _ = world.ranges_left()
    assert 1 <= len(left) <= 2  # the range, and one before it whose last page reaches into it
    outside = [
        key for key in NAMES if not any(one.after < key and (one.upto is None or key <= one.upto) for one in left)
    ]
    assert len(outside) > 20
    assert all(world.targets[0].bucket.objects[key].data == f"data of {key}".encode() for key in outside)
    assert world.tally.compared == len(outside)


def test_brakes_count_what_all_workers_saw_over_all_runs(tmp_path):
    plan = Plan(deletes=Deletes.MIRROR, max_delete=MaxDelete(objects=19))
    world = World(tmp_path, 8, plan=plan)
    world.fill(NAMES, alike=1, extra=0)
    bucket = world.targets[0].bucket
    bucket.objects = {key: bucket.objects[key] for key in NAMES}
    for n in range(20):
        bucket.write(f"dir {n % 5}/{n:03} extra", b"x")
    with pytest.raises(Stopped):
        hurried(world.run({15: stop}))
    for _ in range(2):
        with pytest.raises(Refused, match="20 of the 170 objects"):
            hurried(world.run({6: lose(0)}))
    assert len(bucket.objects) == 170
    world.plan = Plan(deletes=Deletes.MIRROR, max_delete=MaxDelete(objects=20))
    hurried(world.run())
    world.check_equal()


# Sources that change


@pytest.mark.parametrize("seed", range(SEEDS))
def test_what_changes_in_the_first_pass_is_there_at_the_end(tmp_path, seed):
    world = random_world(tmp_path, seed)
    for target in world.targets:
        target.effects.clear()  # between the source's last word and the delete, a writer may write
    names = draw_keys(world.chance, 30)

    async def write(crew):
        if world.tally.passes == 1:
            key = world.chance.choice([*names, *world.source.bucket.objects])
            if world.chance.random() < 0.3 and len(world.source.bucket.objects) > 3:
                world.source.bucket.objects.pop(key, None)
            else:
                world.source.bucket.write(key, world.chance.randbytes(3))

    moments = dict.fromkeys(world.chance.sample(range(1, 60), 12), write)
    moments[world.chance.randint(1, 60)] = lose(2)
    hurried(world.run(moments))
    world.check_equal()
