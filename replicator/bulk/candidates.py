"""Keys that may have to be deleted, kept until everything else is done: in memory while they are few, else on disk."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from replicator.model import MiB


class Candidates:
    """A list of keys of any length. Use as a context manager: the file goes with it."""

    def __init__(self, *, in_memory: int = 8 * MiB) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=in_memory, mode="w+", encoding="ascii")  # noqa: SIM115
        self.count = 0

    def add(self, key: str) -> None:
        """Notes a key."""
        self._file.write(json.dumps(key) + "\n")
        self.count += 1

    def __iter__(self) -> Iterator[str]:
        """The keys in the order in which they were added."""
        self._file.seek(0)
        for line in self._file:
            yield json.loads(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
