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
from replicator.sides import names_of
from replicator.store import ObjectStore, SourceStore

Ends = tuple[SourceStore, Sequence[ObjectStore]]
Keys = AsyncIterator[Sequence[str]] | None


@dataclass(frozen=True, slots=True)
class Route:
    """source, targets: as people write them. check: proves that all can be used, raises ConfigurationError.

    open: source and targets. keys: batches of the keys to converge, or None to list the source. if_empty: what to say
    of a source of which no object was asked for, after its name, if anything.
    """

    source: str
    targets: tuple[str, ...]
    check: Callable[[], Awaitable[None]]
    open: Callable[[], AbstractAsyncContextManager[Ends]]
    keys: Callable[[], AbstractAsyncContextManager[Keys]]
    if_empty: str

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
        tuple(names_of(settings.targets)),
        check=partial(check_sides, (settings.source, *settings.targets)),
        open=partial(open_stores, settings, limits=limits),
        keys=partial(keys_to_converge, settings, chosen, keys=keys, inventory=inventory),
        if_empty=_if_empty(chosen, keys, inventory),
    )


def no_object(chosen: KeyFilter) -> str:
    """What listings have that came to nothing, and what to check. What was listed but not chosen was not counted."""
    if chosen.takes_all:
        return "no object: check the bucket and prefix"
    return "no object that the filters take: check --include, --exclude and a route's keys, the bucket and prefix"


def _if_empty(chosen: KeyFilter, keys: Path | None, inventory: str | None) -> str:
    if keys is None and inventory is None:
        return f"lists {no_object(chosen)}"
    option = "--keys" if keys is not None else "--inventory"
    return f"was asked for nothing: {option} names no key{'' if chosen.takes_all else ' that the filters take'}"
