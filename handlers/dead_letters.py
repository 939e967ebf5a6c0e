"""The broker's dead letters: what it gave up on is taken from its queue into the table, raw and complete.

A message is acknowledged there once its row is committed. What its `x-death` says is not believed but used: a sender
can write that header too, so it decides what people read and whom they may give the message back to, nothing else.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from handlers.decoding import uuid_of
from handlers.facts import DeadLetterImported, DeadLetterUnkept
from handlers.letter import identity, name_of
from messages import codec
from messages.errors import CommitUnknown, MessageError, Trouble
from messages.printable import printable
from messages.value import value
from outbox.facts import LoopTroubled
from outbox.interface import Changes, DeadLetter
from running import happens
from storage import dead_letters
from storage.statements import Batch
from transport.topology import dead_queue, participant_queue, saga_queue

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from messages.codec import Limits
    from messages.envelope import Raw
    from outbox.unit import SqlStorage
    from running import Runner
    from transport.interface import Consumer, Delivery, Transport

ERROR_CLASS = "Broker"
"""What imported letters are grouped by where others have the class of an error."""

BATCH = 100
PREFETCH = 200

_SLOWEST_RETRY = 5.0
_DOUBLINGS = 10  # beyond the slowest retry; the database may be away for days, and a power of that has no float
_COUNT = "x-delivery-count"  # tells of this hand-over, not of the message

_REASONS: Mapping[str, str] = {
    "delivery_limit": "queue {queue} handed it out more often than its delivery limit allows: whoever took it gave it "
    "back or died each time",
    "rejected": "a reader of queue {queue} rejected it",
    "expired": "it waited in queue {queue} for longer than it was allowed to",
    "maxlen": "queue {queue} was full",
}
_UNKNOWN = "unknown_origin"


@value
class Death:
    """What a message says about how it died: where, and by which of the broker's reasons; None when it is not said."""

    queue: str | None
    reason: str | None


def death(raw: Raw) -> Death:
    """The latest entry of `x-death`. Never raises, whatever stands there."""
    entries = raw.headers.get("x-death")
    entry = entries[0] if isinstance(entries, list | tuple) and entries else None
    if not isinstance(entry, dict):
        entry = {"queue": raw.headers.get("x-first-death-queue"), "reason": raw.headers.get("x-first-death-reason")}
    queue, reason = _text(entry.get("queue")), _text(entry.get("reason"))
    return Death(queue=queue, reason=reason if reason in _REASONS else None)


def _text(value: object) -> str | None:
    if isinstance(value, bytes | bytearray) and value.isascii():
        value = value.decode("ascii")
    fits = isinstance(value, str) and 0 < len(value.encode(errors="replace")) <= dead_letters.MAX_NAME
    return value if isinstance(value, str) and fits and value.isprintable() else None


def consumer_of(namespace: str, queue: str | None) -> str:
    """Whom a queue's letters belong to: a saga type, `participant.<name>`, else the queue itself."""
    if queue is None:
        return dead_queue(namespace)
    for prefix, kept in ((saga_queue(namespace, ""), ""), (participant_queue(namespace, ""), "participant.")):
        if queue.startswith(prefix) and len(queue) > len(prefix):
            return kept + queue.removeprefix(prefix)
    return queue


def imported(raw: Raw, namespace: str, limits: Limits) -> DeadLetter:
    """The dead letter that a message of the broker's dead-letter queue becomes. Never raises."""
    raw = replace(raw, headers={name: each for name, each in raw.headers.items() if name != _COUNT})
    body_hash, died = codec.body_hash(raw.body), death(raw)
    try:
        envelope = codec.open_envelope(raw, limits)
    except MessageError:
        envelope = None
    if died.reason is None or died.queue is None:
        error = f"it lay in {dead_queue(namespace)} and does not say which queue gave it up"
    else:
        error = _REASONS[died.reason].format(queue=died.queue)
    return DeadLetter(
        consumer=consumer_of(namespace, died.queue),
        source=envelope.source if envelope else "",
        message_id=identity(raw, envelope, body_hash),
        name=name_of(raw, envelope),
        raw=raw,
        body_hash=body_hash,
        reason=died.reason or _UNKNOWN,
        error=error,
        error_class=ERROR_CLASS,
        saga_id=uuid_of(envelope.correlation_id) if envelope else None,
        queue=died.queue,
    )


class DeadLetterImport:
    """The loop over the broker's dead-letter queue, one per process. `run` until `stop`."""

    name = "dead_letters"

    def __init__(
        self,
        storage: SqlStorage,
        transport: Transport,
        runner: Runner,
        report: Callable[[object], None],
        *,
        namespace: str,
        limits: Limits,
    ) -> None:
        self._storage = storage
        self._transport = transport
        self._runner = runner
        self._report = report
        self._namespace = namespace
        self._limits = limits
        self._consumer: Consumer | None = None
        self._stopping = asyncio.Event()

    @property
    def attached(self) -> bool:
        """Whether the broker is sending us the queue's messages: part of readiness."""
        return self._consumer is not None and self._consumer.attached

    async def run(self) -> None:
        """Import until stopped; what was received but not committed by then stays in the queue."""
        consumer = await self._transport.consume(dead_queue(self._namespace), prefetch=PREFETCH)
        self._consumer = consumer
        try:
            if self._stopping.is_set():
                await consumer.stop()
            while deliveries := await consumer.receive(BATCH):
                await self._take(consumer, deliveries)
        finally:
            self._consumer = None
            await consumer.close()

    async def stop(self) -> None:
        """Ask for no more; `run` returns after what it has in hand."""
        self._stopping.set()
        if self._consumer is not None:
            await self._consumer.stop()

    async def _take(self, consumer: Consumer, deliveries: Sequence[Delivery]) -> None:
        try:
            kept = await self._keep(deliveries)
        except MessageError:
            await self._one_by_one(consumer, deliveries)
            return
        if kept:
            await consumer.settle(deliveries)

    async def _one_by_one(self, consumer: Consumer, deliveries: Sequence[Delivery]) -> None:
        """The database refuses the data of some message: that one alone stays in the queue, unacknowledged."""
        for delivery in deliveries:
            try:
                kept = await self._keep([delivery])
            except MessageError as error:
                message_id = printable(delivery.raw.message_id or "", dead_letters.MAX_NAME)
                self._report(DeadLetterUnkept(message_id=message_id, error=str(error)))
                continue
            if kept:
                await consumer.settle([delivery])

    async def _keep(self, deliveries: Sequence[Delivery]) -> bool:
        """Commit their rows; False when the process is stopping before that could be done.

        Raises:
            MessageError: the database refuses the data of some message.
        """
        letters = [(imported(each.raw, self._namespace, self._limits), each.redelivered) for each in deliveries]
        tries = 0
        while True:
            try:
                fresh = await self._commit(letters)
            except Trouble as error:
                if self._stopping.is_set():
                    return False
                if isinstance(error, CommitUnknown):
                    letters = [(letter, True) for letter, _ in letters]
                await self._pause(error, tries)
                tries += 1
            else:
                break
        for letter in fresh:
            self._report(
                DeadLetterImported(
                    consumer=letter.consumer,
                    message_id=letter.message_id,
                    name=letter.name,
                    reason=letter.reason,
                    error=letter.error,
                    queue=letter.queue,
                )
            )
        return True

    async def _commit(self, letters: Sequence[tuple[DeadLetter, bool]]) -> Sequence[DeadLetter]:
        """Keep what is not there yet, in one transaction, and return it.

        What is handed out again and is already there to the last header was committed by whoever could not acknowledge
        it any more: it is no further copy, and must not open a letter that was dealt with meanwhile.
        """
        async with self._storage.transaction() as unit:
            fresh = [
                letter
                for letter, redelivered in letters
                if not (redelivered and await dead_letters.is_kept(unit.session, _key(letter), letter.raw))
            ]
            await unit.save(Changes(consumer=self.name, dead_letters=fresh))
            batch = Batch()
            dead_letters.record_imported(
                batch, [(_key(letter), letter.error) for letter in fresh], actor=dead_letters.ANTIPHON
            )
            await unit.session.write(batch, self._runner.now())
        return fresh

    async def _pause(self, error: Trouble, tries: int) -> None:
        retry_in = min(0.05 * 2 ** min(tries, _DOUBLINGS), _SLOWEST_RETRY) * (1 + self._runner.random())
        self._report(LoopTroubled(loop=self.name, error=str(error), retry_in=retry_in))
        await happens(self._stopping, self._runner, within=retry_in)


def _key(letter: DeadLetter) -> dead_letters.Key:
    return dead_letters.key_of(letter.consumer, letter.source, letter.message_id, letter.body_hash)
