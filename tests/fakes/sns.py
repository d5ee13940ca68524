"""SNS as an endpoint meets it: messages that are signed, and what is fetched from it."""

from __future__ import annotations

import asyncio
import base64
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import NameOID

from replicator.web.topics import Topics

NOW = datetime(2025, 3, 14, 9, 30, tzinfo=UTC)
REGION = "eu-central-1"
TOPIC = f"arn:aws:sns:{REGION}:111122223333:bucket-changes"
HOST = f"https://sns.{REGION}.amazonaws.com"
CERTIFICATE = f"{HOST}/SimpleNotificationService-0123456789abcdef.pem"
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
HASHES: dict[str, hashes.SHA1 | hashes.SHA256] = {"1": hashes.SHA1(), "2": hashes.SHA256()}  # noqa: S303


def certificate(
    name: str = "sns.amazonaws.com",
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey = KEY,
    *,
    begins: float = -1,
    ends: float = 1,
) -> bytes:
    """PEM of a certificate; begins, ends: days from NOW."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW + timedelta(days=begins))
        .not_valid_after(NOW + timedelta(days=ends))
        .sign(key, hashes.SHA256())
    )
    return built.public_bytes(serialization.Encoding.PEM)


def message(kind: str = "Notification", version: str = "1", **changes: str | None) -> dict[str, str]:
    """An envelope that is signed; a field that is changed to None is not there. Signs what the guide of SNS says."""
    fields: dict[str, str | None] = {
        "Type": kind,
        "MessageId": "3f1c0f4e-0000-5000-9000-6b2f7a8c9d10",
        "TopicArn": TOPIC,
        "Message": '{"Event":"s3:TestEvent"}',
        "Timestamp": "2025-03-14T09:26:54.321Z",
        "SignatureVersion": version,
        "SigningCertURL": CERTIFICATE,
    }
    names = ["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"]
    if kind != "Notification":
        fields |= {
            "Token": "t0ken",
            "SubscribeURL": f"{HOST}/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=t0ken",
        }
        names = ["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"]
    document = {name: value for name, value in {**fields, **changes}.items() if value is not None}
    text = "".join(f"{name}\n{document[name]}\n" for name in names if name in document)
    signature = KEY.sign(text.encode(), padding.PKCS1v15(), HASHES.get(version, hashes.SHA256()))
    return {**document, "Signature": base64.b64encode(signature).decode()}


class Sns:
    """Plays what is fetched from SNS. answers: bodies, or errors, by address."""

    def __init__(self, **answers: bytes | Exception) -> None:
        self.answers: dict[str, bytes | Exception] = {CERTIFICATE: certificate(), **answers}
        self.asked: list[str] = []
        self.now = NOW.timestamp()

    async def fetch(self, url: str) -> bytes:
        """As replicator.web.fetching.fetch."""
        self.asked.append(url)
        await asyncio.sleep(0)
        answer = self.answers.get(url, b"")
        if isinstance(answer, Exception):
            raise answer
        return answer

    def topics(self, *allowed: str) -> Topics:
        """Topics that ask this SNS, at this time."""
        return Topics(frozenset(allowed or [TOPIC]), fetch=self.fetch, clock=lambda: self.now)
