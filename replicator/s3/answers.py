"""Turns a store's refusals into errors that say what may be done about them."""

from __future__ import annotations

from replicator.errors import (
    AccessDenied,
    Archived,
    ChangedMeanwhile,
    Corrupted,
    NoSuchBucket,
    NoSuchKey,
    NoSuchUpload,
    Rejected,
    StoreError,
    Throttled,
    Transient,
    Unsupported,
)
from replicator.s3.connection import Response
from replicator.s3.xml import parse_error

BY_CODE: dict[str, type[StoreError]] = {
    "NoSuchKey": NoSuchKey,
    "NoSuchBucket": NoSuchBucket,
    "NoSuchUpload": NoSuchUpload,
    "NoSuchVersion": ChangedMeanwhile,
    "PreconditionFailed": ChangedMeanwhile,
    "InvalidRange": ChangedMeanwhile,
    "AccessDenied": AccessDenied,
    "InvalidAccessKeyId": AccessDenied,
    "SignatureDoesNotMatch": AccessDenied,
    "ExpiredToken": AccessDenied,
    "InvalidToken": AccessDenied,
    "InvalidObjectState": Archived,
    "BadDigest": Corrupted,
    "XAmzContentSHA256Mismatch": Corrupted,
    "XAmzContentChecksumMismatch": Corrupted,
    "SlowDown": Throttled,
    "TooManyRequests": Throttled,
    "RequestLimitExceeded": Throttled,
    "InternalError": Transient,
    "ServiceUnavailable": Throttled,
    "RequestTimeout": Transient,
    "RequestTimeTooSkewed": Transient,
    "IncompleteBody": Transient,
    "OperationAborted": Transient,
    "ConditionalRequestConflict": Transient,
    "NotImplemented": Unsupported,
    "InvalidStorageClass": Unsupported,
}

BY_STATUS: dict[int, type[StoreError]] = {
    304: ChangedMeanwhile,
    401: AccessDenied,
    403: AccessDenied,
    404: NoSuchKey,
    405: Unsupported,
    408: Transient,
    412: ChangedMeanwhile,
    416: ChangedMeanwhile,
    425: Transient,
    429: Throttled,
    500: Transient,
    501: Unsupported,
    502: Transient,
    503: Throttled,
    504: Transient,
}


def error_of(operation: str, target: str, response: Response) -> StoreError:
    """The error that an unsuccessful answer stands for. The code decides; without one, the status."""
    fields = parse_error(response.document)
    code = fields.get("Code", "")
    kind = BY_CODE.get(code) or BY_STATUS.get(response.status, Rejected)
    if kind is Rejected and "StorageClass" in fields.get("Message", ""):
        kind = Unsupported
    text = fields.get("Message") or f"HTTP {response.status}"
    region = fields.get("Region") or response.headers.get("x-amz-bucket-region")
    if region and (response.status in (301, 307) or code in ("AuthorizationHeaderMalformed", "PermanentRedirect")):
        text = f"the bucket is in region {region}: set the region (--source-region or --target-region) to it"
    return kind(operation, target, " ".join(text.split())[:500], code=code or f"HTTP {response.status}")
