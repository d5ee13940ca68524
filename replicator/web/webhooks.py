"""POST /events: what MinIO, Ceph RGW and SNS tell over HTTP goes into a queue.

| answer | when                                                                                               |
|--------|----------------------------------------------------------------------------------------------------|
| 200    | it is durably in the queue; or it is understood and names no change (a test event, an empty check) |
| 400    | it is no notification, or a work item (replicator.items)                                           |
| 401    | it shows no token, and is no message of SNS of a topic that is allowed                             |
| 403    | it means to be of SNS, and is not, or is of another topic                                          |
| 413    | its body is too large                                                                              |
| 503    | it did not come in time, or could not be stored or proved, or there is too much at once; SNS sent  |
|        | it long ago, by our clock                                                                          |

What is refused is answered late: RGW sends a message that was refused again at once, for ever, with all that wait
behind it. For the same reason one record that cannot be understood is no reason to refuse a message (web.restating).
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from aiohttp import web

from replicator.errors import PoisonMessage, QueueError
from replicator.events import ChangedKey
from replicator.logs import logger
from replicator.metrics import Metrics
from replicator.model import MiB
from replicator.queues.queue import Queue
from replicator.web.fetching import NotFetched, fetch
from replicator.web.group_commit import GroupCommit
from replicator.web.pages import add_health
from replicator.web.restating import Taken, document_in, take
from replicator.web.server import new_application
from replicator.web.sns import BadCertificate, Kind, NotFromSns, WrongTime, is_envelope
from replicator.web.tokens import WebhookToken
from replicator.web.topics import Fetch, Topics

LARGEST_BODY = MiB
REFUSAL_SECONDS = 1.0
RETRY_AFTER = 5

SNS_HEADER = "x-amz-sns-message-type"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a sender may ask of the endpoint.

    body: seconds in which a body must have come. store: seconds after which a sender is told to try again; what it sent
    may be stored by then, which does no harm. with_token, without_token: requests at once, each with a body in memory.
    refused: requests at once that wait for their refusal; any more are refused at once.
    """

    body: float = 10.0
    store: float = 10.0
    with_token: int = 256
    without_token: int = 16
    refused: int = 256


DEFAULTS = Limits()


def events_application(
    queue: Queue,
    token: str,
    *,
    metrics: Metrics,
    topics: frozenset[str] = frozenset(),
    setting: str = "EVENTS_TOKEN",
    fetch: Fetch = fetch,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    limits: Limits = DEFAULTS,
) -> web.Application:
    """POST /events for who shows the token, or for SNS; HEAD /events, which older MinIO ask; and GET /healthz.

    topics: ARNs of SNS whose messages are taken, and whose subscriptions are confirmed. setting: where the token comes
    from, for errors. fetch: gives the certificates of SNS, and confirms. clock: seconds since the epoch.
    Raises ConfigurationError for a token that is none.
    """
    known = WebhookToken(token, setting)
    commit = GroupCommit(queue)
    allowed = Topics(topics, fetch=fetch, clock=clock)
    endpoint = _Endpoint(commit, known, metrics, allowed, clock=clock, sleep=sleep, limits=limits)
    app = new_application(largest_body=LARGEST_BODY)
    app.router.add_post("/events", endpoint.post)
    app.router.add_head("/events", _there)
    add_health(app, metrics)

    async def end(_: web.Application) -> None:
        commit.close()

    app.on_cleanup.append(end)
    return app


async def _there(_: web.Request) -> web.Response:
    """MinIO asked so, without its token, whether there is an endpoint before it took it into its configuration."""
    return web.Response()


class _Refusal(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class _Endpoint:
    def __init__(
        self,
        commit: GroupCommit,
        token: WebhookToken,
        metrics: Metrics,
        topics: Topics,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        limits: Limits,
    ) -> None:
        self._commit = commit
        self._token = token
        self._metrics = metrics
        self._topics = topics
        self._clock = clock
        self._sleep = sleep
        self._limits = limits
        self._busy: Counter[str] = Counter()

    async def post(self, request: web.Request) -> web.Response:
        try:
            response = web.json_response(await self._answer(request))
        except _Refusal as refusal:
            response = _refused(refusal)
        self._metrics.event(response.status)
        if response.status != 200:
            await self._hold()
        return response

    async def _answer(self, request: web.Request) -> Mapping[str, object]:
        known = self._token.shown(request.headers.getall("Authorization", []), request.query.getall("token", []))
        if not known and not (self._topics and SNS_HEADER in request.headers):
            raise _unknown()
        with self._place("known", self._limits.with_token) if known else self._place("", self._limits.without_token):
            body = await _body_of(request, self._limits.body)
            try:
                async with asyncio.timeout(self._limits.store):
                    return await self._dealt_with(body, known=known)
            except PoisonMessage as error:
                logger.warning("webhook: refused what is no notification: %s", error.reason)
                raise _Refusal(400, error.reason) from None
            except WrongTime as error:  # not 403, after which SNS gives up: perhaps it is our clock
                logger.warning("webhook: a message of SNS is to be sent again: %s: is the clock here right?", error)
                raise _Refusal(503, f"try again: {error}") from None
            except NotFromSns as error:
                raise _Refusal(403, str(error)) from None
            except (QueueError, NotFetched, BadCertificate) as error:
                raise _Refusal(503, f"try again: {error}") from None
            except TimeoutError:
                raise _Refusal(503, f"try again: not stored within {self._limits.store:.0f} seconds") from None

    async def _dealt_with(self, body: bytes, *, known: bool) -> Mapping[str, object]:
        if known and not body:
            return {"ignored": "an empty body"}  # MinIO asked so whether there is an endpoint, before it used HEAD
        document = document_in(body)
        if is_envelope(document):
            envelope = await self._topics.proved(document)
            if envelope.kind is not Kind.NOTIFICATION:
                return {"ignored": await self._topics.settle(envelope)}
            document = document_in(envelope.message)
        elif not known:
            raise _unknown()
        return await self._store(take(document))

    async def _store(self, taken: Taken) -> Mapping[str, object]:
        if taken.messages:
            await self._commit.send(taken.messages)
        for reason in taken.set_aside:
            logger.warning("webhook: set aside a record that cannot be understood: %s", reason)
        self._note_ages(taken.changes)
        if taken.ignored is not None:
            return {"ignored": taken.ignored}
        return {"changes": len(taken.changes), "set_aside": len(taken.set_aside)}

    def _note_ages(self, changes: tuple[ChangedKey, ...]) -> None:
        now = self._clock()
        for change in changes:
            if change.time is not None:
                self._metrics.event_age(max(0.0, now - change.time.timestamp()))

    async def _hold(self) -> None:
        if self._busy["refused"] < self._limits.refused:
            with self._place("refused", self._limits.refused):
                await self._sleep(REFUSAL_SECONDS)

    @contextmanager
    def _place(self, kind: str, most: int) -> Iterator[None]:
        if self._busy[kind] >= most:
            raise _Refusal(503, "too many requests at once: try again")
        self._busy[kind] += 1
        try:
            yield
        finally:
            self._busy[kind] -= 1


async def _body_of(request: web.Request, seconds: float) -> bytes:
    try:
        async with asyncio.timeout(seconds):
            return await request.read()
    except TimeoutError:
        # Not 408: SNS gives a message up that was answered with 4xx, and perhaps it was we who were slow.
        raise _Refusal(503, f"body: did not come within {seconds:.0f} seconds") from None
    except web.HTTPRequestEntityTooLarge:
        raise _Refusal(413, f"body: more than {LARGEST_BODY} bytes") from None
    except web.RequestPayloadError:
        raise _Refusal(400, "body: not as its headers say") from None


def _unknown() -> _Refusal:
    return _Refusal(
        401, "Authorization: must be Bearer and the token of this service, or Basic with it as the password"
    )


def _refused(refusal: _Refusal) -> web.Response:
    response = web.json_response({"error": refusal.reason}, status=refusal.status)
    if refusal.status == 401:
        response.headers.add("WWW-Authenticate", 'Basic realm="replicator"')  # first: SNS knows no other
        response.headers.add("WWW-Authenticate", "Bearer")
    if refusal.status == 503:
        response.headers["Retry-After"] = str(RETRY_AFTER)
    return response
