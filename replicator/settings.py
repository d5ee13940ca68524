"""Settings: environment, replicator.toml and command line -> frozen, validated values. Nothing below reads os.environ.

Precedence: command line, then SOURCE_* / TARGET_* variables, then AWS's own variables, then the AWS credential chain
(replicator.s3.credentials). An endpoint with a name takes its table in replicator.toml and NAME_* variables instead of
SOURCE_* or TARGET_*.

Plain dataclasses rather than pydantic, whose import alone costs 120 ms of CPU: twice what a cold Lambda or a short run
spends on all the rest of this package.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from replicator.errors import ConfigurationError
from replicator.model import Deletes, MiB

Role = Literal["source", "target"]
Addressing = Literal["auto", "path", "virtual"]

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
"""Looser than AWS's rule for new buckets: old ones and other vendors' may have capitals and underscores."""

_ENDPOINT = re.compile(r"https?://[^/\s?#@]+/?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One bucket below one prefix at one endpoint, and how to get in.

    role: for messages. prefix: "" or ends with "/". endpoint: None for AWS. secret_id: of a secret in Secrets Manager
    that holds the keys. ca_bundle: file of certificates to trust. Secrets are not shown by repr.
    """

    role: Role
    bucket: str
    prefix: str = ""
    endpoint: str | None = None
    region: str | None = None
    profile: str | None = None
    addressing: Addressing = "auto"
    access_key_id: str | None = None
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    secret_id: str | None = None
    ca_bundle: str | None = None
    prefix_of_variables: str = ""

    @property
    def variables(self) -> str:
        """What the names of this side's variables begin with: SOURCE, TARGET, or the name of its endpoint."""
        return self.prefix_of_variables or self.role.upper()

    @property
    def location(self) -> str:
        """As a person writes it."""
        return f"s3://{self.bucket}/{self.prefix}"


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
    """Everything a run between buckets needs to know."""

    source: Side

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
        source = _side("source", environment.get("SOURCE_BUCKET", ""), environment, config or {}, problems)
        work = _work(environment, targets or [environment.get("TARGET_BUCKET", "")], config or {}, problems)
        if source is not None:
            problems += _overlaps([source, *work.targets])
        if problems or source is None:
            raise ConfigurationError("\n".join(problems))
        return cls(source=source, **_fields_of(work))


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
    sides = [_side("target", text, environment, config, problems) for text in targets]
    deletes = environment.get("DELETES") or Deletes.KEEP.value
    if deletes not in {choice.value for choice in Deletes}:
        problems.append(f"DELETES={deletes!r}: must be mirror or keep")
        deletes = Deletes.KEEP.value
    return Work(
        targets=tuple(side for side in sides if side is not None),
        deletes=Deletes(deletes),
        concurrency=_number(environment, "CONCURRENCY", 64, range(1, 4097), problems),
        memory=_number(environment, "MEMORY_BYTES", 256 * MiB, range(16 * MiB, 2**50), problems),
        processes=_number(environment, "PROCESSES", 1, range(1, 257), problems),
        max_rps=_number(environment, "MAX_RPS", 0, range(1, 10**6), problems) if environment.get("MAX_RPS") else None,
        bandwidth=_bytes_a_second(environment, "BANDWIDTH", problems),
    )


def _fields_of(work: Work) -> dict[str, Any]:
    return {field.name: getattr(work, field.name) for field in fields(work)}


def read_side(
    role: Role,
    text: str,
    environment: Mapping[str, str],
    config: Mapping[str, object] | None = None,
    *,
    variable: str | None = None,
) -> Side:
    """One side by itself, as Settings.from_env reads it. text: its location. variable: what messages call that.

    Raises ConfigurationError with one line for each bad setting.
    """
    problems: list[str] = []
    side = _side(role, text, environment, config or {}, problems, variable)
    if side is None:
        raise ConfigurationError("\n".join(problems))
    return side


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


def _overlaps(sides: Sequence[Side]) -> list[str]:
    """A line for each pair of sides of which one would be copied into the other."""
    return [
        f"{one.location} and {other.location} overlap: one would be copied into the other"
        for index, one in enumerate(sides)
        for other in sides[index + 1 :]
        if _overlap(one, other)
    ]


def _overlap(one: Side, other: Side) -> bool:
    same_place = one.bucket == other.bucket and _place(one.endpoint) == _place(other.endpoint)
    return same_place and (one.prefix.startswith(other.prefix) or other.prefix.startswith(one.prefix))


def _place(endpoint: str | None) -> tuple[str, int | None]:
    """Host and port of an endpoint; one and the same for all of AWS, whose buckets have no endpoint of their own."""
    parts = urlsplit((endpoint or "https://s3.amazonaws.com").lower())
    if ".amazonaws.com" in (parts.hostname or ""):
        return "amazonaws.com", 443
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _side(
    role: Role,
    text: str,
    environment: Mapping[str, str],
    config: Mapping[str, object],
    problems: list[str],
    variable: str | None = None,
) -> Side | None:
    """One side from its location and its variables; None, and the problems noted, when they are no good."""
    variable = variable or f"{role.upper()}_BUCKET"
    if not text.strip():
        problems.append(f"{variable} is not set: give the {role} as a bucket, bucket/prefix or s3://bucket/prefix")
        return None
    name, bucket, prefix = split_location(text.strip())
    fields: dict[str, str] = {}
    if name is not None:
        table = _endpoint_table(name, config, problems)
        if table is None:
            return None
        fields.update(table)
    own = (name or role).upper().replace("-", "_") + "_"
    variables = _variables(role, own)
    has_own_keys = any(environment.get(variables[attribute][0], "").strip() for attribute in _KEYS)
    for attribute, candidates in variables.items():
        # Keys belong together: AWS's own variables are not mixed with a side's keys, nor used beside its profile.
        alone = attribute in _KEYS and (has_own_keys or "profile" in fields)
        given = next((one for one in candidates[: 1 if alone else None] if environment.get(one, "").strip()), None)
        if given is not None and (attribute not in fields or given == candidates[0]):
            fields[attribute] = environment[given].strip()
    found = _faults(variable, bucket, fields, {attribute: names[0] for attribute, names in variables.items()})
    problems += found
    if found:
        return None
    return Side(role=role, bucket=bucket, prefix=prefix, prefix_of_variables=own[:-1], **fields)  # type: ignore[arg-type]


def _faults(variable: str, bucket: str, fields: Mapping[str, str], spoken: Mapping[str, str]) -> list[str]:
    """One line for each bad field: its variable, what was given (never a secret), what is wanted."""
    faults = []
    if not _BUCKET.fullmatch(bucket):
        faults.append(f"{variable}={bucket!r}: is no bucket's name; a location is s3://BUCKET/PREFIX")
    endpoint = fields.get("endpoint")
    if endpoint is not None and not (_ENDPOINT.fullmatch(endpoint) and _has_a_port(endpoint)):
        given = "" if "@" in endpoint else f"={endpoint!r}"  # what stands before an @ may be a password
        faults.append(f"{spoken['endpoint']}{given}: must be http(s)://HOST[:PORT]")
    addressing = fields.get("addressing", "auto")
    if addressing not in ("auto", "path", "virtual"):
        faults.append(f"{spoken['addressing']}={addressing!r}: must be auto, path or virtual")
    if "profile" in fields and "access_key_id" in fields:
        faults.append(f"{spoken['profile']} and {spoken['access_key_id']}: give a profile or keys, not both")
    if ("access_key_id" in fields) != ("secret_access_key" in fields):
        faults.append(f"{spoken['access_key_id']} and {spoken['secret_access_key']}: give both or neither")
    faults += [
        f"{spoken[name]}: contains a blank or a line break" for name in _KEYS if len(fields.get(name, "").split()) > 1
    ]
    return faults


_KEYS = ("access_key_id", "secret_access_key", "session_token")


def _variables(role: str, own: str) -> dict[str, tuple[str, ...]]:
    """The variables for each field, first come first served; AWS's own are the last."""
    alias = ("ENDPOINT",) if role == "target" else ()
    return {
        "endpoint": (f"{own}ENDPOINT", *alias, "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
        "region": (f"{own}REGION", "AWS_REGION", "AWS_DEFAULT_REGION"),
        "profile": (f"{own}PROFILE",),
        "addressing": (f"{own}ADDRESSING",),
        "access_key_id": (f"{own}ACCESS_KEY_ID", "AWS_ACCESS_KEY_ID"),
        "secret_access_key": (f"{own}SECRET_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY"),
        "session_token": (f"{own}SESSION_TOKEN", "AWS_SESSION_TOKEN"),
        "secret_id": (f"{own}SECRET_ID",),
        "ca_bundle": ("AWS_CA_BUNDLE",),
    }


def split_location(text: str) -> tuple[str | None, str, str]:
    """(endpoint name or None, bucket, prefix) of "s3://bucket/prefix", "bucket/prefix" or "name:bucket/prefix".

    A prefix is a directory, as for aws s3 sync: "logs" means the keys that start with "logs/".
    """
    name: str | None = None
    if text.startswith("s3://"):
        rest = text[len("s3://") :]
    else:
        before, colon, after = text.partition(":")
        is_name = colon and "/" not in before and before not in ("s3", "http", "https")
        name, rest = (before, after) if is_name else (None, text)
    bucket, _, prefix = rest.partition("/")
    return name, bucket, prefix if not prefix or prefix.endswith("/") else prefix + "/"


def _has_a_port(endpoint: str) -> bool:
    try:
        return urlsplit(endpoint).port != 0
    except ValueError:
        return False


_TABLE = {"url": "endpoint", "region": "region", "profile": "profile", "addressing": "addressing"}


def _endpoint_table(name: str, config: Mapping[str, object], problems: list[str]) -> dict[str, str] | None:
    """The fields of [endpoints.NAME]: url, region, profile, addressing. Keys come from NAME_ACCESS_KEY_ID."""
    endpoints = config.get("endpoints")
    table = endpoints.get(name) if isinstance(endpoints, dict) else None
    if not isinstance(table, dict):
        problems.append(f"{name}: replicator.toml has no [endpoints.{name}]")
        return None
    unknown = [key for key, value in table.items() if key not in _TABLE or not isinstance(value, str)]
    if unknown:
        problems.append(f"replicator.toml: [endpoints.{name}] takes strings for {', '.join(_TABLE)}, not {unknown[0]}")
        return None
    return {_TABLE[key]: value for key, value in table.items()}


def read_config(path: Path | None) -> Mapping[str, object]:
    """A parsed replicator.toml: the file given, or the one in the working directory if there is one."""
    chosen = path or Path("replicator.toml")
    if path is None and not chosen.exists():
        return {}
    try:
        return tomllib.loads(chosen.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"{chosen}: {error}") from error
