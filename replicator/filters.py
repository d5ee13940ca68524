"""Which keys a run or a route is about: --include and --exclude as `aws s3` has them. Pure."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import translate

from replicator.diff import Row


@dataclass(frozen=True, slots=True)
class Rule:
    """One --include (include=True) or --exclude with its pattern, where '*' matches '/' too."""

    include: bool
    pattern: str


class KeyFilter:
    """Keys are included unless a rule says otherwise; the last rule that matches decides.

    Patterns are matched against the whole key below the source's prefix, with case. A key that is not included is
    not looked at on either side: it is neither copied nor deleted
    (docs.aws.amazon.com/cli/latest/reference/s3/#use-of-exclude-and-include-filters).
    """

    def __init__(self, rules: Sequence[Rule] = ()) -> None:
        self._rules = [(rule.include, re.compile(translate(rule.pattern)).match) for rule in reversed(rules)]
        self._given = tuple(rules)
        self.words = [f"{'include' if rule.include else 'exclude'} {rule.pattern!a}" for rule in rules]
        """What is asked for, for messages."""
        self.takes_all = not rules
        """Whether every key is included."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KeyFilter) and self._given == other._given

    def __hash__(self) -> int:
        return hash(self._given)

    def __repr__(self) -> str:
        return f"KeyFilter({self._given})"

    def __reduce__(self) -> tuple[object, ...]:
        """Travels to other processes as what it was made of."""
        return KeyFilter, (self._given,)

    def then(self, rules: Sequence[Rule]) -> KeyFilter:
        """The same with more rules, which come last and so decide."""
        return KeyFilter([*self._given, *rules])

    def without(self, key: str, *more: str) -> KeyFilter:
        """The same, without this key, and without those that go on after it with one of these patterns."""
        return KeyFilter([*self._given, *(Rule(False, glob.escape(key) + pattern) for pattern in ("", *more))])

    def includes(self, key: str) -> bool:
        """Whether the run is about this key."""
        return next((include for include, match in self._rules if match(key)), True)

    def of(self, rows: list[Row]) -> list[Row]:
        """The rows that the run is about."""
        return rows if self.takes_all else [row for row in rows if self.includes(row.key)]
