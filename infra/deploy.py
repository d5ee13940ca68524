"""`make deploy`: checks, packages, shows what will change, changes it, and connects the bucket last.

| step | so that                                                                                        |
|------|------------------------------------------------------------------------------------------------|
| 1    | settings and account are looked at before anything is made                                     |
| 2    | code is packaged and, if its content is new, uploaded                                          |
| 3    | the change set is printed, and a queue that would be replaced is refused                       |
| 4    | the stack follows it                                                                           |
| 5    | the bucket notifies the queue: only now, as there is one that takes its messages               |
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import boto3
import click

from infra import artifacts
from infra.account import Found, look
from infra.package import Package, make_package
from infra.routes import with_routes
from infra.settings import Deployment, read
from infra.speaking import exit_code
from infra.stack import Stack
from infra.template import Account, Template, finished, parameters
from replicator.aws.notifications import connect
from replicator.errors import ConfigurationError, Refused

Say = Callable[[str], None]
Packaging = Callable[[Deployment, Account, Path], Package]


@dataclass(frozen=True, slots=True)
class Run:
    """One deployment in the making. dry: show what would change, and stop."""

    deployment: Deployment
    found: Found
    session: boto3.Session
    stack: Stack
    dry: bool
    say: Say

    @property
    def artifact_bucket(self) -> str:
        return self.deployment.artifact_bucket or artifacts.default_name(self.found.account)


@click.command()
@click.option("--dry-run", is_flag=True, envvar="DRY_RUN", help="Show what would change, change nothing.")
def deploy(*, dry_run: bool) -> None:
    """Makes or updates the stack of a source bucket. Its settings are variables, which docs/AWS.md lists."""
    wanted = read(os.environ)
    session = boto3.Session(region_name=os.environ.get("AWS_REGION"))
    run_deployment(with_routes(wanted, os.environ, session), session, dry=dry_run, say=click.echo)


def run_deployment(
    wanted: Deployment, session: boto3.Session, *, dry: bool, say: Say, packaged: Packaging = make_package
) -> None:
    """All steps. Safe to repeat, also after a failure at any of them. packaged: makes the package in a folder.

    Raises ConfigurationError or Refused before anything is changed, ReplicatorError for what failed.
    """
    found = look(wanted, session)
    for warning in found.warnings:
        click.echo(f"warning: {warning}", err=True)
    if found.target_region and "TARGET_REGION" not in wanted.variables:
        wanted = replace(wanted, variables={**wanted.variables, "TARGET_REGION": found.target_region})
    region = found.account.region
    stack = Stack(session.client("cloudformation", region_name=region), wanted.stack)
    run = Run(wanted, found, session, stack, dry, say)
    _check_stack(run)
    told = _connect(run, dry=True)  # what stands in the way of that is to be known before anything is made
    # A queue that is there takes messages already: so changing from EventBridge to S3's own way leaves no gap.
    early = [] if dry or stack.status() is None else _connect(run)
    with tempfile.TemporaryDirectory(prefix="replicator-") as folder:
        package = packaged(wanted, found.account, Path(folder))
        template = finished(package.sam, wanted, found.account)
        changed = _change(run, package, template)
    if not dry:
        for warning in stack.protect():
            click.echo(f"warning: {warning}", err=True)
    for line in told if dry else [*early, *_connect(run)]:
        say(f"  {line}")
    if not (changed or told):
        say(f"{wanted.stack} in {region}: nothing to change")
    elif dry:
        say("nothing was changed (DRY_RUN)")


def _check_stack(run: Run) -> None:
    """Buckets `a.b` and `a-b` would share a stack; a queue stays the one it is; a stack that never was makes room."""
    parameters = run.stack.parameters()
    there, queue = parameters.get("SourceBucket"), parameters.get("QueueName")
    if there not in (None, run.deployment.bucket):
        raise ConfigurationError(
            f"stack {run.stack.name} is there, and mirrors {there}: dots are hyphens in its name, so that two such "
            "buckets of one region need two accounts"
        )
    if queue not in (None, run.deployment.queue):
        raise Refused(
            f"stack {run.stack.name} was made with QUEUE={queue}: another name is another queue, and what waits in the "
            "old one would be lost; `make destroy` first, or keep the name"
        )
    if not run.dry:
        run.stack.clear()


def _change(run: Run, package: Package, template: Template) -> bool:
    """Whether the stack was, or would be, changed."""
    values = parameters(run.deployment, template, artifact_bucket=run.artifact_bucket, code_key=package.key)
    changes = run.stack.propose(template, values)
    if changes is None:
        return False
    run.say(f"{run.stack.name} in {run.found.account.region}:")
    for change in sorted(changes, key=lambda one: (one.type, one.name)):
        run.say(f"  {change}")
    if run.dry:
        run.stack.withdraw()
        return True
    _upload(run, package)
    run.stack.execute()
    artifacts.forget_others(
        run.session.client("s3", region_name=run.found.account.region), run.artifact_bucket, package.key
    )
    return True


def _upload(run: Run, package: Package) -> None:
    s3 = run.session.client("s3", region_name=run.found.account.region)
    if not artifacts.exists(s3, run.artifact_bucket, run.found.account):
        if run.deployment.artifact_bucket:
            raise ConfigurationError(f"ARTIFACT_BUCKET={run.artifact_bucket}: there is no such bucket")
        run.say(f"  + bucket {run.artifact_bucket} for the Lambda's code")
        artifacts.make(s3, run.artifact_bucket, run.found.account)
    artifacts.upload(s3, run.artifact_bucket, package.key, package.archive)


def _connect(run: Run, *, dry: bool = False) -> list[str]:
    """Has the bucket tell the queue; what of its notifications had to be changed. dry: would have to be.

    Raises Refused if another notification of the bucket stands in the way.
    """
    account = run.found.account
    queue = f"arn:{account.partition}:sqs:{account.region}:{account.number}:{run.deployment.queue}"
    return connect(
        run.session.client("s3", region_name=account.region),
        run.deployment.bucket,
        "EVENTBRIDGE" if run.deployment.events == "eventbridge" else queue,
        prefix=run.deployment.prefix,
        id=run.deployment.notification_id,
        dry_run=dry,
    )


if __name__ == "__main__":
    sys.exit(exit_code(deploy))
