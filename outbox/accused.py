"""What may have killed a process, as the database remembers it, and whether it is the database's fault.

A note is committed before a suspect is met. It goes when the suspect has come to an end, or when the process that wrote
it was still there to say that it has not: what is left tells how many processes had it in hand, alone, when they died.
A note is one life's: a process notes a suspect once, however often it tries.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from storage.statements import Statement

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from outbox.interface import Accused
    from storage.database import Session

_NOTE = """
    insert into suspect (consumer, source, message_id, body_hash, life, noted_at)
    values (:consumer, :source, :message_id, :body_hash, :life, {now})
    on conflict (consumer, source, message_id, body_hash, life) do update set noted_at = excluded.noted_at
"""
_NOTE_DOWN = Statement.of(postgresql=_NOTE.format(now="clock_timestamp()"), sqlite=_NOTE.format(now=":now"))
_THIS_ONE = """
    consumer = :consumer and source = :source and message_id = :message_id and body_hash = :body_hash
"""
_NOTES = Statement.both(f"select count(*) as notes from suspect where {_THIS_ONE}")
_ACQUIT = Statement.both(f"delete from suspect where {_THIS_ONE}")
_WITHDRAW = Statement.both("delete from suspect where life = :life")
_MOMENT = timedelta(seconds=2)
_BY = """
    select source, message_id, body_hash, count(*) as notes from suspect
    where consumer = :consumer {and_so} group by source, message_id, body_hash
"""
_NOTED = Statement.both(_BY.format(and_so=""))
_JUST_NOTED = Statement.of(
    postgresql=_BY.format(and_so=f"and noted_at > clock_timestamp() - interval '{_MOMENT.total_seconds()} s'"),
    sqlite=_BY.format(and_so="and noted_at > :a_moment_ago"),
)
# Nothing is changed; but whoever locks one of these tables against writing, or against everything, makes it fail.
_PROBED = ("saga", "saga_event", "saga_key", "inbox", "timer", "outbox", "dead_letter")
_REACH = Statement.of(
    postgresql="with "
    + ", ".join(f"r_{table} as (delete from {table} where false)" for table in _PROBED)
    + " select 1",
    sqlite="select 1",
)


async def note(session: Session, message: Accused, life: UUID, now: datetime) -> int:
    """See `outbox.interface.Storage.note_accused`. `now` is the host's, for SQLite."""
    parameters = _named(message) | {"life": life} | ({} if session.postgresql else {"now": now})
    await session.fetch(_NOTE_DOWN, parameters)
    (row,) = await session.fetch(_NOTES, _named(message))
    return int(row.notes)


async def acquit(session: Session, message: Accused) -> None:
    """See `outbox.interface.Storage.acquit`."""
    await session.fetch(_ACQUIT, _named(message))


async def withdraw(session: Session, life: UUID) -> None:
    """See `outbox.interface.Storage.withdraw_notes`."""
    await session.fetch(_WITHDRAW, {"life": life})


async def noted(session: Session, messages: Sequence[Accused], *, just: datetime | None = None) -> list[int]:
    """See `outbox.interface.Storage.noted` and, with the host's time, `in_hand`."""
    if not messages:
        return []
    parameters: dict[str, object] = {"consumer": messages[0].consumer}
    if just is not None and not session.postgresql:
        parameters["a_moment_ago"] = just - _MOMENT
    rows = await session.fetch(_NOTED if just is None else _JUST_NOTED, parameters)
    known = {(row.source, row.message_id, bytes(row.body_hash)): row.notes for row in rows}
    return [known.get((each.source, each.message_id, each.body_hash), 0) for each in messages]


async def probe(session: Session, message: Accused, life: UUID, now: datetime) -> None:
    """See `outbox.interface.Storage.probe`. The message is nobody's, and gone at the end of the transaction."""
    await session.fetch(_REACH, {})
    await note(session, message, life, now)
    await acquit(session, message)


def _named(message: Accused) -> dict[str, object]:
    return {
        "consumer": message.consumer,
        "source": message.source,
        "message_id": message.message_id,
        "body_hash": message.body_hash,
    }
