"""Fetches small documents with HTTPS, for those who check the address themselves."""

from __future__ import annotations

import aiohttp
from yarl import URL

from replicator.errors import ReplicatorError

LARGEST = 64 * 1024
SECONDS = 8.0
"""SNS waits 15 for an answer."""


class NotFetched(ReplicatorError):
    """An address did not answer as it should: try again."""


async def fetch(url: str, *, seconds: float = SECONDS) -> bytes:
    """The body of the answer 200 to a GET, at most LARGEST bytes. Follows no redirects, and uses no proxy or cookies.

    seconds: for all of it. Raises NotFetched, which shows the host only: what comes after it may be secret.
    """
    address = URL(url, encoded=True)
    limit = aiohttp.ClientTimeout(total=seconds)
    try:
        async with (
            aiohttp.ClientSession(timeout=limit, cookie_jar=aiohttp.DummyCookieJar()) as session,
            session.get(address, allow_redirects=False) as answer,
        ):
            body = await answer.content.read(LARGEST + 1) if answer.status == 200 else b""
            while body and len(body) <= LARGEST and (more := await answer.content.read(LARGEST)):
                body += more
    except (aiohttp.ClientError, OSError) as error:
        raise NotFetched(f"{address.host}: {type(error).__name__}") from None
    if answer.status != 200 or len(body) > LARGEST:
        raise NotFetched(f"{address.host}: answered HTTP {answer.status}, with {len(body)} bytes")
    return body
