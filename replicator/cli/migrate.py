"""replicator migrate: copies everything that is missing or differs, in passes, until nothing is left to do."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from pathlib import Path

import click

from replicator.bulk.engine import Migration, Plan
from replicator.bulk.report import open_report
from replicator.bulk.tally import Tally
from replicator.cli.echo import EchoingReport
from replicator.cli.options import (
    FilteringCommand,
    key_filter,
    location_options,
    run_async,
    run_options,
    settings_from,
)
from replicator.cli.progress import progress
from replicator.cli.table import human_bytes, print_table
from replicator.errors import StoreError
from replicator.model import Deletes, Did, Outcome
from replicator.s3.opening import open_stores
from replicator.settings import Settings


@click.command(cls=FilteringCommand)
@location_options
@click.option("--delete", is_flag=True, help="Also delete at the targets what the source does not have.")
@click.option("--deep", is_flag=True, help="Look at every object: also finds changes of tags, which listings hide.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@run_options
def migrate(
    source: str | None,
    targets: tuple[str, ...],
    config: Path | None,
    delete: bool,
    deep: bool,
    dry_run: bool,
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
    settings = settings_from(source, targets, config, options)
    plan = Plan(settings.deletes, settings.concurrency, settings.memory, dry_run, deep, key_filter())
    return run_async(lambda: _migrate(settings, plan, report))


def _would(outcome: Outcome) -> str | None:
    """What a dry run prints, as `aws s3 sync --dryrun` does."""
    if outcome.did in (Did.IN_SYNC, Did.KEPT):
        return None
    return f"(dry run) {outcome.did.value}: {outcome.target}{outcome.key!a}: {outcome.reason}"


def _failed(outcome: Outcome) -> str | None:
    if outcome.did is not Did.FAILED:
        return None
    return f"replicator: failed: {outcome.key!a} at {outcome.target}: {outcome.reason}"


async def _migrate(settings: Settings, plan: Plan, report: Path | None) -> int:
    began = time.monotonic()
    tally = Tally()
    problem = ""
    async with AsyncExitStack() as stack:
        source, targets = await stack.enter_async_context(open_stores(settings))
        lines = stack.enter_context(open_report(report))  # not before all is well: it empties the last report
        await stack.enter_async_context(progress(tally))
        echoing = EchoingReport(lines, _would) if plan.dry_run else EchoingReport(lines, _failed, err=True)
        run = Migration(source, targets, plan, report=echoing, tally=tally)
        try:
            await run.run()
        except StoreError as error:
            problem = f"stopped: {error}"
    if run.still_changing and not problem:
        problem = f"the source was still changing in pass {tally.passes}: run again, or mirror it live"
    _print_summary(settings, tally, time.monotonic() - began, dry_run=plan.dry_run)
    if not tally.compared and not problem:
        click.echo(f"replicator: {source.name} lists no object: check the bucket and prefix", err=True)
    if problem:
        click.echo(f"replicator: {problem}", err=True)
    return 1 if tally.failed or problem else 0


def _print_summary(settings: Settings, tally: Tally, seconds: float, *, dry_run: bool) -> None:
    rows = [("compared", f"{tally.compared:,}")]
    rows += [(did.value, f"{tally.did[did]:,}") for did in Did if tally.did[did] and did is not Did.IN_SYNC]
    if tally.extra and settings.deletes is Deletes.KEEP:
        rows.append(("only at a target", f"{tally.extra:,}"))
    rows += [(f"not kept: {loss}", f"{count:,}") for loss, count in sorted(tally.not_kept.items())]
    rows += [
        ("failed", f"{tally.failed:,}"),
        ("bytes", human_bytes(tally.bytes)),
        ("passes", str(tally.passes)),
        ("seconds", f"{seconds:.1f}"),
        ("rate", f"{tally.written / seconds:,.0f} objects/s, {human_bytes(tally.bytes / seconds)}/s"),
    ]
    places = ", ".join(side.location for side in settings.targets)
    print_table(f"{'dry run: ' if dry_run else ''}{settings.source.location} -> {places}", rows)
