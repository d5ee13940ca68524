"""`replicator ls` as a person meets it: a process, what it prints, and how it ends. There is no bucket anywhere."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from replicator.catalogue.catalogue import open_catalogue
from replicator.catalogue.entries import Entry, State
from replicator.catalogue.place import catalogue_url

ROOT = Path(__file__).parents[2]
ROUTE = "s3://here/ -> s3://there/"
T = 1_790_000_000.0  # 2026-09-21T14:13:20Z


def entry(key, state=State.UPLOADED, *, route=ROUTE, at=T, **facts):
    return Entry(route=route, key=key, state=state, recorded_at=at, **facts)


ENTRIES = [
    entry("logs/a-b", size=5, etag="aa", modified=T - 60, uploaded_at=T),
    entry("logs/a/b", size=2**33, etag="bb-2", modified=T - 60, uploaded_at=T + 1, at=T + 99),
    entry("logs/évil\x1b[31m\n", State.FAILED, error="AccessDenied:\nno", at=T + 2),
    entry("logs/gone", State.DELETED, at=T + 3),
    entry("x", State.MOVED, size=0, uploaded_at=T + 4, at=T + 4),
    entry("y", at=T + 5, size=7),
]


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    place = str(tmp_path / "catalog.db") if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    with open_catalogue(catalogue_url(place, {}), warn=print) as catalogue:
        catalogue.record(ENTRIES)
    return place


def ls(*arguments, **variables):
    done = subprocess.run(
        [sys.executable, "-m", "replicator", "ls", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TZ": "UTC", **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def lines(*arguments, **variables):
    done = ls(*arguments, **variables)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def keys(*arguments):
    return [json.loads(line)["key"] for line in lines("--json", *arguments)]


def test_it_lists_time_size_state_and_key_and_what_was_wrong(url):
    assert lines("--catalog", url) == [
        "2026-09-21 14:13:20          5 uploaded logs/a-b",
        "2026-09-21 14:13:21 8589934592 uploaded logs/a/b",
        "2026-09-21 14:13:22          - failed   logs/évil\\x1b[31m\\n: AccessDenied:\\nno",
        "2026-09-21 14:13:24          0 moved    x",
        "2026-09-21 14:13:25          7 uploaded y",
    ]


def test_long_lines_have_the_last_change_and_the_etag(url):
    first, *_, last = lines("--catalog", url, "-l")
    assert " ".join(first.split()) == "2026-09-21 14:13:20 5 uploaded 2026-09-21 14:12:20 aa logs/a-b"
    assert " ".join(last.split()) == "2026-09-21 14:13:25 7 uploaded - - y"


def test_json_has_everything_with_times_in_utc(url):
    one, _, failed, *_ = (json.loads(line) for line in lines("--catalog", url, "--json", TZ="Asia/Tokyo"))
    assert one == {
        "route": ROUTE,
        "key": "logs/a-b",
        "state": "uploaded",
        "size": 5,
        "etag": "aa",
        "modified": "2026-09-21T14:12:20.000Z",
        "uploaded_at": "2026-09-21T14:13:20.000Z",
        "recorded_at": "2026-09-21T14:13:20.000Z",
        "error": None,
    }
    assert (failed["error"], failed["size"], failed["etag"]) == ("AccessDenied:\nno", None, None)


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["logs/"], ["logs/a-b", "logs/a/b", "logs/évil\x1b[31m\n"]),
        (["--failed"], ["logs/évil\x1b[31m\n"]),
        (["--all", "logs/g"], ["logs/gone"]),
        (["--since", "2026-09-21T14:13:22Z"], ["logs/évil\x1b[31m\n", "x"]),
        (["--since", "2026-09-21T23:13:24+09:00", "--all"], ["x"]),
        (["--since", "2999-01-01"], []),
        (["--route", "here"], ["logs/a-b", "logs/a/b", "logs/évil\x1b[31m\n", "x", "y"]),
        (["nothing here"], []),
    ],
    ids=str,
)
def test_filters_choose(url, arguments, wanted):
    assert keys("--catalog", url, *arguments) == wanted


def test_so_long_ago_is_counted_from_now(url):
    with open_catalogue(catalogue_url(url, {}), warn=print) as catalogue:
        catalogue.record(
            [entry("now", uploaded_at=time.time() - 1800), entry("before", uploaded_at=time.time() - 7200)]
        )
    assert keys("--catalog", url, "--since", "1h", "now") == ["now"]
    assert keys("--catalog", url, "--since", "1h", "before") == []


def test_several_routes_have_headings_and_one_has_none(url):
    with open_catalogue(catalogue_url(url, {}), warn=print) as catalogue:
        catalogue.record([entry("k", route="elsewhere\n"), entry("gone", State.DELETED, route="empty")])
    listed = lines("--catalog", url)
    assert (listed[0], listed[2], listed[3]) == ("elsewhere\\n:", "", f"{ROUTE}:")
    assert "empty:" not in listed
    assert len(lines("--catalog", url, "--route", "elsewhere")) == 1


def test_a_route_that_is_not_there_is_answered_with_those_that_are(url):
    done = ls("--catalog", url, "--route", "s4://")
    assert done.returncode == 2
    assert ROUTE in done.stderr


def test_the_variables_say_where_it_is(url, tmp_path):
    assert len(lines(DATABASE_URL=url if "://" in url else f"sqlite:///{url}")) == 5
    if "://" not in url:
        (tmp_path / "replicator").mkdir()
        (tmp_path / "catalog.db").rename(tmp_path / "replicator" / "catalog.db")
        assert len(lines(XDG_STATE_HOME=str(tmp_path), DATABASE_URL="")) == 5


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--since", "yesterday"], "--since 'yesterday'"),
        (["--catalog", "mysql://u:hush@db/x"], "--catalog"),
        (["--catalog", "/nowhere/at/all.db"], "/nowhere/at/all.db"),
    ],
)
def test_wrong_usage_is_told_and_nothing_is_made(tmp_path, arguments, named):
    done = ls(*arguments, XDG_STATE_HOME=str(tmp_path), DATABASE_URL="", DB_HOST="")
    assert done.returncode == 2
    assert named in done.stderr
    assert "hush" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_without_a_catalogue_it_says_so_and_makes_none(tmp_path):
    done = ls(XDG_STATE_HOME=str(tmp_path), DATABASE_URL="", DB_HOST="")
    assert done.returncode == 2
    assert "there is no catalogue yet" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_password_is_told_without_it(postgres_cluster):
    url = postgres_cluster.url(postgres_cluster.new_database(), password="hush-hush")
    done = ls("--catalog", url)
    assert done.returncode == 2
    assert "password authentication failed" in done.stderr
    assert "hush" not in done.stderr


def test_a_server_without_a_catalogue_is_not_given_one(postgres_cluster):
    name = postgres_cluster.new_database()
    done = ls("--catalog", postgres_cluster.url(name))
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no catalogue yet" in done.stderr
    assert postgres_cluster.run(name, "select count(*) from pg_tables where schemaname = 'public'").strip() == "0"


@pytest.mark.parametrize("entries", [20_000, 3])
def test_a_reader_that_has_seen_enough_ends_it_without_a_word_and_as_it_ends_other_programs(tmp_path, entries):
    place = tmp_path / "catalog.db"
    with open_catalogue(catalogue_url(str(place), {}), warn=print) as catalogue:
        catalogue.record([entry(f"{n:06}") for n in range(entries)])
    read, write = os.pipe()
    os.close(read)  # it sees enough at once
    with os.fdopen(write, "wb") as nobody_reads:
        done = subprocess.run(
            [sys.executable, "-m", "replicator", "ls", "--catalog", str(place)],
            cwd=ROOT,
            stdout=nobody_reads,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


def test_what_the_terminal_cannot_show_is_escaped(tmp_path):
    place = tmp_path / "catalog.db"
    with open_catalogue(catalogue_url(str(place), {}), warn=print) as catalogue:
        catalogue.record([entry("é😀")])
    assert lines("--catalog", place, PYTHONIOENCODING="ascii")[0].endswith(r" \xe9\U0001f600")
