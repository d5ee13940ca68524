"""The numbers behind progress, summary and exit code."""

from __future__ import annotations

import json

import pytest

from replicator.bulk.tally import WRITES, Tally
from replicator.bulk.tasks import Counts, Pulse
from replicator.errors import AccessDenied
from replicator.model import Did, Outcome


def outcome(did, **more):
    return Outcome("key", "s3://to/", did, "because", **more)


def failure():
    return outcome(Did.FAILED, failure=AccessDenied("GetObject", "from/key", "no"))


def tally_of(*outcomes):
    tally = Tally()
    tally.start_pass()
    for one in outcomes:
        tally.add(one)
    return tally


@pytest.mark.parametrize("did", [Did.COPIED, Did.METADATA, Did.TAGS, Did.DELETED])
def test_whatever_changes_a_target_is_written(did):
    tally = tally_of(outcome(did, bytes=5), outcome(did, bytes=7))
    assert (tally.did[did], tally.written, tally.pass_writes, tally.bytes, tally.failed) == (2, 2, 2, 12, 0)


@pytest.mark.parametrize("did", [Did.IN_SYNC, Did.KEPT])
def test_what_changes_nothing_is_counted_but_not_written(did):
    tally = tally_of(outcome(did))
    assert (tally.did[did], tally.written, tally.pass_writes, tally.failed) == (1, 0, 0, 0)


def test_every_outcome_is_a_write_a_failure_or_neither():
    assert set(Did) - WRITES == {Did.IN_SYNC, Did.KEPT, Did.HELD, Did.BEGUN, Did.DIFFERS, Did.SKIPPED, Did.FAILED}


def test_what_every_pass_skips_anew_is_counted_once():
    tally = tally_of(outcome(Did.SKIPPED))
    tally.start_pass()
    tally.add(outcome(Did.SKIPPED))
    assert (tally.did[Did.SKIPPED], tally.failed, tally.pass_writes) == (1, 0, 0)


def test_a_failure_is_only_a_failure():
    tally = tally_of(failure(), failure())
    assert (tally.written, tally.pass_writes, tally.bytes) == (0, 0, 0)
    assert not tally.did


def test_failures_of_the_last_pass_alone_count():
    tally = tally_of()
    tally.failed = 2
    tally.start_pass()
    tally.failed = 1
    assert (tally.failed, tally.failed_before, tally.passes) == (1, 2, 2)


def test_a_pass_begins_with_its_own_counts_and_keeps_those_of_the_run():
    tally = tally_of(outcome(Did.COPIED, bytes=5, not_kept=("tags",)))
    tally.counts.add(Counts(source=1, targets=[3], extra=[2]))
    tally.pulse(Pulse(listed=3, found=4, worked=5))
    tally.listing_done = True
    tally.start_pass()
    assert (tally.compared, tally.extra, tally.listed, tally.found_bytes, tally.worked_bytes) == (0,) * 5
    assert (tally.pass_writes, tally.listing_done) == (0, False)
    assert (tally.written, tally.bytes, tally.not_kept) == (1, 5, {"tags": 1})


@pytest.mark.parametrize("did", [Did.COPIED, Did.METADATA, Did.TAGS])
def test_writing_again_what_a_target_cannot_keep_is_no_progress_after_the_first_pass(did):
    tally = tally_of()
    tally.start_pass()
    tally.add(outcome(did, not_kept=("website-redirect",)))
    assert (tally.written, tally.pass_writes) == (1, 0)


@pytest.mark.parametrize("did", [Did.COPIED, Did.METADATA])
def test_a_first_copy_that_lost_something_is_progress(did):
    assert tally_of(outcome(did, not_kept=("tags",))).pass_writes == 1


def test_losses_are_counted_by_kind_whatever_the_name_in_the_metadata():
    losses = ("metadata colour", "metadata name a_b", "tags", "storage class GLACIER", "website-redirect")
    tally = tally_of(outcome(Did.COPIED, not_kept=losses), outcome(Did.IN_SYNC, not_kept=("tags",)))
    assert tally.not_kept == {"metadata": 2, "tags": 2, "storage class GLACIER": 1, "website-redirect": 1}


def test_deletes_are_told_by_target_and_those_of_earlier_passes_apart():
    tally = tally_of(outcome(Did.DELETED))
    tally.start_pass()
    tally.add(outcome(Did.DELETED))
    tally.add(Outcome("key", "s3://other/", Did.DELETED, "because"))
    assert tally.deleted == {"s3://to/": 2, "s3://other/": 1}
    assert tally.deleted_before == {"s3://to/": 1}


def test_a_run_that_goes_on_knows_what_it_has_done():
    tally = tally_of(outcome(Did.COPIED, bytes=5, not_kept=("tags",)), outcome(Did.IN_SYNC), outcome(Did.DELETED))
    tally.counts.add(Counts(source=7, targets=[3, 4], extra=[0, 1]))
    again = Tally()
    again.restore(json.loads(json.dumps(tally.to_json())))
    assert again == tally
