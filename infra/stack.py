"""A CloudFormation stack: change sets that are shown before they are carried out, and what went wrong, in words."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import uuid4

from botocore.exceptions import ClientError

from infra.template import Template
from replicator.errors import Refused, ReplicatorError

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient
    from mypy_boto3_cloudformation.type_defs import ChangeTypeDef, DescribeChangeSetOutputTypeDef, StackTypeDef

POLL_SECONDS = 3.0
LOOKS = 1200
"""An hour: longer than anything in this stack takes."""

QUEUES = ("Changes", "Work", "DeadLetters", "Hold")
NO_CHANGES = ("didn't contain changes", "No updates are to be performed")
NEVER_WAS = ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED")
"""What is left of a stack whose first deployment failed: there is nothing in it, and it cannot be updated."""

CHANGE_SET = "replicator"
BODY_BYTES = 51_200
"""The longest template that CloudFormation takes in a request."""

STACK_POLICY = {
    "Statement": [
        {"Effect": "Allow", "Principal": "*", "Action": "Update:*", "Resource": "*"},
        {
            "Effect": "Deny",
            "Principal": "*",
            "Action": ["Update:Replace", "Update:Delete"],
            "Resource": [f"LogicalResourceId/{name}" for name in QUEUES],
        },
    ]
}
"""CloudFormation itself refuses an update, whoever asks for it, that would lose what waits in a queue."""


class StackError(ReplicatorError):
    """CloudFormation failed; the message has the reasons of its events."""


@dataclass(frozen=True, slots=True)
class Change:
    """What a change set does to one resource. action: Add, Modify, Remove. replaced: True, False, Conditional."""

    action: str
    name: str
    type: str
    replaced: str

    def __str__(self) -> str:
        sign = {"Add": "+", "Remove": "-"}.get(self.action, "~")
        note = {"True": " (replaced)", "Conditional": " (perhaps replaced)"}.get(self.replaced, "")
        return f"{sign} {self.type} {self.name}{note}"


@dataclass(frozen=True, slots=True)
class Stack:
    """One stack by its name. sleep: takes seconds, between looks at what CloudFormation is doing."""

    client: CloudFormationClient
    name: str
    sleep: Callable[[float], None] = field(default=time.sleep)

    def status(self) -> str | None:
        """None if there is no such stack."""
        found = self._describe(self.name)
        return None if found is None else found["StackStatus"]

    def parameters(self) -> dict[str, str]:
        """Of the stack as it is; empty if there is none."""
        found = self._describe(self.name)
        given = found.get("Parameters", []) if found else []
        return {one["ParameterKey"]: one.get("ParameterValue", "") for one in given}

    def propose(self, template: Template, parameters: Mapping[str, str]) -> list[Change] | None:
        """Makes a change set, in place of one that was left behind; its changes, None if nothing would change.

        Raises StackError if CloudFormation does not take the template, Refused if a queue would be replaced or removed.
        """
        self._remove_leftover()
        self._make_change_set(template, parameters)
        answer = self._wait_for_change_set()
        if answer["Status"] == "FAILED":
            reason = answer.get("StatusReason", "")
            self.withdraw()
            if any(words in reason for words in NO_CHANGES):
                return None
            raise StackError(f"stack {self.name}: CloudFormation does not take the change set: {reason}")
        changes = [_change(one) for one in self._all_changes(answer)]
        self._refuse_loss(changes)
        return changes

    def clear(self) -> None:
        """Removes what is left of a first deployment that failed."""
        if self.status() in NEVER_WAS:
            self.delete()

    def withdraw(self) -> None:
        """Forgets the change set, and a stack that it alone had begun."""
        self._remove_leftover()

    def execute(self) -> None:
        """Carries the change set out and waits for the end. Raises StackError with the reasons of what failed."""
        token = str(uuid4())
        self.client.execute_change_set(StackName=self.name, ChangeSetName=CHANGE_SET, ClientRequestToken=token)
        self._wait("deployed", token)

    def protect(self) -> list[str]:
        """Sets the stack's policy, and that only `make destroy` may delete it. What did not work, in words."""
        self.client.set_stack_policy(StackName=self.name, StackPolicyBody=json.dumps(STACK_POLICY))
        return self._protection(wanted=True)

    def delete(self) -> None:
        """Deletes the stack and waits for the end. Raises StackError with the reasons of what failed."""
        found = self._describe(self.name)
        if found is None:
            return
        if found.get("EnableTerminationProtection"):
            self._protection(wanted=False)
        token = str(uuid4())
        self.client.delete_stack(StackName=self.name, ClientRequestToken=token)
        self._wait("deleted", token, stack=found.get("StackId", self.name))

    def _remove_leftover(self) -> None:
        """What a deployment that was interrupted left: a change set, or a stack with nothing but a change set."""
        status = self.status()
        if status == "REVIEW_IN_PROGRESS":
            self.delete()
        elif status is not None:
            for one in self.client.list_change_sets(StackName=self.name)["Summaries"]:
                if (one.get("StackName"), one.get("ChangeSetName")) == (self.name, CHANGE_SET):
                    self.client.delete_change_set(StackName=self.name, ChangeSetName=CHANGE_SET)

    def _make_change_set(self, template: Template, parameters: Mapping[str, str]) -> None:
        is_new = self.status() is None
        try:
            self.client.create_change_set(
                StackName=self.name,
                ChangeSetName=CHANGE_SET,
                ChangeSetType="CREATE" if is_new else "UPDATE",
                TemplateBody=body(template),
                Parameters=[{"ParameterKey": name, "ParameterValue": text} for name, text in parameters.items()],
                Capabilities=["CAPABILITY_IAM"],
                Tags=[{"Key": "replicator", "Value": self.name}],
            )
        except ClientError as error:
            raise StackError(f"stack {self.name}: CloudFormation does not take the template: {error}") from error

    def _wait_for_change_set(self) -> DescribeChangeSetOutputTypeDef:
        while True:
            answer = self.client.describe_change_set(StackName=self.name, ChangeSetName=CHANGE_SET)
            if answer["Status"] not in ("CREATE_PENDING", "CREATE_IN_PROGRESS"):
                return answer
            self.sleep(POLL_SECONDS)

    def _all_changes(self, answer: DescribeChangeSetOutputTypeDef) -> list[ChangeTypeDef]:
        changes = list(answer.get("Changes", []))
        while token := answer.get("NextToken"):
            answer = self.client.describe_change_set(StackName=self.name, ChangeSetName=CHANGE_SET, NextToken=token)
            changes += answer.get("Changes", [])
        return changes

    def _refuse_loss(self, changes: list[Change]) -> None:
        lost = [one for one in changes if one.name in QUEUES and (one.action == "Remove" or one.replaced != "False")]
        lost = [one for one in lost if one.action != "Add"]
        if lost:
            self.withdraw()
            raise Refused(
                f"stack {self.name}: this would replace {', '.join(one.name for one in lost)}, and lose what waits "
                "there; give the QUEUE it was made with, or `make destroy` first"
            )

    def _wait(self, what: str, token: str, *, stack: str | None = None) -> None:
        for _ in range(LOOKS):
            found = self._describe(stack or self.name)
            status = found["StackStatus"] if found else "DELETE_COMPLETE"
            if not status.endswith("_IN_PROGRESS"):
                break
            self.sleep(POLL_SECONDS)
        wanted = ("DELETE_COMPLETE",) if what == "deleted" else ("CREATE_COMPLETE", "UPDATE_COMPLETE")
        if status not in wanted:
            raise StackError(f"stack {self.name} was not {what} ({status}):{self._reasons(stack or self.name, token)}")

    def _reasons(self, stack: str, token: str) -> str:
        """What failed of what we asked for, oldest first, less what was only cancelled with it."""
        lines = []
        for page in self.client.get_paginator("describe_stack_events").paginate(StackName=stack):
            for event in page["StackEvents"]:
                said = event.get("ResourceStatusReason", "")
                failed = event.get("ResourceStatus", "").endswith("_FAILED") and "cancelled" not in said
                if failed and event.get("ClientRequestToken") == token:
                    lines.append(f"\n  {event.get('LogicalResourceId')}: {said}")
        return "".join(reversed(lines)) or " CloudFormation gives no reason"

    def _protection(self, *, wanted: bool) -> list[str]:
        try:
            self.client.update_termination_protection(StackName=self.name, EnableTerminationProtection=wanted)
        except ClientError as error:
            return [f"termination protection was not switched {'on' if wanted else 'off'}: {error}"]
        return []

    def _describe(self, stack: str) -> StackTypeDef | None:
        try:
            found = self.client.describe_stacks(StackName=stack)["Stacks"]
        except ClientError as error:
            if "does not exist" in str(error):
                return None
            raise
        return found[0] if found and found[0]["StackStatus"] != "DELETE_COMPLETE" else None


def body(template: Template) -> str:
    """As CloudFormation is told it; the same template is the same text."""
    return json.dumps(template, sort_keys=True, separators=(",", ":"))


def _change(change: ChangeTypeDef) -> Change:
    resource = change["ResourceChange"]
    replaced = str(resource.get("Replacement", "False"))
    return Change(
        str(resource["Action"]), resource.get("LogicalResourceId", ""), resource.get("ResourceType", ""), replaced
    )
