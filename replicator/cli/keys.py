"""--keys and --inventory: the keys of a run that lists nothing."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path

from replicator.errors import ConfigurationError
from replicator.filters import KeyFilter
from replicator.s3.opening import check, open_store
from replicator.settings import Settings
from replicator.sides import split_location

BATCH = 256
"""Keys that a worker gets at once."""


@asynccontextmanager
async def keys_to_converge(
    settings: Settings, chosen: KeyFilter, *, keys: Path | None, inventory: str | None
) -> AsyncIterator[AsyncIterator[Sequence[str]] | None]:
    """Batches of the keys that a list or an inventory names; None if there is neither. Raises ConfigurationError."""
    if keys is not None:
        from replicator.bulk.keylist import check_keys, read_keys  # like the other, only where it is wanted

        check_keys(keys)
        yield _batches(_read(read_keys(keys)), chosen)
    elif inventory is not None:
        from replicator.bulk.inventory import inventory_keys

        name, bucket, manifest = split_location(inventory)
        if name is not None or not manifest:
            raise ConfigurationError(f"--inventory {inventory!r}: must be s3://BUCKET/.../manifest.json")
        side = replace(settings.source, bucket=bucket, prefix="", setting="--inventory")
        await check(side)
        with tempfile.TemporaryDirectory(prefix="replicator-") as scratch:
            async with open_store(side, concurrency=4) as store:
                source = settings.source
                found = inventory_keys(
                    store,
                    manifest.rstrip("/"),
                    source_bucket=source.bucket,
                    prefix=source.prefix,
                    scratch=Path(scratch),
                )
                yield _batches(found, chosen)
    else:
        yield None


async def _read(keys: Iterator[str]) -> AsyncIterator[str]:
    """The same keys; a slow pipe stops nothing else."""
    while block := await asyncio.to_thread(lambda: list(islice(keys, BATCH))):
        for key in block:
            yield key


async def _batches(keys: AsyncIterator[str], chosen: KeyFilter) -> AsyncIterator[Sequence[str]]:
    batch: list[str] = []
    async for key in keys:
        if chosen.includes(key):
            batch.append(key)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
