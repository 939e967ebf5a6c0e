"""The read-only views, which are public contract.

Columns are only added. Readers accept words they do not know. Texts are complete statements; those for PostgreSQL find
and make their names in the session's search path.
"""

from __future__ import annotations

from sagas.instance import PARKING
from sagas.watching import WATCHED

_GRAVITY = (*PARKING, "orphaned_effect", *WATCHED)
"""Reasons for attention, the gravest first; whatever else there is comes after them, in alphabetical order."""

_STUCK_ATTEMPTS = 10
_STUCK_MINUTES = 10


def _rank(column: str) -> str:
    ranks = "".join(f"\n            when '{reason}' then {rank}" for rank, reason in enumerate(_GRAVITY))
    return f"case {column}{ranks}\n            else {len(_GRAVITY)} end"


def _saga() -> str:
    parking = ", ".join(f"'{reason}'" for reason in PARKING)
    gravest = f"""
        select a.reason from attention a where a.saga_id = s.saga_id
        order by {_rank("a.reason")}, a.reason limit 1
    """
    return f"""
create view v_saga as
select saga_id, saga_type, business_key, version,
       case when attention in ({parking})
            then 'parked' else phase end as status,
       phase, paused, attention, waiting_for, started_at, updated_at, deadline_at, ended_at, end_reason, skipped,
       revision, parent_id
from (
    select s.saga_id, s.saga_type, s.key as business_key, s.version, s.phase, s.paused, ({gravest}) as attention,
           s.waiting_for, s.started_at, s.updated_at, s.deadline_at, s.ended_at, s.end_reason, s.skipped, s.revision,
           s.parent_id
    from saga s
) as instance
"""


def _saga_event(detail: str) -> str:
    return f"""
create view v_saga_event as
select saga_id, seq, at, kind, step, message_id, message_name, {detail} as detail from saga_event
"""


def _outbox(now: str, long_ago: str) -> str:
    return f"""
create view v_outbox as
select message_id, saga_id, name,
       case when state = 'claimed' and next_attempt_at < {now}
            then 'unknown' else state end as state,
       created_at, attempts, next_attempt_at,
       (state in ('returned', 'refused') or attempts >= {_STUCK_ATTEMPTS}
        or created_at < {long_ago}) as stuck, error
from outbox
"""


_TIMER = """
create view v_timer as
select saga_id, name, generation, due_at from timer
"""

_HELD = """
create view v_held as
select saga_id, saga_type, business_key, message_id, name, reason, received_at, expires_at from held
"""

_INBOX = """
create view v_inbox as
select consumer, source, message_id, received_at, disposition from inbox
"""

_DEAD_LETTER = """
create view v_dead_letter as
select dead_letter_id, consumer, message_id, name, reason, error, saga_id, first_seen_at, copies, status,
       error_class, queue, replaces, last_seen_at, resolved_at, resolved_by, resolved_why, replayed_seq
from dead_letter
"""

_SQLITE_TIME = "strftime('%Y-%m-%dT%H:%M:%f000Z', 'now'{offset})"

VIEWS = ("v_saga", "v_saga_event", "v_outbox", "v_timer", "v_held", "v_inbox", "v_dead_letter")

POSTGRESQL_VIEWS = (
    _saga(),
    _saga_event("cast(detail as json)"),
    _outbox("clock_timestamp()", f"clock_timestamp() - interval '{_STUCK_MINUTES} minutes'"),
    _TIMER,
    _HELD,
    _INBOX,
    _DEAD_LETTER,
)

SQLITE_VIEWS = (
    _saga(),
    _saga_event("detail"),
    _outbox(_SQLITE_TIME.format(offset=""), _SQLITE_TIME.format(offset=f", '-{_STUCK_MINUTES} minutes'")),
    _TIMER,
    _HELD,
    _INBOX,
    _DEAD_LETTER,
)
