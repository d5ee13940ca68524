"""What a run would cost, against sums done by hand."""

from __future__ import annotations

import pytest

from replicator.bulk.pricing import PAGE, PASSES, Requests, internet_price, region_price
from replicator.copying import SMALL
from replicator.model import Did, GiB, MiB, Outcome
from replicator.reading import WINDOW


def copied(size, parts=1):
    return Outcome("key", "to", Did.COPIED, "", bytes=size, parts=parts)


COPIES = {
    "empty": (copied(0), False, 1, 1),
    "small": (copied(SMALL), False, 1, 1),
    "larger than small": (copied(SMALL + 1), False, 3 + -(-(SMALL + 1) // WINDOW), 1),
    "nine windows and a bit": (copied(9 * WINDOW + 1), False, 13, 1),
    "in ten parts": (copied(80 * MiB, 10), False, 14, 12),
    "in ten parts inside one service": (copied(80 * MiB, 10), True, 4, 12),
    "inside one service": (copied(GiB), True, 1, 1),
}


@pytest.mark.parametrize("name", COPIES)
def test_the_requests_of_a_copy(name):
    outcome, server_side, reads, writes = COPIES[name]
    requests = Requests()
    requests.add(outcome, server_side=server_side)
    assert (requests.reads, requests.writes, requests.deletes) == (reads, writes, 0)
    assert (requests.copies, requests.bytes) == (1, outcome.bytes)


@pytest.mark.parametrize(
    ("did", "expected"),
    [
        (Did.METADATA, Requests(reads=4, writes=1)),
        (Did.TAGS, Requests(reads=4, writes=1)),
        (Did.DELETED, Requests(reads=2, writes=1, deletes=1)),
        (Did.IN_SYNC, Requests()),
        (Did.KEPT, Requests()),
        (Did.FAILED, Requests()),
        (Did.DIFFERS, Requests()),
    ],
)
def test_the_requests_of_everything_else(did, expected):
    requests = Requests()
    requests.add(Outcome("key", "to", did, "", bytes=7), server_side=False)
    assert requests == expected


@pytest.mark.parametrize(("objects", "pages"), [(0, 1), (1, 1), (PAGE - 1, 1), (PAGE + 1, 2), (10 * PAGE + 5, 11)])
def test_listings_take_a_request_a_page_and_side_and_pass(objects, pages):
    requests = Requests()
    requests.add_listings([objects, 0])
    assert requests.writes == PASSES * (pages + 1)


def test_a_million_small_objects():
    requests = Requests()
    for _ in range(1000):
        requests.add(copied(1000), server_side=False)
    assert requests.price * 1000 == pytest.approx(1_000_000 * (0.005 + 0.0004) / 1000)
    assert requests.bytes == 1_000_000


@pytest.mark.parametrize(
    ("gibs", "dollars"),
    [
        (0, 0),
        (1, 0.09),
        (10 * 1024, 921.6),
        (10 * 1024 + 1, 921.6 + 0.085),
        (50 * 1024, 921.6 + 40 * 1024 * 0.085),
        (150 * 1024, 921.6 + 40 * 1024 * 0.085 + 100 * 1024 * 0.07),
        (500 * 1024, 921.6 + 40 * 1024 * 0.085 + 100 * 1024 * 0.07 + 350 * 1024 * 0.05),
    ],
)
def test_the_internet_gets_cheaper_in_steps(gibs, dollars):
    assert internet_price(gibs * GiB) == pytest.approx(dollars)


def test_another_region_costs_the_same_for_each_byte():
    assert region_price(0) == 0
    assert region_price(512 * MiB) == pytest.approx(0.01)
