"""Queues with messages that were set aside, in a file and in SQS, and the commands that people run on them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from replicator.cli.main import main
from replicator.events import QueueMessage
from replicator.items import KeysItem, encode
from replicator.queues.opening import Queues, open_queues
from replicator.queues.queue import Outgoing, Queue
from tests.servers import Endpoint

ROUTE = "a-to-b"
REASON = "more than 1,000 deletes of route a-to-b since 2026-11-20 13:00 UTC"


@dataclass(frozen=True)
class Said:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def json(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]


class Desk:
    """The queues of a mirror, and a person at a terminal that is none: nobody can be asked."""

    def __init__(self, text: str, variables: Mapping[str, str], capsys: pytest.CaptureFixture[str]) -> None:
        self.text = text
        self.variables = variables
        self.queues: Queues = open_queues(text, variables)
        self._capsys = capsys

    def run(self, *arguments: object) -> Said:
        """Runs the command; QUEUE_URL says which queue."""
        self._capsys.readouterr()
        code = main([str(one) for one in arguments])
        said = self._capsys.readouterr()
        return Said(code, said.out, said.err)

    @property
    def held(self) -> Queue:
        assert self.queues.held is not None
        return self.queues.held

    @property
    def dead_letters(self) -> Queue:
        assert self.queues.dead_letters is not None
        return self.queues.dead_letters

    def park(self, *keys: str, route: str = ROUTE, reason: str = REASON) -> None:
        """Each key in a message of its own."""
        self.held.send([Outgoing(encode(KeysItem(route, (key,))), reason) for key in keys])


def contents(queue: Queue) -> list[QueueMessage]:
    """All messages that are to be given out now; they stay."""
    found: dict[str, QueueMessage] = {}
    while batch := queue.receive(10, wait=0):
        found |= {one.message_id: one for one in batch}
    assert queue.put_off([(one, 0) for one in found.values()]) == []
    return list(found.values())


def bodies(queue: Queue) -> list[str]:
    return sorted(one.body for one in contents(queue))


@contextmanager
def desk_of_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Desk]:
    with pytest.MonkeyPatch.context() as environment:
        path = str(folder / "queue.db")
        environment.setenv("QUEUE_URL", path)
        desk = Desk(path, {}, capsys)
        yield desk
        desk.queues.close()


@contextmanager
def desk_of_sqs(endpoint: Endpoint, capsys: pytest.CaptureFixture[str]) -> Iterator[Desk]:
    with pytest.MonkeyPatch.context() as environment:
        given = {
            "AWS_ACCESS_KEY_ID": endpoint.access_key,
            "AWS_SECRET_ACCESS_KEY": endpoint.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        for name, value in given.items():
            environment.setenv(name, value)
        client = boto3.client("sqs", endpoint_url=endpoint.url)
        urls = [client.create_queue(QueueName=f"q-{uuid.uuid4().hex[:12]}")["QueueUrl"] for _ in range(4)]
        names = ("QUEUE_URL", "DEAD_LETTERS_URL", "HOLD_QUEUE_URL", "WORK_QUEUE_URL")
        variables = dict(zip(names, urls, strict=True))
        for name, url in variables.items():
            environment.setenv(name, url)
        yield Desk(urls[0], variables, capsys)
