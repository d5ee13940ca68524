"""Settings: environment, replicator.toml and command line -> frozen, validated values. Nothing below reads os.environ.

Precedence: command line, then SOURCE_* / TARGET_* variables, then AWS's own variables, then the AWS credential chain
(replicator.s3.credentials). An endpoint with a name takes its table in replicator.toml and NAME_* variables instead of
SOURCE_* or TARGET_*.

Plain dataclasses rather than pydantic, whose import alone costs 120 ms of CPU: twice what a cold Lambda or a short run
spends on all the rest of this package.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from replicator.errors import ConfigurationError
from replicator.filters import KeyFilter
from replicator.model import Deletes, MiB
from replicator.sides import Side, note_side, overlaps

DEFAULT = "default"
"""Name of the route that the environment describes."""

MAX_DELETES_PER_HOUR, DELETE_SHARE = 1000, 0.1

DELETES_PER_HOUR = range(10**9)
"""What MAX_DELETES_PER_HOUR may be; with 0, and a share of 0, every delete waits for somebody's word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Where to, and how much at once.

    deletes: whether the targets follow when an object disappears. concurrency: objects in flight. memory: bytes of
    objects held at once. processes: that share both. max_rps, bandwidth: requests, and bytes of bodies, a second at
    each endpoint; None for no limit.
    """

    targets: tuple[Side, ...]
    deletes: Deletes = Deletes.KEEP
    concurrency: int = 64
    memory: int = 256 * MiB
    processes: int = 1
    max_rps: int | None = None
    bandwidth: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(Work):
    """Everything that is to be known of one route: a run between buckets, or what events keep equal.

    name: of the route; "default" for the one of the environment. keys: below the source's prefix that it is about.
    max_deletes_per_hour, delete_share: how many deletes events may cause in an hour: that many, or that share of the
    hour's changes (0 to 1), whichever is more.
    """

    source: Side
    name: str = DEFAULT
    keys: KeyFilter = KeyFilter()
    max_deletes_per_hour: int = MAX_DELETES_PER_HOUR
    delete_share: float = DELETE_SHARE

    @classmethod
    def from_env(
        cls,
        environment: Mapping[str, str],
        *,
        targets: Sequence[str] = (),
        config: Mapping[str, object] | None = None,
    ) -> Settings:
        """Reads the variables that README.md lists.

        targets: locations instead of TARGET_BUCKET. config: a parsed replicator.toml. Raises ConfigurationError with
        one line for each bad setting; values of secrets are not in it.
        """
        problems: list[str] = []
        source = note_side("source", environment.get("SOURCE_BUCKET", ""), environment, config or {}, problems)
        work = _work(environment, targets or [environment.get("TARGET_BUCKET", "")], config or {}, problems)
        brake = note_brake(environment, problems)
        if source is not None:
            problems += overlaps([source, *work.targets])
        if problems or source is None:
            raise ConfigurationError("\n".join(problems))
        return cls(source=source, **_fields_of(work), **brake)


@dataclass(frozen=True, slots=True, kw_only=True)
class PushSettings(Work):
    """Everything a run from a folder needs to know."""

    folder: Path

    @classmethod
    def from_env(
        cls,
        environment: Mapping[str, str],
        *,
        folder: Path,
        target: str | None = None,
        config: Mapping[str, object] | None = None,
    ) -> PushSettings:
        """As Settings.from_env; the target may also come from AWS_BUCKET_NAME."""
        problems: list[str] = []
        text = target or environment.get("TARGET_BUCKET") or environment.get("AWS_BUCKET_NAME", "")
        work = _work(environment, [text], config or {}, problems)
        if problems:
            raise ConfigurationError("\n".join(problems))
        return cls(folder=folder, **_fields_of(work))


def _work(
    environment: Mapping[str, str], targets: Sequence[str], config: Mapping[str, object], problems: list[str]
) -> Work:
    """What all runs have; what is wrong is noted in problems."""
    sides = [note_side("target", text, environment, config, problems) for text in targets]
    return replace(note_effort(environment, problems), targets=tuple(side for side in sides if side is not None))


def note_effort(environment: Mapping[str, str], problems: list[str]) -> Work:
    """All of Work but its targets, from the variables; what is wrong is noted in problems."""
    deletes = environment.get("DELETES") or Deletes.KEEP.value
    if deletes not in {choice.value for choice in Deletes}:
        problems.append(f"DELETES={deletes!r}: must be mirror or keep")
        deletes = Deletes.KEEP.value
    return Work(
        targets=(),
        deletes=Deletes(deletes),
        concurrency=_number(environment, "CONCURRENCY", 64, range(1, 4097), problems),
        memory=_number(environment, "MEMORY_BYTES", 256 * MiB, range(16 * MiB, 2**50), problems),
        processes=_number(environment, "PROCESSES", 1, range(1, 257), problems),
        max_rps=_number(environment, "MAX_RPS", 0, range(1, 10**6), problems) if environment.get("MAX_RPS") else None,
        bandwidth=_bytes_a_second(environment, "BANDWIDTH", problems),
    )


def note_brake(environment: Mapping[str, str], problems: list[str]) -> dict[str, Any]:
    """Those fields of Settings that say how many deletes events may cause; what is wrong is noted in problems."""
    text = environment.get("DELETE_SHARE") or str(DELETE_SHARE)
    if not re.fullmatch(r"0?\.\d{1,9}|[01](\.0{0,9})?", text, re.ASCII):
        problems.append(f"DELETE_SHARE={text[:40]!r}: must be a number from 0 to 1, as 0.1")
        text = "0"
    most = _number(environment, "MAX_DELETES_PER_HOUR", MAX_DELETES_PER_HOUR, DELETES_PER_HOUR, problems)
    return {"max_deletes_per_hour": most, "delete_share": float(text)}


def _fields_of(work: Work) -> dict[str, Any]:
    return {field.name: getattr(work, field.name) for field in fields(work)}


def _number(environment: Mapping[str, str], name: str, default: int, allowed: range, problems: list[str]) -> int:
    text = environment.get(name) or str(default)
    if not (text.isascii() and text.isdecimal() and len(text) < 19 and int(text) in allowed):
        problems.append(f"{name}={text[:40]!r}: must be a whole number from {allowed.start} to {allowed.stop - 1}")
        return default
    return int(text)


_UNITS = {"": 1, "K": 1024, "M": MiB, "G": 1024 * MiB}


def _bytes_a_second(environment: Mapping[str, str], name: str, problems: list[str]) -> int | None:
    """ "10M" is 10 MiB a second. Not under 1 MiB, at which a request would look like one that hangs."""
    text = environment.get(name)
    if not text:
        return None
    number = re.fullmatch(r"(\d{1,15})([KMG]?)(?:i?B)?(?:/s)?", text.strip(), re.ASCII | re.IGNORECASE)
    size = int(number[1]) * _UNITS[number[2].upper()] if number else 0
    if size < MiB:
        problems.append(f"{name}={text[:40]!r}: must be bytes a second, at least 1M, written as 20M or 1G")
        return None
    return size
