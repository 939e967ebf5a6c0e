"""The ordering process, told as a business analyst would: what arrives, what is sent, how it ends."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

from messages.catalog.ordering import (
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
    StockReleased,
    StockReserved,
    VoidShippingLabel,
)
from sagas import Policies, definition_of, with_policies
from sagas.catalog.ordering import PlaceOrder
from testkit import Harness

LINES = (OrderLine(sku="tea", quantity=2, unit_price=Decimal("4.50")),)
PLACED = OrderPlaced(order_id="o-1", customer_id="c-1", lines=list(LINES), total=Decimal("9.00"))
RESERVED = StockReserved(order_id="o-1", reservation_id="r-1")
PAID = PaymentCompleted(order_id="o-1", payment_id="p-1")


def order() -> Harness:
    return Harness(PlaceOrder).given(PLACED)


def test_an_order_is_reserved_paid_and_labelled() -> None:
    saga = order()
    assert saga.sent == [ReserveStock(order_id="o-1", lines=list(LINES))]
    assert saga.receives(RESERVED).sent == [MakePayment(order_id="o-1", amount=Decimal("9.00"))]
    assert saga.receives(PAID).sent == [CreateShippingLabel(order_id="o-1")]
    saga.receives(ShippingLabelCreated(order_id="o-1", tracking_code="T-1"))
    assert saga.status == "completed"
    assert saga.state.tracking_code == "T-1"
    assert saga.instance.waiting_for is None


def test_out_of_stock_ends_without_anything_to_undo() -> None:
    saga = order().receives(OutOfStock(order_id="o-1"))
    assert (saga.status, saga.sent) == ("compensated", [])
    assert saga.instance.end_reason == "failed"


def test_a_declined_payment_gives_the_stock_back() -> None:
    saga = order().receives(RESERVED).receives(PaymentDeclined(order_id="o-1"))
    assert saga.sent == [ReleaseStock(order_id="o-1", reservation_id="r-1")]
    assert saga.receives(StockReleased(order_id="o-1")).status == "compensated"


def test_a_refused_label_is_undone_in_reverse_order() -> None:
    saga = order().receives(RESERVED).receives(PAID).receives(LabelRefused(order_id="o-1"))
    assert saga.sent == [RefundPayment(order_id="o-1", payment_id="p-1")]
    assert saga.receives(PaymentRefunded(order_id="o-1")).sent == [ReleaseStock(order_id="o-1", reservation_id="r-1")]
    assert saga.receives(StockReleased(order_id="o-1")).status == "compensated"


def test_an_undo_carries_the_key_of_what_it_undoes() -> None:
    saga = order().receives(RESERVED).receives(PaymentDeclined(order_id="o-1"))
    assert saga.log[-1].compensates == saga.log[0].idempotency_key


def test_a_busy_gateway_is_asked_again_under_a_new_id_and_the_same_key() -> None:
    saga = order().receives(RESERVED).receives(PaymentGatewayBusy(order_id="o-1"))
    assert saga.sent == []
    assert saga.advance(timedelta(seconds=2)).sent == [MakePayment(order_id="o-1", amount=Decimal("9.00"))]
    first, second = saga.log[-2:]
    assert first.message_id != second.message_id
    assert first.idempotency_key == second.idempotency_key


def test_a_silent_participant_is_sent_the_same_command_again() -> None:
    saga = order().advance(timedelta(minutes=1))
    assert saga.sent == [ReserveStock(order_id="o-1", lines=list(LINES))]
    assert saga.log[0].message_id == saga.log[1].message_id


def test_a_participant_that_never_answers_is_in_doubt_and_undone() -> None:
    saga = order().receives(RESERVED).advance(timedelta(minutes=20))
    assert "step_timed_out" in saga.kinds
    assert saga.log[-1].command == RefundPayment(order_id="o-1", payment_id=None)
    saga.receives(PaymentRefunded(order_id="o-1")).receives(StockReleased(order_id="o-1"))
    assert (saga.status, saga.instance.end_reason) == ("compensated", "timed_out")


def test_a_success_after_the_timeout_is_covered_by_the_undo_under_way() -> None:
    saga = order().receives(RESERVED).advance(timedelta(minutes=20))
    payment = next(sent for sent in saga.log if isinstance(sent.command, MakePayment))
    saga.receives(PAID, to=payment)
    assert saga.kinds[-1] == "late_success"
    assert saga.sent == []
    saga.receives(PaymentRefunded(order_id="o-1")).receives(StockReleased(order_id="o-1"))
    assert (saga.status, saga.attention) == ("compensated", {})


def test_a_late_label_is_voided_before_the_payment_is_returned() -> None:
    saga = order().receives(RESERVED).receives(PAID).advance(timedelta(minutes=10))
    assert saga.log[-1].command == VoidShippingLabel(order_id="o-1", tracking_code=None)


def test_the_deadline_turns_the_order_back_once_the_pending_step_is_known() -> None:
    hurried = with_policies(definition_of(PlaceOrder), Policies(deadline=timedelta(minutes=2)))
    saga = Harness(hurried).given(PLACED).receives(RESERVED).advance(timedelta(minutes=2))
    assert (saga.status, saga.instance.end_reason, saga.sent) == ("compensating", "deadline", [])
    assert saga.receives(PAID).sent == [RefundPayment(order_id="o-1", payment_id="p-1")]
    saga.receives(PaymentRefunded(order_id="o-1")).receives(StockReleased(order_id="o-1"))
    assert saga.status == "compensated"


def test_a_duplicate_start_is_the_same_order() -> None:
    saga = order().given(PLACED)
    assert (saga.reason, saga.sent) == ("duplicate_start", [])


def test_a_reply_without_its_command_id_answers_the_one_command_that_waits_for_it() -> None:
    assert order().hears(RESERVED).sent == [MakePayment(order_id="o-1", amount=Decimal("9.00"))]


def test_a_reply_nobody_waits_for_changes_nothing() -> None:
    saga = order().hears(PAID)
    assert saga.reason == "not_awaited"
    assert saga.kinds[-1] == "message_ignored"
