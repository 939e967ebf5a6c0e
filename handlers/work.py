"""What one transaction decides, instance by instance, and how that becomes rows, messages and facts.

Messages of one instance are folded: each decision gets the instance as the one before left it, and it is saved once.
Messages, timers and operators all decide through here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from handlers.facts import SagaMoved
from messages.envelope import Envelope
from messages.errors import MessageError, OperationRefused, Trouble
from messages.printable import in_words
from outbox.interface import HistoryRow, Outgoing
from sagas import decide
from sagas.items import NeedsItems
from sagas.names import step_name
from sagas.outcome import Arrived, Decision, Disposition, Withdrawn
from sagas.patch import patch
from sagas.recalling import naming_children
from transport.topology import commands_exchange, events_exchange, saga_queue

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime
    from uuid import UUID

    from outbox.interface import Unit
    from sagas.definition import Definition
    from sagas.instance import Instance
    from sagas.items import Rested
    from sagas.outcome import HistoryEntry, Input, Send

Definitions = Mapping[int, "Definition"]
"""The versions of one saga type that this process knows, by version."""


_SENDING = ("command_sent", "compensation_sent")


@dataclass(slots=True)
class Fold:
    """One instance within one transaction: as it was, as it is now, and what was decided in between.

    Where its version is not `known` to this process, `definition` is another one's, and nothing may be decided by it.
    """

    definition: Definition
    before: Instance | None
    current: Instance
    history: list[HistoryRow] = field(default_factory=list)
    sends: list[tuple[Send, str | None]] = field(default_factory=list)  # with the trace of what caused it
    known: bool = True

    def take(self, decision: Decision, now: datetime, trace: str | None) -> None:
        """Add a decision; its first history row carries the patch that it made."""
        if decision.history:
            earlier = self.current if self.history or self.before else None
            change = patch(earlier, decision.instance)
            first, *rest = [_traced(entry, trace) for entry in decision.history]
            self.history.append(self._row(first, now, change))
            self.history += [self._row(entry, now, None) for entry in rest]
        self.current = decision.instance
        self.sends += [(send, trace) for send in decision.sends]

    def _row(self, entry: HistoryEntry, now: datetime, change: bytes | None) -> HistoryRow:
        return HistoryRow(saga_id=self.current.saga_id, at=now, entry=entry, patch=change)


def _traced(entry: HistoryEntry, trace: str | None) -> HistoryEntry:
    """A command's row keeps the trace it went out with: when it is sent again, that belongs to it too."""
    if trace is None or entry.kind not in _SENDING:
        return entry
    return replace(entry, detail={**entry.detail, "traceparent": trace})


class Work:
    """The folds of one transaction. Made after the instances were locked, at the database's `now`."""

    def __init__(self, namespace: str, now: datetime) -> None:
        self.namespace = namespace
        self.now = now
        self.folds: dict[UUID, Fold] = {}
        self.listed: dict[UUID, Mapping[str, Sequence[bytes]]] = {}
        self.rested: list[tuple[UUID, Rested]] = []
        self.answers: list[Outgoing] = []  # of no instance: to starts of which none came

    def load(self, definition: Definition, instance: Instance) -> Fold:
        """Begin the fold of an instance that was locked, or return the one begun."""
        known = instance.version == definition.version
        return self.folds.setdefault(instance.saga_id, Fold(definition, instance, instance, known=known))

    def begin(self, definition: Definition, decision: Decision, trace: str | None) -> None:
        """Begin the fold of an instance that this transaction gives birth to."""
        fold = Fold(definition, None, decision.instance)
        if definition.children:
            decision = naming_children(definition, decision, self.namespace)
        self.folds[decision.instance.saga_id] = fold
        fold.take(decision, self.now, trace)
        self._put_beside(fold, decision)

    async def decide(self, unit: Unit, fold: Fold, happened: Input, trace: str | None = None) -> Decision:
        """Decide on the instance as the fold left it, and take back from the outbox what the decision proposes to."""
        decision = await self._decided(unit, fold, happened)
        if fold.definition.children:
            decision = naming_children(fold.definition, decision, self.namespace)
        fold.take(decision, self.now, trace)
        if decision.rested:
            self._put_beside(fold, decision)
        if decision.withdraw:
            await self._take_back(unit, fold, decision, trace)
        return decision

    async def migrate(self, unit: Unit, definition: Definition, instance: Instance, decision: Decision) -> Fold:
        """Begin the fold of an instance that was locked, and that goes on under another definition from here."""
        fold = self.folds[instance.saga_id] = Fold(definition, instance, instance)
        fold.take(decision, self.now, None)
        if decision.withdraw:
            await self._take_back(unit, fold, decision, None)
        return fold

    async def _take_back(self, unit: Unit, fold: Fold, decision: Decision, trace: str | None) -> None:
        gone = await self._withdraw(unit, fold, decision.withdraw)
        after = await self._decided(unit, fold, Withdrawn(message_ids=gone))
        fold.take(after, self.now, trace)
        self._put_beside(fold, after)

    def _put_beside(self, fold: Fold, decision: Decision) -> None:
        if decision.listed:
            self.listed[fold.current.saga_id] = decision.listed
        self.rested += [(fold.current.saga_id, each) for each in decision.rested]

    def ignore(self, fold: Fold, arrived: Arrived, reason: str) -> Decision:
        """Record on the instance that a message changes nothing."""
        decision = decide.ignored(fold.definition, fold.current, arrived, reason, self.now)
        fold.take(decision, self.now, None)
        return decision

    def start_again(self, fold: Fold, arrived: Arrived, reason: str) -> None:
        """Record on the instance that its parent started it once more, and answer if it has ended."""
        fold.take(decide.started_again(fold.definition, fold.current, arrived, reason, self.now), self.now, None)

    def hold(self, fold: Fold, envelope: Envelope, reason: str, *, unread: bool) -> None:
        """Record on the instance that a message waits for it."""
        decision = decide.held(fold.current, envelope.message_id, envelope.name, reason, self.now, unread=unread)
        fold.take(decision, self.now, None)

    def bury(self, fold: Fold, message_id: str, name: str, reason: str) -> None:
        """Record on the instance that an event which was kept for it has become a dead letter."""
        fold.take(decide.dead_lettered(fold.current, message_id, name, reason, self.now), self.now, None)

    def fail(self, fold: Fold, arrived: Arrived, error: MessageError) -> None:
        """Record on the instance, which stands still already, that a message that was held for it failed."""
        fold.take(decide.failed_later(fold.definition, fold.current, arrived, str(error), self.now), self.now, None)

    async def _decided(self, unit: Unit, fold: Fold, happened: Input) -> Decision:
        """A definition that does not fit its instance harms that instance alone.

        Raises:
            OperationRefused: see `sagas.decide.decide`.
        """
        try:
            while True:
                try:
                    return decide.decide(fold.definition, fold.current, happened, self.now)
                except NeedsItems as needs:
                    have = fold.current.items
                    fold.current = replace(fold.current, items=await unit.items(fold.current.saga_id, have, needs.want))
                    if fold.current.items == have:
                        raise LookupError(f"the items of {needs.want} are not there") from needs
        except (OperationRefused, Trouble):
            raise
        except Exception as error:  # whatever it is, the rest of the batch goes on
            text = f"{fold.definition.type} version {fold.definition.version} cannot go on: {in_words(error)}"
            parked = decide.park(fold.definition, fold.current, text, self.now)
            if not isinstance(happened, Arrived):
                return parked
            broken = MessageError(text, saga_id=str(fold.current.saga_id), message_id=happened.message_id)
            return replace(parked, disposition=Disposition.DEAD_LETTERED, reason=broken.reason, error=broken)

    async def _withdraw(self, unit: Unit, fold: Fold, message_ids: tuple[str, ...]) -> frozenset[str]:
        """Commands decided in this very transaction are taken back in memory, earlier ones in the outbox."""
        unwritten = {send.message_id for send, _ in fold.sends} & set(message_ids)
        fold.sends = [(send, trace) for send, trace in fold.sends if send.message_id not in unwritten]
        written = [message_id for message_id in message_ids if message_id not in unwritten]
        return frozenset(unwritten) | (await unit.withdraw(written) if written else frozenset())

    # -- what becomes of it

    def inserted(self) -> list[Instance]:
        """The instances that were born."""
        return [fold.current for fold in self.folds.values() if fold.before is None]

    def updated(self) -> list[tuple[Instance, Instance]]:
        """The instances that changed, as they were and as they are."""
        return [(fold.before, fold.current) for fold in self.folds.values() if fold.before is not None and fold.history]

    def history(self) -> list[HistoryRow]:
        """All history rows, in order within each instance."""
        return [row for fold in self.folds.values() for row in fold.history]

    async def outgoing(self, unit: Unit) -> list[Outgoing]:
        """The messages to put into the outbox. What is sent again is what was sent first, to the byte."""
        again = [
            (saga_id, send.message_id)
            for saga_id, fold in self.folds.items()
            for send, _ in fold.sends
            if send.body is None
        ]
        first = await unit.sent(again) if again else {}
        own = [
            self._outgoing(fold, send, trace, first.get((saga_id, send.message_id)))
            for saga_id, fold in self.folds.items()
            for send, trace in fold.sends
        ]
        return [*own, *self.answers] if self.answers else own

    def _outgoing(self, fold: Fold, send: Send, trace: str | None, first: HistoryRow | None) -> Outgoing:
        instance = fold.current
        queue = saga_queue(self.namespace, instance.saga_type)
        body, causation_id, timestamp = send.body, send.causation_id, self.now
        if first is not None and first.entry.body is not None:
            body, timestamp = first.entry.body, first.at
            causation_id, trace = first.entry.detail.get("causation_id"), first.entry.detail.get("traceparent")
        if body is None:
            raise LookupError(f"{send.message_id} was sent before, but the history of {instance.saga_id} has no body")
        envelope = Envelope(
            message_id=send.message_id,
            name=send.name,
            body=body,
            schema_version=send.schema_version,
            correlation_id=str(instance.saga_id) if send.answers is None else send.answers.correlation_id,
            causation_id=causation_id,
            reply_to=None if send.marker or send.event or send.answers else queue,
            idempotency_key=send.idempotency_key,
            compensates=send.compensates,
            timestamp=timestamp.replace(microsecond=0),
            traceparent=trace,
        )
        exchange, routing_key = "", queue
        if send.answers is not None:
            routing_key = send.answers.reply_to
        elif send.child is not None:
            routing_key = saga_queue(self.namespace, send.child)
        elif not send.marker:
            exchange, routing_key = (events_exchange if send.event else commands_exchange)(self.namespace), send.name
        return Outgoing(
            envelope=envelope,
            exchange=exchange,
            routing_key=routing_key,
            saga_id=instance.saga_id,
            path=send.path,
        )

    def facts(self) -> Iterator[SagaMoved]:
        """One fact for each history row; to be reported after the commit."""
        for fold in self.folds.values():
            numbers = {name: number for number, name in enumerate(fold.definition.steps, start=1)}
            cause = None
            for row in fold.history:
                if row.patch is not None:  # the first row of a decision, which is the one about its message
                    cause = row.entry.message_id
                yield SagaMoved(
                    saga_id=row.saga_id,
                    saga_type=fold.current.saga_type,
                    key=fold.current.key,
                    entry=row.entry,
                    step_number=numbers.get(step_name(row.entry.step)) if row.entry.step else None,
                    step_total=len(numbers),
                    cause=cause,
                )
