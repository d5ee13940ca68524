"""Deployments without an account: settings that are refused, change sets that would lose a queue, tasks, exit codes."""

from __future__ import annotations

import click
import pytest
from botocore.exceptions import ClientError

from infra.routes import with_routes
from infra.settings import read, stack_name
from infra.speaking import exit_code
from infra.stack import QUEUES, Stack, StackError
from infra.task import TaskNotStarted, network_of, start
from replicator.errors import ConfigurationError, Refused, ReplicatorError

ENDS = {"SOURCE_BUCKET": "the-source/dir", "TARGET_BUCKET": "the-target"}


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"TARGET_BUCKET": ""}, "TARGET_BUCKET is not set"),
        ({"TARGET_BUCKET": "the-source/dir/below"}, "overlap"),
        ({"TARGET_ENDPOINT": "https://there"}, "TARGET_ENDPOINT without TARGET_SECRET_ID"),
        ({"ENDPOINT": "https://there"}, "TARGET_ENDPOINT without TARGET_SECRET_ID"),
        ({"SOURCE_ENDPOINT": "https://there"}, "`replicator serve` mirrors from elsewhere"),
        ({"TARGET_SECRET_ACCESS_KEY": "hush"}, "TARGET_SECRET_ACCESS_KEY would be packed"),
        ({"ARCHITECTURE": "riscv"}, "ARCHITECTURE='riscv': must be arm64 or x86_64"),
        ({"EVENTS": "sns"}, "EVENTS='sns': must be s3 or eventbridge"),
        ({"RECONCILE": "daily"}, "RECONCILE='daily': must be off, rate"),
        ({"QUEUE": "with.dots"}, "QUEUE='with.dots': must be letters"),
        ({"QUEUE_URL": "https://sqs/1/q"}, "QUEUE_URL: the stack knows it"),
        ({"KMS_KEY_ARN": "alias/mine"}, "KMS_KEY_ARN='alias/mine': must be an ARN"),
        ({"ALARM_TOPIC_ARN": "arn:aws:sqs:eu-west-1:1:q"}, "must be an ARN, arn:aws:sns"),
        ({"MAX_CONCURRENCY": "1"}, "MAX_CONCURRENCY='1': must be a whole number from 2 to 1000"),
        ({"BATCH_WINDOW": "0"}, "BATCH_WINDOW='0': must be a whole number from 1 to 300"),
        ({"LOG_DAYS": "31"}, "LOG_DAYS='31': must be one of"),
        ({"TASK_CPU": "256", "TASK_MEMORY": "4096"}, "TASK_MEMORY='4096': with TASK_CPU=256 it must be 512 to 2048"),
        ({"REPLICATOR_CONFIG": "replicator.toml"}, "REPLICATOR_CONFIG='replicator.toml': must be ssm:NAME or s3://"),
    ],
)
def test_a_setting_that_is_wrong_is_named(variables, words):
    with pytest.raises(ConfigurationError) as refused:
        read({**ENDS, **variables})
    assert words in str(refused.value)
    assert "hush" not in str(refused.value)


def test_all_that_is_wrong_is_named_at_once():
    with pytest.raises(ConfigurationError) as refused:
        read({**ENDS, "EVENTS": "sns", "BATCH_WINDOW": "x", "QUEUE": "a.b"})
    assert len(str(refused.value).splitlines()) == 3


def test_settings_have_defaults_and_names_without_dots():
    wanted = read({**ENDS, "SOURCE_BUCKET": "s3://the.source/dir"})
    assert (wanted.stack, wanted.queue, wanted.bucket, wanted.prefix) == (
        "replicator-the-source",
        "replicator-the-source",
        "the.source",
        "dir/",
    )
    assert (wanted.variables["RECONCILE"], wanted.reconciles, wanted.architecture) == ("rate(1 day)", True, "arm64")
    assert not read({**ENDS, "RECONCILE": "off"}).reconciles
    assert stack_name("the.source/dir") == wanted.stack


def test_a_key_of_whoever_deploys_is_none_of_the_lambdas_business():
    assert "AWS_SECRET_ACCESS_KEY" not in read({**ENDS, "AWS_SECRET_ACCESS_KEY": "hush"}).variables


class CloudFormation:
    """One stack, and what is going to become of a change set. asked: the names of requests that change something."""

    def __init__(self, *, status="UPDATE_COMPLETE", change_set=None, events=(), after="UPDATE_COMPLETE"):
        self.stack_status, self.after = status, after
        self.change_set = change_set or {"Status": "CREATE_COMPLETE", "Changes": []}
        self.events, self.asked, self.token = events, [], None

    def describe_stacks(self, StackName):
        if self.stack_status is None:
            raise ClientError({"Error": {"Code": "ValidationError", "Message": f"{StackName} does not exist"}}, "D")
        return {"Stacks": [{"StackName": StackName, "StackStatus": self.stack_status}]}

    def list_change_sets(self, StackName):
        return {"Summaries": [{"StackName": StackName, "ChangeSetName": "replicator"}]}

    def delete_change_set(self, **_):
        self.asked.append("delete_change_set")

    def create_change_set(self, **given):
        self.asked.append(f"create_change_set {given['ChangeSetType']}")

    def describe_change_set(self, **given):
        return self.change_set if "NextToken" not in given else {"Status": "CREATE_COMPLETE", "Changes": [change("Z")]}

    def execute_change_set(self, **given):
        self.token, self.stack_status = given["ClientRequestToken"], self.after

    def get_paginator(self, _):
        return self

    def paginate(self, StackName):
        mine = {"ClientRequestToken": self.token}
        return [{"StackEvents": [{**mine, **event} for event in self.events]}]


def change(name, *, action="Modify", replaced="False"):
    resource = {"Action": action, "LogicalResourceId": name, "ResourceType": "T", "Replacement": replaced}
    return {"ResourceChange": resource}


def stack(client):
    return Stack(client, "replicator-b", sleep=lambda _: None)


@pytest.mark.parametrize("name", QUEUES)
@pytest.mark.parametrize(
    "lost", [{"replaced": "True"}, {"replaced": "Conditional"}, {"action": "Remove", "replaced": "False"}]
)
def test_a_change_that_would_lose_a_queue_is_refused_and_withdrawn(name, lost):
    client = CloudFormation(change_set={"Status": "CREATE_COMPLETE", "Changes": [change("A"), change(name, **lost)]})
    with pytest.raises(Refused, match=f"would replace {name}"):
        stack(client).propose({}, {})
    assert client.asked[-1] == "delete_change_set"


def test_a_queue_that_is_changed_or_new_is_not_refused():
    changes = [change("Changes"), change("Hold", action="Add"), change("Mirror", replaced="True")]
    proposed = stack(CloudFormation(change_set={"Status": "CREATE_COMPLETE", "Changes": changes})).propose({}, {})
    assert [str(one) for one in proposed] == ["~ T Changes", "+ T Hold", "~ T Mirror (replaced)"]


def test_a_long_change_set_is_read_to_its_end():
    client = CloudFormation(
        change_set={"Status": "CREATE_COMPLETE", "Changes": [change("Changes")], "NextToken": "more"}
    )
    assert [one.name for one in stack(client).propose({}, {})] == ["Changes", "Z"]


@pytest.mark.parametrize(
    "reason",
    [
        "The submitted information didn't contain changes. Submit different information.",
        "No updates are to be performed.",
    ],
)
def test_a_change_set_without_changes_is_none(reason):
    client = CloudFormation(change_set={"Status": "FAILED", "StatusReason": reason})
    assert stack(client).propose({}, {}) is None
    assert client.asked[-1] == "delete_change_set"


def test_a_change_set_that_fails_otherwise_says_why():
    client = CloudFormation(change_set={"Status": "FAILED", "StatusReason": "Transform failed"})
    with pytest.raises(StackError, match="Transform failed"):
        stack(client).propose({}, {})


def test_a_stack_that_fails_says_what_failed_first_and_not_what_was_cancelled_with_it():
    events = [
        {
            "ResourceStatus": "UPDATE_FAILED",
            "LogicalResourceId": "B",
            "ResourceStatusReason": "Resource update cancelled",
        },
        {"ResourceStatus": "UPDATE_FAILED", "LogicalResourceId": "A", "ResourceStatusReason": "no right to do that"},
        {
            "ResourceStatus": "CREATE_FAILED",
            "LogicalResourceId": "Old",
            "ResourceStatusReason": "of another time",
            "ClientRequestToken": "another",
        },
    ]
    client = CloudFormation(events=events, after="UPDATE_ROLLBACK_COMPLETE")
    with pytest.raises(StackError) as failed:
        stack(client).execute()
    assert str(failed.value) == (
        "stack replicator-b was not deployed (UPDATE_ROLLBACK_COMPLETE):\n  A: no right to do that"
    )


def test_the_first_deployment_makes_the_stack_and_a_later_one_updates_it():
    made, updated = CloudFormation(status=None), CloudFormation()
    stack(made).propose({}, {})
    stack(updated).propose({}, {})
    assert made.asked == ["create_change_set CREATE"]
    assert updated.asked == ["delete_change_set", "create_change_set UPDATE"]


class Ec2:
    def __init__(self, *subnets):
        self.subnets = subnets

    def describe_subnets(self, Filters):
        return {"Subnets": [{"SubnetId": one} for one in self.subnets]}


def test_a_task_runs_in_the_default_subnets_with_a_public_address_or_where_it_is_told_to_without():
    default = network_of(Ec2("subnet-b", "subnet-a"), [], [])["awsvpcConfiguration"]
    assert default == {"subnets": ["subnet-a", "subnet-b"], "assignPublicIp": "ENABLED"}
    told = network_of(Ec2(), ["subnet-c"], ["sg-1"])["awsvpcConfiguration"]
    assert told == {"subnets": ["subnet-c"], "assignPublicIp": "DISABLED", "securityGroups": ["sg-1"]}
    with pytest.raises(ConfigurationError, match="give SUBNETS"):
        network_of(Ec2(), [], [])


class Ecs:
    def __init__(self, **answer):
        self.answer, self.asked = {"failures": [], "tasks": [], **answer}, {}

    def run_task(self, **given):
        self.asked = given
        return self.answer


def test_a_task_gets_the_options_of_the_migration():
    ecs = Ecs(tasks=[{"taskArn": "arn:t"}])
    assert start(ecs, "replicator-b", ["--dry-run"], {}) == "arn:t"
    assert (ecs.asked["cluster"], ecs.asked["taskDefinition"]) == ("replicator-b", "replicator-b")
    assert ecs.asked["overrides"] == {"containerOverrides": [{"name": "migrate", "command": ["--dry-run"]}]}


def test_a_task_that_ecs_does_not_place_says_why():
    with pytest.raises(TaskNotStarted, match="CAPACITY none left"):
        start(Ecs(failures=[{"reason": "CAPACITY", "detail": "none left"}]), "n", [], {})


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigurationError("a\nb"), 2),
        (Refused("no"), 3),
        (ReplicatorError("failed:\n  A: why"), 1),
        (ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "CreateStack"), 1),
        (click.UsageError("odd"), 2),
        (click.Abort(), 130),
        (None, 0),
    ],
)
def test_a_command_ends_with_a_line_for_each_problem_and_the_code_for_it(error, code, capsys):
    @click.command()
    def command():
        if error is not None:
            raise error

    assert exit_code(command, []) == code
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith(("error: ", "  ")) for line in lines)
    assert bool(lines) is (code != 0)


# Several routes

ROUTES = """
[endpoints.ceph]
url = "https://ceph.example.com"

[routes.home]
source = "s3://the-source/dir"
targets = ["s3://first/copy", "s3://second", "ceph:third"]
"""


class Session:
    """Answers for Parameter Store."""

    def __init__(self, text):
        self.text = text

    def client(self, service, **_):
        assert service == "ssm"
        return self

    def get_parameter(self, Name, WithDecryption):
        return {"Parameter": {"Value": self.text}}


def routed(text, **variables):
    given = {"SOURCE_BUCKET": "the-source", "REPLICATOR_CONFIG": "ssm:/routes", **variables}
    return with_routes(read(given), given, Session(text))


def test_a_file_with_routes_says_which_buckets_and_secrets_the_functions_may_use():
    found = routed(ROUTES, CEPH_SECRET_ID="ceph/keys").variables
    assert (found["MORE_TARGETS"], found["MORE_SECRETS"]) == ("first,second", "ceph/keys")
    assert found["CEPH_SECRET_ID"] == "ceph/keys"


def test_a_route_to_an_endpoint_without_a_secret_is_refused():
    with pytest.raises(ConfigurationError, match=r"\[routes.home\]: CEPH_SECRET_ID is not set"):
        routed(ROUTES)


def test_a_route_of_another_source_has_another_stack():
    with pytest.raises(ConfigurationError, match="this stack mirrors the-source"):
        routed(ROUTES.replace("the-source", "another"), CEPH_SECRET_ID="ceph/keys")


def test_without_a_file_nothing_is_read():
    wanted = read(ENDS)
    assert with_routes(wanted, ENDS, None) is wanted
