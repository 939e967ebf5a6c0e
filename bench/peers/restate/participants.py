"""The three participants as Restate services: each counts the order in a ledger in memory and answers."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import timedelta
from typing import Any

from codec import Json
from restate import Context, Service

ledger: dict[str, defaultdict[str, int]] = {name: defaultdict(int) for name in ("stock", "payment", "warehouse")}
undone: Counter[str] = Counter()

KEEP = {"ingress_private": True, "journal_retention": timedelta(0)}
CODEC = {"input_serde": Json(), "output_serde": Json()}

stock = Service("Stock", **KEEP)
payment = Service("Payment", **KEEP)
warehouse = Service("Warehouse", **KEEP)


def carry_out(name: str, order_id: str) -> str:
    """What every participant does for its step."""
    ledger[name][order_id] += 1
    return f"{name}-{order_id}"


@stock.handler(**CODEC)
async def reserve(ctx: Context, request: dict[str, Any]) -> dict[str, str]:
    return {"reservation_id": carry_out("stock", request["order_id"])}


@stock.handler(**CODEC)
async def release(ctx: Context, request: dict[str, Any]) -> None:
    undone["stock"] += 1


@payment.handler(**CODEC)
async def pay(ctx: Context, request: dict[str, Any]) -> dict[str, str]:
    return {"payment_id": carry_out("payment", request["order_id"])}


@payment.handler(**CODEC)
async def refund(ctx: Context, request: dict[str, Any]) -> None:
    undone["payment"] += 1


@warehouse.handler(**CODEC)
async def label(ctx: Context, request: dict[str, Any]) -> dict[str, str]:
    return {"tracking_code": carry_out("warehouse", request["order_id"])}


@warehouse.handler(**CODEC)
async def void(ctx: Context, request: dict[str, Any]) -> None:
    undone["warehouse"] += 1
