"""replicator serve: the live mirror, webhooks, presigned URLs and Prometheus, until it is told to end."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from replicator.aws.config_source import load_config
from replicator.cli.loop import end_on_sigterm, run_async
from replicator.errors import ConfigurationError
from replicator.logs import start_logging
from replicator.urls import UrlPolicy, location_of_urls

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiohttp import web

    from replicator.cli.mirroring import Asked
    from replicator.metrics import Metrics
    from replicator.queues.opening import Queues
    from replicator.settings import Settings
    from replicator.web.listen import Listen

DRAIN = 20
"""Seconds: less than the 30 after which Kubernetes and Docker Compose kill what they have told to end."""


@click.command(short_help="Mirror changes as they happen; webhooks, URLs, metrics.")
@click.option("--queue", metavar="QUEUE", help="Mirror what it names: URL or ARN of a queue of SQS, or a file.")
@click.option("--events", "events_at", metavar="[HOST]:PORT", help="Take webhooks at POST /events, into --queue.")
@click.option("--urls", "urls_at", metavar="[HOST]:PORT", help="Answer POST /urls there, for who knows URLS_TOKEN.")
@click.option("--metrics", "metrics_at", metavar="[HOST]:PORT", help="Show /metrics and /healthz there, as :9108.")
@click.option(
    "--batches",
    type=click.IntRange(1, 256),
    default=8,
    show_default=True,
    help="Batches of messages at once, and as many work items.",
)
@click.option(
    "--drain",
    type=click.IntRange(1, 3600),
    default=DRAIN,
    show_default=True,
    metavar="SECONDS",
    help="How long what is at work may take to end, once told to.",
)
@click.option("--catalog", metavar="URL", help="Note what became of every object: see `replicator ls --help`.")
@click.option("--log-json", is_flag=True, help="Log lines of JSON.")
@click.option("--config", metavar="PLACE", help="A replicator.toml: FILE, ssm:NAME or s3://BUCKET/KEY.")
def serve(
    queue: str | None,
    events_at: str | None,
    urls_at: str | None,
    metrics_at: str | None,
    batches: int,
    drain: int,
    catalog: str | None,
    log_json: bool,
    config: str | None,
) -> int:
    """Run until SIGTERM: mirror changes as they happen, answer requests.

    --queue mirrors what the messages of a queue name: notifications of buckets, and the work items of `replicator
    migrate --engine sqs`. The routes are those of replicator.toml, or the one from SOURCE_BUCKET to TARGET_BUCKET.
    Several may share a queue, also a file on one machine. --events takes notifications over HTTP from MinIO, Ceph RGW
    and SNS, with EVENTS_TOKEN (docs/WEBHOOKS.md).

    --urls answers POST /urls with presigned URLs for TARGET_BUCKET (or URLS_BUCKET) below URLS_PREFIXES, to requests
    with "Authorization: Bearer" and URLS_TOKEN. Both speak plain HTTP: put what ends TLS before them.

    \b
    replicator serve --queue https://sqs.eu-central-1.amazonaws.com/123456789012/changes --metrics :9108
    EVENTS_TOKEN=$(openssl rand -hex 32) replicator serve --queue ./queue.db --events :8080
    URLS_BUCKET=my-bucket URLS_PREFIXES=reports replicator serve --urls 127.0.0.1:8080
    """
    if queue is None and events_at is not None:
        raise ConfigurationError("--events: give a --queue too, in which events are kept until they are mirrored")
    if queue is None and metrics_at is None and urls_at is None:
        raise ConfigurationError("nothing to serve: give --queue QUEUE, --urls :8080 or --metrics :9108")
    from replicator.cli.mirroring import Asked  # servers and their libraries: only where something is served
    from replicator.metrics import Metrics

    read, metrics = load_config(config, os.environ), Metrics()
    with start_logging(os.environ, json=log_json), ExitStack() as stack:
        mirror = _mirror(queue, read, Asked(catalog, batches, float(drain))) if queue is not None else None
        if mirror is not None:
            stack.callback(mirror.queues.close)
        sites = _sites(events_at, urls_at, metrics_at, read, metrics, mirror)
        return run_async(lambda: _serve(sites, mirror, metrics, float(drain)))


@dataclass(frozen=True, slots=True)
class _Mirror:
    routes: Sequence[Settings]
    queues: Queues
    asked: Asked


def _mirror(queue: str, config: Mapping[str, object], asked: Asked) -> _Mirror:
    from replicator.live.service import VISIBILITY
    from replicator.queues.opening import open_queues
    from replicator.routes import read_routes

    return _Mirror(read_routes(os.environ, config), open_queues(queue, os.environ, visibility=VISIBILITY), asked)


def _sites(
    events_at: str | None,
    urls_at: str | None,
    metrics_at: str | None,
    config: Mapping[str, object],
    metrics: Metrics,
    mirror: _Mirror | None,
) -> list[tuple[Listen, web.Application]]:
    """What is answered where. Raises ConfigurationError before anything listens."""
    from replicator.web.listen import parse_listen
    from replicator.web.pages import metrics_application

    sites = []
    if metrics_at is not None:
        sites.append((parse_listen(metrics_at, "--metrics"), metrics_application(metrics)))
    if urls_at is not None:
        sites.append((parse_listen(urls_at, "--urls"), _urls(os.environ, config, metrics)))
    if events_at is not None and mirror is not None:
        from replicator.web.sns import parse_topics
        from replicator.web.webhooks import events_application

        topics = parse_topics(os.environ.get("SNS_TOPICS", ""))
        token = os.environ.get("EVENTS_TOKEN", "")
        events = events_application(mirror.queues.changes, token, metrics=metrics, topics=topics)
        sites.append((parse_listen(events_at, "--events"), events))
    return sites


def _urls(environment: Mapping[str, str], config: Mapping[str, object], metrics: Metrics) -> web.Application:
    from replicator.s3.presigning import Presigner
    from replicator.web.issuing import urls_application

    policy = UrlPolicy.from_env(environment)
    if not policy.allowed_prefixes:
        raise ConfigurationError("URLS_PREFIXES is not set: --urls would sign nothing: name directories, or * for all")
    presigner = Presigner(location_of_urls(environment, config))
    return urls_application(presigner, policy, environment.get("URLS_TOKEN", ""), metrics)


async def _serve(
    sites: Sequence[tuple[Listen, web.Application]], mirror: _Mirror | None, metrics: Metrics, drain: float
) -> int:
    from replicator.cli.mirroring import mirroring
    from replicator.web.server import serve as serve_site

    async with AsyncExitStack() as stack:
        ended = end_on_sigterm(drain + 9.0 if mirror is not None else None)
        service = None
        if mirror is not None:
            opening = mirroring(mirror.routes, mirror.queues, mirror.asked, metrics)
            service = await stack.enter_async_context(opening)
        for listen, app in sites:
            await stack.enter_async_context(serve_site(listen, app))
        places = [str(listen) for listen, _ in sites] + ([one.name for one in mirror.queues.served] if mirror else [])
        click.echo(f"replicator: listening at {' and '.join(places)}", err=True)
        await (ended.wait() if service is None else service.run(ended))
    return 0
