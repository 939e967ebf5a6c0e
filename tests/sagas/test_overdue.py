"""A compensation that takes long is shown to people, until it has come to its end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

from messages import codec
from messages.catalog.ordering import OrderLine, OrderPlaced, PaymentDeclined, StockReleased, StockReserved
from sagas import decide, definition_of
from sagas.catalog.ordering import PlaceOrder
from sagas.instance import Phase, message_id, saga_id
from sagas.outcome import Arrived, TimerFired

if TYPE_CHECKING:
    from messages import Event
    from sagas.instance import Instance

NOW = datetime(2026, 11, 21, tzinfo=UTC)
PLACE_ORDER = definition_of(PlaceOrder)
ID = saga_id("antiphon", "PlaceOrder", "o-1")


def arrived(event: Event, path: str | None = None, purpose: str = "do") -> Arrived:
    return Arrived(
        message_id=f"{event.message_name} {path}",
        name=event.message_name,
        body=codec.encode(event),
        event=event,
        causation_id=message_id(ID, path, 1, 1, purpose) if path else None,
    )


def started() -> Instance:
    line = OrderLine(sku="tea", quantity=1, unit_price=Decimal("4.50"))
    placed = arrived(OrderPlaced(order_id="o-1", customer_id="c-1", lines=[line], total=Decimal("4.50")))
    state = decide.first_state(PLACE_ORDER, placed)
    return decide.start(PLACE_ORDER, placed, state=state, saga_id=ID, key="o-1", n=1, now=NOW).instance


def after(instance: Instance, *events: Arrived) -> Instance:
    for event in events:
        instance = decide.decide(PLACE_ORDER, instance, event, NOW).instance
    return instance


def test_an_overdue_compensation_asks_for_attention_until_it_has_ended() -> None:
    turning = after(
        started(),
        arrived(StockReserved(order_id="o-1", reservation_id="r-1"), "reserve"),
        arrived(PaymentDeclined(order_id="o-1"), "pay"),
    )
    late = NOW + timedelta(days=30)
    fired = TimerFired(name="overdue", fence=turning.timers["overdue"].fence)
    overdue = decide.decide(PLACE_ORDER, turning, fired, late).instance
    assert set(overdue.attention) == {"compensation_overdue"}
    ended = after(overdue, arrived(StockReleased(order_id="o-1"), "reserve", "undo"))
    assert (ended.phase, dict(ended.attention)) == (Phase.COMPENSATED, {})
