"""Which queues a text means, and those that belong to them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

from replicator.errors import ConfigurationError, QueueError, Unreachable
from replicator.queues.database import QueueFile
from replicator.queues.local import CHANGES, DEAD_LETTERS, HELD, RECEIVES, VISIBILITY, WORK, LocalQueue
from replicator.queues.queue import Queue
from replicator.queues.sqs import SqsQueue

DEAD_LETTERS_URL = "DEAD_LETTERS_URL"
HOLD_QUEUE_URL = "HOLD_QUEUE_URL"
WORK_QUEUE_URL = "WORK_QUEUE_URL"

_FORMS = "give the URL or ARN of a queue of SQS, or the path of a file, as ./queue.db"
_FIFO = ".fifo"
_NAME = re.compile(rf"[A-Za-z0-9_-]{{1,80}}(?:{re.escape(_FIFO)})?")
_ARN = re.compile(rf"arn:aws[a-z-]*:sqs:[a-z0-9-]+:[0-9]{{12}}:{_NAME.pattern}")
_ENDPOINTS = ("AWS_ENDPOINT_URL_SQS", "AWS_ENDPOINT_URL")


@dataclass(frozen=True)
class Queues:
    """The queue of changes, and those that belong to it, where there are such.

    dead_letters: failed messages. held: deletes that were held back. work: work items, so that changes need not wait
    behind them; None: they are among the changes.
    """

    changes: Queue
    dead_letters: Queue | None = None
    held: Queue | None = None
    file: QueueFile | None = field(default=None, repr=False)
    work: Queue | None = None

    @property
    def items(self) -> Queue:
        """Where work items are sent."""
        return self.work or self.changes

    @property
    def served(self) -> tuple[Queue, ...]:
        """Those that workers take messages off."""
        return (self.changes,) if self.work is None else (self.changes, self.work)

    def close(self) -> None:
        """Ends the use of a file; its queues raise QueueError from then on. Idempotent."""
        if self.file is not None:
            self.file.close()


def open_queues(
    text: str, environment: Mapping[str, str], *, visibility: float = VISIBILITY, create: bool = True
) -> Queues:
    """The queues that a text means: the URL or ARN of a queue of SQS, or anything else, which is the path of a file.

    environment: DEAD_LETTERS_URL, HOLD_QUEUE_URL and WORK_QUEUE_URL name the other queues of SQS. Without the first,
    SQS is asked where it moves messages to. visibility: seconds, for a file; a queue of SQS has its own. create: makes
    the file. Raises ConfigurationError, and Unreachable when SQS would have to be asked and does not answer.
    """
    text = text.strip()
    if _is_sqs(text, "the queue"):
        return _of_sqs(text, environment)
    if not text or ("/" not in text and "." not in text):
        raise ConfigurationError(f"the queue {text!r} is neither URL nor ARN nor path: {_FORMS}")
    file = QueueFile(Path(text).expanduser(), create=create)
    return Queues(
        changes=LocalQueue(file, CHANGES, visibility=visibility, receives=RECEIVES),
        dead_letters=LocalQueue(file, DEAD_LETTERS, visibility=visibility),
        held=LocalQueue(file, HELD, visibility=visibility),
        file=file,
        work=LocalQueue(file, WORK, visibility=visibility, receives=RECEIVES),
    )


def _of_sqs(text: str, environment: Mapping[str, str]) -> Queues:
    changes = _sqs(text, environment)
    held = _named(HOLD_QUEUE_URL, environment, {text})
    work = _named(WORK_QUEUE_URL, environment, {text, held.name if held else ""})
    others = {one.name for one in (held, work) if one is not None}
    dead_letters = _named(DEAD_LETTERS_URL, environment, {text, *others})
    if dead_letters is None:
        try:
            dead_letters = changes.dead_letters()
        except QueueError as error:
            raise unusable(error) from error
    return Queues(changes, dead_letters, held, work=work)


def _named(variable: str, environment: Mapping[str, str], others: set[str]) -> SqsQueue | None:
    text = environment.get(variable, "").strip()
    if not text:
        return None
    if not _is_sqs(text, variable):
        raise ConfigurationError(f"{variable}: {text!r} is no queue of SQS: give its URL or ARN")
    if text in others:
        raise ConfigurationError(f"{variable}: {text} has another use already: give another queue")
    return _sqs(text, environment)


def _sqs(text: str, environment: Mapping[str, str]) -> SqsQueue:
    """A queue of another service than AWS is asked where its URL says, as boto3 would ask AWS."""
    elsewhere = "://" in text and "amazonaws.com" not in text and not any(environment.get(name) for name in _ENDPOINTS)
    parts = urlsplit(text)
    return SqsQueue(text, endpoint=f"{parts.scheme}://{parts.netloc}" if elsewhere else None)


def _is_sqs(text: str, what: str) -> bool:
    """Whether it names a queue of SQS. Raises ConfigurationError for what is neither that nor a path."""
    if text.startswith("arn:"):
        good = _ARN.fullmatch(text) is not None
    elif "://" in text:
        good = _is_queue_url(text)
    else:
        return False
    if not good:
        raise ConfigurationError(f"{what}: this URL or ARN is no queue's: {_FORMS}")
    if text.endswith(_FIFO):
        raise ConfigurationError(f"{what}: {text} is a FIFO queue, which no bucket can notify: give a standard queue")
    return True


def _is_queue_url(text: str) -> bool:
    """https://HOST/ACCOUNT/NAME; other services than AWS have other words for the account. Nothing secret in it."""
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    if parts.scheme not in ("http", "https") or not host or "@" in parts.netloc or parts.query or parts.fragment:
        return False
    *account, name = parts.path.strip("/").split("/")
    if host.endswith(("amazonaws.com", "amazonaws.com.cn")):
        of_sqs = "sqs" in host or "queue" in host.split(".")
        return of_sqs and len(account) == 1 and account[0].isdecimal() and _NAME.fullmatch(name) is not None
    return bool(account) and all(account) and _NAME.fullmatch(name) is not None


def unusable(error: QueueError) -> ConfigurationError:
    """What a queue of SQS said when it was opened: Unreachable if that may pass."""
    from botocore.exceptions import ClientError, HTTPClientError
    from botocore.exceptions import ConnectionError as NoConnection

    cause = error.__cause__
    if isinstance(cause, HTTPClientError | NoConnection):
        return Unreachable(str(error))
    if not isinstance(cause, ClientError):
        return ConfigurationError(str(error))
    if cause.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return Unreachable(str(error))
    denied = "AccessDenied" in cause.response.get("Error", {}).get("Code", "")
    hint = f": allow sqs:GetQueueAttributes, or set {DEAD_LETTERS_URL}" if denied else ""
    return ConfigurationError(f"{error}{hint}")
