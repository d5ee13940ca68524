"""moto: AWS services in memory. S3 with events to SQS; it does not check signatures."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers.base import HOST, Endpoint, free_port, http_answers, running


def missing() -> str | None:
    if importlib.util.find_spec("moto") and importlib.util.find_spec("flask"):
        return None
    return "moto is not installed: make setup"


@contextmanager
def serve(state: Path, *, name: str = "moto") -> Iterator[Endpoint]:
    """POST /moto-api/reset empties it."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(port)]
    with running(name, command, state=state, ready=lambda: http_answers(port)):
        yield Endpoint(name=name, url=f"http://{HOST}:{port}", access_key="testing", secret_key="testing")
