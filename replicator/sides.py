"""The ends of a run: a bucket below a prefix at an endpoint, and how to get in. Read from locations and variables.

An endpoint with a name takes its table in replicator.toml and NAME_* variables instead of SOURCE_* or TARGET_*.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from replicator.errors import ConfigurationError
from replicator.model import MiB
from replicator.storage_classes import AS_AT_THE_SOURCE, StorageClasses, parse_storage_classes

Role = Literal["source", "target"]
Addressing = Literal["auto", "path", "virtual"]

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
"""Looser than AWS's rule for new buckets: old ones and other vendors' may have capitals and underscores."""

_ENDPOINT = re.compile(r"https?://[^/\s?#@]+/?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One bucket below one prefix at one endpoint, and how to get in.

    role: for messages. prefix: "" or ends with "/". endpoint: None for AWS. secret_id: of a secret in Secrets Manager
    that holds the keys. ca_bundle: file of certificates to trust. storage_classes: what a target wants for those of the
    source. name: of the endpoint in replicator.toml, "" for none. setting: what gave the location, for messages.
    Secrets are not shown by repr.
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
    storage_classes: StorageClasses = AS_AT_THE_SOURCE
    name: str = ""
    setting: str = field(default="", compare=False)

    @property
    def variables(self) -> str:
        """What the names of this side's variables begin with: SOURCE, TARGET, or the name of its endpoint."""
        return _variables_begin(self.name or self.role)

    @property
    def location(self) -> str:
        """As a person writes it."""
        return f"s3://{self.bucket}/{self.prefix}"


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
    side = note_side(role, text, environment, config or {}, problems, variable)
    if side is None:
        raise ConfigurationError("\n".join(problems))
    return side


def note_side(
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
    own = f"{_variables_begin(name or role)}_"
    variables = _variables(role, own)
    has_own_keys = any(environment.get(variables[attribute][0], "").strip() for attribute in _KEYS)
    for attribute, candidates in variables.items():
        # Keys belong together: AWS's own variables are not mixed with a side's keys, nor used beside its profile.
        alone = attribute in _KEYS and (has_own_keys or "profile" in fields)
        given = next((one for one in candidates[: 1 if alone else None] if environment.get(one, "").strip()), None)
        if given is not None and (attribute not in fields or given == candidates[0]):
            fields[attribute] = environment[given].strip()
    if has_own_keys and not environment.get(variables["secret_id"][0], "").strip():
        fields.pop("secret_id", None)  # of the table: what variables say goes before it
    found = _faults(variable, bucket, fields, {attribute: names[0] for attribute, names in variables.items()})
    classes = _note_classes(role, f"{own}STORAGE_CLASSES", environment, found)
    problems += found
    if found:
        return None
    return Side(
        role=role,
        bucket=bucket,
        prefix=prefix,
        storage_classes=classes,
        name=name or "",
        setting=variable,
        **fields,  # type: ignore[arg-type]
    )


def _variables_begin(name: str) -> str:
    return name.upper().replace("-", "_")


def _note_classes(role: Role, name: str, environment: Mapping[str, str], faults: list[str]) -> StorageClasses:
    """What the variable says that a target wants; nothing is written to a source."""
    text = environment.get(name, "").strip()
    if role == "source" or not text:
        return AS_AT_THE_SOURCE
    try:
        return parse_storage_classes(text, name)
    except ConfigurationError as error:
        faults.append(str(error))
        return AS_AT_THE_SOURCE


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


_TABLE = {
    "url": "endpoint",
    "region": "region",
    "profile": "profile",
    "addressing": "addressing",
    "secret_id": "secret_id",
}


def _endpoint_table(name: str, config: Mapping[str, object], problems: list[str]) -> dict[str, str] | None:
    """The fields of [endpoints.NAME]: url, region and so on. Keys come from NAME_ACCESS_KEY_ID, or from its secret."""
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


LARGEST_CONFIG = MiB
"""Bytes that a replicator.toml may have: a thousand routes have a tenth of that."""


def read_config(path: Path | str | None) -> Mapping[str, object]:
    """A parsed replicator.toml: the file given, or the one in the working directory if there is one."""
    chosen = Path(path or "replicator.toml")
    if path is None and not chosen.exists():
        return {}
    try:
        with chosen.open("rb") as file:
            return parse_config(file.read(LARGEST_CONFIG + 1), str(chosen))
    except OSError as error:
        raise ConfigurationError(
            f"{chosen}: {error.strerror or error}: give a replicator.toml that can be read"
        ) from error


def parse_config(content: bytes, where: str) -> Mapping[str, object]:
    """A parsed replicator.toml. where: it comes from, for messages. Raises ConfigurationError."""
    if len(content) > LARGEST_CONFIG:
        raise ConfigurationError(f"{where}: is larger than {LARGEST_CONFIG} bytes, which no replicator.toml is")
    try:
        return tomllib.loads(content.decode())
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(f"{where}: is not UTF-8 (at line {line}): save it as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{where}: is not TOML: {error}") from error
    except RecursionError as error:
        raise ConfigurationError(f"{where}: is not TOML that can be read: brackets within brackets") from error


def overlaps(sides: Sequence[Side]) -> list[str]:
    """A line for each pair of sides of which one would be copied into the other."""
    return [
        f"{one.location} and {other.location} overlap: one would be copied into the other"
        for index, one in enumerate(sides)
        for other in sides[index + 1 :]
        if overlap(one, other)
    ]


def overlap(one: Side, other: Side) -> bool:
    """Whether there are keys that belong to both."""
    nested = one.prefix.startswith(other.prefix) or other.prefix.startswith(one.prefix)
    return nested and same_bucket(one, other)


def names_of(targets: Sequence[Side]) -> list[str]:
    """What each is called in outcomes: its location; with its endpoint's name where another one has that location."""
    locations = [side.location for side in targets]
    return [
        side.location
        if locations.count(side.location) == 1
        else f"{side.name or side.role}:{side.bucket}/{side.prefix}"
        for side in targets
    ]


def same_bucket(one: Side, other: Side) -> bool:
    """Whether both are in one bucket, as far as their endpoints' names tell."""
    return one.bucket == other.bucket and _place(one.endpoint) == _place(other.endpoint)


def _place(endpoint: str | None) -> tuple[str, int | None]:
    """Host and port of an endpoint; one and the same for all of AWS, whose buckets have no endpoint of their own."""
    parts = urlsplit((endpoint or "https://s3.amazonaws.com").lower())
    if ".amazonaws.com" in (parts.hostname or ""):
        return "amazonaws.com", 443
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
