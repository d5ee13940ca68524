"""What chalice makes of syncer/: the package has all it needs and nothing secret, and can be deployed and removed."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import boto3
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
SECONDS = 400
CHALICE = Path(sysconfig.get_path("scripts")) / "chalice"
SHELL = {"SOURCE_BUCKET": "the-source/dir", "TARGET_BUCKET": "s3://the-target", "AWS_DEFAULT_REGION": "us-east-1"}
COLD = ("boto3", "botocore.session", "aws_xray_sdk", "click", "rich")


def module(name):
    """A module of syncer/chalicelib, without a chalice around it."""
    path = ROOT / "syncer" / "chalicelib" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"{name}_under_test", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def deployment():
    return module("deployment")


def copy_tree(folder):
    """syncer/ and replicator/ as they are committed, without what chalice has remembered here."""
    ignored = shutil.ignore_patterns("__pycache__", "deployed", "deployments", "deployment.json", "policy*.json")
    shutil.copytree(ROOT / "syncer", folder / "syncer", symlinks=True, ignore=ignored)
    shutil.copytree(ROOT / "replicator", folder / "replicator", ignore=ignored)
    assert (folder / "syncer" / "vendor" / "replicator").resolve() == folder / "replicator"
    return folder


OURS = (
    *("SOURCE_", "TARGET_", "ENDPOINT", "DELETE", "MAX_DELETES", "CONCURRENCY", "MEMORY_BYTES", "TRACING", "URLS_"),
    *("QUEUE", "DEAD_LETTERS_URL", "HOLD_QUEUE_URL", "BRAKE_TABLE", "RECONCILE", "REPLICATOR_CONFIG", "MORE_", "KMS_"),
)
"""What the names of the variables begin with that the app carries into its package."""


def chalice(folder, *words, **variables):
    """The command, in an environment that has nothing of what the app carries into the package but SHELL."""
    system = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    done = subprocess.run(
        [CHALICE, *words],
        cwd=folder / "syncer",
        env={**system, **SHELL, **variables},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert "Could not install dependencies" not in done.stdout + done.stderr, done
    return done


def package(folder, name):
    done = chalice(folder, "package", str(folder / name))
    assert done.returncode == 0, done
    return folder / name / "deployment.zip"


def contents(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist() if "__pycache__" not in name}


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return copy_tree(tmp_path_factory.mktemp("package"))


@pytest.fixture(scope="module")
def archive(tree):
    return package(tree, "first")


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """An interpreter with nothing but its standard library."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    return folder / "bin" / "python"


def test_the_package_has_the_library_the_settings_and_what_the_library_needs(archive):
    names = contents(archive).keys()
    ours = {str(path.relative_to(ROOT)) for path in (ROOT / "replicator").rglob("*.py")}
    assert ours <= names
    assert {"app.py", "chalicelib/deployment.py", "chalicelib/deployment.json"} <= names
    for needed in ("awscrt/", "httptools/", "aws_lambda_powertools/", "chalice/"):
        assert [name for name in names if name.startswith(needed)], needed


def test_the_settings_of_the_shell_are_in_the_package(archive):
    packed = json.loads(contents(archive)["chalicelib/deployment.json"])
    assert packed == {
        "SOURCE_BUCKET": "the-source/dir",
        "TARGET_BUCKET": "s3://the-target",
        "QUEUE": "replicator-the-source",
    }


def test_the_app_imports_from_the_package_alone_and_leaves_the_heavy_modules_alone(archive, bare, tmp_path):
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(tmp_path)
    program = (
        "import app, json, sys; print(json.dumps([app.ENVIRONMENT['QUEUE'], callable(app.mirror), list(sys.modules)]))"
    )
    variables = {"AWS_LAMBDA_FUNCTION_NAME": "mirror", "AWS_REGION": "us-east-1", "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [bare, "-c", program], cwd=tmp_path, env=variables, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    queue, handles, modules = json.loads(done.stdout)
    assert (queue, handles) == ("replicator-the-source", True)
    assert "replicator.live.mirror" in modules
    assert [module for module in COLD if module in modules] == []


def template(tree, name, **variables):
    """What CloudFormation would be told."""
    done = chalice(tree, "package", str(tree / name), **variables)
    assert done.returncode == 0, done
    return json.loads((tree / name / "sam.json").read_text())


def test_without_prefixes_for_urls_there_is_no_api(tree):
    said = json.dumps(template(tree, "without-urls"))
    assert "AWS::Serverless::Api" not in said
    assert "/urls" not in said


def test_with_prefixes_for_urls_there_is_one_route_and_iam_guards_it(tree, bare, tmp_path):
    told = template(tree, "with-urls", URLS_PREFIXES="reports", URLS_MAX_EXPIRY="5m")
    (api,) = [one for one in told["Resources"].values() if one["Type"] == "AWS::Serverless::Api"]
    body = api["Properties"]["DefinitionBody"]
    assert {path: [*methods] for path, methods in body["paths"].items()} == {"/urls": ["post"]}
    assert body["paths"]["/urls"]["post"]["security"] == [{"sigv4": []}]
    assert body["securityDefinitions"]["sigv4"]["x-amazon-apigateway-authtype"] == "awsSigv4"
    with zipfile.ZipFile(tree / "with-urls" / "deployment.zip") as packed:
        packed.extractall(tmp_path)
    loaded = f"[name for name in {COLD} if name in sys.modules]"
    program = f"import app, sys; print(app.ENVIRONMENT['URLS_MAX_EXPIRY'], [*app.app.routes], {loaded})"
    variables = {"AWS_LAMBDA_FUNCTION_NAME": "mirror", "AWS_REGION": "us-east-1", "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [bare, "-c", program], cwd=tmp_path, env=variables, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "5m ['/urls'] []\n", "")


def test_an_edit_of_the_library_is_another_package_and_no_edit_is_not(tree, archive):
    before = contents(archive)
    assert contents(package(tree, "again")) == before
    edited = tree / "replicator" / "model.py"
    kept = edited.read_text()
    edited.write_text(kept + "\nEDITED = True\n")
    try:
        after = contents(package(tree, "edited"))
    finally:
        edited.write_text(kept)
    assert [name for name in after if after[name] != before.get(name)] == ["replicator/model.py"]


@pytest.mark.parametrize("name", ["SOURCE_SECRET_ACCESS_KEY", "TARGET_SECRET_ACCESS_KEY"])
def test_a_secret_in_the_shell_is_refused_and_not_packed(tree, name):
    done = chalice(tree, "package", str(tree / "refused"), **{name: "hush-hush"})
    assert done.returncode != 0
    assert name in done.stdout + done.stderr
    assert "hush" not in done.stdout + done.stderr
    assert not (tree / "refused" / "deployment.zip").exists()


def test_a_shell_without_buckets_is_refused(tree):
    done = chalice(tree, "package", str(tree / "refused"), TARGET_BUCKET="")
    assert done.returncode != 0
    assert "TARGET_BUCKET is not set" in done.stdout + done.stderr


def test_the_app_is_deployed_twice_and_deleted(tree, moto_endpoint):
    account = {
        "AWS_ENDPOINT_URL": moto_endpoint.url,
        "AWS_ACCESS_KEY_ID": moto_endpoint.access_key,
        "AWS_SECRET_ACCESS_KEY": moto_endpoint.secret_key,
    }
    here = {
        "endpoint_url": moto_endpoint.url,
        "region_name": "us-east-1",
        "aws_access_key_id": moto_endpoint.access_key,
        "aws_secret_access_key": moto_endpoint.secret_key,
    }
    functions, sqs, iam = (boto3.client(service, **here) for service in ("lambda", "sqs", "iam"))
    sqs.create_queue(QueueName="replicator-the-source")
    for _ in range(2):
        done = chalice(tree, "deploy", **account)
        assert done.returncode == 0, done
        found = {one["Handler"]: one for one in functions.list_functions()["Functions"]}
        assert set(found) == {"app.mirror", "app.batch"}
        (mapping,) = functions.list_event_source_mappings()["EventSourceMappings"]
        assert mapping["EventSourceArn"].endswith(":replicator-the-source")
        assert mapping["BatchSize"] == 10
        assert "FunctionResponseTypes" not in mapping
    function = found["app.mirror"]
    assert not [name for name in function["Environment"]["Variables"] if "SECRET" in name]
    role = function["Role"].rpartition("/")[2]
    (policy,) = iam.list_role_policies(RoleName=role)["PolicyNames"]
    document = iam.get_role_policy(RoleName=role, PolicyName=policy)["PolicyDocument"]
    assert "arn:aws:s3:::the-target/*" in resources(document, "s3:PutObject")
    assert chalice(tree, "delete", **account).returncode == 0
    assert functions.list_functions()["Functions"] == []
    assert functions.list_event_source_mappings()["EventSourceMappings"] == []
    for client in (functions, sqs, iam):
        client.close()


def resources(document, action):
    return [one["Resource"] for one in document["Statement"] if action in one["Action"]]


# The settings and the policy, without chalice


@pytest.mark.parametrize("name", ["SOURCE_BUCKET", "TARGET_BUCKET"])
@pytest.mark.parametrize("text", [None, ""])
def test_a_missing_bucket_is_refused(name, text):
    shell = {**SHELL, name: text}
    with pytest.raises(SystemExit, match=f"{name} is not set"):
        deployment().carried({key: value for key, value in shell.items() if value is not None})


@pytest.mark.parametrize("side", ["SOURCE", "TARGET"])
def test_secrets_are_refused_with_a_hint_and_without_their_value(side):
    with pytest.raises(SystemExit, match=f"{side}_SECRET_ACCESS_KEY .*{side}_SECRET_ID") as caught:
        deployment().carried({**SHELL, f"{side}_SECRET_ACCESS_KEY": "hush"})
    assert "hush" not in str(caught.value)


def test_only_settings_are_carried():
    shell = {
        **SHELL,
        "TARGET_ENDPOINT": "https://there",
        "TARGET_SECRET_ID": "s",
        "DELETES": "mirror",
        "SOURCE_REGION": "",
        "TARGET_ACCESS_KEY_ID": "id",
        "TARGET_SESSION_TOKEN": "hush",
        "AWS_SECRET_ACCESS_KEY": "hush",
        "PATH": "/bin",
    }
    assert deployment().carried(shell) == {
        "SOURCE_BUCKET": "the-source/dir",
        "TARGET_BUCKET": "s3://the-target",
        "TARGET_ENDPOINT": "https://there",
        "TARGET_SECRET_ID": "s",
        "DELETES": "mirror",
        "QUEUE": "replicator-the-source",
    }


def test_a_queue_may_be_named():
    assert deployment().carried({**SHELL, "QUEUE": "mine"})["QUEUE"] == "mine"


@pytest.mark.parametrize(
    ("bucket", "queue"),
    [
        ("b", "replicator-b"),
        ("s3://b/prefix", "replicator-b"),
        ("with.dots.in", "replicator-with-dots-in"),
        ("x" * 255, "replicator-" + "x" * 69),
    ],
)
def test_a_queue_has_a_name_that_sqs_takes(bucket, queue):
    assert deployment().queue_name(bucket) == queue
    assert len(queue) <= 80


def policies(**shell):
    return module("permissions").policies(deployment().carried({**SHELL, **shell}))


def policy(**shell):
    """Of the function that mirrors."""
    return policies(**shell)["mirror"]


def of_urls(**shell):
    """Of the function that signs URLs."""
    return policies(**shell)["api_handler"]


@pytest.mark.parametrize("shell", [{}, {"TARGET_ENDPOINT": "https://there"}, {"ENDPOINT": "https://there"}])
def test_no_s3_action_is_allowed_everywhere(shell):
    for statement in policy(**shell)["Statement"]:
        assert statement["Effect"] == "Allow"
        assert "*" not in "".join(statement["Action"])
        if any(action.startswith("s3:") for action in statement["Action"]):
            assert statement["Resource"].startswith(("arn:aws:s3:::the-source", "arn:aws:s3:::the-target"))


def test_the_source_is_read_and_never_written():
    changing = ("s3:Put", "s3:Delete", "s3:Abort", "s3:Restore")
    for statement in policy()["Statement"]:
        if "the-source" in statement["Resource"]:
            assert not [action for action in statement["Action"] if action.startswith(changing)]
    assert resources(policy(), "s3:GetObject") == ["arn:aws:s3:::the-source/*", "arn:aws:s3:::the-target/*"]
    assert resources(policy(), "s3:ListBucket") == ["arn:aws:s3:::the-source", "arn:aws:s3:::the-target"]


@pytest.mark.parametrize("name", ["TARGET_ENDPOINT", "ENDPOINT"])
def test_a_target_elsewhere_is_none_of_the_policys_business(name):
    assert "the-target" not in json.dumps(policy(**{name: "https://there"}))


def test_the_queue_and_the_secrets_are_allowed_by_name():
    document = policy(TARGET_SECRET_ID="in/manager", SOURCE_SECRET_ID="arn:aws:secretsmanager:x:1:secret:y-abc")
    assert resources(document, "sqs:DeleteMessage") == ["arn:aws:sqs:*:*:replicator-the-source"]
    assert sorted(resources(document, "secretsmanager:GetSecretValue")) == [
        "arn:aws:secretsmanager:*:*:secret:in/manager-??????",
        "arn:aws:secretsmanager:x:1:secret:y-abc",
    ]
    assert resources(policy(), "secretsmanager:GetSecretValue") == []


@pytest.mark.parametrize("module", ["replicator.cli.main", "replicator.live.mirror", "migrate.__main__"])
def test_the_library_and_the_container_do_not_know_chalice(module):
    foreign = "[name for name in sys.modules if name.split('.')[0] in ('chalice', 'aws_lambda_powertools')]"
    program = f"import {module}, sys; print({foreign})"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "[]", "")


@pytest.mark.parametrize(
    ("name", "value"), [("DELETES", "yes"), ("TARGET_ENDPOINT", "objects.example.com"), ("SOURCE_BUCKET", "s3:/from")]
)
def test_settings_that_the_lambda_could_not_read_are_not_deployed(name, value):
    with pytest.raises(SystemExit) as refused:
        deployment().carried({"SOURCE_BUCKET": "the-source", "TARGET_BUCKET": "the-target", name: value})
    assert name in str(refused.value)


# URLs


def test_what_urls_are_to_allow_is_allowed_to_the_role_and_no_more():
    shell = {"URLS_BUCKET": "the-target/public", "URLS_PREFIXES": "reports,a*b?${c}/"}
    within = ["arn:aws:s3:::the-target/public/reports/*", "arn:aws:s3:::the-target/public/a${*}b${?}${$}{c}/*"]
    assert resources(of_urls(**shell), "s3:GetObject") == within
    assert resources(of_urls(**shell), "s3:PutObject") == []
    assert resources(of_urls(**shell, URLS_METHODS="put"), "s3:PutObject") == within
    assert resources(of_urls(**shell, URLS_METHODS="put"), "s3:GetObject") == []
    assert policy(**shell) == policy()


def test_urls_for_everything_and_for_nothing():
    everything = of_urls(URLS_PREFIXES="*", URLS_BUCKET="the-source")
    assert resources(everything, "s3:GetObject") == ["arn:aws:s3:::the-source/*"]
    assert of_urls(URLS_BUCKET="the-source") == of_urls()
    elsewhere = of_urls(URLS_PREFIXES="*", TARGET_ENDPOINT="https://there")
    assert elsewhere == of_urls()


def test_the_settings_of_urls_are_carried():
    given = {"URLS_PREFIXES": "a,b", "URLS_MAX_EXPIRY": "5m", "URLS_METHODS": "put", "URLS_BUCKET": "other/dir"}
    assert deployment().carried({**SHELL, **given, "URLS_TOKEN": "hush"}).items() >= given.items()
    assert "URLS_TOKEN" not in deployment().carried({**SHELL, **given, "URLS_TOKEN": "hush"})


@pytest.mark.parametrize(
    ("name", "value"), [("URLS_MAX_EXPIRY", "8d"), ("URLS_METHODS", "delete"), ("URLS_BUCKET", "s3:/x")]
)
def test_settings_of_urls_that_the_lambda_could_not_read_are_not_deployed(name, value):
    with pytest.raises(SystemExit, match=name):
        deployment().carried({**SHELL, "URLS_PREFIXES": "*", name: value})


# What the queue engine and the brake need, where somebody made it by hand


QUEUES = {
    "QUEUE_URL": "https://sqs.eu-west-1.amazonaws.com/123456789012/replicator-the-source",
    "DEAD_LETTERS_URL": "https://sqs.eu-west-1.amazonaws.com/123456789012/dead",
    "HOLD_QUEUE_URL": "https://sqs.eu-west-1.amazonaws.com/123456789012/hold",
    "BRAKE_TABLE": "brake",
    "RECONCILE": "rate(1 day)",
}


def test_queues_and_table_are_carried_and_allowed_if_they_are_given():
    assert deployment().carried({**SHELL, **QUEUES}).items() >= QUEUES.items()
    assert resources(policy(**QUEUES), "sqs:SendMessage") == [
        "arn:aws:sqs:*:123456789012:replicator-the-source",
        "arn:aws:sqs:*:123456789012:dead",
        "arn:aws:sqs:*:123456789012:hold",
    ]
    assert resources(policy(**QUEUES), "dynamodb:UpdateItem") == ["arn:aws:dynamodb:*:*:table/brake"]
    assert resources(policy(), "sqs:SendMessage") == ["arn:aws:sqs:*:*:replicator-the-source"]
    assert resources(policy(), "dynamodb:UpdateItem") == []


def test_work_items_are_sent_to_their_own_queue_if_the_stack_has_one():
    own = {**QUEUES, "WORK_QUEUE": "work"}
    assert resources(policy(**own), "sqs:SendMessage")[0] == "arn:aws:sqs:*:*:work"
    assert resources(policy(**own), "sqs:ReceiveMessage") == [
        "arn:aws:sqs:*:123456789012:replicator-the-source",
        "arn:aws:sqs:*:*:work",
    ]
    shell = {**SHELL, **QUEUES, "WORK_QUEUE_URL": "https://sqs.eu-west-1.amazonaws.com/123456789012/work"}
    assert "WORK_QUEUE_URL" not in deployment().carried(shell), "of which plain chalice would not take anything"


def test_what_reconciles_may_send_and_nothing_else():
    actions = [action for one in policies(**QUEUES)["reconcile"]["Statement"] for action in one["Action"]]
    assert sorted(action for action in actions if not action.startswith("logs:")) == [
        "sqs:GetQueueUrl",
        "sqs:SendMessage",
    ]


def test_a_file_with_routes_says_where_to_so_that_no_target_is_asked_for():
    shell = {"TARGET_BUCKET": "", "REPLICATOR_CONFIG": "s3://conf/a*.toml", "MORE_TARGETS": "one, two"}
    assert resources(policy(**shell), "s3:PutObject") == ["arn:aws:s3:::one/*", "arn:aws:s3:::two/*"]
    assert "arn:aws:s3:::conf/a${*}.toml" in resources(policy(**shell), "s3:GetObject")
