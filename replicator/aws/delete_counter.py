"""What the workers of a route have taken of its budgets for deletes, in a table of DynamoDB.

| attribute | type | what                                                              |
|-----------|------|-------------------------------------------------------------------|
| route     | S    | partition key                                                     |
| hour      | N    | sort key: hours since the epoch                                   |
| deletes   | N    | taken in this hour                                                |
| changes   | N    | noted in this hour                                                |
| expires   | N    | the table's time to live: seconds since the epoch, two days later |

UpdateItem decides and adds in one step, whoever else does so at the same moment
(docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_UpdateItem.html). Needs that, and Query.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

from replicator.errors import ReplicatorError

HOUR = 3600

KEPT_HOURS = 48

CONNECT_SECONDS, READ_SECONDS, TRIES = 2, 3, 3
"""A table that does not answer must not take an invocation's time: deletes are parked instead."""


class DynamoDeleteCounter:
    """As DeleteCounter of replicator.live.brake.

    table: its name or ARN. client: boto3's for DynamoDB; made when it is first needed unless given.
    """

    def __init__(self, table: str, client: Any = None) -> None:  # noqa: ANN401 - boto3 makes its class at run time
        self._table = table
        self._client = client
        self._opening = Lock()

    def take(self, route: str, hour: int, wanted: int, limit: int) -> int:
        """As DeleteCounter. One request, one more at the end of the budget. A request that is repeated counts twice."""
        left = min(wanted, limit)
        while left > 0:
            taken = self._add("deletes", route, hour, left, limit=limit)
            if taken is None:
                return left
            left = min(left - 1, limit - taken)
        return 0

    def note(self, route: str, hour: int, changes: int) -> None:
        """As DeleteCounter. One request."""
        self._add("changes", route, hour, changes)

    def recent(self, route: str, first: int, last: int) -> int:
        """As DeleteCounter. One request."""
        with self._explained():
            answer = self._dynamodb().query(
                TableName=self._table,
                ConsistentRead=True,
                KeyConditionExpression="#route = :route AND #hour BETWEEN :first AND :last",
                ProjectionExpression="#changes",
                ExpressionAttributeNames={"#route": "route", "#hour": "hour", "#changes": "changes"},
                ExpressionAttributeValues={":route": {"S": route}, ":first": _number(first), ":last": _number(last)},
            )
        return sum(int(row["changes"]["N"]) for row in answer["Items"] if "changes" in row)

    def _add(self, name: str, route: str, hour: int, count: int, *, limit: int | None = None) -> int | None:
        """Adds to an attribute, unless that would be more than `limit`: then it returns what is there."""
        request: dict[str, Any] = {
            "TableName": self._table,
            "Key": {"route": {"S": route}, "hour": _number(hour)},
            "UpdateExpression": "ADD #name :count SET #expires = :expires",
            "ExpressionAttributeNames": {"#name": name, "#expires": "expires"},
            "ExpressionAttributeValues": {":count": _number(count), ":expires": _number((hour + KEPT_HOURS) * HOUR)},
        }
        if limit is not None:
            request["ConditionExpression"] = "attribute_not_exists(#name) OR #name <= :room"
            request["ExpressionAttributeValues"][":room"] = _number(limit - count)
            request["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD"
        with self._explained():
            client = self._dynamodb()
            try:
                client.update_item(**request)
            except client.exceptions.ConditionalCheckFailedException as refused:
                return int(refused.response["Item"][name]["N"])
        return None

    @contextmanager
    def _explained(self) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except (BotoCoreError, ClientError) as error:
            raise ReplicatorError(f"DynamoDB table {self._table}: {error}") from error

    def _dynamodb(self) -> Any:  # noqa: ANN401 - as above
        with self._opening:
            if self._client is None:
                import boto3
                from botocore.config import Config

                config = Config(
                    connect_timeout=CONNECT_SECONDS,
                    read_timeout=READ_SECONDS,
                    retries={"mode": "standard", "total_max_attempts": TRIES},
                )
                self._client = boto3.client("dynamodb", config=config)
            return self._client


def _number(value: int) -> dict[str, str]:
    return {"N": str(value)}
