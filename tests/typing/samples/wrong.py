"""Mistakes that type checkers report before the class is ever created; each line says who reports it."""

# mypy: ignore-errors

from datetime import timedelta
from decimal import Decimal
from typing import Self

from messages.catalog.ordering import (
    MakePayment,
    OrderPlaced,
    OutOfStock,
    PaymentCompleted,
    ReleaseStock,
    ReserveStock,
    StockReleased,
    StockReserved,
)
from sagas import Alias, Retry, Saga, announce, child, start, step


class Wrong(Saga, key="order_id"):
    order_id: str
    payment_id: str | None = None

    @start
    def placed(cls, event: OrderPlaced) -> Self:
        return cls(order_id=event.order_id, customer=event.customer_id)  # reported: mypy, pyright

    @step(success=StockReserved)  # reported: mypy, pyright
    def no_command(self) -> int:
        return 1

    @step(success=StockReserved)  # reported: mypy, pyright
    def an_event(self) -> StockReserved:
        return StockReserved(order_id="1", reservation_id="2")

    @step(success=StockReserved)  # reported: mypy, pyright
    def a_parameter(self, more: int) -> ReserveStock:
        return ReserveStock(order_id=str(more), lines=[])

    @step(success=StockReserved)  # reported: mypy, pyright
    async def asynchronous(self) -> ReserveStock:
        return ReserveStock(order_id=self.order_id, lines=[])

    @step(sucess=StockReserved)  # reported: mypy, pyright
    def misspelt(self) -> ReserveStock:
        return ReserveStock(order_id=self.order_id, lines=[])

    @step(timeout=30, success=StockReserved)  # reported: mypy, pyright
    def seconds(self) -> ReserveStock:
        return ReserveStock(order_id=self.order_id, lines=[])

    @step(retry=Retry(backoff=5), success=StockReserved)  # reported: mypy, pyright
    def pause(self) -> ReserveStock:
        return ReserveStock(order_id=self.order_id, lines=[])

    @step(success=ReserveStock)  # reported: mypy, pyright
    def answered_by_a_command(self) -> ReserveStock:
        return ReserveStock(order_id=self.order_id, lines=[])

    @step(in_doubt="hope", success=StockReserved)  # reported: mypy, pyright
    def hopeful(self) -> ReserveStock:
        return ReserveStock(order_id=self.order_id, lines=[])

    @step(until=True, success=StockReserved)  # reported: mypy, pyright
    def pivotal(self) -> ReserveStock:
        return ReserveStock(order_id=self.order_id, lines=[])

    @step
    def pay(self) -> MakePayment:
        return MakePayment(order_id=self.order_id, sum=Decimal(1))  # reported: mypy, pyright

    @pay.on_sucess  # reported: mypy, pyright
    def paid(self, reply: PaymentCompleted) -> None:
        self.payment_id = reply.payment_id

    @pay.on_success  # reported: mypy, pyright
    def a_command(self, reply: MakePayment) -> None: ...

    @pay.on_success  # reported: mypy, pyright
    def no_reply(self) -> None: ...

    @pay.on_success  # reported: mypy, pyright
    def returning(self, reply: PaymentCompleted) -> str:
        return reply.payment_id

    @pay.on_failure()  # reported: mypy, pyright
    def called(self, reply: OutOfStock) -> None: ...

    @pay.on_failure
    def attribute(self, reply: OutOfStock) -> None:
        self.payment_id = reply.payment_id  # reported: mypy, pyright

    @pay.compensation(success=StockReleased, in_doubt="undo")  # reported: mypy, pyright
    def refund(self) -> ReleaseStock:
        return ReleaseStock(order_id=self.payment_id)  # reported: mypy, pyright

    @announce("complete")  # reported: mypy, pyright
    def misspelt_moment(self) -> StockReleased:
        return StockReleased(order_id=self.order_id)

    @announce  # reported: mypy, pyright
    def without_moment(self) -> StockReleased:
        return StockReleased(order_id=self.order_id)

    @announce("completed")  # reported: mypy, pyright
    def told_by_a_command(self) -> ReleaseStock:
        return ReleaseStock(order_id=self.order_id)

    @pay.announce  # reported: mypy, pyright
    def told_of_a_step_by_a_command(self) -> ReleaseStock:
        return ReleaseStock(order_id=self.order_id)


class WithChildren(Saga, key="order_id"):
    order_id: str

    @start
    def placed(cls, event: OrderPlaced) -> Self:
        return cls(order_id=event.order_id)

    @child(Wrong)  # reported: mypy, pyright
    def without_undo(self) -> OrderPlaced:
        raise NotImplementedError

    @child(OrderPlaced, undo=None)  # reported: mypy, pyright
    def no_saga(self) -> OrderPlaced:
        raise NotImplementedError

    @child(Wrong, undo=StockReleased)  # reported: mypy, pyright
    def undone_by_an_event(self) -> OrderPlaced:
        raise NotImplementedError

    @child(Wrong, undo=None)  # reported: mypy, pyright
    def started_by_a_command(self) -> ReserveStock:
        raise NotImplementedError

    @child(Wrong, undo=None, retry=Retry())  # reported: mypy, pyright
    def tried_again(self) -> OrderPlaced:
        raise NotImplementedError


class WithCompensationInFlow(Saga, key="order_id"):
    order_id: str

    @start
    def placed(cls, event: OrderPlaced) -> Self:
        return cls(order_id=event.order_id)

    @step(success=StockReserved)
    def reserve(self) -> ReserveStock:
        return ReserveStock(order_id=self.order_id, lines=[])

    @reserve.compensation(success=StockReleased)
    def release(self) -> ReleaseStock:
        return ReleaseStock(order_id=self.order_id)

    flow = reserve >> release  # reported: mypy, pyright


class WithHookInFlow(Saga, key="order_id"):
    order_id: str

    @start
    def placed(cls, event: OrderPlaced) -> Self:
        return cls(order_id=event.order_id)

    @step
    def pay(self) -> MakePayment:
        return MakePayment(order_id=self.order_id, amount=Decimal(1))

    @pay.on_success
    def paid(self, reply: PaymentCompleted) -> None: ...

    flow = paid >> pay  # reported: mypy, pyright


class WithTextAsFlow(Saga, key="order_id"):
    order_id: str
    flow = "reserve"  # reported: mypy, pyright


def parcel_of(event: StockReleased) -> float:
    return float(event.order_id)


nowhere = Alias("parcel", at=7)  # reported: mypy, pyright
nothing = Alias("parcel", at=parcel_of)  # reported: mypy, pyright


def in_a_test(order: Wrong) -> None:
    order.attribute(StockReleased(order_id="1"))  # reported: mypy, pyright
    order.now = timedelta()  # reported: mypy, pyright
    order.pay(1)  # reported: mypy, pyright
