"""Routes, and an entry for each of their keys.

A later revision is a file like this one, NUMBER_WHAT.py, whose down_revision is the one before; schema.HEAD names the
last.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision: str | None = None


def upgrade() -> None:
    """Creates both tables, and the index that finds the few that failed among millions."""
    op.create_table(
        "catalogue_routes",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.Text, nullable=False, unique=True),
    )
    op.create_table(
        "catalogue_entries",
        sa.Column("route_id", sa.Integer, sa.ForeignKey("catalogue_routes.id"), primary_key=True),
        sa.Column("key", sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql"), primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger),
        sa.Column("etag", sa.Text),
        sa.Column("modified", sa.DateTime(timezone=True)),
        sa.Column("version", sa.Text),
        sa.Column("uploaded_at", sa.DateTime(timezone=True)),
        sa.Column("moved_at", sa.DateTime(timezone=True)),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("error", sa.Text, nullable=False),
        sqlite_with_rowid=False,
    )
    failed = sa.text("state = 'failed'")
    op.create_index(
        "catalogue_failed",
        "catalogue_entries",
        ["route_id", "key"],
        postgresql_where=failed,
        sqlite_where=failed,
    )
