"""A catalogue that is away, slow, full or wrong stops nothing, says so once, and has everything when it is back."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import threading
import traceback
from contextlib import contextmanager

import pytest
from sqlalchemy import create_engine, text

from replicator.catalogue.catalogue import KEPT, RETRY_SECONDS, Catalogue, open_catalogue
from replicator.catalogue.database import PAGE, Database, Wanted
from replicator.catalogue.entries import Entry, State
from replicator.catalogue.place import catalogue_url, url_of
from replicator.errors import ConfigurationError, ReplicatorError
from tests.servers.base import HOST, free_port
from tests.servers.postgres import PASSWORD

ROUTE = "s3://here/ -> s3://there/"


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def entry(key, state=State.UPLOADED, *, at=1000.0, **facts):
    return Entry(route=ROUTE, key=key, state=state, recorded_at=at, **facts)


def uploaded(key, *, version="v", etag="e", at=1000.0, **facts):
    return entry(key, version=version, etag=etag, uploaded_at=at, at=at, **facts)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def said():
    return []


@pytest.fixture
def url(postgres_url):
    return catalogue_url(postgres_url, {})


@pytest.fixture
def stopped(postgres_cluster):
    """Stops and starts the server; it runs again at the end."""
    yield postgres_cluster
    if postgres_cluster.server is None:
        postgres_cluster.start()


@pytest.fixture
def catalogue(url, tmp_path, clock, said):
    with open_catalogue(url, spool=tmp_path / "spool.db", clock=clock, warn=said.append) as opened:
        yield opened


def keys(catalogue):
    return [one.key for one in catalogue.find(wanted=Wanted(deleted=True))]


def contents(url):
    with open_catalogue(url, warn=print) as catalogue:
        return list(catalogue.find(wanted=Wanted(deleted=True)))


# A server that goes and comes


def test_what_happens_while_the_server_is_stopped_is_there_when_it_is_started_again(catalogue, stopped, clock, said):
    catalogue.record([uploaded("before")])
    stopped.stop()
    with tries_of(catalogue) as tries:
        for number in range(2 * PAGE):
            catalogue.record([uploaded(f"while {number:04}")])
    assert len(tries) == 1
    assert len(said) == 1
    assert "is away" in said[0]
    assert "uploads go on, it is caught up later" in said[0]
    stopped.start()
    catalogue.record([uploaded("too early")])
    assert len(said) == 1
    clock.now += RETRY_SECONDS
    catalogue.record([uploaded("z")])
    assert keys(catalogue) == ["before", "too early", *(f"while {n:04}" for n in range(2 * PAGE)), "z"]
    assert said[1:] == [f"catalogue {url_without_secrets(stopped, said)} is back: {2 * PAGE + 1:,} entries caught up"]


@contextmanager
def tries_of(catalogue):
    """A list with one entry for each time that the database was asked meanwhile."""
    database, tries = catalogue._primary, []

    def noting(do):
        return lambda *given, **named: (tries.append(1), do(*given, **named))[1]

    database.record, database.versions = noting(database.record), noting(database.versions)
    yield tries
    del database.record, database.versions


def url_without_secrets(cluster, said):
    name = said[0].split()[1]
    assert name.startswith(f"postgresql://{HOST}:{cluster.port}/test_")
    return name


def test_a_server_that_was_started_again_between_two_uses_is_not_even_noticed(catalogue, stopped, said):
    catalogue.record([uploaded("before")])
    stopped.stop()
    stopped.start()
    catalogue.record([uploaded("after")])
    assert (keys(catalogue), said) == (["after", "before"], [])


def test_what_a_run_left_in_its_spool_is_caught_up_by_the_next(url, tmp_path, stopped, clock, said):
    stopped.stop()
    with open_catalogue(url, spool=tmp_path / "spool.db", clock=clock, warn=said.append) as first:
        first.record([uploaded("k")])
    stopped.start()
    with open_catalogue(url, spool=tmp_path / "spool.db", clock=clock, warn=said.append) as second:
        second.record([])
        assert [one.key for one in second.find()] == ["k"]
    assert "1 entries caught up" in said[-1]
    assert len(said) == 2


def test_a_run_that_ends_soon_after_the_outage_catches_up_at_its_end(url, tmp_path, stopped, clock, said):
    stopped.stop()
    with open_catalogue(url, spool=tmp_path / "spool.db", clock=clock, warn=said.append) as catalogue:
        catalogue.record([uploaded("k")])
        stopped.start()
        clock.now += RETRY_SECONDS
    assert [one.key for one in contents(url)] == ["k"]


def test_a_spool_keeps_the_order_and_what_an_upload_left(catalogue, stopped, clock):
    catalogue.record([uploaded("k", size=1, at=10.0)])
    stopped.stop()
    catalogue.record([uploaded("k", size=2, at=20.0)])
    catalogue.record([entry("k", State.FAILED, at=30.0, error="no")])
    catalogue.record([entry("gone", State.DELETED, at=30.0)])
    stopped.start()
    clock.now += RETRY_SECONDS
    catalogue.record([])
    assert list(catalogue.find(wanted=Wanted(deleted=True))) == [
        entry("gone", State.DELETED, at=30.0),
        entry("k", State.FAILED, size=2, etag="e", uploaded_at=20.0, at=30.0, error="no"),
    ]


def test_what_another_agent_recorded_later_is_not_taken_back(catalogue, url, stopped, clock):
    stopped.stop()
    catalogue.record([uploaded("k", etag="old", at=10.0), uploaded("own", at=10.0)])
    stopped.start()
    with open_catalogue(url, warn=print) as other:
        other.record([uploaded("k", etag="new", at=20.0)])
    clock.now += RETRY_SECONDS
    assert catalogue.known(ROUTE, "", None) == {"k": ("v", "new"), "own": ("v", "e")}


def test_what_is_known_comes_from_the_spool_too(catalogue, stopped, clock):
    catalogue.record([uploaded("a"), uploaded("b"), uploaded("c")])
    stopped.stop()
    catalogue.record([uploaded("b", etag="newer"), entry("c", State.FAILED, error="no"), uploaded("d")])
    assert catalogue.known(ROUTE, "", None) == {"b": ("v", "newer"), "d": ("v", "e")}
    assert catalogue.known(ROUTE, "b", "d") == {"d": ("v", "e")}
    stopped.start()
    clock.now += RETRY_SECONDS
    assert list(catalogue.known(ROUTE, "", None).items()) == [
        ("a", ("v", "e")),
        ("b", ("v", "newer")),
        ("d", ("v", "e")),
    ]


def test_a_spool_that_is_not_caught_up_yet_lies_over_the_server(url, tmp_path, said, clock):
    with open_catalogue(url, warn=print) as other:
        other.record([uploaded(key) for key in ("a", "b", "c", "e", "f")])
    spool = Database(url_of(tmp_path / "spool.db"))
    spool.record([uploaded("b", etag="newer"), entry("c", State.FAILED), uploaded("d"), uploaded("g")])
    with Catalogue(Database(url), spool, clock=clock, warn=said.append, pages=0) as catalogue:
        assert "".join(catalogue.known(ROUTE, "", None)) == "abdefg"
        assert "".join(catalogue.known(ROUTE, "", None, limit=3)) == "ab"  # c is not, and d may be somewhere else
        assert "".join(catalogue.known(ROUTE, "c", None, limit=3)) == "def"
        assert catalogue.known(ROUTE, "a", "b") == {"b": ("v", "newer")}


def test_a_long_outage_is_caught_up_in_pieces(url, tmp_path, stopped, clock, said):
    stopped.stop()
    spool = Database(url_of(tmp_path / "spool.db"))
    with Catalogue(Database(url), spool, clock=clock, warn=said.append, pages=1) as catalogue:
        catalogue.record([uploaded(f"{n:05}") for n in range(2 * PAGE + 1)])
        stopped.start()
        clock.now += RETRY_SECONDS
        for times in range(1, 4):
            assert len(said) == 1
            catalogue.record([])
            assert len(keys(catalogue)) == min(times * PAGE, 2 * PAGE + 1)
    assert f"{2 * PAGE + 1:,} entries caught up" in said[1]


def test_the_next_outage_is_said_again(catalogue, stopped, clock, said):
    for _ in range(2):
        stopped.stop()
        catalogue.record([uploaded("k")])
        stopped.start()
        clock.now += RETRY_SECONDS
        catalogue.record([])
    assert ["is away" in line for line in said] == [True, False, True, False]


# A server that does not answer


@pytest.mark.slow
def test_a_server_that_accepts_and_says_nothing_holds_nobody_up_for_long(tmp_path, clock, said):
    with socket.create_server((HOST, 0)) as silent:
        place = f"postgresql+psycopg://u:hush@{HOST}:{silent.getsockname()[1]}/x"
        with (
            open_catalogue(place, spool=tmp_path / "spool.db", clock=clock, warn=said.append) as catalogue,
            tries_of(catalogue) as tries,
        ):
            for _ in range(100):
                catalogue.record([uploaded("k")])
                assert catalogue.known(ROUTE, "", None) == {"k": ("v", "e")}
    assert len(tries) == 1  # which has an end
    assert len(said) == 1


@pytest.mark.slow
def test_a_locked_table_holds_nobody_up_for_long(catalogue, url, said):
    catalogue.record([uploaded("k")])
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("lock table catalogue_entries in access exclusive mode"))
        catalogue.record([uploaded("locked")])
    engine.dispose()
    assert "statement timeout" in said[0]


@pytest.mark.slow
def test_a_server_that_falls_silent_in_the_middle_is_cut_off(catalogue, url, postgres_cluster, said):
    catalogue.record([uploaded("k")])
    ours = "select pid from pg_stat_activity where application_name = 'replicator' and state = 'idle'"
    pid = int(postgres_cluster.run(url.rpartition("/")[2], f"{ours} and datname = current_database()"))
    os.kill(pid, signal.SIGSTOP)
    try:
        catalogue.record([uploaded("while silent")])
    finally:
        os.kill(pid, signal.SIGCONT)
    assert keys(catalogue) == ["k", "while silent"]  # with a new connection
    assert said == []


# What is wrong for good


@pytest.fixture(params=["password", "database", "port", "user"])
def wrong(request, postgres_cluster):
    name = postgres_cluster.new_database()
    if request.param == "password":
        return postgres_cluster.url(name, password="hush-hush#@"), "password"
    if request.param == "database":
        return postgres_cluster.url("nowhere"), "nowhere"
    if request.param == "user":
        return postgres_cluster.url(name, user="nobody-here"), "nobody-here"
    return postgres_cluster.url(name).replace(f":{postgres_cluster.port}/", f":{free_port()}/"), "refused"


def test_what_is_wrong_is_said_without_the_password(wrong, tmp_path, said):
    url, named = wrong
    with open_catalogue(catalogue_url(url, {}), spool=tmp_path / "spool.db", warn=said.append) as catalogue:
        catalogue.record([uploaded("k")])
        with pytest.raises(ConfigurationError) as refused:
            catalogue.routes()
        shown = repr(vars(catalogue)) + repr(catalogue) + "".join(traceback.format_exception(refused.value))
    assert named in said[0]
    assert named in str(refused.value)
    for secret in (PASSWORD, "hush-hush", url.split("@")[0]):
        assert secret not in said[0] + str(refused.value) + shown
    assert len(said[0].splitlines()) == 1


def test_a_password_that_stands_in_the_servers_words_is_taken_out(postgres_cluster, said):
    url = postgres_cluster.url("nowhere", user="hushhush", password="hushhush")
    with open_catalogue(catalogue_url(url, {}), warn=said.append) as catalogue:
        catalogue.record([uploaded("k")])
    assert "***" in said[0]
    assert "hushhush" not in said[0]


def test_a_database_that_cannot_hold_all_keys_is_refused(postgres_cluster, said):
    url = postgres_cluster.url(postgres_cluster.new_database(encoding="LATIN1"))
    with open_catalogue(catalogue_url(url, {}), warn=said.append) as catalogue:
        catalogue.record([uploaded("k")])
    assert "encoding LATIN1" in said[0]


def test_a_listing_that_loses_its_server_is_no_wrong_setting(catalogue, stopped):
    catalogue.record([uploaded(f"{n:05}") for n in range(PAGE + 1)])
    listing = catalogue.find()
    next(listing)
    stopped.stop()
    with pytest.raises(ReplicatorError) as broken:
        list(listing)
    assert not isinstance(broken.value, ConfigurationError)


# A file that cannot be used, and memory


@pytest.fixture
def place(tmp_path):
    """Where a directory can be, so that there cannot be a file."""
    return tmp_path / "catalog.db"


def test_a_file_that_cannot_be_used_is_caught_up_from_memory(place, clock, said):
    place.mkdir()
    with open_catalogue(url_of(place), clock=clock, warn=said.append) as catalogue:
        catalogue.record([uploaded("a"), uploaded("k", etag="old")])
        catalogue.record([uploaded("k", etag="new")])
        assert catalogue.known(ROUTE, "", None) == {}
        place.rmdir()
        clock.now += RETRY_SECONDS
        assert catalogue.known(ROUTE, "", None) == {"a": ("v", "e"), "k": ("v", "new")}
    assert "is away" in said[0]
    assert "3 entries caught up" in said[1]
    assert len(said) == 2


def test_a_file_that_was_moved_in_an_outage_is_known_to_be_from_memory(place, clock, said):
    """Else a new file of its name replaces the object, which is the only copy."""
    place.mkdir()
    with open_catalogue(url_of(place), clock=clock, warn=said.append) as catalogue:
        catalogue.record([uploaded("folder/other"), entry("folder/key", state=State.MOVED, moved_at=1.0)])
        asked = [
            (ROUTE, "folder/key"),
            (ROUTE, "folder/"),
            (ROUTE, "folder/other"),
            (ROUTE, "fold"),
            ("other", "folder/"),
        ]
        assert [catalogue.has_moved(*one) for one in asked] == [True, True, False, False, False]


def test_while_nobody_can_be_asked_no_object_is_known_to_be_a_copy(place, clock, said):
    place.mkdir()
    with open_catalogue(url_of(place), clock=clock, warn=said.append) as catalogue:
        catalogue.record([uploaded("k")])
        assert not catalogue.is_copy(ROUTE, "k")
        place.rmdir()
        clock.now += RETRY_SECONDS
        assert catalogue.is_copy(ROUTE, "k")
        assert not catalogue.is_copy(ROUTE, "other")


def test_memory_is_bounded_and_what_is_lost_is_said(place, clock, said):
    place.mkdir()
    with open_catalogue(url_of(place), clock=clock, warn=said.append) as catalogue:
        for start in range(0, KEPT + 2000, 1000):
            catalogue.record([uploaded(f"{n:06}") for n in range(start, start + 1000)])
        assert len(said) == 2
        assert "the oldest are dropped" in said[1]
        place.rmdir()
        clock.now += RETRY_SECONDS
        catalogue.record([])
        listed = keys(catalogue)
    assert (listed[0], len(listed)) == ("002000", KEPT)
    assert "100,000 entries caught up, 2,000 are lost" in said[2]


def test_what_is_never_recorded_is_said_at_the_end(place, clock, said):
    place.mkdir()
    with open_catalogue(url_of(place), clock=clock, warn=said.append) as catalogue:
        catalogue.record([uploaded("k")])
    assert "1 entries could not be recorded and are lost" in said[-1]


def test_a_spool_that_cannot_be_used_leaves_it_to_memory(url, tmp_path, stopped, clock, said):
    (tmp_path / "spool.db").mkdir()
    stopped.stop()
    with open_catalogue(url, spool=tmp_path / "spool.db", clock=clock, warn=said.append) as catalogue:
        catalogue.record([uploaded("a")])
        catalogue.record([uploaded("b")])
        assert catalogue.known(ROUTE, "", None) == {}
        stopped.start()
        clock.now += RETRY_SECONDS
        catalogue.record([uploaded("c")])
        assert keys(catalogue) == ["a", "b", "c"]
    assert [line.split()[0] for line in said].count("catalogue's") >= 1


def test_a_file_that_somebody_holds_for_a_moment_is_waited_for(place, said):
    with open_catalogue(url_of(place), warn=said.append) as catalogue:
        catalogue.record([uploaded("a")])
        holder = sqlite3.connect(place, isolation_level=None, check_same_thread=False)
        holder.execute("begin immediate")
        threading.Timer(0.5, holder.execute, ["commit"]).start()
        catalogue.record([uploaded("b")])
        assert (keys(catalogue), said) == (["a", "b"], [])
        holder.close()


@pytest.mark.slow
def test_a_file_that_somebody_holds_for_long_is_caught_up_later(place, clock, said):
    with open_catalogue(url_of(place), clock=clock, warn=said.append) as catalogue:
        catalogue.record([uploaded("a")])
        holder = sqlite3.connect(place, isolation_level=None)
        holder.execute("begin immediate")
        catalogue.record([uploaded("b")])
        assert "database is locked" in said[0]
        holder.close()
        clock.now += RETRY_SECONDS
        catalogue.record([])
        assert keys(catalogue) == ["a", "b"]


def test_a_file_that_cannot_be_written_can_still_be_asked(place, clock, said):
    with open_catalogue(url_of(place), warn=said.append) as catalogue:
        catalogue.record([uploaded("a")])
    engine = create_engine(url_of(place))
    with engine.begin() as connection:
        connection.execute(
            text(
                "create trigger full before insert on catalogue_entries begin select raise(abort, 'disk is full'); end"
            )
        )
    engine.dispose()
    with open_catalogue(url_of(place), clock=clock, warn=said.append) as catalogue:
        catalogue.record([uploaded("b")])
        assert "disk is full" in said[0]
        clock.now += RETRY_SECONDS
        assert keys(catalogue) == ["a"]


def test_any_thread_may_use_it(place, said):
    with open_catalogue(url_of(place), warn=said.append) as catalogue:
        threads = [
            threading.Thread(target=lambda n=n: [catalogue.record([uploaded(f"{n} {m}")]) for m in range(20)])
            for n in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(keys(catalogue)), said) == (80, [])
