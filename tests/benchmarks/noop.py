"""Two buckets that are in sync already: how fast a tool finds that nothing is to be done.

What each peer believes differs, and what is believed from a listing costs nothing more:

| peer                    | compares                    | asks for                                   |
|-------------------------|-----------------------------|--------------------------------------------|
| replicator migrate      | ETag, size, which is older  | listings                                   |
| rclone copy --checksum  | ETag, size                  | listings                                   |
| rclone copy             | size, mtime from metadata   | listings, and a HEAD for each of a pair    |
| s5cmd sync, aws s3 sync | size, which is older        | listings                                   |

A case of listings alone would add nothing: here they are all that the first two do.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tests.benchmarks.field import Field
from tests.benchmarks.listing_server import counts, serve_listing
from tests.benchmarks.measure import Bench, alternate
from tests.benchmarks.tables import Result

KEYS, MORE_KEYS = 1_000_000, 5_000_000
SOURCE, TARGET = "source-x", "target-x"
RUNS = 3


def noop(bench: Bench) -> Iterator[Result]:
    """The slower a peer, the smaller its share of the keys: what is compared is the speed per pair."""
    with ExitStack() as servers:
        full, tenth, twentieth = (servers.enter_context(in_sync(KEYS // share, bench.layout)) for share in (1, 10, 20))
        peers = [*map(full.ours, bench.ours), full.rclone("--checksum"), full.rclone("--checksum", "--fast-list")]
        partial = [
            twentieth.rclone(note=f"on {KEYS // 20:,} pairs; asks for every object at both sides (HEAD)"),
            tenth.s5cmd("sync", note=f"on {KEYS // 10:,} pairs; compares sizes and times, not ETags"),
            twentieth.aws_sync(note=f"on {KEYS // 20:,} pairs; compares sizes and times, not ETags"),
        ]
        alternate([*peers, *partial], min(bench.runs, RUNS), warm_up=False)
        asked = [f"the servers of all {KEYS:,} pairs were asked for {_asked(full)}"]
        title = f"{KEYS:,} pairs in sync ({bench.layout}), synthetic listings"
        yield Result("noop", title, "pairs", [*peers, *partial], asked, per_server=True)


def noop5m(bench: Bench) -> Iterator[Result]:
    with in_sync(MORE_KEYS, bench.layout) as field:
        peers = [*map(field.ours, bench.ours), field.rclone("--checksum")]
        alternate(peers, 1, warm_up=False)
        title = f"{MORE_KEYS:,} pairs in sync ({bench.layout}), synthetic listings"
        yield Result("noop5m", title, "pairs", peers)


@contextmanager
def in_sync(keys: int, layout: str) -> Iterator[Field]:
    """Two servers that have the same; each has both buckets, for the peers that take one endpoint."""
    with serve_listing(keys, layout=layout) as here, serve_listing(keys, layout=layout) as there:
        yield Field(here=here, there=there, source=SOURCE, target=lambda: TARGET, work=keys)


def _asked(field: Field) -> str:
    """Proof that nobody wrote, and that those who should not ask for objects did not."""
    both = [counts(endpoint) for endpoint in (field.here, field.there)]
    kinds = sorted({kind for each in both for kind in each})
    return ", ".join(f"{kind} {sum(each.get(kind, 0) for each in both):,}" for kind in kinds)
