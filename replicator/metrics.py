"""What Prometheus is told by a process that goes on for long, and whether it is well.

| metric                                   | meaning                                                        |
|------------------------------------------|----------------------------------------------------------------|
| `replicator_objects_total`               | outcomes, by target and action (the words of the report)       |
| `replicator_sent_bytes_total`            | bytes sent, by target                                          |
| `replicator_last_change_timestamp_seconds` | when a target was last changed; 0: not yet                   |
| `replicator_last_pass_timestamp_seconds` | when the last pass over everything ended; 0: not yet           |
| `replicator_last_pass_duration_seconds`  | how long it took                                               |
| `replicator_pending`                     | keys that are known to have changed and are not yet dealt with |
| `replicator_watch_events_total`          | changes that the file system or a queue told of                |
| `replicator_held`                        | messages in the hold queue; absent without one                 |
| `replicator_catalogue_up`                | 1: the catalogue takes what it is told; absent without one     |
| `replicator_url_requests_total`          | requests for presigned URLs, by status of the answer           |
| `replicator_events_total`                | requests to the webhook, by status of the answer               |
| `replicator_lag_seconds`                 | from a change to the moment when the targets have it           |
| `replicator_event_age_seconds`           | from a change to the moment when the webhook has stored it     |
| `replicator_healthy`                     | 1, or 0 when /healthz answers 503                              |
| `replicator_build_info`, `process_*`     | the version; memory, CPU, open files                           |
"""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector
from prometheus_client.exposition import choose_encoder

from replicator import __version__
from replicator.model import Did, Outcome

CHANGES = frozenset({Did.COPIED, Did.MOVED, Did.METADATA, Did.TAGS, Did.DELETED})
"""What changes a target."""

AGES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 20, 30, 45, 60, 120, 300, 3600)
"""Seconds."""


class Metrics:
    """Counts what happens. Is a Report (replicator.bulk.report), and may be called from any thread.

    clock: seconds since the epoch.
    """

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._unwell: str | None = None
        registry = self._registry = CollectorRegistry()
        Info("replicator_build", "Which replicator this is.", registry=registry).info({"version": __version__})
        ProcessCollector(registry=registry)
        self._objects = Counter(
            "replicator_objects", "Outcomes, one for each object and target.", ("target", "action"), registry=registry
        )
        self._sent = Counter("replicator_sent_bytes", "Bytes of objects sent.", ("target",), registry=registry)
        self._events = Counter("replicator_watch_events", "Changes that were told of.", registry=registry)
        self._urls = Counter(
            "replicator_url_requests", "Requests for presigned URLs, by HTTP status.", ("status",), registry=registry
        )
        self._webhook = Counter(
            "replicator_events", "Requests to the webhook, by HTTP status.", ("status",), registry=registry
        )
        self._event_ages = Histogram(
            "replicator_event_age_seconds",
            "Seconds from a change to its being stored here.",
            buckets=AGES,
            registry=registry,
        )
        self._lags = Histogram(
            "replicator_lag_seconds",
            "Seconds from a change to its being at the targets.",
            buckets=AGES,
            registry=registry,
        )
        self._changed = self._gauge("replicator_last_change_timestamp_seconds", "When a target was last changed.")
        self._passed = self._gauge("replicator_last_pass_timestamp_seconds", "When the last pass ended.")
        self._pass_took = self._gauge("replicator_last_pass_duration_seconds", "How long the last pass took.")
        self._pending = self._gauge("replicator_pending", "Changed keys that are not yet dealt with.")
        self._healthy = self._gauge("replicator_healthy", "Whether all is well.")
        self._healthy.set(1)
        self._catalogue: Gauge | None = None
        self._held: Gauge | None = None

    def add(self, outcome: Outcome) -> None:
        """Counts one outcome."""
        self._objects.labels(outcome.target, outcome.did.value).inc()
        self._sent.labels(outcome.target).inc(outcome.bytes)
        if outcome.did in CHANGES:
            self._changed.set(self._clock())

    def flush(self) -> None:
        """Does nothing: Prometheus fetches what it wants."""

    def passed(self, seconds: float) -> None:
        """A pass over everything has ended that took so long."""
        self._passed.set(self._clock())
        self._pass_took.set(seconds)

    def pending(self, keys: int) -> None:
        """So many keys are known to have changed and wait."""
        self._pending.set(keys)

    def watched(self, events: int = 1) -> None:
        """So many more changes were told of."""
        self._events.inc(events)

    def catalogue(self, *, up: bool) -> None:
        """Whether the catalogue takes what it is told. Not to be called where there is no catalogue."""
        if self._catalogue is None:
            self._catalogue = self._gauge("replicator_catalogue_up", "Whether the catalogue takes what it is told.")
        self._catalogue.set(up)

    def held(self, messages: int) -> None:
        """So many messages with deletes wait for a person. Not to be called where there is no hold queue."""
        if self._held is None:
            self._held = self._gauge("replicator_held", "Messages in the hold queue for deletes.")
        self._held.set(messages)

    def url_request(self, status: int) -> None:
        """A request for a presigned URL was answered with this status."""
        self._urls.labels(str(status)).inc()

    def event(self, status: int) -> None:
        """A request to the webhook was answered with this status."""
        self._webhook.labels(str(status)).inc()

    def lag(self, seconds: float) -> None:
        """A change is at the targets, so long after it happened. Clocks may differ: a negative one is 0."""
        self._lags.observe(max(seconds, 0.0))

    def event_age(self, seconds: float) -> None:
        """A change that the webhook was told of is stored, so long after it happened."""
        self._event_ages.observe(seconds)

    def healthy(self, reason: str | None) -> None:
        """All is well when there is no reason why not. reason: one line without secrets; /healthz shows it."""
        self._unwell = reason
        self._healthy.set(reason is None)

    @property
    def unwell(self) -> str | None:
        """The reason that `healthy` was last told."""
        return self._unwell

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """All metrics in the format that the Accept header asks for, and its content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, registry=self._registry)
