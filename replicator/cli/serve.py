"""replicator serve: answers requests for presigned URLs, and Prometheus, until it is told to end."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from replicator.cli.options import STOP_WITHIN, run_async
from replicator.errors import ConfigurationError
from replicator.sides import read_config
from replicator.urls import UrlPolicy, location_of_urls

if TYPE_CHECKING:
    from aiohttp import web

    from replicator.metrics import Metrics
    from replicator.web.listen import Listen


@click.command()
@click.option("--metrics", "metrics_at", metavar="[HOST]:PORT", help="Show /metrics and /healthz there, as :9108.")
@click.option("--urls", "urls_at", metavar="[HOST]:PORT", help="Answer POST /urls there, for who knows URLS_TOKEN.")
@click.option("--config", type=click.Path(path_type=Path), help="A replicator.toml with endpoints.")
def serve(metrics_at: str | None, urls_at: str | None, config: Path | None) -> int:
    """Run until SIGTERM, answering requests.

    --urls answers POST /urls with presigned URLs for TARGET_BUCKET (or URLS_BUCKET) below URLS_PREFIXES, to requests
    with "Authorization: Bearer" and URLS_TOKEN. It speaks plain HTTP: put what ends TLS before it. A URL signed with
    temporary keys ends with them.

    \b
    export URLS_TOKEN=$(openssl rand -hex 32)
    URLS_BUCKET=my-bucket URLS_PREFIXES=reports replicator serve --urls 127.0.0.1:8080 --metrics :9108
    curl -H "Authorization: Bearer $URLS_TOKEN" -d '{"key": "reports/1.pdf", "expires": "15m"}' localhost:8080/urls
    """
    if metrics_at is None and urls_at is None:
        raise ConfigurationError("nothing to serve: give --metrics :9108, --urls :8080 or both")
    from replicator.metrics import Metrics  # servers and their libraries: only where something is served
    from replicator.web.listen import parse_listen
    from replicator.web.pages import metrics_application

    metrics = Metrics()
    sites = []
    if metrics_at is not None:
        sites.append((parse_listen(metrics_at, "--metrics"), metrics_application(metrics)))
    if urls_at is not None:
        sites.append((parse_listen(urls_at, "--urls"), _urls(os.environ, read_config(config), metrics)))
    return run_async(lambda: _serve(sites))


def _urls(environment: Mapping[str, str], config: Mapping[str, object], metrics: Metrics) -> web.Application:
    from replicator.s3.presigning import Presigner
    from replicator.web.issuing import urls_application

    policy = UrlPolicy.from_env(environment)
    if not policy.allowed_prefixes:
        raise ConfigurationError("URLS_PREFIXES is not set: --urls would sign nothing: name directories, or * for all")
    presigner = Presigner(location_of_urls(environment, config))
    return urls_application(presigner, policy, environment.get("URLS_TOKEN", ""), metrics)


async def _serve(sites: list[tuple[Listen, web.Application]]) -> int:
    from replicator.web.server import serve as serve_site

    async with AsyncExitStack() as stack:
        ended = end_on_sigterm()
        for listen, app in sites:
            await stack.enter_async_context(serve_site(listen, app))
        click.echo(f"replicator: listening at {' and '.join(str(listen) for listen, _ in sites)}", err=True)
        await ended.wait()
    return 0


def end_on_sigterm() -> asyncio.Event:
    """An event that SIGTERM sets, for a process that ends well when it is told to; instead of what run_async does.

    The process ends within seconds in any case, with exit code 0.
    """
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def end() -> None:
        ended.set()
        loop.call_later(STOP_WITHIN, os._exit, 0)

    loop.add_signal_handler(signal.SIGTERM, end)
    return ended
