"""What was once wrong with a folder as a source; each test says what it was."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time

import pytest

from replicator.directory.attributes import parse_attributes
from replicator.directory.beneath import Base
from replicator.directory.store import DirectoryStore
from replicator.errors import ConfigurationError
from replicator.model import STAMP, Did
from replicator.push.job_file import read_job_file
from replicator.push.jobs import MoveJob
from replicator.push.moving import SettledFiles
from replicator.push.pending import LAST_RETRY, Pending
from replicator.push.settle import Settle, TimePath
from tests.fakes.memory import Bucket, MemoryStore
from tests.folders import age, keys_of, put, tree, unprivileged

LIMIT = 1 << 20


def anything(key):
    return True


@pytest.fixture
def base(tmp_path):
    (tmp_path / "base").mkdir()
    return tmp_path / "base"


# Data loss


MIRRORED_IN_LATIN_1 = """
import asyncio, sys
from pathlib import Path
from replicator.directory.beneath import Base
from replicator.directory.store import DirectoryStore
from replicator.errors import ReplicatorError

async def main():
    try:
        async with DirectoryStore(Base(Path(sys.argv[1]))) as store:
            print(ascii([entry.key async for page in store.list_pages() for entry in page]))
            await store.confirm_absent(chr(0xFC) + ".txt")
            print("absent")
    except ReplicatorError as error:
        print(type(error).__name__)

asyncio.run(main())
"""


def test_a_file_is_not_absent_where_the_language_of_the_system_is_not_utf_8(base, tmp_path):
    """Names are decoded as the locale says: with LC_ALL=de_DE.ISO-8859-1 the object "ü.txt" is deleted, and sent
    again under another key."""
    put(base, "ü.txt")
    made = ["localedef", "-i", "en_US", "-f", "ISO-8859-1", tmp_path / "en_US.ISO-8859-1"]
    if shutil.which("localedef") is None or subprocess.run(made, capture_output=True, check=False).returncode > 1:
        pytest.skip("needs localedef and its charmaps")
    environment = {**os.environ, "LOCPATH": str(tmp_path), "LC_ALL": "en_US.ISO-8859-1", "PYTHONUTF8": ""}
    program = [sys.executable, "-c", MIRRORED_IN_LATIN_1, base]
    ran = subprocess.run(program, env=environment, capture_output=True, text=True, check=True)
    assert "absent" not in ran.stdout


def test_a_disk_that_is_watched_can_be_unmounted(base):
    """Base holds a descriptor for as long as it lives, so umount says "target is busy" while `push --watch` runs."""
    mount = ["mount", "-t", "tmpfs", "none", base]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("needs the right to mount")
    try:
        held = Base(base)
        unmounted = subprocess.run(["umount", base], capture_output=True, text=True, check=False)
        assert (unmounted.returncode, unmounted.stderr) == (0, "")
        assert held.path == base.resolve()
    finally:
        subprocess.run(["umount", "-l", base], capture_output=True, check=False)


async def test_a_file_that_was_written_again_before_its_turn_is_not_settled_and_stays(base):
    """SettledFiles looks at up to 1,000 files at once; a worker moves the last of them much later, and looks no more.

    A writer that opens, appends and closes then loses what it wrote before: its next append makes a new file, and that
    replaces the object.
    """
    file = put(base, "log", b"first half, ")
    age(file, 1000, now=time.time())
    bucket = Bucket()
    async with DirectoryStore(Base(base)) as store:
        files = SettledFiles(Base(base), Settle(30), anything)
        rules = {"settle": Settle(30), "is_copy": anything, "overwrite": True, "dry_run": False}
        rules["clock"] = lambda: file.stat().st_mtime + 20
        job = MoveJob(store, MemoryStore(bucket), memory=LIMIT, **rules)
        async for keys in files.keys():
            with file.open("ab") as writer:  # while other files are moved
                writer.write(b"still the first half, ")
            outcomes = [await job.move(key) for key in keys]
    assert [outcome.did for outcome in outcomes] != [Did.MOVED]
    assert file.exists()


@pytest.mark.parametrize(
    ("pattern", "key", "over"),
    [
        ("{location}/%Y/%m/%d.log", "bern/2024/02/29.log", "2024-03-01 00:00"),
        ("%Y-%m-%d-%H.log", "2024-02-29-23.log", "2024-03-01 00:00"),
    ],
)
def test_a_file_of_a_day_or_hour_is_not_complete_before_that_is_over(pattern, key, over):
    """settle.py says "when the time in its path is over"; with %d or %H as the last it counts from its beginning.

    So what is appended in the rest of the day makes a new file every time, and each replaces the object before it.
    """
    end = time.mktime(time.strptime(over, "%Y-%m-%d %H:%M"))
    assert Settle(30, TimePath(pattern)).settled_at(key, end - 1) >= end


# Runs that end


@pytest.mark.parametrize("failures", [1025, 10_000])
def test_a_key_may_fail_as_often_as_it_likes(failures):
    """2 ** 1024 is no float: a file that may not be read ends `push --watch` after three and a half days, since the
    error comes out of its task group. 2.5 * 2**failures in watching.py and agent.py does it after a day of outage."""
    pending = Pending()
    pending.failed("a", 0.0, failures)
    assert pending.next() == LAST_RETRY


# Listings


BEFORE = [(0, "closed/"), (0, "closed/file"), (0, "closed/z"), (0, "closed/deeper/x"), (0o400, "closed/deeper/x")]


@pytest.mark.parametrize(("mode", "after"), BEFORE)
async def test_a_folder_that_cannot_be_listed_is_not_listed_before_where_the_listing_begins(base, mode, after):
    """walk() yields "closed/" although it is not greater than `after`: a range that begins below it reports it again,
    and is not in order."""
    tree(base, ["a", "closed/deeper/file", "closed/file", "z"])
    (base / "closed").chmod(mode)
    try:
        with unprivileged():
            async with DirectoryStore(Base(base)) as store:
                found = await keys_of(store, after)
    finally:
        (base / "closed").chmod(0o755)
    assert [key for key in found if key <= after] == []


# Settings that end in a traceback, or mean something else


def test_a_pattern_that_ends_with_a_percent_sign_is_refused():
    with pytest.raises(ConfigurationError):
        TimePath("%Y/%m/%d%")


OPEN_BRACES = {
    "{location%Y-%m-%d": "whatever2024-02-29",
    "%Y-%m-%d{location": "2024-02-29whatever",
    "%Y-%m-%d{a/b": "2024-02-29whatever",
}


@pytest.mark.parametrize("pattern", OPEN_BRACES)
def test_a_brace_that_is_not_closed_is_refused_or_stands_for_itself(pattern):
    """It is taken for a placeholder now, with all that comes after it."""
    try:
        told = TimePath(pattern).time_of(OPEN_BRACES[pattern])
    except ConfigurationError:
        return
    assert told is None


@pytest.mark.parametrize(
    "content",
    [
        b'{"base_dir": "~nobody-is-called-so/x", "s3_bucket": "b"}',  # RuntimeError of expanduser
        b'{"base_dir": "a\\u0000b", "s3_bucket": "b"}',  # ValueError of the system's calls
        b'{"base_dir": "\\ud800", "s3_bucket": "b"}',  # UnicodeEncodeError
        b"[" * 100_000,  # RecursionError
    ],
)
def test_a_job_file_with_an_impossible_folder_is_refused(tmp_path, content):
    with pytest.raises(ConfigurationError):
        Base(read_job_file(put(tmp_path, "config.json", content)).folder)


def test_our_own_stamp_cannot_be_given_as_metadata():
    """It would say of every object which version it was copied from, wrongly."""
    with pytest.raises(ConfigurationError):
        parse_attributes([], [f"{STAMP.title()}={'0' * 32}"])
