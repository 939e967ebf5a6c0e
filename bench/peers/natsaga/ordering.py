"""The ordering saga in natsaga's style, and the JetStream streams that carry its commands and replies."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from nats.js.api import StorageType, StreamConfig
from natsaga.core.saga import Saga
from natsaga.core.step import Step

if TYPE_CHECKING:
    from nats.js import JetStreamContext

COMMANDS = "SAGA_COMMANDS"
REPLIES = "SAGA_RESPONSES"
DAY = 86_400.0
PATIENCE = 60
ANSWERS = {"stock": "reservation_id", "payment": "payment_id", "warehouse": "tracking_code"}


class OrderSaga(Saga):
    """Reserve the stock, take the payment, label the parcel; undone in reverse order."""

    saga_type = "ordering"
    _steps = (
        Step("reserve", "stock.reserve", "stock.release", timeout_seconds=PATIENCE),
        Step("pay", "payment.pay", "payment.refund", timeout_seconds=PATIENCE),
        Step("label", "warehouse.label", "warehouse.void", timeout_seconds=PATIENCE),
    )

    @classmethod
    def steps(cls) -> list[Step]:
        return list(cls._steps)


FORWARD = {step.action_subject for step in OrderSaga.steps()}
SUBJECTS = [subject for step in OrderSaga.steps() for subject in (step.action_subject, step.compensation_subject)]


def saga_id(order_id: str) -> uuid.UUID:
    """An order's saga: the same id every time, so that the primary key refuses a second one."""
    return uuid.uuid5(uuid.NAMESPACE_URL, f"order:{order_id}")


def placed(order_id: str) -> dict[str, Any]:
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


async def declare(js: JetStreamContext) -> None:
    """Make both streams, on disk."""
    for name, subjects in ((COMMANDS, SUBJECTS), (REPLIES, [f"{subject}.response.>" for subject in SUBJECTS])):
        await js.add_stream(StreamConfig(name=name, subjects=subjects, storage=StorageType.FILE, max_age=DAY))
