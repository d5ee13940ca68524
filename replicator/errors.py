"""Every error of the replicator; the class says what the caller may do about it.

ReplicatorError
├── ConfigurationError        wrong usage or settings: tell the user, change nothing        (exit 2)
│   └── Unreachable           an endpoint that may be wrong, or away: whoever can wait tries again
├── Refused                   a brake held back something dangerous; the text says how on   (exit 3)
├── PoisonMessage             a notification that can never be understood: dead-letter it
├── QueueError                a queue did not answer, or refused: what it holds is safe, try again
├── SourceKeepsChanging       retry later: the source changed in every round we looked at it
├── TooLargeForNow            retry with more time: it would be cut off, and has no parts to go on from
└── StoreError                one request on one object of one store
    ├── Transient             retry: 5xx, reset, time-out, truncated body
    │   └── Throttled         retry more slowly: SlowDown, 429
    ├── NoSuchKey             the store says there is no such key; whether its bucket is there is NOT yet known
    ├── NoSuchBucket          abort: absence of a bucket is never absence of its objects
    ├── NoSuchUpload          start the multipart upload again
    ├── AccessDenied          skip and report: 403 is not absence
    ├── ChangedMeanwhile      look again: the object is no longer the one that was asked for (412)
    ├── Corrupted             copy again: bytes or ETags did not prove equal
    ├── Unsupported           the store cannot hold this; go on without it and report the loss
    │   └── Unproven          perhaps it can, but it is not safe to try on this object
    ├── NotAnObject           skip and report: a link or a device in a directory, which no bucket can hold
    ├── Archived              skip and report: must be restored from its storage class first
    ├── UntrustworthyListing  abort the listing: order, repetition or an end that cannot be believed
    └── Rejected              skip and report: any other refusal of this request
"""

from __future__ import annotations


class ReplicatorError(Exception):
    """Base of all errors that are meant for a person or a report."""


class ConfigurationError(ReplicatorError):
    """Wrong usage or settings. The text names the setting and what to write instead."""


class Unreachable(ConfigurationError):
    """Nobody answers where an endpoint should be, or it answers that it cannot now."""


class Refused(ReplicatorError):
    """A brake refused to go on; nothing dangerous was done. The text says what would allow it."""


class PoisonMessage(ReplicatorError):
    """A message that names no key and never will.

    reason: one line, without the message's whole body.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class QueueError(ReplicatorError):
    """A queue did not answer or refused a request. What it holds is safe; what was being sent has to be sent again."""


class SourceKeepsChanging(ReplicatorError):
    """The source was another one after each write to the target. Retry when its writer is slower."""


class TooLargeForNow(ReplicatorError):
    """An object that cannot be copied in the time that is left, nor resumed. A run without a time limit can."""


class StoreError(ReplicatorError):
    """A request to a store failed.

    operation: the S3 name of the request, as "GetObject".
    target: "bucket/key" (or the bucket) it was about.
    detail: the service's own words.
    code: the service's error code, or "HTTP 503" when it gave none.
    """

    def __init__(self, operation: str, target: str, detail: str, *, code: str = "") -> None:
        super().__init__(operation, target, detail)
        self.operation = operation
        self.target = target
        self.detail = detail
        self.code = code

    def __str__(self) -> str:
        reason = f"{self.code}: {self.detail}" if self.code and self.code not in self.detail else self.detail
        return f"{self.operation} {self.target}: {reason}"


class Transient(StoreError):
    """Expected to pass: retry the request (it was retried already by whoever raises this)."""


class Throttled(Transient):
    """The service asks for fewer requests."""


class NoSuchKey(StoreError):
    """404 for a key. On its own this is no proof of absence: see ObjectStore.confirm_absent."""


class NoSuchBucket(StoreError):
    """404 for the bucket."""


class NoSuchUpload(StoreError):
    """The multipart upload is unknown: completed, aborted or expired."""


class AccessDenied(StoreError):
    """401 or 403, bad keys and bad signatures included."""


class ChangedMeanwhile(StoreError):
    """A pinned read or conditional write found another version."""


class Corrupted(StoreError):
    """What arrived is not what was sent or asked for."""


class Unsupported(StoreError):
    """The store does not know this feature or this value of it (501, unknown storage class, tags ...)."""


class Unproven(Unsupported):
    """Whether the store knows a feature could not be found out with this object. Says nothing about the next one."""


class NotAnObject(StoreError):
    """Something is there under this name, and it is neither an object nor absent: a link, a device, a socket."""


class Archived(StoreError):
    """The object lies in an archive class and is not restored."""


class UntrustworthyListing(StoreError):
    """A listing that does not advance, goes backwards, repeats itself or ends without saying so."""


class Rejected(StoreError):
    """Any other 4xx."""
