"""What a state file promises: it is ours or it is left alone, and whatever breaks, what is not done is in it."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from replicator.bulk.checkpoint import BATCH, OURS, Checkpoint, open_checkpoint
from replicator.bulk.tasks import Range
from replicator.errors import ConfigurationError, ReplicatorError

ROUTE = "s3://here -> s3://there"
ROOT = Path(__file__).parents[2]
STRANGE = ["\0", "a", "a\nb", "é", "z'; drop table ranges; --", "\uffff", "\U0001f600", "\U0010ffff", "x" * 1024]


def opened(path, route=ROUTE):
    return open_checkpoint(path, route)


def everything(checkpoint):
    return checkpoint.resume(), checkpoint.ranges(), [key for batch in checkpoint.candidates() for key in batch]


@pytest.fixture
def state(tmp_path):
    return tmp_path / "run.state"


# Going on


def test_a_new_file_has_nothing_to_go_on_with(state):
    with opened(state) as checkpoint:
        assert everything(checkpoint) == (None, [], [])


@pytest.mark.parametrize("path", [None, "file"])
def test_a_pass_begins_with_one_range_and_no_candidates(tmp_path, path):
    with opened(tmp_path / path if path else None) as checkpoint:
        checkpoint.start_pass()
        checkpoint.replace(Range(), [Range("", "m"), Range("m", None)])
        checkpoint.add_candidates(["x"])
        checkpoint.start_pass()
        assert (checkpoint.ranges(), list(checkpoint.candidates())) == ([Range()], [])


def test_what_was_saved_is_there_the_next_time(state):
    with opened(state) as checkpoint:
        checkpoint.start_pass()
        checkpoint.replace(Range(), [Range("b", "m"), Range("m", None)])
        checkpoint.add_candidates(["k", "a"])
        checkpoint.save({"began": 1.5, "tally": {"é": [1, None]}})
    with opened(state) as checkpoint:
        assert everything(checkpoint) == (
            {"began": 1.5, "tally": {"é": [1, None]}},
            [Range("b", "m"), Range("m", None)],
            ["a", "k"],
        )


def test_what_was_not_saved_is_not_there(state):
    with opened(state) as checkpoint:
        checkpoint.start_pass()
        checkpoint.save({"n": 1})
        checkpoint.replace(Range(), [Range("b", None)])
        checkpoint.add_candidates(["k"])
        checkpoint.remove_candidates(["k"])
    with opened(state) as checkpoint:
        assert everything(checkpoint) == ({"n": 1}, [Range()], [])


def test_a_finished_run_leaves_nothing_and_frees_the_file_for_another_route(state):
    with opened(state) as checkpoint:
        checkpoint.start_pass()
        checkpoint.add_candidates(["k"])
        checkpoint.save({"n": 1})
        checkpoint.finish()
    with opened(state, "elsewhere") as checkpoint:
        assert everything(checkpoint) == (None, [], [])
        checkpoint.start_pass()
        checkpoint.save({"n": 2})
    with pytest.raises(ConfigurationError, match="belongs to elsewhere, which is not finished"), opened(state):
        pass


def test_a_temporary_state_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with open_checkpoint(None, ROUTE) as checkpoint:
        checkpoint.start_pass()
        checkpoint.save({})
        assert checkpoint.ranges() == [Range()]
    assert list(tmp_path.iterdir()) == []


# Ranges


def test_a_range_that_is_cut_gives_way_to_both_parts(state):
    with opened(state) as checkpoint:
        checkpoint.start_pass()
        checkpoint.replace(Range(), [Range("", "m"), Range("m", None)])
        checkpoint.replace(Range("m", None), [Range("m", "t"), Range("t", None)])
        checkpoint.replace(Range("", "m"), [Range("f", "m")])
        checkpoint.replace(Range("m", "t"), ())
        assert checkpoint.ranges() == [Range("f", "m"), Range("t", None)]


def test_a_range_that_is_settled_to_its_very_end_does_not_swallow_its_neighbour(state):
    with opened(state) as checkpoint:
        checkpoint.start_pass()
        checkpoint.replace(Range(), [Range("m", None)])
        checkpoint.replace(Range("m", None), [Range("m", "m"), Range("m", None)])
        checkpoint.replace(Range("m", "m"), ())
        assert checkpoint.ranges() == [Range("m", None)]


@pytest.mark.parametrize("key", STRANGE)
def test_ranges_and_candidates_hold_any_key(state, key):
    with opened(state) as checkpoint:
        checkpoint.start_pass()
        checkpoint.replace(Range(), [Range("", key), Range(key, None)])
        checkpoint.add_candidates([key])
        checkpoint.save({})
    with opened(state) as checkpoint:
        assert everything(checkpoint) == ({}, [Range("", key), Range(key, None)], [key])
        checkpoint.replace(Range("", key), ())
        checkpoint.replace(Range(key, None), ())
        checkpoint.remove_candidates([key])
        assert everything(checkpoint) == ({}, [], [])


def test_ranges_come_in_the_order_of_keys(state):
    cuts = ["", *sorted(STRANGE)]
    ranges = [Range(after, upto) for after, upto in zip(cuts, [*cuts[1:], None], strict=True)]
    with opened(state) as checkpoint:
        checkpoint.start_pass()
        checkpoint.replace(Range(), random.Random(1).sample(ranges, len(ranges)))
        assert checkpoint.ranges() == ranges


# Candidates


@pytest.mark.parametrize("count", [0, 1, BATCH - 1, BATCH, BATCH + 1, 3 * BATCH])
def test_candidates_come_in_batches_in_order(state, count):
    keys = [f"{n:06}" for n in range(count)]
    with opened(state) as checkpoint:
        checkpoint.add_candidates(random.Random(count).sample(keys, count))
        checkpoint.add_candidates(keys[: count // 2])  # again, as after a worker was lost
        batches = list(checkpoint.candidates())
    assert [key for batch in batches for key in batch] == keys
    assert [len(batch) for batch in batches] == [BATCH] * (count // BATCH) + [count % BATCH] * bool(count % BATCH)


def test_candidates_are_each_given_once_though_they_are_removed_meanwhile(state):
    keys = [f"{n:06}" for n in range(5 * BATCH + 7)]
    given, late = [], []
    with opened(state) as checkpoint:
        checkpoint.add_candidates(keys)
        for batch in checkpoint.candidates():
            given += batch
            late.append(batch)
            if len(late) > 2:
                checkpoint.remove_candidates(late.pop(0))
            checkpoint.save({"given": len(given)})
        for batch in late:
            checkpoint.remove_candidates(batch)
        assert list(checkpoint.candidates()) == []
    assert given == keys


def test_removing_a_candidate_removes_no_other(state):
    with opened(state) as checkpoint:
        checkpoint.add_candidates(["a", "a/", "A", "a%", "á"])
        checkpoint.remove_candidates(["a", "not there"])
        assert list(checkpoint.candidates()) == [("A", "a%", "a/", "á")]


# Files that are not ours


def refused(path, match):
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(ConfigurationError, match=match) as raised, opened(path):
        pass
    assert str(path) in str(raised.value)
    if before is not None:
        assert path.read_bytes() == before
    assert not Path(f"{path}-journal").exists()


@pytest.mark.parametrize("content", [b"xy", b"key\n" * 5, b"key\n" * 30, b"some text\n" * 4000, b"\0" * 4096])
def test_a_file_that_is_no_database_is_refused_and_left_alone(state, content):
    state.write_bytes(content)
    refused(state, "is not a database|not the state")


@pytest.mark.parametrize("mark", [0, 1, OURS - 1, OURS + 1, OURS ^ 0x1000000])
def test_somebody_elses_database_is_refused_and_left_alone(state, mark):
    with sqlite3.connect(state) as database:
        database.execute("create table ranges (after, upto)")
        database.execute(f"pragma application_id = {mark}")
    database.close()
    refused(state, "is not the state of a run of this version: use another file")


def test_somebody_elses_database_in_wal_mode_is_refused_and_left_alone(state):
    database = sqlite3.connect(state)
    database.execute("pragma journal_mode = wal")
    database.execute("create table mine (x)")
    database.execute("insert into mine values (1)")
    database.commit()
    database.close()
    refused(state, "is not the state of a run")
    database = sqlite3.connect(state)
    assert database.execute("select x from mine").fetchall() == [(1,)]
    database.close()


def test_a_database_of_ours_with_other_tables_is_refused(state):
    database = sqlite3.connect(state)
    database.execute("create table facts (something)")
    database.execute(f"pragma application_id = {OURS}")
    database.commit()
    database.close()
    with pytest.raises(ConfigurationError), opened(state):
        pass


def test_a_directory_is_refused(tmp_path):
    refused(tmp_path, "unable to open")


def test_a_file_in_no_directory_is_refused(tmp_path):
    refused(tmp_path / "nowhere" / "state", "unable to open")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_cut_off_is_refused_with_words(state):
    with opened(state) as checkpoint:
        checkpoint.start_pass()
        checkpoint.add_candidates([f"{n:0900}" for n in range(500)])
        checkpoint.save({"n": 1})
    os.truncate(state, state.stat().st_size // 2)
    with pytest.raises(ReplicatorError, match="--state"), opened(state) as checkpoint:
        everything(checkpoint)


def test_a_file_of_garbage_inside_is_refused_with_words(state):
    with opened(state) as checkpoint:
        checkpoint.start_pass()
        checkpoint.add_candidates([f"{n:0900}" for n in range(500)])
        checkpoint.save({"n": 1})
    with state.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 200_000)
    with pytest.raises(ReplicatorError, match="--state"), opened(state) as checkpoint:
        everything(checkpoint)


def test_the_state_of_another_route_is_refused_and_left_as_it_is(state):
    with opened(state, "one route") as checkpoint:
        checkpoint.start_pass()
        checkpoint.save({"n": 1})
    with (
        pytest.raises(ConfigurationError, match="belongs to one route, which is not finished"),
        opened(state, "another"),
    ):
        pass
    with opened(state, "one route") as checkpoint:
        assert everything(checkpoint) == ({"n": 1}, [Range()], [])


@contextmanager
def as_nobody():
    """As a user to whom permissions mean something."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


@pytest.fixture
def folder():
    """A directory that everybody can reach, as those of pytest are not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        yield Path(name)


def test_a_directory_that_may_not_be_written_is_refused(folder):
    folder.chmod(0o555)
    with as_nobody(), pytest.raises(ConfigurationError, match="unable to open"), opened(folder / "state"):
        pass
    assert list(folder.iterdir()) == []


def test_a_state_file_that_may_not_be_written_is_refused(folder):
    with opened(folder / "state") as checkpoint:
        checkpoint.save({"n": 1})
    (folder / "state").chmod(0o444)
    before = (folder / "state").read_bytes()
    with as_nobody(), pytest.raises(ConfigurationError, match="readonly"), opened(folder / "state"):
        pass
    assert (folder / "state").read_bytes() == before


def test_a_state_file_whose_directory_became_read_only_is_refused_or_fails_with_words(folder):
    with opened(folder / "state") as checkpoint:
        checkpoint.start_pass()
        checkpoint.save({"n": 1})
    (folder / "state").chmod(0o666)
    folder.chmod(0o555)  # no journal can be made beside it
    with as_nobody(), pytest.raises(ReplicatorError, match="--state"), opened(folder / "state") as checkpoint:
        checkpoint.replace(Range(), [Range("m", None)])
    folder.chmod(0o777)
    with opened(folder / "state") as checkpoint:
        assert everything(checkpoint) == ({"n": 1}, [Range()], [])


# In use


def child(script, *arguments):
    """A process that says "ready" and is then left to itself."""
    code = f"import os, sys; sys.path[:0] = {[str(ROOT), *sys.path]!r}\n" + textwrap.dedent(script)
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    return process


HOLD = """
from pathlib import Path
from replicator.bulk.checkpoint import open_checkpoint
with open_checkpoint(Path(sys.argv[1]), "s3://here -> s3://there") as checkpoint:
    if "idle" not in sys.argv:
        checkpoint.start_pass()
        checkpoint.save({"n": 1})
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("how", ["idle", "busy"])
def test_a_file_that_another_process_uses_is_refused_and_free_when_that_is_killed(state, how):
    process = child(HOLD, state, how)
    try:
        with pytest.raises(ConfigurationError, match="in use by another run"), opened(state):
            pass
        process.kill()
        process.wait()
        with opened(state) as checkpoint:
            assert checkpoint.ranges() == ([] if how == "idle" else [Range()])
    finally:
        process.kill()
        process.communicate()


def test_a_file_that_is_in_use_is_waited_for_for_a_second(state):
    with opened(state) as checkpoint:
        assert checkpoint._database.execute("pragma busy_timeout").fetchone() == (1000,)


def test_a_run_that_was_refused_does_not_disturb_the_one_that_goes_on(state):
    with opened(state) as checkpoint:
        checkpoint.start_pass()
        checkpoint.save({"n": 1})
        with pytest.raises(ConfigurationError, match="in use by another run"), opened(state):
            pass
        checkpoint.replace(Range(), [Range("m", None)])
        checkpoint.save({"n": 2})
    with opened(state) as checkpoint:
        assert everything(checkpoint) == ({"n": 2}, [Range("m", None)], [])


# Full disks


def pages(state, more):
    """A checkpoint on a file that may grow by so many pages."""
    with opened(state) as checkpoint:
        checkpoint.start_pass()
        checkpoint.save({"n": 0})
    database = sqlite3.connect(state)
    (now,) = database.execute("pragma page_count").fetchone()
    database.execute(f"pragma max_page_count = {now + more}")
    return database, Checkpoint(database, "--state full")


def covered(ranges, key):
    return any(one.after < key and (one.upto is None or key <= one.upto) for one in ranges)


def until_full(database, checkpoint, step):
    """Takes steps until one fails, and then saves, as a run does that ends with an error; how many were taken."""
    done = 0
    with suppress(ReplicatorError):
        while done < 3000:
            step(done)
            done += 1
    assert done < 3000, "the disk was never full"
    with suppress(ReplicatorError):
        checkpoint.save({"n": done})
    database.close()
    return done


def test_a_full_disk_is_told_with_words(state):
    database, checkpoint = pages(state, 1)
    keys = [f"{n:01000}" for n in range(100)]
    with pytest.raises(ReplicatorError, match="--state full: database or disk is full: what was done so far is safe"):
        checkpoint.add_candidates(keys)
    database.close()


@pytest.mark.parametrize("more", [0, 1, 2, 3, 5, 8])
def test_no_range_is_lost_when_the_disk_is_full(state, more):
    database, checkpoint = pages(state, more)
    cuts = ["", *(f"{n:04}" + "x" * 900 for n in range(3000))]

    def cut(n):
        checkpoint.replace(Range(cuts[n], None), [Range(cuts[n], cuts[n + 1]), Range(cuts[n + 1], None)])
        if n % 4 == 3:
            checkpoint.save({"n": n})

    until_full(database, checkpoint, cut)
    with opened(state) as checkpoint:
        ranges = checkpoint.ranges()
    assert all(covered(ranges, cut) for cut in [*cuts[1:100], "zzz"])


@pytest.mark.parametrize("more", [0, 1, 2, 3, 5, 8])
def test_a_range_that_advances_is_not_lost_when_the_disk_is_full(state, more):
    database, checkpoint = pages(state, more)
    keys = ["", *(f"{n:04}" + "x" * 1000 for n in range(3000))]

    def advance(n):
        checkpoint.replace(Range(keys[n], None), [Range(keys[n + 1], None)])
        checkpoint.add_candidates([f"{n:0800}"])

    until_full(database, checkpoint, advance)
    with opened(state) as checkpoint:
        assert covered(checkpoint.ranges(), "zzz")


@pytest.mark.parametrize("more", range(8))
def test_counters_never_run_ahead_of_ranges_when_the_disk_is_full(state, more):
    """Else what is done again is counted twice."""
    database, checkpoint = pages(state, more)
    keys = ["", *(f"{n:04}" for n in range(1, 3001))]

    def settle(n):
        checkpoint.add_candidates([f"{n:0800}"])
        checkpoint.replace(Range(keys[n], None), [Range(keys[n + 1], None)])
        if n % 5 == 4:
            checkpoint.save({"n": n + 1})

    until_full(database, checkpoint, settle)
    with opened(state) as checkpoint:
        assert [one.after for one in checkpoint.ranges()] == [keys[checkpoint.resume()["n"]]]


# Killed


WRITE_ON = """
import random
from pathlib import Path
from replicator.bulk.checkpoint import open_checkpoint
from replicator.bulk.tasks import Range
chance = random.Random(int(sys.argv[2]))
done = os.open(sys.argv[3], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
with open_checkpoint(Path(sys.argv[1]), "s3://here -> s3://there") as checkpoint:
    if checkpoint.resume() is None:
        checkpoint.start_pass()
        checkpoint.save({"settled": 0})
    settled = checkpoint.resume()["settled"]
    print("ready", flush=True)
    while ranges := checkpoint.ranges():
        one = chance.choice(ranges)
        low, high = int(one.after or 0), int(one.upto or 999_999)
        if high - low > 2 and chance.random() < 0.5 and len(ranges) < 200:
            cut = f"{chance.randint(low + 1, high - 1):06}"
            checkpoint.replace(one, [Range(one.after, cut), Range(cut, one.upto)])
        else:
            through = min(low + chance.randint(1, 50), high)
            checkpoint.add_candidates([f"{n:06}" + "x" * 300 for n in range(low + 1, through + 1)])
            checkpoint.replace(one, [Range(f"{through:06}", one.upto)] if through < high else ())
            settled += through - low
        if chance.random() < 0.2:
            checkpoint.save({"settled": settled})
            print("saved", flush=True)
"""


@pytest.mark.parametrize("seed", range(6))
def test_after_kill_9_ranges_counters_and_candidates_are_of_one_moment(tmp_path, seed):
    state, chance = tmp_path / "state", random.Random(seed)
    before = -1
    for _ in range(3):
        process = child(WRITE_ON, state, chance.randrange(1 << 30), tmp_path / "done")
        try:
            for _ in range(chance.randint(1, 40)):
                process.stdout.readline()
            time.sleep(chance.uniform(0.0, 0.01))
            process.send_signal(signal.SIGKILL)
            process.wait()
        finally:
            process.kill()
            process.communicate()
        with opened(state) as checkpoint:
            saved, ranges, candidates = everything(checkpoint)
        spans = [(int(one.after or 0), int(one.upto or 999_999)) for one in ranges]
        assert all(here[1] <= there[0] for here, there in zip(spans, spans[1:], strict=False))
        assert sum(high - low for low, high in spans) + saved["settled"] == 999_999
        settled = {int(key[:6]) for key in candidates}
        assert len(settled) == saved["settled"]
        assert not any(low < n <= high for low, high in spans for n in settled)
        assert saved["settled"] >= before
        before = saved["settled"]
    assert before > 0
