"""boto3's clients for what is asked once in a while: the configuration of buckets, queues, topics."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient

_PATIENCE: dict[str, Any] = {
    "connect_timeout": 10,
    "read_timeout": 60,
    "retries": {"mode": "standard", "total_max_attempts": 4},
    # Checksums in trailers are refused by several stores.
    "request_checksum_calculation": "when_required",
    "response_checksum_validation": "when_required",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Clients:
    """Makes clients that use the same keys; without keys, those of boto3's own chain. repr shows no secret.

    ca_bundle: file of certificates to trust. Nothing is asked of anybody when a client is made.
    """

    access_key_id: str | None = None
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    ca_bundle: str | None = None

    def s3(self, endpoint: str | None, region: str, *, virtual: bool) -> S3Client:
        """S3 at an endpoint, None for AWS. virtual: buckets are in host names."""
        style = Config(s3={"addressing_style": "virtual" if virtual else "path"}, **_PATIENCE)
        return boto3.client("s3", endpoint_url=endpoint, region_name=region, config=style, **self._access())

    def sqs(self, url: str, region: str) -> SQSClient:
        """SQS where a queue's URL says it is. region: for URLs that name none."""
        parts = urlsplit(url)
        labels = (parts.hostname or "").split(".")
        at_aws = "amazonaws" in labels
        endpoint = None if at_aws else f"{parts.scheme}://{parts.netloc}"
        named = labels[1] if at_aws and labels[0].startswith("sqs") else region
        config = Config(**_PATIENCE)
        return boto3.client("sqs", endpoint_url=endpoint, region_name=named, config=config, **self._access())

    def topics(self, endpoint: str, region: str) -> Any:  # noqa: ANN401 - SNS's client has no types here
        """The part of SNS that Ceph RGW has at its own endpoint."""
        config = Config(**_PATIENCE)
        return boto3.client("sns", endpoint_url=endpoint, region_name=region, config=config, **self._access())

    def _access(self) -> dict[str, Any]:
        return {
            "aws_access_key_id": self.access_key_id,
            "aws_secret_access_key": self.secret_access_key,
            "aws_session_token": self.session_token,
            "verify": self.ca_bundle,
        }
