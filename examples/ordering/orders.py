"""Orders: what a customer sends, and where they are kept. Announcing an order and keeping it is one transaction.

Nothing of Antiphon is imported: the service knows the function `antiphon.publish` and the view `antiphon.v_saga`.
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    import asyncpg

TABLES = """
    create schema if not exists ordering;
    create table if not exists ordering.orders (
        order_id text primary key,
        customer_id text not null,
        lines jsonb not null,
        total numeric not null,
        placed_at timestamptz not null default now()
    );
"""
_PREPARE_ALONE = "select pg_advisory_xact_lock(hashtext('ordering'))"
_KEEP = """
    insert into ordering.orders (order_id, customer_id, lines, total) values ($1, $2, $3, $4)
    on conflict (order_id) do nothing returning order_id
"""
_ANNOUNCE = "select antiphon.publish('ordering.OrderPlaced', $1, message_id => $2)"
_ORDER = "select order_id, customer_id, lines, total, placed_at from ordering.orders where order_id = $1"
_SAGA = """
    select status, waiting_for, end_reason from antiphon.v_saga
    where saga_type = 'PlaceOrder' and business_key = $1
"""

Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")]


class Line(BaseModel):
    """So many of one article, at a price for each."""

    model_config = ConfigDict(extra="forbid")

    sku: Id
    quantity: int = Field(ge=1, le=1_000_000)
    unit_price: Decimal = Field(ge=0, max_digits=12, decimal_places=2)


class NewOrder(BaseModel):
    """What a customer sends. With an `order_id` of their own they may send it twice."""

    model_config = ConfigDict(extra="forbid")

    order_id: Id = Field(default_factory=lambda: f"order-{uuid4()}")
    customer_id: Id
    lines: list[Line] = Field(min_length=1, max_length=100)

    @property
    def total(self) -> Decimal:
        return sum((line.quantity * line.unit_price for line in self.lines), Decimal(0))

    def is_kept_as(self, row: asyncpg.Record) -> bool:
        """Whether this is the order in that row, sent again."""
        lines = [Line(**line) for line in json.loads(row["lines"])]
        return (self.customer_id, self.lines) == (row["customer_id"], lines)

    def announcement(self) -> str:
        """The event `ordering.OrderPlaced` as JSON: decimals are strings."""
        lines = [line.model_dump(mode="json") for line in self.lines]
        return json.dumps(
            {"order_id": self.order_id, "customer_id": self.customer_id, "lines": lines, "total": str(self.total)}
        )


class Taken(Exception):  # noqa: N818
    """Another order has this id."""


class Orders:
    """The orders in PostgreSQL."""

    def __init__(self, pool: asyncpg.Pool[Any]) -> None:
        self._pool = pool

    async def prepare(self) -> None:
        """Create the tables where they are missing; several processes may start at once."""
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(_PREPARE_ALONE)
            await connection.execute(TABLES)

    async def place(self, order: NewOrder) -> bool:
        """Keep the order and announce it, both or neither. False when it was placed before.

        Raises:
            Taken: another order was placed under this id.
        """
        async with self._pool.acquire() as connection, connection.transaction():
            lines = json.dumps([line.model_dump(mode="json") for line in order.lines])
            kept = await connection.fetchval(_KEEP, order.order_id, order.customer_id, lines, order.total)
            if kept is None:
                row = await connection.fetchrow(_ORDER, order.order_id)
                if row is None or not order.is_kept_as(row):
                    raise Taken(order.order_id)
                return False
            await connection.execute(_ANNOUNCE, order.announcement(), f"{order.order_id}-placed")
            return True

    async def find(self, order_id: str) -> dict[str, Any] | None:
        """The order, and how far its saga has come: None until the saga has heard of it."""
        async with self._pool.acquire() as connection:
            row = await connection.fetchrow(_ORDER, order_id)
            saga = await connection.fetchrow(_SAGA, order_id)
        if row is None:
            return None
        order = {**row, "lines": json.loads(row["lines"]), "total": str(row["total"])}
        return {**order, "process": dict(saga) if saga is not None else None}
