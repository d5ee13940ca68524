"""What the workers of a route have taken of its budgets for deletes, in the catalogue's database."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, and_, delete, func, select, update

from replicator.catalogue.database import Database
from replicator.catalogue.tables import delete_budgets, insert_into, storable_key

KEPT_HOURS = 48

_ROW = delete_budgets.c


class CatalogueDeleteCounter:
    """As DeleteCounter of replicator.live.brake, for all who use one database.

    Every method raises Away, which is a ReplicatorError.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def take(self, route: str, hour: int, wanted: int, limit: int) -> int:
        """As DeleteCounter. One transaction, in which nobody else counts for this route and hour."""
        one = _one(route, hour)

        def decide(connection: Connection) -> int:
            _make_row(connection, route, hour)
            taken = connection.execute(select(_ROW.deletes).where(one).with_for_update()).scalar_one()
            granted: int = max(0, min(wanted, limit - taken))
            if granted:
                connection.execute(update(delete_budgets).where(one).values(deletes=taken + granted))
            return granted

        return self._database.do(decide, writes=True)

    def note(self, route: str, hour: int, changes: int) -> None:
        """As DeleteCounter. One transaction."""
        more = update(delete_budgets).where(_one(route, hour)).values(changes=_ROW.changes + changes)

        def add(connection: Connection) -> None:
            _make_row(connection, route, hour)
            connection.execute(more)

        self._database.do(add, writes=True)

    def recent(self, route: str, first: int, last: int) -> int:
        """As DeleteCounter."""
        rows = and_(_ROW.route == storable_key(route), _ROW.hour.between(first, last))
        total = select(func.coalesce(func.sum(_ROW.changes), 0)).where(rows)
        return self._database.do(lambda connection: int(connection.execute(total).scalar_one()))


def _one(route: str, hour: int) -> ColumnElement[bool]:
    return and_(_ROW.route == storable_key(route), _ROW.hour == hour)


def _make_row(connection: Connection, route: str, hour: int) -> None:
    """Makes the row of this hour if it is the first to be here, and then forgets those of two days ago."""
    new = insert_into(delete_budgets, connection.dialect).on_conflict_do_nothing()
    row = {"route": storable_key(route), "hour": hour, "deletes": 0, "changes": 0}
    if connection.execute(new, row).rowcount == 1:
        old = and_(_ROW.route == row["route"], _ROW.hour < hour - KEPT_HOURS)
        connection.execute(delete(delete_budgets).where(old))
