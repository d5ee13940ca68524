"""Whatever happens in between, the targets end equal to the source.

Set REPLICATOR_SEEDS to play more runs, REPLICATOR_FIRST_SEED to start elsewhere (a failure prints its seed).
"""

from __future__ import annotations

import asyncio
import os

import pytest

from tests.faults.simulation import content, run

SEEDS = int(os.environ.get("REPLICATOR_SEEDS", "2400"))
FIRST = int(os.environ.get("REPLICATOR_FIRST_SEED", "0"))
BATCHES = 12


def check(seed: int, *, large: bool = False) -> None:
    world = asyncio.run(run(seed, large=large))
    for number, target in enumerate(world.targets):
        assert content(target) == content(world.source), f"seed {seed}, target {number}: {world.happened}"


@pytest.mark.parametrize("batch", range(BATCHES))
def test_targets_end_equal_whatever_the_interleaving(batch: int) -> None:
    for seed in range(FIRST + batch, FIRST + SEEDS, BATCHES):
        check(seed)


def test_targets_end_equal_with_objects_of_several_parts() -> None:
    for seed in range(FIRST, FIRST + SEEDS // 60):
        check(seed, large=True)
