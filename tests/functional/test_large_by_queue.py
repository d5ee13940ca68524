"""A large object in parts goes through a real queue, by processes that have little time and are killed: it ends equal.

    python -m tests.functional.test_large_by_queue [MIB] [KILLS] [SECONDS OF AN INVOCATION]

does it at full size and prints the figures: 2048 MiB, 10 kills and 20 s unless told otherwise.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from replicator.items import KeysItem, encode
from replicator.live.brake import MemoryCounter
from replicator.live.mirror import Mirror
from replicator.live.settling import settle
from replicator.model import MiB
from replicator.queues.opening import open_queues
from replicator.queues.queue import Outgoing
from replicator.settings import DEFAULT, Settings
from tests.pushes import until
from tests.servers import rgw
from tests.servers.lab import boto_client
from tests.servers.meter import metered

SOURCE, TARGET, KEY = "large-source", "large-target", "disks/ä large one+%"
PART = 8 * MiB
WORKERS = 2
AT_ONCE = 10
"""Messages in a batch, as of SQS."""

PATIENCE = 1500


async def work(queue, large_from, seconds):
    """Invocations of so many seconds each, one after the other, until there is no message any more."""
    with closing(open_queues(queue, os.environ, visibility=1.5 * seconds)) as queues:
        mirror = Mirror([Settings.from_env(os.environ)], queues, MemoryCounter(), large_from=large_from)
        while any(queues.items.depth()):
            messages = await asyncio.to_thread(queues.items.receive, AT_ONCE, wait=1.0)
            if messages:
                handled = await mirror.handle(messages, seconds=seconds)
                for one in handled:
                    print(one.error or "done", one.message.body[:60], len(one.message.body), flush=True)
                settle(queues.items, queues.dead_letters, handled)
        await mirror.close()


def fill(endpoint, parts):
    client = boto_client(endpoint)
    client.create_bucket(Bucket=SOURCE)
    where = {"Bucket": SOURCE, "Key": KEY}
    where["UploadId"] = client.create_multipart_upload(**where, Metadata={"who": "me"})["UploadId"]
    stored = []
    for number in range(1, parts + 1):
        size = PART if number < parts else PART // 3
        etag = client.upload_part(**where, PartNumber=number, Body=os.urandom(size))["ETag"]
        stored.append({"PartNumber": number, "ETag": etag})
    client.complete_multipart_upload(**where, MultipartUpload={"Parts": stored})
    client.put_object_tagging(Bucket=SOURCE, Key=KEY, Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})


class Workers:
    """Processes that work for the same queue."""

    def __init__(self, environment, queue, log, *, large_from, seconds):
        self._environment = environment
        self._arguments = ["work", str(queue), str(large_from), str(seconds)]
        self._log = log
        self.running = []

    def start(self):
        command = [sys.executable, "-m", "tests.functional.test_large_by_queue", *self._arguments]
        with self._log.open("ab") as log:
            self.running.append(subprocess.Popen(command, env=self._environment, stdout=log, stderr=log))

    def kill(self, process):
        self.running.remove(process)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def stop(self):
        for process in list(self.running):
            self.kill(process)


@dataclass
class Figures:
    """sent: bytes of parts that were announced to the target, as a multiple of the object. seconds: of all."""

    kills: int
    sent: float
    seconds: float


def environment_of(here, there, url):
    return {
        **os.environ,
        "SOURCE_BUCKET": SOURCE,
        "SOURCE_ENDPOINT": here.url,
        "SOURCE_ACCESS_KEY_ID": here.access_key,
        "SOURCE_SECRET_ACCESS_KEY": here.secret_key,
        "TARGET_BUCKET": TARGET,
        "TARGET_ENDPOINT": url,
        "TARGET_ACCESS_KEY_ID": there.access_key,
        "TARGET_SECRET_ACCESS_KEY": there.secret_key,
        "DELETES": "mirror",
    }


def copy_by_queue(here, there, scratch, *, parts, kills, seconds, large_from):
    """Kills one of the workers so many times, at random moments of its share of the bytes, and starts another."""
    chance = random.Random(parts)
    fill(here, parts)
    boto_client(there).create_bucket(Bucket=TARGET)
    queue, log, size = scratch / "queue.db", scratch / "log", parts * PART
    began = time.monotonic()
    with closing(open_queues(str(queue), {})) as queues, metered(there.url) as meter:
        queues.items.send([Outgoing(encode(KeysItem(DEFAULT, (KEY,))))])
        workers = Workers(environment_of(here, there, meter.url), queue, log, large_from=large_from, seconds=seconds)
        try:
            for _ in range(WORKERS):
                workers.start()
            for number in range(kills):
                meter.stand_still_at(chance.uniform(number, number + 1) / kills * size)
                assert until(lambda: meter.stands_still or not any(queues.items.depth()), PATIENCE, step=0.001)
                time.sleep(chance.random() * 0.01)
                assert meter.stands_still, log.read_text()[-5000:]
                workers.kill(chance.choice(workers.running))
                meter.stand_still_at(float("inf"))
                workers.start()
            assert until(lambda: not any(queues.items.depth()), PATIENCE), log.read_text()[-5000:]
        finally:
            meter.stand_still_at(float("inf"))
            workers.stop()
        assert not any(queues.dead_letters.depth()), log.read_text()[-5000:]
        assert not any(queues.held.depth())
        sent = sum(size for _, size in meter.parts) / size
    return Figures(kills, sent, time.monotonic() - began)


def check_equal(here, there):
    """Same ETag, metadata and tags, and no upload that nobody finished."""
    facts = []
    for endpoint, bucket in ((here, SOURCE), (there, TARGET)):
        client = boto_client(endpoint)
        head = client.head_object(Bucket=bucket, Key=KEY)
        tags = client.get_object_tagging(Bucket=bucket, Key=KEY)["TagSet"]
        facts.append((head["ETag"], head["ContentLength"], head["Metadata"], tags))
        assert not client.list_multipart_uploads(Bucket=bucket).get("Uploads")
    assert facts[0] == facts[1]
    etag, size = facts[0][:2]
    assert etag.strip('"').endswith(f"-{-(-size // PART)}")


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_a_large_object_through_a_queue_by_processes_that_are_killed_ends_equal(tmp_path):
    if rgw.missing():
        pytest.skip(rgw.missing())
    for side in ("here", "there"):
        (tmp_path / side).mkdir()
    with rgw.serve(tmp_path / "here") as here, rgw.serve(tmp_path / "there") as there:
        figures = copy_by_queue(here, there, tmp_path, parts=12, kills=4, seconds=4.0, large_from=2 * PART)
        check_equal(here, there)
    assert figures.sent < 3


def main(size=2048, kills=10, seconds=20.0):
    with tempfile.TemporaryDirectory() as folder:
        for side in ("here", "there"):
            (Path(folder) / side).mkdir()
        with rgw.serve(Path(folder) / "here") as here, rgw.serve(Path(folder) / "there") as there:
            figures = copy_by_queue(
                here,
                there,
                Path(folder),
                parts=int(size) * MiB // PART,
                kills=int(kills),
                seconds=float(seconds),
                large_from=256 * MiB,
            )
            check_equal(here, there)
    print(
        f"{size} MiB, {figures.kills} kills, invocations of {seconds} s: {figures.seconds:.0f} s; "
        f"bytes of parts sent / size of the object: {figures.sent:.3f}; equal, no upload left"
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["work"]:
        asyncio.run(work(sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
    else:
        main(*sys.argv[1:])
