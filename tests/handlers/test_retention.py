"""The loop that removes what is old, and what a message meets that comes after it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from handlers.facts import MessageIgnored
from handlers.retention import NEVER, Retention, of_sagas
from messages.catalog.ordering import OutOfStock, StockReserved
from messages.errors import DatabaseAway
from outbox.facts import LoopTroubled, RowsRemoved
from storage.retention import Expiry
from tests.handlers.house import NAMESPACE, House, dead, outbox, placed, rows
from tests.services.waiting import until_async
from transport.topology import saga_queue

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from messages.envelope import Raw
    from outbox.unit import SqlStorage
    from storage.retention import Place, Step

REFUSED = OutOfStock(order_id="o-1")


@pytest.fixture
async def house(storage: SqlStorage) -> House:
    return await House(storage).open()


def retention(
    house: House, storage: SqlStorage, *, expiry: Expiry | None = None, sagas: float = 0, every: float = 0.01
) -> Retention:
    """A loop that removes everything as soon as it may."""
    kinds = of_sagas(expiry or Expiry(storage.database, instances=2, rows=3), sagas=sagas, inbox=0, dead_letters=NEVER)
    return Retention(kinds, house.runner, house.facts.append, every=every, rest=0.0)


@asynccontextmanager
async def running(*loops: Retention) -> AsyncIterator[None]:
    """These loops at work, and ended when the block is left."""
    async with asyncio.TaskGroup() as tasks:
        for loop in loops:
            tasks.create_task(loop.run())
        try:
            yield
        finally:
            for loop in loops:
                loop.stop()


async def published(storage: SqlStorage) -> None:
    """Everything in the outbox was sent: nothing keeps an instance that has ended."""
    async with storage.database.write() as session:
        await session.connection.exec_driver_sql("delete from outbox")


async def counted(storage: SqlStorage, *tables: str) -> list[int]:
    return [(await rows(storage, f"select count(*) as amount from {table}"))[0].amount for table in tables]  # noqa: S608


async def over(house: House, storage: SqlStorage, *keys: str) -> list[Raw]:
    """Sagas that have ended and are not needed any more; returns every message that they took."""
    taken = [house.message(placed(key)) for key in keys]
    taken += [house.answer(key, OutOfStock(order_id=key), "reserve") for key in keys]
    await house.take(*taken)
    await published(storage)
    return taken


async def removed(house: House, storage: SqlStorage) -> None:
    """Whatever has ended, and every id of the inbox, is gone."""
    async with running(retention(house, storage)):
        await until_async(lambda: _empty(storage), what="retention to remove everything")


async def _empty(storage: SqlStorage) -> bool:
    return await counted(storage, "saga", "saga_event", "inbox") == [0, 0, 0]


def ignored(house: House) -> list[tuple[str, str]]:
    return [(fact.name, fact.reason) for fact in house.facts if isinstance(fact, MessageIgnored)]


async def test_what_an_ended_instance_leaves_is_its_key(house: House, storage: SqlStorage) -> None:
    await over(house, storage, *(f"o-{number}" for number in range(5)))
    await removed(house, storage)
    assert await counted(storage, "saga_key", "attention", "timer") == [5, 0, 0]
    amounts = {fact.kind: fact.amount for fact in house.facts if isinstance(fact, RowsRemoved)}
    assert amounts == {"sagas": 5, "inbox": 10}


@pytest.mark.parametrize("direct", [False, True], ids=["over the exchange", "straight to the queue"])
async def test_every_message_of_a_removed_instance_comes_again_without_effect(
    house: House, storage: SqlStorage, direct: bool
) -> None:
    start, reply = await over(house, storage, "o-1")
    if direct:
        reply = replace(reply, routing_key=saga_queue(NAMESPACE, house.definition.type))
    await removed(house, storage)
    house.facts.clear()
    for message in (reply, start):
        await house.take(message)
    assert ignored(house) == [
        ("stock.OutOfStock", "unknown_instance"),
        ("ordering.OrderPlaced", "duplicate_start"),
    ]
    assert await counted(storage, "saga", "saga_event", "held", "dead_letter", "timer") == [0, 0, 0, 0, 0]
    assert await outbox(storage) == []


async def test_a_late_reply_that_only_names_the_key_of_a_removed_instance_is_ignored(
    house: House, storage: SqlStorage
) -> None:
    await over(house, storage, "o-1")
    await removed(house, storage)
    house.facts.clear()
    await house.take(house.message(StockReserved(order_id="o-1", reservation_id="r-1")))
    assert ignored(house) == [("stock.StockReserved", "unknown_instance")]
    assert await counted(storage, "saga", "held") == [0, 0]


async def test_a_start_with_another_body_for_a_removed_instance_differs(house: House, storage: SqlStorage) -> None:
    await over(house, storage, "o-1")
    await removed(house, storage)
    house.facts.clear()
    await house.take(house.message(placed("o-1", customer_id="c-2")))
    assert ignored(house) == [("ordering.OrderPlaced", "duplicate_start_differs")]
    assert await counted(storage, "saga") == [0]


async def test_what_an_instance_that_lives_has_answered_stays_decided_when_the_inbox_has_forgotten_it(
    house: House, storage: SqlStorage
) -> None:
    taken = [house.message(placed()), house.answer("o-1", StockReserved(order_id="o-1", reservation_id="r"), "reserve")]
    await house.take(*taken)
    before = await outbox(storage)
    async with running(retention(house, storage)):
        await until_async(lambda: _forgotten(storage), what="the inbox to be empty")
    await house.take(*taken)
    assert await outbox(storage) == before
    assert await counted(storage, "saga") == [1]
    assert await dead(storage) == []


async def _forgotten(storage: SqlStorage) -> bool:
    return await counted(storage, "inbox") == [0]


async def test_several_side_by_side_remove_everything_once(house: House, storage: SqlStorage) -> None:
    await over(house, storage, *(f"o-{number}" for number in range(30)))
    async with running(*(retention(house, storage) for _ in range(4))):
        await until_async(lambda: _empty(storage), what="retention to remove everything")
    amounts = [fact for fact in house.facts if isinstance(fact, RowsRemoved)]
    assert sum(fact.amount for fact in amounts if fact.kind == "sagas") == 30
    assert sum(fact.amount for fact in amounts if fact.kind == "inbox") == 60
    assert not [fact for fact in house.facts if isinstance(fact, LoopTroubled)]


class Watched(Expiry):
    """Says which kinds it was asked for, and fails at first."""

    def __init__(self, storage: SqlStorage, troubles: int = 0) -> None:
        super().__init__(storage.database)
        self.asked: list[str] = []
        self.troubles = troubles

    async def sagas(self, age: float, begin: Place | None = None) -> Step:
        self.asked.append("sagas")
        if self.troubles:
            self.troubles -= 1
            raise DatabaseAway("gone")
        return await super().sagas(age, begin)

    async def inbox(self, age: float, _: Place | None = None) -> Step:
        self.asked.append("inbox")
        return await super().inbox(age)


async def test_what_is_kept_for_ever_is_not_even_looked_at(house: House, storage: SqlStorage) -> None:
    watched = Watched(storage)
    async with running(retention(house, storage, expiry=watched, sagas=NEVER)):
        await until_async(lambda: watched.asked.count("inbox") > 2, what="three rounds")
    assert set(watched.asked) == {"inbox"}


async def test_trouble_with_one_kind_keeps_no_other_from_being_removed(house: House, storage: SqlStorage) -> None:
    await over(house, storage, "o-1")
    async with running(retention(house, storage, expiry=Watched(storage, troubles=1_000_000))):
        await until_async(lambda: _forgotten(storage), what="the inbox to be empty")
    assert await counted(storage, "saga") == [1]


async def test_trouble_is_told_and_the_next_round_goes_on(house: House, storage: SqlStorage) -> None:
    await over(house, storage, "o-1")
    watched = Watched(storage, troubles=2)
    async with running(retention(house, storage, expiry=watched)):
        await until_async(lambda: _empty(storage), what="retention to remove everything")
    assert [fact.loop for fact in house.facts if isinstance(fact, LoopTroubled)] == ["retention", "retention"]


async def test_a_stop_does_not_wait_for_the_next_round(house: House, storage: SqlStorage) -> None:
    watched = Watched(storage)
    async with asyncio.timeout(60), running(retention(house, storage, expiry=watched, every=3600)):
        await until_async(lambda: "inbox" in watched.asked, what="the first round")
