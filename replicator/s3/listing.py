"""Listings that can be believed: every page must advance, in order, and the end must be said.

Deletes and "nothing left to do" rest on listings, so doubt is an error here (aws/aws-cli#734, #5456: listings that
ended early without a word, or repeated their first page for ever).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from itertools import pairwise
from operator import lt

from replicator.errors import UntrustworthyListing
from replicator.listed import keys_of
from replicator.model import Listed
from replicator.s3.client import LISTING, Call, S3Client, encode_query
from replicator.s3.xml import ListPage, MalformedXml, parse_list_page

PAGE = 1000
MAX_EMPTY_PAGES = 1000
"""A store may answer with empty pages while it skips deleted keys, but not for ever."""


async def list_objects(
    client: S3Client, prefix: str, *, after: str = "", page_size: int = PAGE
) -> AsyncIterator[Sequence[Listed]]:
    """Pages of the objects whose keys start with `prefix`, keys relative to it, in ascending order after `after`.

    An object whose key is the prefix itself is left out: relative to the prefix it would have an empty key.

    Raises UntrustworthyListing for any page that does not continue the one before.
    """
    token: str | None = None
    last: str | None = after or None
    empty = 0
    while True:
        page = await list_page(client, prefix, after=after, token=token, page_size=page_size)
        _check_order(client, page.entries, last)
        if page.entries:
            keys = keys_of(page.entries)
            last, empty = keys[-1], 0
            # The marker of the prefix itself ("logs/" below "logs/") is the directory, not something in it.
            yield page.entries if keys[0] else page.entries[1:]
        else:
            empty += 1
        if not page.truncated:
            if len(page.entries) > page_size:
                raise _doubt(client, f"a page of {len(page.entries)} entries where {page_size} were asked for")
            return
        if page.token is None or page.token == token or empty > MAX_EMPTY_PAGES:
            raise _doubt(client, f"says that there is more after {last!r} but does not advance")
        token = page.token


async def list_page(
    client: S3Client, prefix: str, *, after: str = "", token: str | None = None, page_size: int = PAGE
) -> ListPage:
    """One page of ListObjectsV2. Raises UntrustworthyListing for broken XML."""
    where = {"continuation_token": token} if token is not None else {"start_after": prefix + after} if after else {}
    query = encode_query(encoding_type="url", list_type=2, max_keys=page_size, prefix=prefix, **where)
    response = await client.send(Call(LISTING, "GET", query=query))
    try:
        return parse_list_page(response.document, prefix)
    except MalformedXml as error:
        raise _doubt(client, f"cannot be read: {error}") from error


def _check_order(client: S3Client, entries: Sequence[Listed], last: str | None) -> None:
    keys = keys_of(entries)
    before = keys if last is None else [last, *keys]
    if not all(map(lt, before, before[1:])):
        one, other = next((a, b) for a, b in pairwise(before) if not a < b)
        raise _doubt(client, f"has {other!r} after {one!r}: not in the order of keys, or repeated")


def _doubt(client: S3Client, reason: str) -> UntrustworthyListing:
    return UntrustworthyListing("ListObjectsV2", client.bucket, f"the listing {reason}")
