"""Presigned URLs: one request on one object, by anybody who has the URL, until it expires.

The URL is a secret like the keys it is made with. Nothing is asked of the store: neither that the object is there, nor
that the keys may read it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial

from replicator.errors import ConfigurationError
from replicator.s3.client import encode_key
from replicator.s3.credentials import keys_for
from replicator.s3.opening import endpoint_of
from replicator.s3.signing import Keys
from replicator.sides import Side
from replicator.urls import LONGEST, Method, UrlPolicy, UrlRefused, content_disposition, parse_request

logger = logging.getLogger(__name__)

KEYS_LAST = 300.0
"""Seconds for which keys are taken to be good: botocore's chain hands out none that expires much sooner."""


class Presigner:
    """Presigns URLs of one side, for as long as a process lives: its keys are fetched anew every five minutes.

    read_secret: gives the text of a secret by its id. clock: seconds. Raises ConfigurationError when there are no keys.
    """

    def __init__(
        self,
        side: Side,
        *,
        read_secret: Callable[[str], str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._side = side
        self._fetch = partial(keys_for, side, read_secret=read_secret)
        self._clock = clock
        self._keys = self._fetch().current()
        self._fetched = clock()

    def presign(self, key: str, *, method: Method, expires: int, download_as: str | None = None) -> str:
        """A URL that gets or puts one object for `expires` seconds, 7 days at the most. Raises ConfigurationError.

        key: below the side's prefix; goes into the path byte for byte, "./", "../" and "//" included, which browsers
        and curl (without --path-as-is) tidy up before they ask: such a URL is for programs that leave a path alone.
        download_as: the name under which a browser saves the object; only for get.

        With temporary credentials (of a role, of SSO, of a Lambda) the URL ends when they do, however long it was to
        last. Blocks while keys are fetched: call it in a thread where that matters.
        """
        if not 1 <= expires <= LONGEST:
            raise ConfigurationError(f"a URL cannot be valid for {expires} seconds: from 1s to 7d is what S3 takes")
        if download_as is not None and method != "get":
            raise ConfigurationError("download-as: is only for get: a name for what is uploaded is part of its key")
        query = {} if download_as is None else {"response-content-disposition": content_disposition(download_as)}
        return _signed(self._url(key), method, expires, query, self._fresh_keys(), endpoint_of(self._side).region)

    def answer(self, body: bytes, policy: UrlPolicy) -> tuple[int, dict[str, object]]:
        """The HTTP status and the JSON that a request for a URL is answered with; {"error": ...} without a URL."""
        try:
            wanted = parse_request(body, policy)
            url = self.presign(wanted.key, method=wanted.method, expires=wanted.expires, download_as=wanted.download_as)
        except UrlRefused as error:
            return error.status, {"error": str(error)}
        except ConfigurationError as error:  # of the keys: all else has been checked
            logger.warning("no URL can be signed: %s", error)
            return 503, {"error": "the keys to sign with are not to be had at the moment: try again later"}
        return 200, {"url": url, "method": wanted.method, "expires": wanted.expires}

    def _url(self, key: str) -> str:
        side, endpoint = self._side, endpoint_of(self._side)
        if not key:
            raise ConfigurationError(f"{side.location}: names no object: give s3://BUCKET/KEY")
        try:
            path = endpoint.path(side.bucket) + encode_key(side.prefix + key)
        except UnicodeEncodeError:
            raise ConfigurationError(f"{side.location}{key!a}: is no UTF-8, as the keys of S3 are") from None
        origin = endpoint.origin(side.bucket)
        return f"{origin.scheme}://{origin.authority}{path}"

    def _fresh_keys(self) -> Keys:
        now = self._clock()
        if now - self._fetched > KEYS_LAST:
            self._keys = self._fetch().current()
            self._fetched = now
        return self._keys


def _signed(url: str, method: Method, expires: int, query: dict[str, str], keys: Keys, region: str) -> str:
    # The signer alone, for a client of botocore's would choose the address itself, by its own rules for buckets.
    from botocore.auth import S3SigV4QueryAuth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    credentials = Credentials(keys.access_key_id, keys.secret_access_key, keys.session_token)
    request = AWSRequest(method=method.upper(), url=url, params=query)
    S3SigV4QueryAuth(credentials, "s3", region, expires=expires).add_auth(request)
    return str(request.url)
