"""Which instance a message is for: by its correlation id where that is one of ours, by its business key otherwise.

A reply is found by either and then matched by the command it answers (`sagas.replies`), never by key alone. A message
whose id and key name different instances belongs to neither. A key may be an alias: then whoever has it is meant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from messages.errors import CorrelationConflict, MissingKey
from messages.value import value
from sagas.definition import Unfit
from sagas.instance import saga_id
from sagas.outcome import Arrived
from transport.topology import saga_queue

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from uuid import UUID

    from handlers.decoding import Decoded
    from messages.errors import MessageError
    from outbox.interface import KeyOwner, Locked, MessageKey
    from outbox.naming import Named
    from sagas.definition import Definition
    from sagas.instance import Instance


@value
class Routed:
    """A message and where it goes.

    `identity` is what the inbox knows it by, None when it has none. `deferred`: another process holds the instance.
    `nobody`: it answers another saga type; one that was sent to this very saga, or that it hears by its key, and whose
    instance is not there has no `target`, and waits for the instance `expected`. `by_key`: only the business key in its
    body says that it is for `target`, so that a reply counts only if it names one of that instance's commands. `held`
    is its number among the held messages, if it comes from there; `kept`: its instance knows that it was.
    """

    index: int
    message: Decoded
    identity: MessageKey | None = None
    target: UUID | None = None
    instance: Instance | None = None
    expected: UUID | None = None
    error: MessageError | None = None
    starts: bool = False
    deferred: bool = False
    nobody: bool = False
    by_key: bool = False
    held: int | None = None
    kept: bool = False

    @property
    def trace(self) -> str | None:
        """The trace that what follows belongs to."""
        return self.message.envelope.traceparent if self.message.envelope else None

    def arrived(self) -> Arrived:
        """The event as it is decided on.

        Raises:
            LookupError: it has none, being unreadable or a marker.
        """
        envelope, event = self.message.envelope, self.message.event
        if envelope is None or event is None:
            raise LookupError("a message without an event is not applied")
        return Arrived(
            message_id=envelope.message_id,
            name=envelope.name,
            body=envelope.body,
            event=event,
            causation_id=envelope.causation_id,
            kept=self.kept,
        )


class Router:
    """Routes the messages of one batch for one saga type."""

    def __init__(
        self,
        definition: Definition,
        namespace: str,
        owners: Mapping[str, KeyOwner],
        aliases: Mapping[Named, UUID] | None = None,
    ) -> None:
        """`owners` says who has the business keys of starts, `aliases` who has the aliases that messages carry."""
        self._aliases = aliases or {}
        self._definition = definition
        self._namespace = namespace
        self._owners = owners
        self._queue = saga_queue(namespace, definition.type)

    def wanted(self, messages: Iterable[Decoded]) -> set[UUID]:
        """Every instance that must be locked to route and apply these messages; none that is just being born."""
        born = {owner.saga_id for owner in self._owners.values() if owner.mine}
        return {candidate for message in messages for candidate in self.candidates(message)} - born

    def candidates(self, message: Decoded) -> set[UUID]:
        """The instances that it may be for."""
        by_key = self._by_key(message)
        return {candidate for candidate in (message.claims, by_key) if candidate is not None}

    def route(self, index: int, message: Decoded, locked: Locked) -> Routed:
        """Where one message goes, now that the instances are locked."""
        envelope = message.envelope
        if envelope is None:
            return Routed(index=index, message=message)
        identity = (envelope.source, envelope.message_id)
        starts = self._starts(message)
        if any(candidate in locked.busy for candidate in self.candidates(message)):
            return Routed(index=index, message=message, identity=identity, starts=starts, deferred=True)
        target, instance = self._target(message, locked)
        expected = message.claims or self._by_key(message)
        if self._definition.heard and self._is_heard(message):
            expected = self._by_key(message) or (expected if message.alias is None else None)
        return Routed(
            index=index,
            message=message,
            identity=identity,
            target=target,
            instance=instance,
            expected=expected,
            error=self._misaddressed(message, target, locked),
            starts=starts,
            nobody=message.error is None
            and target is None
            and not (self._is_kept(message) and expected not in locked.instances),
            by_key=target != message.claims,
        )

    def _starts(self, message: Decoded) -> bool:
        return message.envelope is not None and message.envelope.name in self._definition.starts

    def _by_key(self, message: Decoded) -> UUID | None:
        key = message.key
        if key is None:
            return None
        if message.alias is not None:
            return self._aliases.get((message.alias, key))
        owner = self._owners.get(key)
        return owner.saga_id if owner else saga_id(self._namespace, self._definition.type, key)

    def _target(self, message: Decoded, locked: Locked) -> tuple[UUID | None, Instance | None]:
        by_key = self._by_key(message)
        if self._starts(message):
            return by_key, self._ours(by_key, locked)
        for candidate in (message.claims, by_key):
            instance = self._ours(candidate, locked)
            if instance is not None or self._being_born(candidate):
                return candidate, instance
        return None, None

    def _is_heard(self, message: Decoded) -> bool:
        return message.envelope is not None and message.envelope.name in self._definition.heard

    def _is_kept(self, message: Decoded) -> bool:
        """Whether it is for this saga type, so that where its instance is not there something is to be done with it.

        Of what comes by an alias that is said when it is decided on: until then somebody may have got it.
        """
        if message.alias is not None:
            return True
        listener = self._definition.heard.get(message.envelope.name) if message.envelope is not None else None
        return self._sent_to_us(message) or (listener is not None and listener.missing is not Unfit.IGNORE)

    def _sent_to_us(self, message: Decoded) -> bool:
        """Whether it came straight to the queue of this saga type, and so is nobody else's."""
        return message.marker is None and message.raw.routing_key == self._queue

    def _ours(self, candidate: UUID | None, locked: Locked) -> Instance | None:
        instance = locked.instances.get(candidate) if candidate else None
        return instance if instance is not None and instance.saga_type == self._definition.type else None

    def _being_born(self, candidate: UUID | None) -> bool:
        return any(owner.mine and owner.saga_id == candidate for owner in self._owners.values())

    def _names_another(self, message: Decoded, instance: Instance) -> bool:
        if message.alias is None:
            return instance.key != message.key
        return self._by_key(message) not in (None, instance.saga_id)

    def _misaddressed(self, message: Decoded, target: UUID | None, locked: Locked) -> MessageError | None:
        """An id of ours and a key that names another instance; or neither id nor key, where nobody else gets it."""
        if message.claims is None and message.key is None and self._sent_to_us(message):
            return MissingKey(
                f"it came straight to the queue of {self._definition.type} and names no instance; a reply echoes the "
                "command's correlation_id, and its message_id as causation-id",
                saga_type=self._definition.type,
            )
        by_id = self._ours(message.claims, locked)
        if by_id is None or message.key is None or not self._names_another(message, by_id):
            return None
        named = repr(message.key) if message.alias is None else f"that whose {message.alias} is {message.key!r}"
        return CorrelationConflict(
            f"correlation_id names the instance of {by_id.key!r}, the body names {named}",
            saga_type=self._definition.type,
            saga_id=str(target) if target else None,
        )
