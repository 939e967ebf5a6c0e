"""The wire contract as every contender and participant of the benchmark speaks it: names, queues and bodies.

Written from the contract and not from Antiphon's code, as a service in another language would be.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

ORDER_PLACED = "ordering.OrderPlaced"
RESERVE_STOCK, STOCK_RESERVED = "stock.ReserveStock", "stock.StockReserved"
MAKE_PAYMENT, PAYMENT_COMPLETED = "payment.MakePayment", "payment.PaymentCompleted"
CREATE_LABEL, LABEL_CREATED = "warehouse.CreateShippingLabel", "warehouse.ShippingLabelCreated"

COMMAND_OF = {"stock": RESERVE_STOCK, "payment": MAKE_PAYMENT, "warehouse": CREATE_LABEL}
"""The one command that each participant of the happy path takes."""

REPLY_OF = {
    "stock": (STOCK_RESERVED, "reservation_id"),
    "payment": (PAYMENT_COMPLETED, "payment_id"),
    "warehouse": (LABEL_CREATED, "tracking_code"),
}
"""What it answers, and the field of the answer that it makes up."""

MESSAGES_PER_SAGA = 4
"""What the orchestrating service takes in for one order: the order and three replies."""


def events_exchange(namespace: str) -> str:
    return f"{namespace}.events"


def commands_exchange(namespace: str) -> str:
    return f"{namespace}.commands"


def dead_exchange(namespace: str) -> str:
    """The fanout exchange behind every queue, with a queue of the same name."""
    return f"{namespace}.dead"


def participant_queue(namespace: str, name: str) -> str:
    return f"{namespace}.bench.{name}"


def service_queue(namespace: str) -> str:
    """Where a hand-written service takes its orders and its replies."""
    return f"{namespace}.ordering"


def saga_queue(namespace: str, saga_type: str = "PlaceOrder") -> str:
    """Where Antiphon takes them."""
    return f"{namespace}.saga.{saga_type}"


def queue_arguments(namespace: str) -> dict[str, str | int]:
    """Of every consumed queue, whoever consumes it: the broker does the same work for every contender."""
    return {
        "x-queue-type": "quorum",
        "x-delivery-limit": 1000,
        "x-dead-letter-exchange": dead_exchange(namespace),
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }


def order_placed(order_id: str) -> bytes:
    """The body of the event that starts one saga."""
    return encode(
        {
            "order_id": order_id,
            "customer_id": "customer-7",
            "lines": [
                {"sku": "kettle", "quantity": 1, "unit_price": "34.90"},
                {"sku": "tea-250g", "quantity": 3, "unit_price": "8.50"},
            ],
            "total": "60.40",
        }
    )


def encode(fields: Mapping[str, object]) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode()
