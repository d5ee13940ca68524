"""moto's server, taught what a deployment needs and moto does not know: queue policies and alarms in CloudFormation,
change sets of which only parameters differ, termination protection. By itself it skips such resources and changes, and
no test would notice if they were wrong. Functions are never invoked: moto would ask Docker to run them.
"""

from __future__ import annotations

import json
from typing import Any

from moto.awslambda.models import LambdaBackend
from moto.cloudformation.models import Change, ChangeSet, CloudFormationBackend, cloudformation_backends
from moto.cloudformation.responses import CloudFormationResponse
from moto.cloudwatch.models import cloudwatch_backends
from moto.core.common_models import CloudFormationModel
from moto.core.responses import EmptyResult
from moto.server import main as main
from moto.sqs.models import sqs_backends

Json = dict[str, Any]


class Taught(CloudFormationModel):
    """A resource that is known by its name alone, and made again when it changes."""

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def physical_resource_id(self) -> str:
        return self.name

    @staticmethod
    def cloudformation_name_type() -> str:
        return ""

    @staticmethod
    def cloudformation_type() -> str:
        return "Tests::Taught"

    @classmethod
    def make(cls, name: str, properties: Json, account: str, region: str) -> None:
        """Makes it, or makes it anew."""

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Json, account_id: str, region_name: str, **_: object
    ) -> Taught:
        cls.make(resource_name, cloudformation_json["Properties"], account_id, region_name)
        return cls(resource_name)

    @classmethod
    def update_from_cloudformation_json(
        cls,
        original_resource: Taught,
        new_resource_name: str,
        cloudformation_json: Json,
        account_id: str,
        region_name: str,
    ) -> Taught:
        cls.make(original_resource.name, cloudformation_json["Properties"], account_id, region_name)
        return original_resource

    @classmethod
    def delete_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Json, account_id: str, region_name: str
    ) -> None:
        """A queue's policy goes with its queue."""


class QueuePolicy(Taught, CloudFormationModel):  # moto looks for direct heirs
    @staticmethod
    def cloudformation_type() -> str:
        return "AWS::SQS::QueuePolicy"

    @classmethod
    def make(cls, name: str, properties: Json, account: str, region: str) -> None:
        for url in properties["Queues"]:
            policy = {"Policy": json.dumps(properties["PolicyDocument"])}
            sqs_backends[account][region].set_queue_attributes(url.rpartition("/")[2], policy)


class Alarm(Taught, CloudFormationModel):
    @staticmethod
    def cloudformation_type() -> str:
        return "AWS::CloudWatch::Alarm"

    @classmethod
    def make(cls, name: str, properties: Json, account: str, region: str) -> None:
        cloudwatch_backends[account][region].put_metric_alarm(
            name=name,
            namespace=properties.get("Namespace", ""),
            metric_name=properties.get("MetricName", ""),
            comparison_operator=properties["ComparisonOperator"],
            evaluation_periods=properties["EvaluationPeriods"],
            period=properties.get("Period", 300),
            threshold=float(properties["Threshold"]),
            statistic=properties.get("Statistic", ""),
            extended_statistic=properties.get("ExtendedStatistic"),
            description=properties["AlarmDescription"],
            dimensions=properties.get("Dimensions", []),
            alarm_actions=properties.get("AlarmActions", []),
            unit=properties.get("Unit"),
        )

    @classmethod
    def delete_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Json, account_id: str, region_name: str
    ) -> None:
        cloudwatch_backends[account_id][region_name].delete_alarms([resource_name])


def update_termination_protection(self: CloudFormationResponse) -> EmptyResult:
    """UpdateTerminationProtection."""
    stack = cloudformation_backends[self.current_account][self.region].get_stack(self._get_param("StackName"))
    stack.enable_termination_protection = str(self._get_param("EnableTerminationProtection")).lower() == "true"
    return EmptyResult()


def diff(self: ChangeSet) -> list[Change]:
    """The changes of a change set, also of resources that refer to a parameter with another value."""
    known = self.stack.resource_map
    there, wanted = known._resource_json_map, self.template_dict["Resources"]
    named = known.build_resource_diff(self.template_dict, self.parameters)
    return [
        Change(action=action, logical_resource_id=name, resource_type={**there, **wanted}[name]["Type"])
        for action, names in named.items()
        for name in names
    ]


def execute_change_set(self: CloudFormationBackend, change_set_name: str, stack_name: str | None = None) -> None:
    """The stack also remembers the parameters."""
    change_set = [one for one in self.change_sets.values() if one.change_set_name == change_set_name][-1]
    _execute(self, change_set_name, stack_name)
    self.stacks[change_set.stack_id].parameters = change_set.parameters


def send_sqs_batch(self: LambdaBackend, function_arn: str, messages: list[object], queue_arn: str) -> bool:
    """The function did not take them, so that they stay in their queue."""
    return False


LambdaBackend.send_sqs_batch = send_sqs_batch  # type: ignore[method-assign]
_execute = CloudFormationBackend.execute_change_set
CloudFormationBackend.execute_change_set = execute_change_set  # type: ignore[method-assign]
ChangeSet.diff = diff  # type: ignore[method-assign]
CloudFormationResponse.update_termination_protection = update_termination_protection  # type: ignore[attr-defined]
