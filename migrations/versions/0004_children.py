"""Which instance has started which: the parent's id on the row of its child."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

IDENTITY = sa.Uuid().with_variant(sa.Text(), "sqlite")

BEFORE = """
create view v_saga as
select saga_id, saga_type, business_key, version,
       case when attention in ('method_raised', 'undo_needs_reply', 'compensation_failed', 'compensation_exhausted')
            then 'parked' else phase end as status,
       phase, paused, attention, waiting_for, started_at, updated_at, deadline_at, ended_at, end_reason, skipped,
       revision
from (
    select s.saga_id, s.saga_type, s.key as business_key, s.version, s.phase, s.paused, (
        select a.reason from attention a where a.saga_id = s.saga_id
        order by case a.reason
            when 'method_raised' then 0
            when 'undo_needs_reply' then 1
            when 'compensation_failed' then 2
            when 'compensation_exhausted' then 3
            when 'orphaned_effect' then 4
            when 'stalled' then 5
            when 'version_missing' then 6
            when 'unroutable' then 7
            when 'refused' then 8
            when 'timer_overdue' then 9
            when 'outbox_overdue' then 10
            when 'marker_overdue' then 11
            else 12 end, a.reason limit 1
    ) as attention,
           s.waiting_for, s.started_at, s.updated_at, s.deadline_at, s.ended_at, s.end_reason, s.skipped, s.revision
    from saga s
) as instance
"""

VIEW = """
create view v_saga as
select saga_id, saga_type, business_key, version,
       case when attention in ('method_raised', 'undo_needs_reply', 'compensation_failed', 'compensation_exhausted')
            then 'parked' else phase end as status,
       phase, paused, attention, waiting_for, started_at, updated_at, deadline_at, ended_at, end_reason, skipped,
       revision, parent_id
from (
    select s.saga_id, s.saga_type, s.key as business_key, s.version, s.phase, s.paused, (
        select a.reason from attention a where a.saga_id = s.saga_id
        order by case a.reason
            when 'method_raised' then 0
            when 'undo_needs_reply' then 1
            when 'compensation_failed' then 2
            when 'compensation_exhausted' then 3
            when 'orphaned_effect' then 4
            when 'stalled' then 5
            when 'version_missing' then 6
            when 'unroutable' then 7
            when 'refused' then 8
            when 'timer_overdue' then 9
            when 'outbox_overdue' then 10
            when 'marker_overdue' then 11
            else 12 end, a.reason limit 1
    ) as attention,
           s.waiting_for, s.started_at, s.updated_at, s.deadline_at, s.ended_at, s.end_reason, s.skipped, s.revision,
           s.parent_id
    from saga s
) as instance
"""


def upgrade() -> None:
    op.add_column("saga", sa.Column("parent_id", IDENTITY, nullable=True))
    where = sa.text("parent_id is not null")
    op.create_index("saga_by_parent", "saga", ["parent_id"], postgresql_where=where, sqlite_where=where)
    if op.get_context().dialect.name == "sqlite":
        op.execute("drop view v_saga")
        op.execute(VIEW)
    else:  # whoever reads it keeps what they were granted
        op.execute(VIEW.replace("create view", "create or replace view"))


def downgrade() -> None:
    op.execute("drop view v_saga")
    op.drop_index("saga_by_parent", "saga")
    op.drop_column("saga", "parent_id")
    op.execute(BEFORE)
