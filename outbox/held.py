"""Messages that are held until they can be applied: kept raw, taken in order of arrival by whoever unblocks them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from messages.printable import printable
from outbox.holding import Held, RipeHeld
from storage.properties import packed, unpacked
from storage.statements import Statement, Write, as_uuid

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Row

    from outbox.holding import KnownType
    from outbox.naming import Named
    from storage.database import Session
    from storage.statements import Batch

MAX_NAME = 255

_COLUMNS = """
    h.held_id, h.saga_type, h.source, h.message_id, h.body_hash, h.name, h.schema_version, h.body, h.properties,
    h.reason, h.business_key, h.saga_id, h.alias
"""
_INTO = """
    insert into held (
        saga_type, source, message_id, body_hash, name, schema_version, body, properties, reason, business_key, saga_id,
        alias, received_at, expires_at
    )
"""
_ONCE = "on conflict (saga_type, source, message_id) do nothing"
_EXPIRES = "strftime('%Y-%m-%dT%H:%M:%f000Z', :now, :expires_in || ' seconds')"
HOLD = Write(
    name="held_hold",
    columns={
        "saga_type": "text",
        "source": "text",
        "message_id": "text",
        "body_hash": "bytea",
        "name": "text",
        "schema_version": "bigint",
        "body": "bytea",
        "properties": "text",
        "reason": "text",
        "business_key": "text",
        "saga_id": "uuid",
        "alias": "text",
        "expires_in": "float8",
    },
    postgresql=f"""
        {_INTO} select saga_type, source, message_id, body_hash, name, schema_version, body, properties, reason,
                       business_key, saga_id, alias, clock_timestamp(),
                       clock_timestamp() + expires_in * interval '1 second' from {{rows}} {_ONCE}
    """,
    sqlite=f"""
        {_INTO} values (:saga_type, :source, :message_id, :body_hash, :name, :schema_version, :body, :properties,
                        :reason, :business_key, :saga_id, :alias, :now,
                        {_EXPIRES}) {_ONCE}
    """,
)
REHOLD = Write(
    name="held_rehold",
    columns={
        "held_id": "bigint",
        "reason": "text",
        "business_key": "text",
        "saga_id": "uuid",
        "alias": "text",
        "expires_in": "float8",
    },
    postgresql="""
        update held h set reason = r.reason, business_key = coalesce(r.business_key, h.business_key),
                          saga_id = r.saga_id, alias = r.alias,
                          expires_at = case when r.expires_in is not null then coalesce(
                              h.expires_at, clock_timestamp() + r.expires_in * interval '1 second') end
        from {rows} where h.held_id = r.held_id
    """,
    sqlite=f"""
        update held set reason = :reason, business_key = coalesce(:business_key, business_key),
                        saga_id = :saga_id, alias = :alias,
                        expires_at = case when :expires_in is not null then coalesce(expires_at, {_EXPIRES}) end
        where held_id = :held_id
    """,
)
RIPEN = Write(
    name="held_ripen",
    columns={"saga_id": "uuid"},
    postgresql="""
        update held h set reason = 'awaited' from {rows} where h.saga_id = r.saga_id and h.reason = 'unawaited'
    """,
    sqlite="update held set reason = 'awaited' where saga_id = :saga_id and reason = 'unawaited'",
)
RELEASE = Write(
    name="held_release",
    columns={"held_id": "bigint"},
    postgresql="delete from held h using {rows} where h.held_id = r.held_id",
    sqlite="delete from held where held_id = :held_id",
)

_FOR = Statement.of(
    postgresql=f"""
        select {_COLUMNS} from held h
        where h.saga_id = any(cast(:ids as uuid[])) and h.saga_type = cast(:saga_type as text)
        order by h.held_id for update
    """,
    sqlite=f"""
        select {_COLUMNS} from held h
        where h.saga_id in (select value from json_each(:ids)) and h.saga_type = :saga_type order by h.held_id
    """,
)
_BY_ALIAS = Statement.of(
    postgresql=f"""
        select {_COLUMNS} from held h
        where h.saga_type = cast(:saga_type as text) and h.business_key = any(cast(:values as text[]))
          and (h.alias, h.business_key) in (
              select alias, value from unnest(cast(:aliases as text[]), cast(:values as text[])) as r(alias, value))
        order by h.held_id for update of h
    """,
    sqlite=f"""
        select {_COLUMNS} from held h
        where h.saga_type = :saga_type and (h.alias, h.business_key) in (
            select json_extract(r.value, '$[0]'), json_extract(r.value, '$[1]') from json_each(:entries) r)
        order by h.held_id
    """,
)
_LOCK = Statement.of(
    postgresql=f"""
        select {_COLUMNS} from held h where h.held_id = any(cast(:ids as bigint[])) order by h.held_id
        for update skip locked
    """,
    sqlite=f"""
        select {_COLUMNS} from held h where h.held_id in (select value from json_each(:ids)) order by h.held_id
    """,
)
_AWAITED = Statement.of(
    postgresql="""
        select saga_id from held
        where saga_id = any(cast(:ids as uuid[])) and saga_type = cast(:saga_type as text) and reason <> 'unawaited'
    """,
    sqlite="""
        select saga_id from held
        where saga_id in (select value from json_each(:ids)) and saga_type = :saga_type and reason <> 'unawaited'
    """,
)
# Who it is for by now: the instance that it was held for, or that has the alias which it was held for.
_FOR_WHOM = "coalesce(h.saga_id, a.saga_id)"
_RIPE_COLUMNS = _COLUMNS.replace("h.saga_id", f"{_FOR_WHOM} as saga_id")
_BY_WHOM = f"""
        left join saga_alias a on a.saga_type = h.saga_type and a.alias = h.alias and a.value = h.business_key
        left join saga s on s.saga_id = {_FOR_WHOM} and s.saga_type = h.saga_type
"""
# What each reason waits for: the instance, the end of its pause, a process that knows its version and the message's.
_RIPE = Statement.of(
    postgresql=f"""
        select {_RIPE_COLUMNS}, coalesce(h.expires_at < clock_timestamp()
                                    and (s.saga_id is null or h.reason = 'unawaited'), false) as expired
        from held h {_BY_WHOM}
        where h.saga_type = any(cast(:types as text[]))
          and ({_FOR_WHOM} is null or {_FOR_WHOM} <> all(cast(:without as uuid[])))
          and (h.expires_at < clock_timestamp()
               or (h.reason in ('early', 'awaited') and s.saga_id is not null)
               or (h.reason = 'paused' and not s.paused)
               or (h.reason = 'version' and (s.saga_id is null or exists (
                    select 1 from unnest(cast(:version_types as text[]), cast(:versions as bigint[]))
                         as v(type, version)
                    where v.type = s.saga_type and v.version = s.version))
                   and exists (
                    select 1 from unnest(cast(:event_types as text[]), cast(:events as text[]),
                                         cast(:schema_versions as bigint[])) as e(type, name, version)
                    where e.type = h.saga_type and e.name = h.name and e.version >= h.schema_version)))
        order by h.held_id limit cast(:limit as bigint)
    """,
    sqlite=f"""
        select {_RIPE_COLUMNS},
               coalesce(h.expires_at < :now and (s.saga_id is null or h.reason = 'unawaited'), 0) as expired
        from held h {_BY_WHOM}
        where h.saga_type in (select value from json_each(:types))
          and ({_FOR_WHOM} is null or {_FOR_WHOM} not in (select value from json_each(:without)))
          and (h.expires_at < :now
               or (h.reason in ('early', 'awaited') and s.saga_id is not null)
               or (h.reason = 'paused' and not s.paused)
               or (h.reason = 'version' and (s.saga_id is null or exists (
                    select 1 from json_each(:version_types) t join json_each(:versions) v on v.key = t.key
                    where t.value = s.saga_type and v.value = s.version))
                   and exists (
                    select 1 from json_each(:event_types) t
                    join json_each(:events) e on e.key = t.key join json_each(:schema_versions) v on v.key = t.key
                    where t.value = h.saga_type and e.value = h.name and v.value >= h.schema_version)))
        order by h.held_id limit :limit
    """,
)


def save(
    batch: Batch, *, held: Sequence[Held], reheld: Sequence[Held], ripened: Collection[UUID], unheld: Sequence[int]
) -> None:
    """Add messages to hold, other reasons for those that are held on, and the removal of those that are not.

    What was held for the instances `ripened` because they had not come to it is left to whoever looks for what is ripe.
    """
    batch.add(
        HOLD,
        [
            (
                each.saga_type,
                each.source,
                each.message_id,
                each.body_hash,
                printable(each.name, MAX_NAME),
                each.schema_version,
                each.raw.body,
                packed(each.raw),
                each.reason,
                each.business_key,
                each.saga_id,
                each.alias,
                each.expires_in,
            )
            for each in held
        ],
    )
    again = sorted(reheld, key=lambda each: each.held_id or 0)
    batch.add(
        REHOLD,
        [(each.held_id, each.reason, each.business_key, each.saga_id, each.alias, each.expires_in) for each in again],
    )
    if ripened:
        batch.add(RIPEN, [(saga_id,) for saga_id in sorted(ripened)])
    batch.add(RELEASE, [(held_id,) for held_id in sorted(unheld)])


async def locked_for(session: Session, saga_type: str, saga_ids: Collection[object]) -> Sequence[Held]:
    """See `outbox.interface.Unit.held_for`."""
    wanted = {"saga_type": saga_type, "ids": sorted(saga_ids, key=str)}
    return [_held(row) for row in await session.fetch(_FOR, wanted)]


async def locked_by_alias(session: Session, saga_type: str, wanted: Collection[Named]) -> Sequence[Held]:
    """See `outbox.interface.Unit.held_by_alias`."""
    ordered = sorted(wanted)
    entries = (
        {"aliases": [alias for alias, _ in ordered], "values": [value for _, value in ordered]}
        if session.postgresql
        else {"entries": ordered}
    )
    return [_held(row) for row in await session.fetch(_BY_ALIAS, {"saga_type": saga_type, **entries})]


async def locked(session: Session, held_ids: Collection[int]) -> Sequence[Held]:
    """See `outbox.interface.Unit.lock_held`."""
    return [_held(row) for row in await session.fetch(_LOCK, {"ids": sorted(held_ids)})]


async def awaited(session: Session, saga_type: str, saga_ids: Collection[UUID]) -> frozenset[UUID]:
    """See `outbox.interface.Unit.awaited`."""
    wanted = {"saga_type": saga_type, "ids": sorted(saga_ids, key=str)}
    return frozenset(as_uuid(row.saga_id) for row in await session.fetch(_AWAITED, wanted))


async def ripe(
    session: Session, known: Collection[KnownType], limit: int, without: Collection[UUID], now: datetime
) -> Sequence[RipeHeld]:
    """See `outbox.interface.Storage.ripe_held`."""
    versions = [(each.saga_type, version) for each in known for version in sorted(each.versions)]
    events = [(each.saga_type, name, version) for each in known for name, version in sorted(each.events.items())]
    parameters: dict[str, object] = {
        "types": [each.saga_type for each in known],
        "version_types": [saga_type for saga_type, _ in versions],
        "versions": [version for _, version in versions],
        "event_types": [saga_type for saga_type, _, _ in events],
        "events": [name for _, name, _ in events],
        "schema_versions": [version for _, _, version in events],
        "without": sorted(without),
        "limit": limit,
    }
    rows = await session.fetch(_RIPE, parameters if session.postgresql else {**parameters, "now": now})
    return [RipeHeld(held=_held(row), expired=bool(row.expired)) for row in rows]


def _held(row: Row[Any]) -> Held:
    return Held(
        held_id=row.held_id,
        saga_type=row.saga_type,
        source=row.source,
        message_id=row.message_id,
        body_hash=bytes(row.body_hash),
        name=row.name,
        schema_version=row.schema_version,
        raw=unpacked(bytes(row.body), row.properties),
        reason=row.reason,
        business_key=row.business_key,
        saga_id=None if row.saga_id is None else as_uuid(row.saga_id),
        alias=row.alias,
    )
