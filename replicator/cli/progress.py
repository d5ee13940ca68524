"""Shows how a run goes: a bar on a terminal, a line of JSON every ten seconds elsewhere."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from replicator.bulk.tally import Tally

EVERY = 10.0
REFRESH = 0.25


@asynccontextmanager
async def progress(tally: Tally) -> AsyncIterator[None]:
    """Shows the tally on stderr while the block runs."""
    show = _bar(tally) if sys.stderr.isatty() else _lines(tally)
    showing = asyncio.create_task(show)
    try:
        yield
    finally:
        showing.cancel()
        await asyncio.gather(showing, return_exceptions=True)


async def _lines(tally: Tally) -> None:
    began = time.monotonic()
    while True:
        await asyncio.sleep(EVERY)
        seconds = time.monotonic() - began
        line = {
            "event": "progress",
            "pass": tally.passes,
            "seconds": round(seconds, 1),
            "listed": tally.listed,
            "compared": tally.compared,
            "written": tally.written,
            "failed": tally.failed,
            "bytes": tally.bytes,
            "bytes_per_second": round(tally.sent / seconds),
            "throttled": tally.throttled,
        }
        print(json.dumps(line), file=sys.stderr, flush=True)


async def _bar(tally: Tally) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("pass {task.fields[number]}: {task.fields[words]}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("run", total=None, number=0, words="")
        while True:
            words = f"{tally.listed:,} listed, {tally.written:,} written"
            if tally.failed:
                words += f", {tally.failed:,} failed"
            if tally.throttled:
                words += f", throttled {tally.throttled:,} times: {tally.limit} at once"
            total = tally.found_bytes if tally.listing_done else None
            bars.update(task, completed=tally.worked_bytes, total=total, number=tally.passes, words=words)
            await asyncio.sleep(REFRESH)
