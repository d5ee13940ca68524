"""Where a replicator.toml is kept: a file, a parameter of AWS's Parameter Store, an object in a bucket."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from replicator.errors import ConfigurationError
from replicator.sides import LARGEST_CONFIG, parse_config, read_config

PARAMETER, OBJECT = "ssm:", "s3://"

_HINTS = {
    "ParameterNotFound": "check the name, and AWS_REGION",
    "ParameterVersionNotFound": "check the version after the name",
    "NoSuchBucket": "check the bucket's name",
    "NoSuchKey": "check the key",
    "AccessDeniedException": "allow ssm:GetParameter for it, and kms:Decrypt for the key of a SecureString",
    "AccessDenied": "allow s3:GetObject for it, and s3:ListBucket to hear of a key that is not there",
}
"""What to do, by the codes of services: docs.aws.amazon.com/systems-manager/latest/APIReference/API_GetParameter.html
and docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html.
"""


def load_config(
    place: str | None, environment: Mapping[str, str], *, client: Callable[..., Any] | None = None
) -> Mapping[str, object]:
    """A parsed replicator.toml.

    place: a path, "ssm:NAME" (also of a SecureString) or "s3://BUCKET/KEY"; REPLICATOR_CONFIG unless it is given; where
    that is not given either, the file in the working directory, if there is one. client: makes the clients of
    services; boto3's, with the keys of AWS's chain, unless given. Raises ConfigurationError with one line.
    """
    chosen = (place or environment.get("REPLICATOR_CONFIG") or "").strip()
    if not chosen.startswith((PARAMETER, OBJECT)):
        return read_config(Path(chosen) if chosen else None)
    return parse_config(_content(chosen, environment, client), chosen)


def _content(place: str, environment: Mapping[str, str], client: Callable[..., Any] | None) -> bytes:
    """What is kept at AWS. Raises ConfigurationError that says what to do."""
    from botocore.exceptions import BotoCoreError, ClientError, NoRegionError  # only where AWS is asked

    region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or None
    try:
        if place.startswith(PARAMETER):
            return _parameter(place.removeprefix(PARAMETER), (client or _client)("ssm", region_name=region))
        bucket, _, key = place.removeprefix(OBJECT).partition("/")
        if not bucket or not key:
            raise ConfigurationError(f"{place}: must be s3://BUCKET/KEY")
        return _object(bucket, key, (client or _client)("s3", region_name=region))
    except NoRegionError as error:
        raise ConfigurationError(f"{place}: in which region? Set AWS_REGION") from error
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        raise ConfigurationError(f"{place}: {_one_line(error)}: {_HINTS.get(code, 'try again')}") from error
    except BotoCoreError as error:
        raise ConfigurationError(f"{place}: {_one_line(error)}: check the name, and AWS's keys and region") from error


def _parameter(name: str, client: Any) -> bytes:  # noqa: ANN401 - boto3 makes its class at run time
    answer = client.get_parameter(Name=name, WithDecryption=True)
    return str(answer["Parameter"]["Value"]).encode()


def _object(bucket: str, key: str, client: Any) -> bytes:  # noqa: ANN401 - as above
    with closing(client.get_object(Bucket=bucket, Key=key)["Body"]) as body:
        return bytes(body.read(LARGEST_CONFIG + 1))


def _client(service: str, *, region_name: str | None) -> Any:  # noqa: ANN401 - as above
    import boto3
    from botocore.config import Config

    # Whoever waits for the configuration has done nothing yet: better to say soon that it cannot be had.
    patience = Config(connect_timeout=5, read_timeout=10, retries={"mode": "standard", "total_max_attempts": 3})
    return boto3.client(service, region_name=region_name, config=patience)  # type: ignore[call-overload]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
