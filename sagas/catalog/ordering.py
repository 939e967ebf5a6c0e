"""Place an order: reserve stock, take the payment, print the shipping label; undo in reverse order when any fails."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Self

from messages.catalog.ordering import (
    CardExpired,
    CreateShippingLabel,
    LabelRefused,
    MakePayment,
    OrderLine,
    OrderPlaced,
    OutOfStock,
    PaymentCompleted,
    PaymentDeclined,
    PaymentGatewayBusy,
    PaymentRefunded,
    RefundPayment,
    ReleaseStock,
    ReserveStock,
    ShippingLabelCreated,
    ShippingLabelVoided,
    StockReleased,
    StockReserved,
    VoidShippingLabel,
)
from sagas import Retry, Saga, start, step


class PlaceOrder(Saga, key="order_id", version=1, deadline=timedelta(days=3)):
    """One order, from the shop's door to the packers' table."""

    order_id: str
    lines: list[OrderLine]
    total: Decimal
    reservation_id: str | None = None
    payment_id: str | None = None
    tracking_code: str | None = None

    @start
    def placed(cls, event: OrderPlaced) -> Self:
        """The shop has taken the order."""
        return cls(order_id=event.order_id, lines=event.lines, total=event.total)

    @step(timeout=timedelta(minutes=1), retry=Retry(attempts=3, backoff=timedelta(seconds=5)), failure=OutOfStock)
    def reserve(self) -> ReserveStock:
        """Put the articles aside before anybody pays for them."""
        return ReserveStock(order_id=self.order_id, lines=self.lines)

    @reserve.on_success
    def reserved(self, reply: StockReserved) -> None:
        """The articles are ours."""
        self.reservation_id = reply.reservation_id

    @reserve.compensation(success=StockReleased)
    def release(self) -> ReleaseStock:
        """Put the articles back."""
        return ReleaseStock(order_id=self.order_id, reservation_id=self.reservation_id)

    @step(timeout=timedelta(minutes=5), failure=(PaymentDeclined, CardExpired), transient=PaymentGatewayBusy)
    def pay(self) -> MakePayment:
        """Take the whole amount at once."""
        return MakePayment(order_id=self.order_id, amount=self.total)

    @pay.on_success
    def paid(self, reply: PaymentCompleted) -> None:
        """The amount is ours."""
        self.payment_id = reply.payment_id

    @pay.compensation(success=PaymentRefunded)
    def refund(self) -> RefundPayment:
        """Give the amount back."""
        return RefundPayment(order_id=self.order_id, payment_id=self.payment_id)

    @step(timeout=timedelta(minutes=2), failure=LabelRefused)
    def label(self) -> CreateShippingLabel:
        """Hand the parcel to the packers."""
        return CreateShippingLabel(order_id=self.order_id)

    @label.on_success
    def labelled(self, reply: ShippingLabelCreated) -> None:
        """The parcel can be followed."""
        self.tracking_code = reply.tracking_code

    @label.compensation(success=ShippingLabelVoided)
    def void(self) -> VoidShippingLabel:
        """Take the label back."""
        return VoidShippingLabel(order_id=self.order_id, tracking_code=self.tracking_code)

    flow = reserve >> pay >> label
