"""What a run is between, and how its ends are opened and checked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from replicator.cli.keys import keys_to_converge
from replicator.filters import KeyFilter
from replicator.s3.opening import check_sides, open_stores
from replicator.s3.pace import Limits
from replicator.settings import Settings
from replicator.store import ObjectStore, SourceStore

Ends = tuple[SourceStore, Sequence[ObjectStore]]
Keys = AsyncIterator[Sequence[str]] | None


@dataclass(frozen=True, slots=True)
class Route:
    """source, targets: as people write them. check: proves that all can be used, raises ConfigurationError.

    open: source and targets. keys: batches of the keys to converge, or None to list the source. if_empty: what to say
    of a source without objects, if anything.
    """

    source: str
    targets: tuple[str, ...]
    check: Callable[[], Awaitable[None]]
    open: Callable[[], AbstractAsyncContextManager[Ends]]
    keys: Callable[[], AbstractAsyncContextManager[Keys]]
    if_empty: str = "lists no object: check the bucket and prefix"

    @property
    def words(self) -> str:
        """As the title of what is said about it."""
        return f"{self.source} -> {', '.join(self.targets)}"


def route_between(
    settings: Settings, limits: Limits | None, chosen: KeyFilter, *, keys: Path | None, inventory: str | None
) -> Route:
    """The route of a migration. keys, inventory: where the keys are named, if they are not to be listed."""
    return Route(
        settings.source.location,
        tuple(side.location for side in settings.targets),
        check=partial(check_sides, (settings.source, *settings.targets)),
        open=partial(open_stores, settings, limits=limits),
        keys=partial(keys_to_converge, settings, chosen, keys=keys, inventory=inventory),
    )
