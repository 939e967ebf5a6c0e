"""Instances and what stands around them, written straight into the tables: any mixture, of any age, in any state.

Ages are seconds: what is `-70` was due 70 seconds ago. `World.pass_time` lets them all grow older at once, so that no
test waits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from sqlalchemy import text

from outbox.interface import Changes
from outbox.unit import SqlStorage
from sagas.instance import Instance, Phase
from storage.statements import sqlite_value
from tests.outbox.building import CONSUMER, new_instance

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from storage import Database

STATES = ("new", "claimed", "unknown", "returned", "refused")
_TIMES = {
    "saga": ("updated_at",),
    "timer": ("due_at", "asked_at"),
    "outbox": ("created_at", "next_attempt_at"),
    "held": ("expires_at",),
}


@dataclass(kw_only=True)
class Row:
    """An outbox row."""

    state: str = "new"
    created: float = 0.0
    next_attempt: float = 0.0
    attempts: int = 0
    name: str = "stock.ReserveStock"
    came_back: bool = False


@dataclass(kw_only=True)
class Someone:
    """An instance, with the rows around it: of its timers when they fall due, and since when markers are `asked` for;
    `held` are expiries; None never expires."""

    key: str
    version: int = 1
    phase: Phase = Phase.RUNNING
    paused: bool = False
    attention: tuple[str, ...] = ()
    updated: float = -3600.0
    timers: Sequence[float] = ()
    asked: float | None = None
    outbox: Sequence[Row] = ()
    held: Sequence[float | None] = ()
    saga_id: UUID = field(default_factory=uuid4)

    def instance(self, now: datetime) -> Instance:
        """The instance as it is stored."""
        return new_instance(
            self.key,
            saga_id=self.saga_id,
            version=self.version,
            phase=self.phase,
            paused=self.paused,
            attention=dict.fromkeys(self.attention, "x"),
            timers={},
            updated_at=now + timedelta(seconds=self.updated),
            deadline_at=now + timedelta(days=7),
            ended_at=now if self.phase.ended else None,
            state=b"{}",
        )


def anyone(chance: random.Random, key: str, states: Sequence[str] = STATES) -> Someone:
    """Somebody at random, near the thresholds, whose messages are in these states."""
    ages = (-3600.0, -620.0, -580.0, -320.0, -70.0, -50.0, -40.0, -20.0, 10.0, 3600.0)
    outbox = [
        Row(
            state=chance.choice(states),
            created=(created := chance.choice([age for age in ages if age < 0])),
            next_attempt=max(created, chance.choice(ages)),
            attempts=chance.choice([0, 3]),
            name=chance.choice(["stock.ReserveStock", "payment.Pay", "warehouse.Print"]),
        )
        for _ in range(chance.choice([0, 0, 0, 1, 1, 2]))
    ]
    return Someone(
        key=key,
        version=chance.choice([1, 1, 2]),
        phase=chance.choice([Phase.RUNNING, Phase.RUNNING, Phase.COMPENSATING, Phase.COMPLETED]),
        paused=chance.random() < 0.15,
        attention=chance.choice([(), (), (), ("in_doubt",), ("method_raised", "timer_overdue")]),
        updated=chance.choice(ages[:-2]),
        timers=[chance.choice(ages) for _ in range(chance.choice([0, 0, 1, 2]))],
        asked=chance.choice([None, None, *ages[:5]]),
        outbox=outbox,
        held=[chance.choice([None, -70.0, -20.0, 3600.0]) for _ in range(chance.choice([0, 0, 0, 1, 2]))],
    )


class World:
    """One database full of people."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.storage = SqlStorage(database)

    async def settle(self, *people: Someone) -> None:
        """Write them and everything around them."""
        now = await self.now()
        async with self.storage.transaction() as unit:
            await unit.save(Changes(consumer=CONSUMER, inserted=[each.instance(now) for each in people]))
        await self._insert("timer", [row for each in people for row in _timers(each, now)])
        await self._insert("outbox", [row for each in people for row in _outbox(each, now)])
        await self._insert("held", [row for each in people for row in _held(each, now)])

    async def pass_time(self, seconds: float) -> None:
        """Let everything be older by so many seconds."""
        for table, columns in _TIMES.items():
            earlier = ", ".join(f"{column} = {self._earlier(column)}" for column in columns)
            await self.run(f"update {table} set {earlier}", {"seconds": seconds})  # noqa: S608 - our own names

    def _earlier(self, column: str) -> str:
        """The time of a column, `:seconds` before."""
        if self.database.postgresql:
            return f"{column} - cast(:seconds as float8) * interval '1 second'"
        return f"strftime('%Y-%m-%dT%H:%M:%f000Z', {column}, '-' || :seconds || ' seconds')"

    async def run(self, sql: str, *values: Mapping[str, object]) -> None:
        """Change something, as a hand or a fault does: once, or once with each of these values."""
        async with self.database.write() as session:
            await session.connection.execute(text(sql), [self._bound(each) for each in values] or None)

    async def find(self, sql: str) -> Sequence[Any]:
        """What a statement finds."""
        async with self.database.read() as session:
            return (await session.connection.execute(text(sql))).all()

    async def now(self) -> datetime:
        """The database's time."""
        if not self.database.postgresql:
            return self.database.runner.now()
        [row] = await self.find("select clock_timestamp() as now")
        moment: datetime = row.now
        return moment

    async def _insert(self, table: str, rows: Sequence[Mapping[str, object]]) -> None:
        if not rows:
            return
        names = rows[0].keys()
        sql = f"insert into {table} ({', '.join(names)}) values ({', '.join(f':{name}' for name in names)})"  # noqa: S608 - our own names
        await self.run(sql, *rows)

    def _bound(self, values: Mapping[str, object]) -> dict[str, object]:
        if self.database.postgresql:
            return dict(values)
        return {name: sqlite_value(value) for name, value in values.items()}


def _timers(someone: Someone, now: datetime) -> list[dict[str, object]]:
    return [
        {
            "saga_id": someone.saga_id,
            "name": f"step{number}/do",
            "saga_type": "PlaceOrder",
            "generation": 1,
            "due_at": now + timedelta(seconds=due),
            "asked_at": None if someone.asked is None else now + timedelta(seconds=someone.asked),
        }
        for number, due in enumerate(someone.timers)
    ]


def _outbox(someone: Someone, now: datetime) -> list[dict[str, object]]:
    return [
        {
            "message_id": str(uuid4()),
            "saga_id": someone.saga_id,
            "name": row.name,
            "exchange": "antiphon.commands",
            "routing_key": row.name,
            "body": b"{}",
            "headers": "{}",
            "state": row.state,
            "maybe_sent": row.state == "unknown",
            "came_back": row.came_back or row.state == "returned",
            "next_attempt_at": now + timedelta(seconds=row.next_attempt),
            "attempts": row.attempts,
            "created_at": now + timedelta(seconds=row.created),
        }
        for row in someone.outbox
    ]


def _held(someone: Someone, now: datetime) -> list[dict[str, object]]:
    return [
        {
            "source": "",
            "message_id": str(uuid4()),
            "body_hash": b"",
            "saga_type": "PlaceOrder",
            "business_key": someone.key,
            "saga_id": someone.saga_id,
            "name": "stock.StockReserved",
            "schema_version": 1,
            "reason": "early",
            "body": b"{}",
            "properties": "{}",
            "received_at": now,
            "expires_at": None if expires is None else now + timedelta(seconds=expires),
        }
        for expires in someone.held
    ]
