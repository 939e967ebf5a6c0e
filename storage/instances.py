"""The rows of instances: their state, history and reasons for attention, and who owns a business key."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic_core import PydanticSerializationError, to_json

from messages.printable import printable
from messages.value import value
from sagas.instance import Instance, Phase, pack_progress, unpack_progress
from sagas.names import PARENT
from sagas.outcome import HistoryEntry
from sagas.parents import parent_of
from storage.statements import Statement, Write, as_time, as_uuid

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Row

    from storage.database import Session
    from storage.statements import Batch

MAX_DETAIL = 4_000
"""Longest detail of a reason for attention, in characters."""

_COLUMNS = (
    "saga_id, saga_type, key, n, version, phase, paused, waiting_for, state, progress, started_at, updated_at, "
    "deadline_at, ended_at, end_reason, skipped, revision, seq"
)
_NOTHING = ", ".join("null" for _ in _COLUMNS.split(", ")[1:])
_WITH_LOCKED = f"""
with locked as materialized (
    select {_COLUMNS} from saga where saga_id = any(cast(:ids as uuid[])) order by saga_id
    for no key update {{skip}}
) select {_COLUMNS}, clock_timestamp() as now from locked
"""
# Whoever is asked for and not locked is either held by another transaction or not there; looked up only when needed.
_BUSY = f"""
union all
select saga_id, {_NOTHING}, null from saga
where (select count(*) from locked) < cardinality(cast(:ids as uuid[])) and saga_id = any(cast(:ids as uuid[]))
  and saga_id not in (select saga_id from locked)
"""
_ON_SQLITE = f"select {_COLUMNS} from saga where saga_id in (select value from json_each(:ids)) order by saga_id"
_LOCK = Statement.of(postgresql=_WITH_LOCKED.format(skip="skip locked") + _BUSY, sqlite=_ON_SQLITE)
_LOCK_WAITING = Statement.of(postgresql=_WITH_LOCKED.format(skip=""), sqlite=_ON_SQLITE)
_READ = Statement.of(
    postgresql=f"select {_COLUMNS}, clock_timestamp() as now from saga where saga_id = any(cast(:ids as uuid[]))",
    sqlite=_ON_SQLITE,
)
_EVENT_COLUMNS = "e.saga_id, e.seq, e.at, e.kind, e.step, e.message_id, e.message_name, e.detail, e.body, e.patch"
_SENT = Statement.of(
    postgresql=f"""
        select {_EVENT_COLUMNS}
        from unnest(cast(:ids as uuid[]), cast(:messages as text[])) as r(saga_id, message_id)
        join saga_event e on e.saga_id = r.saga_id and e.message_id = r.message_id
        where e.body is not null order by e.saga_id, e.seq desc
    """,
    sqlite=f"""
        select {_EVENT_COLUMNS}
        from saga_event e
        where e.saga_id in (select value from json_each(:ids))
          and e.message_id in (select value from json_each(:messages))
          and e.body is not null order by e.saga_id, e.seq desc
    """,
)

COLUMNS = {
    "saga_id": "uuid",
    "saga_type": "text",
    "key": "text",
    "n": "bigint",
    "version": "bigint",
    "phase": "text",
    "paused": "boolean",
    "waiting_for": "text",
    "state": "bytea",
    "progress": "bytea",
    "started_at": "timestamptz",
    "updated_at": "timestamptz",
    "deadline_at": "timestamptz",
    "ended_at": "timestamptz",
    "end_reason": "text",
    "skipped": "bigint",
    "revision": "bigint",
    "seq": "bigint",
}
_FIXED = ("saga_id", "saga_type", "key", "n", "started_at")
_CHANGING = tuple(column for column in COLUMNS if column not in _FIXED)


def _insert(table: str, columns: Mapping[str, str]) -> tuple[str, str]:
    names = ", ".join(columns)
    values = ", ".join(f":{column}" for column in columns)
    return (
        f"insert into {table} ({names}) select {names} from {{rows}}",
        f"insert into {table} ({names}) values ({values})",
    )


_INSERT_SQL = _insert("saga", COLUMNS)
INSERT_SAGA = Write(name="saga_insert", columns=COLUMNS, postgresql=_INSERT_SQL[0], sqlite=_INSERT_SQL[1])
_OF_CHILD = {**COLUMNS, "parent_id": "uuid"}
_INSERT_CHILD_SQL = _insert("saga", _OF_CHILD)
INSERT_CHILD = Write(
    name="child_insert", columns=_OF_CHILD, postgresql=_INSERT_CHILD_SQL[0], sqlite=_INSERT_CHILD_SQL[1]
)
UPDATE_SAGA = Write(
    name="saga_update",
    columns={**{column: COLUMNS[column] for column in ("saga_id", *_CHANGING)}, "was": "bigint"},
    postgresql=f"""
        update saga s set {", ".join(f"{column} = r.{column}" for column in _CHANGING)}
        from {{rows}} where s.saga_id = r.saga_id and s.revision = r.was returning s.saga_id
    """,
    sqlite=f"""
        update saga set {", ".join(f"{column} = :{column}" for column in _CHANGING)}
        where saga_id = :saga_id and revision = :was
    """,
    checked=True,
)

_EVENT = {
    "saga_id": "uuid",
    "seq": "bigint",
    "at": "timestamptz",
    "kind": "text",
    "step": "text",
    "message_id": "text",
    "message_name": "text",
    "detail": "text",
    "body": "bytea",
    "patch": "bytea",
}
_EVENT_SQL = _insert("saga_event", _EVENT)
INSERT_EVENT = Write(name="event_insert", columns=_EVENT, postgresql=_EVENT_SQL[0], sqlite=_EVENT_SQL[1])

CLEAR_ATTENTION = Write(
    name="attention_clear",
    columns={"saga_id": "uuid", "reason": "text"},
    postgresql="delete from attention a using {rows} where a.saga_id = r.saga_id and a.reason = r.reason",
    sqlite="delete from attention where saga_id = :saga_id and reason = :reason",
)
RAISE_ATTENTION = Write(
    name="attention_raise",
    columns={"saga_id": "uuid", "reason": "text", "detail": "text", "since": "timestamptz"},
    postgresql="""
        insert into attention (saga_id, reason, detail, since) select saga_id, reason, detail, since from {rows}
        on conflict (saga_id, reason) do update set detail = excluded.detail
    """,
    sqlite="""
        insert into attention (saga_id, reason, detail, since) values (:saga_id, :reason, :detail, :since)
        on conflict (saga_id, reason) do update set detail = excluded.detail
    """,
)


async def lock(
    session: Session, saga_ids: Collection[UUID], *, wait: bool
) -> tuple[dict[UUID, Instance], frozenset[UUID], datetime | None]:
    """Lock instances in id order: those that were locked, those that others hold, and the database's time after it.

    The time is None when none was locked, and on SQLite, whose time is the host's. Needs a transaction.
    """
    ids = sorted(set(saga_ids))
    if not ids:
        return {}, frozenset(), None
    rows = await session.fetch(_LOCK_WAITING if wait else _LOCK, {"ids": ids})
    locked = {instance.saga_id: instance for instance in (loaded(row) for row in rows if row.state is not None)}
    busy = frozenset(as_uuid(row.saga_id) for row in rows if row.state is None)
    now: datetime | None = rows[len(locked) - 1].now if locked and session.postgresql else None
    return locked, busy, now


async def read(session: Session, saga_ids: Collection[UUID]) -> tuple[list[Instance], datetime | None]:
    """Instances as they stand, without a lock, and the database's time; None as for `lock`."""
    rows = await session.fetch(_READ, {"ids": sorted(saga_ids)})
    return [loaded(row) for row in rows], rows[0].now if rows and session.postgresql else None


@value
class EventRow:
    """A row of an instance's history."""

    saga_id: UUID
    at: datetime
    entry: HistoryEntry
    patch: bytes | None


async def sent(session: Session, sends: Collection[tuple[UUID, str]]) -> dict[tuple[UUID, str], EventRow]:
    """The first history row with bytes of each (saga id, message id), of those that have one. Joins a transaction."""
    if not sends:
        return {}
    wanted = sorted(sends)
    rows = await session.fetch(
        _SENT, {"ids": [saga_id for saga_id, _ in wanted], "messages": [message for _, message in wanted]}
    )
    found = {(as_uuid(row.saga_id), row.message_id): _event(row) for row in rows}  # the first one comes last and stays
    return {send: found[send] for send in wanted if send in found}


def _event(row: Row[Any]) -> EventRow:
    entry = HistoryEntry(
        seq=row.seq,
        kind=row.kind,
        step=row.step,
        message_id=row.message_id,
        message_name=row.message_name,
        detail=json.loads(row.detail),
        body=None if row.body is None else bytes(row.body),
    )
    patch = None if row.patch is None else bytes(row.patch)
    return EventRow(saga_id=as_uuid(row.saga_id), at=as_time(row.at), entry=entry, patch=patch)


def loaded(row: Row[Any]) -> Instance:
    """The instance that a row of `saga` holds."""
    progress = unpack_progress(row.progress)
    return Instance(
        saga_id=as_uuid(row.saga_id),
        saga_type=row.saga_type,
        key=row.key,
        n=row.n,
        version=row.version,
        phase=Phase(row.phase),
        state=bytes(row.state),
        steps=progress.steps,
        choices=progress.choices,
        timers=progress.timers,
        attention=progress.attention,
        paused=bool(row.paused),
        waiting_for=row.waiting_for,
        started_at=as_time(row.started_at),
        updated_at=as_time(row.updated_at),
        deadline_at=as_time(row.deadline_at),
        ended_at=None if row.ended_at is None else as_time(row.ended_at),
        end_reason=row.end_reason,
        skipped=row.skipped,
        revision=row.revision,
        seq=row.seq,
    )


def _fixed(instance: Instance) -> tuple[object, ...]:
    return tuple(getattr(instance, column) for column in _FIXED)


def _changing(instance: Instance) -> tuple[object, ...]:
    return (
        instance.version,
        instance.phase.value,
        instance.paused,
        instance.waiting_for,
        instance.state,
        pack_progress(instance),
        instance.updated_at,
        instance.deadline_at,
        instance.ended_at,
        instance.end_reason,
        instance.skipped,
        instance.revision,
        instance.seq,
    )


def _whole(instance: Instance) -> tuple[object, ...]:
    values = dict(zip((*_FIXED, *_CHANGING), (*_fixed(instance), *_changing(instance)), strict=True))
    return tuple(values[column] for column in COLUMNS)


def _parent_id(child: Instance) -> UUID | None:
    parent = parent_of(child.choices)
    return None if parent is None else parent.saga_id


def save(
    batch: Batch,
    *,
    inserted: Sequence[Instance],
    updated: Sequence[tuple[Instance, Instance]],
) -> None:
    """Add the rows of new and changed instances, and their reasons for attention.

    An update whose row no longer has the revision it was loaded with makes the whole batch fail as `DatabaseBusy`.
    """
    batch.add(INSERT_SAGA, [_whole(instance) for instance in inserted if PARENT not in instance.choices])
    children = [instance for instance in inserted if PARENT in instance.choices]
    if children:
        batch.add(INSERT_CHILD, [(*_whole(child), _parent_id(child)) for child in children])
    ordered = sorted(updated, key=lambda pair: pair[1].saga_id)
    batch.add(UPDATE_SAGA, [(after.saga_id, *_changing(after), before.revision) for before, after in ordered])
    _save_attention(batch, [*((None, instance) for instance in inserted), *ordered])


def _save_attention(batch: Batch, pairs: Iterable[tuple[Instance | None, Instance]]) -> None:
    cleared: list[tuple[object, ...]] = []
    raised: list[tuple[object, ...]] = []
    for before, after in pairs:
        old = before.attention if before is not None else {}
        if old == after.attention:
            continue
        cleared.extend((after.saga_id, reason) for reason in sorted(old.keys() - after.attention.keys()))
        raised.extend(
            (after.saga_id, reason, printable(detail, MAX_DETAIL), after.updated_at)
            for reason, detail in sorted(after.attention.items())
            if old.get(reason) != detail
        )
    batch.add(CLEAR_ATTENTION, cleared)
    batch.add(RAISE_ATTENTION, raised)


def history_row(saga_id: UUID, at: datetime, entry: HistoryEntry, patch: bytes | None) -> tuple[object, ...]:
    """A history entry as a row for `INSERT_EVENT`."""
    return (
        saga_id,
        entry.seq,
        at,
        entry.kind,
        entry.step,
        entry.message_id,
        entry.message_name,
        _detail(entry.detail),
        entry.body,
        patch,
    )


def _detail(detail: Mapping[str, Any]) -> str:
    """ASCII only, and nothing in it that makes PostgreSQL refuse to look into the JSON: no NUL, no lone surrogate."""
    if not detail:
        return "{}"
    try:
        packed = _dumped(detail)
    except PydanticSerializationError:  # half a surrogate pair
        return _dumped(_readable(detail))
    return _dumped(_readable(detail)) if "\\u0000" in packed else packed


def _dumped(value: object) -> str:
    return to_json(value, fallback=str, ensure_ascii=True, inf_nan_mode="strings").decode("ascii")


def _readable(value: object) -> object:
    if isinstance(value, str):
        return value.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, Mapping):
        return {_readable(str(name)): _readable(item) for name, item in value.items()}
    return [_readable(item) for item in value] if isinstance(value, (list, tuple)) else value
