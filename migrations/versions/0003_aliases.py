"""The aliases of instances: further keys by which events find them, also those that were held before."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

IDENTITY = sa.Uuid().with_variant(sa.Text(), "sqlite")
BYTEWISE = postgresql.TEXT(collation="C").with_variant(sa.Text(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "saga_alias",
        sa.Column("saga_type", BYTEWISE, nullable=False),
        sa.Column("alias", BYTEWISE, nullable=False),
        sa.Column("value", BYTEWISE, nullable=False),
        sa.Column("saga_id", IDENTITY, nullable=False),
        sa.PrimaryKeyConstraint("saga_type", "alias", "value", name="saga_alias_pkey"),
        comment="Which instance has which further key; goes with the instance.",
    )
    op.create_index("saga_alias_by_instance", "saga_alias", ["saga_id"])
    op.create_index("saga_alias_by_value", "saga_alias", ["value"])
    op.add_column("held", sa.Column("alias", BYTEWISE, nullable=True))


def downgrade() -> None:
    op.drop_column("held", "alias")
    op.drop_table("saga_alias")
