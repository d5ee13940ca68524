"""The token of a webhook, and the ways in which a sender may show it. Pure.

| a sender shows it as             | who does                                                                    |
|----------------------------------|-----------------------------------------------------------------------------|
| `Authorization: Bearer TOKEN`    | MinIO and RustFS, with TOKEN as auth_token; curl                            |
| `Authorization: Basic any:TOKEN` | who is given http://any:TOKEN@host/: SNS (after a 401), RGW (https only)    |
| `Authorization: TOKEN`           | who can set the header and nothing more                                     |
| `?token=TOKEN` in the URL        | RGW: it can send no header of our own                                       |
"""

from __future__ import annotations

import hmac
from base64 import b64decode
from collections.abc import Iterable, Iterator

from replicator.errors import ConfigurationError

SHORTEST_TOKEN = 16


class WebhookToken:
    """What a sender has to know. setting: what the token is called where it is set.

    Raises ConfigurationError, which does not show it, for a token that is short or has other than printable ASCII.
    """

    def __init__(self, token: str, setting: str) -> None:
        if len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
            raise ConfigurationError(
                f"{setting}: must be at least {SHORTEST_TOKEN} characters of ASCII without blanks:"
                " who knows it may say what has changed"
            )
        self._token = token.encode()

    def shown(self, authorizations: Iterable[str], queries: Iterable[str]) -> bool:
        """Whether one of the Authorization headers or of the values of ?token= shows it. Compares in constant time."""
        given = [*_in_headers(authorizations), *_in_queries(queries)]
        return any(hmac.compare_digest(one.encode(errors="backslashreplace"), self._token) for one in given)


def _in_headers(authorizations: Iterable[str]) -> Iterator[str]:
    for header in authorizations:
        scheme, blank, value = header.strip().partition(" ")
        if not blank:
            yield scheme
        elif scheme.lower() == "bearer":
            yield value.strip()
        elif scheme.lower() == "basic":
            yield _password(value.strip())


def _password(basic: str) -> str:
    try:
        return b64decode(basic, validate=True).decode().partition(":")[2]
    except ValueError:
        return ""


def _in_queries(values: Iterable[str]) -> Iterator[str]:
    """A '+' that was not encoded arrives as a blank, and a token has none."""
    return (value.replace(" ", "+") for value in values)
