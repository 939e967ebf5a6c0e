"""Databases that look as if they had long been in use: what one order left behind, multiplied by set-based SQL.

The product itself runs the one order, so that the rows are what it writes. Each copy has a key and ids of its own, in
every column and in the bytes of every message, and times of its own; nothing else differs. (Moments that stand inside
of JSON stay as they were: only an instance that wakes up would read them.)
"""

from __future__ import annotations

import asyncio
import re
import uuid
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import asyncpg

from bench import participant, wire
from bench.lean_amqp import Link
from bench.services import PATIENCE, fresh_queues, order_placed, over_the_wire

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from bench.antiphon import Antiphon
    from bench.contender import Place
    from bench.database import Connection
    from bench.frames import Outgoing

KEY = "seed-0000000"
"""The business key of the one order; those of the copies are as long and end in their number."""

BROKEN = f"broken-{KEY}"
"""The id of the message that becomes a dead letter."""

TABLES = ("saga_key", "saga", "saga_event", "timer", "inbox", "dead_letter")
FUTURE = ("due_at", "deadline_at")
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
LOOK = 0.05  # seconds between two looks at what the one order has come to

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Copies:
    """How many of which: rows of the one order in each table, and how many times they are to be there.

    The times of the copies lie up to `past` before those of the original, those of timers and deadlines `ahead` of it.
    """

    of: Mapping[str, Sequence[Row]]
    times: Mapping[str, int]
    past: timedelta
    ahead: timedelta = timedelta(0)

    @property
    def rows(self) -> Mapping[str, int]:
        """How many rows each table gets."""
        return {table: len(rows) * self.times[table] for table, rows in self.of.items()}


async def waiting(service: Antiphon, place: Place) -> Mapping[str, Sequence[Row]]:
    """The rows of an instance that waits for the reply to its first command, all messages sent."""
    async with fresh_queues(place.broker_url, place.namespace, service.queues(place.namespace)):
        link = await Link.open(place.broker_url)
        for name in wire.COMMAND_OF:
            await participant.declare(link, place.namespace, name)
        child = await service.start(place)
        try:
            link.publish(order_placed(service, place, KEY))
            link.flush()
            await until(
                place,
                "select exists (select from saga where waiting_for is not null) and not exists (select from outbox)",
            )
        finally:
            link.close()
            await child.end()
    return await _rows(place)


async def completed(service: Antiphon, place: Place) -> Mapping[str, Sequence[Row]]:
    """The rows of an instance that is completed, and of an open dead letter that has nothing to do with it."""
    async with over_the_wire(service, place) as running:
        running.place([KEY])
        await until(place, "select exists (select from saga where ended_at is not null)")
        link = await Link.open(place.broker_url)
        link.publish(_broken(service, place))
        link.flush()
        await until(place, "select exists (select from dead_letter) and not exists (select from outbox)")
        link.close()
        problems = await running.end([KEY])
    if problems:
        raise RuntimeError(f"the order to be multiplied was not done: {'; '.join(problems)}")
    found = await _rows(place)
    return {**found, "inbox": [row for row in found["inbox"] if row["message_id"] != BROKEN]}


async def plant(place: Place, copies: Copies) -> None:
    """Put the copies in the place of the original, as tables that have been vacuumed and analyzed."""
    largest = [["saga_event"], [table for table in copies.of if table != "saga_event"]]
    await asyncio.gather(*(_plant(place, copies, tables) for tables in largest))
    connection = await connect(place)
    await connection.execute("vacuum (analyze)")  # while another still wrote it could not have told what all may see
    await connection.execute("checkpoint")
    await connection.close()


async def _plant(place: Place, copies: Copies, tables: Iterable[str]) -> None:
    connection = await connect(place)
    try:
        await connection.execute("set synchronous_commit = off; set maintenance_work_mem = '512MB'")
        for table in tables:
            if copies.of.get(table):
                await _multiply(connection, table, copies)
    finally:
        await connection.close()


async def _multiply(connection: Connection, table: str, copies: Copies) -> None:
    """Without its indexes, which are made at the end: keys at random would find them on disk, one by one."""
    indexes = await connection.fetch(
        """
        select i.indexrelid::regclass::text as name, pg_get_indexdef(i.indexrelid) as definition, c.conname,
               case c.contype when 'p' then 'primary key' else 'unique' end as kind
        from pg_index i left join pg_constraint c on c.conindid = i.indexrelid
        where i.indrelid = $1::text::regclass
        """,
        table,
    )
    for index in indexes:
        await connection.execute(
            f"alter table {table} drop constraint {index['conname']}"
            if index["conname"]
            else f"drop index {index['name']}"
        )
    types = await connection.fetch(
        "select attname, format_type(atttypid, null) as type from pg_attribute "
        "where attrelid = $1::text::regclass and attnum > 0",
        table,
    )
    statement = Statement(table, copies, {row["attname"]: row["type"] for row in types})
    await connection.execute(f"truncate {table}")
    await connection.execute(statement.sql, *statement.arguments)
    for index in indexes:
        await connection.execute(index["definition"])
        if index["conname"]:
            await connection.execute(
                f"alter table {table} add constraint {index['conname']} {index['kind']} using index {index['name']}"
            )


@dataclass(slots=True)
class Statement:
    """`insert ... select` of the copies of a table's rows, those of one instance side by side."""

    table: str
    copies: Copies
    types: Mapping[str, str]
    sql: str = ""
    arguments: list[object] = field(default_factory=list)
    _ids: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rows = self.copies.of[self.table]
        values = ", ".join(f"({', '.join(self._expression(*cell) for cell in row.items())})" for row in rows)
        ids = "".join(
            f", md5({self._given(each)}::text || n)::uuid::text as {name}" for each, name in self._ids.items()
        )
        past = f"(n % {int(self.copies.past.total_seconds()) + 1}) * interval '1 second'"
        columns = ", ".join(f'"{name}"' for name in rows[0])
        self.sql = f"""
            insert into {self.table} ({columns}) select row.* from (
                select 'seed-' || lpad(n::text, 7, '0') as key, {past} as past{ids}
                from generate_series(1, {self.copies.times[self.table]}) as n offset 0
            ) as copy, lateral (values {values}) as row
        """  # noqa: S608 - names of our own tables and columns; what they hold is given apart

    def _expression(self, column: str, value: object) -> str:
        match value:
            case datetime():
                ahead = self.copies.ahead if column in FUTURE else timedelta(0)
                return f"{self._given(value + ahead)}::timestamptz - copy.past"
            case uuid.UUID():
                return f"copy.{self._name(str(value))}::uuid"
            case str():
                return self._text(value)
            case bytes() if (text := _decoded(value)) and (KEY in text or _ID.search(text)):
                return f"convert_to({self._text(text)}, 'UTF8')"
            case _:
                return f"{self._given(value)}::{self.types[column]}"

    def _text(self, text: str) -> str:
        expression = f"{self._given(text)}::text"
        for each in dict.fromkeys(_ID.findall(text)):
            expression = f"replace({expression}, {self._given(each)}::text, copy.{self._name(each)})"
        return f"replace({expression}, '{KEY}', copy.key)" if KEY in text else expression

    def _name(self, each: str) -> str:
        return self._ids.setdefault(each, f"id_{len(self._ids)}")

    def _given(self, value: object) -> str:
        self.arguments.append(value)
        return f"${len(self.arguments)}"


async def _rows(place: Place) -> Mapping[str, Sequence[Row]]:
    connection = await connect(place)
    try:
        found = {}
        for table in TABLES:
            generated = await connection.fetch(
                "select attname from pg_attribute where attrelid = $1::text::regclass and attidentity <> ''", table
            )
            without = {row["attname"] for row in generated}
            rows = await connection.fetch(f"select * from {table}")  # noqa: S608 - one of TABLES
            found[table] = [{name: value for name, value in row.items() if name not in without} for row in rows]
    finally:
        await connection.close()
    return found


async def until(place: Place, question: str) -> None:
    """Wait until the database says yes.

    Raises:
        TimeoutError: it went on saying no.
    """
    connection = await connect(place)
    try:
        async with asyncio.timeout(PATIENCE):
            while True:
                if await connection.fetchval(question):
                    return
                await asyncio.sleep(LOOK)
    finally:
        await connection.close()


async def connect(place: Place) -> Connection:
    """A connection that finds the tables of the place by their names."""
    return await asyncpg.connect(place.database_url, server_settings={"search_path": place.namespace})


def _broken(service: Antiphon, place: Place) -> Outgoing:
    """An order that nobody can read."""
    placed = order_placed(service, place, KEY)
    return replace(placed, body=b"{}", message_id=BROKEN)


def _decoded(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return ""
