"""The ordering saga as a DBOS workflow: three steps, each with a compensating step taken in reverse order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dbos import DBOS

if TYPE_CHECKING:
    from collections.abc import Callable

    Ask = Callable[[dict[str, Any]], dict[str, str]]

_ask: Ask


def reach_participants(ask: Ask) -> None:
    """Say how the steps reach the participants."""
    global _ask
    _ask = ask


@DBOS.step()
def reserve(order_id: str, lines: list[dict[str, Any]]) -> str:
    return _ask({"to": "stock", "order_id": order_id, "lines": lines})["reservation_id"]


@DBOS.step()
def release(order_id: str, reservation_id: str) -> None:
    _ask({"to": "stock", "order_id": order_id, "undo": reservation_id})


@DBOS.step()
def pay(order_id: str, amount: str) -> str:
    return _ask({"to": "payment", "order_id": order_id, "amount": amount})["payment_id"]


@DBOS.step()
def refund(order_id: str, payment_id: str) -> None:
    _ask({"to": "payment", "order_id": order_id, "undo": payment_id})


@DBOS.step()
def label(order_id: str) -> str:
    return _ask({"to": "warehouse", "order_id": order_id})["tracking_code"]


@DBOS.step()
def void(order_id: str) -> None:
    _ask({"to": "warehouse", "order_id": order_id, "undo": "label"})


@DBOS.workflow()
def ordering(order: dict[str, Any]) -> dict[str, str]:
    """Reserve, pay, label; whatever had been done is undone when a later step fails."""
    order_id = order["order_id"]
    undo: list[Callable[[], None]] = []
    try:
        reservation_id = reserve(order_id, order["lines"])
        undo.append(lambda: release(order_id, reservation_id))
        payment_id = pay(order_id, order["total"])
        undo.append(lambda: refund(order_id, payment_id))
        undo.append(lambda: void(order_id))  # a label that may have been made is voided; void asks for an order
        tracking_code = label(order_id)
    except Exception:
        for compensate in reversed(undo):
            compensate()
        raise
    return {"reservation_id": reservation_id, "payment_id": payment_id, "tracking_code": tracking_code}
