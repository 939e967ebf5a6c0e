"""What a right class compiles to."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Generic, Self, TypeVar, Union
from uuid import UUID

import pytest
from pydantic import Field

from messages import Command, Event
from messages.catalog.ordering import (
    CardExpired,
    MakePayment,
    OrderPlaced,
    OutOfStock,
    PaymentCompleted,
    PaymentDeclined,
    ReleaseStock,
    ReserveStock,
    StockReleased,
    StockReserved,
)
from messages.errors import DefinitionError
from sagas import Retry, Saga, definition_of, start, step
from sagas.catalog.ordering import PlaceOrder
from sagas.definition import Purpose, ReplyKind, SequenceNode, StepNode

if TYPE_CHECKING:
    from collections.abc import Callable


class Reserving(Saga, abstract=True):
    """A step with hooks and a compensation, for others to extend."""

    order_id: str
    reservation_id: str | None = None

    @start
    def placed(cls, event: OrderPlaced) -> Self:
        return cls(order_id=event.order_id)

    @step(failure=OutOfStock)
    def reserve(self) -> ReserveStock:
        return ReserveStock(order_id=self.order_id, lines=[])

    @reserve.on_success
    def reserved(self, reply: StockReserved) -> None:
        self.reservation_id = reply.reservation_id

    @reserve.compensation
    def release(self) -> ReleaseStock:
        return ReleaseStock(order_id=self.order_id, reservation_id=self.reservation_id)

    @release.on_success
    def released(self, reply: StockReleased) -> None:
        self.reservation_id = None


def names(node: object) -> list[str]:
    assert isinstance(node, SequenceNode)
    return [child.step for child in node.children if isinstance(child, StepNode)]


def test_the_ordering_saga_reserves_pays_and_labels() -> None:
    definition = definition_of(PlaceOrder)
    assert names(definition.flow) == ["reserve", "pay", "label"]
    assert (definition.type, definition.version, definition.key) == ("PlaceOrder", 1, "order_id")
    assert definition.deadline == timedelta(days=3)
    assert {name: step.undo.name for name, step in definition.steps.items() if step.undo} == {
        "reserve": "release",
        "pay": "refund",
        "label": "void",
    }


def test_keywords_and_hooks_declare_replies_alike() -> None:
    pay = definition_of(PlaceOrder).steps["pay"].do
    assert {name: reply.kind for name, reply in pay.replies.items()} == {
        "payment.PaymentCompleted": ReplyKind.SUCCESS,
        "payment.PaymentDeclined": ReplyKind.FAILURE,
        "payment.CardExpired": ReplyKind.FAILURE,
        "payment.PaymentGatewayBusy": ReplyKind.TRANSIENT,
    }
    assert pay.replies["payment.PaymentCompleted"].hook is PlaceOrder.paid
    assert pay.replies["payment.PaymentDeclined"].hook is None


def test_every_message_of_the_saga_is_named() -> None:
    definition = definition_of(PlaceOrder)
    assert set(definition.events) == {
        "ordering.OrderPlaced",
        "stock.StockReserved",
        "stock.OutOfStock",
        "stock.StockReleased",
        "payment.PaymentCompleted",
        "payment.PaymentDeclined",
        "payment.CardExpired",
        "payment.PaymentGatewayBusy",
        "payment.PaymentRefunded",
        "warehouse.ShippingLabelCreated",
        "warehouse.LabelRefused",
        "warehouse.ShippingLabelVoided",
    }
    assert set(definition.commands) == {
        "stock.ReserveStock",
        "stock.ReleaseStock",
        "payment.MakePayment",
        "payment.RefundPayment",
        "warehouse.CreateShippingLabel",
        "warehouse.VoidShippingLabel",
    }
    assert definition.answers["stock.StockReleased"] == (("reserve", Purpose.UNDO),)
    assert set(definition.answers) == set(definition.events) - {"ordering.OrderPlaced"}


def test_one_reply_may_answer_several_commands() -> None:
    class X(Reserving, key="order_id"):
        @step(success=StockReserved)
        def reserve_more(self) -> ReserveStock:
            return ReserveStock(order_id=self.order_id, lines=[])

    assert definition_of(X).answers["stock.StockReserved"] == (
        ("reserve", Purpose.DO),
        ("reserve_more", Purpose.DO),
    )


def test_an_undo_tells_the_fields_that_only_its_own_step_sets() -> None:
    steps = definition_of(PlaceOrder).steps
    assert steps["reserve"].undo_reads == {"reservation_id"}
    assert steps["label"].undo_reads == {"tracking_code"}


def test_an_undo_that_reads_through_a_property_tells_so_too() -> None:
    class X(Saga, key="order_id"):
        order_id: str
        payment_id: str | None = None

        @property
        def payment(self) -> str:
            return self.payment_id or "none"

        @start
        def placed(cls, event: OrderPlaced) -> Self:
            return cls(order_id=event.order_id)

        @step
        def pay(self) -> MakePayment:
            return MakePayment(order_id=self.order_id, amount=Decimal(1))

        @pay.on_success
        def paid(self, reply: PaymentCompleted) -> None:
            self.remember(reply.payment_id)

        def remember(self, payment_id: str) -> None:
            self.payment_id = payment_id

        @pay.compensation(reply=False)
        def release(self) -> ReleaseStock:
            return ReleaseStock(order_id=self.order_id, reservation_id=self.payment)

    assert definition_of(X).steps["pay"].undo_reads == {"payment_id"}


def test_what_is_not_said_has_its_default() -> None:
    class X(Reserving, key="order_id"): ...

    definition = definition_of(X)
    reserve = definition.steps["reserve"]
    assert definition.deadline == timedelta(days=7)
    assert (definition.version, definition.key_reuse) == (1, False)
    assert reserve.do.timeout == timedelta(seconds=30)
    assert reserve.do.retry == Retry(
        attempts=3, backoff=timedelta(seconds=1), factor=2.0, cap=timedelta(minutes=1), jitter=0.1
    )
    assert reserve.undo is not None
    assert reserve.undo.timeout == timedelta(seconds=30)
    assert reserve.undo.retry == Retry(attempts=10, cap=timedelta(hours=1))
    assert (reserve.in_doubt, reserve.on_silence) == ("undo", "resend")


def test_what_is_said_counts() -> None:
    class X(Saga, key="order_id", version=3, deadline=timedelta(hours=1), name="Orders", key_reuse=True):
        order_id: str

        @start
        def placed(cls, event: OrderPlaced) -> Self:
            return cls(order_id=event.order_id)

        @step(
            timeout=timedelta(minutes=2),
            retry=Retry(attempts=7),
            success=StockReserved,
            failure=(OutOfStock,),
            transient=PaymentDeclined,
            in_doubt="wait",
            on_silence="new_attempt",
        )
        def reserve(self) -> ReserveStock:
            return ReserveStock(order_id=self.order_id, lines=[])

        @reserve.compensation(timeout=timedelta(minutes=3), retry=Retry(attempts=20), reply=False)
        def release(self) -> ReleaseStock:
            return ReleaseStock(order_id=self.order_id)

    definition = definition_of(X)
    reserve = definition.steps["reserve"]
    assert (definition.type, definition.version, definition.key_reuse) == ("Orders", 3, True)
    assert definition.deadline == timedelta(hours=1)
    assert (reserve.do.timeout, reserve.do.retry.attempts) == (timedelta(minutes=2), 7)
    assert (reserve.in_doubt, reserve.on_silence) == ("wait", "new_attempt")
    assert reserve.undo is not None
    assert (reserve.undo.timeout, reserve.undo.retry.attempts) == (timedelta(minutes=3), 20)
    assert reserve.undo.replies == {}


def test_a_hook_takes_each_type_of_a_union() -> None:
    class X(Saga, key="order_id"):
        order_id: str
        why: str = ""

        @start
        def placed(cls, event: OrderPlaced) -> Self:
            return cls(order_id=event.order_id)

        @step(success=PaymentCompleted)
        def pay(self) -> MakePayment:
            return MakePayment(order_id=self.order_id, amount=Decimal(1))

        @pay.on_failure
        def refused(self, reply: PaymentDeclined | CardExpired) -> None:
            self.why = type(reply).__name__

    replies = definition_of(X).steps["pay"].do.replies
    assert replies["payment.PaymentDeclined"].hook is X.refused
    assert replies["payment.CardExpired"].hook is X.refused


Refusal = Union[PaymentDeclined, Annotated[CardExpired, "by the bank"]]  # noqa: UP007 - the older spelling too


def test_a_union_may_have_a_name() -> None:
    class X(Saga, key="order_id"):
        order_id: str
        why: str = ""

        @start
        def placed(cls, event: OrderPlaced) -> Self:
            return cls(order_id=event.order_id)

        @step(success=PaymentCompleted)
        def pay(self) -> Annotated[MakePayment, "all of it"]:
            return MakePayment(order_id=self.order_id, amount=Decimal(1))

        @pay.on_failure
        def refused(self, reply: Refusal) -> None:
            self.why = type(reply).__name__

    assert set(definition_of(X).events) >= {"payment.PaymentDeclined", "payment.CardExpired"}
    assert definition_of(X).steps["pay"].do.command is MakePayment


def test_messages_local_to_a_function_are_found() -> None:
    class Begun(Event, name="test.Begun"):
        number: int

    class Do(Command, name="test.Do"):
        number: int

    class Done(Event, name="test.Done"):
        number: int

    class X(Saga, key="number"):
        number: int
        seen: list[Done] = Field(default_factory=list)

        @start
        def begun(cls, event: Begun) -> X:
            return X(number=event.number)

        @step
        def do(self) -> Do:
            return Do(number=self.number)

        @do.on_success
        def done(self, reply: Done) -> None:
            self.seen.append(reply)

    definition = definition_of(X)
    saga = definition.starts["test.Begun"].build(X, Begun(number=3))
    assert definition.steps["do"].do.build(saga) == Do(number=3)


def test_an_inherited_method_still_sees_what_was_local_to_its_class() -> None:
    def abstract() -> type[Saga]:
        class Poke(Command, name="test.Poke"): ...

        class Poking(Saga, abstract=True):
            @step(reply=False)
            def poke(self) -> Poke:
                return Poke()

        return Poking

    base = abstract()

    class X(base, key="order_id"):  # type: ignore[misc, valid-type, call-arg]
        order_id: str

        @start
        def placed(cls, event: OrderPlaced) -> Self:
            return cls(order_id=event.order_id)

    assert set(definition_of(X).commands) == {"test.Poke"}


def test_a_key_may_stand_in_another_field_and_under_an_alias() -> None:
    class Imported(Event, name="test.Imported"):
        number: UUID = Field(alias="orderNumber")

    class X(Reserving, key="order_id", keys={Imported: "number"}):
        @start
        def imported(cls, event: Imported) -> Self:
            return cls(order_id=str(event.number))

    fields = {name: key.field for name, key in definition_of(X).keys.items()}
    assert fields == {"ordering.OrderPlaced": "order_id", "test.Imported": "orderNumber"}


def test_a_subclass_inherits_steps_hooks_and_compensation() -> None:
    class X(Reserving, key="order_id"):
        @step(success=PaymentCompleted)
        def pay(self) -> MakePayment:
            return MakePayment(order_id=self.order_id, amount=Decimal(1))

    definition = definition_of(X)
    assert names(definition.flow) == ["reserve", "pay"]
    reserve = definition.steps["reserve"]
    assert reserve.do.replies["stock.StockReserved"].hook is X.reserved
    assert reserve.undo is not None
    assert reserve.undo.replies["stock.StockReleased"].hook is X.released


def test_a_subclass_overrides_a_hook_by_its_name() -> None:
    class X(Reserving, key="order_id"):
        def reserved(self, reply: StockReserved) -> None:
            self.reservation_id = reply.reservation_id.upper()

    assert definition_of(X).steps["reserve"].do.replies["stock.StockReserved"].hook is X.reserved
    assert X.reserved is not Reserving.reserved


def test_a_subclass_overrides_a_step_and_the_inherited_flow_runs_its_own() -> None:
    class Plain(Saga, abstract=True):
        order_id: str

        @start
        def placed(cls, event: OrderPlaced) -> Self:
            return cls(order_id=event.order_id)

        @step(success=StockReserved)
        def reserve(self) -> ReserveStock:
            return ReserveStock(order_id=self.order_id, lines=[])

        @step(success=PaymentCompleted)
        def pay(self) -> MakePayment:
            return MakePayment(order_id=self.order_id, amount=Decimal(1))

        flow = pay >> reserve

    class X(Plain, key="order_id"):
        @step(success=StockReserved, timeout=timedelta(hours=1))
        def reserve(self) -> ReserveStock:
            return ReserveStock(order_id="X", lines=[])

    definition = definition_of(X)
    assert names(definition.flow) == ["pay", "reserve"]
    assert definition.steps["reserve"].do.timeout == timedelta(hours=1)


def test_what_one_subclass_adds_does_not_leak_into_another() -> None:
    class One(Reserving, key="order_id"):
        @Reserving.reserve.on_failure
        def declined(self, reply: PaymentDeclined) -> None: ...

    class Other(Reserving, key="order_id"): ...

    assert "payment.PaymentDeclined" in definition_of(One).events
    assert "payment.PaymentDeclined" not in definition_of(Other).events


def test_a_hook_may_come_from_a_factory() -> None:
    def keep(field: str) -> Callable[[Saga, StockReserved], None]:
        def kept(self: Saga, reply: StockReserved) -> None:
            setattr(self, field, reply.reservation_id)

        return kept

    class X(Saga, key="order_id"):
        order_id: str
        reservation_id: str | None = None

        @start
        def placed(cls, event: OrderPlaced) -> Self:
            return cls(order_id=event.order_id)

        @step
        def reserve(self) -> ReserveStock:
            return ReserveStock(order_id=self.order_id, lines=[])

        reserve.on_success(keep("reservation_id"))

    saga = X(order_id="1")
    hook = definition_of(X).steps["reserve"].do.replies["stock.StockReserved"].hook
    assert hook is not None
    hook(saga, StockReserved(order_id="1", reservation_id="r1"))
    assert saga.reservation_id == "r1"


def test_a_property_with_a_setter_is_no_name_used_twice() -> None:
    class X(Reserving, key="order_id"):
        @property
        def reservation(self) -> str | None:
            return self.reservation_id

        @reservation.setter
        def reservation(self, value: str | None) -> None:
            self.reservation_id = value

        def reserved(self, reply: StockReserved) -> None:
            self.reservation = reply.reservation_id

    assert definition_of(X).steps["reserve"].undo_reads == {"reservation_id"}


def test_a_generic_base_is_extended_with_its_parameter_filled_in() -> None:
    item = TypeVar("item")

    class Keeping(Reserving, Generic[item], abstract=True):
        kept: item | None = None

    class X(Keeping[int], key="order_id"): ...

    assert definition_of(X).type == "X"
    assert X(order_id="1", kept=3).kept == 3


def test_a_concrete_saga_may_be_extended_under_a_key_of_its_own() -> None:
    class First(Reserving, key="order_id"): ...

    class Second(First, key="order_id", version=2, name="First"):
        note: str = ""

    assert (definition_of(Second).type, definition_of(Second).version) == ("First", 2)
    assert definition_of(First).version == 1


def test_a_second_name_for_a_step_is_no_second_step() -> None:
    class X(Reserving, key="order_id"):
        @step(success=PaymentCompleted)
        def pay(self) -> MakePayment:
            return MakePayment(order_id=self.order_id, amount=Decimal(1))

        @step(success=PaymentCompleted)
        def pay_more(self) -> MakePayment:
            return MakePayment(order_id=self.order_id, amount=Decimal(2))

        _tail = pay >> pay_more
        flow = Reserving.reserve >> _tail

    assert list(definition_of(X).steps) == ["reserve", "pay", "pay_more"]
    assert names(definition_of(X).flow) == ["reserve", "pay", "pay_more"]


def test_a_flow_of_one_step_needs_no_arrow() -> None:
    class X(Saga, key="order_id"):
        order_id: str

        @start
        def placed(cls, event: OrderPlaced) -> Self:
            return cls(order_id=event.order_id)

        @step(success=StockReserved)
        def reserve(self) -> ReserveStock:
            return ReserveStock(order_id=self.order_id, lines=[])

        flow = reserve  # type: ignore[assignment]  # mypy sees the method; leave `flow` out instead

    assert names(definition_of(X).flow) == ["reserve"]


def test_a_saga_is_a_plain_object_for_its_authors_tests() -> None:
    order = PlaceOrder(order_id="1", lines=[], total=Decimal(1))
    order.reserved(StockReserved(order_id="1", reservation_id="r1"))
    assert order.reserve() == ReserveStock(order_id="1", lines=[])
    assert order.release() == ReleaseStock(order_id="1", reservation_id="r1")


def test_an_abstract_class_has_no_definition() -> None:
    with pytest.raises(DefinitionError, match="Reserving is abstract"):
        definition_of(Reserving)
