"""replicator verify: compares everything, changes nothing."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from pathlib import Path

import click

from replicator.bulk.report import open_report
from replicator.bulk.tally import Tally
from replicator.bulk.verify import Findings, Verification
from replicator.cli.echo import EchoingReport
from replicator.cli.launch import shared_limits
from replicator.cli.loop import run_async
from replicator.cli.options import (
    FilteringCommand,
    key_filter,
    location_options,
    run_options,
    settings_from,
)
from replicator.cli.progress import progress
from replicator.cli.route import no_object
from replicator.cli.table import print_table
from replicator.errors import StoreError
from replicator.filters import KeyFilter
from replicator.model import Did, Outcome
from replicator.s3.opening import check_sides, open_stores
from replicator.settings import Settings


@click.command(cls=FilteringCommand)
@location_options
@run_options
def verify(
    source: str | None,
    targets: tuple[str, ...],
    config: str | None,
    report: Path | None,
    **options: object,
) -> int:
    """Compare a bucket with its copies; name every difference.

    Looks at every object on every side: bytes (by checksum, ETag or stamp), headers, metadata and tags. Changes
    nothing. Exits with 1 when anything differs or could not be compared.
    """
    settings = settings_from(source, targets, config, options)
    keys = key_filter(settings.keys)
    return run_async(lambda: _verify(settings, keys, report))


def _difference(outcome: Outcome) -> str | None:
    if outcome.did is Did.IN_SYNC:
        return None
    return f"{outcome.did.value}: {outcome.target}{outcome.key!a}: {outcome.reason}"


async def _verify(settings: Settings, keys: KeyFilter, report: Path | None) -> int:
    began = time.monotonic()
    findings = Findings()
    problem = ""
    tally = Tally()
    async with AsyncExitStack() as stack:
        await check_sides((settings.source, *settings.targets))
        limits = stack.enter_context(shared_limits(settings))
        source, targets = await stack.enter_async_context(open_stores(settings, limits=limits))
        lines = stack.enter_context(open_report(report))
        await stack.enter_async_context(progress(tally))
        verification = Verification(
            source,
            targets,
            keys=keys,
            concurrency=settings.concurrency,
            report=EchoingReport(lines, _difference),
            findings=findings,
            tally=tally,
        )
        try:
            await verification.run()
        except StoreError as error:
            problem = f"stopped: {error}"
    rows = [(f"same by {evidence.value}", f"{count:,}") for evidence, count in findings.same.items()]
    rows += [(kind, f"{count:,}") for kind, count in findings.different.items()]
    rows += [
        ("same but for what the target cannot keep", f"{findings.not_kept:,}"),
        ("not comparable", f"{findings.failed:,}"),
        ("seconds", f"{time.monotonic() - began:.1f}"),
    ]
    places = ", ".join(target.name for target in targets)
    print_table(f"verify {settings.source.location} against {places}", rows)
    if not tally.compared and not problem:
        click.echo(f"replicator: {source.name} and its targets list {no_object(keys)}", err=True)
    if problem:
        click.echo(f"replicator: {problem}", err=True)
    return 0 if findings.equal and not problem else 1
