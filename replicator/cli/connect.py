"""replicator connect and disconnect: has a bucket tell of its changes, merged into what it tells already."""

from __future__ import annotations

import os
from contextlib import closing
from typing import TYPE_CHECKING

import click

from replicator.aws.config_source import load_config
from replicator.cli.options import check_endpoints, source_options
from replicator.errors import ConfigurationError
from replicator.logs import printable
from replicator.notifications import Way, default_id, way_to
from replicator.sides import Side, read_side

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from replicator.aws.clients import Clients

_OURS = "replicator-"

_LONGEST = 255
"""Characters of an Id: what S3 takes."""

_id = click.option("--id", "name", metavar="NAME", help="Name of the notification.  [default: made from BUCKET]")
_dry_run = click.option("--dry-run", is_flag=True, help="Only print what would be changed.")


@click.command()
@click.argument("bucket")
@click.argument("destination")
@_id
@click.option(
    "--persistent/--no-persistent",
    default=True,
    show_default=True,
    help="Ceph RGW: keep what a webhook did not take, and let no writer wait for it.",
)
@_dry_run
@source_options
def connect(
    bucket: str,
    destination: str,
    name: str | None,
    persistent: bool,
    dry_run: bool,
    config: str | None,
    **options: str | None,
) -> int:
    """Have BUCKET tell DESTINATION of all that can change a copy.

    BUCKET is a location; with a prefix, only keys below it are told. What others have configured there stays as it is;
    what would overlap is refused, with its name. To repeat it changes nothing.

    \b
    replicator connect s3://my-bucket arn:aws:sqs:eu-central-1:123456789012:my-queue
    replicator connect s3://my-bucket/photos https://sqs.eu-central-1.amazonaws.com/123456789012/my-queue
    replicator connect s3://my-bucket EVENTBRIDGE
    replicator connect minio:my-bucket arn:minio:sqs::replicator:webhook
    replicator connect ceph:my-bucket "https://replicator.example.org/events?token=$TOKEN"
    """
    way = way_to(destination)
    side, id = _place(bucket, name, config, options)
    if way is Way.EVENT_BRIDGE and side.prefix:
        click.echo(f"replicator: EventBridge is told of all keys: have its rule match {side.prefix}", err=True)
    from replicator.aws.notifications import connect as connect_bucket  # boto3: only where it is used

    clients = _clients(side)
    with closing(_s3(side, clients)) as client:
        lines = connect_bucket(
            client,
            side.bucket,
            destination,
            prefix=side.prefix,
            id=id,
            persistent=persistent,
            dry_run=dry_run,
            clients=clients,
        )
    _print(lines, dry_run=dry_run)
    return 0


@click.command()
@click.argument("bucket")
@click.argument("destination", required=False, metavar="[EVENTBRIDGE]")
@_id
@_dry_run
@source_options
def disconnect(
    bucket: str, destination: str | None, name: str | None, dry_run: bool, config: str | None, **options: str | None
) -> int:
    """Take out what `connect` put into BUCKET, and nothing else.

    Give the same BUCKET and --id. EventBridge is only switched off where EVENTBRIDGE is given, since others may be told
    by it; then nothing else is changed. The queue, topic or target stays, except a topic that was made for a webhook.
    """
    if destination is not None and way_to(destination) is not Way.EVENT_BRIDGE:
        raise ConfigurationError("disconnect takes no destination but EVENTBRIDGE: --id names what is to be removed")
    side, id = _place(bucket, name, config, options)
    from replicator.aws.notifications import disconnect as disconnect_bucket

    clients = _clients(side)
    with closing(_s3(side, clients)) as client:
        lines = disconnect_bucket(
            client, side.bucket, id=id, event_bridge=destination is not None, dry_run=dry_run, clients=clients
        )
    _print(lines, dry_run=dry_run)
    return 0


def _place(location: str, name: str | None, config: str | None, options: dict[str, str | None]) -> tuple[Side, str]:
    """The bucket that is meant, and the Id of our entry. Raises ConfigurationError."""
    check_endpoints("source", (location,), options)
    overrides = {option.upper(): value for option, value in options.items() if value is not None}
    side = read_side(
        "source", location, {**os.environ, **overrides}, load_config(config, os.environ), variable="BUCKET"
    )
    if name is None:
        return side, default_id(side.bucket, side.prefix)
    id = name if name.startswith(_OURS) else _OURS + name  # so that nobody else's is ever replaced or removed
    if not (id.isascii() and id.isprintable() and " " not in id and len(id) <= _LONGEST):
        most = _LONGEST - len(_OURS)
        raise ConfigurationError(f"--id {name!r}: must be at most {most} characters of ASCII without blanks")
    return side, id


def _clients(side: Side) -> Clients:
    from replicator.aws.clients import Clients
    from replicator.s3.credentials import keys_for

    keys = keys_for(side).current()
    return Clients(
        access_key_id=keys.access_key_id,
        secret_access_key=keys.secret_access_key,
        session_token=keys.session_token,
        ca_bundle=side.ca_bundle,
    )


def _s3(side: Side, clients: Clients) -> S3Client:
    from replicator.s3.opening import endpoint_of

    endpoint = endpoint_of(side)
    # At AWS, boto3 finds the bucket's region by itself, unless it is given an address.
    return clients.s3(side.endpoint, endpoint.region, virtual=endpoint.virtual_hosts)


def _print(lines: list[str], *, dry_run: bool) -> None:
    for line in lines or ["nothing to do"]:
        click.echo(printable(f"would change: {line}" if lines and dry_run else line))
