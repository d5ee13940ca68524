"""--max-rps and --bandwidth: what an endpoint is asked by all processes together."""

from __future__ import annotations

import os
from contextlib import contextmanager
from itertools import pairwise

import pytest

from replicator.cli.keys import BATCH
from replicator.model import MiB
from tests.fakes.watched_s3 import watched
from tests.runs import migrate_between

PAUSE = 0.1
"""Seconds of the allowance that may be used at once (replicator.s3.pace.AHEAD), by each side's first requests."""


def migrate(source, target, *options, **variables):
    return migrate_between(source.url, target.url, *options, **variables)


def seconds_of(log):
    return log[-1].at - log[0].at


def most_in_a_second(log):
    times = [one.at for one in log]
    return max(sum(1 for other in times[n:] if other < at + 1) for n, at in enumerate(times))


@contextmanager
def two_batches(tmp_path, missing=(), size=1):
    """Source, target, and a list of as many keys as two workers get at once; the target lacks some of them."""
    keys = [f"{n:04}" for n in range(2 * BATCH)]
    (tmp_path / "keys").write_text("\n".join(keys))
    with watched() as source, watched() as target:
        source.objects = {key: os.urandom(size) if key in missing else b"x" for key in keys}
        target.objects = {key: b"x" for key in keys if key not in missing}
        yield source, target


@pytest.mark.parametrize(("processes", "how"), [(1, "option"), (2, "option"), (2, "variable")])
def test_requests_a_second_are_those_of_all_processes_together(tmp_path, processes, how):
    limit = 250
    given = (["--max-rps", limit], {}) if how == "option" else ([], {"MAX_RPS": str(limit)})
    with two_batches(tmp_path) as (source, target):
        done = migrate(source, target, "--keys", tmp_path / "keys", "--processes", processes, *given[0], **given[1])
        assert (done.returncode, done.stderr) == (0, "")
        for side in (source, target):
            log = [one for one in side.log if one.key]
            assert len(log) >= 2 * BATCH
            wanted = len(log) / limit
            assert 0.75 * wanted < seconds_of(log) + PAUSE < 1.25 * wanted + 0.5
            assert most_in_a_second(log) < 1.25 * limit


def test_a_limit_is_that_of_each_endpoint_not_of_both():
    limit = 80
    with watched() as source, watched() as target:
        source.objects = {f"{n:04}": b"x" for n in range(160)}
        assert migrate(source, target, "--processes", 2, "--max-rps", limit).returncode == 0
        together = sorted([*source.log, *target.log], key=lambda one: one.at)
        assert len(together) > 320
        assert seconds_of(together) < 0.75 * len(together) / limit


def test_targets_at_one_endpoint_share_its_limit():
    limit = 80
    with watched() as source, watched() as server:
        source.objects = {f"{n:04}": b"x" for n in range(100)}
        done = migrate(source, server, "other", "--processes", 2, "--max-rps", limit)
        assert done.returncode == 0, done.stderr
        assert sum(one.method == "PUT" for one in server.log) == 200
        assert most_in_a_second(server.log[1:]) < 1.25 * limit


@pytest.mark.parametrize("processes", [1, 2])
def test_bytes_a_second_are_those_of_all_processes_together(tmp_path, processes):
    size, missing = 128 * 1024, [f"{n:04}" for n in (*range(20), *range(BATCH, BATCH + 20))]
    with two_batches(tmp_path, missing, size) as (source, target):
        options = ("--keys", tmp_path / "keys", "--processes", processes)
        done = migrate(source, target, *options, "--bandwidth", "2M")
        assert (done.returncode, done.stderr) == (0, "")
        assert target.objects == source.objects
        wanted = size * len(missing) / (2 * MiB)
        puts = [one for one in target.log if one.method == "PUT"]
        assert sum(one.size for one in puts) == size * len(missing)
        # The first object passes at once, and what the allowance held.
        assert 0.75 * wanted < seconds_of(puts) + size / (2 * MiB) + PAUSE < 1.25 * wanted + 0.5


def test_a_run_without_limits_is_not_held_up():
    with watched() as source, watched() as target:
        source.objects = {f"{n:04}": b"x" for n in range(200)}
        assert migrate(source, target, "--processes", 2).returncode == 0
        assert seconds_of(source.log) < 200 / 80


def test_requests_do_not_come_in_bursts():
    with watched() as source, watched() as target:
        source.objects = {f"{n:04}": b"x" for n in range(100)}
        assert migrate(source, target, "--processes", 2, "--max-rps", 50).returncode == 0
        puts = [one.at for one in target.log if one.method == "PUT"]
        assert sum(later - sooner > 0.005 for sooner, later in pairwise(puts)) > 0.7 * len(puts)


@pytest.mark.parametrize(
    ("options", "variables", "names"),
    [
        (["--max-rps", "0"], {}, ["--max-rps"]),
        (["--max-rps", "-5"], {}, ["--max-rps"]),
        (["--max-rps", "many"], {}, ["--max-rps"]),
        (["--max-rps", "2.5"], {}, ["--max-rps"]),
        (["--max-rps", "10000000"], {}, ["--max-rps", "MAX_RPS"]),
        ([], {"MAX_RPS": "0"}, ["MAX_RPS"]),
        ([], {"MAX_RPS": "many"}, ["MAX_RPS"]),
        (["--bandwidth", "0"], {}, ["--bandwidth", "BANDWIDTH"]),
        (["--bandwidth", "20"], {}, ["--bandwidth", "BANDWIDTH"]),
        (["--bandwidth", "512K"], {}, ["--bandwidth", "BANDWIDTH"]),
        (["--bandwidth", "-1M"], {}, ["--bandwidth", "BANDWIDTH"]),
        (["--bandwidth", "1.5M"], {}, ["--bandwidth", "BANDWIDTH"]),
        (["--bandwidth", "fast"], {}, ["--bandwidth", "BANDWIDTH"]),
        (["--bandwidth", "10T"], {}, ["--bandwidth", "BANDWIDTH"]),
        ([], {"BANDWIDTH": "10Mbit"}, ["BANDWIDTH"]),
        ([], {"PROCESSES": "none"}, ["PROCESSES"]),
    ],
)
def test_a_bad_limit_is_named_in_one_line(options, variables, names):
    with watched() as source, watched() as target:
        source.objects = {"a": b"a"}
        done = migrate(source, target, *options, **variables)
        assert (done.returncode, done.stdout) == (2, "")
        (line,) = done.stderr.splitlines()
        assert [name for name in names if name in line]
        given = options[-1] if options else next(iter(variables.values()))
        assert given in line
        assert source.log == target.log == []


@pytest.mark.parametrize("text", ["1M", "1m", "20MB", "20MiB/s", "1G", "2000000", "2048K"])
def test_a_bandwidth_may_be_written_in_several_ways(text):
    with watched() as source, watched() as target:
        source.objects = {"a": b"a"}
        done = migrate(source, target, "--bandwidth", text)
        assert (done.returncode, done.stderr) == (0, "")
        assert target.objects == source.objects
