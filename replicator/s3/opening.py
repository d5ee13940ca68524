"""Opens the stores that settings name, and checks that they can be used before anything is done."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from replicator.errors import AccessDenied, ConfigurationError, NoSuchBucket, StoreError, Transient, Unreachable
from replicator.s3.client import Endpoint, Retry, S3Client
from replicator.s3.credentials import ChainKeys, keys_for
from replicator.s3.pace import Limits
from replicator.s3.store import S3Store
from replicator.settings import Settings, Work
from replicator.sides import Side, names_of

PREFLIGHT = Retry(attempts=3)
"""A wrong address should be reported within a second or two."""


def endpoint_of(side: Side) -> Endpoint:
    """AWS's endpoint of the region, or the one that was given.

    Buckets go into the host name at AWS (except those with a dot, which its certificate does not cover), and into
    the path elsewhere, unless the settings say otherwise.
    """
    region = side.region or "us-east-1"
    suffix = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    url = side.endpoint or f"https://s3.{region}.{suffix}"
    virtual = ".amazonaws.com" in url and "." not in side.bucket
    return Endpoint(url, region, virtual if side.addressing == "auto" else side.addressing == "virtual")


@asynccontextmanager
async def open_store(
    side: Side,
    *,
    concurrency: int,
    name: str = "",
    retry: Retry | None = None,
    limits: Limits | None = None,
    read_secret: Callable[[str], str] | None = None,
) -> AsyncIterator[S3Store]:
    """The store of one side, called so or by its location; its connections are closed at the end.

    Raises ConfigurationError.
    """
    keys = keys_for(side, read_secret=read_secret)
    endpoint = endpoint_of(side)
    client = S3Client(
        endpoint,
        side.bucket,
        keys.current,
        refresh=keys.refresh if isinstance(keys, ChainKeys) else None,
        concurrency=concurrency,
        retry=retry,
        pace=limits.at(endpoint.url) if limits is not None else None,
        tls=_tls(side) if endpoint.url.startswith("https") else None,
    )
    async with client:
        yield S3Store(client, side.prefix, name=name, storage_classes=side.storage_classes)


@asynccontextmanager
async def open_stores(
    settings: Settings, *, limits: Limits | None = None, read_secret: Callable[[str], str] | None = None
) -> AsyncIterator[tuple[S3Store, list[S3Store]]]:
    """Source and targets. limits: what their endpoints may be asked. read_secret: gives the text of a secret by its id.

    Raises ConfigurationError.
    """
    concurrency = 2 * settings.concurrency
    async with (
        open_store(settings.source, concurrency=concurrency, limits=limits, read_secret=read_secret) as source,
        open_targets(settings, limits=limits, read_secret=read_secret) as targets,
    ):
        yield source, targets


@asynccontextmanager
async def open_targets(
    work: Work, *, limits: Limits | None = None, read_secret: Callable[[str], str] | None = None
) -> AsyncIterator[list[S3Store]]:
    """The targets alone."""
    concurrency = 2 * work.concurrency
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                open_store(side, name=name, concurrency=concurrency, limits=limits, read_secret=read_secret)
            )
            for side, name in zip(work.targets, names_of(work.targets), strict=True)
        ]


async def check_sides(sides: Sequence[Side]) -> None:
    """Proves that all of them can be reached and listed. Raises ConfigurationError; Unreachable may pass."""
    for side in sides:
        await check(side)


async def check(side: Side) -> None:
    """Proves that a side can be reached and listed with its keys; says which setting is wrong otherwise."""
    upper = side.variables
    async with open_store(side, concurrency=1, retry=PREFLIGHT) as store:
        try:
            await store.check()
        except AccessDenied as error:
            raise ConfigurationError(
                f"{side.role} {side.location}: access denied ({error.code}): check {upper}_ACCESS_KEY_ID and "
                f"{upper}_SECRET_ACCESS_KEY or {upper}_PROFILE, and that they may list the bucket"
            ) from error
        except NoSuchBucket as error:
            raise ConfigurationError(
                f"{side.role} {side.location}: no such bucket at {store.client.endpoint.url}: check "
                f"{_bucket_of(side)} and {_address_of(side)}"
            ) from error
        except Transient as error:
            raise Unreachable(f"{side.role} {side.location}: {error.detail}: check {_address_of(side)}") from error
        except StoreError as error:
            hint = "AWS_CA_BUNDLE" if "certificate" in error.detail else f"{_address_of(side)} and {_bucket_of(side)}"
            raise ConfigurationError(f"{side.role} {side.location}: {error}: check {hint}") from error


def _bucket_of(side: Side) -> str:
    """What said the bucket, for messages."""
    return side.setting or f"{side.role.upper()}_BUCKET"


def _address_of(side: Side) -> str:
    """What may say the endpoint, for messages."""
    variable = f"{side.variables}_ENDPOINT"
    is_named = side.variables != side.role.upper()
    return f"{variable} or the endpoint's url in replicator.toml" if is_named else variable


def _tls(side: Side) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=side.ca_bundle)
    except OSError as error:
        raise ConfigurationError(f"AWS_CA_BUNDLE={side.ca_bundle}: {error}") from error
