"""The template of a deployment: fragments, chalice's functions, settings -> one plain CloudFormation template. Pure.

    templates/*.yaml  --fragments()-->  merged with what chalice says of its functions  --finished()-->  CloudFormation

The SAM resources that chalice makes are translated here and not at AWS: so what tests deploy is what AWS is told, a
change set names the resources that change, and nobody needs CAPABILITY_AUTO_EXPAND.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boto3 import Session
from chalicelib.permissions import policies
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator
from samtranslator.yaml_helper import yaml_parse

from infra.settings import Deployment

TEMPLATES = Path(__file__).parent / "templates"
FUNCTION = "AWS::Serverless::Function"

Template = dict[str, Any]


class TemplateError(Exception):
    """The app and the templates do not fit together: a mistake in this repository."""


@dataclass(frozen=True, slots=True)
class Account:
    """Where a stack is made."""

    partition: str
    region: str
    number: str

    def queue_url(self, name: str) -> str:
        """As AWS says it; what is not AWS may say it otherwise, and the stack takes what it is told."""
        return f"https://sqs.{self.region}.amazonaws.com/{self.number}/{name}"


def fragments(deployment: Deployment) -> Template:
    """All of the template that is not chalice's, for `chalice package --merge-template`."""
    names = ["queues", "mirror", "batch", "watch"]
    names += ["reconcile"] if deployment.reconciles else []
    names += ["urls"] if deployment.variables.get("URLS_PREFIXES") else []
    names += ["eventbridge"] if deployment.events == "eventbridge" else []
    names += ["fargate"] if deployment.image else []
    merged: Template = {}
    for name in names:
        merged = _merge(merged, yaml_parse((TEMPLATES / f"{name}.yaml").read_text()))
    merged["Description"] = f"Bucket replicator: mirrors {deployment.bucket}"
    merged["Parameters"] |= {"ArtifactBucket": {"Type": "String"}, "CodeKey": {"Type": "String"}}
    return merged


def finished(sam: Template, deployment: Deployment, account: Account) -> Template:
    """What CloudFormation is told. sam: what `chalice package` wrote.

    Raises TemplateError if the app has a function without a fragment, or a fragment is about a function it has not.
    """
    template = copy.deepcopy(sam)
    resources = template["Resources"]
    _check(resources)
    for name, resource in resources.items():
        if resource["Type"] == FUNCTION:
            _finish_function(resource["Properties"], deployment)
        if resource["Type"] == "AWS::IAM::Role" and name not in ("BatchJobRole", "TaskRole", "TaskExecutionRole"):
            _finish_role(name, resource["Properties"], account)
    if deployment.image:
        _finish_task(resources, deployment, account)
    logging.getLogger("samtranslator").setLevel(logging.ERROR)  # it warns of metrics of its own
    session = Session(region_name=account.region)
    translator = Translator({}, Parser(), boto_session=session)
    translated: Template = translator.translate(template, parameter_values={})
    return translated


def parameters(deployment: Deployment, template: Template, *, artifact_bucket: str, code_key: str) -> dict[str, str]:
    """A value for each parameter that the template has."""
    values = {
        "SourceBucket": deployment.bucket,
        "QueueName": deployment.queue,
        "KmsKeyArn": deployment.kms_key,
        "AlarmTopicArn": deployment.alarm_topic,
        "BatchBucket": deployment.batch_bucket,
        "ArtifactBucket": artifact_bucket,
        "CodeKey": code_key,
        "Image": deployment.image or "",
        "TaskCpu": deployment.task_cpu,
        "TaskArchitecture": {"arm64": "ARM64", "x86_64": "X86_64"}[deployment.architecture],
        **{name: str(number) for name, number in deployment.numbers.items()},
    }
    return {name: values[name] for name in template["Parameters"]}


def variables_for_chalice(deployment: Deployment, account: Account) -> dict[str, str]:
    """The Lambda's variables, with names that the stack is going to give: policies are made from them."""
    return {
        **deployment.variables,
        "QUEUE_URL": account.queue_url(deployment.queue),
        "DEAD_LETTERS_URL": account.queue_url(f"{deployment.queue}-dead"),
        "HOLD_QUEUE_URL": account.queue_url(f"{deployment.queue}-hold"),
        "WORK_QUEUE": f"{deployment.queue}-work",
        "BRAKE_TABLE": deployment.queue,
    }


def _check(resources: Mapping[str, Any]) -> None:
    for name, resource in resources.items():
        properties = resource.get("Properties", {})
        if "Type" not in resource:
            raise TemplateError(f"syncer/app.py has no function for {name}, of which infra/templates speaks")
        if resource["Type"] == FUNCTION and "LoggingConfig" not in properties:
            raise TemplateError(f"infra/templates says nothing of {name}, which syncer/app.py has")


def _finish_function(properties: dict[str, Any], deployment: Deployment) -> None:
    properties["CodeUri"] = {"Bucket": {"Ref": "ArtifactBucket"}, "Key": {"Ref": "CodeKey"}}
    properties.setdefault("Environment", {}).setdefault("Variables", {}).update(_environment(deployment))
    properties.pop("Tags", None)  # chalice's version: every function would change with it
    if (changes := properties.get("Events", {}).get("MirrorSqsEventSource")) is not None:
        changes["Properties"]["Queue"] = {"Fn::GetAtt": ["Changes", "Arn"]}  # chalice's words do not wait for the queue


def _environment(deployment: Deployment) -> dict[str, Any]:
    return {
        **deployment.variables,
        "QUEUE": {"Ref": "QueueName"},
        "QUEUE_URL": {"Ref": "Changes"},
        "DEAD_LETTERS_URL": {"Ref": "DeadLetters"},
        "HOLD_QUEUE_URL": {"Ref": "Hold"},
        "WORK_QUEUE_URL": {"Ref": "Work"},
        "BRAKE_TABLE": {"Ref": "Brake"},
    }


def _finish_role(name: str, properties: dict[str, Any], account: Account) -> None:
    """Chalice's role of a function: its own log group instead of all, and region and account instead of wildcards."""
    logs = {"MirrorRole": "Mirror", "ReconcileRole": "Reconcile", "BatchRole": "Batch", "ApiHandlerRole": "Urls"}
    document = properties["Policies"][0]["PolicyDocument"]
    statements = [one for one in document["Statement"] if not one["Action"][0].startswith("logs:")]
    document["Statement"] = [*_localised(statements, account), _logging(f"{logs[name]}Logs")]


def _finish_task(resources: dict[str, Any], deployment: Deployment, account: Account) -> None:
    """The migration may do what the mirror may, but for receiving."""
    granted = policies(variables_for_chalice(deployment, account))["batch"]["Statement"]
    statements = [one for one in granted if not one["Action"][0].startswith("logs:")]  # type: ignore[attr-defined]
    policy = {"Version": "2012-10-17", "Statement": _localised(statements, account)}
    resources["TaskRole"]["Properties"]["Policies"] = [{"PolicyName": "migrate", "PolicyDocument": policy}]
    (container,) = resources["MigrateTask"]["Properties"]["ContainerDefinitions"]
    variables = {**_environment(deployment), "AWS_DEFAULT_REGION": {"Ref": "AWS::Region"}}
    container["Environment"] = [{"Name": name, "Value": variables[name]} for name in sorted(variables)]


def _logging(group: str) -> Template:
    actions = ["logs:CreateLogStream", "logs:PutLogEvents"]
    return {"Effect": "Allow", "Action": actions, "Resource": {"Fn::GetAtt": [group, "Arn"]}}


def _localised(statements: list[dict[str, Any]], account: Account) -> list[dict[str, Any]]:
    return [{**one, "Resource": _local(one["Resource"], account)} for one in statements]


def _local(arn: str, account: Account) -> str:
    words = arn.split(":", 5)
    if len(words) < 6:
        return arn
    region = account.region if words[3] == "*" else words[3]
    number = account.number if words[4] == "*" else words[4]
    return ":".join((words[0], account.partition, words[2], region, number, words[5]))


def _merge(one: Any, other: Any) -> Any:  # noqa: ANN401 - whatever YAML holds
    """other over one; of dictionaries, by key."""
    if not (isinstance(one, dict) and isinstance(other, dict)):
        return copy.deepcopy(other)
    return {**one, **{key: _merge(one.get(key), value) for key, value in other.items()}}
