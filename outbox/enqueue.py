"""How messages are put into the outbox: in the order given, born claimed where this process publishes them itself.

A message whose row still stands is made due again instead of added twice. A row is born claimed only when no older row
of its (saga, path) stands before it.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from messages.value import value
from outbox.interface import ClaimedRow, Outgoing
from outbox.rows import headers
from outbox.store import CONFIRM
from storage.statements import Part, Statement, parameters_of, rows_of, spelled, sqlite_values, time_text

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from outbox.interface import Destination
    from storage.sqlite import Direct
    from storage.statements import Batch

_COLUMNS = {
    "item": "bigint",
    "message_id": "text",
    "saga_id": "uuid",
    "path": "text",
    "dead_letter_id": "bigint",
    "name": "text",
    "exchange": "text",
    "routing_key": "text",
    "body": "bytea",
    "headers": "text",
    "head": "boolean",
}
_NEW = "message_id, saga_id, path, dead_letter_id, name, exchange, routing_key, body, headers"
_FURTHER = "state, maybe_sent, came_back, token, next_attempt_at, attempts, created_at"


@cache
def _tail(gone: str, few: int) -> Part:
    """`few` rows are spelled out, if any are.

    `gone` is a query for the ids of rows that another part of the same statement deletes: it still sees them.
    """
    return Part(
        ctes=f"""
        sent as materialized (select * from {rows_of("out", _COLUMNS, few)}),
        standing as materialized (
            select s.item, o.outbox_id from sent s
            join outbox o on o.message_id = s.message_id and o.exchange = s.exchange
                         and o.routing_key = s.routing_key and o.saga_id is not distinct from s.saga_id
                         and o.dead_letter_id is not distinct from s.dead_letter_id
            where o.outbox_id not in ({gone})
        ),
        made_due as (
            update outbox o set
                next_attempt_at = clock_timestamp(), token = null,
                state = case when o.state = 'claimed' then 'unknown' else o.state end,
                attempts = o.attempts + case when o.state = 'claimed' then 1 else 0 end,
                maybe_sent = o.maybe_sent or o.state = 'claimed'
            from standing st
            where o.outbox_id = st.outbox_id
              and not (o.state = 'claimed' and o.next_attempt_at > clock_timestamp())
        ),
        fresh as materialized (
            select nextval('outbox_outbox_id_seq') as outbox_id, ordered.* from (
                select s.*, s.head and not exists (
                        select 1 from outbox e
                        where e.path = s.path and e.outbox_id not in ({gone})
                          and (e.saga_id = s.saga_id or (e.saga_id is null and s.saga_id is null))
                    ) as free
                from sent s
                where not exists (select 1 from standing st where st.item = s.item)
                order by s.item
            ) as ordered
        ),
        born as materialized (
            select f.*, f.free and count(*) filter (where f.free) over (order by f.item) <= cast(:claim_limit as bigint)
                   as mine
            from fresh f
        ),
        added as (
            insert into outbox (outbox_id, {_NEW}, {_FURTHER})
            select outbox_id, {_NEW}, case when mine then 'claimed' else 'new' end, false, false,
                   case when mine then cast(:claim_token as uuid) end,
                   clock_timestamp()
                       + case when mine then cast(:claim_lease as float8) else 0 end * interval '1 second',
                   0, clock_timestamp()
            from born
        )
        """,
        select="select 'born' as part, item, outbox_id as amount from born where mine",
    )


_NOTHING_GONE = "select null::bigint where false"
_CONFIRMED_GONE = f"select outbox_id from {CONFIRM.name}"

_STANDING = Statement.both("""
    select outbox_id, message_id, exchange, routing_key, saga_id, dead_letter_id from outbox
    where message_id in (select value from json_each(:ids))
""")
_OCCUPIED = Statement.both("""
    select distinct saga_id, path from outbox where path in (select value from json_each(:paths))
""")
_LAST_ID = Statement.both("select coalesce(max(seq), 0) as last from sqlite_sequence where name = 'outbox'")
_MAKE_DUE = Statement.both("""
    update outbox set
        next_attempt_at = :now, token = null,
        state = case when state = 'claimed' then 'unknown' else state end,
        attempts = attempts + case when state = 'claimed' then 1 else 0 end,
        maybe_sent = maybe_sent or state = 'claimed'
    where outbox_id = :outbox_id and not (state = 'claimed' and next_attempt_at > :now)
""")
_ADD = Statement.both(f"""
    insert into outbox (outbox_id, {_NEW}, {_FURTHER})
    values (:outbox_id, :message_id, :saga_id, :path, :dead_letter_id, :name, :exchange, :routing_key, :body, :headers,
            :state, false, false, :token, :next_attempt_at, 0, :now)
""")

Identity = tuple[str, str, str, "UUID | None", int | None]
"""One message on its way to one place: copies of it share a row, but for letters that are given back."""


@value
class Claim:
    """Under which token, until when and how many rows are born claimed. `until` is the host's, for SQLite."""

    token: UUID
    lease: float
    limit: int
    until: datetime


def identity(outgoing: Outgoing) -> Identity:
    """What makes two rows the same message to the same place."""
    return outgoing.envelope.message_id, *outgoing.destination, outgoing.saga_id, outgoing.dead_letter_id


def distinct(outgoing: Sequence[Outgoing], closed: Collection[Destination] = ()) -> list[tuple[Outgoing, bool]]:
    """Each message once, with whether it may be published at once as far as can be seen here.

    Not one whose destination is closed, and only the first of its (saga, path).
    """
    seen: set[Identity] = set()
    paths: set[tuple[UUID | None, str]] = set()
    kept: list[tuple[Outgoing, bool]] = []
    for each in outgoing:
        if identity(each) in seen:
            continue
        seen.add(identity(each))
        lane = (each.saga_id, each.path) if each.path is not None else None
        kept.append((each, lane not in paths and each.destination not in closed))
        if lane is not None:
            paths.add(lane)
    return kept


def tail(
    batch: Batch, rows: Sequence[tuple[Outgoing, bool]], claim: Claim | None, *, lone: bool = False
) -> tuple[Part, Mapping[str, object]]:
    """The part of a composed PostgreSQL statement that adds messages beside the other writes, and its parameters."""
    few = spelled(rows, _COLUMNS) if lone else 0
    gone = _CONFIRMED_GONE if any(write is CONFIRM for write, _ in batch.writes) else _NOTHING_GONE
    cells = [_row(item, each, head) for item, (each, head) in enumerate(rows)]
    return _tail(gone, few), {
        **parameters_of(cells, "out", _COLUMNS, spelled=bool(few)),
        "claim_token": claim.token if claim else None,
        "claim_lease": claim.lease if claim else 0.0,
        "claim_limit": claim.limit if claim else 0,
    }


def _row(item: int, each: Outgoing, head: bool) -> tuple[object, ...]:
    envelope = each.envelope
    return (
        item,
        envelope.message_id,
        each.saga_id,
        each.path,
        each.dead_letter_id,
        envelope.name,
        each.exchange,
        each.routing_key,
        envelope.body,
        headers(each),
        head,
    )


def born(outgoing: Outgoing, outbox_id: int, claim: Claim) -> ClaimedRow:
    """A row that was born claimed."""
    return ClaimedRow(outbox_id=outbox_id, token=claim.token, attempts=0, outgoing=outgoing)


def add_on_sqlite(
    direct: Direct, rows: Sequence[tuple[Outgoing, bool]], claim: Claim | None, now: datetime
) -> Sequence[ClaimedRow]:
    """Add messages to SQLite's outbox, in a transaction that writes: nobody else changes the table meanwhile."""
    standing = _standing(direct, rows)
    if standing:
        moment = time_text(now)
        direct.many(_MAKE_DUE.on_sqlite, [{"outbox_id": outbox_id, "now": moment} for outbox_id in standing.values()])
    fresh = [(each, head) for each, head in rows if identity(each) not in standing]
    if not fresh:
        return ()
    occupied = _occupied(direct, fresh)
    next_id = direct.rows(_LAST_ID.on_sqlite, {})[0].last
    claimed: list[ClaimedRow] = []
    added: list[Mapping[str, object]] = []
    for outbox_id, (each, head) in enumerate(fresh, start=next_id + 1):
        free = head and (each.path is None or (_text(each.saga_id), each.path) not in occupied)
        mine = claim if claim is not None and free and len(claimed) < claim.limit else None
        if mine is not None:
            claimed.append(born(each, outbox_id, mine))
        added.append(_added(outbox_id, each, mine, now))
    direct.many(_ADD.on_sqlite, added)
    return claimed


def _added(outbox_id: int, each: Outgoing, claim: Claim | None, now: datetime) -> Mapping[str, object]:
    row = dict(zip(_COLUMNS, _row(0, each, False), strict=True))
    del row["item"], row["head"]
    further: dict[str, object] = {
        "outbox_id": outbox_id,
        "state": "new" if claim is None else "claimed",
        "token": None if claim is None else claim.token,
        "next_attempt_at": now if claim is None else claim.until,
        "now": now,
    }
    return sqlite_values(row | further)


def _standing(direct: Direct, rows: Sequence[tuple[Outgoing, bool]]) -> dict[Identity, int]:
    wanted = {identity(each) for each, _ in rows}
    texts = {(*who[:3], _text(who[3]), who[4]): who for who in wanted}
    found = direct.rows(_STANDING.on_sqlite, sqlite_values({"ids": [message_id for message_id, *_ in wanted]}))
    same = (
        (texts.get((row.message_id, row.exchange, row.routing_key, row.saga_id, row.dead_letter_id)), row.outbox_id)
        for row in found
    )
    return {who: outbox_id for who, outbox_id in same if who is not None}


def _occupied(direct: Direct, rows: Sequence[tuple[Outgoing, bool]]) -> set[tuple[str | None, str]]:
    paths = sorted({each.path for each, _ in rows if each.path is not None})
    if not paths:
        return set()
    return {(row.saga_id, row.path) for row in direct.rows(_OCCUPIED.on_sqlite, sqlite_values({"paths": paths}))}


def _text(saga_id: UUID | None) -> str | None:
    return None if saga_id is None else str(saga_id)
