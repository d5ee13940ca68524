"""Finds out how an object is cut into parts at its store."""

from __future__ import annotations

from typing import NamedTuple

from replicator.model import GiB, MiB, ObjectState
from replicator.multipart import (
    MAX_SINGLE,
    Layout,
    acceptable,
    default_layout,
    from_sizes,
    guess_layout,
    layout_from_first,
    parts_of,
)
from replicator.store import SourceStore

OUR_PART_SIZE = 16 * MiB

FEWEST_PARTS, MOST_PARTS = 4, 16
"""Parts of one object in flight. Four fill a machine of two cores; what takes hours one by one gets more: a service
gives a connection some 80 MB/s, which makes 17 hours for 5 TiB, and one for sixteen.
"""


def parts_at_once(layout: Layout) -> int:
    """How many parts of an object to have in flight: one more for each GiB."""
    size = layout[-1].offset + layout[-1].size
    return min(len(layout), MOST_PARTS, max(FEWEST_PARTS, size // GiB))


class Cut(NamedTuple):
    """A layout to copy by, and whether a copy made so can have the source's ETag: None for a single part."""

    layout: Layout | None
    keeps_etag: bool


async def find_cut(store: SourceStore, key: str, state: ObjectState, *, exact: bool = False) -> Cut:
    """How to cut the copy of an object so that its ETag stays equal, if that is possible.

    The store is asked for the first part; where it does not know parts (Ceph RGW 16), the layout is guessed from
    size and number of parts. Either way the composite ETag is the judge before a copy is completed.
    exact: asks for every part instead of taking them to be of one size.
    """
    count = parts_of(state.etag)
    if count is None and state.size > MAX_SINGLE:  # some stores take more in one request than AWS does
        return Cut(default_layout(state.size, OUR_PART_SIZE), keeps_etag=False)
    if count is None or state.size == 0:
        return Cut(None, keeps_etag=state.etag_is_md5)
    layout = await _declared(store, key, state, count, exact=exact)
    if layout is None:
        layout = guess_layout(state.size, count)
    if layout is None or not acceptable(layout):
        return Cut(default_layout(state.size, OUR_PART_SIZE), keeps_etag=False)
    return Cut(layout, keeps_etag=state.etag_is_md5)


async def _declared(store: SourceStore, key: str, state: ObjectState, count: int, *, exact: bool) -> Layout | None:
    first = await store.head(key, part=1)
    if first.parts != count or first.etag != state.etag:
        return None
    uniform = layout_from_first(state.size, count, first.size)
    if uniform is not None and not exact:
        return uniform
    others = [(await store.head(key, part=number)).size for number in range(2, count + 1)]
    sizes = [first.size, *others]
    return from_sizes(sizes) if sum(sizes) == state.size else None
