"""Ordering several times over: the same saga under other names, each started by an event of its own.

For `ANTIPHON_MODULES`. How many there are is said by the variable `BENCH_SAGA_TYPES`, one when it is not there.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Self

from messages.catalog.ordering import OrderPlaced
from sagas import start
from sagas.catalog.ordering import PlaceOrder

if TYPE_CHECKING:
    from sagas import Saga

VARIABLE = "BENCH_SAGA_TYPES"


def name_of(number: int) -> str:
    """Of a saga type."""
    return f"PlaceOrder{number}"


def event_of(number: int) -> str:
    """Of the event that starts it."""
    return f"scale.OrderPlaced{number}"


def _ordering(number: int) -> type[Saga]:
    class Placed(OrderPlaced, name=event_of(number)):
        pass

    class Ordering(PlaceOrder, key="order_id", name=name_of(number)):
        @start
        def placed(cls, event: Placed) -> Self:  # type: ignore[override] # in place of the event that starts all others
            return cls(order_id=event.order_id, lines=event.lines, total=event.total)

    return Ordering


for _number in range(1, int(os.environ.get(VARIABLE, "1")) + 1):
    globals()[name_of(_number)] = _ordering(_number)
