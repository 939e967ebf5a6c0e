"""A hand-written ordering service: aio-pika and raw asyncpg, one transaction per message, few round trips.

An order starts in a single statement. A reply takes two: one looks at the saga, what follows is decided in Python, and
one saves it all (inbox, saga, outbox) in a transaction of its own, provided the saga still stands where it was seen.
That is two round trips to the database instead of the six of BEGIN, insert, select, update, insert, COMMIT.
"""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

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

LOOK = "select status, amount from saga where order_id = $1"

ADVANCE = """
with held as (select order_id from saga where order_id = $2 and status = $3 for update),
     fresh as (insert into inbox (message_id) select $1 from held on conflict do nothing returning message_id),
     saved as (update saga set status = $4, reservation_id = coalesce($5, reservation_id),
                               payment_id = coalesce($6, payment_id), tracking_code = coalesce($7, tracking_code),
                               updated_at = now()
               where order_id = $2 and exists (select from fresh) returning order_id)
"""

ADVANCE_AND_SEND = (
    ADVANCE  # noqa: S608 - put together from constants
    + """insert into outbox (message_id, order_id, name, body, causation_id)
         select $8, order_id, $9, $10, $1 from saved returning 1"""
)

ADVANCE_TO_THE_END = ADVANCE + "select 1 from saved"  # noqa: S608 - put together from constants


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """What a reply changes: the new status, what the reply brought, and the command that follows, if any."""

    status: str
    reservation_id: str | None = None
    payment_id: str | None = None
    tracking_code: str | None = None
    following: Command | None = None


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
        """See `Books.advance`. Repeats when the saga moved between look and save; then another message moved it."""
        brought = json.loads(body)
        while True:
            saga = await self._pool.fetchrow(LOOK, order_id)
            move = _decide(saga, order_id, reply, brought, message_id) if saga else None
            if not saga or not move:
                return None
            if await self._save(message_id, order_id, saga["status"], move):
                return move.following

    async def _save(self, message_id: str, order_id: str, seen: str, move: Move) -> bool:
        brought = (move.reservation_id, move.payment_id, move.tracking_code)
        if move.following is None:
            saved = self._pool.fetchrow(ADVANCE_TO_THE_END, message_id, order_id, seen, move.status, *brought)
        else:
            outgoing = (move.following.message_id, move.following.name, move.following.body)
            saved = self._pool.fetchrow(ADVANCE_AND_SEND, message_id, order_id, seen, move.status, *brought, *outgoing)
        return await saved is not None

    async def forget(self, message_ids: Sequence[uuid.UUID]) -> None:
        """See `Books.forget`."""
        await self._pool.execute("delete from outbox where message_id = any($1)", message_ids)

    async def unsent(self) -> Sequence[Command]:
        """See `Books.unsent`."""
        rows = await self._pool.fetch("select message_id, order_id, name, body, causation_id from outbox")
        return [Command(**dict(row)) for row in rows]


def _decide(saga: asyncpg.Record, order_id: str, reply: str, brought: dict[str, str], message_id: str) -> Move | None:
    match saga["status"], reply:
        case "reserving", wire.STOCK_RESERVED:
            following = command(order_id, wire.MAKE_PAYMENT, message_id, amount=saga["amount"])
            return Move(status="paying", reservation_id=brought["reservation_id"], following=following)
        case "paying", wire.PAYMENT_COMPLETED:
            following = command(order_id, wire.CREATE_LABEL, message_id)
            return Move(status="shipping", payment_id=brought["payment_id"], following=following)
        case "shipping", wire.LABEL_CREATED:
            return Move(status="completed", tracking_code=brought["tracking_code"])
    return None


async def _leave_as_it_is(_: object) -> None:
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
