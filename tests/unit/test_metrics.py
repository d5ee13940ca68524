"""What Prometheus is told, in a form that Prometheus reads."""

from __future__ import annotations

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from replicator import __version__
from replicator.bulk.report import Report
from replicator.errors import ConfigurationError, Transient
from replicator.metrics import Metrics
from replicator.model import Did, Outcome
from replicator.web.listen import Listen, parse_listen

TARGET = "s3://to/"


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


def values(metrics):
    """(name, labels in the order of their names) -> value."""
    body, _ = metrics.render()
    families = parse_text(body.decode())
    return {(one.name, *one.labels.values()): one.value for family in families for one in family.samples}


def test_outcomes_are_counted_by_target_and_action():
    metrics = Metrics()
    report: Report = metrics
    for n in range(3):
        report.add(Outcome(f"key {n}", TARGET, Did.COPIED, "missing", bytes=10))
    report.add(Outcome("key", "s3://other/", Did.COPIED, "missing", bytes=1))
    report.add(Outcome("key", TARGET, Did.FAILED, "reset", failure=Transient("PutObject", "to/key", "reset")))
    report.flush()
    seen = values(metrics)
    assert seen["replicator_objects_total", "copied", TARGET] == 3
    assert seen["replicator_objects_total", "failed", TARGET] == 1
    assert (seen["replicator_sent_bytes_total", TARGET], seen["replicator_sent_bytes_total", "s3://other/"]) == (30, 1)


def test_no_key_becomes_a_label():
    metrics = Metrics()
    metrics.add(Outcome("the-key", TARGET, Did.COPIED, "missing"))
    assert b"the-key" not in metrics.render()[0]


@pytest.mark.parametrize("did", list(Did))
def test_the_last_change_is_when_a_target_was_changed(did):
    clock = Clock()
    metrics = Metrics(clock=clock)
    metrics.add(Outcome("key", TARGET, did, ""))
    nothing_changed = did in (Did.IN_SYNC, Did.KEPT, Did.HELD, Did.BEGUN, Did.DIFFERS, Did.SKIPPED, Did.FAILED)
    assert values(metrics)["replicator_last_change_timestamp_seconds",] == (0 if nothing_changed else clock.now)


def test_a_pass_leaves_its_time_and_how_long_it_took():
    clock = Clock()
    metrics = Metrics(clock=clock)
    clock.now = 2000.0
    metrics.passed(12.5)
    seen = values(metrics)
    assert seen["replicator_last_pass_timestamp_seconds",] == 2000.0
    assert seen["replicator_last_pass_duration_seconds",] == 12.5


def test_what_waits_goes_up_and_down_and_events_only_up():
    metrics = Metrics()
    metrics.pending(7)
    metrics.pending(2)
    metrics.watched()
    metrics.watched(4)
    metrics.url_request(403)
    seen = values(metrics)
    assert (seen["replicator_pending",], seen["replicator_watch_events_total",]) == (2, 5)
    assert seen["replicator_url_requests_total", "403"] == 1


def test_a_catalogue_is_spoken_of_only_where_there_is_one():
    metrics = Metrics()
    assert ("replicator_catalogue_up",) not in values(metrics)
    for up in (True, False, True):
        metrics.catalogue(up=up)
        assert values(metrics)["replicator_catalogue_up",] == up


def test_held_deletes_are_spoken_of_only_where_there_is_a_hold_queue():
    metrics = Metrics()
    assert ("replicator_held",) not in values(metrics)
    for count in (3, 0):
        metrics.held(count)
        assert values(metrics)["replicator_held",] == count


def test_all_is_well_until_there_is_a_reason_why_not():
    metrics = Metrics()
    assert (metrics.unwell, values(metrics)["replicator_healthy",]) == (None, 1)
    metrics.healthy("the folder is gone")
    assert (metrics.unwell, values(metrics)["replicator_healthy",]) == ("the folder is gone", 0)
    metrics.healthy(None)
    assert (metrics.unwell, values(metrics)["replicator_healthy",]) == (None, 1)


def test_two_processes_worth_of_metrics_do_not_meet():
    first, second = Metrics(), Metrics()
    first.pending(1)
    assert values(second)["replicator_pending",] == 0


def test_the_process_and_its_version_are_described():
    seen = values(Metrics())
    assert seen["replicator_build_info", __version__] == 1
    assert seen["process_resident_memory_bytes",] > 0


def test_openmetrics_is_spoken_to_who_asks_for_it():
    metrics = Metrics()
    metrics.watched()
    body, content_type = metrics.render("application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    names = {family.name for family in parse_openmetrics(body.decode())}
    assert "replicator_watch_events" in names
    assert metrics.render()[1].startswith("text/plain; version=0.0.4")


@pytest.mark.parametrize(
    ("text", "listen"),
    [
        (":9108", Listen(None, 9108)),
        ("9108", Listen(None, 9108)),
        ("127.0.0.1:9108", Listen("127.0.0.1", 9108)),
        ("localhost:1", Listen("localhost", 1)),
        ("[::1]:9108", Listen("::1", 9108)),
        ("[::]:65535", Listen("::", 65535)),
    ],
)
def test_an_address_is_written_in_any_of_the_usual_ways(text, listen):
    assert parse_listen(text, "--metrics") == listen
    assert parse_listen(str(listen), "--metrics") == listen


@pytest.mark.parametrize(
    "text", ["", ":", "host", ":0", ":65536", ":99999", ":x", "::1:9108", "http://x:1", "a b:1", "-1", ":1\n2", "٣"]
)
def test_what_is_no_address_is_refused_with_its_option(text):
    with pytest.raises(ConfigurationError, match="^--metrics .*:9108") as caught:
        parse_listen(text, "--metrics")
    assert "\n" not in str(caught.value)
