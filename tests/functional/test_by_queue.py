"""replicator migrate --engine sqs: the work goes to a queue, workers do it, and the command says how it ended."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack, contextmanager

import pytest

from replicator.cli.by_queue import NOT_OURS, QUIET_LOOKS, QUIET_LOOKS_AT_SQS, wait_until_empty
from replicator.errors import QueueError
from replicator.items import KeysItem, RangeItem, decode
from replicator.queues.opening import Queues, open_queues
from replicator.queues.queue import Depth, Outgoing
from replicator.store import Write
from tests.awkward import AWKWARD_KEYS
from tests.fakes.watched_s3 import watched
from tests.functional.test_serve_mirror import serving, variables
from tests.pushes import until
from tests.runs import run_command
from tests.servers.lab import new_bucket, open_store

MINUTES = 240.0


class World:
    """Two stores, a queue in a file, and the command."""

    def __init__(self, stack, state):
        self.state = state
        self.source, self.target = stack.enter_context(watched()), stack.enter_context(watched())
        self.place = state / "queue.db"

    def variables(self, **changes):
        return variables(self.source, self.target, **changes)

    def serving(self, *options, **changes):
        return serving(self.place, self.variables(**changes), self.state, *options)

    def command(self, *options):
        words = ["migrate", "--engine", "sqs", "--queue", self.place, *options]
        return [sys.executable, "-m", "replicator", *map(str, words)]

    def migrate(self, *options, **changes):
        return run_command(self.command(*options), self.variables(**changes), seconds=MINUTES)

    @contextmanager
    def migrating(self, *options, **changes):
        """The command, under way."""
        process = subprocess.Popen(
            self.command(*options), env=self.variables(**changes), stderr=subprocess.PIPE, text=True
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    @contextmanager
    def queues(self):
        queues = open_queues(str(self.place), {})
        try:
            yield queues
        finally:
            queues.close()

    def items(self):
        """What waits in the queue, taken out of it."""
        with self.queues() as queues:
            assert not any(queues.changes.depth()), "no change waits behind a work item"
            found = queues.items.receive(1000, wait=0)
            assert queues.items.delete(found) == []
            return [decode(one.body) for one in found]


@pytest.fixture
def world(tmp_path):
    with ExitStack() as stack:
        yield World(stack, tmp_path)


# The whole of it


@pytest.mark.slow
def test_workers_do_what_is_sent_and_the_command_says_so(world):
    world.source.objects = {f"dir {n % 7}/{n:04}": b"%d" % n for n in range(300)}
    with world.serving():
        done = world.migrate()
    assert (done.returncode, done.stdout) == (0, "")
    assert "all done" in done.stderr
    assert world.target.objects == world.source.objects


async def fill(store, keys):
    room = asyncio.Semaphore(32)

    async def put(number, key):
        async with room:
            await store.put(key, key.encode() * (number % 5), Write())

    await asyncio.gather(*(put(number, key) for number, key in enumerate(keys)))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_workers_copy_thousands_of_awkward_keys_though_one_of_them_is_killed(
    rgw_endpoint, second_rgw_endpoint, tmp_path
):
    source, target = new_bucket(rgw_endpoint), new_bucket(second_rgw_endpoint)
    keys = [key for key in AWKWARD_KEYS if key.isprintable()]
    short = [key for key in keys if len(key.encode()) < 1000]
    keys += [f"{key} {n:03}" for n in range(3000 // len(short)) for key in short]

    async def prepare():
        async with open_store(rgw_endpoint, source) as here, open_store(second_rgw_endpoint, target) as there:
            await fill(here, keys)
            await fill(there, keys[10:50])

    asyncio.run(prepare())
    environment = {
        **variables(rgw_endpoint, second_rgw_endpoint, SOURCE_BUCKET=source, TARGET_BUCKET=target),
        "SOURCE_ACCESS_KEY_ID": rgw_endpoint.access_key,
        "SOURCE_SECRET_ACCESS_KEY": rgw_endpoint.secret_key,
        "TARGET_ACCESS_KEY_ID": second_rgw_endpoint.access_key,
        "TARGET_SECRET_ACCESS_KEY": second_rgw_endpoint.secret_key,
    }
    place = tmp_path / "queue.db"
    command = [sys.executable, "-m", "replicator"]
    with serving(place, environment, tmp_path) as one, serving(place, environment, tmp_path) as other:
        words = [*command, "migrate", "--engine", "sqs", "--queue", str(place)]
        with subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True) as migrating:
            try:
                assert until(lambda: "copied" in one.said + other.said)
                (one if "copied" in one.said else other).process.kill()
                said = migrating.communicate(timeout=MINUTES)[1]
            finally:
                migrating.kill()
    assert migrating.returncode == 0, said
    verify = run_command([*command, "verify"], environment, seconds=MINUTES)
    assert (verify.returncode, verify.stderr) == (0, "")


@pytest.mark.slow
def test_a_list_of_keys_is_sent_as_it_is(world):
    world.source.objects = {"a": b"1", "b": b"2", "new\nline": b"3"}
    keys = world.state / "keys"
    keys.write_text("a\nnot there\n")
    done = world.migrate("--keys", keys, "--no-wait")
    assert (done.returncode, done.stderr.count("\n")) == (0, 1)
    assert world.items() == [KeysItem("default", ("a", "not there"), source="s3://from/")]
    with world.serving():
        assert world.migrate("--keys", keys).returncode == 0
    assert world.target.objects == {"a": b"1"}


@pytest.mark.slow
def test_a_route_is_sent_by_its_name_and_done_by_workers_that_know_it(world):
    config = world.state / "replicator.toml"
    config.write_text(
        f'[endpoints.here]\nurl = "{world.source.url}"\n[endpoints.there]\nurl = "{world.target.url}"\n'
        '[routes.one]\nsource = "here:from"\ntargets = ["there:to"]\nkeys = ["exclude *.tmp"]\n'
    )
    world.source.objects = {"a": b"1", "b.tmp": b"2"}
    none = {"SOURCE_BUCKET": None, "TARGET_BUCKET": None}
    none |= {"SOURCE_ENDPOINT": None, "TARGET_ENDPOINT": None}
    options = ("--config", config)
    with world.serving(*options, **none):
        done = world.migrate(*options, "--route", "one", **none)
    assert (done.returncode, "route one" in done.stderr) == (0, True)
    assert world.target.objects == {"a": b"1"}


@pytest.mark.slow
def test_work_of_a_route_that_the_workers_do_not_know_is_a_failure_that_is_told(world):
    world.source.objects = {"a": b"1"}
    config = world.state / "replicator.toml"
    config.write_text(
        f'[endpoints.here]\nurl = "{world.source.url}"\n[endpoints.there]\nurl = "{world.target.url}"\n'
        '[routes.one]\nsource = "here:from"\ntargets = ["there:to"]\n'
    )
    with world.serving("--config", config):
        done = world.migrate()
    assert done.returncode == 1
    assert f"see replicator failures --queue {world.place}" in done.stderr
    assert "all done" not in done.stderr
    failures = run_command(
        [sys.executable, "-m", "replicator", "failures", "--queue", str(world.place)], world.variables()
    )
    assert "there is no route 'default' here" in failures.stdout


@pytest.mark.slow
def test_deletes_that_were_held_back_are_told_by_exit_code_3(world):
    world.source.objects = {"a": b"1"}
    world.target.objects = {"old": b"0"}
    changes = {"DELETES": "mirror", "MAX_DELETES_PER_HOUR": "0", "DELETE_SHARE": "0"}
    with world.serving(**changes):
        done = world.migrate(**changes)
    assert done.returncode == 3
    assert f"see replicator held --queue {world.place}" in done.stderr
    assert world.target.objects == {"a": b"1", "old": b"0"}


# What is not waited for


@pytest.mark.slow
def test_changes_of_which_there_may_be_no_end_are_not_waited_for(world):
    world.source.objects = {"a": b"1"}
    with world.queues() as queues:
        queues.changes.send([Outgoing("somebody else is at it")])
        queues.changes.put_off([(one, 3600) for one in queues.changes.receive(1, wait=0)])
        with world.serving():
            assert world.migrate().returncode == 0
        assert any(queues.changes.depth())
    assert world.target.objects == world.source.objects


def test_who_does_not_wait_leaves_the_work_in_the_queue(world):
    world.source.objects = {f"{n:03}": b"" for n in range(100)}
    done = world.migrate("--no-wait", "--deep")
    assert (done.returncode, done.stderr.count("\n")) == (0, 1)
    items = world.items()
    assert done.stderr.startswith(f"replicator: sent {len(items)} work items of route default to {world.place}")
    assert all(isinstance(item, RangeItem) and item.deep for item in items)
    assert 1 < len(items) <= 32
    starts, ends = [item.after for item in items], [item.upto for item in items]
    assert sorted(starts) == sorted(["", *(end for end in ends if end is not None)]), "no key is in none, or in two"


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_who_is_interrupted_while_waiting_leaves_the_work_to_the_workers(world, how):
    world.source.objects = {"a": b"1"}
    with world.migrating() as process:
        assert "sent 1 work items" in process.stderr.readline()
        assert "Ctrl-C" in process.stderr.readline()
        process.send_signal(how)
        said = process.communicate(timeout=MINUTES)[1]
    assert process.returncode == 130
    assert said == "replicator: stopped waiting; the workers go on with the 1 work items that were sent\n"
    assert world.items() == [RangeItem("default", source="s3://from/")]


# What is refused


@pytest.mark.parametrize(
    "options",
    [
        ["--delete"],
        ["--delete", "--max-delete", "5"],
        ["--passes", "1"],
        ["--dry-run"],
        ["--state", "s"],
        ["--html", "h"],
        ["--report", "r"],
        ["--catalog", "c.db"],
        ["--processes", "2"],
        ["--concurrency", "2"],
        ["--max-rps", "2"],
        ["--bandwidth", "2M"],
        ["--include", "a"],
        ["--exclude", "a"],
        ["--abort-stale", "2d"],
        ["--trash", "t"],
    ],
)
def test_options_that_only_workers_can_heed_are_refused(world, options):
    world.source.objects = {"a": b"1"}
    done = world.migrate(*options)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "is not for --engine sqs" in done.stderr
    assert not world.place.exists()
    assert world.source.log == []


def test_every_option_that_is_refused_exists():
    from replicator.cli.migrate import migrate  # the command

    names = Counter(param.name for param in migrate.params)
    assert set(NOT_OURS) <= set(names)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["migrate", "--engine", "sqs"], "--queue"),
        (["migrate", "--queue", "./q.db"], "--engine sqs"),
        (["migrate", "--no-wait"], "--engine sqs"),
        (["migrate", "--engine", "sqs", "--queue", "nonsense"], "nonsense"),
        (["migrate", "--engine", "sqs", "--queue", "./q.db", "--keys", "no-such-file"], "no-such-file"),
        (["migrate", "--engine", "sqs", "--queue", "./q.db", "--keys", "k", "--inventory", "s3://i/m"], "--inventory"),
    ],
)
def test_wrong_usage_is_one_line(world, options, word):
    environment = {name: value for name, value in world.variables().items() if name != "QUEUE_URL"}
    done = run_command([sys.executable, "-m", "replicator", *options], environment, cwd=world.state)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert word in done.stderr


# When a queue is empty


class Told:
    """A queue that tells these depths, one after the other; an error is raised."""

    name = "a queue"

    def __init__(self, *depths):
        self.depths = list(depths)
        self.asked = 0

    def depth(self):
        self.asked += 1
        told = self.depths.pop(0) if self.depths else Depth(0, 0, 0)
        if isinstance(told, Exception):
            raise told
        return told


async def no_time(seconds):
    assert seconds > 0


@pytest.mark.parametrize("busy", [Depth(1, 0, 0), Depth(0, 1, 0), Depth(0, 0, 1)])
async def test_a_queue_is_empty_when_nothing_waits_is_at_work_or_put_off(busy):
    empty = Depth(0, 0, 0)
    queue = Told(busy, empty, busy, *[empty] * (QUIET_LOOKS_AT_SQS - 1), busy)
    await wait_until_empty(Queues(queue), sleep=no_time)
    assert queue.asked == 3 + QUIET_LOOKS_AT_SQS - 1 + 1 + QUIET_LOOKS_AT_SQS


async def test_a_file_tells_exactly_and_is_believed_sooner(tmp_path):
    queue = Told(Depth(3, 0, 0))
    file = open_queues(str(tmp_path / "queue.db"), {})
    await wait_until_empty(Queues(queue, file=file.file), sleep=no_time)
    assert queue.asked == 1 + QUIET_LOOKS
    file.close()


async def test_a_queue_that_is_away_for_a_while_is_asked_again_and_that_is_said_once(capsys):
    queue = Told(Depth(1, 0, 0), *[QueueError("a queue: depth: away")] * 5)
    await wait_until_empty(Queues(queue), sleep=no_time)
    assert queue.asked == 6 + QUIET_LOOKS_AT_SQS
    assert capsys.readouterr().err == "replicator: a queue: depth: away: tried again\n"


async def test_while_nobody_works_that_is_said_now_and_then(capsys):
    await wait_until_empty(Queues(Told(*[Depth(7, 0, 0)] * 10, *[Depth(5, 2, 0)] * 5)), sleep=no_time)
    lines = capsys.readouterr().err.splitlines()
    assert [("7 messages wait" in line, "is there a worker" in line) for line in lines] == [(True, True)] * 2 + [
        (False, False)
    ]
