"""What a message that cannot be processed becomes: a dead letter under a name of its own, and the fact of it."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING

from handlers.facts import MessageDeadLettered
from outbox.interface import DeadLetter
from storage.properties import packed

if TYPE_CHECKING:
    from uuid import UUID

    from messages.envelope import Envelope, Raw
    from messages.errors import MessageError


def identity(raw: Raw, envelope: Envelope | None, body_hash: bytes) -> str:
    """What a dead letter is called: its message's id or, without one, a hash of its body and of all else it says.

    Two messages without an id that differ in anything their senders wrote are two letters, so that none is lost in the
    other. What brokers write (`x-…`) differs between copies of one message and does not count.
    """
    if envelope is not None:
        return envelope.message_id
    if raw.message_id:
        return raw.message_id
    headers = {name: each for name, each in raw.headers.items() if not name.startswith("x-")}
    said = packed(replace(raw, headers=headers))
    return sha256(body_hash + said.encode()).hexdigest()


def name_of(raw: Raw, envelope: Envelope | None) -> str:
    """The name of a message, as far as it says one."""
    return envelope.name if envelope is not None else raw.type or raw.routing_key


def letter_of(
    consumer: str,
    raw: Raw,
    envelope: Envelope | None,
    body_hash: bytes,
    error: MessageError,
    *,
    saga_id: UUID | None = None,
) -> DeadLetter:
    """The letter of a message that met this error; `envelope` is missing when not even that could be read."""
    return DeadLetter(
        consumer=consumer,
        source=envelope.source if envelope else "",
        message_id=identity(raw, envelope, body_hash),
        name=name_of(raw, envelope),
        raw=raw,
        body_hash=body_hash,
        reason=error.reason,
        error=str(error),
        error_class=error.error_class,
        saga_id=saga_id,
    )


def fact_of(letter: DeadLetter) -> MessageDeadLettered:
    """What is reported of it after the commit."""
    return MessageDeadLettered(
        consumer=letter.consumer,
        message_id=letter.message_id,
        name=letter.name,
        reason=letter.reason,
        error=letter.error,
        saga_id=letter.saga_id,
    )
