"""GET /metrics and GET /healthz."""

from __future__ import annotations

from aiohttp import web

from replicator.metrics import Metrics
from replicator.web.server import new_application


def add_health(app: web.Application, metrics: Metrics) -> None:
    """Adds GET /healthz: 200 and {"status": "ok"}, or 503 with the reason why not."""

    async def healthz(_: web.Request) -> web.Response:
        reason = metrics.unwell
        if reason is None:
            return web.json_response({"status": "ok"})
        return web.json_response({"status": "unwell", "reason": reason}, status=503)

    app.router.add_get("/healthz", healthz)


def metrics_application(metrics: Metrics) -> web.Application:
    """GET /metrics in the formats of Prometheus, and GET /healthz."""

    async def show(request: web.Request) -> web.Response:
        body, content_type = metrics.render(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    app = new_application()
    app.router.add_get("/metrics", show)
    add_health(app, metrics)
    return app
