"""Settings: environment, replicator.toml and command line -> frozen, validated values. Nothing below reads os.environ.

Precedence: command line, then SOURCE_* / TARGET_* variables, then the endpoint's table in replicator.toml, then AWS's
own variables, then the AWS credential chain (replicator.s3.credentials).
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError, model_validator

from replicator.errors import ConfigurationError
from replicator.model import Deletes, MiB

BUCKET = r"^[A-Za-z0-9][A-Za-z0-9._-]{1,254}$"
"""Looser than AWS's rule for new buckets: old ones and other vendors' may have capitals and underscores."""

_FROZEN = ConfigDict(frozen=True, extra="forbid")


def _blank_is_none(value: object) -> object:
    """An empty variable (docker run --env NAME) means: not set."""
    return None if isinstance(value, str) and not value.strip() else value


Optional = Annotated[str | None, BeforeValidator(_blank_is_none)]
OptionalSecret = Annotated[SecretStr | None, BeforeValidator(_blank_is_none)]
OptionalUrl = Annotated[str | None, BeforeValidator(_blank_is_none), Field(pattern=r"^https?://[^/\s]+/?$")]


class Side(BaseModel):
    """One bucket below one prefix at one endpoint, and how to get in.

    prefix: "" or ends with "/". endpoint: None for AWS. role: "source" or "target", for messages. Secrets are not
    shown by repr.
    """

    model_config = _FROZEN

    role: Literal["source", "target"]
    bucket: str = Field(pattern=BUCKET)
    prefix: str = ""
    endpoint: OptionalUrl = None
    region: Optional = None
    profile: Optional = None
    addressing: Literal["auto", "path", "virtual"] = "auto"
    access_key_id: Optional = None
    secret_access_key: OptionalSecret = None
    session_token: OptionalSecret = None
    secret_id: Optional = None
    ca_bundle: Optional = None

    @model_validator(mode="after")
    def _whole_key(self) -> Side:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("an access key needs both its id and its secret")
        return self

    @property
    def location(self) -> str:
        """As a person writes it."""
        return f"s3://{self.bucket}/{self.prefix}"


class Settings(BaseModel):
    """Everything a run needs to know.

    concurrency: objects in flight. memory: bytes of objects held at once. deletes: whether the targets follow when
    an object disappears.
    """

    model_config = _FROZEN

    source: Side
    targets: tuple[Side, ...] = Field(min_length=1)
    deletes: Deletes = Deletes.KEEP
    concurrency: int = Field(default=64, ge=1, le=4096)
    memory: int = Field(default=256 * MiB, ge=16 * MiB)

    @model_validator(mode="after")
    def _no_overlap(self) -> Settings:
        places = [self.source, *self.targets]
        for index, one in enumerate(places):
            for other in places[index + 1 :]:
                if _overlap(one, other):
                    raise ValueError(f"{one.location} and {other.location} overlap: one would be copied into the other")
        return self

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
        source_text = environment.get("SOURCE_BUCKET", "")
        target_texts = list(targets) or [environment.get("TARGET_BUCKET", "")]
        source = _side("source", source_text, environment, config or {}, problems)
        sides = [_side("target", text, environment, config or {}, problems) for text in target_texts]
        fields: dict[str, object] = {"source": source, "targets": tuple(sides)}
        for name, variable in (("deletes", "DELETES"), ("concurrency", "CONCURRENCY"), ("memory", "MEMORY_BYTES")):
            if environment.get(variable):
                fields[name] = environment[variable]
        if problems:
            raise ConfigurationError("\n".join(problems))
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise ConfigurationError("\n".join(_explain(error, {}))) from None


def _overlap(one: Side, other: Side) -> bool:
    same_place = one.bucket == other.bucket and (one.endpoint or "").rstrip("/") == (other.endpoint or "").rstrip("/")
    return same_place and (one.prefix.startswith(other.prefix) or other.prefix.startswith(one.prefix))


def _side(
    role: Literal["source", "target"],
    text: str,
    environment: Mapping[str, str],
    config: Mapping[str, object],
    problems: list[str],
) -> Side | None:
    """One side from its location and its variables; None, and the problems noted, when they are no good."""
    variable = f"{role.upper()}_BUCKET"
    if not text.strip():
        problems.append(f"{variable} is not set: give the {role} as a bucket, bucket/prefix or s3://bucket/prefix")
        return None
    name, bucket, prefix = split_location(text.strip())
    fields: dict[str, object] = {"role": role, "bucket": bucket, "prefix": prefix}
    if name is not None:
        table = _endpoint_table(name, config)
        if table is None:
            problems.append(f"{text}: replicator.toml has no [endpoints.{name}]")
            return None
        fields.update(table)
    own = (name or role).upper().replace("-", "_") + "_"
    variables = _variables(role, own)
    for field, candidates in variables.items():
        given = next((one for one in candidates if environment.get(one, "").strip()), None)
        if given is not None and (field not in fields or given == candidates[0]):
            fields[field] = environment[given]
    if fields.get("profile") and not environment.get(f"{own}ACCESS_KEY_ID"):
        for field in ("access_key_id", "secret_access_key", "session_token"):
            fields.pop(field, None)  # the profile's keys are meant, not AWS_ACCESS_KEY_ID
    try:
        return Side.model_validate(fields)
    except ValidationError as error:
        spoken = {field: candidates[0] for field, candidates in variables.items()}
        problems.extend(_explain(error, {**spoken, "bucket": variable}))
        return None


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
        name, rest = (before, after) if colon and "/" not in before else (None, text)
    bucket, _, prefix = rest.partition("/")
    return name, bucket, prefix if not prefix or prefix.endswith("/") else prefix + "/"


def _endpoint_table(name: str, config: Mapping[str, object]) -> dict[str, object] | None:
    endpoints = config.get("endpoints")
    table = endpoints.get(name) if isinstance(endpoints, dict) else None
    if not isinstance(table, dict):
        return None
    return {("endpoint" if key == "url" else key): value for key, value in table.items()}


def read_config(path: Path | None) -> Mapping[str, object]:
    """A parsed replicator.toml: the file given, or the one in the working directory if there is one."""
    chosen = path or Path("replicator.toml")
    if path is None and not chosen.exists():
        return {}
    try:
        return tomllib.loads(chosen.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"{chosen}: {error}") from error


def _explain(error: ValidationError, variables: Mapping[str, str]) -> list[str]:
    """One line for each bad field: its variable, what was given (never a secret), what is wanted."""
    lines = []
    for problem in error.errors(include_url=False):
        field = ".".join(str(step) for step in problem["loc"])
        name = variables.get(field, field.upper() if field in ("deletes", "concurrency") else field)
        if field == "memory":
            name = "MEMORY_BYTES"
        secret = "secret" in field or "token" in field or not field
        given = "" if secret else f"={problem['input']!r}"
        message = problem["msg"].removeprefix("Value error, ")
        lines.append(f"{name}{given}: {message}" if name else message)
    return lines
