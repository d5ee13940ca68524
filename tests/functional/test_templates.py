"""What CloudFormation is told: valid templates, with no known weakness that is not explained, and the least rights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

from infra.package import make_package
from infra.settings import read
from infra.stack import BODY_BYTES, body
from infra.template import Account, finished, parameters
from tests import scanners
from tests.conftest import REQUIRE_SERVERS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

CFN_LINT = Path(sysconfig.get_path("scripts")) / "cfn-lint"
INFRA = Path(__file__).parents[2] / "infra"
ACCOUNT = Account("aws-us-gov", "us-gov-west-1", "123456789012")
HERE = "us-gov-west-1:123456789012"
KEY = f"arn:aws-us-gov:kms:{HERE}:key"
PLAIN = {"SOURCE_BUCKET": "src.bucket/dir", "TARGET_BUCKET": "dst"}
FULL = {
    "SOURCE_BUCKET": "src.bucket/dir",
    "TARGET_BUCKET": "dst/to",
    "TARGET_SECRET_ID": "target/keys",
    "TARGET_ENDPOINT": "https://objects.example.com",
    "MORE_TARGETS": "second",
    "KMS_KEY_ARN": f"{KEY}/queues",
    "SOURCE_KMS_KEY_ARN": f"{KEY}/source",
    "TARGET_KMS_KEY_ARN": f"{KEY}/target",
    "REPLICATOR_CONFIG": "ssm:/replicator/toml",
    "BATCH_BUCKET": "manifests",
    "ALARM_TOPIC_ARN": f"arn:aws-us-gov:sns:{HERE}:people",
    "EVENTS": "eventbridge",
    "IMAGE": "123456789012.dkr.ecr.us-gov-west-1.amazonaws.com/replicator:1",
    "URLS_PREFIXES": "reports",
    "URLS_BUCKET": "dst/to",
    "TRACING": "on",
    "ARCHITECTURE": "x86_64",
}


class Built:
    """A template with all it is made of. name: for messages. folder: where its text is."""

    def __init__(self, name, given, folder):
        self.wanted = read(given)
        self.package = make_package(self.wanted, ACCOUNT, folder)
        self.template = finished(self.package.sam, self.wanted, ACCOUNT)
        self.path = folder / f"{name}.json"
        self.path.write_text(body(self.template))

    def of(self, kind):
        return {name: one for name, one in self.template["Resources"].items() if one["Type"] == kind}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return Built("plain", PLAIN, tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    return Built("full", FULL, tmp_path_factory.mktemp("full"))


@pytest.fixture(params=["plain", "full"])
def built(request):
    return request.getfixturevalue(request.param)


def test_nothing_of_sam_is_left_for_aws_to_translate(built):
    assert "Transform" not in built.template
    kinds = {one["Type"] for one in built.template["Resources"].values()}
    assert not [kind for kind in kinds if kind.startswith("AWS::Serverless")]


def test_the_dead_letters_take_those_of_every_queue_that_sends_its_own_there(plain):
    queues = plain.of("AWS::SQS::Queue")
    names = [one["Properties"]["QueueName"] for one in queues.values() if "RedrivePolicy" in one["Properties"]]
    allowed = queues["DeadLetters"]["Properties"]["RedriveAllowPolicy"]["sourceQueueArns"]
    here = "arn:${AWS::Partition}:sqs:${AWS::Region}:${AWS::AccountId}:"
    assert names == [{"Ref": "QueueName"}, {"Fn::Sub": "${QueueName}-work"}]
    assert allowed == [{"Fn::Sub": here + name} for name in ("${QueueName}", "${QueueName}-work")]


def test_cfn_lint_finds_nothing_not_even_what_it_only_mentions(built):
    command = [CFN_LINT, "--include-checks", "I", "--regions", ACCOUNT.region, "-t", built.path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_checkov_finds_what_is_explained_and_no_more(plain, full):
    try:
        scanners.checkov()
    except scanners.ScannerError as error:
        if os.environ.get(REQUIRE_SERVERS) == "1":
            raise
        pytest.skip(f"checkov cannot be installed here: {error}"[:300])
    explained = tomllib.loads((INFRA / "checkov.toml").read_text())
    assert [check for check, one in explained.items() if not one["reason"].strip()] == []
    expected = {(check, resource) for check, one in explained.items() for resource in one["resources"]}
    assert scanners.findings(plain.path) | scanners.findings(full.path) == expected


def test_a_template_fits_into_a_request_and_has_a_value_for_each_parameter(built):
    assert len(body(built.template)) < BODY_BYTES
    values = parameters(built.wanted, built.template, artifact_bucket="b", code_key="k")
    assert values.keys() == built.template["Parameters"].keys()
    assert {type(value) for value in values.values()} == {str}


def test_the_code_is_for_the_processor_that_the_functions_run_on(built):
    machines = {"arm64": 0xB7, "x86_64": 0x3E}
    wanted = machines[built.wanted.architecture]
    with zipfile.ZipFile(built.package.archive) as archive:
        libraries = [name for name in archive.namelist() if name.endswith(".so")]
        assert libraries
        assert {archive.read(name)[18] for name in libraries} == {wanted}
    functions = built.of("AWS::Lambda::Function").values()
    assert {tuple(one["Properties"]["Architectures"]) for one in functions} == {(built.wanted.architecture,)}


def test_the_code_has_no_settings_in_it(built):
    with zipfile.ZipFile(built.package.archive) as archive:
        assert "app.py" in archive.namelist()
        assert "chalicelib/deployment.json" not in archive.namelist()
        assert not [name for name in archive.namelist() if "__pycache__" in name]


def test_queues_are_never_replaced_in_an_update_without_being_kept(built):
    for one in built.of("AWS::SQS::Queue").values():
        assert one["UpdateReplacePolicy"] == "Retain"
        assert "QueueName" in one["Properties"]


def test_every_alarm_tells_the_topic_if_there_is_one(full):
    for one in full.of("AWS::CloudWatch::Alarm").values():
        assert one["Properties"]["AlarmActions"]["Fn::If"][0] == "HasAlarmTopic"


def test_the_alarms_and_the_dashboard_look_where_the_app_counts(plain, tmp_path):
    """Metrics are found by all of their dimensions or not at all: an alarm with another one would never be raised."""
    alarm = plain.template["Resources"]["MirrorLags"]["Properties"]
    dimensions = {one["Name"]: one["Value"] for one in alarm["Dimensions"]}
    assert dimensions.pop("source") == {"Ref": "SourceBucket"}
    program = (
        "import app; app.metrics.add_metric(name='ReplicationLag', unit='Seconds', value=1);"
        "import json; print(json.dumps(app.metrics.serialize_metric_set()))"
    )
    with zipfile.ZipFile(plain.package.archive) as archive:  # the sources; libraries for this processor come from here
        ours = [name for name in archive.namelist() if name.startswith(("app.py", "chalicelib/", "replicator/"))]
        archive.extractall(tmp_path, ours)
    variables = {**PLAIN, "AWS_LAMBDA_FUNCTION_NAME": "mirror", "AWS_REGION": "us-east-1", "RECONCILE": "rate(1 day)"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["_aws"]["CloudWatchMetrics"][0]["Namespace"] == alarm["Namespace"]
    assert sorted(told["_aws"]["CloudWatchMetrics"][0]["Dimensions"][0]) == ["service", "source"]
    assert {name: told[name] for name in dimensions} == dimensions
    assert told["source"] == "src.bucket"
    board = json.loads(plain.template["Resources"]["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"])
    lines = [line for widget in board["widgets"] for line in widget["properties"]["metrics"]]
    named = [line[2:6] for line in lines if line[0] == alarm["Namespace"]]
    assert named == [["service", "mirror", "source", "${SourceBucket}"]] * len(named)


def test_the_container_is_not_run_by_root_and_knows_the_mirrors_settings(full):
    (task,) = full.of("AWS::ECS::TaskDefinition").values()
    (container,) = task["Properties"]["ContainerDefinitions"]
    assert container["User"] == "10001"
    assert task["Properties"]["RuntimePlatform"]["CpuArchitecture"] == {"Ref": "TaskArchitecture"}
    known = {one["Name"]: one["Value"] for one in container["Environment"]}
    assert (known["SOURCE_BUCKET"], known["TARGET_SECRET_ID"]) == ("src.bucket/dir", "target/keys")


# What each role may do: all of it, by action and resource


def granted(built, role):
    """{resource: actions} of a role."""
    found = {}
    for policy in built.template["Resources"][role]["Properties"]["Policies"]:
        for statement in policy["PolicyDocument"]["Statement"]:
            statement = statement["Fn::If"][1] if "Fn::If" in statement else statement
            assert statement["Effect"] == "Allow"
            resource = statement["Resource"]
            text = resource if isinstance(resource, str) else json.dumps(resource)
            found.setdefault(text, set()).update(statement["Action"])
    return {resource: " ".join(sorted(actions)) for resource, actions in found.items()}


S3 = "arn:aws-us-gov:s3:::"
QUEUE = f"arn:aws-us-gov:sqs:{HERE}:replicator-src-bucket"
READ = "s3:GetObject s3:GetObjectTagging s3:GetObjectVersion s3:GetObjectVersionTagging"
WRITE = (
    "s3:AbortMultipartUpload s3:DeleteObject s3:GetObject s3:GetObjectTagging s3:ListMultipartUploadParts s3:PutObject "
    "s3:PutObjectTagging"
)
USE = "kms:Decrypt kms:GenerateDataKey"
LOG = "logs:CreateLogStream logs:PutLogEvents"
XRAY = {"*": "xray:PutTelemetryRecords xray:PutTraceSegments"}


def log(name):
    return {json.dumps({"Fn::GetAtt": [name, "Arn"]}): LOG}


CONVERGE = {
    f"{S3}src.bucket": "s3:ListBucket",
    f"{S3}src.bucket/*": READ,
    f"{S3}dst": "s3:ListBucket s3:ListBucketMultipartUploads",
    f"{S3}dst/*": WRITE,
    f"{QUEUE}-work": "sqs:GetQueueUrl sqs:SendMessage",
    f"{QUEUE}-dead": "sqs:SendMessage",
    f"{QUEUE}-hold": "sqs:GetQueueAttributes sqs:SendMessage",
    f"arn:aws-us-gov:dynamodb:{HERE}:table/replicator-src-bucket": "dynamodb:Query dynamodb:UpdateItem",
}
TAKE = "sqs:ChangeMessageVisibility sqs:DeleteMessage sqs:GetQueueAttributes sqs:GetQueueUrl sqs:ReceiveMessage"
RECEIVE = {QUEUE: TAKE, f"{QUEUE}-work": f"{TAKE} sqs:SendMessage"}
INVOKE = {json.dumps({"Fn::GetAtt": ["Batch", "Arn"]}): "lambda:InvokeFunction"}
MORE = {
    f"{S3}second": "s3:ListBucket s3:ListBucketMultipartUploads",
    f"{S3}second/*": WRITE,
    f"arn:aws-us-gov:secretsmanager:{HERE}:secret:target/keys-??????": "secretsmanager:GetSecretValue",
    f"{KEY}/source": "kms:Decrypt",
    f"{KEY}/target": USE,
    f"{KEY}/queues": USE,
    f"arn:aws-us-gov:ssm:{HERE}:parameter/replicator/toml": "ssm:GetParameter",
}
ELSEWHERE = {name: actions for name, actions in CONVERGE.items() if not name.startswith(f"{S3}dst")}

ROLES = {
    "plain": {
        "MirrorRole": {**CONVERGE, **RECEIVE, **log("MirrorLogs")},
        "BatchRole": {**CONVERGE, **log("BatchLogs")},
        "ReconcileRole": {f"{QUEUE}-work": "sqs:GetQueueUrl sqs:SendMessage", **log("ReconcileLogs")},
        "BatchJobRole": INVOKE,
    },
    "full": {
        "MirrorRole": {**ELSEWHERE, **RECEIVE, **MORE, **XRAY, **log("MirrorLogs")},
        "BatchRole": {**ELSEWHERE, **MORE, **XRAY, **log("BatchLogs")},
        "ReconcileRole": {
            f"{QUEUE}-work": "sqs:GetQueueUrl sqs:SendMessage",
            f"{KEY}/queues": USE,
            f"arn:aws-us-gov:ssm:{HERE}:parameter/replicator/toml": "ssm:GetParameter",
            **XRAY,
            **log("ReconcileLogs"),
        },
        "ApiHandlerRole": {
            f"arn:aws-us-gov:secretsmanager:{HERE}:secret:target/keys-??????": "secretsmanager:GetSecretValue",
            **XRAY,
            **log("UrlsLogs"),
        },
        "BatchJobRole": {
            **INVOKE,
            json.dumps({"Fn::Sub": "arn:${AWS::Partition}:s3:::${BatchBucket}/*"}): (
                "s3:GetObject s3:GetObjectVersion s3:PutObject"
            ),
        },
        "TaskRole": {**ELSEWHERE, **MORE, **XRAY},
        "TaskExecutionRole": {
            "*": "ecr:GetAuthorizationToken",
            json.dumps({"Fn::Sub": "arn:${AWS::Partition}:ecr:${AWS::Region}:${AWS::AccountId}:repository/*"}): (
                "ecr:BatchGetImage ecr:GetDownloadUrlForLayer"
            ),
            **log("MigrateLogs"),
        },
    },
}


@pytest.mark.parametrize("name", ROLES)
def test_each_role_may_do_what_is_listed_and_no_more(name, request):
    built = request.getfixturevalue(name)
    found = {role: granted(built, role) for role in built.of("AWS::IAM::Role")}
    if name == "plain":  # without a bucket for manifests the statement about it is none
        found["BatchJobRole"] = {one: actions for one, actions in found["BatchJobRole"].items() if "s3" not in one}
    assert found == ROLES[name]
    for role in built.of("AWS::IAM::Role").values():
        assert "ManagedPolicyArns" not in role["Properties"]
