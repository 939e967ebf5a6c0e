"""What goes back to whoever sent a command: its reply, and signs of life while it is at work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from messages import codec
from messages.envelope import Envelope
from outbox.interface import Outgoing
from outbox.participant_store import StoredReply
from transport.topology import events_exchange

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime

    from messages import Event
    from messages.codec import Limits
    from outbox.relay import Relay
    from running import Runner


class Replying:
    """The replies of one participant."""

    def __init__(self, relay: Relay, runner: Runner, *, namespace: str, limits: Limits) -> None:
        self._relay = relay
        self._runner = runner
        self._events = events_exchange(namespace)
        self._limits = limits

    def stored(self, reply: Event) -> StoredReply:
        """The reply as it is kept.

        Raises:
            MessageError: it does not fit the wire contract.
        """
        return StoredReply(
            name=reply.message_name, version=reply.schema_version, body=codec.encode(reply, self._limits)
        )

    def outgoing(self, asked: Envelope, reply: StoredReply, message_id: str, at: datetime) -> Outgoing:
        """The reply to a command: straight to who asked, or for whoever listens."""
        envelope = Envelope(
            message_id=message_id,
            name=reply.name,
            body=reply.body,
            schema_version=reply.version,
            correlation_id=asked.correlation_id,
            causation_id=asked.message_id,
            timestamp=at.replace(microsecond=0),
            traceparent=asked.traceparent,
            tracestate=asked.tracestate,
        )
        if asked.reply_to is not None:
            return Outgoing(envelope=envelope, exchange="", routing_key=asked.reply_to)
        return Outgoing(envelope=envelope, exchange=self._events, routing_key=reply.name)

    def heartbeats(self, asked: Envelope) -> Callable[[Event], Awaitable[None]]:
        """What sends a sign of life to who asked, beside the transaction in which the command is at work."""

        async def beat(event: Event) -> None:
            now, message_id = self._runner.now(), str(self._runner.token())
            await self._relay.mention(self.outgoing(asked, self.stored(event), message_id, now))

        return beat
