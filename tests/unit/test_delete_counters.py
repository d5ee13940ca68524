"""What a count of deletes promises: in memory, in DynamoDB, in a catalogue of SQLite and of PostgreSQL alike."""

from __future__ import annotations

import threading
import uuid

import boto3
import pytest
from sqlalchemy import create_engine, text

from replicator.aws.delete_counter import DynamoDeleteCounter
from replicator.catalogue.database import Database
from replicator.catalogue.delete_counter import CatalogueDeleteCounter
from replicator.catalogue.place import catalogue_url
from replicator.errors import ReplicatorError
from replicator.live.brake import MemoryCounter
from tests.servers.base import HOST, free_port

ROUTE, HOUR = "a-to-b", 500_000


def dynamodb(endpoint):
    """(client, table) of a new table, as the template makes it."""
    client = boto3.client(
        "dynamodb",
        endpoint_url=endpoint.url,
        region_name="us-east-1",
        aws_access_key_id=endpoint.access_key,
        aws_secret_access_key=endpoint.secret_key,
    )
    table = f"budgets-{uuid.uuid4().hex[:12]}"
    client.create_table(
        TableName=table,
        AttributeDefinitions=[
            {"AttributeName": "route", "AttributeType": "S"},
            {"AttributeName": "hour", "AttributeType": "N"},
        ],
        KeySchema=[{"AttributeName": "route", "KeyType": "HASH"}, {"AttributeName": "hour", "KeyType": "RANGE"}],
        BillingMode="PAY_PER_REQUEST",
    )
    return client, table


@pytest.fixture(params=["memory", "dynamodb", "sqlite", "postgresql"])
def workers(request, tmp_path):
    """Makes the counter of one more worker."""
    if request.param == "memory":
        one = MemoryCounter()
        yield lambda: one
    elif request.param == "dynamodb":
        client, table = dynamodb(request.getfixturevalue("moto_endpoint"))
        yield lambda: DynamoDeleteCounter(table, client)
    else:
        option = str(tmp_path / "catalog.db")
        if request.param == "postgresql":
            option = request.getfixturevalue("postgres_url")
        opened = []

        def worker():
            opened.append(Database(catalogue_url(option, {})))
            return CatalogueDeleteCounter(opened[-1])

        yield worker
        for database in opened:
            database.close()


@pytest.fixture
def counter(workers):
    return workers()


def test_what_is_wanted_is_granted_up_to_the_limit_and_not_one_more(counter):
    assert [counter.take(ROUTE, HOUR, 4, 10) for _ in range(4)] == [4, 4, 2, 0]


def test_all_workers_share_one_budget(workers):
    one, other = workers(), workers()
    assert one.take(ROUTE, HOUR, 7, 10) == 7
    assert other.take(ROUTE, HOUR, 7, 10) == 3
    assert one.take(ROUTE, HOUR, 1, 10) == 0


def test_every_route_and_every_hour_has_a_budget_of_its_own(counter):
    assert counter.take(ROUTE, HOUR, 5, 5) == 5
    assert counter.take("another", HOUR, 5, 5) == 5
    assert counter.take(ROUTE, HOUR + 1, 5, 5) == 5
    assert counter.take(ROUTE, HOUR, 5, 5) == 0


def test_a_limit_that_grows_allows_the_difference_and_one_that_shrinks_takes_nothing_back(counter):
    assert counter.take(ROUTE, HOUR, 10, 10) == 10
    assert counter.take(ROUTE, HOUR, 10, 14) == 4
    assert counter.take(ROUTE, HOUR, 10, 3) == 0
    assert counter.take(ROUTE, HOUR, 10, 15) == 1


@pytest.mark.parametrize("limit", [0, -1])
def test_a_budget_of_nothing_grants_nothing_even_to_the_first(counter, limit):
    assert counter.take(ROUTE, HOUR, 1, limit) == 0
    assert counter.take(ROUTE, HOUR, 1, 1) == 1


def test_changes_of_the_hours_that_are_asked_for_are_summed_over_all_workers(workers):
    one, other = workers(), workers()
    for counter, hour, changes in [(one, 0, 1), (other, 0, 10), (one, 1, 100), (other, 23, 1000), (one, 24, 10_000)]:
        counter.note(ROUTE, HOUR + hour, changes)
    one.note("another", HOUR, 100_000)
    assert one.recent(ROUTE, HOUR, HOUR + 23) == 1111
    assert other.recent(ROUTE, HOUR + 1, HOUR + 24) == 11_100
    assert one.recent("unknown", HOUR, HOUR + 23) == 0


def test_changes_and_deletes_of_one_hour_do_not_meet(counter):
    assert counter.take(ROUTE, HOUR, 3, 10) == 3
    counter.note(ROUTE, HOUR, 50)
    assert counter.take(ROUTE, HOUR, 10, 10) == 7
    assert counter.recent(ROUTE, HOUR, HOUR) == 50
    counter.note(ROUTE, HOUR + 1, 50)
    assert counter.take(ROUTE, HOUR + 1, 3, 10) == 3


def test_what_is_old_does_not_stay_for_ever_and_what_counts_does(counter):
    counter.note(ROUTE, HOUR - 23, 5)
    for hour in range(HOUR, HOUR + 3):
        counter.take(ROUTE, hour, 1, 1)
    assert counter.recent(ROUTE, HOUR - 23, HOUR) == 5


def test_many_who_take_at_once_get_exactly_the_budget(workers, request):
    if "dynamodb" in request.node.name:
        pytest.skip("moto does not keep others out of an update; see the test of the one request that is made")
    granted = []

    def take():
        counter = workers()
        granted.extend(counter.take(ROUTE, HOUR, lot, 200) for lot in (1, 2, 4, 8, 16, 25, 25))

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(granted) == 200


# DynamoDB


class Recording:
    """Plays boto3's client on moto's; `before` happens ahead of every update."""

    def __init__(self, client, before=lambda: None):
        self.exceptions = client.exceptions
        self.query = client.query
        self.updates = []
        self._client = client
        self._before = before

    def update_item(self, **request):
        self.updates.append(request)
        self._before()
        return self._client.update_item(**request)


def test_a_lot_of_dynamodb_is_decided_and_counted_by_one_request(moto_endpoint):
    """Nothing is read before, so nobody can come in between; what DynamoDB refuses is asked for once more, smaller."""
    client, table = dynamodb(moto_endpoint)
    recording = Recording(client)
    counter = DynamoDeleteCounter(table, recording)
    assert counter.take(ROUTE, HOUR, 25, 30) == 25
    (update,) = recording.updates
    assert update["UpdateExpression"].startswith("ADD #name :count ")
    assert update["ConditionExpression"] == "attribute_not_exists(#name) OR #name <= :room"
    assert update["ExpressionAttributeValues"][":room"] == {"N": "5"}
    assert counter.take(ROUTE, HOUR, 25, 30) == 5
    assert len(recording.updates) == 3
    assert counter.take(ROUTE, HOUR, 25, 30) == 0
    assert len(recording.updates) == 4


def test_somebody_who_takes_in_between_makes_the_lot_smaller_and_never_the_sum_larger(moto_endpoint):
    client, table = dynamodb(moto_endpoint)
    rival = DynamoDeleteCounter(table, client)
    wanted = iter([3, 3])
    counter = DynamoDeleteCounter(table, Recording(client, lambda: rival.take(ROUTE, HOUR, next(wanted, 0), 30)))
    assert counter.take(ROUTE, HOUR, 30, 30) == 24
    assert rival.take(ROUTE, HOUR, 1, 30) == 0


def test_rows_of_dynamodb_carry_the_time_at_which_they_may_go(moto_endpoint):
    client, table = dynamodb(moto_endpoint)
    counter = DynamoDeleteCounter(table, client)
    counter.take(ROUTE, HOUR, 1, 1)
    counter.note(ROUTE, HOUR + 1, 1)
    rows = client.scan(TableName=table)["Items"]
    assert {(int(row["hour"]["N"]), int(row["expires"]["N"])) for row in rows} == {
        (HOUR, (HOUR + 48) * 3600),
        (HOUR + 1, (HOUR + 49) * 3600),
    }


def test_a_table_that_is_not_there_is_named(moto_endpoint):
    client, _ = dynamodb(moto_endpoint)
    counter = DynamoDeleteCounter("no-such-table", client)
    for ask in (lambda: counter.take(ROUTE, HOUR, 1, 1), lambda: counter.recent(ROUTE, HOUR, HOUR)):
        with pytest.raises(ReplicatorError, match="DynamoDB table no-such-table: .*ResourceNotFound"):
            ask()


def test_no_region_is_one_line_and_no_traceback(monkeypatch):
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    with pytest.raises(ReplicatorError, match="DynamoDB table t: You must specify a region"):
        DynamoDeleteCounter("t").take(ROUTE, HOUR, 1, 1)


# The catalogue


def test_the_table_of_the_catalogue_forgets_what_is_two_days_old(tmp_path):
    url = catalogue_url(str(tmp_path / "catalog.db"), {})
    counter = CatalogueDeleteCounter(Database(url))
    for hour in range(HOUR, HOUR + 100):
        counter.note(ROUTE, hour, 1)
    engine = create_engine(url)
    with engine.connect() as connection:
        assert connection.execute(text("select min(hour) from catalogue_delete_budgets")).scalar() == HOUR + 99 - 48
    engine.dispose()


def test_a_route_with_an_odd_name_is_counted(tmp_path):
    counter = CatalogueDeleteCounter(Database(catalogue_url(str(tmp_path / "catalog.db"), {})))
    for route in ("\0\udcff", "x" * 5000):
        assert [counter.take(route, HOUR, 2, 3) for _ in range(3)] == [2, 1, 0]


def test_a_database_that_is_away_is_an_error_for_the_brake_to_bear():
    url = catalogue_url(f"postgresql://nobody:hush@{HOST}:{free_port()}/none", {})
    counter = CatalogueDeleteCounter(Database(url))
    with pytest.raises(ReplicatorError) as caught:
        counter.take(ROUTE, HOUR, 1, 1)
    assert "hush" not in str(caught.value)
