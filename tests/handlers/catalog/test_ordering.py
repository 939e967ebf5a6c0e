"""Stock, payment and warehouse over each database: every effect once, and taken back by the key of what made it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from handlers.catalog.ordering import FIRST_LEVEL, payment, stock, warehouse
from messages.catalog.ordering import (
    CreateShippingLabel,
    MakePayment,
    OrderLine,
    RefundPayment,
    ReleaseStock,
    ReserveStock,
    VoidShippingLabel,
)
from tests.handlers.desk import Desk, asked, undo_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from handlers import Participant
    from outbox.unit import SqlStorage

TABLES = ("stock_level", "stock_reservation", "payment", "shipping_label")


@asynccontextmanager
async def at_work(participant: Participant, storage: SqlStorage) -> AsyncIterator[Desk]:
    async with storage.transaction() as unit:
        for table in TABLES:
            await unit.session.connection.execute(text(f"drop table if exists {table}"))
    desk = await Desk(participant, storage).open()
    try:
        yield desk
    finally:
        await desk.close()


def reserve(*lines: tuple[str, int], order_id: str = "o-1") -> ReserveStock:
    return ReserveStock(
        order_id=order_id,
        lines=[OrderLine(sku=sku, quantity=quantity, unit_price=Decimal(1)) for sku, quantity in lines],
    )


async def names(desk: Desk, number: int) -> list[str | None]:
    return [delivery.raw.type for delivery in await desk.replies(number)]


async def levels(desk: Desk) -> dict[str, int]:
    return {row.sku: row.on_hand for row in await desk.rows("select sku, on_hand from stock_level")}


async def test_stock_is_put_aside_and_put_back(storage: SqlStorage) -> None:
    async with at_work(stock, storage) as desk:
        await desk.take(asked(reserve(("tea", 2), ("milk", 1), ("tea", 3))))
        assert await names(desk, 1) == ["stock.StockReserved"]
        assert await levels(desk) == {"tea": FIRST_LEVEL - 5, "milk": FIRST_LEVEL - 1}
        await desk.take(undo_of(ReleaseStock(order_id="o-1")), undo_of(ReleaseStock(order_id="o-1")))
        assert await names(desk, 2) == ["stock.StockReleased"] * 2
        assert await levels(desk) == {"tea": FIRST_LEVEL, "milk": FIRST_LEVEL}
        assert not await desk.rows("select * from stock_reservation")


@pytest.mark.parametrize("line", [("tea-soldout", 1), ("tea", FIRST_LEVEL + 1)])
async def test_all_articles_are_put_aside_or_none(storage: SqlStorage, line: tuple[str, int]) -> None:
    async with at_work(stock, storage) as desk:
        await desk.take(asked(reserve(("almonds", 5), line)))
        assert await names(desk, 1) == ["stock.OutOfStock"]
        assert (await levels(desk))["almonds"] == FIRST_LEVEL
        assert not await desk.rows("select * from stock_reservation")


async def test_many_orders_at_once_take_what_they_ask_for(storage: SqlStorage) -> None:
    async with at_work(stock, storage) as desk:
        orders = [asked(reserve(("a", 1), ("b", 2)), key=f"{number}/do") for number in range(8)]
        async with asyncio.timeout(60):
            await asyncio.gather(*(desk.answering.take(order) for order in orders))
        assert await names(desk, 8) == ["stock.StockReserved"] * 8
        assert await levels(desk) == {"a": FIRST_LEVEL - 8, "b": FIRST_LEVEL - 16}


@pytest.mark.parametrize(
    ("order_id", "reply"),
    [
        ("o-1", "payment.PaymentCompleted"),
        ("o-declined-1", "payment.PaymentDeclined"),
        ("o-expired-card-1", "payment.CardExpired"),
    ],
)
async def test_the_order_id_says_what_the_bank_says(storage: SqlStorage, order_id: str, reply: str) -> None:
    async with at_work(payment, storage) as desk:
        await desk.take(asked(MakePayment(order_id=order_id, amount=Decimal("9.90"))))
        assert await names(desk, 1) == [reply]
        taken = [(row.order_id, row.amount) for row in await desk.rows("select * from payment")]
        assert taken == ([(order_id, "9.90")] if reply == "payment.PaymentCompleted" else [])


async def test_a_busy_provider_takes_the_second_attempt(storage: SqlStorage) -> None:
    pay = MakePayment(order_id="o-busy", amount=Decimal(1))
    async with at_work(payment, storage) as desk:
        await desk.take(asked(pay), asked(pay), asked(pay))
        assert await names(desk, 3) == [
            "payment.PaymentGatewayBusy",
            "payment.PaymentCompleted",
            "payment.PaymentCompleted",
        ]
        assert len(await desk.rows("select * from payment")) == 1


async def test_a_payment_is_given_back_once_and_one_that_never_was_is_given_back_too(storage: SqlStorage) -> None:
    async with at_work(payment, storage) as desk:
        await desk.take(asked(MakePayment(order_id="o-1", amount=Decimal(1))))
        await desk.take(undo_of(RefundPayment(order_id="o-1")), undo_of(RefundPayment(order_id="o-2"), key="never/do"))
        assert await names(desk, 3) == ["payment.PaymentCompleted", *["payment.PaymentRefunded"] * 2]
        assert [(row.order_id, row.status) for row in await desk.rows("select * from payment")] == [("o-1", "refunded")]


async def test_a_label_is_made_or_refused_and_voided(storage: SqlStorage) -> None:
    async with at_work(warehouse, storage) as desk:
        await desk.take(asked(CreateShippingLabel(order_id="o-1")))
        await desk.take(asked(CreateShippingLabel(order_id="o-label-refused"), key="other/do"))
        await desk.take(undo_of(VoidShippingLabel(order_id="o-1")))
        assert await names(desk, 3) == [
            "warehouse.ShippingLabelCreated",
            "warehouse.LabelRefused",
            "warehouse.ShippingLabelVoided",
        ]
        labels = await desk.rows("select order_id, status from shipping_label")
        assert [(row.order_id, row.status) for row in labels] == [("o-1", "voided")]


def test_every_command_of_the_process_has_its_participant() -> None:
    assert (*payment.commands, *stock.commands, *warehouse.commands) == (
        "payment.MakePayment",
        "payment.RefundPayment",
        "stock.ReleaseStock",
        "stock.ReserveStock",
        "warehouse.CreateShippingLabel",
        "warehouse.VoidShippingLabel",
    )
