"""The outbox table: messages go in with the decision that made them, and leave when the broker has them.

A row is `new` (never published), `claimed` (someone may be publishing it until its lease ends), `unknown` (a
publication ended without answer), `returned` (every one so far came back) or `refused` (it cannot be published as it
is). Once a publication may have reached the broker the row says `maybe_sent`, and is never again `new` or `returned`:
only those two can be withdrawn.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from messages.printable import printable
from messages.value import value
from outbox.interface import ClaimedRow
from outbox.pressure import LONG, MANY, Backlog
from outbox.rows import outgoing as loaded
from storage.statements import Statement, Write, as_time, as_uuid

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Row

    from outbox.interface import Destination, RowOutcome
    from storage.database import Session
    from storage.statements import Batch

_STANDING = Statement.of(
    postgresql="select message_id, state, error from outbox where message_id = any(cast(:ids as text[]))",
    sqlite="select message_id, state, error from outbox where message_id in (select value from json_each(:ids))",
)
_PAIRS = "unnest(cast(:ids as bigint[]), cast(:tokens as uuid[])) as r(outbox_id, token)"
_RETURNED = """
    o.outbox_id, o.message_id, o.saga_id, o.path, o.dead_letter_id, o.name, o.exchange, o.routing_key, o.body,
    o.headers, o.attempts, o.created_at
"""
_IS_HEAD = """
    (o.path is null
     or (o.saga_id is not null and not exists (
            select 1 from outbox e where e.saga_id = o.saga_id and e.path = o.path and e.outbox_id < o.outbox_id))
     or (o.saga_id is null and not exists (
            select 1 from outbox e where e.saga_id is null and e.path = o.path and e.outbox_id < o.outbox_id)))
"""
_NOT_CLOSED_ON_POSTGRESQL = """
    (o.exchange, o.routing_key) not in (
        select exchange, routing_key
        from unnest(cast(:exchanges as text[]), cast(:routing_keys as text[])) as closed(exchange, routing_key))
"""
_NOT_CLOSED_ON_SQLITE = """
    (o.exchange, o.routing_key) not in (
        select json_extract(value, '$[0]'), json_extract(value, '$[1]') from json_each(:closed))
"""
_WAITS = "o.state in ('new', 'returned', 'unknown')"


def _claiming(*, postgresql: str, sqlite: str) -> Statement:
    """A claim of the rows that a condition picks. A lease that ended means that nobody knows how a publication went."""
    return Statement.of(
        postgresql=f"""
        with due as materialized (
            select o.outbox_id, octet_length(o.body) as size from outbox o
            where {postgresql} and {_IS_HEAD}
            order by o.outbox_id limit cast(:limit as bigint)
            for update skip locked
        ), fitting as (
            select outbox_id, sum(size) over (order by outbox_id) - size as before from due
        )
        update outbox o set
            state = 'claimed', token = cast(:token as uuid),
            next_attempt_at = clock_timestamp() + cast(:lease as float8) * interval '1 second',
            attempts = o.attempts + case when o.state = 'claimed' then 1 else 0 end,
            maybe_sent = o.maybe_sent or o.state = 'claimed'
        from fitting
        where o.outbox_id = fitting.outbox_id and fitting.before < cast(:max_bytes as bigint)
        returning {_RETURNED}, clock_timestamp() as now
        """,
        sqlite=f"""
        with due as (
            select o.outbox_id, length(o.body) as size from outbox o
            where {sqlite} and {_IS_HEAD}
            order by o.outbox_id limit :limit
        ), fitting as (
            select outbox_id, sum(size) over (order by outbox_id) - size as before from due
        )
        select {_RETURNED}, o.state from fitting
        join outbox o on o.outbox_id = fitting.outbox_id
        where fitting.before < :max_bytes order by o.outbox_id
        """,
    )


_CLAIM = _claiming(
    postgresql=f"o.next_attempt_at <= now() and {_NOT_CLOSED_ON_POSTGRESQL}",
    sqlite=f"o.next_attempt_at <= :now and {_NOT_CLOSED_ON_SQLITE}",
)
_FOR_IT = "o.exchange = cast(:exchange as text) and o.routing_key = cast(:routing_key as text)"
_CLAIM_PROBE = _claiming(
    postgresql=f"{_FOR_IT} and (o.next_attempt_at <= now() or {_WAITS})",
    sqlite=f"{_FOR_IT} and (o.next_attempt_at <= :now or {_WAITS})",
)
# What goes where nothing was taken just now waits for a probe: see `outbox.breaker`.
_COUNT = f"""
    with gone as (
        select exchange, routing_key from outbox where came_back
    )
    select count(*) as waiting, count(case when next_attempt_at <= {{long_ago}} then 1 end) as late
    from (
        select o.next_attempt_at from outbox o
        where o.next_attempt_at <= {{now}} and {_IS_HEAD}
          and (o.exchange, o.routing_key) not in (select exchange, routing_key from gone)
        limit {MANY}
    ) as due
"""
_BACKLOG = Statement.of(
    postgresql=_COUNT.format(now="now()", long_ago=f"now() - interval '{LONG:g} seconds'"),
    sqlite=_COUNT.format(now=":now", long_ago=":long_ago"),
)
_HURRY = Statement.of(
    postgresql=f"""
        with found as materialized (
            select o.outbox_id from outbox o where {_FOR_IT} and {_WAITS} and o.next_attempt_at > now()
            order by o.outbox_id for update skip locked
        )
        update outbox o set next_attempt_at = now() from found where o.outbox_id = found.outbox_id
    """,
    sqlite=f"""
        update outbox as o set next_attempt_at = :now where {_FOR_IT} and {_WAITS} and o.next_attempt_at > :now
    """,
)
_TAKE = Statement.both("""
    update outbox set
        state = 'claimed', token = :token, next_attempt_at = :until,
        attempts = attempts + case when state = 'claimed' then 1 else 0 end,
        maybe_sent = maybe_sent or state = 'claimed'
    where outbox_id = :outbox_id
""")

CONFIRM = Write(
    name="outbox_confirm",
    columns={"outbox_id": "bigint", "token": "uuid"},
    postgresql="""
        delete from outbox o using {rows} where o.outbox_id = r.outbox_id and o.token = r.token returning o.outbox_id
    """,
    sqlite="delete from outbox where outbox_id = :outbox_id and token = :token",
)
_SETTLED = """
    state = case
        when {state} in ('new', 'returned') and outbox.maybe_sent then 'unknown'
        when {state} = 'new' and outbox.attempts > 0 then 'returned'
        else {state} end,
    maybe_sent = outbox.maybe_sent or {state} = 'unknown',
    came_back = {came_back},
    attempts = outbox.attempts + case when {state} = 'new' then 0 else 1 end,
    token = null,
    error = {error}
"""
FAIL = Write(
    name="outbox_fail",
    columns={
        "outbox_id": "bigint",
        "token": "uuid",
        "state": "text",
        "came_back": "boolean",
        "retry_in": "float8",
        "error": "text",
        "retry_at": "timestamptz",
    },
    postgresql=f"""
        update outbox set {_SETTLED.format(state="r.state", came_back="r.came_back", error="r.error")},
            next_attempt_at = clock_timestamp() + r.retry_in * interval '1 second'
        from {{rows}} where outbox.outbox_id = r.outbox_id and outbox.token = r.token
    """,
    sqlite=f"""
        update outbox set {_SETTLED.format(state=":state", came_back=":came_back", error=":error")},
            next_attempt_at = :retry_at
        where outbox_id = :outbox_id and token = :token
    """,
)
_RELEASED = """
    state = case when maybe_sent then 'unknown' when attempts > 0 then 'returned' else 'new' end, token = null
"""
RELEASE = Write(
    name="outbox_release",
    columns={"outbox_id": "bigint", "token": "uuid"},
    postgresql=f"""
        update outbox set {_RELEASED}, next_attempt_at = clock_timestamp()
        from {{rows}} where outbox.outbox_id = r.outbox_id and outbox.token = r.token and outbox.state = 'claimed'
    """,
    sqlite=f"""
        update outbox set {_RELEASED}, next_attempt_at = :now
        where outbox_id = :outbox_id and token = :token and state = 'claimed'
    """,
)
_RENEW = Statement.of(
    postgresql="""
        update outbox set next_attempt_at = clock_timestamp() + cast(:lease as float8) * interval '1 second'
        where outbox_id = any(cast(:ids as bigint[])) and token = cast(:token as uuid) and state = 'claimed'
        returning outbox_id
    """,
    sqlite="""
        update outbox set next_attempt_at = :until
        where outbox_id in (select value from json_each(:ids)) and token = :token and state = 'claimed'
        returning outbox_id
    """,
)
_END_LEASES = Statement.of(
    postgresql="update outbox set next_attempt_at = clock_timestamp() where state = 'claimed' returning outbox_id",
    sqlite="update outbox set next_attempt_at = :now where state = 'claimed' returning outbox_id",
)
_WITHDRAW = Statement.of(
    postgresql="""
        with found as materialized (
            select outbox_id from outbox
            where message_id = any(cast(:ids as text[])) and saga_id is not null and state in ('new', 'returned')
            order by outbox_id for update
        )
        delete from outbox o using found
        where o.outbox_id = found.outbox_id and o.state in ('new', 'returned') returning o.message_id
    """,
    sqlite="""
        delete from outbox
        where message_id in (select value from json_each(:ids)) and saga_id is not null and state in ('new', 'returned')
        returning message_id
    """,
)
_UNSENT = Statement.of(
    postgresql="select saga_id, message_id from outbox where saga_id = any(cast(:ids as uuid[]))",
    sqlite="select saga_id, message_id from outbox where saga_id in (select value from json_each(:ids))",
)


@value
class Due:
    """Which rows to claim: so many, of so many bytes, none to where it is closed. `now` is the host's, for SQLite."""

    limit: int
    max_bytes: int
    now: datetime
    closed: Collection[Destination] = ()


@value
class Probe:
    """The row to claim: the oldest that goes there. `now` is the host's, for SQLite."""

    destination: Destination
    now: datetime


async def claim(
    session: Session, wanted: Due | Probe, *, token: UUID, lease: float, until: datetime
) -> Sequence[ClaimedRow]:
    """See `outbox.interface.Storage.claim_outbox` and `claim_probe`. `until` is the host's, for SQLite."""
    statement, parameters = _wanted(session, wanted)
    if session.postgresql:
        rows = await session.fetch(statement, {**parameters, "token": token, "lease": lease})
        claimed = [_claimed(row, token, row.attempts, row.now) for row in rows]
        return sorted(claimed, key=lambda each: each.outbox_id)
    rows = await session.fetch(statement, {**parameters, "now": wanted.now})
    if rows:
        await session.many(_TAKE, [{"token": token, "until": until, "outbox_id": row.outbox_id} for row in rows])
    return [_claimed(row, token, row.attempts + (row.state == "claimed"), wanted.now) for row in rows]


def _wanted(session: Session, wanted: Due | Probe) -> tuple[Statement, dict[str, object]]:
    if isinstance(wanted, Probe):
        exchange, routing_key = wanted.destination
        return _CLAIM_PROBE, {"exchange": exchange, "routing_key": routing_key, "limit": 1, "max_bytes": 1}
    bounds: dict[str, object] = {"limit": wanted.limit, "max_bytes": wanted.max_bytes}
    closed = sorted(wanted.closed)
    if not session.postgresql:
        return _CLAIM, {**bounds, "closed": closed}
    exchanges, routing_keys = [each for each, _ in closed], [each for _, each in closed]
    return _CLAIM, {**bounds, "exchanges": exchanges, "routing_keys": routing_keys}


async def backlog(session: Session, now: datetime) -> Backlog:
    """See `outbox.interface.Storage.backlog`. `now` is the host's, for SQLite."""
    clock: dict[str, object] = {} if session.postgresql else {"now": now, "long_ago": now - timedelta(seconds=LONG)}
    (row,) = await session.fetch(_BACKLOG, clock)
    return Backlog(waiting=row.waiting, late=row.late)


async def hurry(session: Session, destination: Destination, now: datetime) -> None:
    """See `outbox.interface.Storage.hurry_outbox`. `now` is the host's, for SQLite."""
    exchange, routing_key = destination
    parameters: dict[str, object] = {"exchange": exchange, "routing_key": routing_key}
    await session.fetch(_HURRY, parameters if session.postgresql else parameters | {"now": now})


def _claimed(row: Row[Any], token: UUID, attempts: int, now: datetime) -> ClaimedRow:
    age = (now - as_time(row.created_at)).total_seconds()
    return ClaimedRow(outbox_id=row.outbox_id, token=token, attempts=attempts, outgoing=loaded(row), age=age)


def confirm(batch: Batch, confirmed: Sequence[tuple[int, UUID]]) -> None:
    """Add the removal of rows that the broker has confirmed."""
    batch.add(CONFIRM, sorted(confirmed))


def fail(batch: Batch, failed: Sequence[tuple[RowOutcome, datetime]]) -> None:
    """Add the new state of rows whose publication failed, with the host's time for the next attempt (for SQLite)."""
    ordered = sorted(failed, key=lambda pair: pair[0].outbox_id)
    batch.add(FAIL, [_failed(outcome, retry_at) for outcome, retry_at in ordered])


def _failed(outcome: RowOutcome, retry_at: datetime) -> tuple[object, ...]:
    error, retry_in = printable(outcome.error), float(outcome.retry_in)
    return outcome.outbox_id, outcome.token, outcome.state, outcome.came_back, retry_in, error, retry_at


def release(batch: Batch, rows: Sequence[tuple[int, UUID]]) -> None:
    """Add the return of rows that were claimed and not published."""
    batch.add(RELEASE, sorted(rows))


async def renew(
    session: Session, token: UUID, outbox_ids: Sequence[int], lease: float, until: datetime
) -> frozenset[int]:
    """See `outbox.interface.Storage.renew_leases`. `until` is the host's, for SQLite."""
    if not outbox_ids:
        return frozenset()
    parameters: dict[str, object] = {"ids": sorted(outbox_ids), "token": token}
    bound = {"lease": lease} if session.postgresql else {"until": until}
    rows = await session.fetch(_RENEW, parameters | bound)
    return frozenset(row.outbox_id for row in rows)


async def end_leases(session: Session, now: datetime) -> int:
    """See `outbox.unit.SqlStorage.end_leases`. `now` is the host's, for SQLite."""
    return len(await session.fetch(_END_LEASES, {} if session.postgresql else {"now": now}))


async def withdraw(session: Session, message_ids: Collection[str]) -> frozenset[str]:
    """See `outbox.interface.Unit.withdraw`."""
    if not message_ids:
        return frozenset()
    rows = await session.fetch(_WITHDRAW, {"ids": sorted(message_ids)})
    return frozenset(row.message_id for row in rows)


async def unsent(session: Session, saga_ids: Collection[UUID]) -> dict[UUID, frozenset[str]]:
    """See `outbox.interface.Unit.unsent`."""
    if not saga_ids:
        return {}
    found: dict[UUID, set[str]] = {saga_id: set() for saga_id in saga_ids}
    for row in await session.fetch(_UNSENT, {"ids": sorted(saga_ids)}):
        found[as_uuid(row.saga_id)].add(row.message_id)
    return {saga_id: frozenset(ids) for saga_id, ids in found.items()}


async def standing(session: Session, message_ids: Collection[str]) -> dict[str, tuple[str, str]]:
    """Those of the messages that the broker has not confirmed, by id: the row's state, and what went wrong last."""
    rows = await session.fetch(_STANDING, {"ids": sorted(message_ids)})
    return {row.message_id: (row.state, row.error or "") for row in rows}
