"""Which instance has which alias: found for a batch in one statement, taken and given up as instances change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from messages.errors import DatabaseBusy
from outbox.naming import AliasOwner
from storage.statements import Statement, as_uuid

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from uuid import UUID

    from outbox.naming import AliasClaim, Named
    from storage.database import Session

_ENTRY = "json_extract(r.value, '$[0]'), json_extract(r.value, '$[1]'), json_extract(r.value, '$[2]'), \
json_extract(r.value, '$[3]')"
_ROWS = """
    unnest(cast(:types as text[]), cast(:aliases as text[]), cast(:values as text[]), cast(:ids as uuid[]))
         as r(saga_type, alias, value, saga_id)
"""
_FIND = Statement.of(
    postgresql="""
        select a.alias, a.value, a.saga_id
        from unnest(cast(:aliases as text[]), cast(:values as text[])) as r(alias, value)
        cross join lateral (
            select * from saga_alias a
            where a.saga_type = cast(:saga_type as text) and a.alias = r.alias and a.value = r.value limit 1) as a
    """,
    sqlite="""
        select a.alias, a.value, a.saga_id from json_each(:entries) r
        cross join saga_alias a on a.saga_type = :saga_type and a.alias = json_extract(r.value, '$[0]')
                               and a.value = json_extract(r.value, '$[1]')
    """,
)
# Whoever has it keeps it, unless that is the one who wants it, or has ended where keys are used again.
_UNLESS_TAKEN = """
    on conflict (saga_type, alias, value) do update set saga_id = excluded.saga_id
    where saga_alias.saga_id = excluded.saga_id or (
        saga_alias.saga_type {reusing} and (saga_alias.saga_id {over} or exists (
            select 1 from saga s where s.saga_id = saga_alias.saga_id and s.ended_at is not null)))
    returning saga_type, alias, value, exists (
        select 1 from held h where h.saga_type = saga_alias.saga_type and h.business_key = saga_alias.value
                               and h.alias = saga_alias.alias) as awaited
"""
_TAKE = Statement.of(
    postgresql=f"""
        insert into saga_alias (saga_type, alias, value, saga_id)
        select saga_type, alias, value, saga_id from {_ROWS}
    """
    + _UNLESS_TAKEN.format(reusing="= any(cast(:reusing as text[]))", over="= any(cast(:over as uuid[]))"),
    sqlite=f"""
        insert into saga_alias (saga_type, alias, value, saga_id)
        select {_ENTRY} from json_each(:entries) r where true
    """
    + _UNLESS_TAKEN.format(
        reusing="in (select value from json_each(:reusing))", over="in (select value from json_each(:over))"
    ),
)
_OWNERS = Statement.of(
    postgresql=f"""
        select a.saga_type, a.alias, a.value, a.saga_id, s.key from {_ROWS}
        join saga_alias a on a.saga_type = r.saga_type and a.alias = r.alias and a.value = r.value
        left join saga s on s.saga_id = a.saga_id
    """,
    sqlite="""
        select a.saga_type, a.alias, a.value, a.saga_id, s.key from json_each(:entries) r
        cross join saga_alias a on a.saga_type = json_extract(r.value, '$[0]')
                               and a.alias = json_extract(r.value, '$[1]') and a.value = json_extract(r.value, '$[2]')
        left join saga s on s.saga_id = a.saga_id
    """,
)
_GIVE_UP = Statement.of(
    postgresql=f"""
        delete from saga_alias a using {_ROWS}
        where a.saga_type = r.saga_type and a.alias = r.alias and a.value = r.value and a.saga_id = r.saga_id
    """,
    sqlite=f"""
        delete from saga_alias
        where (saga_type, alias, value, saga_id) in (select {_ENTRY} from json_each(:entries) r)
    """,
)


async def find(session: Session, saga_type: str, wanted: Collection[Named]) -> dict[Named, UUID]:
    """See `outbox.interface.Unit.aliased`."""
    ordered = sorted(wanted)
    entries = (
        {"aliases": [alias for alias, _ in ordered], "values": [value for _, value in ordered]}
        if session.postgresql
        else {"entries": ordered}
    )
    rows = await session.fetch(_FIND, {"saga_type": saga_type, **entries})
    return {(row.alias, row.value): as_uuid(row.saga_id) for row in rows}


async def take(
    session: Session, claims: Sequence[AliasClaim], reusing: Collection[str], over: Collection[UUID]
) -> Sequence[AliasOwner]:
    """See `outbox.interface.Unit.take_aliases`.

    Raises:
        DatabaseBusy: somebody who had one gave it up between two looks.
    """
    first: dict[tuple[str, str, str], AliasClaim] = {}
    for claim in claims:
        first.setdefault(_key(claim), claim)
    ordered = [first[key] for key in sorted(first)]
    entries = _entries(session, ordered)
    rows = await session.fetch(_TAKE, {**entries, "reusing": sorted(reusing), "over": sorted(over)})
    taken = {(row.saga_type, row.alias, row.value): bool(row.awaited) for row in rows}
    lost = [claim for claim in ordered if _key(claim) not in taken]
    owners = {key: AliasOwner(saga_id=first[key].saga_id, awaited=awaited) for key, awaited in taken.items()}
    if lost:
        owners |= await _owners(session, lost)
    vanished = [claim.named for claim in lost if _key(claim) not in owners]
    if vanished:
        raise DatabaseBusy(f"the alias {vanished[0]} was given up by another transaction just now; try again")
    return [owners[_key(claim)] for claim in claims]


async def _owners(session: Session, lost: Sequence[AliasClaim]) -> dict[tuple[str, str, str], AliasOwner]:
    rows = await session.fetch(_OWNERS, _entries(session, lost))
    return {
        (row.saga_type, row.alias, row.value): AliasOwner(saga_id=as_uuid(row.saga_id), key=row.key or "")
        for row in rows
    }


async def give_up(session: Session, claims: Sequence[AliasClaim]) -> None:
    """See `outbox.interface.Unit.give_up_aliases`."""
    await session.fetch(_GIVE_UP, _entries(session, sorted(claims, key=_key)))


def _key(claim: AliasClaim) -> tuple[str, str, str]:
    return claim.saga_type, claim.alias, claim.value


def _entries(session: Session, claims: Sequence[AliasClaim]) -> Mapping[str, object]:
    if not session.postgresql:
        return {"entries": [(*_key(claim), str(claim.saga_id)) for claim in claims]}
    return {
        "types": [claim.saga_type for claim in claims],
        "aliases": [claim.alias for claim in claims],
        "values": [claim.value for claim in claims],
        "ids": [claim.saga_id for claim in claims],
    }
