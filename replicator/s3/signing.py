"""Signatures (SigV4) by awscrt, and what the payload hash says."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from awscrt import auth, http
from awscrt.exceptions import AwsCrtError

EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
UNSIGNED = "UNSIGNED-PAYLOAD"


@dataclass(frozen=True, slots=True)
class Keys:
    """Credentials. Only the access key's name is ever shown."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)


class Signer:
    """Signs requests with the keys it is given at that moment.

    keys: called for every request, so that rotated credentials are used at once; must not block.
    clock: seconds since the epoch; `skew` is added to it once a service has told that ours is off.
    """

    def __init__(self, keys: Callable[[], Keys], region: str, *, clock: Callable[[], float] = time.time) -> None:
        self._keys = keys
        self._region = region
        self._clock = clock
        self._known: Keys | None = None
        self._provider: auth.AwsCredentialsProvider | None = None
        self._configs: dict[tuple[int, str], auth.AwsSigningConfig] = {}
        self.skew = 0.0

    def sign(
        self, method: str, target: str, headers: list[tuple[str, str]], payload_sha256: str
    ) -> list[tuple[str, str]]:
        """The headers to send: those given (host among them) and the signature's own. Raises ValueError."""
        config = self._config(payload_sha256)
        try:
            signed = http.HttpHeaders(headers)
            request = http.HttpRequest(method, target, signed)
            auth.aws_sign_request(request, config).result()
        except (TypeError, UnicodeError, AwsCrtError) as error:
            raise ValueError("a header of the object cannot be signed: it is no UTF-8, or not allowed") from error
        return list(signed)

    def _config(self, payload_sha256: str) -> auth.AwsSigningConfig:
        keys = self._keys()
        if keys != self._known:
            self._known = keys
            self._provider = auth.AwsCredentialsProvider.new_static(
                keys.access_key_id, keys.secret_access_key, keys.session_token
            )
            self._configs.clear()
        now = self._clock() + self.skew
        which = (int(now), payload_sha256)
        config = self._configs.get(which)
        if config is None:
            config = auth.AwsSigningConfig(
                algorithm=auth.AwsSigningAlgorithm.V4,
                signature_type=auth.AwsSignatureType.HTTP_REQUEST_HEADERS,
                credentials_provider=self._provider,
                region=self._region,
                service="s3",
                date=datetime.fromtimestamp(now, UTC),
                use_double_uri_encode=False,
                should_normalize_uri_path=False,
                signed_body_value=payload_sha256,
                signed_body_header_type=auth.AwsSignedBodyHeaderType.X_AMZ_CONTENT_SHA_256,
            )
            if payload_sha256 in (EMPTY_SHA256, UNSIGNED):
                if len(self._configs) > 8:
                    self._configs.clear()
                self._configs[which] = config
        return config
