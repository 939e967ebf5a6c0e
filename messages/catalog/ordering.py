"""The messages of the ordering process: an order is placed, stock reserved, the payment taken, a shipping label made.

Every message carries the order's id, which is the business key of the process.
"""

from __future__ import annotations

from decimal import Decimal

from pydantic import BaseModel, ConfigDict, Field

from messages import Command, Event


class OrderLine(BaseModel):
    """So many of one article, at a price for each."""

    model_config = ConfigDict(frozen=True)

    sku: str
    quantity: int = Field(ge=1)
    unit_price: Decimal


class OrderPlaced(Event, name="ordering.OrderPlaced", version=1):
    """A customer has placed an order. It starts the process."""

    order_id: str
    customer_id: str
    lines: list[OrderLine]
    total: Decimal


# stock


class ReserveStock(Command, name="stock.ReserveStock", version=1):
    """Put the articles of an order aside, all of them or none."""

    order_id: str
    lines: list[OrderLine]


class StockReserved(Event, name="stock.StockReserved", version=1):
    """The articles are put aside."""

    order_id: str
    reservation_id: str


class OutOfStock(Event, name="stock.OutOfStock", version=1):
    """At least one article is not there in the quantity asked for. Nothing was put aside."""

    order_id: str


class ReleaseStock(Command, name="stock.ReleaseStock", version=1):
    """Put the articles of an order back. Without a reservation's id: whatever was put aside for it, if anything."""

    order_id: str
    reservation_id: str | None = None


class StockReleased(Event, name="stock.StockReleased", version=1):
    """Nothing is put aside for the order any more."""

    order_id: str


# payment


class MakePayment(Command, name="payment.MakePayment", version=1):
    """Take the amount from the customer."""

    order_id: str
    amount: Decimal


class PaymentCompleted(Event, name="payment.PaymentCompleted", version=1):
    """The amount was taken."""

    order_id: str
    payment_id: str


class PaymentDeclined(Event, name="payment.PaymentDeclined", version=1):
    """The bank refuses the payment. Nothing was taken."""

    order_id: str


class CardExpired(Event, name="payment.CardExpired", version=1):
    """The customer's card is no longer valid. Nothing was taken."""

    order_id: str


class PaymentGatewayBusy(Event, name="payment.PaymentGatewayBusy", version=1):
    """The payment provider cannot answer now. Nothing was taken; trying again later may help."""

    order_id: str


class RefundPayment(Command, name="payment.RefundPayment", version=1):
    """Give the amount back. Without a payment's id: whatever was taken for the order, if anything."""

    order_id: str
    payment_id: str | None = None


class PaymentRefunded(Event, name="payment.PaymentRefunded", version=1):
    """The customer has the amount back."""

    order_id: str


# warehouse


class CreateShippingLabel(Command, name="warehouse.CreateShippingLabel", version=1):
    """Make a label for the parcel and hand it to the packers."""

    order_id: str


class ShippingLabelCreated(Event, name="warehouse.ShippingLabelCreated", version=1):
    """The label is made and the parcel can be followed."""

    order_id: str
    tracking_code: str


class LabelRefused(Event, name="warehouse.LabelRefused", version=1):
    """The carrier does not take the parcel. There is no label."""

    order_id: str


class VoidShippingLabel(Command, name="warehouse.VoidShippingLabel", version=1):
    """Take the label back. Without a tracking code: whatever label was made for the order, if any."""

    order_id: str
    tracking_code: str | None = None


class ShippingLabelVoided(Event, name="warehouse.ShippingLabelVoided", version=1):
    """The order has no label any more."""

    order_id: str
