"""The first stage: bytes become an event for this saga type, a marker, or the error that will dead-letter them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import UUID

from pydantic import BaseModel, ConfigDict, ValidationError

from messages import CancelSaga, codec
from messages.errors import MessageError, MethodRaised, MissingKey, NewerMessage, UnknownMessage
from messages.keys import business_key
from messages.strict_json import check_json_object
from messages.value import value
from sagas.keys import attribute_of
from sagas.names import MARKER

if TYPE_CHECKING:
    from messages import Event
    from messages.codec import Limits
    from messages.envelope import Envelope, Raw
    from sagas.definition import Definition
    from sagas.keys import EventKey


_CANCEL = CancelSaga.message_name


class Marker(BaseModel):
    """The body of the message by which a saga gives up waiting."""

    model_config = ConfigDict(frozen=True)

    timer: str
    entry: str


@value
class Decoded:
    """What one delivery turned out to be.

    Exactly one of `event`, `marker` and `error` is set. `envelope` is missing when not even that could be read. `key`
    is the key in its body, where it has one: the business key, or that `alias`; `claims` the instance that its
    `correlation_id` names, if any.
    """

    raw: Raw
    envelope: Envelope | None = None
    event: Event | None = None
    marker: Marker | None = None
    error: MessageError | None = None
    key: str | None = None
    alias: str | None = None
    claims: UUID | None = None
    body_hash: bytes = b""


def decode(raw: Raw, definition: Definition, limits: Limits) -> Decoded:
    """Decode one delivery for one saga type. Never raises: a message that cannot be read says so in its `error`."""
    body_hash = codec.body_hash(raw.body)
    envelope = None
    try:
        envelope = codec.open_envelope(raw, limits)
        if envelope.name == MARKER:
            marker = _marker(envelope, limits)
            return Decoded(
                raw=raw, envelope=envelope, marker=marker, claims=uuid_of(envelope.correlation_id), body_hash=body_hash
            )
        event = _event(raw, envelope, definition, limits)
        carried = definition.keys.get(envelope.name)
        parents = envelope.reply_to is not None and (envelope.name in definition.starts or envelope.name == _CANCEL)
        return Decoded(
            raw=raw,
            envelope=envelope,
            event=event,
            key=_key(envelope, event, carried, definition),
            alias=carried.alias if carried is not None else None,
            claims=None if parents else uuid_of(envelope.correlation_id),  # else it is the parent's, not one of ours
            body_hash=body_hash,
        )
    except UnknownMessage as error:  # who knows more will read it: until then, too, it is for that instance
        claims = uuid_of(envelope.correlation_id) if envelope is not None else None
        return Decoded(raw=raw, envelope=envelope, error=error, claims=claims, body_hash=body_hash)
    except MessageError as error:
        return Decoded(raw=raw, envelope=envelope, error=error, body_hash=body_hash)


def named_by_id(message: Decoded, saga_id: UUID | None) -> Decoded:
    """A message that has come by an alias to the instance that it is for: it stays for it, whatever that has since."""
    if message.alias is None or saga_id is None:
        return message
    return replace(message, key=None, alias=None, claims=saga_id)


def unread(raw: Raw) -> Decoded:
    """What is known of a delivery without reading its body: which instance it says it is for."""
    return Decoded(
        raw=raw,
        error=MessageError("not read"),
        claims=uuid_of(raw.correlation_id),
        body_hash=codec.body_hash(raw.body),
    )


def _event(raw: Raw, envelope: Envelope, definition: Definition, limits: Limits) -> Event:
    event_class = definition.events.get(envelope.name) or (CancelSaga if envelope.name == _CANCEL else None)
    if event_class is None:
        known = ", ".join(sorted(definition.events))
        why = "" if raw.type else " (its routing key: it has no type, which names a message that comes otherwise)"
        raise UnknownMessage(f"{definition.type} consumes no {envelope.name}{why}; it knows {known}")
    if envelope.schema_version > event_class.schema_version:
        raise NewerMessage(
            f"{envelope.name} has schema-version {envelope.schema_version}, this process knows up to "
            f"{event_class.schema_version}; deploy the newer one, then replay"
        )
    return codec.parse(envelope, event_class, limits)


def _key(envelope: Envelope, event: Event, carried: EventKey | None, definition: Definition) -> str | None:
    """The key: what is found by it must have one, unless it names its instance; a reply may."""
    if envelope.name in definition.told_by_children:
        return None  # the child's
    if envelope.name == _CANCEL:
        return business_key(getattr(event, "key", None))
    try:
        if carried is not None:
            return carried.of(definition.type, event)
        own = attribute_of(type(event), definition.key)
        return None if own is None else business_key(getattr(event, own))
    except MethodRaised as error:
        error.message_id = envelope.message_id
        raise
    except MissingKey as error:
        if carried is None or not (envelope.name in definition.starts or uuid_of(envelope.correlation_id) is None):
            return None
        error.message_id = envelope.message_id
        raise


def _marker(envelope: Envelope, limits: Limits) -> Marker:
    check_json_object(envelope.body, max_depth=limits.max_depth)
    try:
        return Marker.model_validate_json(envelope.body)
    except ValidationError as error:
        raise UnknownMessage(f"{MARKER} with a body that no saga sends: {error.error_count()} errors") from error


def uuid_of(text: str | None) -> UUID | None:
    """The UUID that a `correlation_id` is, if it is one: only then can it name an instance of ours."""
    if text is None or len(text) != 36:
        return None
    try:
        return UUID(text)
    except ValueError:
        return None
