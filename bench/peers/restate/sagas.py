"""The ordering saga twice: with steps in other services, and with steps inside its own process."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from codec import Json
from participants import carry_out, label, pay, refund, release, reserve, undone, void
from restate import Context, RunOptions, Service
from restate.exceptions import TerminalError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

KEEP = {"journal_retention": timedelta(0), "idempotency_retention": timedelta(days=1)}
JSON = Json()
RUN = RunOptions[Any](serde=JSON)

calling = Service("Ordering", **KEEP)
inside = Service("Ordering", **KEEP)


@calling.handler("place", input_serde=JSON, output_serde=JSON)
async def by_calls(ctx: Context, order: dict[str, Any]) -> dict[str, str]:
    """Every step is a durable call of a participant."""
    order_id = order["order_id"]
    answers: dict[str, str] = {}
    undo: list[Any] = []
    try:
        undo.append(release)
        answers |= await ctx.service_call(reserve, {"order_id": order_id, "lines": order["lines"]})
        undo.append(refund)
        answers |= await ctx.service_call(pay, {"order_id": order_id, "amount": order["total"]})
        undo.append(void)
        answers |= await ctx.service_call(label, {"order_id": order_id})
    except TerminalError:
        for compensation in reversed(undo):
            await ctx.service_call(compensation, {"order_id": order_id})
        raise
    return answers


def step(name: str, order_id: str) -> Callable[[], Awaitable[str]]:
    """The side effect of a step."""

    async def do() -> str:
        return carry_out(name, order_id)

    return do


def compensation(name: str) -> Callable[[], Awaitable[None]]:
    """The side effect that undoes a step."""

    async def do() -> None:
        undone[name] += 1

    return do


@inside.handler("place", input_serde=JSON, output_serde=JSON)
async def by_side_effects(ctx: Context, order: dict[str, Any]) -> dict[str, str]:
    """Every step is a side effect, durable in the journal before the next one begins."""
    order_id = order["order_id"]
    answers: dict[str, str] = {}
    undo: list[tuple[str, str]] = []
    try:
        undo.append(("release", "stock"))
        answers["reservation_id"] = await ctx.run_typed("reserve", step("stock", order_id), RUN)
        undo.append(("refund", "payment"))
        answers["payment_id"] = await ctx.run_typed("pay", step("payment", order_id), RUN)
        undo.append(("void", "warehouse"))
        answers["tracking_code"] = await ctx.run_typed("label", step("warehouse", order_id), RUN)
    except TerminalError:
        for name, participant in reversed(undo):
            await ctx.run_typed(name, compensation(participant), RUN)
        raise
    return answers
