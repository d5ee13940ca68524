"""One stream to several consumers: all see everything, none waits for the dead, an error is never an end."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from replicator.broadcast import AHEAD, broadcast

CHUNKS = [b"one", b"two", b"three", b"four", b"five"]


async def stream(chunks=CHUNKS, *, error=None):
    for chunk in chunks:
        await asyncio.sleep(0)
        yield chunk
    if error is not None:
        raise error


async def collect(chunks):
    return [chunk async for chunk in chunks]


class Refused(Exception):
    """A consumer's own failure."""


def failing_after(count):
    async def consume(chunks):
        for _ in range(count):
            await anext(chunks)
        raise Refused

    return consume


async def test_every_consumer_gets_every_chunk_in_order():
    assert await broadcast(stream(), [collect, collect, collect]) == [CHUNKS, CHUNKS, CHUNKS]


async def test_results_come_in_the_order_of_the_consumers():
    async def numbered(number, chunks):
        for _ in range(number % 3):
            await asyncio.sleep(0)
        await collect(chunks)
        return number

    consumers = [lambda chunks, number=number: numbered(number, chunks) for number in range(5)]
    assert await broadcast(stream(), consumers) == [0, 1, 2, 3, 4]


async def test_an_empty_stream_ends():
    assert await broadcast(stream([]), [collect, collect]) == [[], []]


@pytest.mark.parametrize("count", range(len(CHUNKS) + 1))
@pytest.mark.parametrize("position", range(3))
async def test_a_failing_consumer_does_not_stop_the_others(count, position):
    consumers = [collect, collect]
    consumers.insert(position, failing_after(count))
    results = await broadcast(stream(), consumers)
    assert isinstance(results.pop(position), Refused)
    assert results == [CHUNKS, CHUNKS]


async def test_a_consumer_that_has_enough_does_not_stop_the_others():
    async def first_only(chunks):
        return await anext(chunks)

    assert await broadcast(stream(), [first_only, collect]) == [b"one", CHUNKS]


async def test_when_nobody_is_left_the_stream_is_not_read_to_its_end():
    read = []

    async def endless():
        for number in itertools.count():
            read.append(number)
            yield b"x"
            await asyncio.sleep(0)

    async with asyncio.timeout(60):
        results = await broadcast(endless(), [failing_after(1), failing_after(2)])
    assert [type(result) for result in results] == [Refused, Refused]
    assert len(read) < 10


@pytest.mark.parametrize("count", range(len(CHUNKS) + 1))
async def test_the_streams_error_reaches_every_consumer_in_place_of_an_end(count):
    error = ConnectionError("reset")
    ended = []

    async def consume(chunks):
        ended.append(await collect(chunks))

    results = await broadcast(stream(CHUNKS[:count], error=error), [consume, consume])
    assert results == [error, error]
    assert ended == []


async def test_a_consumer_that_failed_before_keeps_its_own_error():
    error = ConnectionError("reset")
    results = await broadcast(stream(error=error), [failing_after(1), collect])
    assert isinstance(results[0], Refused)
    assert results[1] is error


async def test_the_slowest_consumer_sets_the_pace():
    read, go = [], asyncio.Event()

    async def counted():
        for number in range(50):
            read.append(number)
            yield b"x"

    async def slow(chunks):
        await go.wait()
        return len(await collect(chunks))

    async def fast(chunks):
        return len(await collect(chunks))

    task = asyncio.create_task(broadcast(counted(), [slow, fast]))
    for _ in range(200):
        await asyncio.sleep(0)
    assert len(read) == AHEAD + 1
    go.set()
    assert await task == [50, 50]


class Died(BaseException):
    """Not an error that a report could hold."""


async def test_what_is_no_exception_is_raised_and_not_returned():
    async def die(chunks):
        await anext(chunks)
        raise Died

    with pytest.raises(Died):
        await broadcast(stream(), [collect, die])


@pytest.mark.parametrize("steps", range(0, 24, 2))
async def test_cancellation_at_any_point_ends_all_consumers(steps):
    running = set()

    def consumer(number):
        async def consume(chunks):
            running.add(number)
            try:
                async for _ in chunks:
                    await asyncio.sleep(0)
                await asyncio.Event().wait()
            finally:
                running.discard(number)

        return consume

    task = asyncio.create_task(broadcast(stream(), [consumer(0), consumer(1)]))
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for _ in range(5):
        await asyncio.sleep(0)
    assert running == set()
    assert asyncio.all_tasks() == {asyncio.current_task()}
