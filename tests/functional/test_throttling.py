"""Services that refuse requests: a run ends equal, and does not storm them.

How often it is refused by one with a limit depends on the speed of the machine: that is in tests/unit/test_storms.py.
`python -m tests.functional.test_throttling 5000` tells the figures of a longer run.
"""

from __future__ import annotations

import sys
import time

import pytest

from tests.fakes.grudging_s3 import above_rate, by_chance, serving
from tests.runs import migrate_between


def migrate(source, target, *options):
    return migrate_between(source.url, target.url, *options, seconds=110)


def run(refuses, objects, *options):
    """One run between two such services: its process, the share of requests too many, and seconds."""
    with serving(refuses()) as source, serving(refuses()) as target:
        source.objects = {f"dir{n % 7}/{n:06}": f"{n}".encode() for n in range(objects)}
        began = time.monotonic()
        done = migrate(source, target, *options)
        seconds = time.monotonic() - began
        equal = source.objects == target.objects
        asked = source.asked + target.asked
    return done, equal, (asked["served"] + asked["refused"]) / asked["served"], asked["served"], seconds


def test_a_service_that_refuses_three_requests_in_ten_is_asked_little_more_than_it_must_be():
    done, equal, ratio, served, _ = run(lambda: by_chance(0.3), 600)
    assert done.returncode == 0, done.stderr
    assert equal
    assert served < 2 * 600 + 100  # nothing was served twice, but for listings
    assert ratio < 1.6
    assert "throttled requests" in done.stdout


@pytest.mark.parametrize("options", [[], ["--max-rps", "150"]], ids=["not known", "known"])
def test_a_run_to_a_service_with_a_limit_ends_well(options):
    done, equal, _, _, seconds = run(lambda: above_rate(200), 300, *options)
    assert done.returncode == 0, done.stderr
    assert equal
    assert not options or seconds > 300 / 150 - 0.5


if __name__ == "__main__":
    for name, refuses in (("30 % 503", lambda: by_chance(0.3)), ("200 requests/s", lambda: above_rate(200))):
        done, equal, ratio, served, seconds = run(refuses, int(sys.argv[1]))
        print(f"{name}: exit {done.returncode}, equal {equal}, {served} served, {ratio:.3f}x asked, {seconds:.0f} s")
        print(done.stdout, done.stderr[-500:])
