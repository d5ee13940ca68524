"""moto's SQS for thousands of messages: by itself it goes through all messages of a queue six times for each that it
gives, which makes 5,000 take an hour.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers.base import HOST, Endpoint, free_port, http_answers, running
from tests.servers.moto import missing as missing  # the same


@contextmanager
def serve(state: Path, *, name: str = "moto-quick") -> Iterator[Endpoint]:
    """As moto.serve."""
    port = free_port()
    # Not as a script: in a directory with a moto.py of its own, that would be found instead of moto.
    program = "from tests.servers.moto_quick import main; main()"
    command = [sys.executable, "-c", program, "-H", HOST, "-p", str(port)]
    env = {"PYTHONPATH": str(Path(__file__).parents[2])}
    with running(name, command, state=state, env=env, ready=lambda: http_answers(port)):
        yield Endpoint(name=name, url=f"http://{HOST}:{port}", access_key="testing", secret_key="testing")


def main() -> None:
    """Runs the server; messages are given however old they are."""
    from moto.server import main as run
    from moto.sqs import models

    models.SQSBackend.is_message_valid_based_on_retention_period = lambda *_: True  # type: ignore[method-assign]
    vars(models)["unix_time_millis"] = lambda: time.time() * 1000
    run()
