"""S3 Batch Operations: the invocation of a Lambda in, the answer out. Pure: no network, clock or environment.

A job of AWS goes through a manifest and invokes a function for each object that it lists, with a document of schema
1.0 (the bucket's ARN) or 2.0 (its name, and the arguments of the job). A task is only a hint that a key may not be in
sync, as an event is: the key is converged to what the source has now, so the version that the manifest may name is
read for logs only, and a task that comes twice, or long after, does no harm.
docs.aws.amazon.com/AmazonS3/latest/userguide/batch-ops-invoke-lambda.html

Whatever the invocation, the only exception of parse_invocation is PoisonMessage, with a reason of one line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from urllib.parse import unquote, unquote_plus

from replicator.errors import (
    AccessDenied,
    Archived,
    ConfigurationError,
    NoSuchBucket,
    NotAnObject,
    Rejected,
    Unreachable,
    Unsupported,
    UntrustworthyListing,
)
from replicator.model import Did, Outcome
from replicator.untrusted import kind_of, legal_keys, objects_in, poison, shown, text_at, value_at

SCHEMAS = ("1.0", "2.0")

LONGEST_TEXT = 1024
"""Characters of a result. AWS documents no limit; this is what it allows for a key, a neighbour in the report."""

_FOR_GOOD = (
    AccessDenied,
    Archived,
    ConfigurationError,
    NoSuchBucket,
    NotAnObject,
    Rejected,
    Unsupported,
    UntrustworthyListing,
)
"""Errors after which the same task would fail again, until somebody does something."""

_NOT_DONE = (Did.DIFFERS, Did.SKIPPED, Did.FAILED)


@dataclass(frozen=True, slots=True)
class Task:
    """One object of the manifest.

    candidates: the spellings that its key may have, one or more, without a prefix taken off. Which is meant is not
    known, so each is to be converged. version_id: as the manifest says, None if it does not.
    """

    id: str
    bucket: str
    candidates: tuple[str, ...]
    version_id: str | None = None


@dataclass(frozen=True, slots=True)
class Invocation:
    """What a function is asked to do. arguments: those of the job, which only schema 2.0 has. tasks: one or more."""

    schema: str
    invocation_id: str
    job_id: str
    arguments: Mapping[str, str]
    tasks: tuple[Task, ...]


class ResultCode(Enum):
    """How a task ended, in the words of S3, which gives a TEMPORARY failure to the function again."""

    SUCCEEDED = "Succeeded"
    TEMPORARY = "TemporaryFailure"
    PERMANENT = "PermanentFailure"


@dataclass(frozen=True, slots=True)
class TaskEnd:
    """The end of a task, and the text for the job's report."""

    code: ResultCode
    text: str


def parse_invocation(event: Mapping[str, object]) -> Invocation:
    """Read an invocation of schema 1.0 or 2.0. Raises PoisonMessage, and nothing else."""
    if not isinstance(event, Mapping):
        poison("", f"not an invocation of S3 Batch Operations but {kind_of(event)}")
    schema = text_at(event, "invocationSchemaVersion", "")
    if schema not in SCHEMAS:
        poison("", f"invocationSchemaVersion is {shown(schema)}, not {' or '.join(SCHEMAS)}")
    return Invocation(
        schema=schema,
        invocation_id=text_at(event, "invocationId", ""),
        job_id=text_at(event, "job.id", ""),
        arguments=_arguments(value_at(event, "job.userArguments")),
        tasks=tuple(_task(task, where) for where, task in objects_in(event, "tasks", "", "task")),
    )


def answer(invocation: Invocation, ends: Sequence[TaskEnd]) -> dict[str, object]:
    """The document that S3 expects. ends: one for each task, in their order; raises ValueError if there are others."""
    return {
        "invocationSchemaVersion": invocation.schema,
        "treatMissingKeysAs": ResultCode.TEMPORARY.value,
        "invocationId": invocation.invocation_id,
        "results": [
            {"taskId": task.id, "resultCode": end.code.value, "resultString": _one_line(end.text)}
            for task, end in zip(invocation.tasks, ends, strict=True)
        ],
    }


def end_of(outcomes: Sequence[Outcome], error: str | None = None) -> TaskEnd:
    """How a task ended whose candidates had these outcomes. error: what went wrong beside them, as time that ran out.

    | any outcome or error                                             | end       | text                       |
    |------------------------------------------------------------------|-----------|----------------------------|
    | an error beside them, or a failure that may pass                 | TEMPORARY | every failure, and error   |
    | a failure that will not pass: refused, archived, no such bucket  | PERMANENT | every failure              |
    | none: equal, copied, deleted, kept, held by the brake, begun     | SUCCEEDED | how many of each, and why  |

    A failure of a kind that is not known may pass: to try in vain costs less than to give up what would have worked.
    """
    failed = [outcome for outcome in outcomes if outcome.did in _NOT_DONE]
    if not failed and error is None:
        return TaskEnd(ResultCode.SUCCEEDED, _summary(outcomes))
    words = [f"{outcome.target}: {outcome.reason}" for outcome in failed]
    may_pass = error is not None or any(_may_pass(outcome.failure) for outcome in failed)
    code = ResultCode.TEMPORARY if may_pass else ResultCode.PERMANENT
    return TaskEnd(code, _one_line("; ".join([*words, error] if error is not None else words)))


def _may_pass(failure: Exception | None) -> bool:
    return isinstance(failure, Unreachable) or not isinstance(failure, _FOR_GOOD)


def _summary(outcomes: Sequence[Outcome]) -> str:
    """As "copied 1 (not at the target), in sync 2 (same); not kept: tags"."""
    parts = []
    for did in Did:
        reasons = [outcome.reason for outcome in outcomes if outcome.did is did]
        if reasons:
            why = _listed(reasons)
            parts.append(f"{did.value} {len(reasons)} ({why})" if why else f"{did.value} {len(reasons)}")
    lost = _listed(name for outcome in outcomes for name in outcome.not_kept)
    text = ", ".join(parts) or "nothing to do"
    return _one_line(f"{text}; not kept: {lost}" if lost else text)


def _listed(words: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(word for word in words if word))


def _one_line(text: str) -> str:
    """Printable, for a row of a CSV file. Of a long text the middle goes, where keys stand: the end says why."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    half = LONGEST_TEXT // 2
    return line if len(line) <= LONGEST_TEXT else f"{line[: half - 5]} ... {line[-half:]}"


def _task(task: Mapping[str, object], where: str) -> Task:
    key = text_at(task, "s3Key", where)
    return Task(
        id=text_at(task, "taskId", where),
        bucket=_bucket(task, where),
        candidates=legal_keys(_spellings(key, f"{where}s3Key: "), key, f"{where}s3Key: "),
        version_id=text_at(task, "s3VersionId", where) if task.get("s3VersionId") not in (None, "") else None,
    )


def _spellings(key: str, where: str) -> tuple[str, ...]:
    """Decide which keys of the bucket `key` may mean: the likelier first, no duplicates.

    S3 decodes the manifest and encodes the key again: that it is encoded is documented, not how. AWS's own samples
    decode "%XX" only, or '+' as well; observers see a space of the manifest (%20) arrive as '+'. So '+' is a space
    first, and then itself. Keys are UTF-8: what does not decode to it comes from a manifest that is encoded wrongly,
    and to guess would be to report success for a key that nobody has.
    """
    try:
        return tuple(dict.fromkeys((unquote_plus(key, errors="strict"), unquote(key, errors="strict"))))
    except UnicodeDecodeError:
        return poison(where, f"the key {shown(key)} does not decode to UTF-8")


def _bucket(task: Mapping[str, object], where: str) -> str:
    """The bucket's name: schema 2.0 tells it, 1.0 has "arn:aws:s3:::name", once with region and account."""
    if "s3Bucket" in task:
        return text_at(task, "s3Bucket", where)
    arn = text_at(task, "s3BucketArn", where)
    parts = arn.split(":")
    if len(parts) != 6 or parts[0] != "arn" or parts[2] != "s3" or not parts[5] or "/" in parts[5]:
        poison(where, f"s3BucketArn is {shown(arn)}, not the ARN of a bucket")
    return parts[5]


def _arguments(arguments: object) -> Mapping[str, str]:
    if arguments is None:
        return MappingProxyType({})
    if not isinstance(arguments, Mapping):
        poison("", f"job.userArguments is not an object but {kind_of(arguments)}")
    for name, value in arguments.items():
        if not isinstance(name, str) or not isinstance(value, str):
            poison("", "job.userArguments has a value that is not text")
    return MappingProxyType(dict(arguments))
