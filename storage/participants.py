"""What a participant remembers in its own database: the commands it has handled, and the effects it has applied.

Every call joins the transaction of the command's effect. Two copies of one command wait for each other at
`begin_message`; two commands with one idempotency-key at `begin_effect`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from storage.statements import Statement

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Row

    from storage.database import Session

APPLIED = "applied"
TOMBSTONE = "tombstone"

_BEGIN_MESSAGE = Statement.both("""
    insert into participant_message (participant, message_id, source, body_hash, idempotency_key, received_at)
    values (:participant, :message_id, :source, :body_hash, :idempotency_key, :now)
    on conflict (participant, message_id) do nothing returning message_id
""")
_MESSAGE = Statement.both("""
    select source, body_hash, idempotency_key, reply_id, reply_name, reply_version, reply_body
    from participant_message where participant = :participant and message_id = :message_id
""")
_REPLY = Statement.both("""
    update participant_message set
        reply_id = :reply_id, reply_name = :name, reply_version = :version, reply_body = :body
    where participant = :participant and message_id = :message_id
""")
_BEGIN_EFFECT = Statement.both("""
    insert into participant_effect (participant, idempotency_key, status, at)
    values (:participant, :idempotency_key, :status, :now)
    on conflict (participant, idempotency_key) do nothing returning status
""")
_EFFECT_TEXT = """
    select status, reply_name, reply_version, reply_body from participant_effect
    where participant = :participant and idempotency_key = :idempotency_key
"""
_EFFECT = Statement.of(postgresql=_EFFECT_TEXT + " for update", sqlite=_EFFECT_TEXT)
_KEEP_EFFECT = Statement.both("""
    update participant_effect set status = :status, reply_name = :name, reply_version = :version, reply_body = :body
    where participant = :participant and idempotency_key = :idempotency_key
""")
_DROP_EFFECT = Statement.both("""
    delete from participant_effect where participant = :participant and idempotency_key = :idempotency_key
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredReply:
    """A reply as bytes. `message_id` is the id it went out under, where it is stored with a command."""

    name: str
    version: int
    body: bytes
    message_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HandledMessage:
    """A command that was handled before. `reply` is None when it was handled without one."""

    source: str
    body_hash: bytes
    idempotency_key: str | None
    reply: StoredReply | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What is known of an idempotency-key: `applied` with its success, or a `tombstone`: undone before it came."""

    status: str
    reply: StoredReply | None


class ParticipantRows:
    """The rows of one participant, within one transaction."""

    def __init__(self, session: Session, participant: str, now: datetime) -> None:
        """`now` is written to the rows and decides nothing."""
        self._session = session
        self._participant = participant
        self._now = now

    async def begin_message(
        self, *, message_id: str, source: str, body_hash: bytes, idempotency_key: str | None
    ) -> HandledMessage | None:
        """Note the command; None when it is new, else what was noted of it before. Waits for a copy under way."""
        fresh = await self._fetch(
            _BEGIN_MESSAGE,
            message_id=message_id,
            source=source,
            body_hash=body_hash,
            idempotency_key=idempotency_key,
            now=self._now,
        )
        if fresh:
            return None
        [row] = await self._fetch(_MESSAGE, message_id=message_id)
        return HandledMessage(
            source=row.source,
            body_hash=bytes(row.body_hash),
            idempotency_key=row.idempotency_key,
            reply=_reply(row, row.reply_id),
        )

    async def store_reply(self, message_id: str, reply: StoredReply) -> None:
        """Keep the reply to a command, transient ones too: a repeated id gets the same bytes under the same id."""
        await self._fetch(_REPLY, message_id=message_id, reply_id=reply.message_id, **_columns(reply))

    async def begin_effect(self, idempotency_key: str, status: str = APPLIED) -> Effect | None:
        """Claim the idempotency-key; None when it was free, else what stands there, locked. Waits for others."""
        fresh = await self._fetch(_BEGIN_EFFECT, idempotency_key=idempotency_key, status=status, now=self._now)
        return None if fresh else await self.effect(idempotency_key)

    async def effect(self, idempotency_key: str) -> Effect | None:
        """What stands under the idempotency-key, locked; None when nothing does."""
        rows = await self._fetch(_EFFECT, idempotency_key=idempotency_key)
        return Effect(status=rows[0].status, reply=_reply(rows[0])) if rows else None

    async def keep_effect(self, idempotency_key: str, reply: StoredReply | None, status: str = APPLIED) -> None:
        """Settle a claimed idempotency-key with its success."""
        await self._fetch(_KEEP_EFFECT, idempotency_key=idempotency_key, status=status, **_columns(reply))

    async def drop_effect(self, idempotency_key: str) -> None:
        """Give a claimed idempotency-key up: nothing was applied, a later attempt may."""
        await self._fetch(_DROP_EFFECT, idempotency_key=idempotency_key)

    async def _fetch(self, statement: Statement, **parameters: object) -> list[Row[Any]]:
        return list(await self._session.fetch(statement, {"participant": self._participant, **parameters}))


def _columns(reply: StoredReply | None) -> dict[str, object]:
    if reply is None:
        return {"name": None, "version": None, "body": None}
    return {"name": reply.name, "version": reply.version, "body": reply.body}


def _reply(row: Row[Any], message_id: str | None = None) -> StoredReply | None:
    if row.reply_name is None:
        return None
    return StoredReply(
        name=row.reply_name, version=row.reply_version, body=bytes(row.reply_body), message_id=message_id
    )
