"""--max-rps and --bandwidth: what an endpoint is asked by all processes together.

How fast a run may be is proved here, by when its requests came at the earliest; that it need not be slower, and that
requests are spread evenly, depends on the machine, and is proved with a clock of their own in tests/unit/test_pace.py.
"""

from __future__ import annotations

import os
from contextlib import contextmanager

import pytest

from replicator.cli.keys import BATCH
from replicator.model import MiB
from replicator.s3.pace import AHEAD
from tests.fakes.watched_s3 import watched
from tests.runs import migrate_between

EARLY = 0.05
"""Seconds that a timer of the event loop may be early by, at the most."""


def migrate(source, target, *options, **variables):
    return migrate_between(source.url, target.url, *options, **variables)


def seconds_until(side, asked):
    """From the check of a side, which waits for nothing and is answered before anything else is asked, to these."""
    first = side.log[0]
    assert (first.method, first.key) == ("GET", "")
    return max(one.at for one in asked) - first.at


def least_seconds(units, rate):
    """What so many units take at that rate, if those of the allowance that nobody used come first."""
    return units / rate - AHEAD - EARLY


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
    limit = 150
    given = (["--max-rps", limit], {}) if how == "option" else ([], {"MAX_RPS": str(limit)})
    with two_batches(tmp_path) as (source, target):
        done = migrate(source, target, "--keys", tmp_path / "keys", "--processes", processes, *given[0], **given[1])
        assert (done.returncode, done.stderr) == (0, "")
        for side in (source, target):
            log = [one for one in side.log if one.key]
            assert len(log) >= 2 * BATCH
            assert seconds_until(side, log) > least_seconds(len(log) - 1, limit)


@contextmanager
def sharing(tmp_path):
    """Source, target, and the names of the files by which processes share limits, once something is written."""
    names = set()

    def look(asked):
        if asked.method == "PUT":
            names.update(path.name for path in (tmp_path / "shared").rglob("*"))

    (tmp_path / "shared").mkdir()
    with watched() as source, watched(look) as target:
        source.objects = {f"{n:04}": b"x" for n in range(100)}
        yield source, target, names


def files_of(kind, names):
    return len([name for name in names if name.endswith(f".{kind}")])


@pytest.mark.parametrize(("option", "kind"), [("--max-rps=500", "requests"), ("--bandwidth=1G", "bytes")])
def test_a_limit_is_that_of_each_endpoint_not_of_both(tmp_path, option, kind):
    with sharing(tmp_path) as (source, target, names):
        assert migrate(source, target, "--processes", 2, option, TMPDIR=str(tmp_path / "shared")).returncode == 0
        assert files_of(kind, names) == 2
        assert target.objects == source.objects


def test_targets_at_one_endpoint_share_its_limit(tmp_path):
    limit = 80
    with sharing(tmp_path) as (source, server, names):
        options = ("other", "--processes", 2, "--max-rps", limit)
        done = migrate(source, server, *options, TMPDIR=str(tmp_path / "shared"))
        assert done.returncode == 0, done.stderr
        puts = [one for one in server.log if one.method == "PUT"]
        assert len(puts) == 2 * len(source.objects)
        assert seconds_until(server, puts) > least_seconds(len(puts) - 1, limit)
        assert files_of("requests", names) == 2


@pytest.mark.parametrize("processes", [1, 2])
def test_bytes_a_second_are_those_of_all_processes_together(tmp_path, processes):
    size, missing = 128 * 1024, [f"{n:04}" for n in (*range(20), *range(BATCH, BATCH + 20))]
    with two_batches(tmp_path, missing, size) as (source, target):
        options = ("--keys", tmp_path / "keys", "--processes", processes)
        done = migrate(source, target, *options, "--bandwidth", "2M")
        assert (done.returncode, done.stderr) == (0, "")
        assert target.objects == source.objects
        puts = [one for one in target.log if one.method == "PUT"]
        assert sum(one.size for one in puts) == size * len(missing)
        assert seconds_until(target, puts) > least_seconds(size * (len(missing) - 1), 2 * MiB)  # the first at once


def test_a_run_without_limits_is_not_held_up_by_any(tmp_path):
    with sharing(tmp_path) as (source, target, names):
        assert migrate(source, target, "--processes", 2, TMPDIR=str(tmp_path / "shared")).returncode == 0
        assert target.objects == source.objects
        assert names == set()


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
