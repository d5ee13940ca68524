"""The watch by itself: hints and looks are the test's, the folder is real, the target is in memory."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager

import pytest

from replicator.bulk.brakes import MaxDelete
from replicator.bulk.report import NoReport
from replicator.converge import Converger
from replicator.directory.beneath import Base
from replicator.directory.store import DirectoryStore
from replicator.errors import NoSuchBucket, Refused, Transient
from replicator.model import Deletes
from replicator.push.watching import LEAST_BETWEEN, WINDOW, Looked, Watch, Watched
from tests.fakes.memory import MemoryStore

SECONDS = 60.0
"""After which something that was to happen never will."""


class Site:
    """A folder with files that are at the target, and what becomes of them in a watch."""

    def __init__(self, folder, files):
        self.folder = folder
        self.target = MemoryStore(name="target/")
        self.hints = asyncio.Queue()
        self.looks, self.problem = [], None
        self.asked = []
        for name in files:
            self.write(name)
            self.target.bucket.write(name, name.encode())

    def write(self, name):
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / name).write_text(name)

    @property
    def there(self):
        return set(self.target.objects if hasattr(self.target, "objects") else self.target.bucket.objects)

    async def told(self):
        yield []
        while True:
            yield await self.hints.get()

    async def look(self, deleted):
        self.looks.append(deleted)
        if self.problem is not None:
            raise self.problem
        return Looked(len(self.there), 0)


@asynccontextmanager
async def watching(
    site,
    *,
    limit=None,
    chosen=lambda _: True,
    converge=None,
    hints=None,
    concurrency=8,
    watched=None,
    clock=time.monotonic,
):
    async with DirectoryStore(Base(site.folder)) as source:
        mirror, keep = (Converger(source, [site.target], deletes=deletes) for deletes in (Deletes.MIRROR, Deletes.KEEP))

        def either(key, deletes):
            site.asked.append((key, deletes))
            return (mirror if deletes else keep).converge(key)

        watch = Watch(
            source,
            site.target,
            hints=hints or site.told,
            converge=converge or either,
            rescan=site.look,
            chosen=chosen,
            limit=limit or MaxDelete(),
            every=3600.0,
            report=NoReport(),
            concurrency=concurrency,
            watched=watched or Watched(),
            clock=clock,
        )
        running = asyncio.create_task(watch.run())
        try:
            await until(lambda: site.looks)
            yield watch
            assert running.cancelled() or not running.done(), running.exception()
        finally:
            running.cancel()
            await asyncio.wait([running])


async def until(happened):
    async with asyncio.timeout(SECONDS):
        while not happened():
            await asyncio.sleep(0.01)


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path, [f"f{n:02}" for n in range(20)])


async def test_what_changes_is_copied_and_what_goes_is_deleted(site):
    async with watching(site):
        site.write("new")
        (site.folder / "f00").unlink()
        await site.hints.put(["new", "f00", "f00/"])
        await until(lambda: "new" in site.there and "f00" not in site.there)


async def test_no_more_is_deleted_than_the_limit_says_however_much_goes_at_once(site):
    site_refuses = Refused("too many")
    async with watching(site, limit=MaxDelete(objects=2)):
        site.problem = site_refuses
        for n in range(15):
            (site.folder / f"f{n:02}").unlink()
        await site.hints.put([f"f{n:02}" for n in range(15)])
        await until(lambda: len(site.looks) > 1 and len(site.there) <= 18)
        await asyncio.sleep(0.3)
        assert len(site.there) == 18
        assert site.looks[1] == 2  # what was deleted counts in the look, too


async def test_one_after_the_other_they_do_not_get_a_new_limit_from_each_look(site):
    async with watching(site, limit=MaxDelete(objects=2)):
        for n in range(6):
            (site.folder / f"f{n:02}").unlink()
            await site.hints.put([f"f{n:02}"])
            await asyncio.sleep(0.3)
        await until(lambda: len(site.looks) > 1 and len(site.there) <= 18)
        await asyncio.sleep(0.3)
        assert len(site.there) == 18


async def test_after_ten_minutes_there_is_a_new_limit(site):
    passed = 0.0
    async with watching(site, limit=MaxDelete(objects=1), clock=lambda: time.monotonic() + passed):
        for name in ("f00", "f01"):
            (site.folder / name).unlink()
        await site.hints.put(["f00", "f01"])
        await until(lambda: len(site.looks) > 1 and len(site.there) == 19)
        [held] = {"f00", "f01"} & site.there
        passed = WINDOW
        await site.hints.put([held])  # held back once more, and so everything is looked at
        await until(lambda: site.looks[-1] == 0 and len(site.looks) > 2)
        await site.hints.put([held])
        await until(lambda: len(site.there) == 18)


async def test_before_everything_was_looked_at_nothing_is_deleted(site):
    site.problem = Transient("ListObjectsV2", "target", "away")
    async with watching(site):
        (site.folder / "f00").unlink()
        site.write("new")
        await site.hints.put(["f00", "new"])
        await until(lambda: "new" in site.there)
        await asyncio.sleep(0.3)
        assert "f00" in site.there


async def test_the_last_file_that_is_chosen_is_not_deleted(site):
    """A run would be refused: its source lists nothing."""
    site.target.bucket.write("photo", b"photo")
    async with watching(site, chosen=lambda key: key.startswith("photo")):
        await site.hints.put(["photo"])
        await until(lambda: len(site.looks) > 1)
        assert "photo" in site.there


async def test_what_is_not_chosen_is_left_alone(site):
    async with watching(site, chosen=lambda key: key != "f00"):
        (site.folder / "f00").unlink()
        (site.folder / "f01").unlink()
        await site.hints.put(["f00", "f01"])
        await until(lambda: "f01" not in site.there)
        assert "f00" in site.there


async def test_the_trash_of_runs_is_left_alone(site):
    trashed = "trash/20261120T101010Z-abc123/old"
    site.target.bucket.write(trashed, b"old")
    site.target.bucket.write("trash/other", b"other")
    async with watching(site):
        await site.hints.put(["trash", "trash/"])
        await until(lambda: "trash/other" not in site.there)
        assert trashed in site.there


async def test_a_folder_that_is_renamed_is_followed(site):
    for name in ("old/a", "old/b/c"):
        site.target.bucket.write(name, name.encode())
        site.write(f"new{name[3:]}")
    async with watching(site):
        await site.hints.put(["old", "old/", "new/"])
        await until(lambda: {"new/a", "new/b/c"} <= site.there and not {"old/a", "old/b/c"} & site.there)


async def test_a_file_that_goes_between_the_look_and_the_copy_is_deleted_in_the_end(site):
    async with watching(site) as watch:
        gone = watch._is_gone

        async def late(key):
            found = await gone(key)
            (site.folder / key).unlink(missing_ok=True)
            return found

        watch._is_gone = late
        await site.hints.put(["f03"])
        await until(lambda: "f03" not in site.there)
    assert [deletes for key, deletes in site.asked if key == "f03"] == [False, True]


async def test_whatever_a_key_raises_it_is_tried_again_and_the_others_go_on(site):
    tried = []

    async def converge(key, deletes):
        tried.append(key)
        if key == "bad":
            raise UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates not allowed")
        return []

    async with watching(site, converge=converge):
        site.write("bad")
        site.write("good")
        await site.hints.put(["bad", "good"])
        await until(lambda: tried.count("bad") == 2 and "good" in tried)


@pytest.mark.parametrize("error", [OSError("limit reached"), Transient("x", "y", "z"), RuntimeError("?")], ids=repr)
async def test_a_look_that_fails_is_made_again(site, error):
    site.problem = error
    heard = []
    async with watching(site, watched=Watched(well=heard.append)):
        site.problem = None
        await until(lambda: len(site.looks) > 1 and heard[-1] is None)
        assert heard[0] == str(error)


async def test_a_watch_that_breaks_has_everything_looked_at_and_begins_anew(site, monkeypatch):
    monkeypatch.setattr("replicator.push.watching.BLIND_RESCAN", 0.1)
    begun = []

    async def hints():
        begun.append(True)
        yield []
        if len(begun) == 1:
            raise OSError("inotify is out of watches")
        await asyncio.Event().wait()

    async with watching(site, hints=hints):
        await until(lambda: len(begun) == 2 and len(site.looks) > 1)


async def test_a_folder_that_is_gone_has_the_watch_begun_anew_when_it_is_back(site, monkeypatch):
    monkeypatch.setattr("replicator.push.watching.BLIND_RESCAN", 0.1)
    monkeypatch.setattr("replicator.push.watching.FIRST_RETRY", 0.05)
    begun = []

    async def hints():
        begun.append(True)
        while True:
            yield []
            await asyncio.sleep(0.05)

    site.problem = NoSuchBucket("open", "folder", "unmounted")
    async with watching(site, hints=hints):
        await until(lambda: len(begun) > 1)
        site.problem = None
        looks = len(site.looks)
        await until(lambda: len(site.looks) > looks)


async def test_only_so_many_keys_are_worked_on_at_once(site):
    busy = most = 0

    async def converge(key, deletes):
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        await asyncio.sleep(0.001)
        busy -= 1
        return []

    done = []
    async with watching(site, converge=converge, concurrency=4, watched=Watched(pending=done.append)):
        for n in range(300):
            site.write(f"many/{n}")
        await site.hints.put([f"many/{n}" for n in range(300)])
        await until(lambda: most and not busy and done[-1] == 0)
    assert most == 4


@pytest.mark.parametrize("awake", ["_look_now", "_something"])
async def test_a_watch_that_is_told_to_end_at_the_moment_at_which_something_wakes_it_ends(site, awake):
    async with watching(site) as watch:
        await asyncio.sleep(LEAST_BETWEEN + 0.5)  # it waits for the next change and the next look
        (running,) = [task for task in asyncio.all_tasks() if task.get_coro().__qualname__ == "Watch.run"]
        getattr(watch, awake).set()
        running.cancel()  # asyncio.wait_for of Python 3.11 forgets that
        await asyncio.wait([running], timeout=5)
        assert running.done()
