"""A run that is killed again and again, and started again, ends equal, and sends little twice.

`python -m tests.functional.test_kill 20000 1024 10` does it at full size: objects, MiB of the large one, kills.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from replicator.layout import FEWEST_PARTS
from replicator.model import MiB
from tests.pushes import until
from tests.servers import rgw
from tests.servers.lab import boto_client
from tests.servers.meter import metered

PART = 8 * MiB


def fill(endpoint, objects, large):
    client = boto_client(endpoint)
    client.create_bucket(Bucket="kill-source")
    with ThreadPoolExecutor(8) as pool:
        put = lambda n: client.put_object(Bucket="kill-source", Key=f"d{n % 7}/{n:06}", Body=os.urandom(1 + n % 4096))  # noqa: E731
        list(pool.map(put, range(objects)))
    upload = client.create_multipart_upload(Bucket="kill-source", Key="a large one")["UploadId"]
    parts = []
    for number in range(1, large * MiB // PART + 1):
        body = os.urandom(PART)
        where = {"Bucket": "kill-source", "Key": "a large one", "UploadId": upload, "PartNumber": number}
        parts.append({"PartNumber": number, "ETag": client.upload_part(Body=body, **where)["ETag"]})
    ended = {"Bucket": "kill-source", "Key": "a large one", "UploadId": upload}
    client.complete_multipart_upload(MultipartUpload={"Parts": parts}, **ended)


def contents(endpoint, bucket):
    pages = boto_client(endpoint).get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return {entry["Key"]: (entry["Size"], entry["ETag"]) for page in pages for entry in page.get("Contents", [])}


def parts_of_unfinished(endpoint):
    """Of each upload that is left, how many parts it has: one that was begun a moment before a kill has none."""
    client = boto_client(endpoint)
    for upload in client.list_multipart_uploads(Bucket="kill-target").get("Uploads", []):
        where = {"Bucket": "kill-target", "Key": upload["Key"], "UploadId": upload["UploadId"]}
        yield len(client.list_parts(**where).get("Parts", []))


def start(here, url, there, state):
    environment = {
        **os.environ,
        **{f"{side}_ENDPOINT": place for side, place in (("SOURCE", here.url), ("TARGET", url))},
        **{f"{side}_ACCESS_KEY_ID": one.access_key for side, one in (("SOURCE", here), ("TARGET", there))},
        **{f"{side}_SECRET_ACCESS_KEY": one.secret_key for side, one in (("SOURCE", here), ("TARGET", there))},
    }
    command = [sys.executable, "-m", "replicator", "migrate", "kill-source", "kill-target", "--processes", "2"]
    return subprocess.Popen(
        [*command, "--state", str(state)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def run_and_kill(here, there, scratch, *, objects, large, kills):
    """Kills a run so many times, each at a random moment of its share of the bytes; the last one goes to its end.

    How much of the parts was sent, as a multiple of the large object.
    """
    chance = random.Random(17)
    fill(here, objects, large)
    boto_client(there).create_bucket(Bucket="kill-target")
    with metered(there.url) as meter:
        for number in range(kills):
            meter.stand_still_at(chance.uniform(number, number + 1) / kills * large * MiB)
            process = start(here, meter.url, there, scratch / "state")
            assert until(lambda: meter.stands_still or process.poll() is not None, 600, step=0.001)  # noqa: B023
            time.sleep(chance.random() * 0.01)
            assert process.poll() is None, process.communicate()
            (os.killpg if number % 2 else os.kill)(process.pid, signal.SIGKILL)  # with its workers, or without
            meter.stand_still_at(float("inf"))
            process.communicate()
        process = start(here, meter.url, there, scratch / "state")
        output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    assert contents(here, "kill-source") == contents(there, "kill-target")
    assert not any(parts_of_unfinished(there))
    return sum(size for _, size in meter.parts) / (large * MiB)


@pytest.mark.slow
def test_a_run_that_is_killed_at_random_moments_ends_equal_and_sends_little_twice(tmp_path):
    if rgw.missing():
        pytest.skip(rgw.missing())
    for side in ("here", "there"):
        (tmp_path / side).mkdir()
    with rgw.serve(tmp_path / "here") as here, rgw.serve(tmp_path / "there") as there:
        sent = run_and_kill(here, there, tmp_path, objects=400, large=192, kills=4)
    assert sent - 1 <= 4 * FEWEST_PARTS * PART / (192 * MiB)  # what was in flight at each kill


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        for side in ("here", "there"):
            (Path(folder) / side).mkdir()
        with rgw.serve(Path(folder) / "here") as here, rgw.serve(Path(folder) / "there") as there:
            objects, large, kills = (int(text) for text in sys.argv[1:4])
            sent = run_and_kill(here, there, Path(folder), objects=objects, large=large, kills=kills)
    print(f"killed {kills} times; bytes of parts sent / size of the object: {sent:.3f}")
