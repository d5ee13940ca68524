"""What a deployment is to be: variables -> frozen, validated values. Pure.

`make deploy NAME=VALUE ...` gives variables; those that the Lambda itself reads are checked by the code that does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from chalicelib.deployment import CARRIED, carried, queue_name

from replicator.errors import ConfigurationError
from replicator.sides import split_location

MADE_HERE = ("QUEUE_URL", "DEAD_LETTERS_URL", "HOLD_QUEUE_URL", "WORK_QUEUE", "BRAKE_TABLE")
"""What the Lambda reads, and the stack itself knows."""

DAYS_OF_LOGS = (1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653)
TASK_SIZES = {
    "256": (512, 2048),
    "512": (1024, 4096),
    "1024": (2048, 8192),
    "2048": (4096, 16384),
    "4096": (8192, 30720),
    "8192": (16384, 61440),
    "16384": (32768, 122880),
}
"""Units of CPU that Fargate has, and from how many MiB to how many it gives with them."""

_ARN = re.compile(r"arn:aws[a-z-]*:(?P<service>[a-z0-9]+):(?P<region>[a-z0-9-]*):[0-9]*:.+")
_SCHEDULE = re.compile(r"rate\([1-9][0-9]* (minute|hour|day)s?\)|cron\([^()]+\)")
_QUEUE = re.compile(r"[A-Za-z0-9_-]{1,75}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """One source bucket's stack.

    variables: what the Lambda reads. numbers: limits of the template, by parameter. kms_key: for the queues.
    events: "s3" or "eventbridge". image: of the migration's container; None for a stack without it.
    """

    stack: str
    bucket: str
    prefix: str
    queue: str
    variables: Mapping[str, str]
    numbers: Mapping[str, int]
    architecture: str
    events: str
    kms_key: str
    alarm_topic: str
    batch_bucket: str
    artifact_bucket: str
    image: str | None
    task_cpu: str

    @property
    def reconciles(self) -> bool:
        """Whether there is a schedule."""
        return self.variables.get("RECONCILE") != "off"

    @property
    def target(self) -> str:
        """The target's bucket; empty if a replicator.toml says where to."""
        return split_location(self.variables.get("TARGET_BUCKET", ""))[1]

    @property
    def target_is_at_aws(self) -> bool:
        """Whether there is a target without an endpoint of its own."""
        return bool(self.target) and not (self.variables.get("TARGET_ENDPOINT") or self.variables.get("ENDPOINT"))

    @property
    def notification_id(self) -> str:
        """Of our entry in the bucket's notification configuration."""
        return self.stack


def stack_name(location: str) -> str:
    """The stack of a source bucket. CloudFormation takes no dots, and no names of more than 128 characters."""
    return queue_name(split_location(location)[1])


def read(variables: Mapping[str, str]) -> Deployment:
    """Reads the variables that docs/AWS.md lists. Raises ConfigurationError with one line for each that is wrong."""
    given = {name: variables[name].strip() for name in (*CARRIED, *_OWN) if variables.get(name, "").strip()}
    problems = [
        f"{name}: the stack knows it; only plain `chalice deploy` takes it" for name in MADE_HERE if name in given
    ]
    given.setdefault("RECONCILE", "rate(1 day)")
    for_lambda: Mapping[str, str] = {}
    try:
        secrets = {name: variables[name] for name in variables if name.endswith("_SECRET_ACCESS_KEY")}
        secrets.pop("AWS_SECRET_ACCESS_KEY", None)
        for_lambda = carried({**{name: text for name, text in given.items() if name in CARRIED}, **secrets})
    except SystemExit as refused:
        problems += str(refused).splitlines()
    problems += _faults(given)
    numbers = {
        parameter: _number(given, name, default, allowed, problems)
        for parameter, (name, default, allowed) in _NUMBERS.items()
    }
    if problems:
        raise ConfigurationError("\n".join(problems))
    _, bucket, prefix = split_location(for_lambda["SOURCE_BUCKET"])
    return Deployment(
        stack=stack_name(for_lambda["SOURCE_BUCKET"]),
        bucket=bucket,
        prefix=prefix,
        queue=for_lambda["QUEUE"],
        variables=for_lambda,
        numbers=numbers,
        architecture=given.get("ARCHITECTURE", "arm64"),
        events=given.get("EVENTS", "s3"),
        kms_key=given.get("KMS_KEY_ARN", ""),
        alarm_topic=given.get("ALARM_TOPIC_ARN", ""),
        batch_bucket=given.get("BATCH_BUCKET", ""),
        artifact_bucket=given.get("ARTIFACT_BUCKET", ""),
        image=given.get("IMAGE"),
        task_cpu=given.get("TASK_CPU", "2048"),
    )


_NUMBERS: dict[str, tuple[str, int, range]] = {
    "LambdaMemory": ("LAMBDA_MEMORY", 1024, range(512, 10241)),
    "BatchWindow": ("BATCH_WINDOW", 1, range(1, 301)),
    "MaximumConcurrency": ("MAX_CONCURRENCY", 10, range(2, 1001)),
    "WorkConcurrency": ("WORK_CONCURRENCY", 20, range(2, 1001)),
    "LagSeconds": ("LAG_SECONDS", 300, range(1, 86401)),
    "AgeSeconds": ("AGE_SECONDS", 900, range(60, 1209601)),
    "LogDays": ("LOG_DAYS", 30, range(1, 3654)),
    "TaskMemory": ("TASK_MEMORY", 4096, range(512, 122881)),
}
_OWN = (
    *(name for name, _, _ in _NUMBERS.values()),
    *("ARCHITECTURE", "EVENTS", "ALARM_TOPIC_ARN", "BATCH_BUCKET", "ARTIFACT_BUCKET", "IMAGE", "TASK_CPU"),
)
_ARNS = {"ALARM_TOPIC_ARN": "sns", "KMS_KEY_ARN": "kms", "SOURCE_KMS_KEY_ARN": "kms", "TARGET_KMS_KEY_ARN": "kms"}


def _faults(given: Mapping[str, str]) -> list[str]:
    """One line for each variable that the Lambda's own code does not check."""
    faults = []
    choices = {"ARCHITECTURE": ("arm64", "x86_64"), "EVENTS": ("s3", "eventbridge"), "TASK_CPU": tuple(TASK_SIZES)}
    for name, allowed in choices.items():
        if given.get(name, allowed[0]) not in allowed:
            faults.append(f"{name}={given[name]!r}: must be {', '.join(allowed[:-1])} or {allowed[-1]}")
    for name, service in _ARNS.items():
        found = _ARN.fullmatch(given.get(name, ""))
        if name in given and (found is None or found["service"] != service):
            faults.append(f"{name}={given[name]!r}: must be an ARN, arn:aws:{service}:REGION:ACCOUNT:...")
    if given["RECONCILE"] != "off" and not _SCHEDULE.fullmatch(given["RECONCILE"]):
        faults.append(
            f"RECONCILE={given['RECONCILE']!r}: must be off, rate(1 day) or cron(...), as EventBridge has them"
        )
    if not _QUEUE.fullmatch(given.get("QUEUE", "q")):
        faults.append(f"QUEUE={given['QUEUE']!r}: must be letters, digits, '-' and '_', at most 75 of them")
    where = given.get("REPLICATOR_CONFIG", "")
    if where and not re.fullmatch(r"ssm:[A-Za-z0-9_./-]+|s3://[^/]+/.+", where):
        faults.append(f"REPLICATOR_CONFIG={where!r}: must be ssm:NAME or s3://BUCKET/KEY")
    return faults + _faults_of_ends(given) + _faults_of_numbers(given)


def _faults_of_ends(given: Mapping[str, str]) -> list[str]:
    """What is possible elsewhere, but not for a Lambda in the source's account."""
    faults = []
    if given.get("SOURCE_ENDPOINT"):
        faults.append(
            "SOURCE_ENDPOINT: only a bucket at AWS notifies the queue; `replicator serve` mirrors from elsewhere"
        )
    if (given.get("TARGET_ENDPOINT") or given.get("ENDPOINT")) and not given.get("TARGET_SECRET_ID"):
        faults.append(
            "TARGET_ENDPOINT without TARGET_SECRET_ID: the Lambda's own keys would be shown to a foreign endpoint; put "
            "the target's keys into Secrets Manager and give their name"
        )
    return faults


def _faults_of_numbers(given: Mapping[str, str]) -> list[str]:
    faults = []
    days = given.get("LOG_DAYS", "30")
    if days.isdecimal() and int(days) not in DAYS_OF_LOGS:
        faults.append(f"LOG_DAYS={days!r}: must be one of {', '.join(map(str, DAYS_OF_LOGS))}")
    cpu, memory = given.get("TASK_CPU", "2048"), given.get("TASK_MEMORY", "4096")
    if cpu in TASK_SIZES and memory.isdecimal():
        least, most = TASK_SIZES[cpu]
        if not least <= int(memory) <= most:
            faults.append(f"TASK_MEMORY={memory!r}: with TASK_CPU={cpu} it must be {least} to {most}")
    return faults


def _number(given: Mapping[str, str], name: str, default: int, allowed: range, problems: list[str]) -> int:
    text = given.get(name, str(default))
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text) in allowed):
        problems.append(f"{name}={text[:40]!r}: must be a whole number from {allowed.start} to {allowed.stop - 1}")
        return default
    return int(text)
