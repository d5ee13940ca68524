"""Finds a key at which what is left of a range can be cut in two, by asking the store for single keys.

Nothing is assumed about keys: neither '/', nor ASCII, nor that they are spread evenly. What is left lies after a known
key; the shortest prefix of that key which not all of the rest share is where the keys branch. The branches are
found one by one, and the range is cut at the first key of the middle one: a key that exists, so that no store has to
understand an invented one. A poor cut does no harm, as what turns out to be long is cut again.
"""

from __future__ import annotations

from replicator.errors import UntrustworthyListing
from replicator.store import SourceStore

LAST = "\U0010fffd"
"""Sorts after every character that stores take in practice: a prefix followed by it is beyond all keys that have it."""

MOST_BRANCHES = 24
"""Branches that are looked at before one of them is chosen."""

LONGEST = 1000
"""Bytes of a key that are looked at: S3 takes 1,024, LAST included."""


async def find_split(store: SourceStore, after: str, upto: str | None) -> str | None:
    """A key of the store after `after` and before `upto`, about in the middle; None if there is no good one.

    Asks for some twenty single keys, in turn. Raises StoreError.
    """
    probe = _Probe(store, after, upto)
    after = after.encode("utf-8", "replace")[: LONGEST - len(LAST.encode())].decode("utf-8", "ignore")
    length = await probe.shared(after)
    if length is None:
        return None
    branches: list[str] = []
    base, character = after[:length], after[length]
    while len(branches) < MOST_BRANCHES:
        key = await probe.first_beyond(base + character)
        if key is None or len(key) <= length:
            break
        branches.append(key)
        character = key[length]
    return _listable(branches[len(branches) // 2]) if branches else None


def _listable(key: str) -> str | None:
    """The key, unless it is the name of a file in no Unicode, from which no bucket can be listed."""
    try:
        key.encode()
    except UnicodeEncodeError:
        return None
    return key


async def honours_start(store: SourceStore, after: str) -> bool:
    """Whether the store's listings can begin in the middle: every range but the first one needs that."""
    try:
        async for _ in store.list_pages(after=after, page_size=1):
            break
    except UntrustworthyListing:
        return False
    return True


class _Probe:
    def __init__(self, store: SourceStore, after: str, upto: str | None) -> None:
        self._store = store
        self._after = after
        self._upto = upto

    async def first_beyond(self, prefix: str) -> str | None:
        """The first key before the end of the range that sorts after all keys with this prefix; None if there is none.

        None, too, where a key with this prefix sorts after LAST.
        """
        async for page in self._store.list_pages(after=prefix + LAST, page_size=1):
            key = page[0].key
            inside = key > self._after and (self._upto is None or key < self._upto)
            return key if inside and not key.startswith(prefix) else None
        return None

    async def shared(self, after: str) -> int | None:
        """How many characters of `after` all the remaining keys share; None if no key is beyond all that share it.

        The longer a prefix, the more keys are beyond it: so the boundary is found by halving.
        """
        low, high = 0, len(after)
        if not after or await self.first_beyond(after) is None:
            return None
        while low < high - 1:
            middle = (low + high) // 2
            if await self.first_beyond(after[:middle]) is None:
                low = middle
            else:
                high = middle
        return low
