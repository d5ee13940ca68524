"""What the catalogue promises, on SQLite and on PostgreSQL alike."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, event, text

from replicator.catalogue import schema
from replicator.catalogue.catalogue import open_catalogue
from replicator.catalogue.database import PAGE, Wanted
from replicator.catalogue.engines import open_engine
from replicator.catalogue.entries import Entry, State
from replicator.catalogue.place import catalogue_url
from replicator.catalogue.tables import metadata
from replicator.errors import ConfigurationError, ReplicatorError
from tests.pushes import until

ROUTE = "s3://here/ -> s3://there/"
ROOT = Path(__file__).parents[2]
FORK = multiprocessing.get_context("fork")


def entry(key, state=State.UPLOADED, *, route=ROUTE, at=1000.0, **facts):
    return Entry(route=route, key=key, state=state, recorded_at=at, **facts)


def uploaded(key, *, version="v", etag="e", at=1000.0, **facts):
    return entry(key, version=version, etag=etag, uploaded_at=at, at=at, **facts)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    if request.param == "sqlite":
        return catalogue_url(str(tmp_path / "state" / "catalog.db"), {})
    return catalogue_url(request.getfixturevalue("postgres_url"), {})


@pytest.fixture
def said():
    return []


@pytest.fixture
def catalogue(url, said):
    with open_catalogue(url, warn=said.append) as opened:
        yield opened
    assert said == []


def found(catalogue, **wanted):
    return list(catalogue.find(wanted=Wanted(**wanted)))


def keys(catalogue, **wanted):
    return [one.key for one in found(catalogue, **wanted)]


# Recording


def test_what_was_recorded_is_found_as_it_was(catalogue):
    given = entry(
        "dir/file",
        size=2**40,
        etag="d41d8cd98f00b204e9800998ecf8427e-3",
        modified=1700000000.123456,
        version="v1",
        uploaded_at=1790000000.5,
        at=1790000001.25,
    )
    catalogue.record([given])
    assert found(catalogue) == [given]


def test_an_upload_takes_the_place_of_what_was_there(catalogue):
    catalogue.record([uploaded("k", size=1, etag="one", version="v1", modified=1.0, at=10.0)])
    again = uploaded("k", size=2, etag="two", version="v2", modified=2.0, at=20.0)
    catalogue.record([again])
    assert found(catalogue) == [again]


def test_a_version_that_is_not_to_be_believed_takes_away_the_one_before(catalogue):
    catalogue.record([uploaded("k", version="v1")])
    catalogue.record([uploaded("k", version=None, etag="two")])
    assert catalogue.known(ROUTE, "", None) == {}
    assert [(one.version, one.etag) for one in found(catalogue)] == [(None, "two")]


@pytest.mark.parametrize("state", [State.FAILED, State.SKIPPED, State.DELETED])
def test_what_was_not_uploaded_keeps_the_facts_of_the_upload_before_but_is_looked_at_again(catalogue, state):
    catalogue.record([uploaded("k", size=5, etag="e", modified=7.0, at=10.0)])
    catalogue.record([entry("k", state, at=20.0, error="AccessDenied")])
    assert found(catalogue, deleted=True) == [
        entry("k", state, size=5, etag="e", modified=7.0, uploaded_at=10.0, at=20.0, error="AccessDenied")
    ]
    assert catalogue.known(ROUTE, "", None) == {}


def test_an_upload_after_a_failure_takes_the_error_away(catalogue):
    catalogue.record([entry("k", State.FAILED, error="AccessDenied")])
    catalogue.record([uploaded("k")])
    assert found(catalogue) == [uploaded("k")]


def test_what_was_found_in_sync_keeps_the_time_of_its_upload(catalogue):
    catalogue.record([uploaded("k", at=10.0)])
    catalogue.record([entry("k", version="v", etag="e", at=99.0)])
    assert [(one.uploaded_at, one.recorded_at) for one in found(catalogue)] == [(10.0, 99.0)]


def test_the_last_of_a_key_in_a_batch_counts(catalogue):
    catalogue.record([uploaded("k", size=1), entry("k", State.FAILED, error="no"), uploaded("k", size=3)])
    assert found(catalogue) == [uploaded("k", size=3)]
    catalogue.record([uploaded("j", size=1), entry("j", State.FAILED, error="no")])
    assert [(one.key, one.state, one.size) for one in found(catalogue)][0] == ("j", State.FAILED, 1)


def test_routes_do_not_meet(catalogue):
    other = "s3://elsewhere/ -> s3://there/"
    catalogue.record([uploaded("k", etag="here"), entry("k", route=other, version="v", etag="there")])
    assert catalogue.known(ROUTE, "", None) == {"k": ("v", "here")}
    assert catalogue.known(other, "", None) == {"k": ("v", "there")}
    assert catalogue.known("unknown", "", None) == {}


ODD = {
    "nul\0nul": "nul␀nul",
    "bytes\udcff\udc80": "bytes\\udcff\\udc80",
    "\ud83d": "\\ud83d",
}


def test_one_odd_key_never_makes_a_batch_fail_and_is_not_believed(catalogue):
    long = ["x" * 5000, "\0" * 1024, "é" * 600]
    catalogue.record([uploaded(key) for key in [*ODD, *long, "good"]])
    listed = keys(catalogue)
    assert {*ODD.values(), "good"} < {*listed}
    assert len(listed) == len({*listed}) == len(ODD) + 3 + 1
    assert max(len(key.encode()) for key in listed) <= 1024
    assert catalogue.known(ROUTE, "", None) == {"good": ("v", "e")}


def test_odd_texts_and_times_never_make_a_batch_fail(catalogue):
    catalogue.record(
        [
            entry("a", State.FAILED, error="\0 and \udcff" + "x" * 10_000),
            uploaded("b", etag="\0", version="\udcff"),
            uploaded("c", modified=1e18),
            uploaded("d", modified=float("nan")),
            uploaded("e", modified=-1e11),
            entry("f", route="r\0\udcff" + "x" * 5000),
        ]
    )
    errors = {one.key: one.error for one in found(catalogue)}
    assert errors["a"].startswith("␀ and \\udcffx")
    assert len(errors) == 6


def test_a_key_of_1024_bytes_is_kept_whole(catalogue):
    key = "é" * 512
    catalogue.record([uploaded(key)])
    assert catalogue.known(ROUTE, "", key) == {key: ("v", "e")}


# Known versions

ORDERED = ["a", "a b", "a!", "a-b", "a/b", "a0", "aB", "ab", "z", "~", "é", "€", "\ud7ff", "\uffff", "😀", "\U0010ffff"]


def test_keys_are_in_the_order_of_their_bytes(catalogue):
    catalogue.record([uploaded(key) for key in random.Random(1).sample(ORDERED, len(ORDERED))])
    assert keys(catalogue) == ORDERED == sorted(ORDERED, key=str.encode)
    assert list(catalogue.known(ROUTE, "", None)) == ORDERED


@pytest.mark.parametrize("cut", range(len(ORDERED)))
def test_a_range_has_its_last_key_and_not_the_one_it_comes_after(catalogue, cut):
    catalogue.record([uploaded(key) for key in ORDERED])
    assert list(catalogue.known(ROUTE, ORDERED[cut], None)) == ORDERED[cut + 1 :]
    assert list(catalogue.known(ROUTE, "", ORDERED[cut])) == ORDERED[: cut + 1]


@pytest.mark.parametrize(
    ("key", "moved"),
    [
        ("logs/a", True),
        ("logs/", True),
        ("logs", False),
        ("log/", False),
        ("logs/b", False),
        ("other/", False),
        ("", False),
    ],
)
def test_it_tells_what_was_moved_to_a_key_or_below_one(catalogue, key, moved):
    catalogue.record([entry("logs/a", State.MOVED, moved_at=9.0), entry("logs/b"), entry("other/c", State.DELETED)])
    assert catalogue.has_moved(ROUTE, key) is moved
    assert not catalogue.has_moved("another route", key)


@pytest.mark.parametrize(
    ("states", "copy"),
    [
        ([], False),
        ([uploaded("key")], True),
        ([uploaded("key"), entry("key", State.FAILED)], True),
        ([entry("key", State.FAILED)], False),
        ([entry("key", State.UPLOADED)], True),
        ([uploaded("key"), entry("key", State.DELETED)], False),
        ([uploaded("key"), entry("key", State.MOVED, moved_at=9.0)], False),
        ([uploaded("key"), entry("key", State.MOVED, moved_at=9.0), entry("key", State.FAILED)], False),
        ([entry("key", State.MOVED, moved_at=9.0), uploaded("key")], True),
    ],
)
def test_an_object_is_a_copy_if_its_file_was_uploaded_and_neither_was_removed_since(catalogue, states, copy):
    for one in states:
        catalogue.record([one])
    assert catalogue.is_copy(ROUTE, "key") is copy
    assert not catalogue.is_copy("another route", "key")


def test_what_was_moved_stays_so_through_failures_until_it_is_uploaded_anew(catalogue):
    catalogue.record([entry("key", State.MOVED, moved_at=9.0)])
    for state in (State.FAILED, State.SKIPPED, State.FAILED):
        catalogue.record([entry("key", state)])
        assert catalogue.has_moved(ROUTE, "key")
    catalogue.record([uploaded("key")])
    assert not catalogue.has_moved(ROUTE, "key")


def test_only_what_is_uploaded_and_believed_is_known_and_no_more_than_asked_for(catalogue):
    catalogue.record([uploaded(f"k{n}") for n in range(9)])
    catalogue.record([entry("k1", State.MOVED, version="v", etag="e"), entry("k3", version="v")])
    catalogue.record([entry("k5", State.SKIPPED), uploaded("k7", version=None)])
    assert list(catalogue.known(ROUTE, "", None)) == ["k0", "k2", "k3", "k4", "k6", "k8"]
    assert list(catalogue.known(ROUTE, "k0", None, limit=2)) == ["k2", "k3"]


# Finding


@pytest.fixture
def filled(catalogue):
    catalogue.record(
        [
            uploaded("logs/1", at=100.0),
            entry("logs/2", State.FAILED, at=200.0, error="no"),
            entry("logs/3", State.DELETED, at=300.0),
            entry("logs0", at=900.0),
            entry("x", State.MOVED, uploaded_at=400.0, at=400.0),
            entry("y", State.SKIPPED, at=150.0),
        ]
    )
    return catalogue


@pytest.mark.parametrize(
    ("wanted", "listed"),
    [
        ({}, ["logs/1", "logs/2", "logs0", "x", "y"]),
        ({"deleted": True}, ["logs/1", "logs/2", "logs/3", "logs0", "x", "y"]),
        ({"failed": True}, ["logs/2"]),
        ({"prefix": "logs/"}, ["logs/1", "logs/2"]),
        ({"prefix": "logs", "deleted": True}, ["logs/1", "logs/2", "logs/3", "logs0"]),
        ({"since": 200.0}, ["logs/2", "x"]),
        ({"since": 200.0, "deleted": True}, ["logs/2", "logs/3", "x"]),
        ({"since": 1e30}, ["logs/1", "logs/2", "x", "y"]),
    ],
    ids=str,
)
def test_filters_choose(filled, wanted, listed):
    """What was only found in sync was not done since any time; a time that no calendar has is none."""
    assert keys(filled, **wanted) == listed


def test_a_prefix_is_no_pattern_and_may_end_in_any_character(catalogue):
    given = ["%", "%a", "_", "_a", "a", "\ud7ff", "\ud7ffx", "\ue000", "\U0010ffff", "\U0010ffffz"]
    catalogue.record([uploaded(key) for key in given])
    for prefix in given:
        assert keys(catalogue, prefix=prefix) == [key for key in sorted(given) if key.startswith(prefix)]


def test_a_route_is_found_by_its_name_or_by_a_part_of_it(catalogue):
    names = ["b", "a", "ab"]
    catalogue.record([entry("k", route=name) for name in names])
    assert catalogue.routes() == ["a", "ab", "b"]
    assert catalogue.routes("a") == ["a"]
    assert [one.route for one in catalogue.find()] == ["a", "ab", "b"]
    catalogue.record([entry("k", route="cab")])
    assert catalogue.routes("ab") == ["ab"]
    assert catalogue.routes("c") == ["cab"]
    assert catalogue.routes("x") == []


@pytest.mark.parametrize("count", [PAGE - 1, PAGE, PAGE + 1, 2 * PAGE])
def test_more_than_a_page_is_found_whole(catalogue, count):
    given = [f"{n:05}" for n in range(count)]
    catalogue.record([uploaded(key) for key in given])
    assert keys(catalogue) == given


def test_a_reader_who_takes_a_long_time_holds_nobody_up(catalogue, url, said):
    catalogue.record([uploaded(f"{n:05}") for n in range(PAGE + 5)])
    listing = catalogue.find()
    next(listing)
    with open_catalogue(url, warn=said.append) as other:
        other.record([uploaded("zzz")])  # or it would be said that the catalogue is away
    assert [one.key for one in listing][-1] == "zzz"


# Schema


def test_a_new_catalogue_has_the_tables_that_the_program_thinks_it_has(url):
    with open_catalogue(url, warn=print) as catalogue:
        catalogue.record([uploaded("k")])
    engine = create_engine(url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": schema.VERSION_TABLE})
        differences = [one for one in compare_metadata(context, metadata) if one[0] != "remove_index"]
        assert differences == []
        assert context.get_current_revision() == schema.HEAD
    engine.dispose()


def test_the_revision_that_the_program_needs_is_the_last_script():
    assert ScriptDirectory(str(schema.SCRIPTS)).get_current_head() == schema.HEAD


def test_an_older_catalogue_is_brought_up_to_date_with_what_is_in_it(url, tmp_path):
    with open_catalogue(url, warn=print) as catalogue:
        catalogue.record([uploaded("k")])
    scripts = tmp_path / "scripts"
    shutil.copytree(schema.SCRIPTS, scripts)
    (scripts / "versions" / "9999_more.py").write_text(
        textwrap.dedent(f"""
            import sqlalchemy as sa
            from alembic import op
            revision, down_revision = "9999", "{schema.HEAD}"
            def upgrade():
                op.add_column("catalogue_entries", sa.Column("more", sa.Text))
        """)
    )
    engine = open_engine(url, create=False)
    for _ in range(2):
        schema.bring_up_to_date(engine, create=False, scripts=scripts, head="9999")
    with engine.connect() as connection:
        assert connection.execute(text("select key, more from catalogue_entries")).all() == [("k", None)]
    engine.dispose()
    said = []
    with open_catalogue(url, warn=said.append) as older:
        older.record([uploaded("k")])  # does not raise
        with pytest.raises(ConfigurationError, match=f"newer version .9999, here {schema.HEAD}.: upgrade this program"):
            older.routes()
    assert "newer version" in said[0]


def test_a_current_catalogue_is_opened_without_alembic(url):
    with open_catalogue(url, warn=print) as catalogue:
        catalogue.record([uploaded("k")])
    program = f"""
        import sys
        from replicator.catalogue.catalogue import open_catalogue
        with open_catalogue({url!r}, warn=print) as catalogue:
            print(catalogue.known({ROUTE!r}, "", None), "alembic" in sys.modules)
    """
    done = run(program)
    assert done.stdout.strip() == "{'k': ('v', 'e')} False"


def run(program):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done


def test_who_comes_second_to_a_new_server_waits_for_the_first(postgres_url):
    url = catalogue_url(postgres_url, {})
    engine = create_engine(url)
    with open_catalogue(url, warn=print) as catalogue, engine.connect() as first:
        first.execute(text("select pg_advisory_xact_lock(:lock)"), {"lock": schema.LOCK})
        second = threading.Thread(target=catalogue.record, args=[[uploaded("k")]])
        second.start()
        assert until(lambda: waiting_for_locks(engine) == 1)
        first.rollback()
        second.join()
        assert keys(catalogue) == ["k"]
    engine.dispose()


WAITING = """
select count(*) from pg_locks join pg_database on database = pg_database.oid
where locktype = 'advisory' and not granted and datname = current_database()
"""


def waiting_for_locks(engine):
    """How many sessions of this database wait for an advisory lock."""
    with engine.connect() as connection:
        return connection.scalar(text(WAITING))


def test_looking_makes_no_catalogue(url, tmp_path):
    with open_catalogue(url, warn=print) as catalogue, pytest.raises(ConfigurationError, match="there is no"):
        catalogue.routes()
    assert list(tmp_path.iterdir()) == []


def test_it_does_not_meet_the_migrations_of_another_program(postgres_url):
    url = catalogue_url(postgres_url, {})
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("create table alembic_version (version_num text)"))
        connection.execute(text("insert into alembic_version values ('ffff')"))
    engine.dispose()
    said = []
    with open_catalogue(url, warn=said.append) as catalogue:
        catalogue.record([uploaded("k")])
        assert (keys(catalogue), said) == (["k"], [])


# Several processes


def record_alone(url, number, waiting):
    waiting.wait()
    said = []
    with open_catalogue(url, warn=said.append) as catalogue:
        for times in range(5):
            batch = [uploaded(f"{n:05}", size=number) for n in range(300)]
            random.Random(number).shuffle(batch)
            catalogue.record([*batch, uploaded(f"own {number} {times}")])
    os._exit(1 if said else 0)


def test_several_that_open_a_new_catalogue_and_record_the_same_keys_at_once_do_not_meet(url):
    together = 4
    waiting = FORK.Barrier(together)
    processes = [FORK.Process(target=record_alone, args=(url, n, waiting)) for n in range(together)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(100)
    assert [process.exitcode for process in processes] == [0] * together
    with open_catalogue(url, warn=print) as catalogue:
        listed = keys(catalogue)
    assert len(listed) == 300 + together * 5


def test_a_catalogue_that_was_used_before_a_fork_works_on_both_sides_at_once(catalogue, said):
    catalogue.record([uploaded("before")])

    def record(name):
        for n in range(100):
            catalogue.record([uploaded(f"{name} {n:03}")])
            assert f"{name} {n:03}" in catalogue.known(ROUTE, "", None)

    def child():
        record("child")
        catalogue.close()
        os._exit(1 if said else 0)

    process = FORK.Process(target=child)
    process.start()
    record("parent")
    process.join(100)
    assert process.exitcode == 0
    assert len(keys(catalogue)) == 201


def test_a_writer_that_is_killed_leaves_whole_batches(url):
    program = f"""
        from replicator.catalogue.catalogue import open_catalogue
        from replicator.catalogue.entries import Entry, State
        catalogue = open_catalogue({url!r}, warn=print)
        for batch in range(10**6):
            keys = [f"{{batch:06}}/{{n:03}}" for n in range(200)]
            catalogue.record([Entry(route="r", key=k, state=State.UPLOADED, recorded_at=1.0) for k in keys])
            print(batch, flush=True)
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as writer:
        for _ in range(5):
            last = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        last = int((writer.stdout.read().split() or [last])[-1])
    with open_catalogue(url, warn=print) as catalogue:
        listed = keys(catalogue)
        assert last >= 4
        assert len(listed) % 200 == 0
        assert len(listed) // 200 in (last + 1, last + 2)
        catalogue.record([uploaded("after")])
        assert "after" in keys(catalogue)


# Speed: not how fast, but what a hundred thousand entries take


@contextmanager
def asked(catalogue):
    """What the database is asked meanwhile: (statement, parameters)."""
    statements = []

    def note(_connection, _cursor, statement, parameters, _context, _many):
        statements.append((statement, parameters))

    engine = catalogue._primary._opened(create=True)
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(engine, "before_cursor_execute", note)


def test_many_entries_are_recorded_by_as_few_statements_as_one(catalogue):
    counts = []
    for count in (1, 1, 1000):
        with asked(catalogue) as statements:
            catalogue.record([uploaded(f"{n:06}") for n in range(count)])
        counts.append(len(statements))
    assert counts[1] == counts[2] <= 3


def test_some_keys_of_many_are_looked_up_by_the_primary_key(catalogue):
    catalogue.record([uploaded(f"{n:06}") for n in range(2000)])
    with asked(catalogue) as statements:
        assert len(catalogue.known(ROUTE, "000500", "000600")) == 100
    ((statement, parameters),) = [(words, given) for words, given in statements if "catalogue_entries" in words]
    engine = catalogue._primary._opened(create=True)
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql("analyze catalogue_entries")
            plan = connection.exec_driver_sql(f"explain {statement}", parameters).scalars().all()
            assert [line for line in plan if "Index Cond" in line and "key >" in line.replace("(key)", "key")], plan
        else:
            plan = [row.detail for row in connection.exec_driver_sql(f"explain query plan {statement}", parameters)]
            assert "SEARCH catalogue_entries USING PRIMARY KEY (route_id=? AND key>? AND key<?)" in plan


# SQLite alone


def test_a_file_and_its_directory_are_their_owners_alone(tmp_path):
    with open_catalogue(catalogue_url(str(tmp_path / "a" / "b" / "c.db"), {}), warn=print) as catalogue:
        catalogue.record([uploaded("k")])
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "a").rglob("*")}
    assert modes["b"] == 0o700
    assert {mode for name, mode in modes.items() if name != "b"} == {0o600}


@pytest.mark.parametrize("content", [b"this is no database" * 100, b"SQLite format 3\0" + b"x" * 5000])
def test_a_file_that_is_something_else_is_left_alone(tmp_path, content):
    path = tmp_path / "letter.db"
    path.write_bytes(content)
    said = []
    with open_catalogue(catalogue_url(str(path), {}), warn=said.append) as catalogue:
        catalogue.record([uploaded("k")])
        with pytest.raises(ReplicatorError, match="letter.db"):
            catalogue.routes()
    assert path.read_bytes() == content
    assert "uploads go on" in said[0]
