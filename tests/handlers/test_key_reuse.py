"""A business key whose saga has ended may start another one, where the class allows it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from messages.catalog.ordering import OutOfStock, StockReserved
from messages.errors import DatabaseBusy
from sagas import definition_of
from sagas.catalog.ordering import PlaceOrder
from sagas.instance import message_id, saga_id
from storage.statements import Statement
from tests.handlers.house import NAMESPACE, House, dead, outbox, placed, rows

if TYPE_CHECKING:
    from messages.envelope import Raw
    from outbox.unit import SqlStorage

REUSING = replace(definition_of(PlaceOrder), key_reuse=True)
REFUSED = OutOfStock(order_id="o-1")


async def reusing(storage: SqlStorage) -> House:
    return await House(storage, REUSING).open()


@pytest.fixture
async def house(storage: SqlStorage) -> House:
    return await reusing(storage)


def ended(house: House) -> tuple[Raw, Raw]:
    """A saga that ends at once."""
    return house.message(placed()), house.answer("o-1", REFUSED, "reserve")


async def found(storage: SqlStorage) -> list[tuple[int, str]]:
    """The instances: (n, phase)."""
    return [(row.n, row.phase) for row in await rows(storage, "select n, phase from saga order by n")]


async def test_a_further_saga_starts_after_the_end(house: House, storage: SqlStorage) -> None:
    await house.take(*ended(house))
    await house.take(house.message(placed()))
    assert await found(storage) == [(1, "compensated"), (2, "running")]
    second = saga_id(NAMESPACE, "PlaceOrder", "o-1", 2)
    commands = {row.message_id for row in await rows(storage, "select message_id from v_outbox")}
    assert message_id(second, "reserve", 1, 1, "do") in commands


async def test_none_starts_before_the_end(house: House, storage: SqlStorage) -> None:
    await house.take(house.message(placed()))
    await house.take(house.message(placed()), house.message(placed()))
    assert await found(storage) == [(1, "running")]


async def test_an_end_and_two_starts_in_one_batch_make_one_further_saga(house: House, storage: SqlStorage) -> None:
    await house.take(*ended(house), house.message(placed()), house.message(placed()))
    assert await found(storage) == [(1, "compensated"), (2, "running")]
    ignored = await rows(storage, "select saga_id from v_saga_event where kind = 'message_ignored'")
    assert [str(row.saga_id) for row in ignored] == [str(saga_id(NAMESPACE, "PlaceOrder", "o-1", 2))]


async def test_a_copy_of_the_first_start_starts_nothing(house: House, storage: SqlStorage) -> None:
    first, refusal = ended(house)
    await house.take(first, refusal)
    await house.take(first)
    assert await found(storage) == [(1, "compensated")]


async def test_a_copy_starts_nothing_even_when_the_inbox_has_forgotten_it(house: House, storage: SqlStorage) -> None:
    first, refusal = ended(house)
    await house.take(first, refusal)
    async with storage.database.write() as session:
        await session.fetch(Statement.both("delete from inbox"), {})
    await house.take(first)
    assert await found(storage) == [(1, "compensated")]


async def test_a_reply_finds_the_further_saga_by_key_and_command(house: House, storage: SqlStorage) -> None:
    await house.take(*ended(house))
    await house.take(house.message(placed()))
    second = saga_id(NAMESPACE, "PlaceOrder", "o-1", 2)
    reply = house.message(
        StockReserved(order_id="o-1", reservation_id="r-2"),
        headers={"causation-id": message_id(second, "reserve", 1, 1, "do")},
    )
    await house.take(reply)
    assert ("payment.MakePayment", "claimed") in await outbox(storage)
    assert not await dead(storage)


async def test_a_class_that_does_not_allow_it_starts_once(storage: SqlStorage) -> None:
    house = await House(storage).open()
    await house.take(*ended(house))
    await house.take(house.message(placed()))
    assert await found(storage) == [(1, "compensated")]


async def test_a_hundred_starts_after_the_end_make_one_further_saga(house: House, storage: SqlStorage) -> None:
    await house.take(*ended(house))
    others = [await reusing(storage) for _ in range(3)]
    starts = [house.message(placed()) for _ in range(100)]
    batches = [starts[n : n + 10] for n in range(0, 100, 10)]
    results = await asyncio.gather(
        *(each.take(*batch, wait=True) for batch, each in zip(batches, [house, *others] * 3, strict=False)),
        return_exceptions=True,
    )
    for batch, result in zip(batches, results, strict=True):
        if isinstance(result, DatabaseBusy):  # it lost the race, and runs again
            await house.take(*batch, wait=True)
        else:
            assert not isinstance(result, BaseException)
    assert await found(storage) == [(1, "compensated"), (2, "running")]
