"""replicator migrate: copies everything that is missing or differs, in passes, until nothing is left to do."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from pathlib import Path

import click

from replicator.bulk.brakes import MaxDelete, parse_max_delete
from replicator.bulk.checkpoint import Checkpoint, open_checkpoint
from replicator.bulk.crew import Crew
from replicator.bulk.engine import Migration
from replicator.bulk.plan import Plan
from replicator.bulk.report import open_report
from replicator.bulk.tally import Tally
from replicator.cli.echo import EchoingReport
from replicator.cli.launch import cpus, open_crew, shared_limits
from replicator.cli.options import (
    FilteringCommand,
    key_filter,
    location_options,
    run_async,
    run_options,
    settings_from,
)
from replicator.cli.progress import progress
from replicator.cli.summary import print_summary
from replicator.errors import ConfigurationError, StoreError
from replicator.model import Deletes, Did, Outcome
from replicator.s3.opening import check_sides, open_stores
from replicator.settings import Settings


@click.command(cls=FilteringCommand)
@location_options
@click.option("--delete", is_flag=True, help="Also delete at the targets what the source does not have.")
@click.option(
    "--max-delete",
    metavar="N|P%",
    help="Delete no more than that, else nothing.  [default: 10% of a target's objects, or 100]",
)
@click.option("--trash", default="", metavar="PREFIX", help="Move there, below the target, instead of deleting.")
@click.option("--deep", is_flag=True, help="Look at every object: also finds changes of tags, which listings hide.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done, and what it would cost.")
@click.option(
    "--state", type=click.Path(path_type=Path), help="A file that remembers what is done, if the run is cut off."
)
@click.option("--processes", type=click.IntRange(1, 256), metavar="N", help="Worker processes.  [default: the CPUs]")
@run_options
def migrate(
    source: str | None,
    targets: tuple[str, ...],
    config: Path | None,
    delete: bool,
    max_delete: str | None,
    trash: str,
    deep: bool,
    dry_run: bool,
    state: Path | None,
    report: Path | None,
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
    trash = _trash(trash)
    if dry_run and state is not None:
        raise ConfigurationError("--state: a dry run leaves nothing behind to go on from")
    plan = Plan(
        deletes=settings.deletes,
        dry_run=dry_run,
        deep=deep,
        keys=key_filter(without=trash),
        max_delete=parse_max_delete(max_delete) if max_delete is not None else MaxDelete(),
        trash=trash,
    )
    with ExitStack() as stack:
        checkpoint = stack.enter_context(open_checkpoint(state, _route(settings, plan)))
        limits = stack.enter_context(shared_limits(settings))
        crew = stack.enter_context(open_crew(settings, plan, limits, name_in_sync=report is not None))
        return run_async(lambda: _Run(settings, plan, checkpoint, crew, report).run())


def _trash(text: str) -> str:
    prefix = text.strip("/")
    if text and not prefix:
        raise ConfigurationError(f"--trash {text!r}: give a prefix below the target")
    return f"{prefix}/" if prefix else ""


def _route(settings: Settings, plan: Plan) -> str:
    """What a run is about: a state is good for one and the same."""
    sides = [f"{side.location} at {side.endpoint or 'AWS'}" for side in (settings.source, *settings.targets)]
    words = [plan.deletes.value, *(["deep"] if plan.deep else []), *plan.keys.words]
    return f"{sides[0]} -> {', '.join(sides[1:])} ({', '.join(words)})"


def _would(outcome: Outcome) -> str | None:
    """What a dry run prints, as `aws s3 sync --dryrun` does."""
    if outcome.did in (Did.IN_SYNC, Did.KEPT):
        return None
    return f"(dry run) {outcome.did.value}: {outcome.target}{outcome.key!a}: {outcome.reason}"


def _failed(outcome: Outcome) -> str | None:
    if outcome.did is not Did.FAILED:
        return None
    return f"replicator: failed: {outcome.key!a} at {outcome.target}: {outcome.reason}"


@dataclass(frozen=True, slots=True)
class _Run:
    """A run that is ready to go."""

    settings: Settings
    plan: Plan
    checkpoint: Checkpoint
    crew: Crew
    report: Path | None

    async def run(self) -> int:
        """Runs to the end, and says how it went; the exit code."""
        began = time.monotonic()
        tally = Tally()
        problem = ""
        async with AsyncExitStack() as stack:
            await check_sides(self.settings)
            source, targets = await stack.enter_async_context(open_stores(self.settings))
            goes_on = self.checkpoint.resume() is not None
            lines = stack.enter_context(open_report(self.report, goes_on=goes_on))
            crew = await stack.enter_async_context(self.crew)
            await stack.enter_async_context(progress(tally))
            echoing = EchoingReport(lines, _would) if self.plan.dry_run else EchoingReport(lines, _failed, err=True)
            run = Migration(
                source, targets, self.plan, crew=crew, checkpoint=self.checkpoint, report=echoing, tally=tally
            )
            try:
                await run.run()
            except StoreError as error:
                problem = f"stopped: {error}"
        if run.still_changing and not problem:
            problem = f"the source was still changing in pass {tally.passes}: run again, or mirror it live"
        print_summary(self.settings, tally, time.monotonic() - began, dry_run=self.plan.dry_run)
        if not tally.compared and not problem:
            click.echo(f"replicator: {source.name} lists no object: check the bucket and prefix", err=True)
        if problem:
            click.echo(f"replicator: {problem}", err=True)
        return 1 if tally.failed or problem else 0
