"""What a run came to, in a table."""

from __future__ import annotations

from replicator.bulk.tally import Tally
from replicator.cli.table import human_bytes, print_table
from replicator.model import Deletes, Did
from replicator.settings import Settings


def print_summary(settings: Settings, tally: Tally, seconds: float, *, dry_run: bool) -> None:
    """Prints to stdout."""
    rows = [("compared", f"{tally.compared:,}")]
    rows += [(did.value, f"{tally.did[did]:,}") for did in Did if tally.did[did] and did is not Did.IN_SYNC]
    if tally.extra and settings.deletes is Deletes.KEEP:
        rows.append(("only at a target", f"{tally.extra:,}"))
    rows += [(f"not kept: {loss}", f"{count:,}") for loss, count in sorted(tally.not_kept.items())]
    rows += [
        ("failed", f"{tally.failed:,}"),
        ("bytes", human_bytes(tally.bytes)),
        ("passes", str(tally.passes)),
        *([("throttled requests", f"{tally.throttled:,}")] if tally.throttled else []),
        ("seconds", f"{seconds:.1f}"),
        ("rate", f"{tally.written / seconds:,.0f} objects/s, {human_bytes(tally.bytes / seconds)}/s"),
    ]
    places = ", ".join(side.location for side in settings.targets)
    print_table(f"{'dry run: ' if dry_run else ''}{settings.source.location} -> {places}", rows)
