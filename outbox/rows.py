"""What an outbox row keeps of a message besides its body: the rest of the envelope, as JSON text.

The words are those of `messages.envelope.Envelope`; absent ones are left out. The SQL door writes the same. Of a dead
letter that is given back they are its properties, as the letter has them.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pydantic_core import to_json

from messages.envelope import Envelope
from outbox.interface import GivenBack, Outgoing
from storage.properties import packed, unpacked
from storage.statements import as_uuid

if TYPE_CHECKING:
    from sqlalchemy import Row

_TEXTS = (
    "source",
    "correlation_id",
    "causation_id",
    "reply_to",
    "idempotency_key",
    "compensates",
    "traceparent",
    "tracestate",
)


def headers(outgoing: Outgoing) -> str:
    """Everything of the message that has no column of its own."""
    if outgoing.given_back is not None:
        return packed(outgoing.given_back.raw)
    envelope = outgoing.envelope
    kept: dict[str, object] = {name: value for name in _TEXTS if (value := getattr(envelope, name))}
    if envelope.schema_version != 1:
        kept["schema_version"] = envelope.schema_version
    if envelope.timestamp is not None:
        kept["timestamp"] = envelope.timestamp
    return to_json(kept, ensure_ascii=True).decode("ascii")


def outgoing(row: Row[Any]) -> Outgoing:
    """The message that an outbox row holds."""
    if row.dead_letter_id is not None:
        raw = unpacked(bytes(row.body), row.headers)
        given_back = GivenBack(dead_letter_id=row.dead_letter_id, raw=raw)
        return given_back.to(row.routing_key, message_id=row.message_id, name=row.name)
    kept: dict[str, Any] = json.loads(row.headers)
    timestamp = kept.pop("timestamp", None)
    return Outgoing(
        envelope=Envelope(
            message_id=row.message_id,
            name=row.name,
            body=bytes(row.body),
            schema_version=kept.pop("schema_version", 1),
            timestamp=datetime.fromisoformat(timestamp) if timestamp else None,
            **{name: kept[name] for name in _TEXTS if name in kept},
        ),
        exchange=row.exchange,
        routing_key=row.routing_key,
        saga_id=None if row.saga_id is None else as_uuid(row.saga_id),
        path=row.path,
    )
