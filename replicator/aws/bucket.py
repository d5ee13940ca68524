"""One bucket's notification configuration at its store: read, write, and Ceph's removal of a single Id."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from botocore.exceptions import BotoCoreError, ClientError

from replicator.errors import ConfigurationError, Rejected, ReplicatorError, Transient, Unreachable
from replicator.notifications import Configuration, unknown_elements

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_GET = "GetBucketNotificationConfiguration"
_PUT = "PutBucketNotificationConfiguration"

_LONGEST = 300
"""Characters of what boto3 says that are shown."""

_CEPH = re.compile(r"tx[0-9a-f]{21}-[0-9a-f]{10}-[0-9a-f]+-.+")
"""The request ids of Ceph RGW: counter, time, instance and zone. Swift's look alike, but end after the time."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a bucket tells. is_ceph: whether Ceph RGW answered. lossy: elements that would be lost if written back."""

    configuration: Configuration
    is_ceph: bool = False
    lossy: tuple[str, ...] = ()


class BotoNotifications:
    """The notification configuration of one bucket. Errors are of replicator.errors, in the store's own words."""

    def __init__(self, client: S3Client, bucket: str) -> None:
        self._client = client
        self.bucket = bucket

    @property
    def endpoint(self) -> str:
        """The URL of the store."""
        return str(self._client.meta.endpoint_url)

    @property
    def region(self) -> str:
        """The region that requests are signed for."""
        return str(self._client.meta.region_name)

    def read(self) -> Found:
        """What is there now, or was a little while ago: S3 may show an older one after a write."""
        documents: list[bytes] = []

        def keep(response_dict: Mapping[str, Any], **_: object) -> None:
            documents.append(bytes(response_dict["body"]))

        with translated(_GET, self.bucket), self._hooked(f"before-parse.s3.{_GET}", keep):
            answer = self._client.get_bucket_notification_configuration(Bucket=self.bucket)
        request = answer["ResponseMetadata"]["HTTPHeaders"].get("x-amz-request-id", "")
        lossy = unknown_elements(documents[-1]) if documents else ()
        return Found(Configuration.from_answer(answer), _CEPH.fullmatch(request) is not None, tuple(lossy))

    def write(self, configuration: Configuration, *, validate: bool = True) -> None:
        """Writes all of it. validate: AWS tries all destinations, those of others too, and writes nothing if one fails.

        Ceph RGW does not replace what is there, but adds to it, entry by entry. Raises Rejected.
        """
        request: Any = configuration.as_request()
        with translated(_PUT, self.bucket):
            self._client.put_bucket_notification_configuration(
                Bucket=self.bucket, NotificationConfiguration=request, SkipDestinationValidation=not validate
            )

    def remove(self, id: str) -> None:
        """Removes one Id by DELETE ?notification=ID, which only Ceph RGW has. Idempotent.

        Never to be sent to another store: it might take that for the deletion of the bucket.
        """

        def delete(params: dict[str, Any], **_: object) -> None:
            params["method"] = "DELETE"
            params["url"] += f"={quote(id, safe='')}"

        with translated("DeleteBucketNotification", self.bucket), self._hooked(f"before-call.s3.{_GET}", delete):
            self._client.get_bucket_notification_configuration(Bucket=self.bucket)

    @contextmanager
    def _hooked(self, event: str, handler: Any) -> Iterator[None]:  # noqa: ANN401 - botocore's handlers have no type
        """botocore calls the handler at its event within the block."""
        self._client.meta.events.register(event, handler)
        try:
            yield
        finally:
            self._client.meta.events.unregister(event, handler)


@contextmanager
def translated(operation: str, target: str) -> Iterator[None]:
    """Errors of boto3 within the block become those of replicator.errors."""
    try:
        yield
    except ClientError as error:
        raise _meaning(error, operation, target) from error
    except BotoCoreError as error:
        words = " ".join(str(error).split())  # some tell in several lines, and show the whole answer
        raise Unreachable(f"{operation} {target}: {words[:_LONGEST]}") from error


def _meaning(error: ClientError, operation: str, target: str) -> ReplicatorError:
    # Ceph RGW answers SNS's requests with an error that boto3 finds no Error in.
    said: Mapping[str, Any] = error.response.get("Error") or error.response
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code = str(said.get("Code") or f"HTTP {status}")
    words = str(said.get("Message") or f"refused (HTTP {status})")
    about = [str(said[name]) for name in sorted(said) if name.startswith("ArgumentValue")]
    detail = f"{words} ({', '.join(about)})" if about else words
    if code == "NoSuchBucket":
        return ConfigurationError(f"{target}: there is no such bucket")
    if status in (401, 403):
        return ConfigurationError(f"{operation} {target}: {code}: {detail}: are the keys right, and may they do that?")
    if status in (405, 501):
        return ConfigurationError(f"{operation} {target}: {code}: the store has no such notifications")
    return (Transient if status >= 500 else Rejected)(operation, target, detail, code=code)
