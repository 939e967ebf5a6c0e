"""`publish`: one message through the outbox."""

from __future__ import annotations

import os
import sys
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from messages import REGISTRY, Raw, codec
from messages.errors import CommitUnknown, UnknownMessage
from outbox.interface import Outgoing
from runtime.database import opened
from runtime.exits import OK
from runtime.loading import known_to
from runtime.settings import load
from sagas.problems import suggestion
from transport.topology import commands_exchange, events_exchange

if TYPE_CHECKING:
    from messages import Message
    from outbox.unit import SqlStorage
    from runtime.settings import Settings


async def publish(name: str, body: str, message_id: str) -> int:
    """Check the message against its class, commit it to the outbox and print its id.

    Raises:
        UnknownMessage: no class has that name; the text suggests the nearest.
        MessageError: the body or the id is wrong; nothing was committed.
    """
    settings = load().settings
    known_to(settings)
    given = sys.stdin.buffer.read() if body == "-" else os.fsencode(body)
    outgoing = checked(settings, name, given, message_id or str(uuid.uuid4()))
    async with opened(settings) as storage:
        await _committed(storage, outgoing)
    sys.stdout.write(f"{outgoing.envelope.message_id}\n")
    return OK


async def _committed(storage: SqlStorage, outgoing: Outgoing) -> None:
    try:
        await storage.publish(outgoing)
    except CommitUnknown as error:
        message_id = outgoing.envelope.message_id
        raise CommitUnknown(
            f"nobody knows whether message {message_id} was kept, because the connection was lost while it was being "
            f"committed; publish it once more with --message-id {message_id}: if it was kept, that changes nothing",
            message_id=message_id,
        ) from error


def checked(settings: Settings, name: str, body: bytes, message_id: str) -> Outgoing:
    """The message for the outbox, proved to be one that its reader accepts."""
    message_class = _class_of(name)
    limits = settings.limits
    raw = Raw(
        body=body,
        routing_key=name,
        message_id=message_id,
        type=name,
        app_id=settings.namespace,
        headers={"schema-version": message_class.schema_version},
    )
    envelope = codec.open_envelope(raw, limits)
    codec.parse(envelope, message_class, limits)
    exchange = commands_exchange if message_class.message_kind == "command" else events_exchange
    return Outgoing(
        envelope=replace(envelope, timestamp=datetime.now(UTC)),
        exchange=exchange(settings.namespace),
        routing_key=name,
    )


def _class_of(name: str) -> type[Message]:
    """The class of the newest version of a message."""
    versions = REGISTRY.versions(name)
    if not versions:
        known = {message_class.message_name for message_class in REGISTRY}
        hint = suggestion(name, known)
        raise UnknownMessage(f"no message is called {name!r}{hint}; is its module in ANTIPHON_MODULES?")
    return REGISTRY.find(name, versions[-1])
