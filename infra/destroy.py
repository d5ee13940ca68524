"""`make destroy`: takes the bucket's notifications off, waits until nothing is left to do, deletes the stack.

Buckets stay, but for the one with the Lambda's code, if it was made by `make deploy` and nothing else is in it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import boto3
import click
from botocore.exceptions import ClientError

from infra import artifacts
from infra.account import Found, look_at_source
from infra.deploy import Say
from infra.settings import stack_name
from infra.speaking import exit_code
from infra.stack import Stack
from replicator.aws.notifications import disconnect
from replicator.errors import ConfigurationError, Refused

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

LOOK_SECONDS = 20.0
QUIET_LOOKS = 4
"""SQS counts roughly: a queue is empty when it has said so for a minute."""

COUNTED = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible", "ApproximateNumberOfMessagesDelayed")


@dataclass(frozen=True, slots=True)
class Queues:
    """The queues of a stack. sleep: takes seconds."""

    client: SQSClient
    name: str
    sleep: Callable[[float], None] = field(default=time.sleep)

    def left(self, suffix: str = "") -> int:
        """Messages that wait, are being handled or are put off; none in a queue that is not there."""
        try:
            url = self.client.get_queue_url(QueueName=self.name + suffix)["QueueUrl"]
            answer = self.client.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
        except ClientError as error:
            if "NonExistentQueue" in error.response["Error"]["Code"]:
                return 0
            raise
        counts: dict[str, str] = dict(answer["Attributes"])  # type: ignore[arg-type]
        return sum(int(counts.get(name, "0")) for name in COUNTED)

    def to_do(self) -> int:
        """Changes and work items."""
        return self.left() + self.left("-work")

    def drained(self, seconds: float) -> bool:
        """Waits until all changes and work items are done; False if not after so many seconds. 0: looks once."""
        if seconds <= 0:
            return self.to_do() == 0
        quiet, waited = 0, 0.0
        while (quiet := quiet + 1 if self.to_do() == 0 else 0) < QUIET_LOOKS:
            if waited >= seconds:
                return False
            self.sleep(LOOK_SECONDS)
            waited += LOOK_SECONDS
        return True


@click.command()
@click.option("--dry-run", is_flag=True, envvar="DRY_RUN", help="Show what would be removed, change nothing.")
@click.option("--force", is_flag=True, envvar="FORCE", help="Throw away what still waits in the queues.")
@click.option("--wait", type=float, envvar="WAIT", default=900.0, help="Seconds to wait for the last changes.")
def destroy(*, dry_run: bool, force: bool, wait: float) -> None:
    """Removes the stack of a source bucket (SOURCE_BUCKET), and its notifications; never a bucket of yours."""
    bucket = os.environ.get("SOURCE_BUCKET", "").strip()
    if not bucket:
        raise ConfigurationError("SOURCE_BUCKET is not set: whose stack is to be removed?")
    session = boto3.Session(region_name=os.environ.get("AWS_REGION"))
    run_destruction(bucket, session, dry=dry_run, force=force, wait=wait, say=click.echo)


def run_destruction(location: str, session: boto3.Session, *, dry: bool, force: bool, wait: float, say: Say) -> None:
    """Safe to repeat, also after a failure. force: what waits in the queues is thrown away.

    Raises Refused if anything waits: for dead letters and held deletes before anything is changed, for changes after
    `wait` seconds without notifications.
    """
    found, bucket = look_at_source(location, session)
    region = found.account.region
    stack = Stack(session.client("cloudformation", region_name=region), stack_name(location))
    there = stack.parameters()
    if there.get("SourceBucket", bucket) != bucket:
        raise ConfigurationError(f"stack {stack.name} mirrors {there['SourceBucket']}, not {bucket}")
    queues = Queues(session.client("sqs", region_name=region), there.get("QueueName", stack.name))
    if not force:
        _refuse_if_somebody_has_to_decide(queues)
    if dry:
        say(f"{stack.name} in {region}: {'would be removed' if stack.status() else 'is not there'} (DRY_RUN)")
        return
    lines = disconnect(session.client("s3", region_name=region), bucket, id=stack.name)
    for line in lines:
        say(f"  {line}")
    if not force and not queues.drained(wait):
        raise Refused(
            f"{queues.to_do()} changes still wait in {queues.name}, and the bucket no longer notifies it: destroy "
            "again to go on waiting, deploy again to connect it, or say FORCE=1 to throw them away"
        )
    _remove(stack, found, session, there.get("ArtifactBucket"), said=bool(lines), say=say)


def _refuse_if_somebody_has_to_decide(queues: Queues) -> None:
    for suffix, what, how in (
        ("-dead", "dead letters", "`replicator failures` lists and `redrive` replays them"),
        ("-hold", "held deletes", "`replicator release` or `discard` them"),
    ):
        if count := queues.left(suffix):
            raise Refused(f"{count} {what} in {queues.name}{suffix}: {how}, or say FORCE=1 to throw them away")


def _remove(
    stack: Stack, found: Found, session: boto3.Session, artifact_bucket: str | None, *, said: bool, say: Say
) -> None:
    existed = stack.status() is not None
    if existed:
        stack.delete()
        say(f"  - stack {stack.name}")
    s3 = session.client("s3", region_name=found.account.region)
    own = artifacts.default_name(found.account)
    bucket = artifact_bucket or own
    lines = []
    if artifacts.exists(s3, bucket, found.account):
        lines = artifacts.forget(s3, bucket, stack.name, with_bucket=bucket == own)
    for line in lines:
        say(f"  {line}")
    if not (existed or lines or said):
        say(f"{stack.name} in {found.account.region}: nothing to remove")


if __name__ == "__main__":
    sys.exit(exit_code(destroy))
