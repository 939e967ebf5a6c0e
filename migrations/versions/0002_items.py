"""The items of lists that are worked off one by one, kept beside their instance."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
OCTETS = sa.LargeBinary()
IDENTITY = sa.Uuid().with_variant(sa.Text(), "sqlite")
BYTEWISE = postgresql.TEXT(collation="C").with_variant(sa.Text(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "saga_item",
        sa.Column("saga_id", IDENTITY, nullable=False),
        sa.Column("list_field", BYTEWISE, nullable=False),
        sa.Column("item", WHOLE, nullable=False),
        sa.Column("body", OCTETS, nullable=False),
        sa.PrimaryKeyConstraint("saga_id", "list_field", "item", name="saga_item_pkey"),
        comment="The items of lists that are worked off one by one, as JSON.",
    )
    op.create_table(
        "saga_item_step",
        sa.Column("saga_id", IDENTITY, nullable=False),
        sa.Column("path", BYTEWISE, nullable=False),
        sa.Column("item", WHOLE, nullable=False),
        sa.Column("progress", OCTETS, nullable=False),
        sa.Column("owed", WHOLE, nullable=True),
        sa.PrimaryKeyConstraint("saga_id", "path", "item", name="saga_item_step_pkey"),
        comment="How the step of an item went that is done with for now; owed is the history number at which it ended, "
        "where it is still to be undone.",
    )
    where = sa.text("owed is not null")
    op.create_index(
        "saga_item_owed", "saga_item_step", ["saga_id", "path", "owed"], postgresql_where=where, sqlite_where=where
    )


def downgrade() -> None:
    op.drop_table("saga_item_step")
    op.drop_table("saga_item")
