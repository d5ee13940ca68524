"""Messages of SNS to HTTP endpoints: what is signed, by whom, and whether it is true. Pure.

docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html. The fields that are signed are all that may be
believed of an envelope: whoever has seen one may send it on with more fields in it. Where certificates and
confirmations are to be fetched follows from the topic, whose name a person has set, and never from the message alone.

`cryptography` is imported where it is needed: nobody else has to wait for it.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import TYPE_CHECKING

from replicator.errors import ConfigurationError, PoisonMessage, ReplicatorError

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

TOO_OLD = 75 * 60
"""Seconds. SNS tries an endpoint for an hour at most (sns-message-delivery-retries in its guide), and clocks differ."""

TOO_YOUNG = 15 * 60

_ARN = re.compile(r"arn:(aws|aws-cn|aws-us-gov|aws-eusc):sns:([a-z0-9-]{1,40}):\d{12}:[A-Za-z0-9_-]{1,256}", re.ASCII)
_DOMAINS = {
    "aws": "amazonaws.com",
    "aws-us-gov": "amazonaws.com",
    "aws-cn": "amazonaws.com.cn",
    "aws-eusc": "amazonaws.eu",
}
# Of newer regions it is sns-signing.REGION.amazonaws.com, of China sns-REGION.amazonaws.com.cn.
_SIGNER = re.compile(r"sns(-signing)?([.-][a-z0-9-]{1,40})?\.amazonaws\.(com|com\.cn|eu)", re.ASCII)
_SMALLEST_KEY = 2048


class NotFromSns(ReplicatorError):
    """An envelope that cannot be believed, or is of a topic that is not taken here. One line."""


class WrongTime(NotFromSns):
    """An envelope that was sent too long ago, or is to come: or the clock of this machine is wrong."""


class BadCertificate(ReplicatorError):
    """What was fetched is no certificate of SNS, or none any more: fetch it again."""


class Kind(Enum):
    """What an envelope is for."""

    NOTIFICATION = "Notification"
    SUBSCRIPTION = "SubscriptionConfirmation"
    UNSUBSCRIPTION = "UnsubscribeConfirmation"


@dataclass(frozen=True, slots=True)
class Envelope:
    """An envelope as it came: nothing in it is true before `check_signature` has returned.

    token, subscribe_url: who has them may confirm a subscription; "" for a notification.
    """

    kind: Kind
    topic: str
    message_id: str
    message: str
    subject: str | None
    timestamp: str
    signature_version: str
    signature: bytes = field(repr=False)
    certificate_url: str
    token: str = field(default="", repr=False)
    subscribe_url: str = field(default="", repr=False)


def parse_topics(text: str, setting: str = "SNS_TOPICS") -> frozenset[str]:
    """The ARNs of topics, with commas or blanks between them. Raises ConfigurationError, which names the setting."""
    topics = frozenset(text.replace(",", " ").split())
    for topic in sorted(topics):
        if not _ARN.fullmatch(topic):
            raise ConfigurationError(
                f"{setting}: {topic[:80]!r} is no topic: must be as arn:aws:sns:eu-central-1:123456789012:changes"
            )
    return topics


def is_envelope(document: Mapping[str, object]) -> bool:
    """Whether it means to be of SNS."""
    return "Type" in document and "Records" not in document


def read_envelope(document: Mapping[str, object]) -> Envelope:
    """The fields that SNS signs, and its signature. Raises PoisonMessage."""
    try:
        kind = Kind(_text(document, "Type"))
    except ValueError:
        raise PoisonMessage("Type is none of those that SNS has") from None
    confirms = kind is not Kind.NOTIFICATION
    try:
        signature = base64.b64decode(_text(document, "Signature"), validate=True)
    except ValueError:
        raise PoisonMessage("Signature is not Base64") from None
    return Envelope(
        kind=kind,
        topic=_text(document, "TopicArn"),
        message_id=_text(document, "MessageId"),
        message=_text(document, "Message"),
        subject=None if confirms or document.get("Subject") is None else _text(document, "Subject"),
        timestamp=_text(document, "Timestamp"),
        signature_version=_text(document, "SignatureVersion"),
        signature=signature,
        certificate_url=_text(document, "SigningCertURL"),
        token=_text(document, "Token") if confirms else "",
        subscribe_url=_text(document, "SubscribeURL") if confirms else "",
    )


def signed_text(envelope: Envelope) -> str:
    """What the signature is of: names and values in the order of the names, a line each."""
    fields: dict[str, str | None] = {
        "Message": envelope.message,
        "MessageId": envelope.message_id,
        "Subject": envelope.subject,
        "SubscribeURL": envelope.subscribe_url or None,
        "Timestamp": envelope.timestamp,
        "Token": envelope.token or None,
        "TopicArn": envelope.topic,
        "Type": envelope.kind.value,
    }
    return "".join(f"{name}\n{value}\n" for name, value in fields.items() if value is not None)


def check_addresses(envelope: Envelope) -> None:
    """The certificate, and the confirmation if it is one, are fetched from SNS in the topic's region.

    Raises NotFromSns.
    """
    found = _ARN.fullmatch(envelope.topic)
    if found is None:
        raise NotFromSns("TopicArn is no topic")
    host = re.escape(f"sns.{found[2]}.{_DOMAINS[found[1]]}")
    if not re.fullmatch(rf"https://{host}/[A-Za-z0-9_-]{{1,200}}\.pem", envelope.certificate_url, re.ASCII):
        raise NotFromSns("SigningCertURL is not of SNS in the region of the topic")
    if envelope.subscribe_url and not re.fullmatch(rf"https://{host}/\?[!-~]{{1,2000}}", envelope.subscribe_url):
        raise NotFromSns("SubscribeURL is not of SNS in the region of the topic")


def check_time(envelope: Envelope, now: float) -> None:
    """It was sent lately. now: seconds since the epoch. Raises NotFromSns, and WrongTime if that may be our clock."""
    try:
        sent = datetime.fromisoformat(envelope.timestamp)
    except ValueError:
        raise NotFromSns("Timestamp is no time") from None
    age = now - (sent if sent.tzinfo else sent.replace(tzinfo=UTC)).timestamp()
    if not -TOO_YOUNG <= age <= TOO_OLD:
        raise WrongTime(f"Timestamp is {age:.0f} seconds ago: must be less than {TOO_OLD}, and not to come")


def read_certificate(pem: bytes) -> Certificate:
    """The certificate of SNS in a file that was fetched from it. Raises BadCertificate.

    That it was fetched from there with HTTPS is what it is trusted for.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.x509.oid import NameOID

    try:
        certificate = x509.load_pem_x509_certificate(pem)
        names = [str(one.value) for one in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        key = certificate.public_key()
    except ValueError as error:
        raise BadCertificate(f"the signing certificate cannot be read: {error}") from None
    if not any(_SIGNER.fullmatch(name) for name in names):
        raise BadCertificate(f"the signing certificate is not of SNS but of {names!a:.80}")
    if not isinstance(key, RSAPublicKey) or key.key_size < _SMALLEST_KEY:
        raise BadCertificate(f"the signing certificate has no RSA key of {_SMALLEST_KEY} bits")
    return certificate


def check_validity(certificate: Certificate, now: float) -> None:
    """It is valid now. now: seconds since the epoch. Raises BadCertificate."""
    if not certificate.not_valid_before_utc.timestamp() <= now <= certificate.not_valid_after_utc.timestamp():
        raise BadCertificate("the signing certificate is not valid at this time")


def check_signature(envelope: Envelope, certificate: Certificate) -> None:
    """What `signed_text` says is what the owner of the certificate has signed. Raises NotFromSns."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding, rsa

    # SHA-1 is what topics sign with unless their owner says otherwise; who could make it collide may publish anyway.
    known = {"1": hashes.SHA1(), "2": hashes.SHA256()}  # noqa: S303
    algorithm = known.get(envelope.signature_version)
    key = certificate.public_key()
    if algorithm is None or not isinstance(key, rsa.RSAPublicKey):
        raise NotFromSns("SignatureVersion is neither 1 nor 2")
    try:
        key.verify(envelope.signature, signed_text(envelope).encode(), padding.PKCS1v15(), algorithm)
    except InvalidSignature:
        raise NotFromSns("Signature is not of this message") from None


def _text(document: Mapping[str, object], name: str) -> str:
    value = document.get(name)
    if not isinstance(value, str) or not value:
        raise PoisonMessage(f"{name} is missing or not text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise PoisonMessage(f"{name} has a lone surrogate, which is no character") from None
    return value
