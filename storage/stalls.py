"""No silent stall (design: section 4, rule 16): the statement that finds one from outside, and what the watchdog of
every process reads to tell people before that statement would.

The statement is public and speaks of the views alone. The watchdog reads the tables: who may want its judgement
(`suspects`), and what stands around an instance (`surroundings`), which is for `sagas.watching` to judge.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sagas.watching import AGED, OVERDUE, WATCHED, Unsent, Watched
from storage.statements import Statement, as_time, as_uuid

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime
    from uuid import UUID

    from storage.database import Session

_STALLS = """\
select s.saga_id, s.saga_type, s.business_key, s.status, s.waiting_for
from v_saga s
where s.phase in ('running', 'compensating') and s.attention is null and not s.paused
  and s.saga_id in (
    -- a timer that nobody fires
    select t.saga_id from v_timer t where t.due_at < {a_minute_ago}
    union all
    -- messages that nobody tries to publish
    select o.saga_id from v_outbox o group by o.saga_id having max(o.next_attempt_at) < {a_minute_ago}
    union all
    -- a message that no queue takes, or that the broker refuses
    select o.saga_id from v_outbox o
    where o.state in ('returned', 'refused') and o.created_at < {ten_minutes_ago}
    union all
    -- nothing to wait for
    select n.saga_id from v_saga n
    where n.phase in ('running', 'compensating') and n.updated_at < {a_minute_ago}
      and not exists (select 1 from v_timer t where t.saga_id = n.saga_id)
      and not exists (select 1 from v_outbox o where o.saga_id = n.saga_id)
      and not exists (select 1 from v_held h where h.saga_id = n.saga_id
                      and (h.expires_at is null or h.expires_at > {a_minute_ago})))
"""
_SQLITE_TIME = "strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '{ago}')"

POSTGRESQL_STALLS = _STALLS.format(a_minute_ago="now() - interval '60 s'", ten_minutes_ago="now() - interval '10 min'")
SQLITE_STALLS = _STALLS.format(
    a_minute_ago=_SQLITE_TIME.format(ago="-60 seconds"), ten_minutes_ago=_SQLITE_TIME.format(ago="-10 minutes")
)
"""Live instances that have no reason to wake up, or wait in vain, and of which people were not told.

While a process runs it finds none at any moment. One row each, in no order; words that follow `--` say which is which.
"""

STALLS = Statement.of(postgresql=POSTGRESQL_STALLS, sqlite=SQLITE_STALLS)

# Where nothing is wrong each part ends after a look into an index or a table that is nearly empty; the last one goes
# through the instances that live, but only through two indexes. The fences keep what is asked of the whole from being
# asked of each part, which would then be read along its key from end to end.
_SUSPECTS = """
    with lonely as materialized (
        select live.saga_id from (
            select saga_id from saga where phase in ('running', 'compensating') {fence}
        ) as live
        where not exists (select 1 from timer t where t.saga_id = live.saga_id)
    )
    select saga_id from (
        select a.saga_id from attention a where a.reason {watched}
        union
        select t.saga_id from timer t where t.due_at < {late}
        union
        select t.saga_id from timer t where t.asked_at < {aged}
        union
        select o.saga_id from outbox o
        where o.saga_id is not null
          and (o.state in ('returned', 'refused') or o.next_attempt_at < {late} or o.created_at < {aged})
        union
        select s.saga_id from lonely l join saga s on s.saga_id = l.saga_id
        where not s.paused and s.updated_at < {late}
          and not exists (select 1 from attention a where a.saga_id = s.saga_id)
          and not exists (select 1 from outbox o where o.saga_id = s.saga_id)
        {fence}
    ) as suspect
    where {after} order by saga_id limit {limit}
"""
_SUSPECTED = Statement.of(
    postgresql=_SUSPECTS.format(
        fence="offset 0",
        watched="= any(cast(:watched as text[]))",
        late=f"now() - interval '{OVERDUE.total_seconds()} s'",
        aged=f"now() - interval '{AGED.total_seconds()} s'",
        after="saga_id > cast(:after as uuid)",
        limit="cast(:limit as bigint)",
    ),
    sqlite=_SUSPECTS.format(
        fence="limit -1",
        watched="in (select value from json_each(:watched))",
        late=":late",
        aged=":aged",
        after="saga_id > :after",
        limit=":limit",
    ),
)
# Unlike all else that such a process asks this is about many rows: a plan for what there is now, which may merge them.
_PLANNED_ANEW = Statement.of(
    postgresql="""
        select set_config('plan_cache_mode', 'force_custom_plan', true), set_config('enable_mergejoin', 'on', true)
    """,
    sqlite="select 1",
)


def _of_these(sql: str) -> Statement:
    """A statement about the instances `:ids`."""
    return Statement.of(
        postgresql=sql.format(these="= any(cast(:ids as uuid[]))", now="clock_timestamp()"),
        sqlite=sql.format(these="in (select value from json_each(:ids))", now=":now"),
    )


_TIMERS = _of_these("select saga_id, name, due_at, asked_at from timer where saga_id {these}")
_BEFORE = """
    case when state = 'claimed' and (attempts > 0 or next_attempt_at < {now})
         then case when maybe_sent or next_attempt_at < {now} then 'unknown' else 'returned' end
         else state end
"""
# A relay leaves alone what goes where nothing was taken just now, and tries one: see `outbox.breaker`.
_UNSENT = _of_these(f"""
    with tried as materialized (
        select exchange, routing_key, max(error) as error,
               max(case when {_BEFORE} = 'returned' then 'returned' end) as state
        from outbox where came_back group by exchange, routing_key
    )
    select o.saga_id, o.name, o.created_at, o.next_attempt_at, coalesce(o.error, t.error) as error,
           case when o.state in ('new', 'unknown') and o.next_attempt_at < {{now}} and t.state is not null
                then t.state else o.before end as state,
           (o.state = 'claimed' and o.attempts > 0 and o.next_attempt_at > {{now}}) as in_flight
    from (select outbox.*, {_BEFORE} as before from outbox where saga_id {{these}}) o
    left join tried t on t.exchange = o.exchange and t.routing_key = o.routing_key
    order by o.outbox_id
""")
_HELD = _of_these("""
    select h.saga_id, h.reason, h.expires_at
    from held h join saga s on s.saga_id = h.saga_id and s.saga_type = h.saga_type where h.saga_id {these}
""")


async def suspects(session: Session, after: UUID, limit: int, now: datetime) -> list[UUID]:
    """Instances that the watchdog should look at, in order of their ids, from behind `after`; most of them are well.

    Costs the same whatever `after` and `limit` are. The rest of the transaction is planned as usual. `now` is the
    host's, for SQLite.
    """
    bounds: dict[str, object] = {"watched": list(WATCHED), "after": after, "limit": limit}
    clock = {} if session.postgresql else {"late": now - OVERDUE, "aged": now - AGED}
    await session.fetch(_PLANNED_ANEW, {})
    return [as_uuid(row.saga_id) for row in await session.fetch(_SUSPECTED, bounds | clock)]


async def surroundings(session: Session, saga_ids: Collection[UUID], now: datetime) -> dict[UUID, Watched]:
    """What stands around each of these instances; `now` decides which held messages have expired unnoticed."""
    ids: dict[str, object] = {"ids": sorted(saga_ids)}
    timers: dict[UUID, dict[str, datetime]] = {saga_id: {} for saga_id in saga_ids}
    asked: dict[UUID, dict[str, datetime]] = {saga_id: {} for saga_id in saga_ids}
    outbox: dict[UUID, list[Unsent]] = {saga_id: [] for saga_id in saga_ids}
    held: dict[UUID, set[str]] = {saga_id: set() for saga_id in saga_ids}
    for row in await session.fetch(_TIMERS, ids):
        timers[as_uuid(row.saga_id)][row.name] = as_time(row.due_at)
        if row.asked_at is not None:
            asked[as_uuid(row.saga_id)][row.name] = as_time(row.asked_at)
    for row in await session.fetch(_UNSENT, ids if session.postgresql else ids | {"now": now}):
        outbox[as_uuid(row.saga_id)].append(
            Unsent(
                name=row.name,
                state=row.state,
                created_at=as_time(row.created_at),
                next_attempt_at=as_time(row.next_attempt_at),
                in_flight=bool(row.in_flight),
                error=row.error,
            )
        )
    for row in await session.fetch(_HELD, ids):
        if row.expires_at is None or as_time(row.expires_at) > now - OVERDUE:
            held[as_uuid(row.saga_id)].add(row.reason)
    return {
        saga_id: Watched(timers=timers[saga_id], asked=asked[saga_id], outbox=outbox[saga_id], held=held[saga_id])
        for saga_id in saga_ids
    }
