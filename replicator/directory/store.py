"""A folder as a SourceStore: a file's key is its path below the base, its ETag what it would have at a bucket.

A version is a file's inode, size and times: reads are pinned to it, and what is known of one is not read again. Links
are not followed; links, pipes and devices are listed, so that nothing takes them for absent, and cannot be read.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import NamedTuple, Protocol, TypeVar

from replicator.directory.attributes import attributes_of, fingerprint
from replicator.directory.beneath import Base, meant_by, names_of
from replicator.directory.digest import etag_of_bytes, etag_of_file, layout_by_etag, layout_of, read_into
from replicator.directory.removal import is_being_written, remove
from replicator.directory.versions import Remembered, believable_from, version_of
from replicator.directory.walk import Found, is_empty, walk
from replicator.errors import AccessDenied, ChangedMeanwhile, NoSuchKey
from replicator.model import Attributes, Listed, ObjectState, Tags
from replicator.multipart import Layout, is_md5, parts_of
from replicator.store import Fetched, Load, Pin, Span

Result = TypeVar("Result")

THREADS = 8
"""Files that are read at once: disks and file servers answer several at a time."""


class KnownETags(Protocol):
    """ETags of files that were read before."""

    def known(self, after: str, upto: str) -> Mapping[str, tuple[str, str]]:
        """(version, ETag) by key, of keys after `after` up to and including `upto`. May block; raises nothing."""


class Activity(NamedTuple):
    """written: whether somebody has the file open to write; None where the system does not tell.

    modified, changed: its times, in seconds since the epoch.
    """

    written: bool | None
    modified: float
    changed: float


class DirectoryStore:
    """The files beneath a folder.

    common: attributes that all objects get. known: ETags from earlier runs. clock: seconds since the epoch.
    Use as an async context manager, or its threads stay.
    """

    clock_skew = 0.0
    load = Load()

    def __init__(
        self,
        base: Base,
        *,
        common: Attributes = Attributes(),  # noqa: B008 - frozen
        known: KnownETags | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._base = base
        self._common = common
        self._fingerprint = fingerprint(common)
        self._known = known
        self._clock = clock
        self._etags = Remembered()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="files")

    async def __aenter__(self) -> DirectoryStore:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    @property
    def name(self) -> str:
        """The path of the folder."""
        return f"{self._base.path}/"

    async def check(self) -> None:
        """As promised by SourceStore."""
        await self._in_thread(self._check)

    async def head(self, key: str, *, part: int | None = None) -> ObjectState:
        """As promised by SourceStore. Reads the whole file if its ETag is not known."""
        return await self._in_thread(lambda: self._head(key, part))

    async def confirm_absent(self, key: str) -> None:
        """As promised by SourceStore. Raises NotAnObject for what is there and is no file."""
        await self._in_thread(lambda: self._confirm_absent(key))

    async def fetch(
        self,
        key: str,
        *,
        limit: int,
        span: Span | None = None,
        pin: Pin | None = None,
        into: memoryview | None = None,
    ) -> Fetched:
        """As promised by SourceStore."""
        return await self._in_thread(lambda: self._fetch(key, limit, span, pin, into))

    async def list_pages(self, *, after: str = "", page_size: int = 1000) -> AsyncIterator[Sequence[Listed]]:
        """As promised by SourceStore. The ETag is "" where it is not known.

        A known ETag is that of an object with all its attributes, which come from the name and the command line, and
        not from the file. So its time tells nothing, and the entry is as old as can be.
        """
        walking = walk(self._base, after=after, chunk=page_size)
        while page := await self._in_thread(partial(self._page, walking, after, page_size)):
            after = page[-1].key
            yield page

    async def get_tags(self, key: str, version_id: str | None = None) -> Tags:
        """Files have none."""
        return ()

    async def adopt(self, key: str, etag: str) -> None:
        """If an object's ETag is that of the file when it is cut in the same way, that is the file's ETag from now on.

        So what another program uploaded, in parts of another size, is not sent again. Raises StoreError.
        """
        await self._in_thread(lambda: self._adopt(key, etag))

    async def is_empty(self, chosen: Callable[[str], bool]) -> bool:
        """Whether there is no file beneath the folder that is chosen by its key. Raises StoreError."""
        return await self._in_thread(lambda: is_empty(self._base, chosen))

    async def activity(self, key: str) -> Activity:
        """Who is at work on a file, and when somebody was. Raises StoreError."""
        return await self._in_thread(lambda: self._activity(key))

    async def remove(self, key: str, version_id: str | None) -> None:
        """Removes the file if it still is of this version, and nobody is writing it.

        Raises StoreError: ChangedMeanwhile if not, Rejected if it could not be put back.
        """
        await self._in_thread(lambda: self._remove(key, version_id))

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        """Runs it in a thread, and returns when it has ended: a thread cannot be cancelled, and goes on to write into
        memory that was lent for it, and is lent to somebody else when this returns.
        """
        given = self._threads.submit(work)
        ended = asyncio.wrap_future(given)
        try:
            return await asyncio.shield(ended)
        except asyncio.CancelledError:
            if not given.cancel():
                await asyncio.wait([ended])
                ended.exception()  # or asyncio says that nobody has looked at it
            raise

    def _check(self) -> None:
        try:
            with self._base.folder(to_list=True) as folder, os.scandir(folder) as entries:
                next(entries, None)
        except OSError as error:
            raise meant_by(error, "") from error

    def _page(self, walking: Iterator[Found], after: str, size: int) -> list[Listed]:
        found = list(islice(walking, size))
        if not found:
            return []
        if self._known is not None:
            for key, pair in self._known.known(after, found[-1].key).items():
                self._etags.put(key, *pair)
        return [self._listed(one) for one in found]

    def _listed(self, found: Found) -> Listed:
        if found.stat is None:
            return Listed(found.key, 0, "", 0.0)
        etag = self._etags.get(found.key, self._version(found.stat))
        return Listed(found.key, found.stat.st_size, etag or "", 0.0 if etag else found.stat.st_mtime)

    def _head(self, key: str, part: int | None) -> ObjectState:
        if key.endswith("/"):
            self._look_into_folder(key)
        with self._base.file(key) as (folder, name, found):
            etag = self._etag(key, folder, name, found, layout_of(found.st_size))
            layout = layout_by_etag(found.st_size, etag)
        state = self._state(key, found, etag)
        if part is None or layout is None:
            return state
        if not 0 < part <= len(layout):
            raise NoSuchKey("stat", key, f"has no part {part}")
        return ObjectState(layout[part - 1].size, etag, state.modified, version_id=state.version_id, parts=len(layout))

    def _etag(self, key: str, folder: int, name: str, found: os.stat_result, layout: Layout | None) -> str:
        known = self._etags.get(key, self._version(found))
        return known or self._read_etag(key, folder, name, found, layout)

    def _read_etag(self, key: str, folder: int, name: str, found: os.stat_result, layout: Layout | None) -> str:
        began = self._clock()
        with self._open(key, folder, name, self._version(found)) as descriptor:
            etag = etag_of_file(descriptor, found.st_size, layout, key)
        if layout == layout_of(found.st_size):
            self._remember_if_quiet(key, found, etag, began)
        return etag

    def _adopt(self, key: str, etag: str) -> None:
        with self._base.file(key) as (folder, name, found):
            if self._etags.get(key, self._version(found)) is not None:
                return
            began = self._clock()
            layout = layout_by_etag(found.st_size, etag)
            if (is_md5(etag) or layout is not None) and self._read_etag(key, folder, name, found, layout) == etag:
                self._remember_if_quiet(key, found, etag, began)

    def _fetch(self, key: str, limit: int, span: Span | None, pin: Pin | None, into: memoryview | None) -> Fetched:
        began = self._clock()
        with self._base.file(key) as (folder, name, found):
            version = self._version(found)
            if pin is not None and pin.version_id != version:
                raise ChangedMeanwhile("read", key, "the file has changed")
            first, size = (span.first, span.size) if span is not None else (0, found.st_size)
            if size > limit or first + size > found.st_size:
                raise ChangedMeanwhile("read", key, f"{size} bytes from {first} on are not what is asked for")
            memory = into[:size] if into is not None and len(into) >= size else memoryview(bytearray(size))
            with self._open(key, folder, name, version) as descriptor:
                read_into(descriptor, memory, first, key)
        etag = pin.etag if pin is not None else etag_of_bytes(memory) if span is None else ""
        if pin is None and span is None:
            self._remember_if_quiet(key, found, etag, began)
        return Fetched(self._state(key, found, etag), memory)

    @contextmanager
    def _open(self, key: str, folder: int, name: str, version: str) -> Iterator[int]:
        """A descriptor to read; raises ChangedMeanwhile at the end unless the file was of this version all along."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            descriptor = os.open(name, flags, dir_fd=folder)
        except OSError as error:
            raise meant_by(error, key) from error
        try:
            yield descriptor
            if self._version(os.fstat(descriptor)) != version:
                raise ChangedMeanwhile("read", key, "the file changed while it was read")
        except OSError as error:
            raise meant_by(error, key) from error
        finally:
            os.close(descriptor)

    def _activity(self, key: str) -> Activity:
        with self._base.file(key) as (folder, name, found):
            return Activity(is_being_written(folder, name, key), found.st_mtime, found.st_ctime)

    def _remove(self, key: str, version_id: str | None) -> None:
        with self._base.file(key) as (folder, name, _):
            remove(folder, name, key, lambda found: self._version(found) == version_id)

    def _confirm_absent(self, key: str) -> None:
        self._check()
        try:
            if key.endswith("/"):
                self._look_into_folder(key)
            with self._base.file(key):
                pass
        except NoSuchKey:
            return
        raise ChangedMeanwhile("stat", key, "the file is there")

    def _look_into_folder(self, key: str) -> None:
        """Raises AccessDenied for a folder that cannot be listed: what is in it is not absent."""
        names = names_of(key[:-1])
        try:
            with self._base.folder(names, to_list=True):
                pass
        except AccessDenied as error:
            raise AccessDenied("open", key, "the folder cannot be listed; what is in it is left alone") from error

    def _state(self, key: str, found: os.stat_result, etag: str) -> ObjectState:
        return ObjectState(
            found.st_size,
            etag,
            found.st_mtime,
            attributes_of(key, self._common),
            version_id=self._version(found),
            parts=parts_of(etag),
            believable_from=believable_from(found),
        )

    def _version(self, found: os.stat_result) -> str:
        return version_of(found, self._fingerprint)

    def _remember_if_quiet(self, key: str, found: os.stat_result, etag: str, began: float) -> None:
        if began >= believable_from(found):
            self._etags.put(key, self._version(found), etag)
