"""The wire contract's properties and headers, both ways."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from aiormq import spec

from messages.codec import headers_of
from messages.envelope import Raw
from transport.interface import Delivery

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiormq.abc import DeliveredMessage

    from messages.envelope import Envelope

PERSISTENT = 2
DELIVERY_COUNT = "x-delivery-count"


def properties_of(envelope: Envelope, app_id: str) -> spec.Basic.Properties:
    """An envelope as AMQP properties. The same envelope gives the same bytes at every publication."""
    return spec.Basic.Properties(
        content_type="application/json",
        headers=dict(headers_of(envelope)),
        delivery_mode=PERSISTENT,
        correlation_id=envelope.correlation_id,
        reply_to=envelope.reply_to,
        message_id=envelope.message_id,
        timestamp=envelope.timestamp,
        message_type=envelope.name,
        app_id=app_id,
    )


def delivery_of(message: DeliveredMessage, channel: int) -> Delivery:
    """A message of the client library as our own. The properties are taken as they are, nothing is believed."""
    properties = message.header.properties
    headers: Mapping[str, object] = properties.headers or {}
    raw = Raw(
        body=message.body,
        routing_key=message.routing_key or "",
        message_id=properties.message_id or None,
        type=properties.message_type or None,
        content_type=properties.content_type or None,
        content_encoding=properties.content_encoding or None,
        correlation_id=properties.correlation_id or None,
        reply_to=properties.reply_to or None,
        app_id=properties.app_id or None,
        user_id=properties.user_id or None,
        timestamp=_aware(properties.timestamp),
        headers=headers,
    )
    return Delivery(
        raw=raw,
        tag=message.delivery_tag or 0,
        channel=channel,
        redelivered=bool(message.redelivered),
        delivery_count=_count(headers.get(DELIVERY_COUNT)),
    )


def _aware(timestamp: datetime | None) -> datetime | None:
    if timestamp is None or timestamp.tzinfo is not None:
        return timestamp
    return timestamp.replace(tzinfo=UTC)


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0
