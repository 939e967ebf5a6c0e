"""The path of a batch over each database: what is applied, what is not, and what nobody else suffers for."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from handlers.facts import MessageDuplicated, MessageIgnored
from messages.catalog.ordering import (
    OutOfStock,
    PaymentCompleted,
    PaymentDeclined,
    ShippingLabelCreated,
    StockReleased,
    StockReserved,
)
from sagas import definition_of
from sagas.catalog.ordering import PlaceOrder
from tests.handlers.house import House, dead, kinds, outbox, placed, rows, tally

if TYPE_CHECKING:
    from messages import Event
    from messages.catalog.ordering import OrderPlaced
    from outbox.unit import SqlStorage
    from sagas import Definition, Saga

RESERVED = StockReserved(order_id="o-1", reservation_id="r-1")
PAID = PaymentCompleted(order_id="o-1", payment_id="p-1")
LABELLED = ShippingLabelCreated(order_id="o-1", tracking_code="t-1")


@pytest.fixture
async def house(storage: SqlStorage) -> House:
    return await House(storage).open()


async def test_a_start_and_its_replies_in_one_batch_are_folded(house: House, storage: SqlStorage) -> None:
    await house.take(
        house.message(placed()),
        house.answer("o-1", RESERVED, "reserve"),
        house.answer("o-1", PAID, "pay"),
        house.answer("o-1", LABELLED, "label"),
    )
    instance = await house.instance("o-1")
    assert (instance.status, instance.revision) == ("completed", 4)
    found = await rows(storage, "select seq from v_saga_event order by seq")
    assert [row.seq for row in found] == list(range(1, instance.seq + 1))
    assert [name for name, _ in await outbox(storage)] == [
        "payment.MakePayment",
        "stock.ReserveStock",
        "warehouse.CreateShippingLabel",
    ]
    assert not await rows(storage, "select * from v_timer")


async def test_batches_of_one_come_to_the_same(house: House) -> None:
    for raw in (
        house.message(placed()),
        house.answer("o-1", RESERVED, "reserve"),
        house.answer("o-1", PAID, "pay"),
        house.answer("o-1", LABELLED, "label"),
    ):
        await house.take(raw)
    assert (await house.instance("o-1")).status == "completed"


async def test_a_failure_undoes_what_was_done(house: House, storage: SqlStorage) -> None:
    await house.take(house.message(placed()), house.answer("o-1", RESERVED, "reserve"))
    await house.take(house.answer("o-1", PaymentDeclined(order_id="o-1"), "pay"))
    await house.take(house.answer("o-1", StockReleased(order_id="o-1"), "reserve", "undo"))
    assert (await house.instance("o-1")).status == "compensated"
    (row,) = await rows(storage, "select status, end_reason, attention, waiting_for from v_saga")
    assert tuple(row) == ("compensated", "failed", None, None)


async def test_a_copy_changes_nothing(house: House, storage: SqlStorage) -> None:
    start = house.message(placed())
    await house.take(start, start)
    await house.take(start)
    assert tally(house.facts)["MessageDuplicated"] == 2
    assert await kinds(storage, house.id_of("o-1")) == ["started", "command_sent"]
    assert isinstance(house.facts[-2], MessageDuplicated)


async def test_another_body_under_a_known_id_is_a_dead_letter(house: House, storage: SqlStorage) -> None:
    start = house.message(placed())
    other = house.message(placed("o-2"), message_id=start.message_id)
    await house.take(start)
    await house.take(other)
    assert await dead(storage) == [(start.message_id, "id_conflict")]
    assert len(await rows(storage, "select * from v_saga")) == 1


async def test_two_bodies_under_one_new_id_in_one_batch_are_told_apart(house: House, storage: SqlStorage) -> None:
    start = house.message(placed())
    await house.take(start, house.message(placed("o-2"), message_id=start.message_id))
    assert await dead(storage) == [(start.message_id, "id_conflict")]
    assert [row.business_key for row in await rows(storage, "select business_key from v_saga")] == ["o-1"]


async def test_a_second_start_for_a_key_finds_the_instance(house: House, storage: SqlStorage) -> None:
    await house.take(house.message(placed()), house.message(placed()))
    await house.take(house.message(placed(customer_id="c-2")))
    events = await rows(storage, "select detail from v_saga_event where kind = 'message_ignored' order by seq")
    assert ["differs" in str(row.detail) for row in events] == [False, True]
    dispositions = await rows(storage, "select disposition from v_inbox order by disposition")
    assert [row.disposition for row in dispositions] == ["applied", "ignored", "ignored"]


BROKEN = {
    "malformed": {"body": b"{"},
    "oversize": {"body": b'"' + b"x" * 1024 * 1024 + b'"'},
    "unknown_message": {"type": "ordering.Unheard"},
    "no_key": {"body": b'{"order_id":"","customer_id":"c","lines":[],"total":"1"}'},
}


@pytest.mark.parametrize("reason", BROKEN)
async def test_a_broken_message_harms_no_other(house: House, storage: SqlStorage, reason: str) -> None:
    broken = replace(house.message(placed("o-2")), **BROKEN[reason])  # type: ignore[arg-type]
    await house.take(house.message(placed()), broken, house.answer("o-1", RESERVED, "reserve"))
    assert await dead(storage) == [(broken.message_id, reason)]
    assert (await house.instance("o-1")).steps.keys() == {"reserve", "pay"}
    (letter,) = await rows(storage, "select body from dead_letter")
    assert bytes(letter.body) == broken.body


async def test_a_message_without_an_id_is_kept_under_its_hash(house: House, storage: SqlStorage) -> None:
    broken = replace(house.message(placed()), message_id=None)
    await house.take(broken)
    await house.take(broken)
    (letter,) = await rows(storage, "select message_id, copies from v_dead_letter")
    assert (len(letter.message_id), letter.copies) == (64, 2)


async def test_a_start_that_raises_leaves_the_key_free(storage: SqlStorage) -> None:
    whole = definition_of(PlaceOrder)

    def broken(_: type, __: Event) -> PlaceOrder:
        raise ValueError("not yet")

    starts = {name: replace(start, build=broken) for name, start in whole.starts.items()}
    house = await House(storage, replace(whole, starts=starts)).open()
    start = house.message(placed())
    await house.take(start)
    assert await dead(storage) == [(start.message_id, "method_raised")]
    assert not await rows(storage, "select * from v_saga")
    mended = await House(storage).open()
    await mended.take(start)  # a dead-lettered copy does not make this one a duplicate
    assert (await mended.instance("o-1")).status == "running"


async def test_the_key_of_a_start_that_raises_belongs_to_the_one_behind_it_that_does_not(storage: SqlStorage) -> None:
    whole = definition_of(PlaceOrder)
    (name,) = whole.starts
    build = whole.starts[name].build

    def choosy(saga_class: type[Saga], event: OrderPlaced) -> Saga:
        if event.customer_id == "nobody":
            raise ValueError("who is that?")
        return build(saga_class, event)

    house = await House(storage, replace(whole, starts={name: replace(whole.starts[name], build=choosy)})).open()
    bad, good = house.message(placed(customer_id="nobody")), house.message(placed())
    again, other = house.message(placed()), house.message(placed(customer_id="c-2"))
    await house.take(bad, good, again)
    await house.take(house.message(placed()), other)
    assert await dead(storage) == [(bad.message_id, "method_raised")]
    assert await rows(storage, "select start_id from saga_key") == [(good.message_id,)]
    ignored = await rows(storage, "select detail from v_saga_event where kind = 'message_ignored' order by seq")
    assert [("differs" in str(row.detail)) for row in ignored] == [False, False, True]


@pytest.mark.parametrize("said", ["a bug of the author's", "half a pair: \udc80", "a zero: \0"])
async def test_a_hook_that_raises_parks_its_instance_alone(storage: SqlStorage, said: str) -> None:
    house = await House(storage, _with_broken_hook(said)).open()
    await house.take(house.message(placed()), house.message(placed("o-2")))
    reply = house.answer("o-1", RESERVED, "reserve")
    await house.take(reply, house.answer("o-2", OutOfStock(order_id="o-2"), "reserve"))
    assert await dead(storage) == [(reply.message_id, "method_raised")]
    (parked,) = await rows(storage, "select status, attention from v_saga where business_key = 'o-1'")
    assert tuple(parked) == ("parked", "method_raised")
    assert (await house.instance("o-2")).status == "compensated"
    timers = await rows(storage, "select saga_id from v_timer")
    assert not timers  # those of a parked instance stand still
    mended = await House(storage).open()
    await mended.take(reply)
    assert (await mended.instance("o-1")).steps.keys() == {"reserve", "pay"}


def _with_broken_hook(said: str) -> Definition:
    whole = definition_of(PlaceOrder)
    reserve = whole.steps["reserve"]

    def reserved(_: object, __: object) -> None:
        raise ValueError(said)

    name = StockReserved.message_name
    replies = {**reserve.do.replies, name: replace(reserve.do.replies[name], hook=reserved)}
    steps = {**whole.steps, "reserve": replace(reserve, do=replace(reserve.do, replies=replies))}
    return replace(whole, steps=steps)


async def test_a_foreign_correlation_id_is_no_hindrance(house: House) -> None:
    await house.take(house.message(placed(), correlation_id=str(uuid4())))
    assert (await house.instance("o-1")).status == "running"


async def test_an_id_and_a_key_of_different_instances_conflict(house: House, storage: SqlStorage) -> None:
    await house.take(house.message(placed()), house.message(placed("o-2")))
    confused = replace(house.answer("o-1", RESERVED, "reserve"), correlation_id=str(house.id_of("o-2")))
    await house.take(confused)
    assert await dead(storage) == [(confused.message_id, "correlation_conflict")]


async def test_a_reply_without_correlation_id_is_found_by_key_and_matched_by_its_command(house: House) -> None:
    await house.take(house.message(placed()))
    await house.take(replace(house.answer("o-1", RESERVED, "reserve"), correlation_id=None))
    assert (await house.instance("o-1")).steps.keys() == {"reserve", "pay"}


async def test_a_reply_that_only_shares_the_key_is_not_applied(house: House, storage: SqlStorage) -> None:
    """Another saga about the same order sends the same command, and its replies reach this queue too."""
    await house.take(house.message(placed()))
    bare = house.message(RESERVED)
    of_another = house.message(RESERVED, correlation_id=str(uuid4()), headers={"causation-id": str(uuid4())})
    await house.take(bare, of_another)
    assert await kinds(storage, house.id_of("o-1")) == ["started", "command_sent"]
    ignored = [fact for fact in house.facts if isinstance(fact, MessageIgnored)]
    assert [(fact.message_id, fact.reason) for fact in ignored] == [
        (bare.message_id, "unknown_command"),
        (of_another.message_id, "unknown_command"),
    ]
    assert not await dead(storage)


async def test_a_reply_without_causation_id_is_applied_where_its_correlation_id_names_the_instance(
    house: House,
) -> None:
    await house.take(house.message(placed()))
    await house.take(house.message(RESERVED, correlation_id=str(house.id_of("o-1"))))
    assert (await house.instance("o-1")).steps.keys() == {"reserve", "pay"}


async def test_a_reply_to_nobody_here_is_counted_and_leaves_no_row(house: House, storage: SqlStorage) -> None:
    await house.take(house.answer("o-9", StockReserved(order_id="o-9", reservation_id="r"), "reserve"))
    assert isinstance(house.facts[0], MessageIgnored)
    assert not await rows(storage, "select * from v_inbox")


async def test_a_hundred_starts_of_one_key_make_one_instance(house: House, storage: SqlStorage) -> None:
    others = [await House(storage).open() for _ in range(3)]
    starts = [house.message(placed()) for _ in range(100)]
    batches = [starts[n : n + 10] for n in range(0, 100, 10)]
    await asyncio.gather(
        *(each.take(*batch, wait=True) for batch, each in zip(batches, [house, *others] * 3, strict=False))
    )
    assert len(await rows(storage, "select * from v_saga")) == 1
    assert [name for name, _ in await outbox(storage)] == ["stock.ReserveStock"]
    assert (await kinds(storage, house.id_of("o-1"))).count("message_ignored") == 99


async def test_a_hundred_copies_at_once_have_one_effect(house: House, storage: SqlStorage) -> None:
    others = [await House(storage).open() for _ in range(3)]
    start, reply = house.message(placed()), house.answer("o-1", RESERVED, "reserve")
    await house.take(start)
    takers = [house, *others] * 25
    await asyncio.gather(*(each.take(reply, start, wait=True) for each in takers))
    assert (await kinds(storage, house.id_of("o-1"))).count("step_completed") == 1
    assert [name for name, _ in await outbox(storage)] == ["payment.MakePayment", "stock.ReserveStock"]


async def test_an_instance_that_another_holds_is_left_for_the_next_batch(postgresql: object) -> None:
    from outbox.unit import SqlStorage  # the storage of this database kind

    storage = SqlStorage(postgresql)  # type: ignore[arg-type]
    house = await House(storage).open()
    await house.take(house.message(placed()), house.message(placed("o-2")))
    first, second = house.answer("o-1", RESERVED, "reserve"), house.answer("o-2", RESERVED, "reserve")
    second = replace(second, body=second.body.replace(b"o-1", b"o-2"))
    async with storage.transaction() as unit:
        await unit.lock([house.id_of("o-1")])
        prepared = await house.take(first, second)
    assert prepared.deferred == {0}
    assert (await house.instance("o-2")).steps.keys() == {"reserve", "pay"}
    assert len(await rows(storage, "select * from v_inbox")) == 3
    assert (await house.take(first)).deferred == frozenset()
    assert (await house.instance("o-1")).steps.keys() == {"reserve", "pay"}
