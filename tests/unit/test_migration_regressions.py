"""Cases of bulk runs that were wrong once."""

import pytest

from replicator.bulk.plan import MOST_PASSES
from replicator.errors import Refused, StoreError
from replicator.model import Attributes, Deletes, Did
from tests.unit.test_migration import (
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
