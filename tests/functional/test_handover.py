"""The hand-over of a bucket that is written to all the time: connect, migrate, mirror."""

from __future__ import annotations

import asyncio

import pytest

from tests.handover import hand_over


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_bucket_that_is_written_to_is_handed_over_without_a_gap(rgw_endpoint, second_rgw_endpoint, tmp_path):
    result = asyncio.run(hand_over(rgw_endpoint, second_rgw_endpoint, tmp_path, seconds=3.0, rate=50.0))
    assert min(result.kinds[kind] for kind in ("writes", "deletes", "metadata")) > 0
    assert (result.migrate.returncode, result.migrate.stderr) == (0, "")
    assert (result.verify.returncode, result.verify.stderr) == (0, "")
    assert result.counted["replicator_events_total", ""] > 0
