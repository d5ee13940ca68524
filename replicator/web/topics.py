"""The topics of SNS that a webhook takes messages of."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

from replicator.logs import logger
from replicator.web.sns import (
    Envelope,
    Kind,
    NotFromSns,
    check_addresses,
    check_signature,
    check_time,
    check_validity,
    read_certificate,
    read_envelope,
)

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

Fetch = Callable[[str], Awaitable[bytes]]
"""Gives the body of an address of HTTPS. Raises NotFetched (replicator.web.fetching)."""

CERTIFICATES = 8
"""Certificates that are kept; SNS has one for each region, and a new one every year."""


class Topics:
    """Proves messages of SNS, and confirms subscriptions. allowed: ARNs. clock: seconds since the epoch."""

    def __init__(self, allowed: frozenset[str], *, fetch: Fetch, clock: Callable[[], float]) -> None:
        self._allowed = allowed
        self._fetch = fetch
        self._clock = clock
        self._certificates: dict[str, Certificate] = {}
        self._fetching = asyncio.Lock()

    def __bool__(self) -> bool:
        """Whether any topic is allowed."""
        return bool(self._allowed)

    async def proved(self, document: Mapping[str, object]) -> Envelope:
        """The envelope, which SNS has sent lately for a topic that is allowed.

        Raises PoisonMessage for what is no envelope, NotFromSns for what cannot be believed, and NotFetched or
        BadCertificate when that could not be found out.
        """
        envelope = read_envelope(document)
        if envelope.topic not in self._allowed:
            raise NotFromSns(f"TopicArn {envelope.topic[:300]!a} is not among those that SNS_TOPICS allows")
        check_addresses(envelope)
        check_time(envelope, self._clock())
        check_signature(envelope, await self._certificate(envelope.certificate_url))
        return envelope

    async def settle(self, envelope: Envelope) -> str:
        """Confirms a subscription; what is no notification is logged. Idempotent. Returns what it was.

        envelope: that was proved. Raises NotFetched when SNS did not answer: it will ask again.
        """
        if envelope.kind is Kind.SUBSCRIPTION:
            await self._fetch(envelope.subscribe_url)
            logger.info("webhook: subscribed to %s", envelope.topic)
        else:
            logger.warning("webhook: no longer subscribed to %s", envelope.topic)
        return envelope.kind.value

    async def _certificate(self, url: str) -> Certificate:
        """Fetched once. One after the other: who has no certificate yet can make us fetch no more than that.

        Who has one does not wait for those.
        """
        known = self._certificates.get(url)
        if known is not None and not self._has_ended(known):
            check_validity(known, self._clock())
            return known
        async with self._fetching:
            known = self._certificates.get(url)
            if known is None or self._has_ended(known):
                known = read_certificate(await self._fetch(url))
            check_validity(known, self._clock())
            self._certificates[url] = known
            if len(self._certificates) > CERTIFICATES:
                del self._certificates[next(iter(self._certificates))]
        return known

    def _has_ended(self, certificate: Certificate) -> bool:
        return certificate.not_valid_after_utc.timestamp() < self._clock()
