"""The mirror as Lambda wants it: synchronous outside, with an event loop that lives from one invocation to the next."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import uvloop

from replicator.aws.config_source import load_config
from replicator.batch_operations import Invocation, ResultCode, TaskEnd, end_of
from replicator.bulk.report import Report
from replicator.errors import PoisonMessage, ReplicatorError
from replicator.events import QueueMessage
from replicator.items import RangeItem, encode
from replicator.live.batch import OUT_OF_TIME, Handled
from replicator.live.counting import counter_for
from replicator.live.mirror import RESERVE, Mirror
from replicator.live.settling import settle
from replicator.model import Outcome
from replicator.queues.opening import Queues
from replicator.queues.queue import Outgoing
from replicator.queues.sqs import SqsQueue
from replicator.routes import read_routes

AT_ONCE = 16
"""Tasks of a batch operation that are done at once: their objects may be large."""


class LambdaMirror:
    """Made by the first invocation of a sandbox, used by all that follow.

    queue: URL or ARN of the queue that messages come from, of changes or of work. report: told of the outcomes of
    ranges. read_secret: gives the text of a secret by its id.
    """

    def __init__(
        self, environment: Mapping[str, str], queue: str, report: Report, read_secret: Callable[[str], str]
    ) -> None:
        config = load_config(None, environment)
        self.routes = read_routes(environment, config)
        named = partial(_named, environment)
        self._queues = Queues(
            SqsQueue(queue), named("DEAD_LETTERS_URL"), named("HOLD_QUEUE_URL"), work=named("WORK_QUEUE_URL")
        )
        self._loop = uvloop.new_event_loop()  # asyncio.Runner changes signal handlers at every run: 0.7 ms
        gc.freeze()  # what was imported stays; and batches make many short-lived objects, and hardly a cycle
        gc.set_threshold(50_000, 20, 50)
        counter = counter_for(environment)
        self._mirror = Mirror(self.routes, self._queues, counter, report=report, read_secret=read_secret)

    def handle(self, messages: Sequence[QueueMessage], *, seconds: float) -> list[Handled]:
        """Handles a batch. seconds: until the invocation ends."""
        return self._loop.run_until_complete(self._mirror.handle(messages, seconds=seconds))

    def settle(self, handled: Sequence[Handled]) -> list[str]:
        """Settles the messages of a batch; what a queue refused, in words."""
        return settle(self._queues.changes, self._queues.dead_letters, handled)

    def reconcile(self) -> int:
        """Sends work items for all keys of all routes; how many."""
        items = [Outgoing(encode(RangeItem(route.name))) for route in self.routes]
        self._queues.items.send(items)
        return len(items)

    def converge(self, invocation: Invocation, *, seconds: float) -> tuple[list[TaskEnd], list[Outcome]]:
        """Converges what S3 Batch Operations asks for: one end for each task, and all outcomes."""
        return self._loop.run_until_complete(self._converge(invocation, seconds))

    def close(self) -> None:
        """Closes connections and the event loop."""
        self._loop.run_until_complete(self._mirror.close())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    async def _converge(self, invocation: Invocation, seconds: float) -> tuple[list[TaskEnd], list[Outcome]]:
        room, now = asyncio.Semaphore(AT_ONCE), asyncio.get_running_loop().time
        ends_at = now() + seconds - min(RESERVE, seconds / 4)

        async def one(bucket: str, candidates: Sequence[str]) -> tuple[TaskEnd, list[Outcome]]:
            outcomes: list[Outcome] = []
            problem: str | None = None
            async with room:
                for key in candidates:
                    try:
                        outcomes += await self._mirror.converge(bucket, key, seconds=max(ends_at - now(), 1.0))
                    except TimeoutError:
                        problem = f"{key!r}: {OUT_OF_TIME}"
                    except PoisonMessage as error:
                        return TaskEnd(ResultCode.PERMANENT, error.reason), outcomes
                    except ReplicatorError as error:
                        problem = str(error)
            return end_of(outcomes, problem), outcomes

        ends = await asyncio.gather(*(one(task.bucket, task.candidates) for task in invocation.tasks))
        return [end for end, _ in ends], [outcome for _, outcomes in ends for outcome in outcomes]


def _named(environment: Mapping[str, str], variable: str) -> SqsQueue | None:
    return SqsQueue(environment[variable]) if environment.get(variable) else None
