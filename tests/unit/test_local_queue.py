"""The file of queues, and what is done to it: kills, full disks, clocks that jump, files that vanish."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.errors import ConfigurationError, QueueError
from replicator.events import QueueMessage
from replicator.queues.database import OURS, QueueFile
from replicator.queues.local import BYTES_AT_ONCE, CHANGES, DEAD_LETTERS, HELD, RECEIVES, LocalQueue
from replicator.queues.queue import Depth, Outgoing

YEAR = 365 * 86400.0
VISIBILITY = 60.0


class Clock:
    def __init__(self, now=1.7e9):
        self.now = now

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def file(tmp_path):
    file = QueueFile(tmp_path / "queue.db")
    yield file
    file.close()


@pytest.fixture
def queue(file, clock):
    return LocalQueue(file, CHANGES, visibility=VISIBILITY, receives=RECEIVES, clock=clock)


def one(queue, body="{}", **more):
    queue.send([Outgoing(body, **more)])
    (found,) = queue.receive(1, wait=0)
    return found


def bodies(queue):
    return [message.body for message in queue.receive(1000, wait=0)]


def start(program, *arguments):
    """A process that has opened its queue when it says so; `queue` is its name there."""
    beginning = (
        "import sys; from pathlib import Path\n"
        "from replicator.queues.database import QueueFile\n"
        "from replicator.queues.local import CHANGES, LocalQueue\n"
        "from replicator.queues.queue import Outgoing\n"
        "file = QueueFile(Path(sys.argv[1]))\n"
        "queue = LocalQueue(file, CHANGES)\n"
    )
    command = [sys.executable, "-c", beginning + program, *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def ended(process, code=0):
    output, errors = process.communicate(timeout=100)
    assert process.returncode == code, errors
    return output.splitlines()


# Times


def test_a_message_is_hidden_for_exactly_the_visibility_timeout(queue, clock):
    one(queue)
    clock.now += VISIBILITY - 0.01
    assert queue.receive(1, wait=0) == []
    clock.now += 0.01
    assert len(queue.receive(1, wait=0)) == 1


def test_what_is_due_longest_comes_first(queue, clock):
    first = one(queue, "first")
    queue.put_off([(first, 30)])
    for n in range(3):
        clock.now += 1
        queue.send([Outgoing(f"later {n}")])
    clock.now += 60
    queue.send([Outgoing("last")])
    assert bodies(queue) == ["later 0", "later 1", "later 2", "first", "last"]


@pytest.mark.parametrize("jump", [5, 3600, 40 * YEAR])
def test_a_clock_that_goes_back_hides_nothing_longer_than_its_own_time(queue, clock, jump):
    message = one(queue, "given out")
    queue.put_off([(message, 300)])
    queue.send([Outgoing("delayed", delay=300), Outgoing("waiting")])
    clock.now -= jump
    assert bodies(queue) == ["waiting"]
    clock.now += 299
    assert "given out" not in bodies(queue)
    clock.now += 1.1
    assert sorted(bodies(queue)) == ["delayed", "given out"]


def test_a_clock_that_was_set_back_while_nobody_ran_hides_nothing(tmp_path):
    path = tmp_path / "queue.db"
    file = QueueFile(path)
    one(LocalQueue(file, CHANGES, visibility=VISIBILITY, clock=Clock(1.7e9)))
    file.close()
    clock = Clock(1.7e9 - YEAR)
    file = QueueFile(path)
    queue = LocalQueue(file, CHANGES, visibility=VISIBILITY, clock=clock)
    assert bodies(queue) == []
    clock.now += VISIBILITY
    assert bodies(queue) == ["{}"]
    file.close()


def test_a_clock_that_jumps_forward_gives_messages_too_early_and_loses_none(queue, clock):
    early = one(queue)
    clock.now += YEAR
    (again,) = queue.receive(1, wait=0)
    assert again.receive_count == 2
    clock.now -= YEAR
    assert queue.receive(1, wait=0) == []
    assert queue.delete([early]) == ["delete: message 1: was given out again, or is in another queue now"]
    assert queue.delete([again]) == []


def test_a_message_begins_its_time_anew_once_for_each_jump(file, queue, clock):
    one(queue, "given out")
    clock.now -= 3600
    assert queue.depth() == Depth(0, 1, 0)
    clock.now += 30
    queue.send([Outgoing("later", delay=900)])
    clock.now -= 10
    assert queue.receive(1, wait=0) == []
    clock.now += 40
    assert bodies(queue) == ["given out"]


def test_a_jump_is_dealt_with_once(file, queue, clock):
    one(queue)
    statements = []
    file.commit(lambda database: database.set_trace_callback(statements.append))
    clock.now -= 3600
    queue.depth()
    assert any(statement.startswith("update messages") for statement in statements)
    statements.clear()
    queue.depth()
    assert not any(statement.startswith("update") for statement in statements)


def test_a_clock_that_goes_back_by_milliseconds_makes_nothing_visible(queue, clock):
    one(queue)
    clock.now -= 0.01
    assert queue.receive(1, wait=0) == []
    assert queue.depth() == Depth(0, 1, 0)


@given(data=st.data())
def test_however_the_clock_jumps_all_comes_within_its_time_after_the_last_jump(data, tmp_path_factory):
    file = QueueFile(tmp_path_factory.mktemp("clock") / "queue.db")
    clock = Clock()
    queue = LocalQueue(file, CHANGES, visibility=VISIBILITY, clock=clock)
    left, seen = set(), []
    for n in range(data.draw(st.integers(1, 12))):
        match data.draw(st.sampled_from(["send", "receive", "put off", "delete", "jump"])):
            case "send":
                queue.send([Outgoing(str(n), delay=data.draw(st.integers(0, 900)))])
                left.add(str(n))
            case "receive":
                seen = queue.receive(data.draw(st.integers(1, 3)), wait=0)
            case "put off":
                queue.put_off([(message, data.draw(st.integers(0, 900))) for message in seen])
            case "delete":
                if not queue.delete(seen):
                    left -= {message.body for message in seen}
            case "jump":
                clock.now += data.draw(st.floats(-YEAR, YEAR))
    queue.depth()  # whoever looks at the queue sees the jump
    clock.now += 901 + 2
    assert set(bodies(queue)) == left
    file.close()


# Dead letters


def test_a_change_that_is_never_settled_becomes_a_dead_letter_with_a_reason(file, queue, clock):
    sent = clock.now
    queue.send([Outgoing("hopeless"), Outgoing("good")])
    for count in range(1, RECEIVES + 1):
        found = queue.receive(10, wait=0)
        assert found[0].receive_count == count
        queue.delete([message for message in found if message.body == "good"])
        clock.now += VISIBILITY
    dead_letters = LocalQueue(file, DEAD_LETTERS, visibility=VISIBILITY, clock=clock)
    queue.send([Outgoing("new")])
    assert bodies(queue) == ["new"]
    (dead,) = dead_letters.receive(10, wait=0)
    assert (dead.body, dead.reason, dead.sent) == ("hopeless", "received 12 times and never settled", sent)
    assert queue.delete(found[:1]) == ["delete: message 1: was given out again, or is in another queue now"]
    assert dead_letters.depth().in_flight == 1


def test_dead_letters_do_not_keep_good_messages_from_coming(queue, clock):
    queue.send([Outgoing("hopeless")] * 10)
    for _ in range(RECEIVES):
        queue.receive(10, wait=0)
        clock.now += VISIBILITY
    queue.send([Outgoing("good")] * 10)
    assert bodies(queue) == ["good"] * 10


@pytest.mark.parametrize("name", [DEAD_LETTERS, HELD])
def test_the_other_queues_keep_what_they_have(file, clock, name):
    kept = LocalQueue(file, name, visibility=VISIBILITY, clock=clock)
    kept.send([Outgoing("kept", reason="a person will see")])
    for count in range(1, 3 * RECEIVES):
        (message,) = kept.receive(10, wait=0)
        assert (message.receive_count, message.reason) == (count, "a person will see")
        clock.now += VISIBILITY


def test_the_queues_of_a_file_are_strangers(file, queue, clock):
    held = LocalQueue(file, HELD, clock=clock)
    queue.send([Outgoing("a change")])
    held.send([Outgoing("held")])
    (change,), (kept,) = queue.receive(10, wait=0), held.receive(10, wait=0)
    assert (change.body, kept.body) == ("a change", "held")
    assert len(held.delete([change])) == len(held.put_off([(change, 0)])) == 1
    assert queue.depth() == held.depth() == Depth(0, 1, 0)
    assert queue.name != held.name


# Receipts


def test_a_receipt_is_good_until_its_message_is_given_out_again(queue, clock):
    first = one(queue)
    clock.now += 10 * VISIBILITY
    assert queue.put_off([(first, 5)]) == []
    clock.now += 5
    (second,) = queue.receive(1, wait=0)
    assert len(queue.delete([first])) == len(queue.put_off([(first, 0)])) == 1
    assert queue.receive(1, wait=0) == []
    assert queue.delete([second]) == []


def test_an_old_receipt_never_fits_a_new_message(queue):
    old = one(queue)
    queue.delete([old])
    new = one(queue)
    assert new.message_id != old.message_id
    assert queue.delete([old]) == []
    assert queue.depth().in_flight == 1


@pytest.mark.parametrize("receipt", ["", "x", "1", "1-", "-1", "1-1-1", "1-1\n", "0-1", "9" * 400 + "-1", "١-١", "\0"])
def test_what_is_no_receipt_is_refused(queue, receipt):
    one(queue)
    bad = QueueMessage("id", receipt, "{}", 1)
    assert queue.delete([bad]) == ["delete: message id: is no receipt of this queue"]
    assert queue.put_off([(bad, 0)]) == ["put off: message id: is no receipt of this queue"]
    assert queue.depth() == Depth(0, 1, 0)


# Bodies


@given(body=st.text(st.characters()), reason=st.text(st.characters()))
def test_any_text_comes_back(body, reason, tmp_path_factory):
    file = QueueFile(tmp_path_factory.mktemp("text") / "queue.db")
    message = one(LocalQueue(file, CHANGES), body, reason=reason)
    file.close()
    assert (message.body, message.reason) == (body, reason)


def test_lone_surrogates_and_nul_come_back(queue):
    assert one(queue, "\ud800 \0 \udfff").body == "\ud800 \0 \udfff"


def test_a_thousand_come_at_once(queue):
    queue.send([Outgoing(str(n)) for n in range(1500)])
    found = queue.receive(5000, wait=0)
    assert len(found) == 1000
    assert queue.delete(found) == []
    assert queue.depth() == Depth(500, 0, 0)


def test_large_messages_do_not_all_come_at_once(queue):
    large = "x" * (256 * 1024)
    number = 3 * BYTES_AT_ONCE // (2 * len(large))
    queue.send([Outgoing(large)] * number)
    first = queue.receive(1000, wait=0)
    assert sum(len(message.body) for message in first) == BYTES_AT_ONCE
    assert len(first) + len(queue.receive(1000, wait=0)) == number


# Threads and processes


def test_ten_thousand_messages_by_four_threads_are_each_delivered_and_deleted_once(file):
    queue = LocalQueue(file, CHANGES)
    sent = threading.Event()

    def send(part):
        for n in range(0, 2500, 50):
            queue.send([Outgoing(f"{part} {n + m}") for m in range(50)])

    def receive(_):
        received = []
        while True:
            over = sent.is_set()
            found = queue.receive(100, wait=0.05)
            if over and not found:
                return received
            assert queue.delete(found) == []
            received += [message.body for message in found]

    with ThreadPoolExecutor(8) as pool:
        receivers = [pool.submit(receive, n) for n in range(4)]
        try:
            list(pool.map(send, range(4)))
        finally:
            sent.set()
        received = [body for one in receivers for body in one.result()]
    assert len(received) == 10_000
    assert set(received) == {f"{part} {n}" for part in range(4) for n in range(2500)}
    assert queue.depth() == Depth(0, 0, 0)


def test_two_processes_at_once_never_get_the_same_message(file):
    queue = LocalQueue(file, CHANGES)
    queue.send([Outgoing(str(n)) for n in range(2000)])
    program = (
        "print('ready', flush=True); sys.stdin.readline()\n"
        "while found := queue.receive(7, wait=0):\n"
        "    for message in found: print(message.body)\n"
    )
    processes = [start(program, file.path) for _ in range(2)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    received = [body for process in processes for body in ended(process)]
    assert sorted(received, key=int) == [str(n) for n in range(2000)]
    assert queue.depth() == Depth(0, 2000, 0)


def test_what_another_process_sends_comes_to_who_waits(file):
    queue = LocalQueue(file, CHANGES)
    process = start("queue.send([Outgoing('from elsewhere')])", file.path)
    until = time.monotonic() + 60
    found = []
    while not found and time.monotonic() < until:
        found = queue.receive(10, wait=20)
    assert [message.body for message in found] == ["from elsewhere"]
    ended(process)


def test_who_waits_looks_again_and_again_for_what_another_process_sends(file):
    looks = []

    def clock():
        looks.append(None)
        return 0.0

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(LocalQueue(file, CHANGES, clock=clock).receive, 1, wait=20)
        while len(looks) < 3 and not waiting.done():
            time.sleep(0.01)
        assert not waiting.done()
        LocalQueue(file, CHANGES, clock=lambda: 0.0).send([Outgoing("{}")])
        assert len(waiting.result(60)) == 1


def test_who_waits_in_this_process_is_told_of_what_comes(file, queue):
    for happens in (
        lambda: queue.send([Outgoing("{}")]),
        lambda: queue.put_off([(message, 0) for message in queue.receive(1, wait=0)]),
        file.close,
    ):
        known = file.announced
        waiting = threading.Thread(target=file.wait_for_news, args=(known, 100))
        waiting.start()
        happens()
        assert file.announced == known + 1
        waiting.join(60)
        assert not waiting.is_alive()


def test_processes_that_open_a_new_file_at_once_all_succeed(tmp_path):
    program = "queue.send([Outgoing('mine')])"
    processes = [start(program, tmp_path / "new.db") for _ in range(4)]
    for process in processes:
        ended(process)
    file = QueueFile(tmp_path / "new.db")
    assert LocalQueue(file, CHANGES).depth().waiting == 4
    file.close()


def test_who_sends_while_the_disk_is_busy_shares_one_transaction(file, queue):
    statements = []
    file.commit(lambda database: database.set_trace_callback(statements.append))
    busy, free = threading.Event(), threading.Event()

    def slow(_):
        busy.set()
        assert free.wait(60)

    with ThreadPoolExecutor(9) as pool:
        first = pool.submit(file.commit, slow)
        assert busy.wait(60)
        statements.clear()
        others = [pool.submit(queue.send, [Outgoing(str(n))]) for n in range(8)]
        while len(file._waiting) < 8:
            time.sleep(0.001)
        free.set()
        for future in (first, *others):
            future.result(60)
    assert statements.count("commit") == 2  # of the slow one, and of all others
    assert queue.depth().waiting == 8


def test_what_is_acknowledged_is_synced(file):
    assert file.commit(lambda database: database.execute("pragma synchronous").fetchone()) == (2,)
    assert file.commit(lambda database: database.execute("pragma journal_mode").fetchone()) == ("wal",)


def test_an_interruption_of_one_thread_is_no_success_of_another(file, queue):
    busy, free = threading.Event(), threading.Event()

    def interrupted(_):
        busy.set()
        assert free.wait(60)
        raise KeyboardInterrupt

    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(file.commit, lambda _: (busy.set(), free.wait(60)))
        assert busy.wait(60)
        second = pool.submit(file.commit, interrupted)
        while len(file._waiting) < 1:
            time.sleep(0.001)
        third = pool.submit(queue.send, [Outgoing("not sent")])
        while len(file._waiting) < 2:
            time.sleep(0.001)
        free.set()
        first.result(60)
        failures = {type(future.exception(60)) for future in (second, third)}
    assert failures <= {KeyboardInterrupt, QueueError}
    assert QueueError in failures
    assert queue.depth() == Depth(0, 0, 0)
    queue.send([Outgoing("goes on")])
    assert bodies(queue) == ["goes on"]


def test_what_failed_has_changed_nothing(file, queue):
    def half(database):
        database.execute("insert into messages select 1, 'changes', 0, 0, 0, 0, '', ''")
        database.execute("insert into no_such_table values (1)")

    with pytest.raises(QueueError, match=r"queue\.db: no such table"):
        file.commit(half)
    assert queue.depth() == Depth(0, 0, 0)


# Kills


@pytest.mark.parametrize("threads", [1, 8])
def test_everything_acknowledged_is_there_after_kills_in_the_middle_of_sends(tmp_path, threads):
    path = tmp_path / "queue.db"
    program = (
        "import threading, os\n"
        "def send(which):\n"
        "    for n in range(10**6):\n"
        "        body = f'{sys.argv[2]} {which} {n}'\n"
        "        queue.send([Outgoing(body)])\n"
        "        os.write(1, f'{body}\\n'.encode())\n"
        "for which in range(int(sys.argv[3])): threading.Thread(target=send, args=(which,)).start()\n"
    )
    chance = random.Random(threads)
    acknowledged = set()
    for life in range(3):
        process = start(program, path, life, threads)
        for _ in range(chance.randrange(20, 300)):
            acknowledged.add(process.stdout.readline().rstrip("\n"))
        process.send_signal(signal.SIGKILL)
        *whole, _ = process.stdout.read().split("\n")
        acknowledged.update(whole)
        ended(process, -signal.SIGKILL)
    file = QueueFile(path)
    queue = LocalQueue(file, CHANGES)
    found = set()
    while more := bodies(queue):
        assert not found & set(more)
        found.update(more)
    assert acknowledged - found == set()
    assert len(found - acknowledged) <= 3 * threads  # sent, and killed before it could say so
    assert file.commit(lambda database: database.execute("pragma integrity_check").fetchone()) == ("ok",)
    file.close()


def test_what_a_killed_process_had_received_comes_again(file, clock):
    LocalQueue(file, CHANGES).send([Outgoing("not lost")])
    process = start("print(queue.receive(1, wait=20)[0].body, flush=True); sys.stdin.read()", file.path)
    assert process.stdout.readline() == "not lost\n"
    process.send_signal(signal.SIGKILL)
    ended(process, -signal.SIGKILL)
    clock.now = time.time()
    queue = LocalQueue(file, CHANGES, clock=clock)
    assert bodies(queue) == []
    clock.now += 1000
    (again,) = queue.receive(1, wait=0)
    assert (again.body, again.receive_count) == ("not lost", 2)


# The file


def test_a_full_disk_is_an_error_and_costs_nothing_that_was_acknowledged(tmp_path):
    path = tmp_path / "queue.db"
    program = (
        "import resource\n"
        "from replicator.errors import QueueError\n"
        "soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))\n"
        "try:\n"
        "    for n in range(1000): queue.send([Outgoing(f'{n} ' + 'x' * 5000)]); print('sent', n)\n"
        "except QueueError as error: print('error', error)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))\n"
        "queue.send([Outgoing('room again')])\n"
        "print('sent room')\n"
    )
    lines = ended(start(program, path))
    (error,) = [line for line in lines if not line.startswith("sent")]
    assert error.startswith(f"error {path}: ")
    acknowledged = [line.split()[1] for line in lines if line.startswith("sent")]
    assert acknowledged[-1] == "room"
    assert len(acknowledged) > 1
    file = QueueFile(path)
    assert [body.split()[0] for body in bodies(LocalQueue(file, CHANGES))] == acknowledged
    file.close()


def test_a_file_that_another_one_holds_is_an_error_after_some_patience(tmp_path):
    file = QueueFile(tmp_path / "queue.db", patience=0.05)
    queue = LocalQueue(file, CHANGES)
    other = sqlite3.connect(file.path, isolation_level=None)
    other.execute("begin immediate")
    with pytest.raises(QueueError, match=r"queue\.db: database is locked"):
        queue.send([Outgoing("{}")])
    other.execute("commit")
    other.close()
    queue.send([Outgoing("free again")])
    assert bodies(queue) == ["free again"]
    file.close()


def test_a_new_file_that_another_one_holds_is_waited_for(tmp_path):
    path = tmp_path / "queue.db"
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("begin immediate")
    with pytest.raises(ConfigurationError, match="database is locked"):
        QueueFile(path, patience=0.05)
    with ThreadPoolExecutor(1) as pool:
        opening = pool.submit(QueueFile, path)
        time.sleep(0.1)
        other.execute("rollback")
        opening.result(60).close()
    other.close()


@pytest.mark.parametrize("which", ["queue.db", "queue.db-wal"])
def test_nothing_is_acknowledged_in_a_file_that_was_deleted(file, queue, which):
    message = one(queue)
    os.unlink(file.path.with_name(which))
    for request in (
        lambda: queue.send([Outgoing("lost?")]),
        lambda: queue.receive(1, wait=20),
        lambda: queue.delete([message]),
        queue.depth,
    ):
        with pytest.raises(QueueError, match="was removed or replaced while in use"):
            request()


def test_nothing_is_acknowledged_in_a_file_that_was_replaced(tmp_path, file, queue):
    other = QueueFile(tmp_path / "other.db")
    LocalQueue(other, CHANGES).send([Outgoing("of the other")])
    os.rename(other.path, file.path)
    with pytest.raises(QueueError, match="was removed or replaced"):
        queue.send([Outgoing("lost?")])
    other.close()


def test_a_file_that_was_closed_is_an_error_and_may_be_closed_again(file, queue):
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(queue.receive, 1, wait=20)
        file.close()
        file.close()
        assert isinstance(waiting.exception(60), QueueError)
    with pytest.raises(QueueError):
        queue.send([Outgoing("{}")])


def test_messages_outlive_their_process_and_only_one_file_is_left(tmp_path):
    ended(start("queue.send([Outgoing('kept')]); file.close()", tmp_path / "queue.db"))
    assert os.listdir(tmp_path) == ["queue.db"]
    file = QueueFile(tmp_path / "queue.db", create=False)
    assert bodies(LocalQueue(file, CHANGES)) == ["kept"]
    file.close()


def test_a_path_may_have_any_characters(tmp_path):
    path = tmp_path / "a %20? # ä 'b' ;.db"
    file = QueueFile(path)
    LocalQueue(file, CHANGES).send([Outgoing("{}")])
    file.close()
    assert os.listdir(tmp_path) == [path.name]


def test_a_link_to_the_file_is_the_file(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link.db").symlink_to(tmp_path / "disk" / "queue.db")
    through = QueueFile(tmp_path / "link.db")
    LocalQueue(through, CHANGES).send([Outgoing("linked")])
    direct = QueueFile(tmp_path / "disk" / "queue.db")
    assert bodies(LocalQueue(direct, CHANGES)) == ["linked"]
    through.close()
    direct.close()


def foreign(path, mark):
    database = sqlite3.connect(path)
    database.execute("create table theirs (something)")
    database.execute(f"pragma application_id = {mark}")
    database.commit()
    database.close()


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.write_text("some notes\n" * 100), "file is not a database"),
        (lambda path: foreign(path, 0), "is not a file of queues of this version"),
        (lambda path: foreign(path, OURS + 1), "is not a file of queues of this version"),
    ],
)
def test_a_foreign_file_is_refused_and_left_as_it_was(tmp_path, make, reason):
    path = tmp_path / "theirs"
    make(path)
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match=reason):
        QueueFile(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["theirs"]


def test_what_cannot_be_a_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "pipe" / "queue.db"):
        with pytest.raises(ConfigurationError) as raised:
            QueueFile(path)
        assert str(raised.value).startswith(f"{path}: ")
    with pytest.raises(ConfigurationError, match="there is no folder"):
        QueueFile(tmp_path / "missing" / "queue.db")
    with pytest.raises(ConfigurationError, match="there are no queues in this place"):
        QueueFile(tmp_path / "queue.db", create=False)
    assert os.listdir(tmp_path) == ["pipe"]


def test_a_folder_that_takes_no_files_is_refused():
    with pytest.raises(ConfigurationError, match="may it be written"):
        QueueFile(Path("/proc/self/fdinfo/queue.db"))
