"""How one command is answered: from memory or by its handler, the reply committed with the effect, then published.

```
read ─ look up ─ handler ─ remember, reply into the outbox ─ commit ─ publish
```

Nothing is written before the handler has returned: whoever commits first is right, and whoever comes second rolls
back and sends what the first one stored. Commands that concern one effect wait for each other within the process.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias
from uuid import NAMESPACE_DNS, uuid5

from handlers.decoding import uuid_of
from handlers.facts import CommandAnswered, CommandDropped, MessageDuplicated
from handlers.letter import fact_of, letter_of
from handlers.replying import Replying
from messages import codec
from messages.errors import HandlerRaised, IdConflict, MessageError, Trouble, UnknownMessage
from messages.printable import in_words
from messages.value import value
from outbox.interface import Changes, DeadLetter, Outgoing
from outbox.participant_store import TOMBSTONE, Context, Identified, ParticipantStore, StoredReply, trouble_behind
from sagas.problems import raised_at
from storage.statements import Batch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from datetime import datetime
    from uuid import UUID

    from handlers.participant import CommandHandler, Participant
    from messages.codec import Limits
    from messages.envelope import Envelope, Raw
    from messages.message import Command, Event
    from outbox.interface import ClaimedRow
    from outbox.participant_store import Answered, Known
    from outbox.relay import Relay
    from outbox.unit import SqlStorage, SqlUnit
    from running import Runner

MAX_RAISED = 2_000
"""Longest text of what a handler raised, in characters."""

_ANTIPHON = uuid5(NAMESPACE_DNS, "antiphon")


def reply_id(message_id: str, reply_name: str) -> str:
    """The id of a reply: the same for every copy of the command, in every process."""
    return str(uuid5(uuid5(_ANTIPHON, message_id), reply_name))


class _TransientReply(Exception):  # noqa: N818
    """The handler says "not now": its work is to be rolled back, and only the reply kept."""

    def __init__(self, reply: StoredReply) -> None:
        super().__init__(reply.name)
        self.reply = reply


@value
class Ending:
    """What became of a command: carried out, `repeated` from memory, `dropped` because nobody wants it, or an `error`.

    `detail` says what it was answered with, or by whom, or why it was dropped.
    """

    detail: str = ""
    repeated: bool = False
    dropped: bool = False
    error: MessageError | None = None


UNDONE = Ending(dropped=True, detail="it was undone before it came, so it is not carried out")

Beside: TypeAlias = "Callable[[Batch, Ending], None]"
"""Adds what is to be committed together with what became of a command."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Taken:
    """A command that was read: what came, who handles it, what it is remembered by."""

    raw: Raw
    envelope: Envelope
    handler: CommandHandler
    command: Command
    identified: Identified
    beside: Beside | None

    def batch(self, ending: Ending) -> Batch:
        """What is to be committed together with that ending."""
        return _beside(self.beside, ending)


@dataclass(slots=True, kw_only=True)
class _Saving:
    """One transaction, and what is published once it has committed."""

    unit: SqlUnit
    confirmed: Sequence[tuple[int, UUID]] = ()
    rows: Sequence[ClaimedRow] = ()
    until: float = 0.0


@dataclass(slots=True)
class _Lane:
    """The commands of one effect that are at work in this process, one after another."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


class Answering:
    """The path of the commands of one participant. Any number of them may be under way at once."""

    def __init__(
        self,
        participant: Participant,
        storage: SqlStorage,
        relay: Relay,
        runner: Runner,
        *,
        report: Callable[[object], None],
        namespace: str,
        limits: Limits,
        patience: float,
    ) -> None:
        """`patience` is how many seconds a handler may take."""
        self.consumer = f"participant.{participant.name}"
        self.store = ParticipantStore(storage, participant.name)
        self._participant = participant
        self._relay = relay
        self._runner = runner
        self._report = report
        self._replying = Replying(relay, runner, namespace=namespace, limits=limits)
        self._limits = limits
        self._patience = patience
        self._lanes: dict[str, _Lane] = {}

    async def take(self, raw: Raw, beside: Beside | None = None) -> Ending:
        """Bring one delivery to its end: answered, dropped or dead-lettered, and committed; acknowledge it then.

        With `beside` it is a dead letter that is replayed: what that adds is committed together with the rest, and one
        that fails is not dead-lettered once more.

        Raises:
            Trouble: nothing was committed, or nobody knows; call it again.
        """
        body_hash = codec.body_hash(raw.body)
        envelope = None
        try:
            envelope = codec.open_envelope(raw, self._limits)
            taken = self._taken(raw, envelope, body_hash, beside)
        except MessageError as error:
            return await self._dead_letter(raw, envelope, body_hash, error, beside)
        async with self._alone(taken.identified.compensates or taken.identified.idempotency_key):
            try:
                return await self._answer(taken)
            except MessageError as error:  # the database refuses its data
                return await self._dead_letter(raw, envelope, body_hash, error, beside)

    async def foresee(self, raw: Raw) -> Ending:
        """What `take` would come to, as far as it can be known without calling a handler: it may act elsewhere, too.

        Raises:
            Trouble: the database is away or busy.
        """
        body_hash = codec.body_hash(raw.body)
        try:
            taken = self._taken(raw, codec.open_envelope(raw, self._limits), body_hash, None)
        except MessageError as error:
            return Ending(error=error)
        known = await self.store.look_up(taken.identified)
        if known.answered is not None and known.answered.body_hash != body_hash:
            return Ending(error=_reused(taken.envelope))
        if known.answered is not None or known.effect is not None:
            dropped = known.answered is None and known.effect is not None and known.effect.status == TOMBSTONE
            return UNDONE if dropped else Ending(repeated=True)
        return Ending(detail=f"by {taken.handler.name} ({taken.handler.place}), which is not called for a look")

    async def refuse(self, raw: Raw, error: MessageError) -> None:
        """Dead-letter one delivery without reading it.

        Raises:
            Trouble: nothing was committed, or nobody knows; call it again.
        """
        await self._dead_letter(raw, None, codec.body_hash(raw.body), error, None)

    # -- the stages

    def _taken(self, raw: Raw, envelope: Envelope, body_hash: bytes, beside: Beside | None) -> _Taken:
        handler = self._handler(envelope)
        return _Taken(
            raw=raw,
            envelope=envelope,
            handler=handler,
            command=codec.parse(envelope, handler.command, self._limits),
            identified=_identified(envelope, body_hash, self._runner.now()),
            beside=beside,
        )

    def _handler(self, envelope: Envelope) -> CommandHandler:
        handler = self._participant.handler_of(envelope.name, envelope.schema_version)
        if handler is not None:
            return handler
        known = ", ".join(f"{name} version {version}" for name, version in sorted(self._participant.handlers))
        raise UnknownMessage(
            f"{self._participant.name} has no handler for {envelope.name} version {envelope.schema_version}; "
            f"it handles {known or 'nothing'}",
            message_id=envelope.message_id,
        )

    async def _answer(self, taken: _Taken) -> Ending:
        known = await self.store.look_up(taken.identified)
        if (ending := await self._from_memory(taken, known)) is not None:
            return ending
        try:
            return await self._carry_out(taken, known)
        except HandlerRaised as error:
            # Perhaps because another process was carrying the same command out: then that one's reply counts.
            ending = await self._from_memory(taken, await self.store.look_up(taken.identified))
            return ending or await self._refuse(taken, error)

    async def _from_memory(self, taken: _Taken, known: Known) -> Ending | None:
        """Do what follows from what is remembered; None when the command has to be carried out."""
        envelope = taken.envelope
        if known.answered is not None:
            return await self._repeat(taken, known.answered)
        if known.effect is None:
            return None
        if known.effect.status != TOMBSTONE:
            await self._remember(taken, known.effect.reply, ending := Ending(repeated=True))
            self._report_duplicate(taken)
            return ending
        if taken.beside is not None:
            await self._note(taken, UNDONE)
        self._report(
            CommandDropped(
                consumer=self.consumer,
                message_id=envelope.message_id,
                name=envelope.name,
                saga_id=envelope.correlation_id,
            )
        )
        return UNDONE

    async def _repeat(self, taken: _Taken, answered: Answered) -> Ending:
        """A repeated id: the same bytes under the same id, to whoever asks now."""
        if answered.body_hash != taken.identified.body_hash:
            return await self._refuse(taken, _reused(taken.envelope))
        ending, outgoing = Ending(repeated=True), []
        if answered.reply is not None and answered.reply_id is not None:
            outgoing.append(
                self._replying.outgoing(taken.envelope, answered.reply, answered.reply_id, answered.received_at)
            )
        if outgoing or taken.beside is not None:
            await self._note(taken, ending, outgoing)
        self._report_duplicate(taken)
        return ending

    async def _note(self, taken: _Taken, ending: Ending, outgoing: Sequence[Outgoing] = ()) -> None:
        """Send these, with what else is to be committed, and remember nothing."""
        async with self._saving() as saving:
            await self._save(saving, taken.batch(ending), outgoing=outgoing)

    async def _carry_out(self, taken: _Taken, known: Known) -> Ending:
        """Call the handler and keep what it did and answered, in one transaction.

        Raises:
            HandlerRaised: it raised, or its transaction cannot be completed; nothing was committed.
            Trouble: nothing was committed, or nobody knows.
        """
        try:
            async with self._saving() as saving:
                reply = await self._call(taken, saving.unit)
                ending = _carried_out(reply)
                batch = taken.batch(ending)
                self.store.apply(batch, taken.identified, reply, tombstone=known.undoes_nothing)
                await self._save_work(taken, saving, batch, reply)
        except _TransientReply as transient:
            reply = transient.reply
            await self._remember(taken, reply, ending := _carried_out(reply))
        self._report(
            CommandAnswered(
                consumer=self.consumer,
                message_id=taken.envelope.message_id,
                name=taken.envelope.name,
                reply=reply.name if reply is not None else None,
                saga_id=taken.envelope.correlation_id,
            )
        )
        return ending

    async def _call(self, taken: _Taken, unit: SqlUnit) -> StoredReply | None:
        """The handler's answer, as bytes.

        Raises:
            HandlerRaised, Trouble: see `_carry_out`.
            _TransientReply: the answer is "not now".
        """
        handler = taken.handler
        try:
            async with self._runner.timeout(self._patience):
                reply = await handler.call(
                    taken.command, _context(taken, unit, self._replying.heartbeats(taken.envelope))
                )
            if (None if reply is None else type(reply)) not in handler.replies:
                raise TypeError(f"it returned {reply!r}, which is none of the replies that it is annotated with")
            stored = None if reply is None else self._replying.stored(reply)
        except BaseException as error:
            if _is_for_us(error):
                raise
            raise self._blamed(taken, error) from error
        if stored is not None and type(reply) in handler.transient:
            raise _TransientReply(stored)
        return stored

    async def _save_work(self, taken: _Taken, saving: _Saving, batch: Batch, reply: StoredReply | None) -> None:
        outgoing = self._answered(batch, taken, reply)
        try:
            await self._save(saving, batch, outgoing=outgoing)
        except Exception as error:  # the handler has left its transaction broken
            raise self._blamed(taken, error) from error

    def _blamed(self, taken: _Taken, error: BaseException) -> MessageError | Trouble:
        """Trouble with the database is nobody's fault; everything else is the handler's, `sys.exit()` too."""
        trouble = trouble_behind(error)
        if trouble is not None:
            return trouble
        handler = taken.handler
        limit = f" (it has {self._patience:g} s)" if isinstance(error, TimeoutError) else ""
        place, origin = raised_at(handler.place.file, error)
        return HandlerRaised(
            f"{handler.name} ({place or handler.place}{origin}) raised {in_words(error, MAX_RAISED)}{limit}",
            saga_id=taken.envelope.correlation_id,
            message_id=taken.envelope.message_id,
        )

    async def _remember(self, taken: _Taken, reply: StoredReply | None, ending: Ending) -> None:
        """Keep a reply under this message id alone, and send it."""
        batch = taken.batch(ending)
        outgoing = self._answered(batch, taken, reply)
        async with self._saving() as saving:
            await self._save(saving, batch, outgoing=outgoing)

    def _answered(self, batch: Batch, taken: _Taken, reply: StoredReply | None) -> Sequence[Outgoing]:
        """Have the reply kept under the message id; returns what is to be sent."""
        if reply is None:
            self.store.answer(batch, taken.identified, None, None)
            return ()
        message_id = reply_id(taken.envelope.message_id, reply.name)
        self.store.answer(batch, taken.identified, message_id, reply)
        return (self._replying.outgoing(taken.envelope, reply, message_id, taken.identified.received_at),)

    async def _refuse(self, taken: _Taken, error: MessageError) -> Ending:
        return await self._dead_letter(taken.raw, taken.envelope, taken.identified.body_hash, error, taken.beside)

    async def _dead_letter(
        self,
        raw: Raw,
        envelope: Envelope | None,
        body_hash: bytes,
        error: MessageError,
        beside: Beside | None,
    ) -> Ending:
        ending = Ending(error=error)
        if beside is not None:
            async with self._saving() as saving:
                await self._save(saving, _beside(beside, ending))
            return ending
        saga_id = uuid_of(envelope.correlation_id) if envelope else None
        letter = letter_of(self.consumer, raw, envelope, body_hash, error, saga_id=saga_id)
        async with self._saving() as saving:
            await self._save(saving, Batch(), dead_letters=[letter])
        self._report(fact_of(letter))
        return ending

    def _report_duplicate(self, taken: _Taken) -> None:
        envelope = taken.envelope
        self._report(MessageDuplicated(consumer=self.consumer, message_id=envelope.message_id, name=envelope.name))

    # -- transactions

    @asynccontextmanager
    async def _saving(self) -> AsyncIterator[_Saving]:
        """A transaction that begins with its first statement; after its commit what it sends is published."""
        saving: _Saving | None = None
        try:
            async with self.store.transaction() as unit:
                saving = _Saving(unit=unit)
                yield saving
        except BaseException:
            if saving is not None:
                self._relay.give_back(saving.confirmed)
            raise
        await self._relay.publish(saving.rows, saving.until)

    async def _save(
        self,
        saving: _Saving,
        batch: Batch,
        *,
        outgoing: Sequence[Outgoing] = (),
        dead_letters: Sequence[DeadLetter] = (),
    ) -> None:
        """Write everything, as one statement where the database can."""
        lease, saving.confirmed = self._relay.lease(), self._relay.take_confirmed()
        changes = Changes(
            consumer=self.consumer,
            outgoing=outgoing,
            dead_letters=dead_letters,
            claim=(lease.token, lease.seconds),
            claim_limit=lease.limit,
            closed=lease.closed,
            confirmed=saving.confirmed,
        )
        saving.rows, saving.until = await saving.unit.save(changes, batch), lease.until

    @asynccontextmanager
    async def _alone(self, key: str) -> AsyncIterator[None]:
        """Wait until no other command of this effect is at work here: do, undo, and copies of both."""
        lane = self._lanes.setdefault(key, _Lane())
        lane.users += 1
        try:
            async with lane.lock:
                yield
        finally:
            lane.users -= 1
            if not lane.users:
                del self._lanes[key]


def _beside(beside: Beside | None, ending: Ending) -> Batch:
    batch = Batch()
    if beside is not None:
        beside(batch, ending)
    return batch


def _carried_out(reply: StoredReply | None) -> Ending:
    return Ending(detail=f"answered with {reply.name}" if reply is not None else "it gives no reply")


def _reused(envelope: Envelope) -> IdConflict:
    text = f"message id {envelope.message_id} was used before for another body"
    return IdConflict(text, message_id=envelope.message_id)


def _is_for_us(error: BaseException) -> bool:
    """Whether the task is to end: its cancellation by whoever started it, and not one that a handler raised."""
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is None or task.cancelling() > 0
    return isinstance(error, GeneratorExit)


def _identified(envelope: Envelope, body_hash: bytes, now: datetime) -> Identified:
    return Identified(
        message_id=envelope.message_id,
        source=envelope.source,
        body_hash=body_hash,
        idempotency_key=envelope.idempotency_key or envelope.message_id,
        compensates=envelope.compensates,
        received_at=now,
    )


def _context(taken: _Taken, unit: SqlUnit, beat: Callable[[Event], Awaitable[None]]) -> Context:
    identified = taken.identified
    return Context(
        connection=unit.session.connection,
        message_id=identified.message_id,
        idempotency_key=identified.idempotency_key,
        compensates=identified.compensates,
        saga_id=taken.envelope.correlation_id,
        beat=beat,
    )
