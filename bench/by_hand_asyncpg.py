"""A hand-written ordering service: aio-pika and raw asyncpg, one transaction per message, as few round trips as it takes.

An order starts in a single statement. A reply takes two between BEGIN and COMMIT: one that claims the message id and
locks the saga, one that saves the saga and its next command. What is decided in between is decided in Python.
"""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncpg

from bench import by_hand, wire
from bench.by_hand import Command, command

if TYPE_CHECKING:
    import uuid
    from collections.abc import AsyncIterator, Sequence

CONNECTIONS = 16

SCHEMA = """
create table if not exists inbox (message_id text primary key, received_at timestamptz not null default now());
create table if not exists saga (
    order_id text primary key,
    status text not null,
    amount text not null,
    reservation_id text,
    payment_id text,
    tracking_code text,
    updated_at timestamptz not null default now()
);
create table if not exists outbox (
    message_id uuid primary key,
    order_id text not null,
    name text not null,
    body bytea not null,
    causation_id text not null
);
"""

PLACE = """
with fresh as (insert into inbox (message_id) values ($1) on conflict do nothing returning message_id),
     started as (insert into saga (order_id, status, amount) select $2, $3, $4 from fresh on conflict do nothing
                 returning order_id)
insert into outbox (message_id, order_id, name, body, causation_id) select $5, order_id, $6, $7, $1 from started
"""

TAKE = """
with fresh as (insert into inbox (message_id) values ($1) on conflict do nothing returning message_id)
select status, amount from saga where order_id = $2 and exists (select from fresh) for update
"""

SAVE = """
with saved as (update saga set status = $2, reservation_id = coalesce($3, reservation_id),
                               payment_id = coalesce($4, payment_id), updated_at = now() where order_id = $1)
insert into outbox (message_id, order_id, name, body, causation_id) values ($5, $1, $6, $7, $8)
"""

COMPLETE = "update saga set status = 'completed', tracking_code = $2, updated_at = now() where order_id = $1"


class AsyncpgBooks:
    """The database half on a pool of asyncpg connections."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record]) -> None:
        self._pool = pool

    async def place(self, message_id: str, order_id: str, body: bytes) -> Command | None:
        """See `Books.place`."""
        order = json.loads(body)
        first = command(order_id, wire.RESERVE_STOCK, message_id, lines=order["lines"])
        done = await self._pool.execute(
            PLACE, message_id, order_id, "reserving", order["total"], first.message_id, first.name, first.body
        )
        return first if done == "INSERT 0 1" else None

    async def advance(self, message_id: str, order_id: str, reply: str, body: bytes) -> Command | None:
        """See `Books.advance`."""
        async with self._pool.acquire() as connection, connection.transaction():
            saga = await connection.fetchrow(TAKE, message_id, order_id)
            if saga is None:
                return None
            brought = json.loads(body)
            match saga["status"], reply:
                case "reserving", wire.STOCK_RESERVED:
                    following = command(order_id, wire.MAKE_PAYMENT, message_id, amount=saga["amount"])
                    await _save(connection, "paying", following, reservation_id=brought["reservation_id"])
                case "paying", wire.PAYMENT_COMPLETED:
                    following = command(order_id, wire.CREATE_LABEL, message_id)
                    await _save(connection, "shipping", following, payment_id=brought["payment_id"])
                case "shipping", wire.LABEL_CREATED:
                    await connection.execute(COMPLETE, order_id, brought["tracking_code"])
                    return None
                case _:
                    return None
        return following

    async def forget(self, message_ids: Sequence[uuid.UUID]) -> None:
        """See `Books.forget`."""
        await self._pool.execute("delete from outbox where message_id = any($1)", message_ids)

    async def unsent(self) -> Sequence[Command]:
        """See `Books.unsent`."""
        rows = await self._pool.fetch("select message_id, order_id, name, body, causation_id from outbox")
        return [Command(**dict(row)) for row in rows]


async def _save(
    connection: Any,
    status: str,
    following: Command,
    *,
    reservation_id: str | None = None,
    payment_id: str | None = None,
) -> None:
    await connection.execute(
        SAVE,
        following.order_id,
        status,
        reservation_id,
        payment_id,
        following.message_id,
        following.name,
        following.body,
        following.causation_id,
    )


async def _leave_as_it_is(_: Any) -> None:
    """Nothing here changes a session, so a connection needs no round trip to be reset between transactions."""


@asynccontextmanager
async def open_books(database_url: str) -> AsyncIterator[AsyncpgBooks]:
    """Connect and create the tables."""
    async with asyncpg.create_pool(
        database_url, min_size=CONNECTIONS, max_size=CONNECTIONS, reset=_leave_as_it_is
    ) as pool:
        await pool.execute(SCHEMA)
        yield AsyncpgBooks(pool)


if __name__ == "__main__":
    by_hand.main(open_books, "The ordering saga by hand: aio-pika and asyncpg.")
