"""What conformance tests of a transport work with: two connected ends, three queues, and bounded waiting."""

# ruff: noqa: S101 - these are tests

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, TypeVar

from messages.envelope import Envelope
from transport import Publication, Queue, Topology, commands_exchange, events_exchange

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Iterator, Sequence

    from transport import Consumer, Delivery, Outcome, Transport, Verdict

T = TypeVar("T")

PATIENCE = 30.0  # seconds
HAPPENED = "probe.Happened"
DO = "probe.Do"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two ends of one broker, both connected: `near` publishes, `far` consumes. In process both are the same object.

    `namespace` is used by no other test, and `app_id` is what `near` was constructed with.
    """

    near: Transport
    far: Transport
    namespace: str
    app_id: str


@dataclass(slots=True, kw_only=True)
class Bench:
    """A pair with two saga queues `A`, `B` bound to `probe.Happened` and a participant queue that takes `probe.Do`."""

    pair: Pair
    tickets: Iterator[int] = field(default_factory=lambda: count(1))

    async def declare(self) -> Bench:
        """Declare the queues."""
        namespace = self.pair.namespace
        queues = (
            Queue.of_saga(namespace, "A", events=[HAPPENED]),
            Queue.of_saga(namespace, "B", events=[HAPPENED]),
            Queue.of_participant(namespace, "p", commands=[DO]),
        )
        await within(self.pair.far.declare(Topology(namespace=namespace, queues=queues)))
        return self

    @property
    def a(self) -> str:
        """A queue's name."""
        return f"{self.pair.namespace}.saga.A"

    @property
    def b(self) -> str:
        """A queue's name."""
        return f"{self.pair.namespace}.saga.B"

    @property
    def p(self) -> str:
        """The participant queue's name."""
        return f"{self.pair.namespace}.participant.p"

    def event(self, number: int, *, name: str = HAPPENED, body: bytes | None = None) -> Publication:
        """Message `number` on the events exchange."""
        return self.publication(events_exchange(self.pair.namespace), name, number, name=name, body=body)

    def command(self, number: int, *, name: str = DO) -> Publication:
        """Message `number` on the commands exchange."""
        return self.publication(commands_exchange(self.pair.namespace), name, number, name=name)

    def straight(self, queue: str, number: int, *, body: bytes | None = None) -> Publication:
        """Message `number` straight to a queue."""
        return self.publication("", queue, number, body=body)

    def publication(
        self, exchange: str, routing_key: str, number: int, *, name: str = HAPPENED, body: bytes | None = None
    ) -> Publication:
        """Message `number` under a fresh ticket; the same number is the same message."""
        body = json.dumps({"number": number}).encode() if body is None else body
        envelope = Envelope(message_id=f"m-{number}", name=name, body=body)
        return Publication(ticket=next(self.tickets), exchange=exchange, routing_key=routing_key, envelope=envelope)

    async def publish(self, publications: Sequence[Publication]) -> None:
        """One burst."""
        await within(self.pair.near.publisher.publish(publications))

    async def consume(self, queue: str, *, prefetch: int = 1000) -> Consumer:
        """A consumer at the far end."""
        return await within(self.pair.far.consume(queue, prefetch=prefetch))

    async def outcomes(self, number: int) -> dict[int, Outcome]:
        """Wait for so many outcomes; none may come twice."""
        found: dict[int, Outcome] = {}
        while len(found) < number:
            more = await within(self.pair.near.publisher.outcomes())
            assert more, f"the publisher closed after {len(found)} of {number} outcomes"
            for outcome in more:
                assert outcome.ticket not in found
                found[outcome.ticket] = outcome
        assert len(found) == number
        return found

    async def verdicts(self, publications: Sequence[Publication]) -> list[Verdict]:
        """Wait for the outcomes of these, and only these, and give their verdicts in order."""
        outcomes = await self.outcomes(len(publications))
        return [outcomes[publication.ticket].verdict for publication in publications]


async def within(work: Coroutine[object, object, T]) -> T:
    """Await with a bound."""
    async with asyncio.timeout(PATIENCE):
        return await work


async def received(consumer: Consumer, number: int, *, limit: int = 1000) -> list[Delivery]:
    """Receive exactly so many, in order, without settling them."""
    found: list[Delivery] = []
    while len(found) < number:
        burst = await within(consumer.receive(min(limit, number - len(found))))
        assert burst, f"the consumer ended after {len(found)} of {number} deliveries"
        found += burst
    return found


async def worked_off(consumer: Consumer, number: int) -> list[Delivery]:
    """Receive exactly so many and settle them."""
    found = await received(consumer, number)
    await within(consumer.settle(found))
    return found


def numbers(deliveries: Iterable[Delivery]) -> list[int]:
    """Which messages these are."""
    return [int((delivery.raw.message_id or "m--1")[2:]) for delivery in deliveries]
