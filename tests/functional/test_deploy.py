"""`make deploy` and `make destroy` against an account that moto plays, and every refusal before anything is made."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import boto3
import pytest

from infra import destroy
from infra.deploy import run_deployment
from infra.package import make_package
from infra.settings import read
from infra.template import Account
from replicator.errors import ConfigurationError, Refused
from tests.servers import moto_account

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
REGION, NUMBER = "us-east-1", "123456789012"
SECONDS = 600
THEIRS = {
    "Id": "theirs",
    "QueueArn": f"arn:aws:sqs:{REGION}:{NUMBER}:theirs",
    "Events": ["s3:ObjectCreated:*"],
    "Filter": {"Key": {"FilterRules": [{"Name": "prefix", "Value": "elsewhere/"}]}},
}


@pytest.fixture(scope="module", autouse=True)
def account(tmp_path_factory):
    """An account with nothing in it, which all that this module starts talks to."""
    assert moto_account.missing() is None
    with moto_account.serve(tmp_path_factory.mktemp("account")) as endpoint, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", endpoint.url)
        patch.setenv("AWS_ACCESS_KEY_ID", endpoint.access_key)
        patch.setenv("AWS_SECRET_ACCESS_KEY", endpoint.secret_key)
        yield endpoint


@pytest.fixture(scope="module")
def client():
    """Makes boto3's clients, and closes them."""
    made = {}

    def client(service):
        if service not in made:
            made[service] = boto3.client(service, region_name=REGION)
        return made[service]

    yield client
    for one in made.values():
        one.close()


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """What chalice makes of the app, once for all tests that look at something else."""
    folder = tmp_path_factory.mktemp("package")
    wanted = read({"SOURCE_BUCKET": "the-source", "TARGET_BUCKET": "the-target"})
    return make_package(wanted, Account("aws", REGION, NUMBER), folder)


def there(client):
    """All that a deployment could have made, by kind; queues by name, the rest by what of its name is fixed."""
    functions = client("lambda").list_functions()["Functions"]
    return {
        "buckets": sorted(one["Name"] for one in client("s3").list_buckets()["Buckets"]),
        "queues": sorted(url.rpartition("/")[2] for url in client("sqs").list_queues().get("QueueUrls", [])),
        "tables": client("dynamodb").list_tables()["TableNames"],
        "functions": sorted(one["FunctionName"].split("-")[-2] for one in functions),
        "mappings": len(client("lambda").list_event_source_mappings()["EventSourceMappings"]),
        "roles": sorted(one["RoleName"].split("-")[-2] for one in client("iam").list_roles()["Roles"]),
        "logs": sorted(one["logGroupName"] for one in client("logs").describe_log_groups()["logGroups"]),
        "alarms": sorted(
            one["AlarmName"].split("-")[-2] for one in client("cloudwatch").describe_alarms()["MetricAlarms"]
        ),
        "dashboards": [one["DashboardName"] for one in client("cloudwatch").list_dashboards()["DashboardEntries"]],
        "rules": len(client("events").list_rules()["Rules"]),
        "stacks": [one["StackName"] for one in client("cloudformation").describe_stacks()["Stacks"]],
    }


NOTHING = {
    "buckets": ["the-target", "the.source"],
    "queues": ["theirs"],
    "tables": [],
    "functions": [],
    "mappings": 0,
    "roles": [],
    "logs": [],
    "alarms": [],
    "dashboards": [],
    "rules": 0,
    "stacks": [],
}
ALL = {
    "buckets": [f"replicator-artifacts-{NUMBER}-{REGION}", "the-target", "the.source"],
    "queues": [*(f"replicator-the-source{suffix}" for suffix in ("", "-dead", "-hold", "-work")), "theirs"],
    "tables": ["replicator-the-source"],
    "functions": ["Batch", "Mirror", "Reconcile"],
    "mappings": 2,
    "roles": ["BatchJobRole", "BatchRole", "MirrorRole", "ReconcileRole"],
    "logs": [f"/replicator/replicator-the-source/{name}" for name in ("batch", "mirror", "reconcile")],
    "alarms": [
        "ChangesWait",
        "DeadLettersNotEmpty",
        "DeletesHeld",
        "MirrorFails",
        "MirrorLags",
        "ReconcileFails",
    ],
    "dashboards": ["replicator-the-source"],
    "rules": 1,
    "stacks": ["replicator-the-source"],
}


@dataclass
class Story:
    """What happened, step by step: how each command ended, and what was there after it."""

    ends: dict = field(default_factory=dict)
    found: dict = field(default_factory=dict)


def make(target, **variables):
    # READY: this interpreter's environment is complete, nobody has to look whether it is.
    words = ["make", "--no-print-directory", target, f"VENV={sys.prefix}", "READY="]
    given = [f"{name}={value}" for name, value in variables.items()]
    return subprocess.run(
        [*words, *given], cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, env=dict(os.environ), check=False
    )


def notifications(client):
    found = client("s3").get_bucket_notification_configuration(Bucket="the.source")
    return {one["Id"]: one for one in found.get("QueueConfigurations", [])}


def mappings(client):
    """By the name of the queue."""
    found = client("lambda").list_event_source_mappings()["EventSourceMappings"]
    return {one["EventSourceArn"].removeprefix(f"arn:aws:sqs:{REGION}:{NUMBER}:"): one for one in found}


def handle_all(client, queue):
    """Does what the Lambda does, which moto does not run: takes S3's test event from the queue."""
    url = client("sqs").get_queue_url(QueueName=queue)["QueueUrl"]
    messages = client("sqs").receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", [])
    for message in messages:
        client("sqs").delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])


@pytest.fixture(scope="module")
def story(account, client):
    """Deployed twice, changed, and destroyed twice."""
    client("s3").create_bucket(Bucket="the.source")
    client("s3").create_bucket(Bucket="the-target")
    client("sqs").create_queue(QueueName="theirs")
    foreign = {"QueueConfigurations": [THEIRS]}
    client("s3").put_bucket_notification_configuration(Bucket="the.source", NotificationConfiguration=foreign)
    story = Story()
    ends = {"SOURCE_BUCKET": "the.source/dir", "TARGET_BUCKET": "the-target"}

    def look():
        found = {"there": there(client), "notifications": notifications(client)}
        if found["there"]["mappings"]:
            queues, functions = client("sqs"), client("lambda").list_functions()["Functions"]
            urls = queues.list_queues(QueueNamePrefix="replicator-")["QueueUrls"]
            found["mappings"] = mappings(client)
            found["functions"] = {one["Handler"]: one for one in functions}
            found["queues"] = {
                url.rpartition("/")[2]: queues.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
                for url in urls
            }
        return found

    story.found["before"] = look()
    for name, target, variables in (
        ("dry", "deploy", {**ends, "DRY_RUN": "1"}),
        ("first", "deploy", ends),
        ("second", "deploy", ends),
        ("changed", "deploy", {**ends, "MAX_CONCURRENCY": "5", "LAG_SECONDS": "60"}),
        ("destroyed", "destroy", {"SOURCE_BUCKET": "the.source/dir", "WAIT": "0"}),
        ("destroyed again", "destroy", {"SOURCE_BUCKET": "the.source/dir", "WAIT": "0"}),
    ):
        if name == "destroyed":
            handle_all(client, "replicator-the-source")
        story.ends[name] = make(target, **variables)
        story.found[name] = look()
    return story


def test_every_command_of_the_story_ends_well(story):
    assert {name: (end.returncode, end.stderr) for name, end in story.ends.items()} == dict.fromkeys(
        story.ends, (0, "")
    )


def test_a_dry_run_says_what_it_would_make_and_makes_nothing(story):
    said = story.ends["dry"].stdout
    assert "+ AWS::SQS::Queue Changes" in said
    assert "nothing was changed" in said
    assert story.found["dry"] == story.found["before"]


def test_a_deployment_makes_what_is_listed_and_no_more(story):
    assert story.found["before"]["there"] == NOTHING
    assert story.found["first"]["there"] == ALL


def test_a_deployment_says_what_it_makes_and_a_second_one_that_nothing_is_to_do(story):
    said = story.ends["first"].stdout
    assert "+ AWS::Lambda::EventSourceMapping MirrorMirrorSqsEventSource" in said
    assert story.ends["second"].stdout == f"replicator-the-source in {REGION}: nothing to change\n"
    assert story.found["second"] == story.found["first"]


def test_each_queue_feeds_the_function_as_it_should(story):
    found = story.found["first"]["mappings"]
    changes, work = (found[f"replicator-the-source{suffix}"] for suffix in ("", "-work"))
    for one in (changes, work):
        assert one["FunctionArn"] == story.found["first"]["functions"]["app.mirror"]["FunctionArn"]
        assert one["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
        assert one["State"] == "Enabled"
    assert (changes["BatchSize"], changes["MaximumBatchingWindowInSeconds"]) == (50, 1)
    assert (work["BatchSize"], work.get("MaximumBatchingWindowInSeconds", 0)) == (1, 0)
    assert [one["ScalingConfig"]["MaximumConcurrency"] for one in (changes, work)] == [10, 20]


def test_the_queue_lets_messages_be_as_large_and_be_handled_as_long_as_needed(story):
    queues = story.found["first"]["queues"]
    timeout = story.found["first"]["functions"]["app.mirror"]["Timeout"]
    for name in ("replicator-the-source", "replicator-the-source-work"):
        assert int(queues[name]["VisibilityTimeout"]) >= 6 * timeout + 300
        assert int(queues[name]["MaximumMessageSize"]) >= 256 * 1024
        redrive = json.loads(queues[name]["RedrivePolicy"])
        assert redrive["deadLetterTargetArn"].endswith(":replicator-the-source-dead")
        assert redrive["maxReceiveCount"] == 12


def test_only_the_source_bucket_may_send_to_the_queue_and_nobody_without_tls(story):
    allow, deny = json.loads(story.found["first"]["queues"]["replicator-the-source"]["Policy"])["Statement"]
    assert (allow["Effect"], allow["Principal"]) == ("Allow", {"Service": "s3.amazonaws.com"})
    assert allow["Condition"]["ArnEquals"] == {"aws:SourceArn": "arn:aws:s3:::the.source"}
    assert allow["Condition"]["StringEquals"] == {"aws:SourceAccount": NUMBER}
    assert (deny["Effect"], deny["Condition"]) == ("Deny", {"Bool": {"aws:SecureTransport": "false"}})
    for name in (f"replicator-the-source{suffix}" for suffix in ("-dead", "-hold", "-work")):
        (only,) = json.loads(story.found["first"]["queues"][name]["Policy"])["Statement"]
        assert only["Effect"] == "Deny"


def test_the_functions_know_their_queues_table_and_buckets_and_no_secret(story):
    for handler in ("app.mirror", "app.batch", "app.reconcile"):
        known = story.found["first"]["functions"][handler]["Environment"]["Variables"]
        names = {name: known[name].rpartition("/")[2] for name in known if name.endswith("_URL")}
        assert names == {
            "QUEUE_URL": "replicator-the-source",
            "DEAD_LETTERS_URL": "replicator-the-source-dead",
            "HOLD_QUEUE_URL": "replicator-the-source-hold",
            "WORK_QUEUE_URL": "replicator-the-source-work",
        }
        assert (known["QUEUE"], known["BRAKE_TABLE"]) == ("replicator-the-source", "replicator-the-source")
        assert (known["SOURCE_BUCKET"], known["TARGET_BUCKET"]) == ("the.source/dir", "the-target")
        assert known["TARGET_REGION"] == REGION
        assert not [name for name in known if "SECRET" in name]


def test_the_bucket_notifies_the_queue_beside_what_it_notified_before(story):
    assert story.found["before"]["notifications"] == {"theirs": THEIRS}
    found = story.found["first"]["notifications"]
    assert found["theirs"] == THEIRS
    assert found["replicator-the-source"]["QueueArn"].endswith(":replicator-the-source")
    (rule,) = found["replicator-the-source"]["Filter"]["Key"]["FilterRules"]
    assert (rule["Name"].lower(), rule["Value"]) == ("prefix", "dir/")


def test_a_change_says_what_it_changes_and_keeps_queue_and_mapping(story):
    lines = story.ends["changed"].stdout.splitlines()
    assert lines == [
        f"replicator-the-source in {REGION}:",
        "  ~ AWS::CloudWatch::Alarm MirrorLags",
        "  ~ AWS::Lambda::EventSourceMapping MirrorMirrorSqsEventSource",
    ]
    first, changed = story.found["first"], story.found["changed"]
    was, now = first["mappings"], changed["mappings"]
    assert now["replicator-the-source"]["ScalingConfig"] == {"MaximumConcurrency": 5}
    assert now["replicator-the-source-work"]["ScalingConfig"] == {"MaximumConcurrency": 20}
    assert {one: (now[one]["UUID"], "Enabled") for one in now} == {
        one: (was[one]["UUID"], was[one]["State"]) for one in was
    }
    assert (
        changed["queues"]["replicator-the-source"]["CreatedTimestamp"]
        == (first["queues"]["replicator-the-source"]["CreatedTimestamp"])
    )


def test_destroying_leaves_nothing_of_ours_and_all_of_theirs(story):
    assert story.found["destroyed"] == story.found["before"]
    assert "- stack replicator-the-source" in story.ends["destroyed"].stdout
    assert story.ends["destroyed again"].stdout == f"replicator-the-source in {REGION}: nothing to remove\n"
    assert story.found["destroyed again"] == story.found["before"]


# Refusals, with a package that is made once


@dataclass
class Desk:
    """Deploys and destroys in this process. said: the lines."""

    client: object
    package: object
    bucket: str
    said: list = field(default_factory=list)

    def deploy(self, *, dry=False, **variables):
        given = {"SOURCE_BUCKET": f"{self.bucket}/dir", "TARGET_BUCKET": "a-target", **variables}
        wanted = read({name: value for name, value in given.items() if value is not None})
        run_deployment(wanted, boto3.Session(), dry=dry, say=self.said.append, packaged=lambda *_: self.package)

    def destroy(self, *, force=False, wait=0.0):
        session = boto3.Session()
        destroy.run_destruction(self.bucket, session, dry=False, force=force, wait=wait, say=self.said.append)

    def send(self, suffix=""):
        url = self.client("sqs").get_queue_url(QueueName=f"replicator-{self.bucket}{suffix}")["QueueUrl"]
        self.client("sqs").send_message(QueueUrl=url, MessageBody="{}")

    def stack(self):
        names = [one["StackName"] for one in self.client("cloudformation").describe_stacks()["Stacks"]]
        return f"replicator-{self.bucket}" in names


@pytest.fixture
def desk(story, client, package, request):
    bucket = f"desk-{abs(hash(request.node.name)) % 10**8}"
    for name in (bucket, "a-target"):
        client("s3").create_bucket(Bucket=name)
    # Something foreign, as moto answers with a document of another name for a bucket that notifies nobody.
    foreign = {"QueueConfigurations": [THEIRS]}
    client("s3").put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=foreign)
    desk = Desk(client, package, bucket)
    yield desk
    if desk.stack():
        desk.destroy(force=True)


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"SOURCE_BUCKET": "no-such-bucket"}, "SOURCE_BUCKET=no-such-bucket: there is no such bucket"),
        ({"TARGET_BUCKET": "no-such-bucket"}, "TARGET_BUCKET=no-such-bucket: there is no such bucket"),
        ({"TARGET_ENDPOINT": "https://there", "TARGET_SECRET_ID": "none"}, "secret none: not in Secrets Manager"),
        ({"KMS_KEY_ARN": f"arn:aws:kms:eu-west-1:{NUMBER}:key/k"}, "the queues are in us-east-1"),
    ],
)
def test_what_is_not_there_is_refused_before_anything_is_made(desk, variables, words):
    with pytest.raises(ConfigurationError, match=words):
        desk.deploy(**variables)
    assert not desk.stack()


def test_a_region_that_is_not_the_buckets_is_refused(desk):
    wanted = read({"SOURCE_BUCKET": desk.bucket, "TARGET_BUCKET": "a-target"})
    with pytest.raises(ConfigurationError, match="say AWS_REGION=us-east-1"):
        run_deployment(wanted, boto3.Session(region_name="eu-west-1"), dry=False, say=desk.said.append)


def test_a_notification_in_the_way_is_refused_before_anything_is_made(desk):
    everything = {"QueueConfigurations": [{name: THEIRS[name] for name in ("Id", "QueueArn", "Events")}]}
    desk.client("s3").put_bucket_notification_configuration(Bucket=desk.bucket, NotificationConfiguration=everything)
    with pytest.raises(Refused, match="theirs"):
        desk.deploy()
    assert not desk.stack()


def test_another_name_for_the_queue_is_refused(desk):
    desk.deploy()
    with pytest.raises(Refused, match="another name is another queue"):
        desk.deploy(QUEUE="other")


def test_a_bucket_whose_name_differs_in_dots_alone_is_refused(desk):
    desk.deploy()
    other = Desk(desk.client, desk.package, desk.bucket.replace("-", "."))
    desk.client("s3").create_bucket(Bucket=other.bucket)
    with pytest.raises(ConfigurationError, match=f"mirrors {desk.bucket}"):
        other.deploy()
    with pytest.raises(ConfigurationError, match=f"mirrors {desk.bucket}, not {other.bucket}"):
        other.destroy(force=True)


@pytest.mark.parametrize(("suffix", "words"), [("-dead", "1 dead letters"), ("-hold", "1 held deletes")])
def test_what_somebody_has_to_decide_about_is_not_destroyed(desk, suffix, words):
    desk.deploy()
    desk.send(suffix)
    with pytest.raises(Refused, match=words):
        desk.destroy()
    ids = [
        one["Id"]
        for one in desk.client("s3").get_bucket_notification_configuration(Bucket=desk.bucket)["QueueConfigurations"]
    ]
    assert f"replicator-{desk.bucket}" in ids
    desk.destroy(force=True)
    assert not desk.stack()


@pytest.mark.parametrize("suffix", ["", "-work"])
def test_what_is_to_do_holds_the_end_back(desk, suffix):
    desk.deploy()
    desk.send(suffix)
    with pytest.raises(Refused, match="changes still wait"):
        desk.destroy()
    assert desk.stack()
    desk.deploy()  # connects it again
    assert [line for line in desk.said if "tells" in line]
    desk.destroy(force=True)
    assert not desk.stack()


def test_a_queue_is_waited_for_until_it_stays_empty():
    counts = {"q": iter([3, 1, 0, 0, 0, 0, 0, 0]), "q-work": iter([0, 0, 0, 1, 0, 0, 0, 0])}
    slept = []

    class Sqs:
        def get_queue_url(self, QueueName):
            return {"QueueUrl": QueueName}

        def get_queue_attributes(self, QueueUrl, AttributeNames):
            return {"Attributes": {"ApproximateNumberOfMessagesNotVisible": str(next(counts[QueueUrl]))}}

    assert destroy.Queues(Sqs(), "q", slept.append).drained(3600)
    assert (list(map(list, counts.values())), len(slept)) == ([[], []], 7)


def test_a_queue_that_never_empties_is_not_waited_for_for_ever():
    slept = []

    class Sqs:
        def get_queue_url(self, QueueName):
            return {"QueueUrl": QueueName}

        def get_queue_attributes(self, QueueUrl, AttributeNames):
            return {"Attributes": {"ApproximateNumberOfMessages": "1"}}

    assert not destroy.Queues(Sqs(), "q", slept.append).drained(100)
    assert sum(slept) == 100
