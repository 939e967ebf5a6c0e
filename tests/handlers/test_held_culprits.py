"""A held message that fails, or kills the process that applies it, harms no other and ends as a dead letter."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from handlers.suspects import MOST_NOTES, Suspects, accused_held, accused_resume, held_crowd
from messages.catalog.ordering import PaymentCompleted, StockReserved
from outbox.unit import SqlStorage
from sagas.outcome import Action
from storage.statements import Statement
from tests.handlers.house import House, dead, kinds, placed, rows
from tests.handlers.test_aside import FastRunner, Ward, poisoned, suspects
from tests.handlers.test_held import direct, held, newer, operate, sweep_of
from tests.handlers.test_timers import Counted
from tests.services.waiting import until_async

if TYPE_CHECKING:
    from messages.envelope import Raw
    from outbox.holding import Held
    from storage import Database

RESERVED = "stock.StockReserved"


def reserved(house: House, key: str, message_id: str = "") -> Raw:
    answer = house.answer(key, StockReserved(order_id=key, reservation_id="r"), "reserve")
    return replace(answer, message_id=message_id or f"reserved-{key}")


async def waiting(storage: SqlStorage, *keys: str, poison: str = "") -> House:
    """A process of the second version, for whose orders replies are held since one of the first took them."""
    house, old = await House(storage, newer(2)).open(), await House(storage).open()
    await house.take(*(house.message(placed(key)) for key in keys))
    for key in keys:
        await old.take(reserved(old, key, "poison" if key == poison else ""))
    return house


async def died_of(storage: SqlStorage, house: House, *, lives: int, row: Held | None = None) -> None:
    """Processes applied what is held, or this one of it alone, and were not heard of again; a minute ago."""
    for _ in range(lives):
        life = Suspects(storage, house.runner)
        await life.note(held_crowd("PlaceOrder") if row is None else accused_held(row))
    async with storage.database.write() as session:
        past = {"past": house.runner.now() - timedelta(minutes=1)}
        await session.fetch(Statement.both("update suspect set noted_at = :past"), past)


async def row_of(storage: SqlStorage, house: House, message_id: str) -> Held:
    async with storage.transaction() as unit:
        found = await unit.held_for("PlaceOrder", [house.id_of(f"o-{n}") for n in range(9)])
    return next(row for row in found if row.message_id == message_id)


async def done(storage: SqlStorage) -> list[str]:
    found = await rows(
        storage,
        "select s.business_key from v_saga_event e join v_saga s on s.saga_id = e.saga_id "
        "where e.kind = 'reply_received' and e.message_name = 'stock.StockReserved' order by 1",
    )
    return [row.business_key for row in found]


async def test_what_is_held_is_applied_together_and_leaves_no_note(storage: SqlStorage) -> None:
    counted = Counted(storage)
    house = await waiting(storage, *(f"o-{n}" for n in range(9)))
    house.storage = counted
    await sweep_of(house).sweep()
    assert len(await done(storage)) == 9
    assert counted.transactions == 1
    assert await suspects(storage) == []


async def test_where_a_process_died_they_are_met_one_by_one_and_the_killer_is_buried(storage: SqlStorage) -> None:
    house = await waiting(storage, "o-1", "o-2", "o-3")
    killer = await row_of(storage, house, "reserved-o-2")
    await died_of(storage, house, lives=1)
    await died_of(storage, house, lives=MOST_NOTES, row=killer)
    await sweep_of(house).sweep()
    assert await done(storage) == ["o-1", "o-3"]
    assert await dead(storage) == [("reserved-o-2", "killed_process")]
    assert await held(storage) == []
    assert await suspects(storage) == []
    [row] = await rows(storage, "select disposition from v_inbox where message_id = 'reserved-o-2'")
    assert row.disposition == "dead_lettered"


async def test_one_of_which_fewer_processes_died_passes_if_it_is_innocent(storage: SqlStorage) -> None:
    house = await waiting(storage, "o-1", "o-2")
    await died_of(storage, house, lives=MOST_NOTES - 1, row=await row_of(storage, house, "reserved-o-1"))
    await sweep_of(house).sweep()
    assert await done(storage) == ["o-1", "o-2"]
    assert await suspects(storage) == []


async def test_what_another_process_is_at_is_left_to_it_for_a_moment(storage: SqlStorage) -> None:
    house = await waiting(storage, "o-1")
    other = Suspects(storage, house.runner)
    await other.note(held_crowd("PlaceOrder"))
    await sweep_of(house).sweep()
    assert await done(storage) == []
    await other.acquit(held_crowd("PlaceOrder"))
    await sweep_of(house).sweep()
    assert await done(storage) == ["o-1"]


async def test_nothing_overtakes_a_suspect_of_its_own_instance(storage: SqlStorage) -> None:
    house = await waiting(storage, "o-1", "o-2")
    old = await House(storage).open()
    paid = old.answer("o-1", PaymentCompleted(order_id="o-1", payment_id="p"), "pay")
    await old.take(paid)
    await died_of(storage, house, lives=1, row=await row_of(storage, house, "reserved-o-1"))
    await sweep_of(house).sweep()
    told = [kind for kind in await kinds(storage, house.id_of("o-1")) if kind != "message_held"]
    assert told.count("step_completed") == 2
    assert "message_ignored" not in told


async def test_one_on_which_every_transaction_times_out_delays_no_other_and_is_given_up_after_a_minute(
    postgresql: Database,
) -> None:
    storage = SqlStorage(postgresql)
    house = await waiting(storage, "o-1", "o-2", "o-3", poison="o-1")
    house.runner = FastRunner()

    async def others() -> bool:
        return await done(storage) == ["o-2", "o-3"]

    async with poisoned(postgresql, "57014"):
        sweep = sweep_of(house)
        loop = asyncio.create_task(sweep.run())
        await until_async(others, what="the others")
        await until_async(lambda: dead(storage), what="a dead letter")
        sweep.stop()
        await asyncio.wait_for(loop, 30)
    assert await dead(storage) == [("poison", "unprocessable")]
    assert await held(storage) == []


@pytest.mark.parametrize("state", ["22000", "57014"])
async def test_a_resume_is_done_without_what_cannot_be_applied(postgresql: Database, state: str) -> None:
    storage = SqlStorage(postgresql)
    house = await House(storage).open()
    await house.take(house.message(placed()))
    await operate(house, Action.PAUSE)
    await house.take(reserved(house, "o-1", "poison"))
    async with poisoned(postgresql, state):
        house.runner = FastRunner()
        outcome = await operate(house, Action.RESUME)
        assert not outcome.instance.paused
        assert await held(storage) == [(RESERVED, "paused")]
        assert await suspects(storage) == []
        if state == "22000":
            await sweep_of(house).sweep()
            assert await dead(storage) == [("poison", "unprocessable")]


async def test_a_resume_that_killed_its_process_is_done_without_what_is_held(storage: SqlStorage) -> None:
    house = await House(storage).open()
    await house.take(house.message(placed()))
    await operate(house, Action.PAUSE)
    await house.take(reserved(house, "o-1"))
    await Suspects(storage, house.runner).note(accused_resume(house.id_of("o-1")))
    assert not (await operate(house, Action.RESUME)).instance.paused
    assert await held(storage) == [(RESERVED, "paused")]
    assert await suspects(storage) == []
    await sweep_of(house).sweep()
    assert await done(storage) == ["o-1"]


@pytest.mark.parametrize("state", ["22000", "57014"])
async def test_a_birth_is_done_without_what_cannot_be_applied(postgresql: Database, state: str) -> None:
    storage = SqlStorage(postgresql)
    house = await Ward(storage).open()
    await house.take(direct(reserved(house, "o-1", "poison")))
    async with poisoned(postgresql, state), house.consuming(batch=10):
        await house.send(house.place("o-1"))
        await house.until(lambda: house.started == ["o-1"])
    assert await dead(storage) == []
    assert await held(storage) == [(RESERVED, "early")]


async def test_a_start_that_may_have_killed_its_process_is_met_without_what_is_held_for_it(
    storage: SqlStorage,
) -> None:
    house = await Ward(storage).open()
    await house.take(direct(reserved(house, "o-1")))
    async with house.consuming(batch=10):
        await house.send_again(house.place("o-1"))
        await house.until(lambda: house.started == ["o-1"])
    assert await held(storage) == [(RESERVED, "early")]
    await sweep_of(house).sweep()
    assert await done(storage) == ["o-1"]
