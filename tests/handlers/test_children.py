"""A saga that starts another one: its end is an answer, and turning back cancels it, in whatever order they arrive."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from handlers.held import HeldMessages
from handlers.operations import Operation, Operations
from handlers.saga_types import SagaType
from messages import CancelSaga
from sagas import definition_of
from sagas.outcome import Action, Operated
from storage import definitions
from tests.handlers.family import (
    Declined,
    Delivered,
    Delivery,
    DeliveryRequested,
    Driven,
    Family,
    FetchedBack,
    Order,
    Packed,
    Stuck,
    Torn,
    Unpacked,
    names,
)
from tests.handlers.house import LIMITS, NAMESPACE, dead, kinds, rows
from transport.topology import saga_queue

if TYPE_CHECKING:
    from uuid import UUID

    from outbox.unit import SqlStorage

RUNNING, COMPENSATING, COMPLETED = ("running", None), ("compensating", "cancelled"), ("completed", None)
CANCELLED = ("compensated", "cancelled")


@pytest.fixture
def family(storage: SqlStorage) -> Family:
    return Family(storage)


async def delivering(family: Family) -> None:
    """An order whose delivery is packed and on its way."""
    await family.begin()
    await family.carry()


async def packed(family: Family) -> None:
    await family.delivery.take(family.delivery.answer("d-1", Packed(id="d-1"), "pack"))


async def driven(family: Family) -> None:
    await family.delivery.take(family.delivery.answer("d-1", Driven(id="d-1"), "drive"))


async def delivered(family: Family) -> None:
    """An order whose delivery has completed, and knows it."""
    await delivering(family)
    await packed(family)
    await driven(family)
    await family.carry()


async def test_the_start_goes_straight_to_the_queue_of_the_child_and_says_where_to_answer(family: Family) -> None:
    await family.begin()
    [sent] = await family.leave()
    assert sent.type == DeliveryRequested.message_name
    assert sent.routing_key == saga_queue(NAMESPACE, Delivery._definition.type)  # type: ignore[union-attr]
    assert sent.reply_to == saga_queue(NAMESPACE, Order._definition.type)  # type: ignore[union-attr]
    assert sent.correlation_id == str(family.order.id_of("1"))
    assert sent.message_id == family.order.command_id("1", "deliver")
    assert sent.headers["idempotency-key"] == f"{family.order.id_of('1')}/deliver/1/do"


async def test_parents_find_their_children_and_back(family: Family, storage: SqlStorage) -> None:
    await delivering(family)
    parent, child = family.order.id_of("1"), family.delivery.id_of("d-1")
    [row] = await rows(storage, "select saga_id, parent_id from v_saga where parent_id is not null")
    assert (str(row.saga_id), str(row.parent_id)) == (str(child), str(parent))
    told = await detail(storage, parent, "command_sent")
    assert (told["child"], told["key"], told["child_id"]) == ("FamilyDelivery", "d-1", str(child))
    assert (await detail(storage, child, "started"))["parent_id"] == str(parent)


async def test_a_child_that_completes_answers_its_start_and_tells_everybody(family: Family) -> None:
    await delivering(family)
    await packed(family)
    await driven(family)
    told = await family.leave(Delivered.message_name)
    published, answer = sorted(told, key=lambda raw: raw.routing_key != Delivered.message_name)
    assert published.correlation_id == str(family.delivery.id_of("d-1"))
    assert answer.routing_key == saga_queue(NAMESPACE, "FamilyOrder")
    assert answer.correlation_id == str(family.order.id_of("1"))
    assert answer.headers["causation-id"] == family.order.command_id("1", "deliver")
    assert answer.message_id != published.message_id
    await family.arrive(answer, answer)
    assert await family.ends() == {"1": RUNNING, "d-1": COMPLETED}
    assert names(await family.leave()) == ["Drive", "Pay"]


async def test_the_answer_does_not_wait_for_whoever_listens_to_the_announcement(
    family: Family, storage: SqlStorage
) -> None:
    await delivering(family)
    await packed(family)
    await driven(family)
    told = await rows(storage, "select path from outbox where name = 'family.Delivered'")
    assert sorted(row.path for row in told) == ["/announcements", "/parent"]
    await definitions.record(storage.database, [definition_of(Order), definition_of(Delivery)])
    assert "family.Ordered" in await storage.consumed_events()
    assert "family.Delivered" not in await storage.consumed_events()


async def test_a_child_that_is_compensated_fails_the_step(family: Family) -> None:
    await delivering(family)
    await family.delivery.take(family.delivery.answer("d-1", Torn(id="d-1"), "pack"))
    await family.carry()
    assert await family.ends() == {"1": ("compensated", "failed"), "d-1": ("compensated", "failed")}


async def test_a_child_that_has_completed_is_undone_by_the_command_that_the_parent_names(family: Family) -> None:
    await delivered(family)
    await family.order.take(family.order.answer("1", Declined(id="1"), "pay"))
    assert names(await family.leave()) == ["FetchBack"]
    await family.order.take(family.order.answer("1", FetchedBack(parcel="d-1"), "deliver", "undo"))
    assert await family.ends() == {"1": ("compensated", "failed"), "d-1": COMPLETED}


async def test_a_child_that_is_under_way_is_cancelled_and_awaited(family: Family) -> None:
    await delivering(family)
    await packed(family)
    await family.leave()
    await family.withdraw()
    assert await family.ends() == {"1": COMPENSATING, "d-1": RUNNING}
    [cancel] = await family.leave()
    assert cancel.type == CancelSaga.message_name
    assert json.loads(cancel.body) == {"key": "d-1", "start": f"{family.order.id_of('1')}/deliver/1/do"}
    await family.arrive(cancel)
    # the pivot had been sent: from there on nothing is undone, and the child goes on to its end
    assert await family.ends() == {"1": COMPENSATING, "d-1": RUNNING}
    await driven(family)
    assert "family.FetchBack" in await family.carry()
    await family.order.take(family.order.answer("1", FetchedBack(parcel="d-1"), "deliver", "undo"))
    assert await family.ends() == {"1": CANCELLED, "d-1": COMPLETED}


async def test_a_child_before_its_pivot_undoes_itself(family: Family) -> None:
    await delivering(family)
    await family.withdraw()
    assert await family.carry() == [CancelSaga.message_name]
    await packed(family)  # it was under way, and is undone
    assert await family.ends() == {"1": COMPENSATING, "d-1": COMPENSATING}
    await family.delivery.take(family.delivery.answer("d-1", Unpacked(id="d-1"), "pack", "undo"))
    await family.carry()
    assert await family.ends() == {"1": CANCELLED, "d-1": CANCELLED}


async def test_a_start_that_never_left_is_taken_back_and_no_child_is_cancelled(
    family: Family, storage: SqlStorage
) -> None:
    await family.begin()
    await family.withdraw()
    assert await family.leave() == []
    assert await family.ends() == {"1": CANCELLED}
    assert "command_withdrawn" in await kinds(storage, family.order.id_of("1"))


async def test_a_cancel_that_overtakes_its_start_waits_for_it(family: Family, storage: SqlStorage) -> None:
    await family.begin()
    [begin] = await family.leave()
    await family.withdraw()
    [cancel] = await family.leave()
    await family.arrive(cancel)
    [held] = await rows(storage, "select name, reason, business_key from v_held")
    assert (held.name, held.reason, held.business_key) == (CancelSaga.message_name, "early", "d-1")
    await family.arrive(begin)
    assert "family.Pack" not in await family.carry()
    assert await family.ends() == {"1": CANCELLED, "d-1": CANCELLED}
    assert not await rows(storage, "select * from v_held")


async def test_a_cancel_that_overtakes_its_start_in_one_batch_is_met_by_the_sweep(
    family: Family, storage: SqlStorage
) -> None:
    await family.begin()
    [begin] = await family.leave()
    await family.withdraw()
    [cancel] = await family.leave()
    await family.delivery.take(cancel, begin)
    sweep = HeldMessages(
        [SagaType({1: family.delivery.definition}, NAMESPACE)],
        storage=storage,
        relay=family.delivery.relay,
        runner=family.delivery.runner,
        report=family.delivery.facts.append,
        limits=LIMITS,
    )
    await sweep.sweep()
    await family.carry()
    assert await family.ends() == {"1": CANCELLED, "d-1": CANCELLED}


async def test_a_cancel_that_crosses_the_end_changes_nothing_and_the_step_is_undone(
    family: Family, storage: SqlStorage
) -> None:
    await delivering(family)
    await packed(family)
    await driven(family)
    answers = await family.leave()
    await family.withdraw()
    [cancel] = await family.leave()
    await family.arrive(cancel)
    again = await family.leave()
    assert [raw.body for raw in again] == [b'{"id":"d-1"}']  # once more, in case that the first was lost
    assert again[0].message_id in {raw.message_id for raw in answers}
    await family.arrive(*answers, *again)
    assert names(await family.leave()) == ["FetchBack"]
    told = await kinds(storage, family.order.id_of("1"))
    assert told.count("reply_received") == 1
    assert "message_ignored" not in told


async def test_an_answer_that_was_lost_comes_again_for_an_operator(family: Family, storage: SqlStorage) -> None:
    await delivering(family)
    await packed(family)
    await driven(family)
    await family.leave()  # and nothing of it arrives
    await operate(family, "1", Action.RETRY)
    [begin] = await family.leave()
    assert begin.message_id == family.order.command_id("1", "deliver", attempt=2)
    await family.arrive(begin)
    await family.carry()
    assert "step_completed" in await kinds(storage, family.order.id_of("1"))
    assert len(await family.ends()) == 2


async def test_a_key_that_another_start_has_taken_fails_the_step(family: Family, storage: SqlStorage) -> None:
    await family.delivery.take(family.delivery.message(DeliveryRequested(id="d-1")))
    await family.leave()
    await family.begin()
    await family.carry()
    assert await family.ends() == {"1": ("compensated", "failed"), "d-1": RUNNING}
    [row] = await rows(storage, "select cast(body as text) as body from saga_event where kind = 'reply_received'")
    assert "key_taken" in str(row.body) or "6b65795f74616b656e" in str(row.body)


async def test_a_start_that_becomes_a_dead_letter_fails_the_step(family: Family, storage: SqlStorage) -> None:
    await family.begin("lost")
    await family.carry()
    assert await family.ends() == {"lost": ("compensated", "failed")}
    assert [reason for _, reason in await dead(storage)] == ["method_raised"]


async def test_somebody_elses_cancel_is_ignored(family: Family) -> None:
    await delivering(family)
    await family.withdraw()
    [cancel] = await family.leave()
    foreign = replace(cancel, message_id=str(uuid4()), body=cancel.body.replace(b"/deliver/1/do", b"/other/1/do"))
    await family.arrive(foreign)
    assert await family.ends() == {"1": COMPENSATING, "d-1": RUNNING}


async def test_a_child_whose_undo_is_stuck_keeps_its_parent_waiting(family: Family) -> None:
    await delivering(family)
    await family.withdraw()
    await family.carry()
    await packed(family)
    await family.delivery.take(family.delivery.answer("d-1", Stuck(id="d-1"), "pack", "undo"))
    await family.carry()
    assert await family.ends() == {"1": COMPENSATING, "d-1": ("parked", "cancelled")}
    await operate(family, "d-1", Action.RESOLVE)
    await family.carry()
    assert await family.ends() == {"1": CANCELLED, "d-1": CANCELLED}


async def test_a_paused_child_is_cancelled_when_it_is_resumed(family: Family) -> None:
    await delivering(family)
    await operate(family, "d-1", Action.PAUSE)
    await family.withdraw()
    await family.carry()
    assert (await family.ends())["d-1"] == RUNNING
    await operate(family, "d-1", Action.RESUME)
    assert (await family.ends())["d-1"] == COMPENSATING


async def test_a_paused_parent_cancels_its_child_when_it_is_resumed(family: Family) -> None:
    await delivering(family)
    await operate(family, "1", Action.PAUSE)
    await operate(family, "1", Action.CANCEL)
    assert await family.leave() == []
    await operate(family, "1", Action.RESUME)
    assert names(await family.leave()) == ["CancelSaga"]


async def test_of_a_key_that_is_used_again_a_cancel_that_overtakes_waits_for_the_next(storage: SqlStorage) -> None:
    family = Family(storage, reuse=True)
    await family.delivery.take(family.delivery.message(DeliveryRequested(id="d-1")))
    await family.delivery.take(family.delivery.answer("d-1", Torn(id="d-1"), "pack"))
    await family.leave()
    await family.begin()
    [begin] = await family.leave()
    await family.withdraw()
    [cancel] = await family.leave()
    await family.arrive(cancel, begin)
    await family.carry()
    found = await rows(storage, "select n, phase, end_reason from saga where saga_type = 'FamilyDelivery' order by n")
    assert [(row.n, row.phase, row.end_reason) for row in found] == [
        (1, "compensated", "failed"),
        (2, "compensated", "cancelled"),
    ]
    assert (await family.ends())["1"] == CANCELLED


async def detail(storage: SqlStorage, saga: UUID, kind: str) -> dict[str, Any]:
    """What the history of an instance tells beside, in the one row of that kind."""
    sql = "select cast(detail as text) as detail from v_saga_event where saga_id = :saga and kind = :kind"
    [row] = await rows(storage, sql, {"saga": saga, "kind": kind})
    told: dict[str, Any] = json.loads(row.detail)
    return told


async def operate(family: Family, key: str, action: Action) -> None:
    house = family.delivery if key.startswith("d-") else family.order
    operations = Operations(
        {house.definition.type: {house.definition.version: house.definition}},
        namespace=NAMESPACE,
        storage=house.storage,
        runner=house.runner,
        report=house.facts.append,
        limits=LIMITS,
    )
    operated = Operated(action=action, actor="ann", reason="a test", request_id=str(uuid4()))
    await operations.carry_out(Operation(saga_id=house.id_of(key), operated=operated))
