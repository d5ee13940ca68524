"""Where keys come from: what was given, Secrets Manager, or the AWS chain (profiles, SSO, ECS, IMDS, assumed roles)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from replicator.errors import AccessDenied, ConfigurationError
from replicator.s3.signing import Keys
from replicator.sides import Side

if TYPE_CHECKING:
    from botocore.credentials import Credentials


class StaticKeys:
    """Keys that never change."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def current(self) -> Keys:
        """The keys of the moment; does not block."""
        return self._keys


class ChainKeys:
    """Keys from botocore's chain; fetched anew, in a thread, before they expire."""

    def __init__(self, side: Side) -> None:
        import botocore.session
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            credentials = botocore.session.Session(profile=side.profile).get_credentials()
            keys = _frozen(credentials) if credentials is not None else None
        except (BotoCoreError, ClientError) as error:
            raise ConfigurationError(f"{side.role}: {error}") from error
        if credentials is None or keys is None:
            upper = side.variables
            raise ConfigurationError(
                f"{side.role}: no credentials found: set {upper}_ACCESS_KEY_ID and {upper}_SECRET_ACCESS_KEY, "
                f"{upper}_PROFILE, or what the AWS CLI would use"
            )
        self._side = side
        self._credentials: Credentials = credentials
        self._keys = keys

    def current(self) -> Keys:
        """The keys of the moment; does not block."""
        return self._keys

    async def refresh(self) -> None:
        """Fetches new keys when the ones at hand are about to expire. Raises AccessDenied when there are none."""
        needed = getattr(self._credentials, "refresh_needed", None)
        if needed is None or not needed():
            return
        try:
            self._keys = await asyncio.to_thread(_frozen, self._credentials)
        except Exception as error:  # botocore raises whatever its providers raise
            raise AccessDenied("refresh of the credentials", self._side.location, str(error)) from error


def _frozen(credentials: Credentials) -> Keys:
    frozen = credentials.get_frozen_credentials()
    return Keys(frozen.access_key or "", frozen.secret_key or "", frozen.token)


KeySource = StaticKeys | ChainKeys


def keys_for(side: Side, *, read_secret: Callable[[str], str] | None = None) -> KeySource:
    """Where a side's keys come from.

    read_secret: gives the text of a secret by its id; boto3's Secrets Manager unless given. Raises
    ConfigurationError when there are no keys to be had.
    """
    if side.secret_id is not None:
        try:
            text = (read_secret or _secrets_manager)(side.secret_id)
        except ConfigurationError as error:
            raise ConfigurationError(f"{side.variables}_SECRET_ID={side.secret_id}: {error}") from error
        return StaticKeys(_parse_secret(side, text))
    if side.access_key_id is not None and side.secret_access_key is not None:
        return StaticKeys(Keys(side.access_key_id, side.secret_access_key, side.session_token))
    return ChainKeys(side)


def _secrets_manager(secret_id: str) -> str:
    import boto3  # only where a secret is named
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        answer = boto3.client("secretsmanager").get_secret_value(SecretId=secret_id)
    except (BotoCoreError, ClientError) as error:
        raise ConfigurationError(str(error)) from error
    return str(answer.get("SecretString", ""))


def _parse_secret(side: Side, text: str) -> Keys:
    """Keys from {"access_key_id": ..., "secret_access_key": ..., "session_token": optional}, in either case."""
    try:
        fields = {str(name).lower(): value for name, value in json.loads(text).items()}
        names = ("access_key_id", "secret_access_key", "session_token")
        values = [fields[name] for name in names if fields.get(name) is not None]
        if len(values) < 2 or not all(isinstance(value, str) and value for value in values):
            raise ValueError
        return Keys(*values)
    except (ValueError, AttributeError, KeyError):
        raise ConfigurationError(
            f"{side.variables}_SECRET_ID={side.secret_id}: expected a JSON object with access_key_id and "
            "secret_access_key"
        ) from None
