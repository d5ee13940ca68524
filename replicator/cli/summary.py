"""What a run came to, in a table."""

from __future__ import annotations

from collections.abc import Sequence

from replicator.bulk.pricing import Requests, internet_price, region_price
from replicator.bulk.tally import Tally
from replicator.cli.table import print_table
from replicator.model import Deletes, Did
from replicator.sizes import bytes_in_words

Rows = list[tuple[str, str]]


def summary_of(tally: Tally, deletes: Deletes, seconds: float) -> Rows:
    """What was done, in words and figures."""
    rows = [("compared", f"{tally.compared:,}")]
    rows += [(did.value, f"{tally.did[did]:,}") for did in Did if tally.did[did] and did is not Did.IN_SYNC]
    if tally.extra and deletes is Deletes.KEEP:
        rows.append(("only at a target", f"{tally.extra:,}"))
    rows += [(f"not kept: {loss}", f"{count:,}") for loss, count in sorted(tally.not_kept.items())]
    if tally.throttled:
        rows.append(("throttled requests", f"{tally.throttled:,}"))
    return rows + [
        ("failed", f"{tally.failed:,}"),
        ("bytes", bytes_in_words(tally.bytes)),
        ("passes", str(tally.passes)),
        ("seconds", f"{seconds:.1f}"),
        ("rate", f"{tally.written / seconds:,.0f} objects/s, {bytes_in_words(tally.bytes / seconds)}/s"),
    ]


def print_summary(title: str, rows: Rows, *, requests: Requests | None, listed: Sequence[int]) -> None:
    """Prints to stdout. requests: of a dry run, with the objects that each side lists."""
    if requests is not None:
        requests.add_listings(listed)
        rows = [*rows, *_costs(requests)]
    print_table(title, rows)


def _costs(requests: Requests) -> Rows:
    return [
        ("to copy", f"{requests.copies:,} objects, {bytes_in_words(requests.bytes)}"),
        ("GET and HEAD requests", f"{requests.reads:,}"),
        ("PUT, COPY, POST and LIST requests", f"{requests.writes:,}"),
        ("DELETE requests", f"{requests.deletes:,}"),
        ("requests, at AWS list prices of us-east-1", f"${requests.price:,.2f}"),
        ("bytes out of AWS, to another region", f"${region_price(requests.bytes):,.2f}"),
        ("bytes out of AWS, to the internet", f"${internet_price(requests.bytes):,.2f}"),
    ]
