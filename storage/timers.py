"""The rows of timers: written as the difference of the armed ones, found when due by the database's clock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from messages.value import value
from storage.statements import Statement, Write, as_time, as_uuid

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from datetime import datetime
    from uuid import UUID

    from sagas.instance import Instance
    from storage.database import Session
    from storage.statements import Batch

# now() can use the index, clock_timestamp() cannot; the statement is a transaction of its own, so they are the same.
_DUE = Statement.of(
    postgresql="""
        (select saga_id, saga_type, name, generation, cast(extract(epoch from due_at - now()) as float8) as wait, due_at
         from timer
         where due_at <= now() and saga_type = any(cast(:types as text[]))
         order by due_at, saga_id, name limit cast(:limit as bigint) offset cast(:skip as bigint))
        union all
        (select null, null, null, null, cast(extract(epoch from due_at - now()) as float8), due_at from timer
         where due_at > now() and saga_type = any(cast(:types as text[]))
         order by due_at limit 1)
    """,
    sqlite="""
        select * from (
            select saga_id, saga_type, name, generation, 0 as later, due_at from timer
            where due_at <= :now and saga_type in (select value from json_each(:types))
            order by due_at, saga_id, name limit :limit offset :skip)
        union all
        select * from (
            select null, null, null, null, 1, due_at from timer
            where due_at > :now and saga_type in (select value from json_each(:types)) order by due_at limit 1)
    """,
)

DELETE_TIMER = Write(
    name="timer_delete",
    columns={"saga_id": "uuid", "name": "text"},
    postgresql="delete from timer t using {rows} where t.saga_id = r.saga_id and t.name = r.name",
    sqlite="delete from timer where saga_id = :saga_id and name = :name",
)
_REPLACING = """
    on conflict (saga_id, name) do update set
        generation = excluded.generation, due_at = excluded.due_at, asked_at = excluded.asked_at
"""
SET_TIMER = Write(
    name="timer_set",
    columns={
        "saga_id": "uuid",
        "name": "text",
        "saga_type": "text",
        "generation": "bigint",
        "due_at": "timestamptz",
        "asked_at": "timestamptz",
    },
    postgresql=f"""
        insert into timer (saga_id, name, saga_type, generation, due_at, asked_at)
        select saga_id, name, saga_type, generation, due_at, asked_at from {{rows}} {_REPLACING}
    """,
    sqlite=f"""
        insert into timer (saga_id, name, saga_type, generation, due_at, asked_at)
        values (:saga_id, :name, :saga_type, :generation, :due_at, :asked_at) {_REPLACING}
    """,
)


@value
class DueRow:
    """A timer row that was due when it was read, without a lock, and for how many seconds."""

    saga_id: UUID
    saga_type: str
    name: str
    generation: int
    late: float


async def due(
    session: Session, saga_types: Collection[str], limit: int, now: datetime, *, skip: int = 0
) -> tuple[Sequence[DueRow], float | None]:
    """Due timers of those types, the oldest first, and the seconds until the next one that is not due (or None).

    Args:
        session: Where to read.
        saga_types: Only timers of these.
        limit: At most so many due ones.
        now: The host's time, which decides on SQLite; on PostgreSQL the database's does.
        skip: So many of the oldest due ones are passed over.
    """
    parameters: dict[str, object] = {"types": sorted(saga_types), "limit": limit, "skip": skip}
    rows = await session.fetch(_DUE, parameters if session.postgresql else parameters | {"now": now})
    waits = [row.wait if session.postgresql else (as_time(row.due_at) - now).total_seconds() for row in rows]
    found = [
        DueRow(
            saga_id=as_uuid(row.saga_id), saga_type=row.saga_type, name=row.name, generation=row.generation, late=-wait
        )
        for row, wait in zip(rows, waits, strict=True)
        if row.saga_id is not None
    ]
    following = [wait for row, wait in zip(rows, waits, strict=True) if row.saga_id is None]
    return found, max(0.0, *following) if following else None


def save(batch: Batch, pairs: Iterable[tuple[Instance | None, Instance]]) -> None:
    """Add what changed between the armed timers of each (before, after); before is None for a new instance."""
    removed: list[tuple[object, ...]] = []
    changed: list[tuple[object, ...]] = []
    for before, after in sorted(pairs, key=lambda pair: pair[1].saga_id):
        old = before.armed if before is not None else {}
        new = after.armed
        removed.extend((after.saga_id, name) for name in sorted(old.keys() - new.keys()))
        changed.extend(
            (after.saga_id, name, after.saga_type, timer.fence, timer.due_at, timer.asked_at)
            for name, timer in sorted(new.items())
            if old.get(name) != timer
        )
    batch.add(DELETE_TIMER, removed)
    batch.add(SET_TIMER, changed)
