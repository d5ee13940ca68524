"""Cases of bulk runs that were wrong once."""

import asyncio

import pytest

from replicator.bulk.brakes import MaxDelete
from replicator.bulk.plan import MOST_PASSES, Plan
from replicator.errors import Refused, StoreError
from replicator.model import Attributes, Deletes, Did
from tests.runs import migration
from tests.unit.test_migration import (
    BEGAN,
    KEYS,
    LARGE,
    LONG_AGO,
    PAGE,
    PART,
    RED,
    TEXT,
    Place,
    fail_listing,
    fail_on,
    keys_of,
    migrate,
    once,
)


async def test_a_source_that_is_emptied_between_two_passes_does_not_empty_the_target():
    """Refused says "nothing was deleted" - after all of it was deleted."""
    source, target = Place("from", KEYS), Place()
    seen = []
    begin = source.list_pages

    def list_pages(*, after=""):
        seen.append(after)
        if len(seen) == 2:
            source.bucket.objects.clear()
        return begin(after=after)

    source.list_pages = list_pages
    with pytest.raises(Refused, match="nothing was deleted"):
        await migrate(source, target, deletes=Deletes.MIRROR)
    assert keys_of(target) == sorted(KEYS)


async def test_nothing_is_deleted_in_a_pass_whose_listing_fails():
    source, target = Place("from", KEYS), Place("to", [*KEYS, "! first", "! second"])
    fail_listing(source, page=5, listing=1)
    with pytest.raises(StoreError, match="HTTP 500"):
        await migrate(source, target, deletes=Deletes.MIRROR, concurrency=2)
    assert "DeleteObject" not in target.calls


async def test_a_run_that_was_cut_off_while_it_deleted_goes_on_with_that(tmp_path):
    """What it had deleted in this very pass counted twice, and the rest was refused for good."""
    extra = [f"too many {n:03}" for n in range(900)]
    source, target = Place("from", KEYS), Place("to", [*KEYS, *extra])
    plan = Plan(deletes=Deletes.MIRROR, max_delete=MaxDelete(objects=len(extra)))

    async def run():
        async with migration(source, [target], plan, state=tmp_path / "state", clock=lambda: BEGAN) as one:
            await one.run()

    def cut_off(operation, key):
        if target.calls.count("DeleteObject") == 290:
            running.cancel()

    target.effects.append(cut_off)
    running = asyncio.ensure_future(run())
    with pytest.raises(asyncio.CancelledError):
        await running
    assert len(KEYS) < len(keys_of(target)) < len(KEYS) + len(extra)
    await run()
    assert keys_of(target) == sorted(KEYS)


async def test_what_one_of_two_targets_lost_in_an_earlier_pass_counts_for_it_alone():
    """The sum was shared out evenly: 90 and 40 of an allowed 100 went."""
    late = [f"late {n}" for n in range(40)]
    source = Place("from", [*KEYS, *late])
    one, two = Place("one", [*KEYS, *late]), Place("two", [*KEYS, *late, *(f"x {n:02}" for n in range(90))])

    def lose_them():
        for key in late:
            del source.bucket.objects[key]
        source.bucket.write("new", b"new", TEXT)

    once(two, "DeleteObject", "x 89", lose_them)
    with pytest.raises(Refused, match="memory://two/.* 90 were deleted before"):
        await migrate(source, one, two, deletes=Deletes.MIRROR, max_delete=MaxDelete(objects=100))
    assert set(late) < set(keys_of(two))


async def test_what_lies_in_the_trash_makes_no_room_for_more_deletes():
    """A tenth of the target's objects may go: years of trash made that all that was alive."""
    trash = [f"trash/20240101T000000Z-abcdef/{n:04}" for n in range(2000)]
    source, target = Place("from", KEYS[:1]), Place("to", [*KEYS, *(f"alive {n:03}" for n in range(180)), *trash])
    with pytest.raises(Refused, match="199 of the 200 objects"):
        await migrate(source, target, deletes=Deletes.MIRROR)
    assert "DeleteObject" not in target.calls


@pytest.mark.parametrize(
    ("quirks", "tags", "lost"),
    [
        ({"own_etags": True, "drops_redirect": True}, (), {"website-redirect"}),
        ({"holds_tags": False, "drops_redirect": True}, RED, {"website-redirect", "tags"}),
    ],
)
async def test_a_run_ends_although_the_target_cannot_keep_something(quirks, tags, lost):
    """First case: all bytes are moved again in each of 8 passes of every run, which then exits with 1.

    METADATA that cannot be done by the server becomes COPIED, and COPIED with not_kept counts as progress.
    Second case: tags that a server-side copy refuses make the bytes move again in the next run.
    """
    source, target = Place("from"), Place("to", **quirks)
    source.bucket.write("lossy", b"x", PAGE, tags=tags)
    source.bucket.write("lossy in parts", LARGE, PAGE, tags=tags, part_size=PART)
    run, tally, lines = await migrate(source, target)
    assert tally.passes < MOST_PASSES
    assert (tally.failed, run.still_changing) == (0, False)
    for key in ("lossy", "lossy in parts"):
        assert set(lines.of(key)[0].not_kept) == lost
    run, tally, lines = await migrate(source, target)
    assert (tally.did[Did.COPIED], tally.failed, run.still_changing) == (0, 0, False)


async def test_metadata_that_could_not_be_updated_in_the_first_pass_counts_as_failed_after_the_second():
    """The second pass started to count anew, and what had failed in the first one was forgotten."""
    source, target = Place("from"), Place()
    source.bucket.now = LONG_AGO + 100
    target.bucket.now = LONG_AGO
    fail_on(target, "CopyObject", ["meta"])
    fail_on(target, "PutObject", ["meta"])
    target.bucket.write("meta", b"x", TEXT)
    source.bucket.write("meta", b"x", Attributes(content_type="image/png"))
    source.bucket.write("new", b"y", TEXT)
    _, tally, _ = await migrate(source, target)
    assert target.bucket.objects["meta"].attributes == TEXT
    assert tally.failed == 1


async def test_tags_that_could_not_be_set_in_a_deep_first_pass_count_as_failed_after_the_second():
    """The second pass was not deep: it believed the listing, which tells no tags."""
    source, target = Place("from"), Place()
    source.bucket.now = LONG_AGO
    target.bucket.now = LONG_AGO + 100
    fail_on(target, "PutObjectTagging", ["tagged"])
    source.bucket.write("tagged", b"x", TEXT, tags=RED)
    target.bucket.write("tagged", b"x", TEXT)
    source.bucket.write("new", b"y", TEXT)
    _, tally, _ = await migrate(source, target, deep=True)
    assert target.bucket.objects["tagged"].tags == ()
    assert tally.failed == 1
