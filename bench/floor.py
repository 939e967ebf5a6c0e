"""The floor: broker and database doing the same messages and rows, with the least code that can do it.

Nobody could run this: it knows one process by heart, has no failure, timeout or duplicate, and stops at the first
surprise. It says what the machine allows: for every message the rows that Antiphon keeps (instance, history with the
bytes, inbox, timer, outbox), in one transaction per batch, over a connection that writes whole bursts.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import signal
import uuid
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import asyncpg
import uvloop
from pamqp import commands

from bench import wire
from bench.frames import Outgoing
from bench.lean_amqp import Link

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from bench.lean_amqp import Received

BATCH = 200
PREFETCH = 400
IDENTITY = uuid.UUID("00000000-0000-0000-0000-000000000003")

SCHEMA = """
create table saga (
    order_id text primary key, status text not null, state bytea not null, waiting_for text,
    started_at timestamptz not null default now(), updated_at timestamptz not null, deadline_at timestamptz not null
) with (fillfactor = 50);
create index on saga (started_at, order_id);
create table saga_event (
    order_id text not null, seq bigint not null, at timestamptz not null, kind text not null, message_id text,
    name text, detail text not null, body bytea, primary key (order_id, seq)
);
create table inbox (message_id text primary key, received_at timestamptz not null);
create index on inbox (received_at);
create table timer (
    order_id text not null, name text not null, due_at timestamptz not null, primary key (order_id, name)
);
create index on timer (due_at);
create table outbox (
    outbox_id bigint primary key, message_id text not null, order_id text not null, name text not null,
    body bytea not null, token uuid not null, next_attempt_at timestamptz not null
);
create index on outbox (message_id);
create index on outbox (order_id, outbox_id);
"""

LOOK = "select order_id, state from saga where order_id = any($1) for no key update"
SAVE = """
with confirmed as (delete from outbox where outbox_id = any($1)),
     known as (insert into inbox select id, now() from unnest($2::text[]) as r(id)),
     started as (
        insert into saga (order_id, status, state, waiting_for, updated_at, deadline_at)
        select order_id, 'running', state, waiting, now(), now() + interval '3 days'
        from unnest($3::text[], $4::bytea[], $5::text[]) as r(order_id, state, waiting)),
     moved as (
        update saga s set status = r.status, state = r.state, waiting_for = r.waiting, updated_at = now()
        from unnest($6::text[], $7::text[], $8::bytea[], $9::text[]) as r(order_id, status, state, waiting)
        where s.order_id = r.order_id),
     told as (
        insert into saga_event select order_id, seq, now(), kind, message_id, name, detail, body
        from unnest($10::text[], $11::bigint[], $12::text[], $13::text[], $14::text[], $15::text[], $16::bytea[])
             as r(order_id, seq, kind, message_id, name, detail, body)),
     over as (
        delete from timer t using unnest($17::text[], $18::text[]) as r(order_id, name)
        where t.order_id = r.order_id and t.name = r.name),
     due as (
        insert into timer select order_id, name, now() + interval '1 minute'
        from unnest($19::text[], $20::text[]) as r(order_id, name))
insert into outbox select outbox_id, message_id, order_id, name, body, $26::uuid, now() + interval '15 seconds'
from unnest($21::bigint[], $22::text[], $23::text[], $24::text[], $25::bytea[])
     as r(outbox_id, message_id, order_id, name, body)
"""

FOLLOWS: Mapping[str, tuple[str, str, str]] = {
    wire.ORDER_PLACED: ("", "reserve", wire.RESERVE_STOCK),
    wire.STOCK_RESERVED: ("reserve", "pay", wire.MAKE_PAYMENT),
    wire.PAYMENT_COMPLETED: ("pay", "label", wire.CREATE_LABEL),
    wire.LABEL_CREATED: ("label", "", ""),
}
"""What each message ends and begins: the step that is done, the next one, and its command."""

COMMANDS = {step: command for _, step, command in FOLLOWS.values()}


@dataclass(slots=True)
class Columns:
    """What one batch writes, row by row, by table."""

    ids: list[str] = field(default_factory=list)
    started: list[tuple[str, bytes, str]] = field(default_factory=list)
    moved: list[tuple[str, str, bytes, str | None]] = field(default_factory=list)
    told: list[tuple[str, int, str, str | None, str | None, str, bytes | None]] = field(default_factory=list)
    over: list[tuple[str, str]] = field(default_factory=list)
    due: list[tuple[str, str]] = field(default_factory=list)
    sent: list[tuple[int, str, str, str, bytes]] = field(default_factory=list)

    def arguments(self) -> list[object]:
        """One list per column, in the order of the statement."""
        widths = ((self.started, 3), (self.moved, 4), (self.told, 7), (self.over, 2), (self.due, 2), (self.sent, 5))
        columns: list[object] = [self.ids]
        for rows, width in widths:
            columns += [list(column) for column in zip(*rows, strict=True)] if rows else [[]] * width
        return columns


class Floor:
    """One connection to the broker, one to the database, one batch after the other."""

    def __init__(self, link: Link, database: asyncpg.Connection[asyncpg.Record], namespace: str) -> None:
        self._link = link
        self._database = database
        self._exchange = wire.commands_exchange(namespace)
        self._queue = wire.service_queue(namespace)
        self._arrived: deque[Received] = deque()
        self._wake = asyncio.Event()
        self._published = self._outbox_id = 0
        self._flying: dict[int, int] = {}  # outbox ids by publication
        self._confirmed: list[int] = []
        link.on_deliveries = self._deliver
        link.on_confirms = self._confirm

    def _deliver(self, burst: Sequence[Received]) -> None:
        self._arrived.extend(burst)
        self._wake.set()

    def _confirm(self) -> None:
        for publication in list(self._flying):
            if publication in self._link.unconfirmed:
                break
            self._confirmed.append(self._flying.pop(publication))
        self._wake.set()

    async def run(self) -> None:
        """Batch after batch, for ever."""
        while True:
            if not self._arrived:
                self._wake.clear()
                if not self._confirmed:
                    await self._wake.wait()
                    continue
                await asyncio.wait([asyncio.ensure_future(self._wake.wait())], timeout=1.0)
            await self._settle([self._arrived.popleft() for _ in range(min(BATCH, len(self._arrived)))])

    async def _settle(self, batch: Sequence[Received]) -> None:
        bodies = [json.loads(each.body) for each in batch]
        confirmed, self._confirmed = self._confirmed, []
        columns, outgoing = Columns(), list[Outgoing]()
        async with self._database.transaction():
            orders = [body["order_id"] for body in bodies if "customer_id" not in body]
            seen = await self._database.fetch(LOOK, orders) if orders else ()
            states = {row["order_id"]: json.loads(row["state"]) for row in seen}
            for each, body in zip(batch, bodies, strict=True):
                outgoing += self._decide(each, body, states, columns)
            await self._database.execute(SAVE, confirmed, *columns.arguments(), uuid.uuid4())
        for message, row in zip(outgoing, columns.sent, strict=True):
            self._link.publish(message)
            self._published += 1
            self._flying[self._published] = row[0]
        if batch:
            self._link.acknowledge_through(batch[-1].tag)
        self._link.flush()

    def _decide(
        self, each: Received, body: dict[str, Any], states: Mapping[str, dict[str, Any]], columns: Columns
    ) -> list[Outgoing]:
        order, message_id = body["order_id"], each.content.message_id
        starts = "customer_id" in body
        state = body if starts else {**states[order], **body}
        name = wire.ORDER_PLACED if starts else next(word for word, field_ in wire.REPLY_OF.values() if field_ in body)
        done, step, following = FOLLOWS[name]
        seq = 1 if starts else state["seq"]
        state["seq"] = seq + (2 if starts else 3)
        packed, waiting = wire.encode(state), following or None
        columns.ids.append(message_id)
        columns.told.append((order, seq, "started" if starts else "reply_received", message_id, name, "{}", each.body))
        if starts:
            columns.started.append((order, packed, following))
            columns.due.append((order, "deadline"))
        else:
            columns.moved.append((order, "running" if step else "completed", packed, waiting))
            columns.told.append((order, seq + 1, "step_completed", None, None, "{}", None))
            columns.over.append((order, done))
        if not step:
            columns.told.append((order, seq + 2, "completed", None, None, "{}", None))
            columns.over.append((order, "deadline"))
            return []
        return [self._command(order, step, message_id, state=state, columns=columns)]

    def _command(self, order: str, step: str, cause: str, *, state: dict[str, Any], columns: Columns) -> Outgoing:
        name = COMMANDS[step]
        more = {"lines": state["lines"]} if step == "reserve" else {"amount": state["total"]} if step == "pay" else {}
        command, body = str(uuid.uuid5(IDENTITY, f"{order}/{name}")), wire.encode({"order_id": order, **more})
        self._outbox_id += 1
        detail = json.dumps({"purpose": "do", "attempt": 1, "causation_id": cause})
        columns.told.append((order, state["seq"] - 1, "command_sent", command, name, detail, body))
        columns.due.append((order, step))
        columns.sent.append((self._outbox_id, command, order, name, body))
        return Outgoing(
            exchange=self._exchange,
            routing_key=name,
            body=body,
            name=name,
            message_id=command,
            app_id="antiphon",
            correlation_id=order,
            reply_to=self._queue,
            headers={"schema-version": 1, "idempotency-key": f"{order}/{step}/1/do", "causation-id": cause},
        )


async def serve(database_url: str, broker_url: str, namespace: str) -> None:
    """Until SIGTERM."""
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    database = await asyncpg.connect(database_url)
    await database.execute(SCHEMA)
    link = await Link.open(broker_url)
    queue = wire.service_queue(namespace)
    await link.call(commands.Queue.Declare(queue=queue, durable=True, arguments=dict(wire.queue_arguments(namespace))))
    await link.call(
        commands.Queue.Bind(queue=queue, exchange=wire.events_exchange(namespace), routing_key=wire.ORDER_PLACED)
    )
    floor = Floor(link, database, namespace)
    await link.consume(queue, prefetch=PREFETCH)
    working = asyncio.create_task(floor.run())
    print("ready", flush=True)
    stopping = asyncio.create_task(stopped.wait())
    await asyncio.wait((stopping, working, link.lost), return_when=asyncio.FIRST_COMPLETED)
    if working.done():
        working.result()
    working.cancel()
    link.close()


def main() -> None:
    """`python -m bench.floor --database-url URL --broker-url URL --namespace NAME`."""
    parser = argparse.ArgumentParser(description="What broker and database allow.")
    parser.add_argument("--database-url", required=True)
    parser.add_argument("--broker-url", required=True)
    parser.add_argument("--namespace", required=True)
    given = parser.parse_args()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    uvloop.run(serve(given.database_url, given.broker_url, given.namespace))


if __name__ == "__main__":
    main()
