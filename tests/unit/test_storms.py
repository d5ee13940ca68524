"""How often a service with a limit has to refuse: one that answers after a while, on a clock that only it moves on."""

from __future__ import annotations

import asyncio
import random
from collections import deque

import pytest

from replicator.errors import Throttled
from replicator.s3.client import Call, Endpoint, S3Client
from replicator.s3.connection import Response
from replicator.s3.pace import Pace, SharedRate
from replicator.s3.signing import Keys
from replicator.s3.throttle import AdaptiveLimit
from tests.fakes.grudging_s3 import SLOW_DOWN, above_rate
from tests.fakes.hurried_loop import hurried

LATENCY = 0.02
"""Seconds until an answer."""
LIMIT = 200
"""Requests in any second that are served."""


class Service:
    """Stands in for the connections of a client, with all that is behind them."""

    def __init__(self):
        self._refuses = above_rate(LIMIT, asyncio.get_running_loop().time)
        self.served = self.refused = 0

    async def request(self, method, target, headers, body, *, size, limit, into):
        await asyncio.sleep(LATENCY)
        if self._refuses():
            self.refused += 1
            return Response(503, {}, SLOW_DOWN)
        self.served += 1
        return Response(200, {}, b"")

    async def close(self):
        pass


async def put_all(objects, *, concurrency, stalls=(), rate=None):
    """Puts so many objects; the service, and the seconds that it took. stalls: when all stood still, and how long."""
    loop, chance = asyncio.get_running_loop(), random.Random(1)
    client = S3Client(
        Endpoint("http://127.0.0.1:1"), "bucket", lambda: Keys("A", "B"), pace=Pace(rate), chance=chance.random
    )
    client.limit = AdaptiveLimit(concurrency, clock=loop.time)
    client._pool = service = Service()
    keys = deque(range(objects))

    async def put():
        while keys:
            key = keys.popleft()
            try:
                await client.send(Call("PutObject", "PUT", f"{key}", body=b"x"))
            except Throttled:
                keys.append(key)  # as a run does, which tries once more what failed

    for moment, seconds in stalls:
        loop.call_at(moment, stand_still, loop, seconds)
    began = loop.time()
    async with client:
        await asyncio.gather(*(put() for _ in range(concurrency)))
    return service, loop.time() - began


def stand_still(loop, seconds):
    loop.impatient.ahead += seconds


@pytest.mark.parametrize("concurrency", [16, 128, 512])
@pytest.mark.parametrize("stalls", [[], [(0.5, 1.0), (2.0, 0.5)]], ids=["steady", "with pauses"])
def test_a_service_with_a_limit_is_not_stormed(concurrency, stalls):
    service, seconds = hurried(put_all(2000, concurrency=concurrency, stalls=stalls))
    assert service.served == 2000
    assert service.refused < service.served
    assert seconds < 3 * service.served / LIMIT  # nor is it left idle for long


@pytest.mark.parametrize("rate", [50, 150])
def test_a_run_that_knows_the_limit_is_never_refused(tmp_path, rate):
    async def run():
        loop = asyncio.get_running_loop()
        shared = SharedRate(tmp_path / "file", rate, clock=loop.time)
        return await put_all(600, concurrency=128, rate=shared)

    service, seconds = hurried(run())
    assert (service.served, service.refused) == (600, 0)
    assert seconds == pytest.approx(600 / rate, abs=0.2)
