"""replicator migrate: copies everything that is missing or differs, in passes, until nothing is left to do."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import click

from replicator.bulk.brakes import MaxDelete, parse_max_delete
from replicator.bulk.checkpoint import open_checkpoint
from replicator.bulk.plan import MOST_PASSES, Plan
from replicator.bulk.report import Report
from replicator.catalogue.place import is_configured
from replicator.cli.launch import cpus, open_crew, open_worker, shared_limits, trash_of
from replicator.cli.loop import run_async
from replicator.cli.options import (
    FilteringCommand,
    given_options,
    key_filter,
    location_options,
    run_options,
    settings_from,
)
from replicator.cli.route import route_between
from replicator.cli.run import Files, Run
from replicator.durations import parse_duration
from replicator.errors import ConfigurationError
from replicator.logs import start_logging
from replicator.model import Deletes
from replicator.settings import Settings

HOUR = 3600.0

FILE = click.Path(path_type=Path)


@click.command(cls=FilteringCommand)
@location_options
@click.option("--delete", is_flag=True, help="Also delete at the targets what the source does not have.")
@click.option(
    "--max-delete",
    metavar="N|P%",
    help="Delete no more than that, else nothing.  [default: 100, or 10% of a target's objects if that is more]",
)
@click.option("--trash", metavar="PREFIX", help="Move there, below the target, instead of deleting.")
@click.option("--deep", is_flag=True, help="Look at every object: also finds changes of tags, which listings hide.")
@click.option("--keys", type=FILE, help="Copy the keys in this file, one a line, instead of listing.")
@click.option("--inventory", metavar="URL", help="Copy the keys of an S3 Inventory: s3://BUCKET/.../manifest.json.")
@click.option(
    "--passes", type=click.IntRange(1), metavar="N", help="At the most; beside a live mirror 1 is enough.  [default: 8]"
)
@click.option("--dry-run", is_flag=True, help="Only say what would be done, and what it would cost.")
@click.option("--state", type=FILE, help="A file that remembers what is done, should the run be cut off.")
@click.option("--abort-stale", metavar="AGE", help="At the end, abort our unfinished uploads that are older, as 7d.")
@click.option("--catalog", metavar="URL", help="Note what became of every object: see `replicator ls --help`.")
@click.option("--processes", type=click.IntRange(1, 256), metavar="N", help="Worker processes.  [default: the CPUs]")
@click.option("--html", type=FILE, help="A page about the run, to look at.")
@click.option("--engine", type=click.Choice(["local", "sqs"]), default="local", help="sqs: workers at --queue do it.")
@click.option(
    "--queue", metavar="QUEUE", help="Of --engine sqs: URL or ARN of a queue of SQS, or a file.  [default: QUEUE_URL]"
)
@click.option("--no-wait", is_flag=True, help="With --engine sqs: end when all work is sent.")
@run_options
def migrate(
    source: str | None,
    targets: tuple[str, ...],
    config: str | None,
    delete: bool,
    max_delete: str | None,
    trash: str | None,
    deep: bool,
    keys: Path | None,
    inventory: str | None,
    passes: int | None,
    dry_run: bool,
    state: Path | None,
    abort_stale: str | None,
    html: Path | None,
    report: Path | None,
    catalog: str | None,
    engine: str,
    queue: str | None,
    no_wait: bool,
    **options: object,
) -> int:
    """Copy a bucket to one or several others.

    SOURCE and TARGET may also come from SOURCE_BUCKET and TARGET_BUCKET. Can be stopped at any time and run again: it
    copies what is missing or differs, then looks again until a whole pass finds nothing to do.

    \b
    replicator migrate s3://my-source s3://my-target --target-endpoint https://s3.example.com
    replicator migrate s3://my-source/photos other:my-target --delete --dry-run
    """
    if delete:
        options["deletes"] = Deletes.MIRROR.value
    settings = settings_from(source, targets, config, options, processes=cpus())
    if engine == "sqs":
        return _by_queue(settings, queue, deep=deep, keys=keys, inventory=inventory, wait=not no_wait)
    if queue is not None or no_wait:
        raise ConfigurationError(f"{'--queue' if queue is not None else '--no-wait'} is for --engine sqs")
    _check_deletes_wanted(settings, trash, max_delete)
    _check_together(settings, keys, inventory, state, dry_run=dry_run)
    plan = Plan(
        deletes=settings.deletes,
        dry_run=dry_run,
        deep=deep,
        one_look=keys is not None or inventory is not None,
        passes=passes or MOST_PASSES,
        keys=key_filter(settings.keys),
        max_delete=parse_max_delete(max_delete) if max_delete is not None else MaxDelete(),
        trash=trash_of(trash),
    )
    stale = _stale_age(abort_stale)
    if html is not None:
        from replicator.bulk.html import check_writable  # only where it is wanted: see cli/run.py

        check_writable(html)
    with ExitStack() as stack:
        limits = stack.enter_context(shared_limits(settings))
        reports = stack.enter_context(_catalogue(settings, catalog, dry_run=dry_run))
        opening = partial(open_worker, plan=plan, limits=limits, name_in_sync=report is not None or bool(reports))
        crew = stack.enter_context(open_crew(settings, opening))
        # After the processes are made: none may inherit the database, whose journal it could take for its own.
        checkpoint = stack.enter_context(open_checkpoint(state, _name_of(settings, plan)))
        route = route_between(settings, limits, plan.keys, keys=keys, inventory=inventory)
        run = Run(route, plan, checkpoint, crew, Files(report=report, html=html), reports=reports, stale=stale)
        return run_async(run.run)


def _by_queue(
    settings: Settings, queue: str | None, *, deep: bool, keys: Path | None, inventory: str | None, wait: bool
) -> int:
    from replicator.cli.by_queue import ByQueue, check_options, migrate_by_queue  # brings boto3 along

    queue = queue or os.environ.get("QUEUE_URL")
    if not queue:
        raise ConfigurationError("--engine sqs: give the --queue that the workers listen to, or set QUEUE_URL")
    check_options(given_options())
    if keys is not None and inventory is not None:
        raise ConfigurationError("--keys and --inventory: give one of them")
    return migrate_by_queue(settings, ByQueue(queue, deep, keys, inventory, wait))


@contextmanager
def _catalogue(settings: Settings, option: str | None, *, dry_run: bool) -> Iterator[Sequence[Report]]:
    """What notes the outcomes in a catalogue, if one is asked for."""
    if dry_run or not is_configured(option, os.environ):
        yield ()
        return
    from replicator.catalogue.opening import catalogue_for, reports_for  # brings a database along

    with start_logging(os.environ, json=False), catalogue_for(option, os.environ) as catalogue:
        yield reports_for(catalogue, settings)


def _check_deletes_wanted(settings: Settings, trash: str | None, max_delete: str | None) -> None:
    """Raises ConfigurationError for options about deletes where there are none."""
    if settings.deletes is Deletes.KEEP and (trash is not None or max_delete is not None):
        option = "--trash" if trash is not None else "--max-delete"
        raise ConfigurationError(f"{option} is about deletes, and there are none without --delete")


def _check_together(
    settings: Settings, keys: Path | None, inventory: str | None, state: Path | None, *, dry_run: bool
) -> None:
    """Raises ConfigurationError for options that contradict each other."""
    if keys is not None and inventory is not None:
        raise ConfigurationError("--keys and --inventory: give one of them")
    option = "--keys" if keys is not None else "--inventory"
    if (keys is not None or inventory is not None) and settings.deletes is Deletes.MIRROR:
        raise ConfigurationError(f"{option} and --delete: a list of keys does not tell what the source lacks")
    if (keys is not None or inventory is not None) and state is not None:
        raise ConfigurationError(f"{option} and --state: only runs that list the source remember what is done")
    if dry_run and state is not None:
        raise ConfigurationError("--state and --dry-run: a dry run leaves nothing behind to go on from")


def _stale_age(text: str | None) -> float | None:
    age = parse_duration(text, "--abort-stale") if text is not None else None
    if age is not None and age < HOUR:
        raise ConfigurationError(f"--abort-stale {text!r}: not less than 1h, which an upload may take")
    return age


def _name_of(settings: Settings, plan: Plan) -> str:
    """What a run is about: a state is good for one and the same."""
    sides = [f"{side.location} at {side.endpoint or 'AWS'}" for side in (settings.source, *settings.targets)]
    words = [plan.deletes.value, *(["deep"] if plan.deep else []), *plan.keys.words]
    return f"{sides[0]} -> {', '.join(sides[1:])} ({', '.join(words)})"
