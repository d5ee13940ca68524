"""The stores that the contract suite runs on, and what each of them cannot do.

A limit listed here is asserted, not skipped: a store that gains the ability fails its test, and the list shrinks.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest

from replicator.model import Attributes
from replicator.store import ObjectStore
from tests.awkward import RICH
from tests.fakes.memory import Bucket, MemoryStore
from tests.servers import Endpoint
from tests.servers.lab import new_bucket, open_store


@dataclass
class Lab:
    """One kind of store under test."""

    name: str
    endpoint: Endpoint | None = None
    limits: frozenset[str] = frozenset()
    bucket: str = ""
    memory: Bucket = field(default_factory=Bucket)

    def can(self, ability: str) -> bool:
        return ability not in self.limits

    @property
    def rich(self) -> Attributes:
        """Every attribute that the store keeps."""
        return RICH if self.can("expires") else replace(RICH, expires=None)

    @asynccontextmanager
    async def store(self, prefix: str = "") -> AsyncIterator[ObjectStore]:
        """The store; each test has a bucket of its own."""
        if self.endpoint is None:
            yield MemoryStore(self.memory)
            return
        async with open_store(self.endpoint, self.bucket, prefix) as store:
            yield store

    @asynccontextmanager
    async def store_without_bucket(self) -> AsyncIterator[ObjectStore]:
        if self.endpoint is None:
            yield MemoryStore(Bucket(exists=False))
            return
        async with open_store(self.endpoint, "no-such-bucket-here") as store:
            yield store


LIMITS = {
    "memory": set(),
    "moto": {"digest refused", "line breaks in keys"},
    "swift": {"tags", "redirect", "storage classes", "unicode in metadata"},
    "rgw": {"underscores in metadata names", "parts told", "tags of multipart", "storage classes"},
    "rclone": {
        "conditions",
        "tags",
        "awkward keys",
        "pins",
        "multipart ETag",
        "parts told",
        "expires",
        "atomic streams",
    },
}


@pytest.fixture(params=list(LIMITS))
def lab(request: pytest.FixtureRequest) -> Lab:
    name = request.param
    limits = frozenset(LIMITS[name])
    if name == "memory":
        return Lab(name, limits=limits)
    endpoint = request.getfixturevalue(f"{name}_endpoint")
    return Lab(name, endpoint, limits, new_bucket(endpoint))
