"""POST /urls: presigned URLs for whoever knows the token."""

from __future__ import annotations

import asyncio
import hmac

from aiohttp import web

from replicator.errors import ConfigurationError
from replicator.metrics import Metrics
from replicator.s3.presigning import Presigner
from replicator.urls import LARGEST_REQUEST, UrlPolicy
from replicator.web.pages import add_health
from replicator.web.server import new_application

SHORTEST_TOKEN = 16

BODY_SECONDS = 10.0
"""Seconds in which the body of a request must have come."""


def check_token(token: str) -> str:
    """The token itself, when it is fit for use. Raises ConfigurationError, which does not show it."""
    if len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigurationError(
            f"URLS_TOKEN: must be at least {SHORTEST_TOKEN} characters of ASCII without blanks: it guards the URLs"
        )
    return token


def urls_application(presigner: Presigner, policy: UrlPolicy, token: str, metrics: Metrics) -> web.Application:
    """POST /urls for requests with "Authorization: Bearer TOKEN", and GET /healthz. Raises ConfigurationError."""
    expected = b"Bearer " + check_token(token).encode()

    async def urls(request: web.Request) -> web.Response:
        given = request.headers.get("Authorization", "").encode(errors="surrogateescape")
        if hmac.compare_digest(given, expected):
            response = await _answer(request, presigner, policy)
        else:
            response = web.json_response(
                {"error": "Authorization: must be Bearer and the token of this service"},
                status=401,
                headers={"WWW-Authenticate": "Bearer"},
            )
        metrics.url_request(response.status)
        return response

    app = new_application(largest_body=LARGEST_REQUEST)
    app.router.add_post("/urls", urls)
    add_health(app, metrics)
    return app


async def _answer(request: web.Request, presigner: Presigner, policy: UrlPolicy) -> web.Response:
    try:
        async with asyncio.timeout(BODY_SECONDS):
            body = await request.read()
    except TimeoutError:
        return web.json_response({"error": f"body: did not come within {BODY_SECONDS:.0f} seconds"}, status=408)
    except web.HTTPRequestEntityTooLarge:
        return web.json_response({"error": f"body: more than {LARGEST_REQUEST} bytes"}, status=413)
    status, document = await asyncio.to_thread(presigner.answer, body, policy)
    return web.json_response(document, status=status)
