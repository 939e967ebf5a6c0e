"""A saga's consumer under pressure: it takes no further batch, stops when it is told to, and never holds much."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from handlers.consumer import SagaConsumer
from messages import open_envelope
from outbox.pressure import MANY, Backlog
from outbox.unit import SqlStorage
from tests.handlers.house import LIMITS, NAMESPACE, placed
from tests.handlers.test_aside import FastRunner, Ward
from tests.handlers.test_consumer import BOUND, Gated
from tests.outbox.test_pressure import Gauge
from transport.in_process import InProcessTransport
from transport.interface import Publication
from transport.topology import saga_queue

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from storage import Database
    from transport.interface import Consumer, Delivery, Publisher
    from transport.topology import Topology

PREFETCH = 40


class Slow(FastRunner):
    """Its clock stands still for whoever waits for a bound: a pause ends only when it is ended."""

    def timeout(self, seconds: float | None):  # type: ignore[no-untyped-def]  # noqa: ANN201
        """See `running.Runner`."""
        return super().timeout(None)


class House(Ward):
    """A house whose consumer feels the pressure that the test puts on it."""

    def __init__(self, database: Database, runner: FastRunner | None = None) -> None:
        super().__init__(SqlStorage(database))
        self.pressure = Gauge(runner or Slow())
        self.consumer: SagaConsumer | None = None

    @asynccontextmanager
    async def under_pressure(self) -> AsyncIterator[SagaConsumer]:
        """The loop runs for the length of the block."""
        consumer = SagaConsumer(
            self.handler,
            self.transport,
            Slow(),
            self.facts.append,
            queue=saga_queue(NAMESPACE, self.definition.type),
            limits=LIMITS,
            batch=10,
            prefetch=PREFETCH,
            pressure=self.pressure,
        )
        loop = asyncio.create_task(consumer.run())
        try:
            yield consumer
        finally:
            await consumer.stop()
            await asyncio.wait_for(loop, BOUND)

    async def place_all(self, *keys: str) -> None:
        """Put an order for each into the saga's queue."""
        await self.send(*(self.place(key) for key in keys))


async def a_while() -> None:
    """Long enough for a batch to be committed, if one were taken."""
    await asyncio.sleep(0.3)


async def test_while_consuming_is_paused_no_batch_is_taken_and_then_it_goes_on(database: Database) -> None:
    house = await House(database).open()
    async with house.under_pressure():
        await house.place_all("o-1")
        await house.until(lambda: house.started == ["o-1"])
        await house.pressure.sees(Backlog(waiting=MANY))
        await house.place_all("o-2", "o-3")
        await a_while()
        assert house.started == ["o-1"]
        await house.pressure.sees()
        await house.until(lambda: house.started == ["o-1", "o-2", "o-3"])


async def test_a_consumer_that_is_paused_can_be_stopped_and_leaves_what_it_had_received(database: Database) -> None:
    house = await House(database).open()
    await house.pressure.sees(Backlog(waiting=MANY))
    async with house.under_pressure():
        await house.place_all("o-1", "o-2")
        await a_while()
    assert house.started == []
    again = await house.transport.consume(saga_queue(NAMESPACE, house.definition.type), prefetch=10)
    left = await again.receive(10)
    assert [each.raw.message_id for each in left] == ["start-o-1", "start-o-2"]


async def test_a_pause_lets_a_batch_through_now_and_then(database: Database) -> None:
    """Or a queue that fills the broker's disk, and so keeps it from taking messages, would never be read."""
    house = await House(database, FastRunner()).open()
    await house.pressure.sees(Backlog(waiting=MANY))
    async with house.under_pressure():
        await house.place_all(*(f"o-{n}" for n in range(25)))
        await house.until(lambda: len(house.started) == 25)
    assert house.pressure.reason is not None


async def test_of_ten_thousand_messages_no_more_than_the_prefetch_is_in_hand(postgresql: Database) -> None:
    storage = Gated(SqlStorage(postgresql))
    house = Ward(storage)
    house.transport = InProcessTransport(app_id=NAMESPACE, capacity=100_000)
    counting = Counting(house.transport)
    await house.open()
    queue = saga_queue(NAMESPACE, house.definition.type)
    envelope = open_envelope(house.message(placed("o-1"), message_id="one"))
    await house.transport.publisher.publish(
        [Publication(ticket=n, exchange="", routing_key=queue, envelope=envelope) for n in range(10_000)]
    )
    consumer = SagaConsumer(
        house.handler,
        counting,
        FastRunner(),
        house.facts.append,
        queue=queue,
        limits=LIMITS,
        batch=20,
        prefetch=PREFETCH,
    )
    loop = asyncio.create_task(consumer.run())
    await storage.logged("deciding", "saving")
    await a_while()
    assert counting.in_hand <= PREFETCH
    storage.gate.set()
    async with asyncio.timeout(BOUND):
        while counting.settled < 500:  # noqa: ASYNC110 - a counter does not tell
            await asyncio.sleep(0.01)
    await consumer.stop()
    await asyncio.wait_for(loop, BOUND)
    assert counting.most <= PREFETCH


class Counting:
    """A transport whose consumer counts what it has handed out and not yet seen settled."""

    def __init__(self, transport: InProcessTransport) -> None:
        self._transport = transport
        self.in_hand = self.most = self.settled = 0

    async def consume(self, queue: str, *, prefetch: int) -> Consumer:
        """See `transport.interface.Transport`."""
        inner = await self._transport.consume(queue, prefetch=prefetch)
        receive, settle = inner.receive, inner.settle

        async def counted(limit: int) -> Sequence[Delivery]:
            deliveries = await receive(limit)
            self.in_hand += len(deliveries)
            self.most = max(self.most, self.in_hand)
            return deliveries

        async def settled(deliveries: Sequence[Delivery]) -> None:
            self.in_hand -= len(deliveries)
            self.settled += len(deliveries)
            await settle(deliveries)

        inner.receive, inner.settle = counted, settled  # type: ignore[method-assign]
        return inner

    @property
    def publisher(self) -> Publisher:
        """See `transport.interface.Transport`."""
        return self._transport.publisher

    @property
    def connected(self) -> bool:
        """See `transport.interface.Transport`."""
        return self._transport.connected

    async def connect(self) -> None:
        """See `transport.interface.Transport`."""
        await self._transport.connect()

    async def declare(self, topology: Topology) -> None:
        """See `transport.interface.Transport`."""
        await self._transport.declare(topology)

    async def close(self) -> None:
        """See `transport.interface.Transport`."""
        await self._transport.close()
