"""Who owns a business key: the first start of a key inserts its row, every later one reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from messages.errors import DatabaseBusy
from outbox import held
from outbox.interface import KeyClaim, KeyOwner
from storage.statements import Statement, Write, as_uuid

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from datetime import datetime

    from sqlalchemy import Row

    from storage.database import Session
    from storage.statements import Batch

Key = tuple[str, str, int]
"""(saga type, business key, n)."""

_NAMES = "saga_type, key, n, saga_id, start_id, start_hash, created_at"
_CLAIM = Statement.of(
    postgresql=f"""
        insert into saga_key ({_NAMES})
        select saga_type, key, n, saga_id, start_id, start_hash, clock_timestamp()
        from unnest(cast(:types as text[]), cast(:keys as text[]), cast(:ns as bigint[]), cast(:ids as uuid[]),
                    cast(:starts as text[]), cast(:hashes as bytea[]))
             as r(saga_type, key, n, saga_id, start_id, start_hash)
        on conflict (saga_type, key, n) do nothing
        returning saga_type, key, n, exists (
            select 1 from held h where h.saga_id = saga_key.saga_id and h.saga_type = saga_key.saga_type) as awaited
    """,
    sqlite=f"""
        insert into saga_key ({_NAMES})
        values (:saga_type, :key, :n, :saga_id, :start_id, :start_hash, :now)
    """,
)
_OWNERS = Statement.of(
    postgresql="""
        select k.saga_type, k.key, k.n, k.saga_id, k.start_id, k.start_hash
        from unnest(cast(:types as text[]), cast(:keys as text[]), cast(:ns as bigint[])) as r(saga_type, key, n)
        join saga_key k on k.saga_type = r.saga_type and k.key = r.key and k.n = r.n
    """,
    sqlite="""
        select k.saga_type, k.key, k.n, k.saga_id, k.start_id, k.start_hash
        from json_each(:entries) r
        cross join saga_key k on k.saga_type = json_extract(r.value, '$[0]') and k.key = json_extract(r.value, '$[1]')
                             and k.n = json_extract(r.value, '$[2]')
    """,
)
_LATEST = Statement.of(
    postgresql="""
        select k.key, k.n, k.saga_id, k.start_id, k.start_hash
        from unnest(cast(:keys as text[])) as r(key)
        cross join lateral (
            select * from saga_key s where s.saga_type = cast(:saga_type as text) and s.key = r.key
            order by s.n desc limit 1
        ) as k
    """,
    sqlite="""
        select k.key, k.n, k.saga_id, k.start_id, k.start_hash
        from json_each(:keys) r
        cross join saga_key k on k.saga_type = :saga_type and k.key = r.value
        and k.n = (select max(s.n) from saga_key s where s.saga_type = :saga_type and s.key = r.value)
    """,
)
RELEASE = Write(
    name="key_release",
    columns={"saga_type": "text", "key": "text", "n": "bigint"},
    postgresql="delete from saga_key k using {rows} where k.saga_type = r.saga_type and k.key = r.key and k.n = r.n",
    sqlite="delete from saga_key where saga_type = :saga_type and key = :key and n = :n",
)

REASSIGN = Write(
    name="key_reassign",
    columns={"saga_type": "text", "key": "text", "n": "bigint", "start_id": "text", "start_hash": "bytea"},
    postgresql="""
        update saga_key k set start_id = r.start_id, start_hash = r.start_hash from {rows}
        where k.saga_type = r.saga_type and k.key = r.key and k.n = r.n
    """,
    sqlite="""
        update saga_key set start_id = :start_id, start_hash = :start_hash
        where saga_type = :saga_type and key = :key and n = :n
    """,
)


def key_of(claim: KeyClaim) -> Key:
    """What a claim claims."""
    return claim.saga_type, claim.key, claim.n


async def claim(session: Session, claims: Sequence[KeyClaim], now: datetime) -> Sequence[KeyOwner]:
    """See `outbox.interface.Unit.claim_keys`. Of two claims of one key in one call, the first has it.

    Raises:
        DatabaseBusy: a key's row vanished between two looks.
    """
    first: dict[Key, KeyClaim] = {}
    for wanted in claims:
        first.setdefault(key_of(wanted), wanted)
    ordered = [first[key] for key in sorted(first)]
    if not ordered:
        return ()
    owners = await (_claim_at_once(session, ordered) if session.postgresql else _claim_each(session, ordered, now))
    return [_owner(wanted, owners[key_of(wanted)], first) for wanted in claims]


def _owner(wanted: KeyClaim, owner: KeyOwner, first: dict[Key, KeyClaim]) -> KeyOwner:
    if not owner.mine or first[key_of(wanted)] is wanted:
        return owner
    return KeyOwner(saga_id=owner.saga_id, n=owner.n, start_id=owner.start_id, start_hash=owner.start_hash, mine=False)


async def _claim_at_once(session: Session, ordered: Sequence[KeyClaim]) -> dict[Key, KeyOwner]:
    rows = await session.fetch(
        _CLAIM,
        {
            **_arrays(ordered),
            "ids": [c.saga_id for c in ordered],
            "starts": [c.start_id for c in ordered],
            "hashes": [c.start_hash for c in ordered],
        },
    )
    inserted = {(row.saga_type, row.key, row.n): row.awaited for row in rows}
    owners = {key_of(c): mine(c, awaited=inserted[key_of(c)]) for c in ordered if key_of(c) in inserted}
    lost = [c for c in ordered if key_of(c) not in inserted]
    if lost:
        owners |= await _owners(session, lost)
    vanished = [c.key for c in lost if key_of(c) not in owners]
    if vanished:
        raise DatabaseBusy(
            f"the key {vanished[0]!r} was given up by another transaction just now; the batch runs again"
        )
    return owners


async def _claim_each(session: Session, ordered: Sequence[KeyClaim], now: datetime) -> dict[Key, KeyOwner]:
    owners = await _owners(session, ordered)
    fresh = [c for c in ordered if key_of(c) not in owners]
    if fresh:
        names = ("saga_type", "key", "n", "saga_id", "start_id", "start_hash")
        await session.many(_CLAIM, [{name: getattr(c, name) for name in names} | {"now": now} for c in fresh])
    for saga_type in {c.saga_type for c in fresh}:
        ours = [c for c in fresh if c.saga_type == saga_type]
        awaited = await held.awaited(session, saga_type, [c.saga_id for c in ours])
        owners |= {key_of(c): mine(c, awaited=c.saga_id in awaited) for c in ours}
    return owners


async def latest(session: Session, saga_type: str, wanted: Collection[str]) -> dict[str, KeyOwner]:
    """See `outbox.interface.Unit.latest_keys`."""
    if not wanted:
        return {}
    rows = await session.fetch(_LATEST, {"saga_type": saga_type, "keys": sorted(wanted)})
    return {row.key: _owned(row) for row in rows}


async def _owners(session: Session, claims: Sequence[KeyClaim]) -> dict[Key, KeyOwner]:
    parameters = _arrays(claims) if session.postgresql else {"entries": [key_of(c) for c in claims]}
    return {(row.saga_type, row.key, row.n): _owned(row) for row in await session.fetch(_OWNERS, parameters)}


def _owned(row: Row[Any]) -> KeyOwner:
    return KeyOwner(
        saga_id=as_uuid(row.saga_id), n=row.n, start_id=row.start_id, start_hash=bytes(row.start_hash), mine=False
    )


def _arrays(claims: Sequence[KeyClaim]) -> dict[str, object]:
    return {
        "types": [c.saga_type for c in claims],
        "keys": [c.key for c in claims],
        "ns": [c.n for c in claims],
    }


def mine(claim: KeyClaim, *, awaited: bool) -> KeyOwner:
    """The owner of a key that this transaction claims."""
    return KeyOwner(
        saga_id=claim.saga_id,
        n=claim.n,
        start_id=claim.start_id,
        start_hash=claim.start_hash,
        mine=True,
        awaited=awaited,
    )


def release(batch: Batch, keys: Iterable[Key]) -> None:
    """Add the removal of keys that this transaction claimed and did not use."""
    batch.add(RELEASE, sorted(keys))


def reassign(batch: Batch, claims: Iterable[KeyClaim]) -> None:
    """Add that keys which this transaction claimed belong to other starts than they were claimed for."""
    batch.add(REASSIGN, sorted((*key_of(claim), claim.start_id, claim.start_hash) for claim in claims))
