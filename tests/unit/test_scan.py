"""A range on its way: what is settled is settled in order, and ends where it was told to."""

from __future__ import annotations

import asyncio
import gc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.bulk.scan import MOST_OPEN, Scan
from replicator.bulk.tasks import Counts, Range
from replicator.diff import merge_sorted
from replicator.errors import Transient, UntrustworthyListing
from tests.fakes.memory import Bucket, MemoryStore

KEYS = [f"{n:03}" for n in range(30)]


class Paged(MemoryStore):
    """A store with pages of some size. fail_at: the number of a page that cannot be had."""

    def __init__(self, keys, page_size=3, fail_at=None):
        super().__init__(Bucket())
        for key in keys:
            self.bucket.write(key, b"x")
        self.page_size = page_size
        self.fail_at = fail_at
        self.pages = 0
        self.open = 0

    async def list_pages(self, *, after="", page_size=None):
        self.open += 1
        try:
            async for page in super().list_pages(after=after, page_size=page_size or self.page_size):
                self.pages += 1
                if self.pages == self.fail_at:
                    raise Transient("ListObjectsV2", "x", "HTTP 500")
                yield page
        finally:
            self.open -= 1


async def settle():
    for _ in range(200):
        await asyncio.sleep(0)


class Follower:
    """Runs a scan and keeps what it gives. instant: rows are done at once; else when `finish` is called."""

    def __init__(self, scan, *, instant=True, work=None, at_stretch=None):
        self.scan = scan
        self.given = []
        self.open = {}
        self.stretches = []
        self._instant = instant
        self._work = work or (lambda row: True)
        self._at_stretch = at_stretch

    async def sort_out(self, stretch):
        self.stretches.append(stretch)
        rows = merge_sorted(stretch.source, stretch.targets)
        self.given += [row.key for row in rows]
        if self._at_stretch:
            self._at_stretch(self, stretch)
        return Counts(len(stretch.source), [len(side) for side in stretch.targets]), [
            row for row in rows if self._work(row)
        ]

    async def give(self, row, opened):
        if self._instant:
            self.scan.done(opened)
        else:
            self.open[row.key] = opened

    async def run(self):
        await self.scan.run(self.sort_out, self.give)

    def finish(self, key):
        self.scan.done(self.open.pop(key))


def all_need_work(counts):
    async def sort_out(stretch):
        return counts, merge_sorted(stretch.source, stretch.targets)

    return sort_out


def between(keys, after, upto):
    return sorted(key for key in keys if key > after and (upto is None or key <= upto))


# The range


@pytest.mark.parametrize(
    ("after", "upto"),
    [("", None), ("", "009"), ("004", "011"), ("0045", "0115"), ("028", None), ("9", None), ("5", "6")],
)
@pytest.mark.parametrize("page_size", [1, 2, 3, 7, 1000])
async def test_exactly_the_keys_of_the_range_are_given(after, upto, page_size):
    source, target = Paged(KEYS, page_size), Paged([*KEYS[::2], "0045x", "zz"], 2)
    follower = Follower(Scan(source, [target], Range(after, upto)))
    await follower.run()
    assert follower.given == between({*KEYS, *KEYS[::2], "0045x", "zz"}, after, upto)
    await settle()
    assert (source.open, target.open) == (0, 0)
    assert follower.scan.listed_all


@given(
    st.sets(st.text("ab/é\U0010ffff", min_size=1, max_size=4), max_size=40),
    st.sets(st.text("ab/é\U0010ffff", min_size=1, max_size=4), max_size=40),
    st.text("ab/é\U0010ffff", max_size=4),
    st.none() | st.text("ab/é\U0010ffff", min_size=1, max_size=4),
    st.integers(1, 9),
    st.integers(1, 9),
)
def test_any_range_of_any_buckets_is_given_exactly_and_counted(source, target, after, upto, page, other_page):
    if upto is not None and upto < after:
        after, upto = upto, after
    scan = Scan(Paged(source, page), [Paged(target, other_page)], Range(after, upto))
    follower = Follower(scan)
    asyncio.run(follower.run())
    assert follower.given == between(source | target, after, upto)
    settled = scan.take_settled()
    counts = settled[1] if settled else Counts(0, [0])
    assert counts.source == len(between(source, after, upto))
    assert sum(counts.targets) == len(between(target, after, upto))


# Settling


async def test_a_range_is_settled_in_order_however_its_rows_are_done():
    scan = Scan(Paged(KEYS[:9]), [Paged([])], Range())
    follower = Follower(scan, instant=False)
    running = asyncio.create_task(follower.run())
    await settle()
    for key in ("008", "007", "006", "003", "004", "005", "001", "002"):
        follower.finish(key)
        assert scan.take_settled() is None
    assert (scan.position, scan.listed_all, running.done()) == ("008", True, False)
    follower.finish("000")
    assert scan.take_settled() == ("008", Counts(9, [0]))
    assert scan.take_settled() is None
    await running


async def test_a_slow_row_holds_back_what_follows_and_nothing_else():
    scan = Scan(Paged(KEYS), [Paged([])], Range())
    follower = Follower(scan, instant=False)
    running = asyncio.create_task(follower.run())
    await settle()
    for key in KEYS:
        if key != "013":
            follower.finish(key)
    assert scan.take_settled() == ("011", Counts(12, [0]))
    assert (scan.position, follower.given) == ("029", KEYS)
    await settle()
    assert not running.done()
    follower.finish("013")
    await running
    assert scan.take_settled() == ("029", Counts(18, [0]))


async def test_stretches_without_work_are_settled_as_they_are_listed():
    scan = Scan(Paged(KEYS), [Paged([])], Range("004"))
    told = []

    def note(follower, stretch):
        told.append(scan.take_settled())

    await Follower(scan, work=lambda row: False, at_stretch=note).run()
    assert told[0] is None
    assert [through for through, _ in filter(None, told)] == ["007", "010", "013", "016", "019", "022", "025", "028"]
    assert scan.take_settled() == ("029", Counts(1, [0]))


async def test_a_stretch_without_work_waits_for_the_one_before_it():
    scan = Scan(Paged(KEYS[:6]), [Paged([])], Range())
    follower = Follower(scan, instant=False, work=lambda row: row.key == "001")
    running = asyncio.create_task(follower.run())
    await settle()
    assert scan.take_settled() is None
    follower.finish("001")
    assert scan.take_settled() == ("005", Counts(6, [0]))
    await running


async def test_rows_done_while_a_stretch_is_still_handed_out_settle_nothing_too_early():
    scan = Scan(Paged(KEYS[:3]), [Paged([])], Range())
    settled = []

    async def give(row, opened):
        scan.done(opened)
        settled.append(scan.take_settled())

    await scan.run(all_need_work(Counts(3)), give)
    assert settled == [None, None, ("002", Counts(3))]


async def test_an_empty_range_ends_with_nothing_settled():
    scan = Scan(Paged([]), [Paged([])], Range())
    await Follower(scan).run()
    assert (scan.take_settled(), scan.listed_all) == (None, True)


# Many open stretches


async def test_listing_stops_at_the_most_stretches_open_and_goes_on_when_there_is_room():
    keys = [f"{n:05}" for n in range(MOST_OPEN + 40)]
    scan = Scan(Paged(keys, 1), [], Range())
    follower = Follower(scan, instant=False, work=lambda row: row.key in ("00000", "00020"))
    running = asyncio.create_task(follower.run())
    for _ in range(100):
        await settle()
    assert len(follower.stretches) == MOST_OPEN + 1
    assert not scan.listed_all
    follower.finish("00000")  # settles 20, and 20 more may be opened
    for _ in range(10):
        await settle()
    assert len(follower.stretches) == MOST_OPEN + 21
    follower.finish("00020")
    await asyncio.wait_for(running, 60)
    assert follower.given == keys
    assert scan.take_settled() == (keys[-1], Counts(len(keys), []))


# Shortening


@given(
    st.sets(st.text("abcdefgh", min_size=1, max_size=2), min_size=1, max_size=50),
    st.sets(st.text("abcdefgh", min_size=1, max_size=2), max_size=50),
    st.integers(1, 12),
    st.integers(1, 12),
    st.lists(st.tuples(st.integers(0, 20), st.text("abcdefgh", min_size=1, max_size=3)), max_size=4),
)
def test_a_range_shortened_while_it_runs_gives_all_up_to_the_new_end_and_none_after(
    source, target, page, other_page, cuts
):
    ends = [None]

    def cut(follower, stretch):
        for when, at in cuts:
            if when == len(follower.stretches):
                before = follower.scan.upto
                if follower.scan.shorten(at):
                    assert before is None or at < before
                    ends.append(at)
                else:
                    assert follower.scan.upto == before

    scan = Scan(Paged(source, page), [Paged(target, other_page)], Range())
    follower = Follower(scan, at_stretch=cut)
    asyncio.run(follower.run())
    assert follower.given == between(source | target, "", ends[-1])
    assert scan.upto == ends[-1]
    through, counts = scan.take_settled()
    assert counts.source == len(between(source, "", ends[-1]))
    assert ends[-1] is None or through <= ends[-1]
    assert not scan.shorten("a")


async def test_a_range_cannot_be_shortened_to_what_was_listed_or_beyond_its_end():
    tried = []

    def cut(follower, stretch):
        if stretch.through == "005":
            tried.extend(follower.scan.shorten(at) for at in ("003", "005", "020", "021", "0055"))

    scan = Scan(Paged(KEYS), [Paged([])], Range("", "020"))
    follower = Follower(scan, at_stretch=cut)
    await follower.run()
    assert tried == [False, False, False, False, True]
    assert follower.given == KEYS[:6]
    assert not scan.shorten("0056")


async def test_a_range_may_be_shortened_again_and_again():
    def cut(follower, stretch):
        if stretch.through == "002":
            assert [follower.scan.shorten(at) for at in ("020", "010", "015", "0075")] == [True, True, False, True]

    scan = Scan(Paged(KEYS), [Paged([])], Range())
    follower = Follower(scan, at_stretch=cut)
    await follower.run()
    assert follower.given == KEYS[:8]
    assert scan.take_settled()[0] == "0075"


async def test_a_range_shortened_while_rows_are_handed_out_ends_in_the_next_stretch():
    scan = Scan(Paged(KEYS), [Paged([])], Range())
    given = []

    async def give(row, opened):
        given.append(row.key)
        if row.key == "004":
            assert not scan.shorten("005")  # of the stretch at hand
            assert scan.shorten("0065")
        scan.done(opened)

    await scan.run(all_need_work(Counts()), give)
    assert given == KEYS[:7]


async def test_listing_does_not_go_on_beyond_the_end():
    source = Paged(KEYS)
    await Follower(Scan(source, [], Range("", "004"))).run()
    assert source.pages <= 4  # two, and what was read ahead
    await settle()
    assert source.open == 0


@pytest.mark.parametrize("new", ["0045", "999"])
async def test_a_range_may_be_cut_at_a_key_that_is_newer_than_its_listing(new):
    """Pages are read ahead; a split asks the source as it is now. That is no listing out of order."""
    source = Paged(KEYS[:9])

    def cut(follower, stretch):
        if stretch.through == ("002" if new == "0045" else "008"):
            source.bucket.write(new, b"x")
            assert follower.scan.shorten(new)

    follower = Follower(Scan(source, [Paged([])], Range(), clock=lambda: source.bucket.now), at_stretch=cut)

    async def later(row, opened):  # by now the next page has come
        await settle()
        follower.scan.done(opened)

    follower.give = later
    await follower.run()
    assert [key for key in follower.given if key != new] == [key for key in KEYS[:9] if key < new]


async def test_a_range_may_be_cut_at_a_key_that_is_deleted_before_it_is_listed():
    source = Paged(KEYS[:9])

    def cut(follower, stretch):
        if stretch.through == "002":
            assert follower.scan.shorten("007")
            del source.bucket.objects["007"]

    follower = Follower(Scan(source, [], Range()), at_stretch=cut)
    await follower.run()
    assert [key for key in follower.given if key != "007"] == KEYS[:7]


async def test_a_range_that_was_settled_to_its_end_is_done_at_once():
    """As it is left by a worker that was lost before it could say that it had finished."""
    follower = Follower(Scan(Paged(KEYS), [Paged(KEYS)], Range("005", "005")))
    await follower.run()
    assert follower.given == []


class OfUtf16(Paged):
    """A store that sorts keys as Java does: what is beyond U+FFFF before what is just below it."""

    async def list_pages(self, *, after="", page_size=None):
        def order(key):
            return key.encode("utf-16-be", "surrogatepass")

        for key in sorted((key for key in self.bucket.objects if order(key) > order(after)), key=order):
            yield [self._listed(key)]


async def test_a_listing_in_another_order_than_that_of_keys_is_not_believed_to_have_come_to_the_end():
    source = OfUtf16(["a", "\U0001f600", "\uff5e1", "\uff5e2"])
    with pytest.raises(UntrustworthyListing):
        await Follower(Scan(source, [], Range("", "\uff5e2"))).run()


# Errors


@pytest.mark.parametrize("side", ["source", "target"])
@pytest.mark.parametrize("page", [1, 2, 4])
async def test_a_listing_that_fails_ends_the_scan_and_settles_only_what_was_listed_and_done(side, page):
    source, target = Paged(KEYS), Paged(KEYS)
    (source if side == "source" else target).fail_at = page
    scan = Scan(source, [target], Range())
    follower = Follower(scan)
    with pytest.raises(Transient, match="HTTP 500"):
        await follower.run()
    assert not scan.listed_all
    assert follower.given == KEYS[: 3 * (page - 1)]
    settled = scan.take_settled()
    assert (settled[0] if settled else "") == (KEYS[3 * (page - 1) - 1] if page > 1 else "")
    await settle()
    assert (source.open, target.open) == (0, 0)


async def test_rows_at_hand_when_a_listing_fails_may_still_be_done_and_settle():
    scan = Scan(Paged(KEYS, fail_at=3), [], Range())
    follower = Follower(scan, instant=False)
    with pytest.raises(Transient):
        await follower.run()
    assert scan.take_settled() is None
    for key in KEYS[:6]:
        follower.finish(key)
    assert scan.take_settled() == ("005", Counts(6, []))


async def test_a_page_beyond_the_end_may_fail():
    follower = Follower(Scan(Paged(KEYS, fail_at=3), [], Range("", "004")))
    await follower.run()
    assert follower.given == KEYS[:5]


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 8, 13])
async def test_a_scan_that_is_cancelled_lets_go_of_its_listings(steps):
    source, target = Paged(KEYS), Paged(KEYS)
    follower = Follower(Scan(source, [target], Range()), instant=False)
    running = asyncio.create_task(follower.run())
    for _ in range(steps):
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()
    del running, follower  # its traceback holds on to what ran
    gc.collect()
    await settle()
    assert (source.open, target.open) == (0, 0)
    assert len(asyncio.all_tasks()) == 1
