"""The ordering saga in sagaz's decorator style, and where its steps are carried out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import participants
from sagaz import Saga, action, compensate

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from calls import Caller

Context = dict[str, Any]
PATIENCE: Any = None
"""Seconds for a step; sagaz's own type is float, None is what asyncio.wait_for takes for no limit."""

caller: Caller | None = None
"""The connection to the participants' process, or None where the steps run inside this one."""


async def inside(name: str, verb: str, asked: Context) -> Context:
    return participants.VERBS[name, verb](name, asked)


def ask(name: str, verb: str, asked: Context) -> Awaitable[Context]:
    return caller.ask(name, verb, asked) if caller else inside(name, verb, asked)


class OrderSaga(Saga):
    """Reserve the stock, take the payment, label the parcel; undone in reverse order."""

    saga_name = "ordering"

    @action("stock", timeout_seconds=PATIENCE)
    async def reserve(self, order: Context) -> Context:
        return await ask("stock", "reserve", {"order_id": order["order_id"], "lines": order["lines"]})

    @compensate("stock")
    async def release(self, order: Context) -> None:
        await ask("stock", "release", {"order_id": order["order_id"], "reservation_id": order["reservation_id"]})

    @action("payment", depends_on=["stock"], timeout_seconds=PATIENCE)
    async def pay(self, order: Context) -> Context:
        return await ask("payment", "pay", {"order_id": order["order_id"], "amount": order["total"]})

    @compensate("payment")
    async def refund(self, order: Context) -> None:
        await ask("payment", "refund", {"order_id": order["order_id"], "payment_id": order["payment_id"]})

    @action("warehouse", depends_on=["payment"], timeout_seconds=PATIENCE)
    async def label(self, order: Context) -> Context:
        return await ask("warehouse", "label", {"order_id": order["order_id"]})

    @compensate("warehouse")
    async def void(self, order: Context) -> None:
        await ask("warehouse", "void", {"order_id": order["order_id"], "tracking_code": order["tracking_code"]})


def placed(order_id: str) -> Context:
    """The order as it comes in."""
    return {
        "order_id": order_id,
        "customer_id": "customer-7",
        "lines": [
            {"sku": "kettle", "quantity": 1, "unit_price": "34.90"},
            {"sku": "tea-250g", "quantity": 3, "unit_price": "8.50"},
        ],
        "total": "60.40",
    }
