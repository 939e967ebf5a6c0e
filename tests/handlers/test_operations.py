"""What operators do goes the way of every message: under the instance's lock, once per request, with who and why."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from handlers.operations import Operation, Operations
from messages.catalog.ordering import OutOfStock, PaymentGatewayBusy, StockReserved
from messages.errors import OperationRefused
from sagas.outcome import Action, Operated
from sagas.patch import rebuild
from tests.handlers.house import LIMITS, NAMESPACE, House, kinds, outbox, placed, rows
from tests.handlers.lossy import Lossy

if TYPE_CHECKING:
    from typing import Literal

    from outbox.interface import Storage
    from outbox.unit import SqlStorage

RESERVED = StockReserved(order_id="o-1", reservation_id="r-1")


@pytest.fixture
async def house(storage: SqlStorage) -> House:
    house = await House(storage).open()
    await house.take(house.message(placed()))
    return house


def operations(house: House, storage: Storage | None = None) -> Operations:
    return Operations(
        {house.definition.type: {house.definition.version: house.definition}},
        namespace=NAMESPACE,
        storage=storage or house.storage,
        runner=house.runner,
        report=house.facts.append,
        limits=LIMITS,
    )


def wanted(house: House, action: Action, *, request_id: str = "", revision: int | None = None) -> Operation:
    operated = Operated(
        action=action, actor="ann", reason="the customer called", request_id=request_id or str(uuid4()), step=None
    )
    return Operation(saga_id=house.id_of("o-1"), operated=operated, revision=revision)


async def test_an_action_stands_in_the_history_with_who_and_why(house: House, storage: SqlStorage) -> None:
    await operations(house).carry_out(wanted(house, Action.CANCEL, request_id="r-1"))
    [row] = await rows(storage, "select cast(detail as text) as detail from v_saga_event where kind = 'operator_acted'")
    for word in ("ann", "the customer called", "r-1", "cancel"):
        assert word in row.detail


async def test_what_it_sends_waits_in_the_outbox_for_a_relay(house: House, storage: SqlStorage) -> None:
    busy = PaymentGatewayBusy(order_id="o-1")
    await house.take(house.answer("o-1", RESERVED, "reserve"), house.answer("o-1", busy, "pay"))
    await operations(house).carry_out(wanted(house, Action.CANCEL))
    assert ("stock.ReleaseStock", "new") in await outbox(storage)
    assert (await house.instance("o-1")).phase == "compensating"


async def test_the_same_request_twice_is_done_once(house: House, storage: SqlStorage) -> None:
    request = wanted(house, Action.RETRY, request_id="r-1")
    first = await operations(house).carry_out(request)
    second = await operations(house).carry_out(request)
    assert (first.repeated, second.repeated) == (False, True)
    assert (await kinds(storage, house.id_of("o-1"))).count("command_resent") == 1


async def test_fifty_at_once_under_one_request_id_are_one(house: House, storage: SqlStorage) -> None:
    request = wanted(house, Action.RETRY, request_id="r-1")
    done = [operations(house).carry_out(request) for _ in range(50)]
    outcomes = await asyncio.gather(*done)
    assert [outcome.repeated for outcome in outcomes].count(False) == 1
    assert (await kinds(storage, house.id_of("o-1"))).count("command_resent") == 1


async def test_a_request_id_used_for_something_else_is_refused(house: House) -> None:
    await operations(house).carry_out(wanted(house, Action.RETRY, request_id="r-1"))
    with pytest.raises(OperationRefused, match="request id r-1 was used for something else"):
        await operations(house).carry_out(wanted(house, Action.CANCEL, request_id="r-1"))
    assert (await house.instance("o-1")).phase == "running"


@pytest.mark.parametrize("when", ["after", "instead"])
async def test_a_commit_that_nobody_knows_about_is_asked_for_again(
    house: House, storage: SqlStorage, when: Literal["after", "instead"]
) -> None:
    lossy = Lossy(storage)
    lossy.lose(when)
    outcome = await operations(house, lossy).carry_out(wanted(house, Action.RETRY))
    assert (lossy.lost, outcome.repeated) == (1, False)
    assert (await kinds(storage, house.id_of("o-1"))).count("command_resent") == 1


async def test_an_action_decided_on_another_revision_is_refused(house: House, storage: SqlStorage) -> None:
    revision = (await house.instance("o-1")).revision
    await house.take(house.answer("o-1", RESERVED, "reserve"))
    with pytest.raises(OperationRefused, match=rf"at revision {revision + 1}, not {revision}: something has happened"):
        await operations(house).carry_out(wanted(house, Action.CANCEL, revision=revision))
    assert "operator_acted" not in await kinds(storage, house.id_of("o-1"))


async def test_what_is_refused_leaves_the_request_id_free(house: House, storage: SqlStorage) -> None:
    with pytest.raises(OperationRefused, match="it is not paused"):
        await operations(house).carry_out(wanted(house, Action.RESUME, request_id="r-1"))
    assert not await rows(storage, "select * from v_inbox where consumer = 'operator'")
    assert not (await operations(house).carry_out(wanted(house, Action.RETRY, request_id="r-1"))).repeated


async def test_an_unknown_instance_or_version_is_named(house: House) -> None:
    nobody = replace(wanted(house, Action.CANCEL), saga_id=UUID(int=7))
    with pytest.raises(OperationRefused, match=r"no instance has the id 00000000-.*antiphon sagas list"):
        await operations(house).carry_out(nobody)
    house.definition = replace(house.definition, version=2)
    with pytest.raises(OperationRefused, match="PlaceOrder version 1 is not known here; run this where its code is"):
        await operations(house).carry_out(wanted(house, Action.CANCEL))


async def test_a_cancel_that_races_a_reply_comes_to_one_of_two_orders(house: House, storage: SqlStorage) -> None:
    failed = house.answer("o-1", OutOfStock(order_id="o-1"), "reserve")
    await asyncio.gather(
        house.take(failed, wait=True),
        operations(house).carry_out(wanted(house, Action.CANCEL)),
        return_exceptions=True,
    )
    instance = await house.instance("o-1")
    assert instance.phase == "compensated"
    assert instance.end_reason in ("failed", "cancelled")
    started = (await kinds(storage, house.id_of("o-1"))).count("compensation_started")
    assert started == 1


def on_timer(house: House, action: Action, timer: str, **more: object) -> Operation:
    operation = wanted(house, action)
    return replace(operation, operated=replace(operation.operated, timer=timer, **more))  # type: ignore[arg-type]


async def timers(storage: SqlStorage) -> dict[str, str]:
    return {row.name: str(row.due_at) for row in await rows(storage, "select name, due_at from v_timer")}


async def test_a_timer_that_is_moved_is_another_row_and_a_deadline_another_column(
    house: House, storage: SqlStorage
) -> None:
    before = await timers(storage)
    moved = on_timer(house, Action.RESCHEDULE_TIMER, "deadline", due=timedelta(days=90))
    outcome = await operations(house).carry_out(moved)
    after = await timers(storage)
    assert {name for name, due_at in before.items() if after[name] != due_at} == {"deadline"}
    stored = await house.instance("o-1")
    assert stored.deadline_at == stored.timers["deadline"].due_at == outcome.instance.deadline_at
    history = await rows(storage, "select patch from saga_event where patch is not null order by seq")
    assert rebuild(bytes(row.patch) for row in history).deadline_at == stored.deadline_at


async def test_a_command_that_has_not_left_the_outbox_is_not_sent_again(house: House, storage: SqlStorage) -> None:
    before = await kinds(storage, house.id_of("o-1"))
    with pytest.raises(OperationRefused, match="the command is still in the outbox"):
        await operations(house).carry_out(on_timer(house, Action.FIRE_TIMER, "reserve/do"))
    assert await kinds(storage, house.id_of("o-1")) == before
    async with storage.database.write() as session:
        await session.connection.execute(text("delete from outbox"))  # the broker has it
    await operations(house).carry_out(on_timer(house, Action.FIRE_TIMER, "reserve/do"))
    assert (await kinds(storage, house.id_of("o-1")))[len(before) :] == ["operator_acted", "command_resent"]


async def test_a_request_on_another_timer_is_another_request(house: House) -> None:
    first = on_timer(house, Action.RESCHEDULE_TIMER, "deadline", due=timedelta(days=90))
    await operations(house).carry_out(first)
    assert (await operations(house).carry_out(first)).repeated
    for changes in ({"timer": "reserve/do"}, {"due": timedelta(days=91)}):
        other = replace(first, operated=replace(first.operated, **changes))
        with pytest.raises(OperationRefused, match="was used for something else"):
            await operations(house).carry_out(other)
