"""What the catalogue is told of an outcome, and where it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import make_url

from replicator.catalogue.entries import Entry, State, entry_of
from replicator.catalogue.place import catalogue_url, shown
from replicator.catalogue.report import BATCH, CatalogueReport
from replicator.errors import ConfigurationError, Rejected
from replicator.model import Did, Outcome, Version

ROUTE = "here -> there"
NOW = 5000.0
SOURCE = Version(10, "etag", 1000.0, "v1", believable_from=2000.0)
SECRET = "p@ss:w/rd?#%é"


def outcome(did, *, source=SOURCE, began=4000.0, reason="why"):
    return Outcome("a/b", "there", did, reason, source=source, began=began)


def told(did, **more):
    return entry_of(outcome(did, **more), ROUTE, NOW)


@pytest.mark.parametrize(
    ("did", "state", "uploaded_at"),
    [
        (Did.COPIED, State.UPLOADED, NOW),
        (Did.MOVED, State.MOVED, NOW),
        (Did.METADATA, State.UPLOADED, None),
        (Did.TAGS, State.UPLOADED, None),
        (Did.IN_SYNC, State.UPLOADED, None),
    ],
)
def test_what_is_at_the_target_is_told_with_the_facts_of_its_source(did, state, uploaded_at):
    assert told(did) == Entry(
        route=ROUTE,
        key="a/b",
        state=state,
        size=10,
        etag="etag",
        modified=1000.0,
        version="v1",
        uploaded_at=uploaded_at,
        moved_at=NOW if did is Did.MOVED else None,
        recorded_at=NOW,
    )


@pytest.mark.parametrize(
    ("did", "state", "error"),
    [(Did.DELETED, State.DELETED, ""), (Did.SKIPPED, State.SKIPPED, "why"), (Did.FAILED, State.FAILED, "why")],
)
def test_what_was_not_uploaded_is_told_without_facts_which_would_be_taken_for_those_of_an_upload(did, state, error):
    assert told(did) == Entry(route=ROUTE, key="a/b", state=state, recorded_at=NOW, error=error)


@pytest.mark.parametrize("did", [Did.KEPT, Did.HELD, Did.BEGUN, Did.DIFFERS])
def test_what_changes_nothing_is_not_told(did):
    assert told(did) is None


def test_nothing_on_either_side_is_not_told():
    assert told(Did.IN_SYNC, source=None) is None


def test_every_did_is_either_told_or_known_to_be_nothing():
    assert {did for did in Did if told(did) is None} == {Did.KEPT, Did.HELD, Did.BEGUN, Did.DIFFERS}


@pytest.mark.parametrize(("began", "version"), [(2000.0, "v1"), (1999.9, None), (0.0, None)], ids=str)
def test_a_file_that_was_written_just_before_it_was_read_is_not_believed_later(began, version):
    assert told(Did.COPIED, began=began).version == version


# The report


class Recorded:
    def __init__(self, *, is_away=False):
        self.batches = []
        self.is_away = is_away

    def record(self, entries):
        self.batches.append(list(entries))


def test_a_report_records_at_every_thousand_and_when_it_is_flushed():
    catalogue = Recorded()
    report = CatalogueReport(catalogue, ROUTE, clock=lambda: NOW)
    for _ in range(BATCH + 1):
        report.add(outcome(Did.COPIED))
    report.add(outcome(Did.KEPT))
    report.flush()
    report.flush()  # nothing new, but what was kept in an outage is caught up
    assert [len(batch) for batch in catalogue.batches] == [BATCH, 1, 0]
    assert catalogue.batches[1] == [told(Did.COPIED)]


def test_what_is_noted_while_the_catalogue_records_is_recorded_the_next_time():
    catalogue = Recorded()
    report = CatalogueReport(catalogue, ROUTE, clock=lambda: NOW)
    report.add(outcome(Did.COPIED))
    record = catalogue.record

    def record_slowly(entries):
        record(entries)
        report.add(outcome(Did.FAILED))

    catalogue.record = record_slowly
    report.flush()
    catalogue.record = record
    report.flush()
    assert catalogue.batches == [[told(Did.COPIED)], [told(Did.FAILED)]]


def test_a_report_of_one_target_leaves_out_the_others():
    catalogue = Recorded()
    report = CatalogueReport(catalogue, ROUTE, target="elsewhere", clock=lambda: NOW)
    report.add(outcome(Did.COPIED))
    report.flush()
    assert catalogue.batches == [[]]


@pytest.mark.parametrize("away", [False, True])
def test_whoever_asks_is_told_whether_the_catalogue_takes_what_it_is_given(away):
    heard = []
    CatalogueReport(Recorded(is_away=away), ROUTE, told=heard.append).flush()
    assert heard == [not away]


def test_a_failure_is_told_in_its_own_words():
    error = Rejected("PutObject", "there/a/b", "no")
    told_of = entry_of(Outcome("a/b", "there", Did.FAILED, str(error), failure=error), ROUTE, NOW)
    assert told_of.error == "PutObject there/a/b: no"


# Where it is


def test_the_option_comes_before_the_variables_and_a_url_before_its_parts(tmp_path):
    environment = {"DB_HOST": "db", "DB_NAME": "three", "HOME": "/home/me"}
    assert catalogue_url(None, environment) == "postgresql+psycopg://db/three"
    environment["DATABASE_URL"] = "postgres://u:p@db:5433/two"
    assert catalogue_url(None, environment) == "postgresql+psycopg://u:p@db:5433/two"
    assert catalogue_url(f"sqlite:///{tmp_path}/one.db", environment) == f"sqlite:///{tmp_path}/one.db"


@pytest.mark.parametrize("path", ["/a/b c.db", "x.sqlite", "/a/100%?#.db", "/é/😀.db"])
def test_a_path_is_taken_as_it_is(path):
    assert make_url(catalogue_url(path, {})).database == path


@pytest.mark.parametrize(
    ("environment", "path"),
    [
        ({"XDG_STATE_HOME": "/state", "HOME": "/home/me"}, "/state/replicator/catalog.db"),
        ({"HOME": "/home/me"}, "/home/me/.local/state/replicator/catalog.db"),
        ({"XDG_STATE_HOME": "not/absolute", "HOME": "/home/me"}, "/home/me/.local/state/replicator/catalog.db"),
    ],
)
def test_without_anything_it_is_a_file_of_the_user(environment, path):
    assert shown(catalogue_url(None, environment)) == path


def test_a_password_of_any_characters_goes_through_db_password():
    url = make_url(
        catalogue_url(
            None, {"DB_HOST": "::1", "DB_PORT": "5433", "DB_NAME": "a b", "DB_USER": "u@v", "DB_PASSWORD": SECRET}
        )
    )
    assert (url.host, url.port, url.database, url.username, url.password) == ("::1", 5433, "a b", "u@v", SECRET)


@pytest.mark.parametrize(
    ("option", "environment", "named"),
    [
        ("mysql://u:hush-hush@db/x", {}, "--catalog"),
        ("postgresql+asyncpg://u:hush-hush@db/x", {}, "--catalog"),
        ("postgresql://u:hush-hush@db", {}, "names no database"),
        ("postgresql://u:hush-hush@db:0/x", {}, "port"),
        ("postgresql://u:hush-hush@db:port/x", {}, "--catalog"),
        ("postgresql://u:hush@-hush@db/x", {}, "%40"),
        ("postgresql://u:hush@-hush/hush@db/x", {}, "%40"),
        ("postgresql://u:hush-hush/x", {}, "no URL"),
        ("sqlite://", {}, "in memory"),
        ("sqlite:///:memory:", {}, "in memory"),
        ("sqlite://host/x.db", {}, "sqlite:////absolute"),
        ("sqlite:///x.db?hush-hush", {}, "nothing after it"),
        ("hush-hush", {}, "no URL"),
        (None, {"DATABASE_URL": "hush-hush"}, "DATABASE_URL"),
        (None, {"DB_HOST": "db", "DB_PASSWORD": "hush-hush"}, "DB_NAME"),
        (None, {"DB_HOST": "db", "DB_NAME": "x", "DB_PORT": "99999", "DB_PASSWORD": "hush-hush"}, "DB_PORT"),
        (None, {}, "HOME"),
    ],
)
def test_what_cannot_be_a_catalogue_is_refused_without_repeating_a_password(option, environment, named):
    with pytest.raises(ConfigurationError) as refused:
        catalogue_url(option, environment)
    assert named in str(refused.value)
    assert "hush" not in str(refused.value)


def test_a_place_is_told_without_user_password_and_parameters():
    assert shown("postgresql+psycopg://u:hush@[::1]:5433/x?sslpassword=hush") == "postgresql://[::1]:5433/x"


@pytest.mark.parametrize(
    "module",
    ["replicator.cli.main", "replicator.catalogue.report", "replicator.catalogue.place", "replicator.live.mirror"],
)
def test_nobody_pays_for_sqlalchemy_who_has_no_catalogue(module):
    program = f"import {module}, sys; print([m for m in ('sqlalchemy', 'alembic', 'psycopg') if m in sys.modules])"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "[]", "")
