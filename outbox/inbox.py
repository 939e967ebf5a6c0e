"""The inbox: which messages a consumer has handled, under which batch's token, and what became of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from outbox.interface import Claimed, InboxEntry, InboxRow
from storage.statements import Statement, Write, as_time, as_uuid, sqlite_values

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from outbox.interface import MessageKey
    from storage.database import Session
    from storage.sqlite import Direct
    from storage.statements import Batch

# A dead-lettered copy does not make later copies duplicates: its row is taken over. Every other row is left alone, but
# locked, so that the second look below finds it.
TAKE_OVER = """
    on conflict (consumer, source, message_id) do update set
        token = excluded.token, body_hash = excluded.body_hash, disposition = excluded.disposition,
        received_at = excluded.received_at
    where inbox.disposition = 'dead_lettered'
"""
# On SQLite `cross join` keeps the asked-for ids outside, so that each is one look into the index.
_CLAIM = Statement.of(
    postgresql=f"""
        insert into inbox (consumer, source, message_id, body_hash, token, disposition, received_at)
        select cast(:consumer as text), r.source, r.message_id, r.body_hash, cast(:token as uuid), 'applied',
               clock_timestamp()
        from unnest(cast(:sources as text[]), cast(:ids as text[]), cast(:hashes as bytea[]))
             as r(source, message_id, body_hash)
        {TAKE_OVER}
        returning source, message_id, clock_timestamp() as now
    """,
    sqlite=f"""
        insert into inbox (consumer, source, message_id, body_hash, token, disposition, received_at)
        values (:consumer, :source, :message_id, :body_hash, :token, 'applied', :now)
        {TAKE_OVER}
    """,
)
_KNOWN = Statement.of(
    postgresql="""
        select i.source, i.message_id, i.body_hash, i.token, i.disposition, clock_timestamp() as now
        from unnest(cast(:sources as text[]), cast(:ids as text[])) as r(source, message_id)
        join inbox i on i.consumer = cast(:consumer as text) and i.source = r.source and i.message_id = r.message_id
    """,
    sqlite="""
        select i.source, i.message_id, i.body_hash, i.token, i.disposition
        from json_each(:entries) r
        cross join inbox i on i.consumer = :consumer and i.source = json_extract(r.value, '$[0]')
                          and i.message_id = json_extract(r.value, '$[1]')
    """,
)
_CLOCK = Statement.of(postgresql="select clock_timestamp() as now", sqlite="select :now as now")

DISPOSE = Write(
    name="inbox_dispose",
    columns={"consumer": "text", "source": "text", "message_id": "text", "disposition": "text"},
    postgresql="""
        update inbox i set disposition = r.disposition from {rows}
        where i.consumer = r.consumer and i.source = r.source and i.message_id = r.message_id
    """,
    sqlite="""
        update inbox set disposition = :disposition
        where consumer = :consumer and source = :source and message_id = :message_id
    """,
)


async def claim(session: Session, consumer: str, token: UUID, entries: Sequence[InboxEntry], now: datetime) -> Claimed:
    """See `outbox.interface.Unit.claim_inbox`. `now` is the host's time, which SQLite's rows get."""
    distinct: dict[MessageKey, InboxEntry] = {}
    for entry in entries:
        distinct.setdefault((entry.source, entry.message_id), entry)
    ordered = [distinct[key] for key in sorted(distinct)]
    if session.postgresql:
        return await _claim_at_once(session, consumer, token, ordered)
    if not ordered:
        return Claimed(known={}, now=now)
    return await session.directly(lambda direct: _claim_directly(direct, consumer, token, ordered, now))


async def _claim_at_once(session: Session, consumer: str, token: UUID, ordered: Sequence[InboxEntry]) -> Claimed:
    if not ordered:
        rows = await session.fetch(_CLOCK, {})
        return Claimed(known={}, now=as_time(rows[0].now))
    rows = await session.fetch(
        _CLAIM,
        {
            "consumer": consumer,
            "token": token,
            "sources": [entry.source for entry in ordered],
            "ids": [entry.message_id for entry in ordered],
            "hashes": [entry.body_hash for entry in ordered],
        },
    )
    mine = {(row.source, row.message_id) for row in rows}
    others = [entry for entry in ordered if (entry.source, entry.message_id) not in mine]
    if not others:
        return Claimed(known={}, now=max(as_time(row.now) for row in rows))
    parameters = {
        "consumer": consumer,
        "sources": [entry.source for entry in others],
        "ids": [entry.message_id for entry in others],
    }
    found = await session.fetch(_KNOWN, parameters)
    known = {(row.source, row.message_id): seen_row(row.body_hash, row.token, row.disposition) for row in found}
    return Claimed(known=known, now=max(as_time(row.now) for row in found))


def _claim_directly(
    direct: Direct, consumer: str, token: UUID, ordered: Sequence[InboxEntry], now: datetime
) -> Claimed:
    wanted = {"consumer": consumer, "entries": [(entry.source, entry.message_id) for entry in ordered]}
    known = {
        (row.source, row.message_id): seen_row(row.body_hash, row.token, row.disposition)
        for row in direct.rows(_KNOWN.on_sqlite, sqlite_values(wanted))
        if row.disposition != "dead_lettered"
    }
    common = sqlite_values({"consumer": consumer, "token": token, "now": now})
    fresh = [
        {**common, "source": each.source, "message_id": each.message_id, "body_hash": each.body_hash}
        for each in ordered
        if (each.source, each.message_id) not in known
    ]
    if fresh:
        direct.many(_CLAIM.on_sqlite, fresh)
    return Claimed(known=known, now=now)


def seen_row(body_hash: bytes, token: UUID | str, disposition: str) -> InboxRow:
    """A row's values, from either database."""
    return InboxRow(body_hash=bytes(body_hash), token=as_uuid(token), disposition=disposition)


def dispose(batch: Batch, consumer: str, dispositions: Mapping[MessageKey, str]) -> None:
    """Add what became of messages, where it is not what the claim wrote: `applied`."""
    rows = [
        (consumer, source, message_id, str(disposition))
        for (source, message_id), disposition in sorted(dispositions.items())
    ]
    batch.add(DISPOSE, rows)
