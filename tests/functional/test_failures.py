"""`replicator failures` and `redrive`: what finally failed is shown with key and reason, and sent back when asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from replicator.cli.failures import Redriven
from replicator.items import KeysItem, RangeItem, encode
from replicator.queues.letters import read_letter
from replicator.queues.looking import looking
from replicator.queues.opening import Queues
from replicator.queues.queue import Outgoing
from tests.set_aside import ROUTE, bodies, contents, desk_of_file, desk_of_sqs

EVENTS = Path(__file__).parents[1] / "events"
REASON = "'a.txt': PutObject there/a.txt: AccessDenied"
RUBBISH = '{"what": "is this\\u202e"}'


def notification(key, bucket="here"):
    change = {"bucket": {"name": bucket}, "object": {"key": key}}
    return json.dumps({"Records": [{"eventSource": "aws:s3", "eventName": "ObjectCreated:Put", "s3": change}]})


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


def fail(desk, *bodies, reason=REASON):
    desk.dead_letters.send([Outgoing(body, reason) for body in bodies])


def ids(desk):
    """The ids of the dead letters, by their bodies."""
    return {one.body: one.message_id for one in contents(desk.dead_letters)}


# failures


def test_it_lists_key_bucket_reason_and_id_and_takes_nothing_away(desk):
    fail(desk, notification("a+b.txt"), encode(KeysItem(ROUTE, ("k1", "k2"))))
    before = bodies(desk.dead_letters)
    for _ in range(2):
        said = desk.run("failures")
        assert (said.code, said.err) == (0, "")
        assert sorted(
            line.split(" ", 3)[-1].split(" ", 1)[-1] for line in map(str.strip, map(squeezed, said.lines))
        ) == [
            f"{ROUTE}: k1, k2: {REASON}",
            f"bucket here: a b.txt: {REASON}",
        ]
    assert all(one in squeezed(said.out) for one in ids(desk).values())
    assert bodies(desk.dead_letters) == before


def squeezed(text):
    """With one blank where there are several."""
    return " ".join(text.split())


def test_it_lists_for_programs(desk):
    fail(desk, notification("a"), encode(RangeItem(ROUTE, "b", None)), RUBBISH)
    listed = {one["kind"]: one for one in desk.run("failures", "--json").json}
    assert {kind: (one["route"], one["bucket"], one["keys"]) for kind, one in listed.items()} == {
        "notification": (None, "here", ["a"]),
        "range": (ROUTE, None, []),
        "poison": (None, None, []),
    }
    assert listed["range"]["about"] == "every key after 'b' up to the end"
    assert listed["notification"]["reason"] == REASON
    assert listed["notification"]["received"] >= 1
    assert listed["notification"]["since"].endswith("Z")


def test_what_the_queue_itself_moved_has_no_reason_but_how_often_it_was_given_out(desk):
    fail(desk, notification("a"), reason="")
    (one,) = desk.run("failures", "--json").json
    assert one["reason"] is None
    assert "not told: was given out 2 times; the log says" in desk.run("failures").out


def test_poison_shows_why_and_how_it_begins_on_one_line(desk):
    fail(desk, RUBBISH, "x" * 1000)
    said = desk.run("failures")
    assert len(said.lines) == 2
    assert "poison: no known shape of notification" in said.out
    assert "is this\\\\u202e" in said.out
    assert "x" * 80 in said.out
    assert "x" * 81 not in said.out


def test_why_poison_was_set_aside_is_said_once_unless_it_is_something_else(one_file):
    fail(one_file, "x", reason="poison: not JSON: Expecting value at character 0")
    said = one_file.run("failures").out
    assert (said.count("poison: "), said.count("not JSON: Expecting value")) == (1, 1)
    fail(one_file, "y", reason="poison: of a newer version")
    assert "begins with 'y': poison: of a newer version" in one_file.run("failures").out


def test_no_dead_letters_are_said(desk):
    assert desk.run("failures").out == "no dead letters\n"


def test_it_says_when_there_are_more_than_it_was_to_list(one_file):
    fail(one_file, *(notification(f"k{n}") for n in range(12)))
    said = one_file.run("failures", "--limit", 11)
    assert len(said.lines) == 11
    assert "there are more than 11" in said.err


# redrive


def test_all_are_sent_back_as_they_were_but_poison(desk):
    good = [notification("a"), encode(KeysItem(ROUTE, ("k",))), encode(RangeItem(ROUTE))]
    fail(desk, *good, RUBBISH)
    said = desk.run("redrive", "--all")
    assert said.code == 0
    assert said.out == "sent 3 dead letters back to be tried again\n"
    assert "1 message could not be read and stayed: see --poison" in said.err
    assert bodies(desk.queues.changes) == good[:1]
    assert bodies(desk.queues.items) == sorted(good[1:])
    assert {one.reason for queue in desk.queues.served for one in contents(queue)} == {""}
    assert bodies(desk.dead_letters) == [RUBBISH]


def test_poison_is_sent_back_when_it_is_asked_for(desk):
    fail(desk, RUBBISH)
    assert desk.run("redrive", "--all", "--poison").code == 0
    assert (bodies(desk.queues.changes), bodies(desk.dead_letters)) == ([RUBBISH], [])


def test_those_with_a_key_that_matches_are_sent_back_whole(desk):
    two = encode(KeysItem(ROUTE, ("logs/1", "data/1")))
    fail(desk, notification("logs/2"), two, notification("data/2"), encode(RangeItem(ROUTE)))
    assert desk.run("redrive", "--include", "logs/*").code == 0
    assert (bodies(desk.queues.changes), bodies(desk.queues.items)) == ([notification("logs/2")], [two])
    assert len(contents(desk.dead_letters)) == 2


def test_the_one_with_an_id_is_sent_back(desk):
    fail(desk, *(notification(f"k{n}") for n in range(5)))
    said = desk.run("redrive", "--id", ids(desk)[notification("k3")])
    assert (said.code, said.err) == (0, "")
    assert bodies(desk.queues.changes) == [notification("k3")]
    assert len(contents(desk.dead_letters)) == 4


def test_an_id_that_is_not_there_is_named(desk):
    fail(desk, notification("a"))
    said = desk.run("redrive", "--id", "987654")
    assert said.code == 1
    assert "--id 987654: no such dead letter" in said.err
    assert bodies(desk.queues.changes) == []


def test_poison_with_an_id_needs_the_word_as_well(one_file):
    fail(one_file, RUBBISH)
    said = one_file.run("redrive", "--id", ids(one_file)[RUBBISH])
    assert said.code == 1
    assert "--poison" in said.err
    assert bodies(one_file.queues.changes) == []


def test_a_dry_run_shows_which_and_does_nothing(desk):
    fail(desk, notification("a"), notification("b"))
    said = desk.run("redrive", "--include", "a", "--dry-run")
    assert said.code == 0
    assert "bucket here: a: " in said.lines[0]
    assert said.lines[1].startswith("would send 1 dead letter ")
    assert (bodies(desk.queues.changes), len(contents(desk.dead_letters))) == ([], 2)


@pytest.mark.parametrize("options", [[], ["--poison"], ["--all", "--id", "1"], ["--include", "a", "--id", "1"]])
def test_without_a_choice_nothing_is_done(one_file, options):
    fail(one_file, notification("a"))
    said = one_file.run("redrive", *options)
    assert (said.code, said.out) == (2, "")
    assert "--all, --include, --id" in said.err
    assert len(contents(one_file.dead_letters)) == 1


def test_more_than_a_page_is_sent_back_whole(one_file):
    sent = [notification(f"k{n:04}") for n in range(1234)]
    fail(one_file, *sent)
    assert one_file.run("redrive", "--all").code == 0
    assert bodies(one_file.queues.changes) == sent
    assert bodies(one_file.dead_letters) == []


def test_what_a_queue_gave_out_too_often_is_found_with_its_reason_and_may_be_tried_again(one_file):
    """The whole way: twelve tries, the dead letters, back to the changes."""
    changes = one_file.queues.changes
    changes.send([Outgoing(notification("a"))])
    for _ in range(12):
        (message,) = changes.receive(1, wait=0)
        changes.put_off([(message, 0)])
    assert changes.receive(1, wait=0) == []
    assert "received 12 times" in one_file.run("failures").out
    assert one_file.run("redrive", "--all").code == 0
    assert [one.receive_count for one in contents(changes)] == [1]


class FailsAtOnce:
    """The queue of changes of a mirror that sets aside at once what it is sent."""

    name = "changes"

    def __init__(self, dead_letters):
        self.dead_letters = dead_letters
        self.sent = 0

    def send(self, messages):
        self.sent += len(messages)
        self.dead_letters.send([Outgoing(one.body, "failed again") for one in messages])


def test_what_fails_again_at_once_does_not_go_round_for_ever(one_file):
    changes = FailsAtOnce(one_file.dead_letters)
    fail(one_file, notification("a"), notification("b"))
    with looking(one_file.dead_letters, most=1000, wait=0) as look:
        done = Redriven(Queues(changes), look, poison=False, dry_run=False)
        for batch in look.batches():
            done.take([read_letter(one) for one in batch])
    assert (changes.sent, done.again) == (2, 2)
    assert [one.reason for one in contents(one_file.dead_letters)] == ["failed again"] * 2


def test_a_queue_without_dead_letters_is_named(moto_endpoint, capsys):
    with desk_of_sqs(moto_endpoint, capsys) as desk, pytest.MonkeyPatch.context() as environment:
        environment.delenv("DEAD_LETTERS_URL")  # and back before the desk takes it away
        for arguments in (["failures"], ["redrive", "--all"]):
            said = desk.run(*arguments)
            assert (said.code, said.out) == (2, "")
            assert "DEAD_LETTERS_URL" in said.err
            assert len(said.err.splitlines()) == 1
