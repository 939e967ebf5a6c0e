"""A message older than the inbox's memory is applied only where something else than the inbox tells it from a copy."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, timedelta
from typing import TYPE_CHECKING

import pytest

from messages.catalog.ordering import OutOfStock, StockReserved
from sagas import definition_of
from sagas.catalog.ordering import PlaceOrder
from tests.handlers.house import WINDOW, House, dead, kinds, placed, rows

if TYPE_CHECKING:
    from datetime import datetime

    from messages.envelope import Raw
    from outbox.unit import SqlStorage

RESERVED = StockReserved(order_id="o-1", reservation_id="r-1")
HOUR = timedelta(hours=1)


@pytest.fixture
async def house(storage: SqlStorage) -> House:
    return await House(storage).open()


def sent(house: House, age: timedelta) -> datetime:
    """A timestamp, whole seconds as on the wire."""
    return (house.runner.now() - age).replace(microsecond=0)


def unaddressed(house: House, age: timedelta) -> Raw:
    """A reply that says which instance it is for, and not which command it answers."""
    return house.message(RESERVED, correlation_id=str(house.id_of("o-1")), timestamp=sent(house, age))


async def reserved(house: House, storage: SqlStorage) -> bool:
    return "step_completed" in await kinds(storage, house.id_of("o-1"))


async def test_a_reply_that_names_no_command_is_too_old_when_the_inbox_may_have_forgotten_it(
    house: House, storage: SqlStorage
) -> None:
    await house.take(house.message(placed()))
    late = unaddressed(house, WINDOW + HOUR)
    await house.take(late)
    assert not await reserved(house, storage)
    assert await dead(storage) == [(late.message_id, "too_old")]
    [letter] = await rows(storage, "select error from v_dead_letter")
    assert letter.error.startswith("it was sent 8.0 days ago, and ids are remembered for 8 ")
    [row] = await rows(storage, "select disposition from v_inbox where message_id = :id", {"id": late.message_id})
    assert row.disposition == "dead_lettered"


async def test_within_the_window_it_is_applied(house: House, storage: SqlStorage) -> None:
    await house.take(house.message(placed()))
    await house.take(unaddressed(house, WINDOW - HOUR))
    assert await reserved(house, storage)
    assert await dead(storage) == []


async def test_one_that_says_nothing_of_its_age_is_applied(house: House, storage: SqlStorage) -> None:
    await house.take(house.message(placed()))
    await house.take(replace(unaddressed(house, WINDOW), timestamp=None))
    assert await reserved(house, storage)


async def test_a_timestamp_without_a_zone_is_read_as_utc(house: House, storage: SqlStorage) -> None:
    await house.take(house.message(placed()))
    late = unaddressed(house, WINDOW + HOUR)
    assert late.timestamp is not None
    await house.take(replace(late, timestamp=late.timestamp.astimezone(UTC).replace(tzinfo=None)))
    assert await dead(storage) == [(late.message_id, "too_old")]


async def test_whatever_its_age_a_reply_is_decided_by_the_command_that_it_names(
    house: House, storage: SqlStorage
) -> None:
    await house.take(house.message(placed()))
    await house.take(replace(house.answer("o-1", RESERVED, "reserve"), timestamp=sent(house, 10 * WINDOW)))
    assert await reserved(house, storage)
    assert await dead(storage) == []


async def test_whatever_its_age_a_start_is_decided_by_its_key(house: House, storage: SqlStorage) -> None:
    ancient = sent(house, 10 * WINDOW)
    await house.take(house.message(placed(), timestamp=ancient))
    await house.take(house.message(placed(), timestamp=ancient))
    assert (await kinds(storage, house.id_of("o-1"))).count("started") == 1
    assert await dead(storage) == []


async def test_a_key_that_may_be_used_again_decides_nothing(storage: SqlStorage) -> None:
    house = await House(storage, replace(definition_of(PlaceOrder), key_reuse=True)).open()
    await house.take(house.message(placed()), house.answer("o-1", OutOfStock(order_id="o-1"), "reserve"))
    late = house.message(placed(), timestamp=sent(house, WINDOW + HOUR))
    await house.take(late)
    assert await dead(storage) == [(late.message_id, "too_old")]
    fresh = house.message(placed("o-2"), timestamp=sent(house, WINDOW + HOUR))
    await house.take(fresh)
    keys = await rows(storage, "select key, n from saga_key")
    assert [(row.key, row.n) for row in keys] == [("o-1", 1)], "a key that was claimed for it is given back"


async def test_what_is_wrong_with_a_message_counts_more_than_its_age(house: House, storage: SqlStorage) -> None:
    await house.take(house.message(placed()), house.message(placed("o-2")))
    torn = replace(unaddressed(house, WINDOW + HOUR), correlation_id=str(house.id_of("o-2")))
    await house.take(torn)
    assert await dead(storage) == [(torn.message_id, "correlation_conflict")]
