"""`make migrate-task`: starts the migration that `make deploy IMAGE=...` described, once, on Fargate."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

import boto3
import click

from infra.account import look_at_source
from infra.settings import stack_name
from infra.speaking import exit_code
from infra.stack import Stack
from replicator.errors import ConfigurationError, ReplicatorError

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ecs import ECSClient
    from mypy_boto3_ecs.type_defs import NetworkConfigurationTypeDef


class TaskNotStarted(ReplicatorError):
    """ECS did not place the task; the message has its reasons."""


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("options", nargs=-1, metavar="[OPTION OF MIGRATE]...")
@click.option("--dry-run", is_flag=True, envvar="DRY_RUN", help="Show where and what, start nothing.")
def task(options: tuple[str, ...], *, dry_run: bool) -> None:
    """Starts one task; what follows are options of `replicator migrate`, also in the variable OPTIONS.

    SUBNETS and SECURITY_GROUPS (ids, separated by commas) say where; else in the default VPC, with a public address.
    """
    given = os.environ
    location = given.get("SOURCE_BUCKET", "").strip()
    if not location:
        raise ConfigurationError("SOURCE_BUCKET is not set: whose objects are to be migrated?")
    session = boto3.Session(region_name=given.get("AWS_REGION"))
    found, _ = look_at_source(location, session)
    region = found.account.region
    stack = Stack(session.client("cloudformation", region_name=region), stack_name(location))
    name = stack.parameters().get("QueueName")
    if name is None or "Image" not in stack.parameters():
        raise ConfigurationError(f"stack {stack.name} has no task: make deploy ... IMAGE=... first")
    network = network_of(
        session.client("ec2", region_name=region), _ids(given, "SUBNETS"), _ids(given, "SECURITY_GROUPS")
    )
    words = [*shlex.split(given.get("OPTIONS", "")), *options]
    click.echo(f"{name}: replicator migrate {shlex.join(words)} in {network['awsvpcConfiguration']}")
    if not dry_run:
        arn = start(session.client("ecs", region_name=region), name, words, network)
        click.echo(f"started {arn}")
        click.echo(f"follow it: aws logs tail /replicator/{name}/migrate --follow --region {region}")


def network_of(ec2: EC2Client, subnets: list[str], groups: list[str]) -> NetworkConfigurationTypeDef:
    """Where the task runs. Without subnets, all default ones, where only a public address leads out.

    Raises ConfigurationError if there is no default VPC.
    """
    public = not subnets
    if public:
        answer = ec2.describe_subnets(Filters=[{"Name": "default-for-az", "Values": ["true"]}])
        subnets = sorted(one["SubnetId"] for one in answer["Subnets"])
    if not subnets:
        raise ConfigurationError(
            "this region has no default VPC: give SUBNETS=subnet-..., which lead to S3 and the target"
        )
    where: NetworkConfigurationTypeDef = {
        "awsvpcConfiguration": {"subnets": subnets, "assignPublicIp": "ENABLED" if public else "DISABLED"}
    }
    if groups:
        where["awsvpcConfiguration"]["securityGroups"] = groups
    return where


def start(ecs: ECSClient, name: str, words: list[str], network: NetworkConfigurationTypeDef) -> str:
    """The task's ARN. name: of the cluster and the task's family. Raises TaskNotStarted."""
    answer = ecs.run_task(
        cluster=name,
        taskDefinition=name,
        launchType="FARGATE",
        networkConfiguration=network,
        overrides={"containerOverrides": [{"name": "migrate", "command": words}]} if words else {},
        startedBy="make migrate-task",
    )
    if answer["failures"] or not answer["tasks"]:
        reasons = ", ".join(f"{one.get('reason')} {one.get('detail', '')}".strip() for one in answer["failures"])
        raise TaskNotStarted(f"{name}: ECS did not start the task: {reasons or 'no reason given'}")
    return answer["tasks"][0]["taskArn"]


def _ids(given: Mapping[str, str], name: str) -> list[str]:
    return [word.strip() for word in given.get(name, "").split(",") if word.strip()]


if __name__ == "__main__":
    sys.exit(exit_code(task))
