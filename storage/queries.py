"""The read side: what the command line, the health checks and people ask, answered from the views.

Nothing here locks or writes. Lists are paged: a page names where the next one begins.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import UUID

from messages.errors import OperationRefused
from storage.answers import (
    ArmedTimer,
    Counts,
    Event,
    HeldFilter,
    HeldPage,
    HeldSummary,
    PendingMessage,
    Reason,
    SagaDetail,
    SagaFilter,
    SagaPage,
    SagaSummary,
    TimerFilter,
    TimerPage,
    TimerPlace,
    TimerSummary,
)
from storage.items import bodies
from storage.letters import LETTER_COLUMNS, letter_summary
from storage.stalls import STALLS
from storage.statements import Statement, as_time, as_uuid

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from sqlalchemy import Row

    from storage.database import Database, Session


__all__ = [
    "ArmedTimer",
    "Counts",
    "Event",
    "HeldFilter",
    "HeldPage",
    "HeldSummary",
    "PendingMessage",
    "Queries",
    "Reason",
    "SagaDetail",
    "SagaFilter",
    "SagaPage",
    "SagaSummary",
    "TimerFilter",
    "TimerPage",
    "TimerPlace",
    "TimerSummary",
]

_SAGA_COLUMNS = ", ".join(SagaSummary.__dataclass_fields__)
_PENDING_COLUMNS = ", ".join(PendingMessage.__dataclass_fields__)


# The index of keys begins with the type: a key alone is looked for under each type there is.
_OF_SOME_TYPE = """
    saga_type in (
        with recursive known (saga_type) as (
            select min(saga_type) from saga
            union all
            select (select min(saga_type) from saga where saga_type > known.saga_type) from known
            where known.saga_type is not null
        ) select saga_type from known
    )
"""
_WANTING = "saga_id in (select saga_id from attention)"
_SAGA = Statement.either(f"select {_SAGA_COLUMNS} from v_saga where saga_id = cast(:id as uuid)")
_CHILDREN = Statement.either(
    f"select {_SAGA_COLUMNS} from v_saga where parent_id = cast(:id as uuid) order by started_at, saga_id"
)
_STATE = Statement.either("select state from saga where saga_id = cast(:id as uuid)")
_ATTENTION = Statement.either(
    "select reason, detail, since from attention where saga_id = cast(:id as uuid) order by since"
)
_ALIASES = Statement.either("select alias, value from saga_alias where saga_id = cast(:id as uuid) order by alias")
_EVENTS = Statement.either("""
    select seq, at, kind, step, message_id, message_name, cast(detail as text) as detail from v_saga_event
    where saga_id = cast(:id as uuid) order by seq
""")
_TIMERS = Statement.either(
    "select name, generation, due_at from v_timer where saga_id = cast(:id as uuid) order by due_at"
)
_PENDING = Statement.either(
    f"select {_PENDING_COLUMNS} from v_outbox where saga_id = cast(:id as uuid) order by created_at, message_id"
)
_LETTERS_OF = Statement.either(
    f"select {LETTER_COLUMNS} from v_dead_letter where saga_id = cast(:id as uuid) order by dead_letter_id"
)
_HELD_COLUMNS = ", ".join(HeldSummary.__dataclass_fields__)
_HELD = Statement.either(f"""
    select {_HELD_COLUMNS} from held
    where (cast(:type as text) is null or saga_type = cast(:type as text))
      and (cast(:reason as text) is null or reason = cast(:reason as text))
      and (cast(:after as bigint) is null or held_id > cast(:after as bigint))
    order by held_id limit cast(:limit as bigint)
""")
_HELD_FOR = Statement.either(f"select {_HELD_COLUMNS} from held where saga_id = cast(:id as uuid) order by held_id")
_DOCUMENT = Statement.either("""
    select document from definition where type = cast(:type as text) and version = cast(:version as bigint)
""")
_CLOCK = Statement.of(postgresql="select clock_timestamp() as now", sqlite="select :now as now")
# What wants nobody, which is nearly everything, is in the status of its phase.
_BY_STATUS = Statement.both(f"""
    select saga_type, status, attention, count(*) as amount from v_saga where {_WANTING}
    group by saga_type, status, attention
    union all
    select saga_type, phase, null, count(*) from v_saga
    where not exists (select 1 from attention where attention.saga_id = v_saga.saga_id) group by saga_type, phase
""")
_OUTBOX = Statement.of(
    postgresql="""
        select count(*) as amount, count(*) filter (where stuck) as stuck,
               cast(coalesce(extract(epoch from clock_timestamp() - min(created_at)), 0) as float8) as age from v_outbox
    """,
    sqlite="select count(*) as amount, coalesce(sum(stuck), 0) as stuck, min(created_at) as oldest from v_outbox",
)
_TIMER_COUNTS = Statement.of(
    postgresql="""
        select count(*) as amount, count(*) filter (where due_at <= now()) as due,
               cast(coalesce(extract(epoch from now() - min(due_at)), 0) as float8) as age from v_timer
    """,
    sqlite="""
        select count(*) as amount, coalesce(sum(due_at <= :now), 0) as due, min(due_at) as oldest from v_timer
    """,
)
_REST = Statement.both("""
    select (select count(*) from v_held) as held,
           (select count(*) from v_dead_letter where status = 'open') as letters
""")


class Queries:
    """Questions to one database; each opens a read-only transaction of its own."""

    def __init__(self, database: Database) -> None:
        """`database` stays the caller's, who closes it."""
        self._database = database

    async def sagas(
        self, wanted: SagaFilter | None = None, *, limit: int = 50, following: UUID | None = None
    ) -> SagaPage:
        """A page of instances, the latest started first; `following` is the last one of the page before.

        Raises:
            OperationRefused: there is no such instance.
        """
        wanted = wanted or SagaFilter()
        values = {"type": wanted.saga_type, "status": wanted.status, "key": wanted.key, "parent": wanted.parent}
        values = {**values, "after": following}
        given = {name: value for name, value in values.items() if value is not None}
        async with self._database.read() as session:
            rows = await session.fetch(_sagas(wanted, on=following is not None), {**given, "limit": limit + 1})
            if following is not None and not rows and not await session.fetch(_STATE, {"id": following}):
                raise OperationRefused(f"no instance {following} to go on from; begin with the first page")
        page = [summary(row) for row in rows[:limit]]
        return SagaPage(sagas=page, following=page[-1].saga_id if len(rows) > limit else None)

    async def saga(self, reference: str | UUID, *, saga_type: str | None = None) -> SagaDetail | None:
        """The instance of that id or business key (the latest of the key), else of that alias, or None.

        Raises:
            OperationRefused: instances of several types have that key, and no type was named; or several that alias.
        """
        async with self._database.read() as session:
            saga_id = await _find(session, reference, saga_type)
            return None if saga_id is None else await _detail(session, saga_id, self._database.runner.now())

    async def items(self, saga_id: UUID, list_field: str) -> list[bytes]:
        """The items of a list that is kept item by item, each as JSON."""
        async with self._database.read() as session:
            found = await bodies(session, saga_id, list_field, None)
        return [found[index] for index in sorted(found)]

    async def held(
        self, wanted: HeldFilter | None = None, *, limit: int = 50, following: int | None = None
    ) -> HeldPage:
        """A page of held messages, the oldest first. Any held message's id is a place to go on from."""
        wanted = wanted or HeldFilter()
        async with self._database.read() as session:
            rows = await session.fetch(
                _HELD, {"type": wanted.saga_type, "reason": wanted.reason, "after": following, "limit": limit + 1}
            )
        page = [_held(row) for row in rows[:limit]]
        return HeldPage(held=page, following=page[-1].held_id if len(rows) > limit else None)

    async def timers(
        self, wanted: TimerFilter | None = None, *, limit: int = 50, following: TimerPlace | None = None
    ) -> TimerPage:
        """A page of armed timers, those first that are due first. They need not stand any more to be gone on from."""
        wanted, now = wanted or TimerFilter(), self._database.runner.now()
        after = {"due": following.due_at, "id": following.saga_id, "name": following.name} if following else {}
        values = {"type": wanted.saga_type, "saga": wanted.saga_id, **after}
        given = {name: value for name, value in values.items() if value is not None}
        async with self._database.read() as session:
            rows = await session.fetch(_timers(wanted, on=following is not None), {**given, "limit": limit + 1})
            [clock] = await session.fetch(_CLOCK, {} if session.postgresql else {"now": now})
        page = [_timer(row) for row in rows[:limit]]
        onward = page[-1].place if len(rows) > limit else None
        return TimerPage(timers=page, read_at=as_time(clock.now), following=onward)

    async def counts(self) -> Counts:
        """How much there is of everything, in one snapshot as far as the database gives one."""
        now = self._database.runner.now()
        async with self._database.read() as session:
            by_status = await session.fetch(_BY_STATUS, {})
            [outbox] = await session.fetch(_OUTBOX, {})
            [timers] = await session.fetch(_TIMER_COUNTS, {} if session.postgresql else {"now": now})
            [rest] = await session.fetch(_REST, {})
            stalled = await session.fetch(STALLS, {})
            postgresql = session.postgresql
        sagas, attention = Counter[tuple[str, str]](), Counter[str]()
        for row in by_status:
            sagas[row.saga_type, row.status] += row.amount
            if row.attention is not None:
                attention[row.attention] += row.amount
        return Counts(
            sagas=sagas,
            attention=attention,
            stalled=len(stalled),
            outbox=outbox.amount,
            outbox_stuck=outbox.stuck,
            outbox_oldest=outbox.age if postgresql else _age(outbox.oldest, now),
            timers=timers.amount,
            timers_due=timers.due,
            timer_overdue=max(0.0, timers.age) if postgresql else _age(timers.oldest, now),
            held=rest.held,
            dead_letters=rest.letters,
        )


def _sagas(wanted: SagaFilter, *, on: bool = False) -> Statement:
    """The instances that a filter wants, the latest started first, from behind `:after` when it goes `on`.

    Only what is wanted is asked for: a condition that may hold for everybody would have every instance looked at.
    """
    conditions = ["true"]
    if wanted.saga_type is not None:
        conditions.append("saga_type = cast(:type as text)")
    if wanted.key is not None and wanted.aliased:
        conditions.append("saga_id in (select saga_id from saga_alias where value = cast(:key as text))")
    elif wanted.key is not None:
        conditions += ["business_key = cast(:key as text)", *(() if wanted.saga_type else (_OF_SOME_TYPE,))]
    if wanted.status is not None:
        narrower = _WANTING if wanted.status == "parked" else "phase = cast(:status as text)"
        conditions += ["status = cast(:status as text)", narrower]
    if wanted.attention:
        conditions.append(_WANTING)
    if wanted.parent is not None:
        conditions.append("parent_id = cast(:parent as uuid)")
    if wanted.children:
        conditions.append("parent_id is not null")
    if on:
        conditions.append(
            "(started_at, saga_id) < (select started_at, saga_id from saga where saga_id = cast(:after as uuid))"
        )
    return Statement.either(f"""
        select {_SAGA_COLUMNS} from v_saga where {" and ".join(conditions)}
        order by started_at desc, saga_id desc limit cast(:limit as bigint)
    """)


def _timers(wanted: TimerFilter, *, on: bool = False) -> Statement:
    """The timers that a filter wants, those first that are due first, from behind a place when it goes `on`."""
    conditions = ["true"]
    if wanted.saga_type is not None:
        conditions.append("t.saga_type = cast(:type as text)")
    if wanted.saga_id is not None:
        conditions.append("t.saga_id = cast(:saga as uuid)")
    if on:
        conditions.append(
            "(t.due_at, t.saga_id, t.name) > (cast(:due as timestamptz), cast(:id as uuid), cast(:name as text))"
        )
    return Statement.either(f"""
        select t.saga_id, t.saga_type, s.key as business_key, t.name, t.generation, t.due_at
        from timer t join saga s on s.saga_id = t.saga_id where {" and ".join(conditions)}
        order by t.due_at, t.saga_id, t.name limit cast(:limit as bigint)
    """)


async def _find(session: Session, reference: str | UUID, saga_type: str | None) -> UUID | None:
    saga_id = _maybe_uuid(reference)
    if saga_id is not None and await session.fetch(_SAGA, {"id": saga_id}):
        return saga_id
    of_type = {} if saga_type is None else {"type": saga_type}
    values = {"key": str(reference), **of_type, "limit": 2}
    wanted = SagaFilter(key=str(reference), saga_type=saga_type)
    rows = await session.fetch(_sagas(wanted), values)
    if not rows:
        return await _find_by_alias(session, wanted, values)
    found = [summary(row) for row in rows]
    if len({each.saga_type for each in found}) > 1:
        types = " and ".join(sorted({each.saga_type for each in found}))
        raise OperationRefused(
            f"instances of several types have the key {reference!r} ({types}); name the type (--type) or the id"
        )
    return found[0].saga_id


async def _find_by_alias(session: Session, wanted: SagaFilter, values: Mapping[str, object]) -> UUID | None:
    found = [summary(row) for row in await session.fetch(_sagas(replace(wanted, aliased=True)), values)]
    if len(found) > 1:
        shown = " and ".join(f"{each.saga_type} {each.business_key!r}" for each in found)
        raise OperationRefused(f"several instances have the alias {wanted.key!r} ({shown}); name one by its key or id")
    return found[0].saga_id if found else None


async def _one(session: Session, saga_id: UUID) -> SagaSummary:
    [row] = await session.fetch(_SAGA, {"id": saga_id})
    return summary(row)


async def _maybe(session: Session, saga_id: UUID | None) -> SagaSummary | None:
    rows = () if saga_id is None else await session.fetch(_SAGA, {"id": saga_id})
    return summary(rows[0]) if rows else None


async def _detail(session: Session, saga_id: UUID, now: datetime) -> SagaDetail:
    of = {"id": saga_id}
    saga = await _one(session, saga_id)
    [state] = await session.fetch(_STATE, of)
    [clock] = await session.fetch(_CLOCK, {} if session.postgresql else {"now": now})
    recorded = await session.fetch(_DOCUMENT, {"type": saga.saga_type, "version": saga.version})
    return SagaDetail(
        saga=saga,
        read_at=as_time(clock.now),
        state=json.loads(bytes(state.state)),
        attention=[
            Reason(reason=row.reason, detail=row.detail, since=as_time(row.since))
            for row in await session.fetch(_ATTENTION, of)
        ],
        events=[_event(row) for row in await session.fetch(_EVENTS, of)],
        timers=[
            ArmedTimer(name=row.name, generation=row.generation, due_at=as_time(row.due_at))
            for row in await session.fetch(_TIMERS, of)
        ],
        outbox=[_pending(row) for row in await session.fetch(_PENDING, of)],
        held=[_held(row) for row in await session.fetch(_HELD_FOR, of)],
        dead_letters=[letter_summary(row) for row in await session.fetch(_LETTERS_OF, of)],
        policy=json.loads(recorded[0].document).get("policy") if recorded else None,
        aliases={row.alias: row.value for row in await session.fetch(_ALIASES, of)},
        parent=await _maybe(session, saga.parent_id),
        children=[summary(row) for row in await session.fetch(_CHILDREN, of)],
    )


def summary(row: Row[Any]) -> SagaSummary:
    """A row of `v_saga`."""
    values = dict(row._mapping)
    values["saga_id"] = as_uuid(row.saga_id)
    values["paused"] = bool(row.paused)
    for name in ("started_at", "updated_at", "deadline_at"):
        values[name] = as_time(values[name])
    values["ended_at"] = None if row.ended_at is None else as_time(row.ended_at)
    values["parent_id"] = None if row.parent_id is None else as_uuid(row.parent_id)
    return SagaSummary(**values)


def _event(row: Row[Any]) -> Event:
    return Event(**{**row._mapping, "at": as_time(row.at), "detail": json.loads(row.detail)})


def _pending(row: Row[Any]) -> PendingMessage:
    return PendingMessage(
        **{
            **row._mapping,
            "saga_id": None if row.saga_id is None else as_uuid(row.saga_id),
            "created_at": as_time(row.created_at),
            "next_attempt_at": as_time(row.next_attempt_at),
            "stuck": bool(row.stuck),
        }
    )


def _held(row: Row[Any]) -> HeldSummary:
    values = dict(row._mapping)
    values["saga_id"] = None if row.saga_id is None else as_uuid(row.saga_id)
    values["received_at"] = as_time(row.received_at)
    values["expires_at"] = None if row.expires_at is None else as_time(row.expires_at)
    return HeldSummary(**values)


def _timer(row: Row[Any]) -> TimerSummary:
    return TimerSummary(**{**row._mapping, "saga_id": as_uuid(row.saga_id), "due_at": as_time(row.due_at)})


def _maybe_uuid(reference: str | UUID) -> UUID | None:
    if isinstance(reference, UUID):
        return reference
    try:
        return UUID(reference)
    except ValueError:
        return None


def _age(oldest: str | None, now: datetime) -> float:
    return 0.0 if oldest is None else max(0.0, (now - as_time(oldest)).total_seconds())
