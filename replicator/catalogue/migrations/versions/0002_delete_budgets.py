"""What was taken of each route's budget for deletes, hour by hour (catalogue.delete_counter)."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision: str | None = "0001"


def upgrade() -> None:
    """Creates the table. Its rows are few: those of two days."""
    op.create_table(
        "catalogue_delete_budgets",
        sa.Column("route", sa.Text, primary_key=True),
        sa.Column("hour", sa.Integer, primary_key=True),
        sa.Column("deletes", sa.BigInteger, nullable=False),
        sa.Column("changes", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
