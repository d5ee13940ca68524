"""One push as the command line runs it: once, or until it is told to end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Coroutine
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from replicator.bulk.checkpoint import open_checkpoint
from replicator.bulk.plan import Plan
from replicator.bulk.report import Report, Reports, open_report
from replicator.catalogue.opening import catalogue_for, route_name
from replicator.catalogue.place import catalogue_url, path_of, state_folder
from replicator.catalogue.report import CatalogueReport
from replicator.cli.launch import open_crew, shared_limits
from replicator.cli.loop import end_on_sigterm, run_async
from replicator.cli.push import Asked
from replicator.cli.route import Keys, Route
from replicator.cli.run import Files, Run
from replicator.directory.beneath import Base
from replicator.errors import Unreachable
from replicator.logs import logger, start_logging
from replicator.push.agent import Agent
from replicator.push.disks import check_disks
from replicator.push.log import LogReport
from replicator.push.moving import SettledFiles, prepare_folder, tidy_folder
from replicator.push.only_one import InUse, only_one
from replicator.push.opening import Moving, Origin, Push, open_ends, open_push_worker
from replicator.push.watching import Watched
from replicator.s3.opening import check_sides
from replicator.settings import PushSettings
from replicator.sizes import counted


def run_push(settings: PushSettings, asked: Asked) -> int:
    """Runs it; the exit code. Raises ReplicatorError."""
    base = Base(settings.folder)
    once = asked.mirror and not asked.watch  # which ends with a summary
    with ExitStack() as stack:
        levels = {"LOG_LEVEL": "WARNING"} if once and not os.environ.get("LOG_LEVEL") else {}
        stack.enter_context(start_logging({**os.environ, **levels}, json=asked.log_json))
        if not asked.mirror:
            try:
                stack.enter_context(only_one(base.path))
            except InUse:
                logger.warning("another run is moving the files of %s: nothing is done here", base.path)
                return 0
        elif not asked.watch:  # which checks at every look
            check_disks(base, state_folder(os.environ), remember=not asked.plan.dry_run)
        limits = stack.enter_context(shared_limits(settings))
        catalogue = stack.enter_context(catalogue_for(asked.catalog, os.environ))
        route = route_name(f"{base.path}/", settings.targets[0])
        origin = Origin(base, asked.attributes, catalogue, route)
        moving = None if asked.mirror else Moving(asked.settle, asked.overwrite)
        push = Push(origin, _without_own_files(asked.plan, base, asked), limits, moving)
        if asked.watch:
            return run_async(partial(_go_on, settings, push, asked))
        return _once(settings, push, asked)


def _without_own_files(plan: Plan, base: Base, asked: Asked) -> Plan:
    """Leaves out what this program keeps in the folder, and changes by pushing: catalogue, state, report and log."""
    log = Path(os.environ["LOG_PATH"]) if os.environ.get("LOG_PATH") else None
    own: list[tuple[Path | None, tuple[str, ...]]] = [
        (path_of(catalogue_url(asked.catalog, os.environ)), ("-*",)),  # what SQLite has beside it
        (state_folder(os.environ), ("/*",)),
        (asked.report, ()),
        (log / "replicator.log" if log is not None and log.is_dir() else log, (".*",)),  # and those before it
    ]
    for path, more in own:
        if path is not None and path.resolve().is_relative_to(base.path):
            key = str(path.resolve().relative_to(base.path))
            logger.info("%s is left out: it is kept by this program", key)
            plan = replace(plan, keys=plan.keys.without(key, *more))
    return plan


def _once(settings: PushSettings, push: Push, asked: Asked) -> int:
    base, plan = push.origin.base, push.plan
    folders = [] if asked.mirror or plan.dry_run else prepare_folder(base, asked.settle.seconds)
    files = SettledFiles(base, asked.settle, plan.keys.includes)
    route = Route(
        f"{base.path}/",
        tuple(side.location for side in settings.targets),
        check=partial(check_sides, settings.targets),
        open=partial(open_ends, settings, push.origin, push.limits),
        keys=partial(_keys, None if asked.mirror else files),
        if_empty=_if_empty(asked),
    )
    reports: list[Report] = []
    if not plan.dry_run:
        reports.append(LogReport())
        reports.append(CatalogueReport(push.origin.catalogue, push.origin.route))
    with ExitStack() as stack:
        crew = stack.enter_context(open_crew(settings, partial(open_push_worker, push=push)))
        checkpoint = stack.enter_context(open_checkpoint(None, push.origin.route))
        run = Run(route, plan, checkpoint, crew, Files(report=asked.report), reports=reports, logged=True)
        code = run_async(run.run)
    if files.left:
        logger.info("left alone, not settled for %.0f s: %s", asked.settle.seconds, counted(files.left, "file"))
    tidy_folder(base, folders, push.origin.has_moved)
    return code


def _if_empty(asked: Asked) -> str:
    """What to say of a folder without files. To move none is nothing to speak of."""
    if not asked.mirror:
        return ""
    return "has no file" if asked.plan.keys.takes_all else "has no file that --include and --exclude take"


@asynccontextmanager
async def _keys(files: SettledFiles | None) -> AsyncIterator[Keys]:
    yield files.keys() if files is not None else None


async def _go_on(settings: PushSettings, push: Push, asked: Asked) -> int:
    """Watches until SIGTERM. Raises ConfigurationError when it cannot begin; a target that is away is waited for."""
    try:
        await check_sides(settings.targets)
    except Unreachable as error:
        logger.error("%s; it is tried again", error)
    ended = end_on_sigterm()
    async with _watched(asked.metrics_at) as (watched, counting):
        with open_report(asked.report) as lines:
            recording = CatalogueReport(push.origin.catalogue, push.origin.route, told=watched.catalogue)
            report = Reports(lines, LogReport(), recording, *counting)
            async with open_ends(settings, push.origin, push.limits) as (source, targets):
                agent = Agent(
                    settings,
                    push,
                    source,
                    targets,
                    state=state_folder(os.environ),
                    every=asked.rescan,
                    report=report,
                    watched=watched,
                )
                logger.info("watching %s", push.origin.route)
                try:
                    await _until(ended, agent.mirror() if asked.mirror else agent.move(asked.settle))
                finally:
                    report.flush()
    return 0


async def _until(ended: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """Works until that is set. Raises what the work has died of."""
    working, waiting = asyncio.create_task(work), asyncio.create_task(ended.wait())
    try:
        await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
    finally:
        for task in (working, waiting):
            task.cancel()
        await asyncio.gather(working, waiting, return_exceptions=True)


@asynccontextmanager
async def _watched(metrics_at: str | None) -> AsyncIterator[tuple[Watched, list[Report]]]:
    """Whom the watch tells of its work: Prometheus, if it is asked for."""
    if metrics_at is None:
        yield Watched(), []
        return
    from replicator.metrics import Metrics
    from replicator.web.listen import parse_listen
    from replicator.web.pages import metrics_application
    from replicator.web.server import serve

    metrics = Metrics()
    async with serve(parse_listen(metrics_at, "--metrics"), metrics_application(metrics)):
        watched = Watched(
            events=metrics.watched,
            pending=metrics.pending,
            passed=metrics.passed,
            well=metrics.healthy,
            catalogue=lambda up: metrics.catalogue(up=up),
        )
        yield watched, [metrics]
