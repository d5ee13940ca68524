"""One migration as the command line runs it: stores and reports opened, progress shown, the end told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from replicator.bulk.checkpoint import Checkpoint
from replicator.bulk.crew import Crew
from replicator.bulk.engine import Migration
from replicator.bulk.plan import Plan
from replicator.bulk.pricing import Requests
from replicator.bulk.report import Report, Reports, open_report
from replicator.bulk.stale import abort_stale
from replicator.bulk.tally import Tally
from replicator.cli.echo import EchoingReport
from replicator.cli.progress import progress
from replicator.cli.route import Ends, Keys, Route
from replicator.cli.summary import print_summary, summary_of
from replicator.errors import Refused, StoreError, UntrustworthyListing
from replicator.model import Did, Outcome
from replicator.store import ObjectStore, SourceStore

if TYPE_CHECKING:
    from replicator.bulk.html import HtmlReport

SAMPLE_EVERY = 1.0
"""Seconds between two points of a chart."""


@dataclass(frozen=True, slots=True)
class Files:
    """What a run writes beside objects. None: it does not."""

    report: Path | None = None
    html: Path | None = None


class Run:
    """A migration that is ready to go.

    reports: what else is told of every outcome. logged: failures are told by one of them. stale: age in seconds of
    unfinished uploads to abort at the end, or None.
    """

    def __init__(
        self,
        route: Route,
        plan: Plan,
        checkpoint: Checkpoint,
        crew: Crew,
        files: Files,
        *,
        reports: Sequence[Report] = (),
        logged: bool = False,
        stale: float | None = None,
    ) -> None:
        self._route = route
        self._plan = plan
        self._checkpoint = checkpoint
        self._crew = crew
        self._files = files
        self._more_reports = reports
        self._logged = logged
        self._stale = stale
        self._tally = Tally()
        self._requests = Requests()
        self._html: HtmlReport | None = None
        if files.html is not None:
            from replicator.bulk.html import HtmlReport  # only where it is wanted: its import is 5 % of a short run

            self._html = HtmlReport()
        self._began = time.monotonic()
        self._aborted = self._left = 0
        self._problem = ""

    async def run(self) -> int:
        """Runs to the end, and says how it went; the exit code.

        Raises Refused, when that is said, and ReplicatorError when it could not begin.
        """
        await self._route.check()
        refusal: Refused | None = None
        async with AsyncExitStack() as stack:
            stores = await stack.enter_async_context(self._route.open())
            keys = await stack.enter_async_context(self._route.keys())
            goes_on = self._checkpoint.resume() is not None
            lines = stack.enter_context(open_report(self._files.report, goes_on=goes_on))
            crew = await stack.enter_async_context(self._crew)
            await stack.enter_async_context(progress(self._tally))
            await stack.enter_async_context(self._page())
            try:
                await self._migrate(stores, keys, crew, self._reports(lines, stores))
            except Refused as error:
                refusal = error
                self._problem = str(error)
        self._tell(stores[0].name, silent=refusal is not None)
        if refusal is not None:
            raise refusal
        return 1 if self._tally.failed or self._problem else 0

    async def _migrate(
        self,
        stores: Ends,
        keys: Keys,
        crew: Crew,
        report: Report,
    ) -> None:
        source, targets = stores
        run = Migration(
            source,
            targets,
            self._plan,
            crew=crew,
            checkpoint=self._checkpoint,
            report=report,
            tally=self._tally,
            keys=keys,
        )
        try:
            await run.run()
            if self._stale is not None:
                await self._abort_stale(source, targets, self._stale)
        except StoreError as error:
            hint = "; --keys and --inventory need no listing" if isinstance(error, UntrustworthyListing) else ""
            self._problem = f"stopped: {error}{hint}"
        if run.still_changing and not self._problem:
            self._problem = f"the source was still changing in pass {self._tally.passes}: run again, or mirror it live"

    async def _abort_stale(self, source: SourceStore, targets: Sequence[ObjectStore], age: float) -> None:
        for target in targets:
            before = time.time() + target.clock_skew - age
            try:
                stale = await abort_stale(
                    source, target, before=before, includes=self._plan.keys.includes, dry_run=self._plan.dry_run
                )
            except StoreError as error:
                self._problem = f"stale uploads were left alone: {error}"
                continue
            self._aborted += len(stale.aborted)
            self._left += stale.left
            if self._plan.dry_run:
                for upload in stale.aborted:
                    click.echo(f"(dry run) abort upload: {target.name}{upload.key!a}")

    def _reports(self, lines: Report, stores: Ends) -> Report:
        reports = [lines, *([self._html] if self._html is not None else []), *self._more_reports]
        if not self._plan.dry_run:
            return Reports(*reports) if self._logged else EchoingReport(Reports(*reports), _failed, err=True)
        server_side = {target.name: target.can_copy_from(stores[0]) for target in stores[1]}
        return EchoingReport(Reports(*reports, _Costs(self._requests, server_side)), _would)

    @asynccontextmanager
    async def _page(self) -> AsyncIterator[None]:
        """Samples throughput while the run goes on, and writes the page at its end, whatever the end."""
        if self._html is None or self._files.html is None:
            yield
            return
        sampling = asyncio.create_task(self._sample(self._html))
        try:
            yield
        except BaseException as error:
            self._problem = self._problem or str(error) or "interrupted"
            raise
        finally:
            sampling.cancel()
            self._point(self._html)
            self._html.write(
                self._files.html,
                title=self._route.words,
                facts=summary_of(self._tally, self._plan.deletes, time.monotonic() - self._began),
                problem=self._problem,
                failed=self._tally.failed,
            )

    async def _sample(self, html: HtmlReport) -> None:
        while True:
            self._point(html)
            await asyncio.sleep(SAMPLE_EVERY)

    def _point(self, html: HtmlReport) -> None:
        tally = self._tally
        html.sample(time.monotonic() - self._began, tally.written, tally.sent, tally.throttled)

    def _tell(self, source: str, *, silent: bool) -> None:
        """Prints the summary, and what is to be said of it, unless somebody else will (silent)."""
        dry_run = "dry run: " if self._plan.dry_run else ""
        more = []
        if self._stale is not None:
            more = [("stale uploads aborted", f"{self._aborted:,}"), ("not provably ours", f"{self._left:,}")]
        print_summary(
            f"{dry_run}{self._route.words}",
            [*summary_of(self._tally, self._plan.deletes, time.monotonic() - self._began), *more],
            requests=self._requests if self._plan.dry_run else None,
            listed=[self._tally.counts.source, *self._tally.counts.targets],
        )
        if silent:
            return
        if not self._tally.compared and not self._problem and self._route.if_empty:
            click.echo(f"replicator: {source} {self._route.if_empty}", err=True)
        if self._problem:
            click.echo(f"replicator: {self._problem}", err=True)


class _Costs:
    """A report that counts what is asked of the services. server_side: by the names of targets."""

    def __init__(self, requests: Requests, server_side: dict[str, bool]) -> None:
        self._requests = requests
        self._server_side = server_side

    def add(self, outcome: Outcome) -> None:
        self._requests.add(outcome, server_side=self._server_side.get(outcome.target, False))

    def flush(self) -> None:
        """Does nothing."""


def _would(outcome: Outcome) -> str | None:
    """What a dry run prints, as `aws s3 sync --dryrun` does."""
    if outcome.did in (Did.IN_SYNC, Did.KEPT):
        return None
    return f"(dry run) {outcome.did.value}: {outcome.target}{outcome.key!a}: {outcome.reason}"


def _failed(outcome: Outcome) -> str | None:
    if outcome.did not in (Did.FAILED, Did.SKIPPED):
        return None
    return f"replicator: {outcome.did.value}: {outcome.key!a} at {outcome.target}: {outcome.reason}"
