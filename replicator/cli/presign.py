"""replicator presign: a URL that gets or puts one object."""

from __future__ import annotations

import os

import click

from replicator.aws.config_source import load_config
from replicator.durations import parse_duration
from replicator.errors import ConfigurationError
from replicator.sides import Role, Side, read_side, split_location
from replicator.urls import METHODS, Method


@click.command(short_help="Print a URL to get or put one object until it expires.")
@click.argument("location")
@click.option("--expires", default="1h", show_default=True, metavar="TIME", help="For how long, as 90s or 7d at most.")
@click.option("--method", type=click.Choice(METHODS), default="get", show_default=True, help="What it is for.")
@click.option("--download-as", metavar="NAME", help="The name under which a browser saves it.")
@click.option(
    "--side",
    "role",
    type=click.Choice(("target", "source")),
    default="target",
    show_default=True,
    help="Whose endpoint and keys, where LOCATION names no endpoint.",
)
@click.option("--endpoint", metavar="URL", help="URL of the store.")
@click.option("--region", metavar="REGION", help="Region of the bucket.")
@click.option("--profile", metavar="PROFILE", help="Profile of the AWS configuration.")
@click.option("--config", metavar="PLACE", help="A replicator.toml: FILE, ssm:NAME or s3://BUCKET/KEY.")
def presign(
    location: str,
    expires: str,
    method: Method,
    download_as: str | None,
    role: Role,
    config: str | None,
    **options: str | None,
) -> int:
    """Print a URL with which anybody can get (or put) one object until it expires.

    LOCATION is s3://BUCKET/KEY, BUCKET/KEY, or NAME:BUCKET/KEY for an endpoint of replicator.toml. Nothing is asked of
    the store. The URL is signed with the keys at hand: when they are temporary (a role's, SSO's), it ends with them,
    however long it was to last.

    \b
    replicator presign s3://my-target/photos/1.jpg --expires 15m --download-as holiday.jpg
    curl -T 1.jpg "$(replicator presign s3://my-target/photos/1.jpg --method put)"
    """
    seconds = int(parse_duration(expires, "--expires"))
    side, key = _object(location, role, config, options)
    from replicator.s3.presigning import Presigner  # loads the signer: only where something is signed

    click.echo(Presigner(side).presign(key, method=method, expires=seconds, download_as=download_as))
    return 0


def _object(location: str, role: Role, config: str | None, options: dict[str, str | None]) -> tuple[Side, str]:
    """The bucket and the key of LOCATION, which may end with a slash or a blank."""
    name, bucket, prefix = split_location(location)
    given = {option: value for option, value in options.items() if value is not None}
    if name is not None and given:
        raise ConfigurationError(f"--{next(iter(given))} is not for {location}: its endpoint is in replicator.toml")
    key = prefix if location.endswith("/") else prefix.removesuffix("/")
    overrides = {f"{role}_{option}".upper(): value for option, value in given.items()}
    place = bucket if name is None else f"{name}:{bucket}"
    side = read_side(role, place, {**os.environ, **overrides}, load_config(config, os.environ), variable="LOCATION")
    return side, key
