"""A list that is worked off item by item, over each database: what rests beside the instance, and what comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sagas import definition_of, each
from sagas.instance import pack_progress
from storage.retention import CHILDREN
from storage.statements import Statement
from tests.handlers.house import House, dead, kinds, rows
from tests.sagas.test_each import (
    Base,
    Billed,
    Line,
    NotBilled,
    Order,
    Ordered,
    OutOf,
    Release,
    Released,
    Reserve,
    Reserved,
    Tolerant,
)

if TYPE_CHECKING:
    from outbox.unit import SqlStorage
    from sagas.instance import Instance

ITEMS = 250


@pytest.fixture
async def house(storage: SqlStorage) -> House:
    return await House(storage, definition_of(Order)).open()


async def begin(house: House, items: int = ITEMS) -> None:
    lines = [Line(sku=f"s{number}") for number in range(items)]
    await house.take(house.message(Ordered(key="k", lines=lines)))


async def answer(house: House, kind: type[Reserved] | type[OutOf] = Reserved) -> Instance:
    """Answer everything that is under way, in one batch."""
    under_way = [path for path in (await house.instance("k")).steps if path.startswith("reserve[")]
    await house.take(*(house.answer("k", kind(sku=f"s{path[8:-1]}"), path) for path in under_way))
    return await house.instance("k")


async def test_a_long_list_is_worked_off_and_the_row_stays_small(house: House, storage: SqlStorage) -> None:
    await begin(house)
    assert len(await rows(storage, "select * from saga_item")) == ITEMS
    while "bill" not in (after := await answer(house)).steps:
        assert len(after.steps) <= 3
        assert len(pack_progress(after)) < 800
    assert b'"reserved":250' in after.state
    assert b"s17" not in after.state
    assert len(await rows(storage, "select * from saga_item_step where owed is not null")) == ITEMS
    await house.take(house.answer("k", Billed(), "bill"))
    assert (await house.instance("k")).phase == "completed"
    assert await dead(storage) == []


async def test_what_was_done_is_fetched_back_and_undone(house: House, storage: SqlStorage) -> None:
    await begin(house)
    while "bill" not in (after := await answer(house)).steps:
        pass
    await house.take(house.answer("k", NotBilled(), "bill"))
    undone = 0
    while not (after := await house.instance("k")).phase.ended:
        being_undone = [path for path, step in after.steps.items() if step.undo is not None and step.undo.status.open]
        assert 0 < len(being_undone) <= 3
        await house.take(*(house.answer("k", Released(), path, "undo") for path in being_undone))
        undone += len(being_undone)
    assert (undone, after.phase) == (ITEMS, "compensated")
    told = await kinds(storage, after.saga_id)
    assert told.count("step_compensated") == ITEMS
    assert not await rows(storage, "select * from saga_item_step where owed is not null")


async def test_items_that_fail_within_one_batch_with_others(storage: SqlStorage) -> None:
    house = await House(storage, definition_of(Tolerant)).open()
    await begin(house, 6)
    await house.take(
        house.answer("k", Reserved(sku="s0"), "reserve[0]"),
        house.answer("k", OutOf(sku="s1"), "reserve[1]"),
        house.answer("k", Reserved(sku="s2"), "reserve[2]"),
        house.answer("k", OutOf(sku="s3"), "reserve[3]"),
    )
    after = await house.instance("k")
    assert list(after.steps) == ["reserve[4]", "reserve[5]"]
    await house.take(house.answer("k", OutOf(sku="s4"), "reserve[4]"), house.answer("k", OutOf(sku="s5"), "reserve[5]"))
    after = await house.instance("k")
    assert after.phase == "compensating"
    assert set(after.steps) == {"reserve[0]", "reserve[2]"}


async def test_a_timer_of_an_item_fires_and_an_item_that_is_not_there_parks_the_saga(
    house: House, storage: SqlStorage
) -> None:
    await begin(house, 4)
    async with storage.database.write() as session:
        await session.fetch(Statement.both("delete from saga_item"), {})
    await answer(house)
    after = await house.instance("k")
    assert "cannot go on" in after.attention["method_raised"]


def test_the_lists_go_with_their_instance() -> None:
    assert {"saga_item", "saga_item_step"} <= set(CHILDREN)


async def test_items_that_ended_in_another_order_while_it_stood_still(storage: SqlStorage) -> None:
    class Raising(Base, key="key", version=1):
        @each("lines", at_once=3, tolerate=1)
        def reserve(self, line: Line) -> Reserve:
            return Reserve(sku=line.sku)

        @reserve.on_success
        def got(self, reply: Reserved, line: Line) -> None: ...

        @reserve.on_failure
        def out(self, reply: OutOf, line: Line) -> None:
            if reply.sku == "unheard of":
                raise ValueError(reply.sku)

        @reserve.compensation(success=Released)
        def release(self, line: Line) -> Release:
            return Release(sku=line.sku)

        flow = reserve >> Base.bill

    house = await House(storage, definition_of(Raising)).open()
    await begin(house, 12)
    await house.take(house.answer("k", OutOf(sku="unheard of"), "reserve[2]"))
    await house.take(*(house.answer("k", Reserved(sku="s"), f"reserve[{item}]") for item in (1, 0)))
    await house.take(*(house.answer("k", OutOf(sku="s"), f"reserve[{item}]") for item in (2, 3)))
    undone = []
    while not (after := await house.instance("k")).phase.ended:
        assert not after.attention
        for path, step in after.steps.items():
            if step.do.status.open:
                await house.take(house.answer("k", Reserved(sku="s"), path))
            elif step.undo is not None and step.undo.status.open:
                undone.append(path)
                await house.take(house.answer("k", Released(), path, "undo"))
    assert {"reserve[0]", "reserve[1]"} <= set(undone)
    assert not await rows(storage, "select * from saga_item_step where owed is not null")
