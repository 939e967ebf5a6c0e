"""The loop of a saga's queue: it outlives outages of any length and instances that others hold."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from handlers.consumer import SagaConsumer
from handlers.facts import SagaMoved
from messages.catalog.ordering import StockReserved
from messages.codec import open_envelope
from messages.errors import DatabaseAway
from outbox.facts import LoopTroubled
from outbox.unit import SqlStorage
from running import AsyncioRunner
from tests.handlers.house import LIMITS, NAMESPACE, House, placed
from transport.interface import Publication
from transport.topology import saga_queue

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from messages.envelope import Raw
    from outbox.unit import SqlUnit
    from storage import Database

BOUND = 30.0


class HastyRunner(AsyncioRunner):
    """Pauses take no time."""

    async def sleep(self, seconds: float) -> None:
        assert 0 <= seconds < 3600
        await asyncio.sleep(0)


class Outage:
    """Everything of the storage it wraps, which cannot be reached for the next so many transactions."""

    def __init__(self, storage: SqlStorage, transactions: int) -> None:
        self._storage = storage
        self.left = transactions

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[SqlUnit]:
        """The storage's transaction, if it can be reached."""
        if self.left:
            self.left -= 1
            raise DatabaseAway("the database cannot be reached")
        async with self._storage.transaction() as unit:
            yield unit

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._storage, name)


class Hall(House):
    """A house whose queue is consumed."""

    async def send(self, *raws: Raw) -> None:
        """Put messages into the saga's queue."""
        queue = saga_queue(NAMESPACE, self.definition.type)
        await self.transport.publisher.publish(
            [
                Publication(ticket=ticket, exchange="", routing_key=queue, envelope=open_envelope(raw))
                for ticket, raw in enumerate(raws)
            ]
        )

    async def told(self, text: str) -> None:
        """Wait until a fact that says this was reported."""
        async with asyncio.timeout(BOUND):
            while not any(text in repr(fact) for fact in self.facts):  # noqa: ASYNC110 - facts have no event
                await asyncio.sleep(0.01)

    @asynccontextmanager
    async def consuming(self, batch: int) -> AsyncIterator[None]:
        """The loop runs for the length of the block, and never ends in between."""
        consumer = SagaConsumer(
            self.handler,
            self.transport,
            HastyRunner(),
            self.facts.append,
            queue=saga_queue(NAMESPACE, self.definition.type),
            limits=LIMITS,
            batch=batch,
        )
        loop = asyncio.create_task(consumer.run())
        try:
            yield
            assert not loop.done()
        finally:
            await consumer.stop()
            await asyncio.wait_for(loop, BOUND)


async def test_an_outage_of_any_length_ends_no_loop(sqlite: Database) -> None:
    house = await Hall(Outage(SqlStorage(sqlite), transactions=1_200)).open()
    async with house.consuming(batch=10):
        await house.send(house.message(placed()))
        await house.told("SagaMoved")
    assert {fact.key for fact in house.facts if isinstance(fact, SagaMoved)} == {"o-1"}
    assert sum(isinstance(fact, LoopTroubled) for fact in house.facts) == 1_200


async def test_a_whole_batch_for_an_instance_that_another_holds_leaves_the_loop_alive(postgresql: Database) -> None:
    storage = SqlStorage(postgresql)
    house = await Hall(storage).open()
    await house.take(house.message(placed()))
    async with house.consuming(batch=1):
        async with storage.transaction() as unit:
            await unit.lock([house.id_of("o-1")])
            await house.send(house.answer("o-1", StockReserved(order_id="o-1", reservation_id="r-1"), "reserve"))
            await house.told("deferred=1")
        await house.told("step_completed")
        await house.send(house.message(placed("o-2")))
        await house.told("key='o-2'")
    assert (await house.instance("o-1")).steps.keys() == {"reserve", "pay"}
    assert (await house.instance("o-2")).status == "running"
