"""When a file is complete: what a path tells of it, and what is done where it tells nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st

from replicator.directory.beneath import Base
from replicator.errors import ConfigurationError, NoSuchBucket
from replicator.push.job_file import TIME_PATH, read_job_file
from replicator.push.moving import BATCH, SettledFiles
from replicator.push.only_one import InUse, only_one
from replicator.push.settle import Settle, TimePath
from tests.folders import age, put, unprivileged

NOW = 1_700_000_000.0


def local(*numbers):
    return datetime(*numbers).timestamp()  # noqa: DTZ001 - local time is what a path tells


def told(pattern, key):
    return TimePath(pattern).time_of(key)


# Patterns


def test_the_pattern_of_the_timed_uploader_tells_the_minute():
    assert told(TIME_PATH, "bern/2024/02/29/23/59-rain.dat") == local(2024, 2, 29, 23, 59)


def test_every_directive_tells_its_part_and_a_day_or_hour_counts_from_its_end():
    assert told("%Y%m%d%H%M%S", "20240229235958") == local(2024, 2, 29, 23, 59, 58)
    assert told("%S-%M-%H-%d-%m-%Y", "58-59-23-29-02-2024") == local(2024, 2, 29, 23, 59, 58)
    assert told("%Y-%m-%d", "2024-02-29") == local(2024, 3, 1)
    assert told("%H/%Y-%m-%d", "07/2024-02-29") == local(2024, 2, 29, 8)


OF_EXPRESSIONS = [".", "*", "+", "?", "[a-z]", "(x)", "|", "^", "$", "\\d", "\\", "#", "(?P<Y>", "\\1"]


@pytest.mark.parametrize("literal", [*OF_EXPRESSIONS, "\n", " ", "é"])
def test_all_else_stands_for_itself(literal):
    pattern = f"x{literal}%Y-%m-%d{literal}y"
    assert told(pattern, f"x{literal}2024-02-29{literal}y") == local(2024, 3, 1)
    for other in ("", "x", "a", "aa", literal + literal):
        if other != literal:
            assert told(pattern, f"x{other}2024-02-29{other}y") is None


@pytest.mark.parametrize("name", ["a", "ü b", "a.b", "2024", "-", "a\nb", "\udce4", "n" * 255])
def test_a_placeholder_is_any_part_of_a_name(name):
    assert told("{any}/%Y-%m-%d-{}", f"{name}/2024-02-29-{name}") == local(2024, 3, 1)


NOT_ONE_NAME = ["/2024-02-29-x", "a/b/2024-02-29-x", "a/2024-02-29-", "a/2024-02-29-x/y", "2024-02-29-x"]


@pytest.mark.parametrize("key", NOT_ONE_NAME)
def test_a_placeholder_is_neither_nothing_nor_several_names(key):
    assert told("{any}/%Y-%m-%d-{}", key) is None


DAYS = ["2024-13-01", "2024-00-01", "2024-02-30", "2023-02-29", "2024-02-31", "2024-04-31", "2024-01-00", "0000-01-01"]
HOURS = ["24:00:00", "25:00:00", "00:60:00", "00:00:60", "99:99:99"]


@pytest.mark.parametrize("key", [*(f"{day} 00:00:00" for day in DAYS), *(f"2024-01-01 {hour}" for hour in HOURS)])
def test_a_time_that_is_impossible_is_none(key):
    assert told("%Y-%m-%d %H:%M:%S", "2024-01-01 00:00:00") is not None
    assert told("%Y-%m-%d %H:%M:%S", key) is None


UNLIKE = [
    "2024-2-29",
    "24-02-29",
    "02024-02-29",
    " 2024-02-29",
    "2024-02-29\n",
    "-024-02-29",
    "+024-02-29",
    "2_24-02-29",
]
OTHER_DIGITS = ["２０２４-02-29", "٢٠٢٤-02-29", "2024-0²-29", "२०२४-02-29"]


@pytest.mark.parametrize("key", [*UNLIKE, *OTHER_DIGITS, "", "x", "2024-02-29/x", "x/2024-02-29"])
def test_a_path_that_is_not_like_the_pattern_tells_none(key):
    assert told("%Y-%m-%d", key) is None


REFUSED = {
    "": "%Y",
    "no time": "%Y",
    "%m/%d": "%Y",
    "%Y/%d": "%m",
    "%Y/%m": "%d",
    "%Y%m%d%Y": "%Y is not",
    "%Y%m%d%H%H": "%H is not",
    "%Y%m%d%j": "%j is not",
    "%y%m%d": "%y is not",
    "%Y%m%d%%": "%% is not",
    "%Y%m%d%é": "%é is not",
    "%Y%m%d%{x}": "%{ is not",
    "{%Y/%m/%d}": "%Y",
    "{%Y}%m%d": "%Y",
    "% Y%m%d": "%  is not",
}


@pytest.mark.parametrize("pattern", REFUSED)
def test_a_pattern_without_a_day_or_with_what_nobody_knows_is_refused(pattern):
    with pytest.raises(ConfigurationError, match="--time-path") as refused:
        TimePath(pattern)
    assert REFUSED[pattern] in str(refused.value)


@hypothesis.given(st.datetimes(datetime(1900, 1, 1), datetime(9000, 1, 1)))  # noqa: DTZ001
def test_any_time_is_told_to_the_second(time):
    whole = time.replace(microsecond=0)
    assert told("a/%Y/%m/%d/%H/%M/%S", whole.strftime(f"a/{whole.year:04}/%m/%d/%H/%M/%S")) == whole.timestamp()


@hypothesis.given(st.from_regex(r"\A[0-9]{4}/[0-9]{2}/[0-9]{2}/[0-9]{2}\Z"))
def test_no_number_is_an_error(key):
    time = told("%Y/%m/%d/%H", key)
    assert time is None or isinstance(time, float)


IN_ZONE = """
import json, os, sys, time
from replicator.push.settle import TimePath
os.environ["TZ"] = sys.argv[1]
time.tzset()
print(json.dumps([TimePath(sys.argv[2]).time_of(key) for key in sys.argv[3:]]))
"""


def told_in_zone(zone, pattern, key):
    command = [sys.executable, "-c", IN_ZONE, zone, pattern, key]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)[0]


@pytest.mark.parametrize(
    ("zone", "key", "seconds"),
    [
        ("UTC", "2024-07-01 12:00", 1719835200.0),
        ("CET-1CEST,M3.5.0,M10.5.0/3", "2024-07-01 12:00", 1719835200.0 - 7200),
        ("CET-1CEST,M3.5.0,M10.5.0/3", "2024-01-01 12:00", 1704110400.0 - 3600),
        ("CET-1CEST,M3.5.0,M10.5.0/3", "2024-10-27 02:30", 1729996200.0 - 7200),  # there twice: the first
        ("EST5", "2024-07-01 12:00", 1719835200.0 + 5 * 3600),
        ("XXX-14", "0001-01-01 00:00", None),
        ("XXX12", "9999-12-31 23:59", None),
    ],
)
def test_a_path_tells_local_time(zone, key, seconds):
    found = told_in_zone(zone, "%Y-%m-%d %H:%M", key)
    assert found == seconds or (seconds is None and isinstance(found, float))


@pytest.mark.parametrize(
    ("pattern", "key", "over"),
    [
        ("%Y-%m-%d %H", "2024-10-27 01", 1729987200.0),
        ("%Y-%m-%d %H", "2024-10-27 02", 1729994400.0),  # two hours long
        ("%Y-%m-%d", "2024-10-27", 1730070000.0),
        ("%Y-%m-%d %H", "2024-03-31 01", 1711846800.0),
        ("%Y-%m-%d", "2024-03-31", 1711922400.0),
    ],
)
def test_an_hour_or_day_in_which_clocks_are_changed_is_over_when_the_next_one_begins(pattern, key, over):
    """An hour too early, and what was appended after that was a new file of the same name."""
    assert told_in_zone("CET-1CEST,M3.5.0,M10.5.0/3", pattern, key) == over


# Settling


def test_a_file_is_complete_when_it_was_left_alone_for_so_long():
    assert Settle(30).settled_at("a", NOW) == NOW + 30
    assert Settle(0).settled_at("a", NOW) == NOW


def test_the_time_in_a_path_counts_instead_of_the_files_own():
    settle = Settle(30, TimePath("%Y-%m-%d"))
    assert settle.settled_at("2024-02-29", NOW) == local(2024, 3, 1) + 30


@pytest.mark.parametrize("key", ["other", "2024-13-01", "2024-02-29.part"])
def test_a_path_that_tells_no_time_is_a_path_like_any_other(key):
    assert Settle(30, TimePath("%Y-%m-%d")).settled_at(key, NOW) == NOW + 30


async def settled(base, settle, chosen=lambda key: True, now=NOW):
    files = SettledFiles(Base(base), settle, chosen, clock=lambda: now)
    batches = [list(batch) async for batch in files.keys()]  # noqa: SIM118
    assert all(0 < len(batch) <= BATCH for batch in batches)
    return [key for batch in batches for key in batch], files


async def test_files_are_left_until_they_are_settled_and_the_first_of_them_is_told(tmp_path):
    for key, seconds in {"old": 31, "exactly": 30, "young": 29, "younger": 1, "future": -100}.items():
        age(put(tmp_path, key), seconds, now=NOW)
    keys, files = await settled(tmp_path, Settle(30))
    assert keys == ["exactly", "old"]
    assert (files.left, files.next) == (3, NOW + 1)


async def test_without_a_time_to_settle_all_are_settled_but_those_of_the_future(tmp_path):
    for key, seconds in {"now": 0, "old": 1, "future": -1}.items():
        age(put(tmp_path, key), seconds, now=NOW)
    keys, files = await settled(tmp_path, Settle(0))
    assert (keys, files.left, files.next) == (["now", "old"], 1, NOW + 1)


async def test_where_nothing_is_left_there_is_no_next(tmp_path):
    assert (await settled(tmp_path, Settle(30)))[1].next == float("inf")


async def test_files_that_are_not_chosen_are_neither_settled_nor_left(tmp_path):
    for key, seconds in {"a": 100, "b": 100, "c": 0}.items():
        age(put(tmp_path, key), seconds, now=NOW)
    keys, files = await settled(tmp_path, Settle(30), lambda key: key == "a")
    assert (keys, files.left, files.next) == (["a"], 0, float("inf"))


async def test_the_time_in_a_path_counts_for_files_too(tmp_path):
    now = local(2024, 2, 29, 12, 0)
    for minute in ("11/58", "11/59", "12/00", "12/01"):
        age(put(tmp_path, f"bern/2024/02/29/{minute}-rain.dat"), 0, now=now)
    age(put(tmp_path, "bern/2024/13/29/11/59-rain.dat"), 0, now=now)
    keys, files = await settled(tmp_path, Settle(30, TimePath(TIME_PATH)), now=now)
    assert keys == ["bern/2024/02/29/11/58-rain.dat", "bern/2024/02/29/11/59-rain.dat"]
    assert (files.left, files.next) == (3, now + 30)


async def test_what_is_no_file_is_named_so_that_it_is_reported(tmp_path):
    put(tmp_path, "closed/file")
    put(tmp_path, "listed/file")
    (tmp_path / "link").symlink_to("nowhere")
    age(tmp_path / "link", 100, now=NOW)
    (tmp_path / "closed").chmod(0)
    (tmp_path / "listed").chmod(0o400)
    with unprivileged():
        keys, files = await settled(tmp_path, Settle(30))
    for name in ("closed", "listed"):
        (tmp_path / name).chmod(0o755)
    assert (keys, files.left) == (["closed/", "link", "listed/file"], 0)


async def test_thousands_of_files_come_in_batches_each_once(tmp_path):
    expected = sorted(f"{number}" for number in range(300))
    for key in expected:
        age(put(tmp_path, key), 100, now=NOW)
    assert (await settled(tmp_path, Settle(30)))[0] == expected


async def test_a_folder_that_goes_meanwhile_does_not_end_the_walk(tmp_path):
    base = tmp_path / "base"
    base.mkdir()
    for number in range(BATCH):
        put(base, f"a/{number}")
    put(base, "b/file")
    walking = SettledFiles(Base(base), Settle(0), lambda key: True).keys()
    assert len(await anext(walking)) == BATCH
    base.rename(tmp_path / "other")
    with pytest.raises(NoSuchBucket):
        await anext(walking)


# One run at a time


def test_of_two_runs_the_second_is_told_and_may_when_the_first_is_over(tmp_path):
    with only_one(tmp_path):
        with pytest.raises(InUse), only_one(tmp_path):
            pass
        with only_one(put(tmp_path, "other/file").parent):
            pass
    with only_one(tmp_path):
        pass
    assert os.listdir(tmp_path) == ["other"]


def test_a_run_that_was_killed_holds_nothing(tmp_path):
    program = (
        "import sys; from pathlib import Path; from replicator.push.only_one import only_one\n"
        "with only_one(Path(sys.argv[1])): print(flush=True); sys.stdin.read()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", program, tmp_path], **pipes) as other:
        other.stdout.readline()
        with pytest.raises(InUse), only_one(tmp_path):
            pass
        other.kill()
        other.wait()
        with only_one(tmp_path):
            pass


def test_an_error_of_the_block_is_told_and_lets_the_folder_go(tmp_path):
    with pytest.raises(ZeroDivisionError), only_one(tmp_path):
        raise ZeroDivisionError
    with only_one(tmp_path):
        pass


@pytest.mark.parametrize("name", ["nothing", "file"])
def test_only_a_folder_can_be_held(tmp_path, name):
    put(tmp_path, "file")
    with pytest.raises(ConfigurationError, match=name), only_one(tmp_path / name):
        pass


# The file of the timed uploader


JOBS = ['{"base_dir": "/a b/ü", "s3_bucket": "b"}', '{"s3_bucket":"b",\n"base_dir":"/a b/\\u00fc"}\n']


@pytest.mark.parametrize("text", JOBS)
def test_a_job_file_names_a_folder_and_a_bucket(tmp_path, text):
    job = read_job_file(put(tmp_path, "config.json", text.encode()))
    assert (job.folder, job.bucket) == (Path("/a b/ü"), "b")


def test_a_folder_of_a_job_file_may_be_in_ones_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/of/me")
    job = read_job_file(put(tmp_path, "config.json", b'{"base_dir": "~/x", "s3_bucket": "b"}'))
    assert job.folder == Path("/home/of/me/x")


NO_JOB = [
    b"",
    b"{",
    b"[]",
    b"null",
    b'"base_dir"',
    b"{}",
    b'{"base_dir": "a"}',
    b'{"base_dir": "a", "s3_bucket": ""}',
    b'{"base_dir": "  ", "s3_bucket": "b"}',
    b'{"base_dir": "a", "s3_bucket": null}',
    b'{"base_dir": ["a"], "s3_bucket": "b"}',
    b'{"base_dir": "a", "s3_bucket": 5}',
    b'{"base_dir": "a", "s3_bucket": "b", "s3_buckt": "c"}',
    b'{"base_dir": "a", "s3_bucket": "b"} x',
    b"\xff\xfe",
    b'{"base_dir": "\xff", "s3_bucket": "b"}',
]


@pytest.mark.parametrize("content", NO_JOB)
def test_a_job_file_of_another_form_is_refused_and_the_form_is_shown(tmp_path, content):
    with pytest.raises(ConfigurationError, match=r'config\.json: .*"base_dir": .*"s3_bucket": '):
        read_job_file(put(tmp_path, "config.json", content))


@pytest.mark.parametrize("name", ["nothing", "folder", "loop"])
def test_a_job_file_that_cannot_be_read_is_refused(tmp_path, name):
    put(tmp_path, "folder/file")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ConfigurationError, match=name):
        read_job_file(tmp_path / name)
