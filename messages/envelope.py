"""What travels: a `Raw` message as a broker hands it over, and the `Envelope` it becomes once it has been checked.

Knows no broker, no database and no message class.
"""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING

from messages.value import value

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime


UNDECODABLE_HEADER = "undecodable-properties"
"""The one header of a message whose properties could not be read: it holds their bytes."""


@value
class Raw:
    """A message exactly as it arrived, nothing believed yet: it is also what a dead letter keeps.

    `user_id` is set only where the broker vouches for it. `headers` may hold any AMQP value.
    """

    body: bytes
    routing_key: str
    message_id: str | None = None
    type: str | None = None
    content_type: str | None = None
    content_encoding: str | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    app_id: str | None = None
    user_id: str | None = None
    priority: int | None = None
    timestamp: datetime | None = None
    headers: Mapping[str, object] = field(default_factory=dict)


@value
class Envelope:
    """A message with a checked identity. The body is still bytes: it is parsed by the class that its name selects.

    `source` is who sent it (the connection's user where the broker vouches for it, else `app_id`, else empty): with
    `message_id` it is the identity of the message. `causation_id` is the id of the message that caused this one.
    """

    message_id: str
    name: str
    body: bytes
    schema_version: int = 1
    source: str = ""
    correlation_id: str | None = None
    causation_id: str | None = None
    reply_to: str | None = None
    idempotency_key: str | None = None
    compensates: str | None = None
    timestamp: datetime | None = None
    traceparent: str | None = None
    tracestate: str | None = None
