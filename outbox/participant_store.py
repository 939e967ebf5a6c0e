"""What a participant remembers, in SQL: the commands it has answered, the effects it has applied, tombstones.

The rows are written last, in the transaction of the effect, all in one statement with the reply's outbox row. Whoever
comes second finds its rows taken, rolls everything back and reads what the first one stored.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from sqlalchemy.exc import SQLAlchemyError

from messages.errors import Trouble
from outbox.unit import SqlUnit
from storage.failures import translated
from storage.statements import Batch, Statement, Write, as_time

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
    from datetime import datetime

    from sqlalchemy import Row
    from sqlalchemy.ext.asyncio import AsyncConnection

    from messages import Event
    from outbox.unit import SqlStorage

Prepare: TypeAlias = "Callable[[AsyncConnection], Coroutine[Any, Any, None]]"
"""What prepares a participant's own tables, given the connection of a transaction."""

Beat: TypeAlias = "Callable[[Event], Awaitable[None]]"
"""What tells whoever sent a command that it is being worked on."""

APPLIED = "applied"
TOMBSTONE = "tombstone"

_REPLY_COLUMNS = "reply_name, reply_version, reply_body"
_LOOK_UP = Statement.both("""
    select m.message_id, m.body_hash, m.received_at, m.reply_id,
           m.reply_name, m.reply_version, m.reply_body,
           e.status as effect_status,
           e.reply_name as effect_name, e.reply_version as effect_version, e.reply_body as effect_body,
           u.status as undone_status
    from (select 1 as one) as o
    left join participant_message m on m.participant = :participant and m.message_id = :message_id
    left join participant_effect e on e.participant = :participant and e.idempotency_key = :idempotency_key
    left join participant_effect u on u.participant = :participant and u.idempotency_key = :compensates
""")
_AT_HOME = Statement.both("select 1 from participant_message where participant = :participant limit 1")
_MESSAGE_COLUMNS = (
    f"participant, message_id, source, body_hash, idempotency_key, received_at, reply_id, {_REPLY_COLUMNS}"
)
_KEEP_MESSAGE = Write(
    name="participant_message_keep",
    columns={
        "participant": "text",
        "message_id": "text",
        "source": "text",
        "body_hash": "bytea",
        "idempotency_key": "text",
        "received_at": "timestamptz",
        "reply_id": "text",
        "reply_name": "text",
        "reply_version": "bigint",
        "reply_body": "bytea",
    },
    postgresql=f"""
        insert into participant_message ({_MESSAGE_COLUMNS}) select {_MESSAGE_COLUMNS} from {{rows}}
        on conflict (participant, message_id) do nothing returning 1
    """,
    sqlite=f"""
        insert into participant_message ({_MESSAGE_COLUMNS})
        values (:participant, :message_id, :source, :body_hash, :idempotency_key, :received_at, :reply_id,
                :reply_name, :reply_version, :reply_body)
        on conflict (participant, message_id) do nothing
    """,
    checked=True,
)
_EFFECT_COLUMNS = f"participant, idempotency_key, status, at, {_REPLY_COLUMNS}"
_KEEP_EFFECT = Write(
    name="participant_effect_keep",
    columns={
        "participant": "text",
        "idempotency_key": "text",
        "status": "text",
        "at": "timestamptz",
        "reply_name": "text",
        "reply_version": "bigint",
        "reply_body": "bytea",
    },
    postgresql=f"""
        insert into participant_effect ({_EFFECT_COLUMNS}) select {_EFFECT_COLUMNS} from {{rows}}
        on conflict (participant, idempotency_key) do nothing returning 1
    """,
    sqlite=f"""
        insert into participant_effect ({_EFFECT_COLUMNS})
        values (:participant, :idempotency_key, :status, :at, :reply_name, :reply_version, :reply_body)
        on conflict (participant, idempotency_key) do nothing
    """,
    checked=True,
)
_ONE_AT_A_TIME = Statement.both("select pg_advisory_xact_lock(hashtextextended(cast(:lane as text), 0))")


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a handler may know besides its command.

    `connection` is the transaction in which the command is remembered and its reply stored: work done on it commits
    together with them, or not at all. It begins with the first statement and never commits before the handler has
    returned.

    `idempotency_key` names the effect: pass it on to other systems that take one. It is the command's message id where
    the sender gave no key. `compensates` is set when the command undoes another: the `idempotency_key` under which that
    one's effect was kept, if it ever came. `saga_id` is the command's `correlation_id`.
    """

    connection: AsyncConnection
    message_id: str
    idempotency_key: str
    compensates: str | None = None
    saga_id: str | None = None
    beat: Beat | None = field(default=None, repr=False)

    async def heartbeat(self, event: Event) -> None:
        """Say that the command is being worked on, to whoever sent it; at once, whatever becomes of the transaction.

        The event is one that the saga's step declares as `heartbeat=`. It may get lost, as when the broker is away: the
        next one will do. A context made by hand sends nothing.
        """
        if self.beat is not None:
            await self.beat(event)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identified:
    """A command as it is remembered. `body_hash` is SHA-256 of its body."""

    message_id: str
    source: str
    body_hash: bytes
    idempotency_key: str
    compensates: str | None
    received_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredReply:
    """A reply as bytes, under the name and version of its class."""

    name: str
    version: int
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A command that was handled before: with this reply under this id, or without one."""

    body_hash: bytes
    received_at: datetime
    reply_id: str | None
    reply: StoredReply | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What stands under an idempotency-key: `applied` with its definitive reply, or a `tombstone`."""

    status: str
    reply: StoredReply | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is remembered of a command.

    `answered` under its message id, `effect` under its idempotency-key; `undoes_nothing` when it is an undo and nothing
    at all stands under the key that it compensates.
    """

    answered: Answered | None
    effect: Effect | None
    undoes_nothing: bool


class ParticipantStore:
    """The memory of one participant, in its own database."""

    def __init__(self, storage: SqlStorage, participant: str) -> None:
        self._database = storage.database
        self._participant = participant

    async def look_up(self, command: Identified) -> Known:
        """Read what is remembered of a command; takes no lock and leaves no transaction open.

        Raises:
            DatabaseAway, DatabaseBusy, CommitUnknown: see `messages.errors`.
        """
        async with self._database.look() as session:
            [row] = await session.fetch(
                _LOOK_UP,
                {
                    "participant": self._participant,
                    "message_id": command.message_id,
                    "idempotency_key": command.idempotency_key,
                    "compensates": command.compensates,
                },
            )
        return Known(
            answered=_answered(row),
            effect=_effect(row),
            undoes_nothing=command.compensates is not None and row.undone_status is None,
        )

    async def is_at_home(self) -> bool:
        """Whether the participant has ever remembered anything in this database.

        Raises:
            DatabaseAway, DatabaseBusy: see `messages.errors`.
        """
        async with self._database.read() as session:
            return bool(await session.fetch(_AT_HOME, {"participant": self._participant}))

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[SqlUnit]:
        """A transaction that begins with its first statement; leaving the block commits.

        Raises:
            DatabaseAway, DatabaseBusy: nothing was committed.
            CommitUnknown: nobody knows.
        """
        async with self._database.write_late() as session:
            yield SqlUnit(session, self._database.runner.now())

    def answer(self, batch: Batch, command: Identified, reply_id: str | None, reply: StoredReply | None) -> None:
        """Have the reply kept under the command's message id: a repeated id gets the same bytes.

        Written together with others by `SqlUnit.save`, which raises `storage.database.ChangedMeanwhile` when a copy of
        the command was answered meanwhile.
        """
        row = (
            self._participant,
            command.message_id,
            command.source,
            command.body_hash,
            command.idempotency_key,
            command.received_at,
            reply_id,
            *_columns(reply),
        )
        batch.add(_KEEP_MESSAGE, [row])

    def apply(self, batch: Batch, command: Identified, reply: StoredReply | None, *, tombstone: bool) -> None:
        """Have the definitive reply kept under the command's idempotency-key, and with `tombstone` one under the key
        that it compensates.

        `SqlUnit.save` raises `storage.database.ChangedMeanwhile` when either key was taken meanwhile.
        """
        rows = [self._effect(command, command.idempotency_key, APPLIED, reply)]
        if tombstone and command.compensates is not None and command.compensates != command.idempotency_key:
            rows.append(self._effect(command, command.compensates, TOMBSTONE, None))
        batch.add(_KEEP_EFFECT, rows)

    def _effect(self, command: Identified, key: str, status: str, reply: StoredReply | None) -> tuple[object, ...]:
        return (self._participant, key, status, command.received_at, *_columns(reply))

    async def set_up(self, prepare: Prepare) -> None:
        """Let a participant prepare its own tables in a transaction, one process at a time.

        Raises:
            DatabaseAway, DatabaseBusy, CommitUnknown: see `messages.errors`; it can be tried again.
        """
        async with self._database.write() as session:
            if session.postgresql:
                lane = f"{self._database.namespace}/participant/{self._participant}"
                await session.fetch(_ONE_AT_A_TIME, {"lane": lane})
            await prepare(session.connection)


def trouble_behind(error: BaseException) -> Trouble | None:
    """The trouble with the database that a statement of a handler met, or None when the handler itself is to blame."""
    if isinstance(error, Trouble):
        return error
    ours = translated(error) if isinstance(error, SQLAlchemyError) else None
    return ours if isinstance(ours, Trouble) else None


def _columns(reply: StoredReply | None) -> tuple[str | None, int | None, bytes | None]:
    return (None, None, None) if reply is None else (reply.name, reply.version, reply.body)


def _answered(row: Row[Any]) -> Answered | None:
    if row.message_id is None:
        return None
    return Answered(
        body_hash=bytes(row.body_hash),
        received_at=as_time(row.received_at),
        reply_id=row.reply_id,
        reply=_reply(row.reply_name, row.reply_version, row.reply_body),
    )


def _effect(row: Row[Any]) -> Effect | None:
    if row.effect_status is None:
        return None
    reply = _reply(row.effect_name, row.effect_version, row.effect_body)
    return Effect(status=row.effect_status, reply=reply)


def _reply(name: str | None, version: int | None, body: bytes | None) -> StoredReply | None:
    if name is None or version is None or body is None:
        return None
    return StoredReply(name=name, version=version, body=bytes(body))
