"""A saga that uses every word: type checkers see through all of it."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Self, assert_type
from uuid import UUID

from pydantic import Field

from messages import Command, Event
from messages.catalog.ordering import (
    CardExpired,
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
    StockReleased,
    StockReserved,
)
from sagas import (
    Alias,
    Definition,
    Patience,
    Policies,
    Retry,
    Saga,
    announce,
    child,
    definition_of,
    signal,
    start,
    step,
    with_policies,
)


class Told(Event, name="sample.Told"):
    order_id: str


class PlaceOrder(Saga, key="order_id", version=2, deadline=timedelta(days=3), name="PlaceOrder", key_reuse=True):
    """A docstring."""

    order_id: str
    total: Decimal
    lines: list[OrderLine] = Field(default_factory=list[OrderLine])
    reservation_id: str | None = None
    payment_id: str | None = None
    reserved_at: datetime | None = None
    refused: str = ""

    @start
    def placed(cls, event: OrderPlaced) -> Self:
        return cls(order_id=event.order_id, lines=event.lines, total=event.total)

    @step(timeout=timedelta(minutes=1), retry=Retry(attempts=3, backoff=timedelta(seconds=5)), failure=OutOfStock)
    def reserve(self) -> ReserveStock:
        """A docstring."""
        return ReserveStock(order_id=self.order_id, lines=self.lines)

    @reserve.on_success
    def reserved(self, reply: StockReserved) -> None:
        self.reservation_id = reply.reservation_id
        self.reserved_at = self.now

    @reserve.compensation
    def release(self) -> ReleaseStock:
        return ReleaseStock(order_id=self.order_id, reservation_id=self.reservation_id)

    @release.on_success
    def released(self, reply: StockReleased) -> None:
        self.reservation_id = None

    @step(transient=PaymentGatewayBusy, in_doubt="wait", on_silence="new_attempt")
    def pay(self) -> MakePayment:
        return MakePayment(order_id=f"{self.order_id}/{self.saga_id}", amount=self.total)

    @pay.on_success
    def paid(self, reply: PaymentCompleted) -> None:
        self.payment_id = reply.payment_id

    @pay.on_failure
    def declined(self, reply: PaymentDeclined | CardExpired) -> None:
        self.refused = type(reply).__name__

    @pay.compensation(success=(PaymentRefunded,), timeout=timedelta(hours=1), retry=Retry(attempts=20))
    def refund(self) -> RefundPayment:
        return RefundPayment(order_id=self.order_id, payment_id=self.payment_id)

    @step(reply=False)
    def tell(self) -> ReleaseStock:
        return ReleaseStock(order_id=self.order_id)

    @announce("turned_back", "completed")
    def ended(self) -> Told:
        """A docstring."""
        return Told(order_id=self.order_id)

    @pay.announce
    def rich(self) -> Told:
        return Told(order_id=self.order_id)

    @refund.announce
    def poor(self) -> Told:
        return Told(order_id=self.order_id)

    _tail = pay >> tell
    flow = reserve >> _tail


def what_a_test_sees(order: PlaceOrder, reply: StockReserved) -> None:
    assert_type(order.reserve(), ReserveStock)
    assert_type(order.release(), ReleaseStock)
    assert_type(order.refund(), RefundPayment)
    assert_type(order.ended(), Told)
    assert_type(order.rich(), Told)
    assert_type(order.poor(), Told)
    assert_type(order.now, datetime)
    assert_type(order.saga_id, UUID)
    order.reserved(reply)
    assert order.reservation_id == "r1"


def what_the_class_offers(event: OrderPlaced) -> Definition:
    assert_type(PlaceOrder.placed(event), PlaceOrder)
    assert_type(PlaceOrder(order_id="1", total=Decimal(1)).reserve(), ReserveStock)
    policies = Policies(deadline=timedelta(hours=1), calls={"pay": Patience(timeout=timedelta(seconds=1))})
    return with_policies(definition_of(PlaceOrder), policies)


def order_of(event: OrderPlaced) -> str:
    return event.order_id.upper()


def parcel_of(event: Told) -> str:
    return event.order_id


class Known(
    Saga,
    key="order_id",
    keys={
        OrderPlaced: order_of,
        Told: Alias("parcel", at=parcel_of),
    },
    aliases=("parcel",),
):
    order_id: str
    parcel: str | None = None

    @start
    def placed(cls, event: OrderPlaced) -> Self:
        return cls(order_id=event.order_id)

    @signal
    def told(self, event: Told) -> None:
        self.parcel = None

    @step(success=StockReserved)
    def reserve(self) -> ReserveStock:
        return ReserveStock(order_id=self.order_id, lines=[])


class Reserving(Saga, abstract=True):
    """A class that others extend."""

    order_id: str

    @start
    def placed(cls, event: OrderPlaced) -> Self:
        return cls(order_id=event.order_id)

    @step(failure=OutOfStock)
    def reserve(self) -> ReserveStock:
        return ReserveStock(order_id=self.order_id, lines=[])


class Extended(Reserving, key="order_id"):
    """A class that extends another, and its step by a hook."""

    reservation_id: str | None = None

    @Reserving.reserve.on_success
    def reserved(self, reply: StockReserved) -> None:
        self.reservation_id = reply.reservation_id


class Refused(Event, name="sample.Refused"):
    order_id: str


class Reserved(Reserving, key="order_id"):
    """A class that tells how it ends, so that others can start it."""

    @Reserving.reserve.on_success
    def reserved(self, reply: StockReserved) -> None:
        """A docstring."""

    @announce("completed")
    def done(self) -> Told:
        return Told(order_id=self.order_id)

    @announce("compensated")
    def undone(self) -> Refused:
        return Refused(order_id=self.order_id)


class Parent(Saga, key="order_id"):
    """A class that starts it."""

    order_id: str
    lines: list[OrderLine] = Field(default_factory=list[OrderLine])

    @start
    def asked(cls, event: StockReserved) -> Self:
        return cls(order_id=event.order_id)

    @child(Reserved, undo=ReleaseStock, timeout=timedelta(hours=1), success=Told)
    def stock(self) -> OrderPlaced:
        return OrderPlaced(order_id=self.order_id, customer_id="1", lines=self.lines, total=Decimal(0))

    @stock.on_failure
    def refused(self, reply: Refused) -> None:
        self.lines = []

    @stock.compensation(success=StockReleased)
    def release(self) -> ReleaseStock:
        return ReleaseStock(order_id=self.order_id)

    @child(Reserved, undo=None)
    def more(self) -> OrderPlaced:
        return OrderPlaced(order_id=self.order_id, customer_id="2", lines=self.lines, total=Decimal(0))

    flow = stock >> more


def what_a_parent_offers(parent: Parent) -> None:
    assert_type(parent.stock(), OrderPlaced)
    assert_type(parent.release(), ReleaseStock)


def a_saga_local_to_a_function() -> type[Saga]:
    class Begun(Event, name="sample.Begun"):
        number: int
        at: datetime = datetime(2026, 1, 1, tzinfo=UTC)

    class Do(Command, name="sample.Do"):
        number: int

    class Done(Event, name="sample.Done"):
        number: int

    class Local(Saga, key="number"):
        number: int

        @start
        def begun(cls, event: Begun) -> Self:
            return cls(number=event.number)

        @step
        def do(self) -> Do:
            return Do(number=self.number)

        @do.on_success
        def done(self, reply: Done) -> None:
            self.number = reply.number

    assert_type(Local(number=1).do(), Do)
    return Local
