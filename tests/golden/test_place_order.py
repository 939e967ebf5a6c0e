"""Version 1 of placing an order goes on as it began, whatever became of the code since."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

from messages.catalog.ordering import (
    LabelRefused,
    OrderLine,
    OrderPlaced,
    OutOfStock,
    PaymentCompleted,
    PaymentDeclined,
    PaymentGatewayBusy,
    PaymentRefunded,
    ShippingLabelCreated,
    ShippingLabelVoided,
    StockReleased,
    StockReserved,
)
from sagas.catalog.ordering import PlaceOrder
from testkit import Harness

if TYPE_CHECKING:
    from testkit import Golden

RESERVED = StockReserved(order_id="o-1", reservation_id="r-1")
PAID = PaymentCompleted(order_id="o-1", payment_id="p-1")
LABELLED = ShippingLabelCreated(order_id="o-1", tracking_code="t-1")
RELEASED, REFUNDED = StockReleased(order_id="o-1"), PaymentRefunded(order_id="o-1")


def placed() -> Harness:
    lines = [OrderLine(sku="book", quantity=2, unit_price=Decimal("12.50"))]
    return Harness(PlaceOrder).given(OrderPlaced(order_id="o-1", customer_id="c-1", lines=lines, total=Decimal(25)))


def test_success(golden: Golden) -> None:
    order = placed().receives(RESERVED).receives(PAID).receives(LABELLED)
    assert order.status == "completed"
    golden.check(order, "PlaceOrder-1/success.json")


def test_out_of_stock(golden: Golden) -> None:
    order = placed().receives(OutOfStock(order_id="o-1"))
    assert order.status == "compensated"
    golden.check(order, "PlaceOrder-1/out_of_stock.json")


def test_a_declined_payment(golden: Golden) -> None:
    order = placed().receives(RESERVED).receives(PaymentDeclined(order_id="o-1")).receives(RELEASED)
    assert order.status == "compensated"
    golden.check(order, "PlaceOrder-1/payment_declined.json")


def test_a_refused_label_after_a_busy_gateway(golden: Golden) -> None:
    order = placed().receives(RESERVED).receives(PaymentGatewayBusy(order_id="o-1")).advance(timedelta(seconds=2))
    order.receives(PAID).receives(LabelRefused(order_id="o-1")).receives(REFUNDED).receives(RELEASED)
    assert order.status == "compensated"
    golden.check(order, "PlaceOrder-1/label_refused_after_a_busy_gateway.json")


def test_silence_until_the_step_is_in_doubt(golden: Golden) -> None:
    order = placed().receives(RESERVED).advance(timedelta(minutes=5)).advance(timedelta(minutes=11))
    assert order.receives(REFUNDED).receives(RELEASED).status == "compensated"
    golden.check(order, "PlaceOrder-1/silence.json")


def test_a_success_that_comes_too_late(golden: Golden) -> None:
    order = placed().receives(RESERVED).receives(PAID).receives(LabelRefused(order_id="o-1"))
    order.receives(LABELLED).receives(ShippingLabelVoided(order_id="o-1")).receives(REFUNDED).receives(RELEASED)
    assert order.status == "compensated"
    golden.check(order, "PlaceOrder-1/late_success.json")


def test_an_undo_that_nobody_answers(golden: Golden) -> None:
    order = placed().receives(RESERVED).receives(PaymentDeclined(order_id="o-1")).advance(timedelta(days=1))
    assert order.status == "parked"
    assert order.receives(RELEASED).status == "compensated"
    golden.check(order, "PlaceOrder-1/undo_exhausted.json")


def test_a_cancel(golden: Golden) -> None:
    order = placed().receives(RESERVED).operator("pause").operator("resume").operator("cancel")
    assert order.receives(PAID).receives(REFUNDED).receives(RELEASED).status == "compensated"
    golden.check(order, "PlaceOrder-1/cancel.json")


def test_the_deadline(golden: Golden) -> None:
    order = placed().receives(RESERVED).operator("pause").advance(timedelta(days=4)).operator("resume")
    order.advance(timedelta(0)).receives(PAID).receives(REFUNDED).receives(RELEASED)
    assert (order.status, order.instance.end_reason) == ("compensated", "deadline")
    golden.check(order, "PlaceOrder-1/deadline.json")
