"""`replicator held`, `release` and `discard`: what a person decides of deletes that the brake has parked."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from replicator.cli.held import Choice, Decision
from replicator.errors import QueueError
from replicator.items import KeysItem, RangeItem, decode, encode
from replicator.queues.looking import looking
from replicator.queues.queue import Outgoing
from tests.set_aside import REASON, ROUTE, bodies, contents, desk_of_file, desk_of_sqs

ROOT = Path(__file__).parents[2]
SECONDS = 60


@pytest.fixture(params=["file", "sqs"])
def desk(request, tmp_path, capsys):
    if request.param == "file":
        with desk_of_file(tmp_path, capsys) as desk:
            yield desk
    else:
        with desk_of_sqs(request.getfixturevalue("moto_endpoint"), capsys) as desk:
            yield desk


@pytest.fixture
def one_file(tmp_path, capsys):
    with desk_of_file(tmp_path, capsys) as desk:
        yield desk


def released(desk):
    return [decode(body) for body in bodies(desk.queues.items)]


def still_held(desk):
    return [decode(body) for body in bodies(desk.held)]


def item(*keys, route=ROUTE, released=False):
    return KeysItem(route, keys, released)


# held


def test_it_lists_key_route_reason_and_time_and_takes_nothing_away(desk):
    desk.park("photos/1.jpg", "photos/2.jpg")
    before = bodies(desk.held)
    for _ in range(3):
        said = desk.run("held")
        assert (said.code, said.err) == (0, "")
        assert sorted(line.split(" ", 5)[-1].split(": ", 1)[-1] for line in said.lines) == [
            f"photos/1.jpg: {REASON}",
            f"photos/2.jpg: {REASON}",
        ]
        assert all(f" {ROUTE}: " in line for line in said.lines)
    assert bodies(desk.held) == before


def test_it_lists_for_programs(desk):
    desk.park("a\nb", "ü", route="r 2")
    listed = sorted(desk.run("held", "--json").json, key=lambda one: one["keys"])
    assert [one["keys"] for one in listed] == [["a\nb"], ["ü"]]
    for one in listed:
        assert (one["kind"], one["route"], one["bucket"], one["reason"]) == ("keys", "r 2", None, REASON)
        assert one["received"] >= 1
        assert one["id"]
        assert one["since"].endswith("Z")


def test_nothing_held_is_said(desk):
    assert desk.run("held").out == "no delete is held\n"
    assert desk.run("held", "--json").out == ""


@pytest.mark.parametrize(("limit", "more"), [(24, True), (25, False), (26, False)])
def test_it_says_when_there_is_more_than_it_was_to_list(desk, limit, more):
    desk.park(*(f"k{n:02}" for n in range(25)))
    said = desk.run("held", "--limit", limit)
    assert len(said.lines) == min(limit, 25)
    assert len(set(said.lines)) == len(said.lines)
    assert ("there are more" in said.err) is more
    assert len(contents(desk.held)) == 25


def test_a_key_cannot_do_anything_to_the_terminal(one_file):
    one_file.park("a\x1b[2Jb\n\u202ec")
    (line,) = one_file.run("held").lines
    assert "a\\x1b[2Jb\\n\\u202ec" in line


def test_a_message_with_many_keys_is_one_short_line_and_whole_for_programs(one_file):
    keys = [f"k{n:02}" for n in range(30)]
    one_file.held.send([Outgoing(encode(item(*keys)), REASON)])
    (line,) = one_file.run("held").lines
    assert "k09, and 20 more: more than 1,000" in line
    assert one_file.run("held", "--json").json[0]["keys"] == keys


# release


def test_what_is_released_goes_to_the_work_items_and_is_marked(desk):
    desk.park("a", "b/c")
    said = desk.run("release", "--all", "--yes")
    assert (said.code, said.err) == (0, "")
    assert said.out == "released 2 deletes\n"
    assert sorted(released(desk), key=str) == [item("a", released=True), item("b/c", released=True)]
    assert still_held(desk) == []


def test_only_what_matches_is_released(desk):
    desk.park("logs/1", "logs/x/2", "data/3", "Logs/4")
    assert desk.run("release", "--include", "logs/*", "--yes").out == "released 2 deletes\n"
    assert {key for one in released(desk) for key in one.keys} == {"logs/1", "logs/x/2"}
    assert {key for one in still_held(desk) for key in one.keys} == {"data/3", "Logs/4"}


def test_of_which_source_a_delete_is_stays_with_it(one_file):
    one_file.held.send([Outgoing(encode(KeysItem(ROUTE, ("a", "b"), source="s3://from/")), REASON)])
    one_file.run("release", "--include", "a", "--yes")
    assert released(one_file) == [KeysItem(ROUTE, ("a",), released=True, source="s3://from/")]
    assert still_held(one_file) == [KeysItem(ROUTE, ("b",), source="s3://from/")]


def test_several_patterns_take_what_any_of_them_matches(one_file):
    one_file.park("a", "b", "c")
    one_file.run("release", "--include", "a", "--include", "c", "--yes")
    assert {key for one in released(one_file) for key in one.keys} == {"a", "c"}


def test_only_those_of_the_route_are_released(desk):
    desk.park("a")
    desk.park("a", route="other")
    desk.run("release", "--all", "--route", "other", "--yes")
    assert released(desk) == [item("a", route="other", released=True)]
    assert still_held(desk) == [item("a")]


def test_the_other_keys_of_a_message_stay_held_with_their_reason(desk):
    desk.held.send([Outgoing(encode(item("a", "b", "c")), REASON)])
    assert desk.run("release", "--include", "b", "--yes").out == "released 1 delete\n"
    assert released(desk) == [item("b", released=True)]
    assert still_held(desk) == [item("a", "c")]
    assert [one.reason for one in contents(desk.held)] == [REASON]


def test_more_than_a_page_is_released_whole(one_file):
    keys = [f"k{n:04}" for n in range(1234)]
    one_file.park(*keys)
    assert one_file.run("release", "--all", "--yes").out == "released 1,234 deletes\n"
    assert sorted(key for one in released(one_file) for key in one.keys) == keys
    assert still_held(one_file) == []


@pytest.mark.parametrize("verb", ["release", "discard"])
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--yes"], "--all, --include"),
        (["--yes", "--route", ROUTE], "--all, --include"),
        (["--yes", "--all", "--include", "a"], "--all, --include"),
        (["--all"], "--yes"),
        (["--include", "a"], "--yes"),
    ],
)
def test_without_a_choice_or_anybody_to_ask_nothing_is_done(one_file, verb, options, words):
    one_file.park("a")
    said = one_file.run(verb, *options)
    assert (said.code, said.out) == (2, "")
    assert words in said.err
    assert len(said.err.splitlines()) == 1
    assert (released(one_file), still_held(one_file)) == ([], [item("a")])


@pytest.mark.parametrize("verb", ["release", "discard"])
def test_a_dry_run_shows_which_and_does_nothing(desk, verb):
    desk.park("a", "b", "keep")
    said = desk.run(verb, "--include", "[ab]", "--dry-run")
    assert said.code == 0
    assert sorted(said.lines[:-1]) == [f"{ROUTE}: a: {REASON}", f"{ROUTE}: b: {REASON}"]
    assert said.lines[-1] == f"would {verb} 2 deletes"
    assert (released(desk), len(still_held(desk))) == ([], 3)


def test_what_is_no_delete_is_not_released_and_does_not_stop_the_others(desk):
    desk.held.send([Outgoing("rubbish"), Outgoing(encode(RangeItem(ROUTE)))])
    desk.park("a")
    said = desk.run("release", "--all", "--yes")
    assert said.code == 1
    assert "2 messages of another kind stayed" in said.err
    assert released(desk) == [item("a", released=True)]
    assert len(contents(desk.held)) == 2
    assert "poison: " in desk.run("held").out


class Unwilling:
    """A queue that does not take, or does not let go of, what it has."""

    def __init__(self, queue, *, refuses):
        self.name = queue.name
        self._queue = queue
        self._refuses = refuses

    def __getattr__(self, name):
        if name == self._refuses:
            return self._fail
        return getattr(self._queue, name)

    def _fail(self, messages):
        raise QueueError(f"{self.name}: no answer")


@pytest.mark.parametrize("refuses", ["send", "delete"])
def test_a_release_that_breaks_off_loses_no_delete(one_file, refuses):
    """Sent first, deleted afterwards: at the worst there are two of it."""
    one_file.park("a", "b")
    work = Unwilling(one_file.queues.items, refuses=refuses)
    decision = Decision(Choice(True, (), None), one_file.held, work)
    with pytest.raises(QueueError), looking(Unwilling(one_file.held, refuses=refuses), most=100) as look:
        decision.settle(next(look.batches()), look)
    assert still_held(one_file) == [item("a"), item("b")]
    assert len(released(one_file)) == (2 if refuses == "delete" else 0)


# discard


def test_what_is_discarded_is_gone_and_nothing_is_sent(desk):
    desk.park("a", "b")
    desk.held.send([Outgoing(encode(item("c", "d")), REASON)])
    said = desk.run("discard", "--include", "[bc]", "--yes")
    assert (said.code, said.out, said.err) == (0, "discarded 2 deletes\n", "")
    assert released(desk) == []
    assert sorted(still_held(desk), key=str) == [item("a"), item("d")]


def test_all_of_a_queue_can_be_discarded_rubbish_too_but_not_that_of_one_route(one_file):
    one_file.park("a")
    one_file.held.send([Outgoing("rubbish")])
    assert one_file.run("discard", "--all", "--route", ROUTE, "--yes").code == 0
    assert bodies(one_file.held) == ["rubbish"]
    assert one_file.run("discard", "--all", "--yes").code == 0
    assert bodies(one_file.held) == []


# The question


def at_a_terminal(desk, answer, *arguments, before=lambda: None):
    """Runs the command with a terminal to ask at. before: done when the question is there, ahead of the answer."""
    master, terminal = pty.openpty()
    command = [sys.executable, "-m", "replicator", *arguments]
    environment = {**os.environ, "QUEUE_URL": desk.text, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, stdin=terminal, stdout=subprocess.PIPE) as process:
        try:
            out = b""
            while b"[y/N]:" not in out and (more := os.read(process.stdout.fileno(), 1000)):
                out += more
            before()
            os.write(master, answer.encode())
            out += process.communicate(timeout=SECONDS)[0]
        finally:
            process.kill()
            os.close(master)
            os.close(terminal)
    return process.returncode, out.decode()


def test_who_says_no_changes_nothing(one_file):
    one_file.park(*(f"k{n:02}" for n in range(25)))
    code, out = at_a_terminal(one_file, "n\n", "release", "--all")
    assert code == 0
    assert "k00" in out
    assert "... and 5 messages more" in out
    assert "Release 25 deletes? [y/N]" in out
    assert "nothing was done" in out
    assert (released(one_file), len(still_held(one_file))) == ([], 25)


def test_who_says_yes_releases_what_was_shown(one_file):
    one_file.park("a", "b")
    code, out = at_a_terminal(one_file, "y\n", "release", "--all")
    assert code == 0
    assert out.endswith("released 2 deletes\n")
    assert len(released(one_file)) == 2


def test_where_nothing_matches_nobody_is_asked(one_file):
    one_file.park("a")
    assert at_a_terminal(one_file, "y\n", "discard", "--include", "x") == (0, "nothing to discard\n")


def test_what_is_parked_after_the_question_is_not_released(one_file):
    one_file.park("shown")
    code, out = at_a_terminal(one_file, "y\n", "release", "--all", before=lambda: one_file.park("later"))
    assert (code, out.splitlines()[-1].endswith("released 1 delete")) == (0, True)
    assert released(one_file) == [item("shown", released=True)]
    assert still_held(one_file) == [item("later")]


# Queues that are not there


def test_a_queue_without_a_hold_queue_is_named(moto_endpoint, capsys):
    with desk_of_sqs(moto_endpoint, capsys) as desk, pytest.MonkeyPatch.context() as environment:
        environment.delenv("HOLD_QUEUE_URL")  # and back before the desk takes it away
        for arguments in (["held"], ["release", "--all", "--yes"], ["discard", "--all", "--yes"]):
            said = desk.run(*arguments)
            assert (said.code, said.out) == (2, "")
            assert "HOLD_QUEUE_URL" in said.err


def test_no_queue_is_named(one_file, monkeypatch):
    monkeypatch.delenv("QUEUE_URL")
    said = one_file.run("held")
    assert said.code == 2
    assert "--queue" in said.err
    assert "QUEUE_URL" in said.err


def test_a_file_that_is_not_there_is_not_made(one_file, tmp_path):
    said = one_file.run("held", "--queue", tmp_path / "no-such.db")
    assert said.code == 2
    assert "no-such.db" in said.err
    assert not (tmp_path / "no-such.db").exists()
