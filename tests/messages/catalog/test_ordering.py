"""The ordering process's messages have the wire names and fields that other services rely on."""

from __future__ import annotations

from decimal import Decimal

import pytest
from pydantic import ValidationError

from messages import REGISTRY, Command, encode
from messages.catalog import ordering
from messages.catalog.ordering import OrderLine, OrderPlaced

FIELDS = {
    "ordering.OrderPlaced": ["order_id", "customer_id", "lines", "total"],
    "stock.ReserveStock": ["order_id", "lines"],
    "stock.StockReserved": ["order_id", "reservation_id"],
    "stock.OutOfStock": ["order_id"],
    "stock.ReleaseStock": ["order_id", "reservation_id"],
    "stock.StockReleased": ["order_id"],
    "payment.MakePayment": ["order_id", "amount"],
    "payment.PaymentCompleted": ["order_id", "payment_id"],
    "payment.PaymentDeclined": ["order_id"],
    "payment.CardExpired": ["order_id"],
    "payment.PaymentGatewayBusy": ["order_id"],
    "payment.RefundPayment": ["order_id", "payment_id"],
    "payment.PaymentRefunded": ["order_id"],
    "warehouse.CreateShippingLabel": ["order_id"],
    "warehouse.ShippingLabelCreated": ["order_id", "tracking_code"],
    "warehouse.LabelRefused": ["order_id"],
    "warehouse.VoidShippingLabel": ["order_id", "tracking_code"],
    "warehouse.ShippingLabelVoided": ["order_id"],
}
CLASSES = {message.message_name: message for message in REGISTRY if message.__module__ == ordering.__name__}


def test_the_names_and_fields_are_these() -> None:
    assert {name: list(message.model_fields) for name, message in CLASSES.items()} == FIELDS


def test_what_is_asked_is_a_command_and_what_has_happened_an_event() -> None:
    commands = {name for name, message in CLASSES.items() if issubclass(message, Command)}
    assert commands == {
        "stock.ReserveStock",
        "stock.ReleaseStock",
        "payment.MakePayment",
        "payment.RefundPayment",
        "warehouse.CreateShippingLabel",
        "warehouse.VoidShippingLabel",
    }


@pytest.mark.parametrize("name", ["stock.ReleaseStock", "payment.RefundPayment", "warehouse.VoidShippingLabel"])
def test_an_undo_can_be_built_without_the_reply_of_its_step(name: str) -> None:
    assert CLASSES[name].model_validate({"order_id": "o-1"}).model_dump()["order_id"] == "o-1"


def test_an_order_looks_like_this_on_the_wire() -> None:
    order = OrderPlaced(
        order_id="o-1",
        customer_id="c-1",
        lines=[OrderLine(sku="tuning-fork", quantity=2, unit_price=Decimal("19.90"))],
        total=Decimal("39.80"),
    )
    assert encode(order) == (
        b'{"order_id":"o-1","customer_id":"c-1",'
        b'"lines":[{"sku":"tuning-fork","quantity":2,"unit_price":"19.90"}],"total":"39.80"}'
    )


def test_nobody_orders_nothing_of_an_article() -> None:
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        OrderLine(sku="tuning-fork", quantity=0, unit_price=Decimal(1))
