"""What the harness shows of itself when a test fails."""

from __future__ import annotations

from decimal import Decimal

from messages.catalog.ordering import OrderPlaced, OutOfStock, StockReserved
from sagas.catalog.ordering import PlaceOrder
from testkit import Harness

PLACED = OrderPlaced(order_id="o-1", customer_id="c-1", lines=[], total=Decimal(3))


def test_a_harness_says_that_nothing_was_started() -> None:
    assert repr(Harness(PlaceOrder)) == "<Harness PlaceOrder: not started>"


def test_a_harness_says_which_instance_it_is_how_far_and_what_it_waits_for() -> None:
    order = Harness(PlaceOrder).given(PLACED)
    assert repr(order) == (
        "<Harness PlaceOrder 'o-1': running, waits for stock.OutOfStock or stock.StockReserved "
        "(step reserve, attempt 1, send 1)>"
    )
    order.receives(StockReserved(order_id="o-1", reservation_id="r-1"))
    assert "running, waits for payment.PaymentDeclined or " in repr(order)


def test_a_harness_says_how_it_ended() -> None:
    order = Harness(PlaceOrder).given(PLACED).receives(OutOfStock(order_id="o-1"))
    assert repr(order) == "<Harness PlaceOrder 'o-1': compensated (failed)>"
