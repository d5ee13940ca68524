"""The brake on deletes of the live mirror: thousands of deletes at once, through the Lambda's handler.

python -m tests.functional.test_live_brake [DELETES]
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from replicator.items import KeysItem, decode
from tests.deployed import Deployed, deployed, stay_within_the_hour
from tests.servers import moto_quick, rclone

ROUTE = "default"
REMOVED, CREATED = "ObjectRemoved:Delete", "ObjectCreated:Put"


def old_key(number):
    return f"dir {number % 7}/old+{number:05} ü"


def new_key(number):
    return f"dir {number % 7}/new+{number:05}"


class Flood:
    """Many deletes at once, with copies among them, and what a person then decides of those that were parked."""

    def __init__(self, live: Deployed, deletes: int, copies: int) -> None:
        self.live = live
        self.old = {old_key(n) for n in range(deletes)}
        self.new = {new_key(n) for n in range(copies)}
        self.parked: list[str] = []
        self.reasons: set[str] = set()

    def fill(self):
        for n, key in enumerate(sorted(self.old)):
            self.live.put_both(key, b"old %d" % n)

    def run(self):
        """Removes everything at once, and mirrors what the source tells of it."""
        live = self.live
        live.remove(sorted(self.old))
        for key in sorted(self.new):
            live.put(key, key.encode())
        events = [(REMOVED, key) for key in self.old] + [(CREATED, key) for key in self.new]
        random.Random(7).shuffle(events)
        live.tell(events)
        live.pump.drain()
        held = live.messages(live.held)
        self.reasons = {one.reason for one in held}
        for item in (decode(one.body) for one in held):
            assert isinstance(item, KeysItem)
            assert (item.route, item.released, len(item.keys)) == (ROUTE, False, 1)
            self.parked += item.keys

    def decide(self, *, again, forget):
        """Writes some of the parked keys again, discards others, releases the rest, and mirrors that."""
        live = self.live
        for key in again:
            live.put(key, b"written again")
        for key in forget:
            done = live.command("discard", "--queue", live.inbox, "--include", key, "--yes")
            assert (done.returncode, done.stdout) == (0, "discarded 1 delete\n"), done
        done = live.command("release", "--queue", live.inbox, "--all", "--yes")
        assert (done.returncode, done.stderr) == (0, ""), done
        assert done.stdout == f"released {len(self.parked) - len(forget):,} deletes\n"
        live.pump.drain()


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    with moto_quick.serve(tmp_path_factory.mktemp("moto")) as endpoint:
        yield endpoint


@pytest.fixture
def live(services, rclone_endpoint, second_rclone_endpoint):
    with deployed(services, rclone_endpoint, second_rclone_endpoint, MAX_DELETES_PER_HOUR="3") as live:
        yield live


def test_of_too_many_deletes_at_once_the_budget_is_made_and_what_is_parked_waits_for_a_person(live):
    live.load(MAX_DELETES_PER_HOUR="100")
    flood = Flood(live, 600, 60)
    flood.fill()
    stay_within_the_hour(120)
    flood.run()
    check_parked(flood, budget=100)
    again, forget = flood.parked[:2], flood.parked[2:4]
    flood.decide(again=again, forget=forget)
    check_decided(flood, again=again, forget=forget, budget=100)


def check_parked(flood, *, budget):
    live = flood.live
    there = live.keys()
    assert flood.new <= there  # copies of the same batches go on
    assert len(flood.old - there) == budget
    assert sorted(flood.parked) == sorted(flood.old & there)
    spent, later = f"more than {budget:,} deletes of route {ROUTE} since ", "more deletes wait for a person than"
    assert {reason for reason in flood.reasons if not reason.startswith((spent, later))} == set()
    assert any(reason.startswith(spent) for reason in flood.reasons)
    assert live.taken() == [budget]
    assert (live.waiting(), live.waiting(live.dead_letters), live.pump.failed_invocations) == (0, 0, 0)
    said = live.metrics()
    assert (said["Deleted"], said["Held"], said["Copied"]) == (budget, len(flood.parked), len(flood.new))
    assert said["Failed"] == said["FailedMessages"] == 0


def check_decided(flood, *, again, forget, budget):
    live = flood.live
    assert live.keys() == flood.new | set(again) | set(forget)
    assert live.keys("source") == flood.new | set(again)
    for key in again:
        body = live.target.get_object(Bucket=live.target_bucket, Key=key)["Body"].read()
        assert body == b"written again"
    assert [live.waiting(queue) for queue in (live.inbox, live.held, live.dead_letters)] == [0, 0, 0]
    assert live.taken() == [budget]  # what a person has let pass is not of the budget
    assert live.metrics()["Deleted"] == len(flood.old) - len(again) - len(forget)


def test_a_delete_that_is_told_of_again_while_it_is_parked_is_parked_twice_and_made_once(live):
    stay_within_the_hour(60)
    flood = Flood(live, 5, 0)
    flood.fill()
    flood.run()
    assert len(flood.parked) == 2
    live.tell([(REMOVED, key) for key in flood.parked] * 2)
    live.pump.drain()
    assert live.waiting() == 0
    held = sorted(key for one in live.messages(live.held) for key in decode(one.body).keys)
    assert held == sorted(flood.parked * 2)  # those of one batch are one
    assert live.metrics()["Held"] == 4
    done = live.command("release", "--queue", live.inbox, "--all", "--yes")
    assert done.returncode == 0, done
    live.pump.drain()
    assert (live.keys(), live.metrics()["Deleted"]) == (set(), 5)
    assert [live.waiting(queue) for queue in (live.inbox, live.held, live.dead_letters)] == [0, 0, 0]


def test_deletes_of_what_no_target_has_cost_nothing_of_the_budget(live):
    stay_within_the_hour(60)
    live.put_both("key", b"x")
    live.remove(["key"])
    live.tell([(REMOVED, f"never was {n}") for n in range(8)])
    live.tell([(REMOVED, "key")])
    live.pump.drain()
    assert (live.keys(), live.taken()) == (set(), [1])


def test_without_a_table_that_answers_no_delete_is_made_and_all_are_parked_with_that_reason(live):
    live.dynamodb.delete_table(TableName=live.table)
    flood = Flood(live, 4, 4)
    flood.fill()
    flood.run()
    assert live.keys() == flood.old | flood.new
    assert sorted(flood.parked) == sorted(flood.old)
    (reason,) = flood.reasons
    assert live.table in reason
    assert live.waiting() == 0


def main():
    deletes = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    with tempfile.TemporaryDirectory(prefix="brake-") as name, ExitStack() as stack:
        folders = [Path(name) / place for place in ("services", "here", "there")]
        for folder in folders:
            folder.mkdir()
        services = stack.enter_context(moto_quick.serve(folders[0]))
        here, there = (stack.enter_context(rclone.serve(folder)) for folder in folders[1:])
        live = stack.enter_context(deployed(services, here, there))
        flood = Flood(live, deletes, deletes // 10)
        flood.fill()
        stay_within_the_hour(300)
        began = time.monotonic()
        flood.run()
        tell("deleted at once", flood, began)
        check_parked(flood, budget=min(1000, deletes))
        again, forget = flood.parked[:10], flood.parked[10:13]
        live.counter.clear()
        began, before = time.monotonic(), live.invoked.used
        flood.decide(again=again, forget=forget)
        tell("released", flood, began, before)
        check_decided(flood, again=again, forget=forget, budget=min(1000, deletes))


def tell(what, flood, began, before=(0, 0.0, 0.0)):
    live, said = flood.live, flood.live.metrics()
    invocations, seconds, cpu = (one - other for one, other in zip(live.invoked.used, before, strict=True))
    print(
        f"{what}: {len(flood.old):,} keys; so far {said['Deleted']:,.0f} deleted, {said['Held']:,.0f} parked, "
        f"{said['Copied']:,.0f} copied; {invocations:,} invocations, {seconds:.1f} s and {cpu:.1f} s of CPU together; "
        f"{time.monotonic() - began:.0f} s with the queues; requests to the table: {dict(live.counter)}",
        flush=True,
    )


if __name__ == "__main__":
    main()
