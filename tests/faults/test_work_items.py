"""Whatever happens to the items of large objects, the targets end equal to the source, and nothing is left behind.

Set REPLICATOR_SEEDS to play more runs, REPLICATOR_FIRST_SEED to start elsewhere (a failure prints its seed).
"""

from __future__ import annotations

import os

import pytest

from tests.fakes.hurried_loop import hurried
from tests.faults.queue_simulation import content, run

SEEDS = int(os.environ.get("REPLICATOR_SEEDS", "2400")) // 40
FIRST = int(os.environ.get("REPLICATOR_FIRST_SEED", "0"))
BATCHES = 6


def check(seed):
    world = hurried(run(seed))
    story = f"seed {seed}: {world.happened}"
    for number, target in enumerate(world.targets):
        assert content(target) == content(world.source), f"target {number} differs, {story}"
        known = [id for id in target.uploads if (f"target{number}/", id) in world.named]
        assert not known, f"target {number} has uploads that items named, {story}"
        # What no item named is of somebody who died before sending one, or amidst a change of metadata alone.
        assert not target.uploads or world.changes > 1, f"target {number} has an upload of what it holds, {story}"
    causes = sum(world.counts[kind] for kind in ("changed", "twice", "died", "cancelled", "failed", "lost"))
    assert world.sent <= (world.largest + 1) * (causes + 1), f"items multiply: {world.sent}, {story}"
    return world


@pytest.mark.slow
@pytest.mark.parametrize("batch", range(BATCHES))
def test_targets_end_equal_and_no_upload_is_left(batch):
    for seed in range(FIRST + batch, FIRST + SEEDS, BATCHES):
        check(seed)
