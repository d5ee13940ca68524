"""Serves an application of aiohttp's on the event loop that is running."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from replicator.errors import ConfigurationError
from replicator.web.listen import Listen
from replicator.web.quiet import keep_requests_out_of_logs

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

LARGEST_BODY = 8192
"""Bytes of a request's body, unless an application says otherwise."""

LAST_ANSWERS = 2.0
"""Seconds that answers may still take when a server ends."""


def new_application(*, largest_body: int = LARGEST_BODY) -> web.Application:
    """An application without routes. Its errors are JSON, and nothing that it answers is kept by a cache."""
    return web.Application(client_max_size=largest_body, middlewares=[_plain_errors])


@asynccontextmanager
async def serve(listen: Listen, app: web.Application) -> AsyncIterator[None]:
    """Answers requests as long as the block lasts. Leaves signals alone, and logs no request.

    Raises ConfigurationError when nobody can listen there.
    """
    keep_requests_out_of_logs()
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=LAST_ANSWERS)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, listen.host, listen.port).start()
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
            raise ConfigurationError(
                f"cannot listen at {listen}: {reason}: choose another port or address, or end what listens there"
            ) from error
        yield
    finally:
        await runner.cleanup()


@web.middleware
async def _plain_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        response = await handler(request)
    except web.HTTPException as error:
        allowed = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
        response = web.json_response({"error": error.reason}, status=error.status, headers=allowed)
    response.headers["Cache-Control"] = "no-store"
    return response
