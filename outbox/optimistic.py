"""A batch without locks on PostgreSQL: one look, then one statement that saves only if what was seen still stands.

The statement claims the keys, locks the instances that still have the revision that was seen, puts the ids into the
inbox, in this order; and undoes itself, by an error, when any of them is missing. An instance that another transaction
holds counts as changed: it is not waited for.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from messages.value import value
from outbox import enqueue, keys
from outbox.inbox import TAKE_OVER, seen_row
from outbox.interface import Claimed, ClaimedRow, InboxRow, KeyOwner, Locked
from outbox.unit import SqlUnit
from outbox.unlocked import NeedsTransaction
from storage import instances
from storage.statements import Batch, Part, Statement

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Row

    from outbox.holding import Held
    from outbox.interface import Changes, InboxEntry, KeyClaim, MessageKey, Outgoing, Suspect
    from outbox.naming import AliasClaim, AliasOwner, Named
    from outbox.unlocked import Wanted
    from sagas.instance import Instance
    from storage.database import Database, Session

_NO_SAGA = ", ".join(f"null::{kind}" for kind in instances.COLUMNS.values())
_NO_MESSAGE = "null::text, null::text, null::bytea, null::uuid, null::text"
# With `limit 1` each id is one look into the index, whatever the planner believes of a table that has just filled up.
_LOOK = f"""
    select 'saga' as part, {", ".join(instances.COLUMNS)}, {_NO_MESSAGE}, null::timestamptz
    from saga where saga_id = any(cast(:ids as uuid[]))
    union all
    select 'inbox', {_NO_SAGA}, i.source, i.message_id, i.body_hash, i.token, i.disposition, null
    from unnest(cast(:sources as text[]), cast(:message_ids as text[])) as r(source, message_id)
    cross join lateral (
        select * from inbox i
        where i.consumer = cast(:consumer as text) and i.source = r.source and i.message_id = r.message_id limit 1) as i
    union all
    select 'clock', {_NO_SAGA}, {_NO_MESSAGE}, clock_timestamp()
"""
_LOOK_FOR_STARTS = f"""
    select 'key', k.saga_id, k.saga_type, k.key, k.n, {_NO_SAGA.split(", ", 4)[4]},
           null, k.start_id, k.start_hash, null, null, null::timestamptz
    from unnest(cast(:keys as text[]), cast(:ns as bigint[])) as r(key, n)
    cross join lateral (
        select * from saga_key k
        where k.saga_type = cast(:consumer as text) and k.key = r.key and k.n = r.n limit 1) as k
    union all
    select 'held', h.saga_id, null, null, null, {_NO_SAGA.split(", ", 4)[4]}, {_NO_MESSAGE}, null
    from held h where h.saga_type = cast(:consumer as text) and h.saga_id = any(cast(:born as uuid[]))
"""
_NAMED = f"with seen(part, {', '.join(instances.COLUMNS)}, source, message_id, body_hash, token, disposition, now) as "
_REPLIES = Statement.both(f"{_NAMED} ({_LOOK}) select * from seen")
_WITH_STARTS = Statement.both(f"{_NAMED} ({_LOOK} union all {_LOOK_FOR_STARTS}) select * from seen")

_KEYED = """
    keyed as (
        insert into saga_key (saga_type, key, n, saga_id, start_id, start_hash, created_at)
        select cast(:consumer as text), key, n, saga_id, start_id, start_hash, clock_timestamp()
        from unnest(cast(:keys as text[]), cast(:ns as bigint[]), cast(:born as uuid[]), cast(:starts as text[]),
                    cast(:start_hashes as bytea[])) as r(key, n, saga_id, start_id, start_hash)
        on conflict (saga_type, key, n) do nothing returning 1
    ),
"""
_ALL_KEYED = "(select count(*) from keyed) = cardinality(cast(:keys as text[]))"
_UNCHANGED = """
    unchanged as materialized (
        select 1 from unnest(cast(:ids as uuid[]), cast(:revisions as bigint[]), cast(:seqs as bigint[]))
             as r(saga_id, revision, seq)
        join saga s on s.saga_id = r.saga_id and s.revision = r.revision and s.seq = r.seq
        where {keyed}
        order by s.saga_id for no key update of s skip locked
    ),
    noted as (
        insert into inbox (consumer, source, message_id, body_hash, token, disposition, received_at)
        select cast(:consumer as text), source, message_id, body_hash, cast(:token as uuid), disposition,
               clock_timestamp()
        from unnest(cast(:sources as text[]), cast(:message_ids as text[]), cast(:hashes as bytea[]),
                    cast(:dispositions as text[])) as r(source, message_id, body_hash, disposition)
        where (select count(*) from unchanged) = cardinality(cast(:ids as uuid[]))
        {take_over}
        returning 1
    )
"""
_STANDS = """
    select 'unchanged' as part, null::bigint as item,
           case when {keyed}
                 and (select count(*) from unchanged) = cardinality(cast(:ids as uuid[]))
                 and (select count(*) from noted) = cardinality(cast(:message_ids as text[]))
                then 1 else changed_meanwhile() end as amount
"""


def _head(ctes: str, keyed: str) -> Part:
    """What a save does before it writes."""
    return Part(ctes=ctes.format(keyed=keyed, take_over=TAKE_OVER), select=_STANDS.format(keyed=keyed))


_HEAD = _head(_UNCHANGED, "true")
_HEAD_WITH_STARTS = _head(_KEYED + _UNCHANGED, _ALL_KEYED)
_CLAIMED = Statement.both("""
    select outbox_id, message_id, exchange, routing_key, saga_id, dead_letter_id from outbox
    where message_id = any(cast(:ids as text[])) and token = cast(:token as uuid) and state = 'claimed'
""")


@value
class _Seen:
    """What stood when it was looked at, by the database's clock."""

    now: datetime
    instances: Mapping[UUID, Instance]
    owners: Mapping[str, KeyOwner]
    awaited: frozenset[UUID]
    known: Mapping[MessageKey, InboxRow]


async def _look(session: Session, wanted: Wanted) -> _Seen:
    parameters: dict[str, object] = {
        "consumer": wanted.saga_type,
        "ids": sorted(wanted.saga_ids),
        "sources": [entry.source for entry in wanted.entries],
        "message_ids": [entry.message_id for entry in wanted.entries],
    }
    if wanted.claims:
        parameters |= {
            "keys": [claim.key for claim in wanted.claims],
            "ns": [claim.n for claim in wanted.claims],
            "born": [claim.saga_id for claim in wanted.claims],
        }
    found: dict[str, list[Row[Any]]] = {"saga": [], "inbox": [], "clock": [], "key": [], "held": []}
    for row in await session.fetch(_WITH_STARTS if wanted.claims else _REPLIES, parameters):
        found[row.part].append(row)
    (clock,) = found["clock"]
    return _Seen(
        now=clock.now,
        instances={row.saga_id: instances.loaded(row) for row in found["saga"]},
        owners={
            row.key: KeyOwner(
                saga_id=row.saga_id, n=row.n, start_id=row.message_id, start_hash=bytes(row.body_hash), mine=False
            )
            for row in found["key"]
        },
        awaited=frozenset(row.saga_id for row in found["held"]),
        known={
            (row.source, row.message_id): seen_row(row.body_hash, row.token, row.disposition) for row in found["inbox"]
        },
    )


class _Unit(SqlUnit):
    """Answers from one look, and notes what has to stand still when it saves; see `outbox.unlocked`."""

    def __init__(self, session: Session, now: datetime, seen: _Seen) -> None:
        super().__init__(session, now)
        self._seen = seen
        self._keys: dict[UUID, KeyClaim] = {}
        self._instances: Sequence[Instance] = ()
        self._token: UUID | None = None
        self._entries: Sequence[InboxEntry] = ()

    async def claim_keys(self, claims: Sequence[KeyClaim]) -> Sequence[KeyOwner]:
        """See `outbox.interface.Unit.claim_keys`. The keys of one batch are different ones."""
        seen = self._seen
        owners = [seen.owners.get(c.key) or keys.mine(c, awaited=c.saga_id in seen.awaited) for c in claims]
        self._keys = {claim.saga_id: claim for claim, owner in zip(claims, owners, strict=True) if owner.mine}
        return owners

    async def latest_keys(self, saga_type: str, wanted: Collection[str]) -> Mapping[str, KeyOwner]:
        """Keys that are used again are claimed while deciding."""
        raise NeedsTransaction

    async def aliased(self, saga_type: str, wanted: Collection[Named]) -> Mapping[Named, UUID]:
        """Which instance has an alias can change while no instance that was looked at does."""
        raise NeedsTransaction

    async def take_aliases(
        self, claims: Sequence[AliasClaim], *, reusing: Collection[str], over: Collection[UUID]
    ) -> Sequence[AliasOwner]:
        """Whether somebody else has one must be known before the next decision."""
        raise NeedsTransaction

    async def give_up_aliases(self, claims: Sequence[AliasClaim]) -> None:
        """As above."""
        raise NeedsTransaction

    async def lock(self, saga_ids: Collection[UUID], *, wait: bool = False) -> Locked:
        """See `outbox.interface.Unit.lock`."""
        if wait:
            raise NeedsTransaction
        found = {each: self._seen.instances[each] for each in sorted(saga_ids) if each in self._seen.instances}
        self._instances = list(found.values())
        return Locked(instances=found, busy=frozenset(), now=self._seen.now if found else None)

    async def look(self, saga_ids: Collection[UUID]) -> Sequence[Suspect]:
        """Not the business of a batch."""
        raise NeedsTransaction

    async def claim_inbox(self, consumer: str, token: UUID, entries: Sequence[InboxEntry]) -> Claimed:
        """See `outbox.interface.Unit.claim_inbox`."""
        known = {key: row for key, row in self._seen.known.items() if row.disposition != "dead_lettered"}
        fresh = {key: entry for entry in entries if (key := (entry.source, entry.message_id)) not in known}
        self._token, self._entries = token, [fresh[key] for key in sorted(fresh)]
        return Claimed(known=known, now=self._seen.now)

    async def awaited(self, saga_type: str, saga_ids: Collection[UUID]) -> frozenset[UUID]:
        """What is held for an instance can change while the instance does not."""
        raise NeedsTransaction

    async def held_for(self, saga_type: str, saga_ids: Collection[UUID]) -> Sequence[Held]:
        """Held messages have to be locked."""
        raise NeedsTransaction

    async def held_by_alias(self, saga_type: str, wanted: Collection[Named]) -> Sequence[Held]:
        """Held messages have to be locked."""
        raise NeedsTransaction

    async def lock_held(self, held_ids: Collection[int]) -> Sequence[Held]:
        """Held messages have to be locked."""
        raise NeedsTransaction

    async def withdraw(self, message_ids: Collection[str]) -> frozenset[str]:
        """What is taken back must be gone before the next decision."""
        raise NeedsTransaction

    async def unsent(self, saga_ids: Collection[UUID]) -> Mapping[UUID, frozenset[str]]:
        """What sits in the outbox can change while the instance does not."""
        raise NeedsTransaction

    async def save(self, changes: Changes, also: Batch | None = None) -> Sequence[ClaimedRow]:
        """See `outbox.unlocked.Unlocked.unit`; commits."""
        starts = {**self._keys, **{claim.saga_id: claim for claim in changes.reassigned}}
        claims = sorted(
            (claim for saga_id, claim in starts.items() if saga_id not in changes.released),
            key=lambda claim: (claim.key, claim.n),
        )
        own = [each for each in self._instances if each.saga_type == changes.consumer]
        parameters: dict[str, object] = {
            "consumer": changes.consumer,
            "ids": [instance.saga_id for instance in own],
            "revisions": [instance.revision for instance in own],
            "seqs": [instance.seq for instance in own],
            "token": self._token,
            "sources": [entry.source for entry in self._entries],
            "message_ids": [entry.message_id for entry in self._entries],
            "hashes": [entry.body_hash for entry in self._entries],
            "dispositions": [
                changes.dispositions.get((entry.source, entry.message_id), "applied") for entry in self._entries
            ],
        }
        if claims:
            parameters |= {
                "keys": [claim.key for claim in claims],
                "ns": [claim.n for claim in claims],
                "born": [claim.saga_id for claim in claims],
                "starts": [claim.start_id for claim in claims],
                "start_hashes": [claim.start_hash for claim in claims],
            }
        head = _HEAD_WITH_STARTS if claims else _HEAD
        return await self._write(Batch(), changes, also, head=head, parameters=parameters)


class Optimistic:
    """The way without locks on PostgreSQL; see `outbox.unlocked.Unlocked`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def unit(self, wanted: Wanted) -> AsyncIterator[SqlUnit]:
        """See `outbox.unlocked.Unlocked.unit`."""
        async with self._database.single() as session:
            seen = await _look(replace(session, committing=False), wanted)
            yield _Unit(session, seen.now, seen)

    async def claimed(self, token: UUID, outgoing: Sequence[Outgoing]) -> Sequence[ClaimedRow]:
        """See `outbox.unlocked.Unlocked.claimed`."""
        by_identity = {enqueue.identity(each): each for each in outgoing}
        parameters = {"ids": [each.envelope.message_id for each in outgoing], "token": token}
        async with self._database.single() as session:
            rows = await session.fetch(_CLAIMED, parameters)
        return [
            ClaimedRow(
                outbox_id=row.outbox_id,
                token=token,
                attempts=0,
                outgoing=by_identity[(row.message_id, row.exchange, row.routing_key, row.saga_id, row.dead_letter_id)],
            )
            for row in sorted(rows, key=lambda row: row.outbox_id)
        ]
