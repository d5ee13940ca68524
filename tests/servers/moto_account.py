"""moto as one account for a whole deployment: it knows what moto_taught.py teaches it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers.base import HOST, Endpoint, free_port, http_answers, running
from tests.servers.moto import missing as missing  # the same


@contextmanager
def serve(state: Path, *, name: str = "moto-account") -> Iterator[Endpoint]:
    """POST /moto-api/reset empties it."""
    port = free_port()
    # Not as a script: in a directory with a moto.py of its own, that would be found instead of moto.
    program = "from tests.servers.moto_taught import main; main()"
    command = [sys.executable, "-c", program, "-H", HOST, "-p", str(port)]
    env = {"PYTHONPATH": str(Path(__file__).parents[2])}
    with running(name, command, state=state, env=env, ready=lambda: http_answers(port)):
        yield Endpoint(name=name, url=f"http://{HOST}:{port}", access_key="testing", secret_key="testing")
