"""The seam to a broker: deliveries in bursts, publishes in bursts, outcomes in bursts, acknowledge up to.

Three small protocols that RabbitMQ and the in-process transport both keep, held to it by one conformance suite
(`testkit.conformance`). The seam is deliberately narrow: a leaner path to the same broker can take the place of the
simple one without anyone noticing.

What every implementation promises:

- every await is bounded, or is a wait for work that `close` ends;
- a lost connection is repaired behind the seam, with jitter; until then `publish` raises `BrokerAway` and `receive`
  waits; deliveries of a lost channel are void, settling them is a no-op and they come again;
- nothing is acknowledged that was not settled, and what is settled does not wait for ever behind something that is
  not: `multiple` up to the highest tag below which everything is settled, one by one above a gap that persists.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from messages.value import value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from messages.envelope import Envelope, Raw
    from transport.topology import Topology


@value
class Delivery:
    """One delivery of one message. `channel` tells deliveries of different channel lifetimes apart."""

    raw: Raw
    tag: int
    channel: int
    redelivered: bool = False
    delivery_count: int = 0  # how often it was handed out before without an end, in this process or another


@value
class Publication:
    """One message to publish. `exchange` empty means straight to the queue named by `routing_key`.

    `ticket` is the caller's own name for this publication, unique while it is in flight; outcomes carry it. `attempts`
    counts earlier publications of the same message: in process each handed it out. Where there is a `raw`, that is
    published, as it is but for its routing key, and whatever the envelope says.
    """

    ticket: int
    exchange: str
    routing_key: str
    envelope: Envelope
    attempts: int = 0
    raw: Raw | None = None

    @property
    def message(self) -> Envelope | Raw:
        """What is published."""
        return self.raw or self.envelope


class Verdict(StrEnum):
    """How a publication ended."""

    CONFIRMED = "confirmed"  # routed and safe: in process, every consumer has committed a disposition
    RETURNED = "returned"  # no queue takes it
    REFUSED = "refused"  # this message cannot be published as it is; trying again will not help
    NACKED = "nacked"  # the broker could not take it now
    UNKNOWN = "unknown"  # the connection or channel ended first; it may or may not have arrived


@value
class Outcome:
    """The end of one publication, in words when it is not `CONFIRMED`."""

    ticket: int
    verdict: Verdict
    reason: str = ""


class Consumer(Protocol):
    """One queue being consumed on a channel of its own."""

    async def receive(self, limit: int) -> Sequence[Delivery]:
        """Wait for at least one delivery and return all that have queued up, `limit` at most, in order.

        Returns an empty sequence only when the consumer was stopped or closed and nothing is left.
        """
        ...

    async def settle(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge what has been decided and committed. Never raises for a lost channel."""
        ...

    async def stop(self) -> None:
        """Ask for no further deliveries; what has arrived can still be received and settled."""
        ...

    async def close(self) -> None:
        """Give up the channel; everything unsettled goes back to the queue."""
        ...

    @property
    def attached(self) -> bool:
        """Whether the broker is sending us this queue's messages right now."""
        ...


class Publisher(Protocol):
    """The way out: mandatory, persistent, confirmed."""

    @property
    def holds(self) -> bool:
        """Whether a confirm may take as long as the slowest consumer (in process), so that leases must be renewed."""
        ...

    @property
    def ready(self) -> bool:
        """Whether publishing is possible now: connected, and not blocked by the broker."""
        ...

    async def publish(self, publications: Sequence[Publication]) -> None:
        """Hand over a burst, in order. Each accepted one ends in exactly one `Outcome`.

        Raises:
            BrokerAway: not connected or blocked; nothing of the burst was accepted.
        """
        ...

    async def outcomes(self) -> Sequence[Outcome]:
        """Wait for at least one outcome and return all there are. Empty only after `close`."""
        ...


class Transport(Protocol):
    """A broker, connected."""

    async def connect(self) -> None:
        """Connect once.

        Raises:
            BrokerAway: not reachable now; the caller may try again.
            ConfigurationError: the address or the credentials are wrong.
        """
        ...

    async def declare(self, topology: Topology) -> None:
        """Declare what is missing and verify what exists.

        Raises:
            TopologyMismatch: something exists otherwise; the message names the difference and the remedy.
            BrokerAway: not connected now.
        """
        ...

    async def consume(self, queue: str, *, prefetch: int) -> Consumer:
        """Start consuming. The consumer survives reconnects, broker restarts and a cancel by the broker.

        Raises:
            ConfigurationError: there is no such queue, or this user may not read it.
            BrokerAway: not connected now.
        """
        ...

    @property
    def publisher(self) -> Publisher:
        """The one publisher of this transport, on a connection of its own."""
        ...

    @property
    def connected(self) -> bool:
        """Whether both directions are up: part of readiness."""
        ...

    async def close(self) -> None:
        """Close everything. Unsettled deliveries go back, unfinished publications end `UNKNOWN`."""
        ...
