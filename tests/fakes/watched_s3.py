"""A GrudgingS3 that notes every request, and lets a test answer some of them by itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, urlsplit

from tests.fakes.grudging_s3 import GrudgingS3, answering

Answer = tuple[int, bytes, dict[str, str]]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request. key: "" if it is about the bucket. query: each name with its last value. size: of the body."""

    method: str
    key: str
    query: dict[str, str]
    size: int
    at: float

    @property
    def page(self) -> str | None:
        """The key after which a page is to be listed; None for any other request, single keys too."""
        if self.method != "GET" or self.key or self.query.get("max-keys") == "1":
            return None
        return self.query.get("continuation-token", self.query.get("start-after", ""))


Rule = Callable[[Asked], Answer | None]


class Watched(GrudgingS3):
    """log: all requests, in order. rule: answers those for which it does not return None."""

    def __init__(self, rule: Rule) -> None:
        super().__init__(lambda: False)
        self.rule = rule
        self.log: list[Asked] = []

    def of(self, method: str) -> list[str]:
        """The keys of objects that were asked for by this method."""
        return [one.key for one in self.log if one.method == method and one.key]

    def answer(self, method: str, target: str, body: bytes) -> Answer:
        """By the rule, or as usual."""
        parts = urlsplit(target)
        query = {name: values[-1] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        asked = Asked(method, unquote(parts.path.lstrip("/").partition("/")[2]), query, len(body), time.monotonic())
        self.log.append(asked)
        return self.rule(asked) or super().answer(method, target, body)


@contextmanager
def watched(rule: Rule = lambda _: None) -> Iterator[Watched]:
    """The server, for as long as the block runs."""
    with answering(Watched(rule)) as store:
        yield store
