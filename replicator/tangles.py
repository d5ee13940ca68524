"""Routes that would undo or feed each other: changes that go round in a circle, deletes of what another route wrote.

Pure. Filters are not looked at: whether two patterns share a key cannot be told in general.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, product

from replicator.model import Deletes
from replicator.settings import Settings
from replicator.sides import Side, overlap, same_bucket


def tangles(routes: Sequence[Settings]) -> list[str]:
    """A line for each circle and for each pair of routes of which one would delete what the other wrote.

    A chain is none: A to B by one route, B to C by another.
    """
    return [*_circles(routes), *_fights(routes)]


def _circles(routes: Sequence[Settings]) -> list[str]:
    """A line for each set of routes that feed each other. A route that feeds itself is told when it is read."""
    feeds = [[n for n, other in enumerate(routes) if other is not route and _feeds(route, other)] for route in routes]
    told: set[frozenset[int]] = set()
    lines = []
    for start in range(len(routes)):
        circle = _way_back(start, feeds)
        if circle and frozenset(circle) not in told:
            told.add(frozenset(circle))
            names = " -> ".join(f"[routes.{routes[n].name}]" for n in [*circle, start])
            lines.append(
                f"{names}: a change would go round in a circle, and replication in two ways needs rules for conflicts, "
                "of which there are none: keep one direction, or give prefixes that do not overlap"
            )
    return lines


def _way_back(start: int, feeds: Sequence[Sequence[int]]) -> list[int]:
    """The shortest way from a route to itself, as the routes on it; empty if there is none."""
    ways = [[start]]
    seen = set[int]()
    for way in ways:
        for following in feeds[way[-1]]:
            if following == start:
                return way
            if following not in seen:
                seen.add(following)
                ways.append([*way, following])
    return []


def _feeds(one: Settings, other: Settings) -> bool:
    """Whether what the one writes is read by the other."""
    return any(overlap(target, other.source) for target in one.targets)


def _fights(routes: Sequence[Settings]) -> list[str]:
    return [
        f"[routes.{one.name}] and [routes.{other.name}] both write to {_inner(mine, yours).location}: with deletes = "
        '"mirror" one would delete what the other wrote: give targets that do not overlap, or "keep" to both'
        for one, other in combinations(routes, 2)
        for mine, yours in product(one.targets, other.targets)
        if Deletes.MIRROR in (one.deletes, other.deletes)
        and overlap(mine, yours)
        and not _same_origin(one.source, mine, other.source, yours)
    ]


def _inner(one: Side, other: Side) -> Side:
    """The one of two overlapping sides that all common keys are below."""
    return one if len(one.prefix) >= len(other.prefix) else other


def _same_origin(one: Side, mine: Side, other: Side, yours: Side) -> bool:
    """Whether two routes make every common key of their targets from the same key of the same source.

    Then they agree about what is to be deleted; as with two routes that differ in filters or storage classes only.
    """
    common = _inner(mine, yours).prefix
    first = one.prefix + common[len(mine.prefix) :]
    second = other.prefix + common[len(yours.prefix) :]
    return same_bucket(one, other) and first == second
