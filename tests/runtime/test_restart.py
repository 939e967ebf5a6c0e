"""A loop of the engine that was ended from outside works again after its restart."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

import migrations
from handlers.consumer import SagaConsumer
from handlers.facts import SagaMoved
from outbox.unit import SqlStorage
from running import AsyncioRunner
from runtime.facts import LoopEnded
from runtime.supervise import Supervised
from storage import Database
from tests.handlers.house import LIMITS, NAMESPACE, House, placed
from transport.interface import Publication
from transport.topology import saga_queue

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    database = Database(f"sqlite:///{tmp_path / 'restart.db'}", AsyncioRunner(), namespace=NAMESPACE, pool_size=4)
    await migrations.up(database)
    yield await House(SqlStorage(database)).open()
    await database.close()


async def publish(house: House, order_id: str, ticket: int) -> None:
    envelope = house.decoded([house.message(placed(order_id))])[0].envelope
    assert envelope is not None
    queue = saga_queue(NAMESPACE, house.definition.type)
    await house.transport.publisher.publish(
        [Publication(ticket=ticket, exchange="", routing_key=queue, envelope=envelope)]
    )
    assert [outcome.ticket for outcome in await house.transport.publisher.outcomes()] == [ticket]


async def test_a_consumer_that_was_cancelled_by_nobody_of_ours_consumes_again(house: House) -> None:
    consumer = SagaConsumer(
        house.handler,
        house.transport,
        house.runner,
        house.facts.append,
        queue=saga_queue(NAMESPACE, house.definition.type),
        limits=LIMITS,
    )
    restarted = asyncio.Event()

    def report(fact: object) -> None:
        assert isinstance(fact, LoopEnded)
        restarted.set()

    supervised = Supervised(consumer, house.runner, report)
    task = asyncio.create_task(supervised.run())
    async with asyncio.timeout(30):
        await publish(house, "first", 1)
        [life] = [each for each in asyncio.all_tasks() if each.get_name() == consumer.name]
        life.cancel()
        await restarted.wait()
        await publish(house, "second", 2)
        supervised.stop()
        await task
    assert {fact.key for fact in house.facts if isinstance(fact, SagaMoved)} == {"first", "second"}
    assert supervised.restarts == 1
