"""Retention beside work: with every age at nothing, it removes under the hands of two orchestrators and harms neither.

Whatever has ended goes at once, and every id as soon as it is there. So a copy of a message comes after the inbox has
forgotten the first, and often after its instance has gone: the state alone decides.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import asyncpg

from handlers.retention import Retention, of_sagas
from outbox.facts import RowsRemoved
from running import AsyncioRunner
from storage import Database
from storage.retention import Expiry
from tests.crash.driver import Shop
from tests.crash.process import GLANCE
from tests.services.waiting import until_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.crash.laboratory import Laboratory

ORDERS, COPIES, WAVE = 30, 4, 10
GOOD = [f"good-{number}~stock=times:3~payment=times:3~warehouse=times:3" for number in range(ORDERS)]
BAD = [f"bad-{number}~stock=times:3~stock.undo=times:3~payment=fail" for number in range(ORDERS)]
LAST = "last"
DONE = ["do stock", "do payment", "do warehouse"]
UNDONE = ["do stock", "undo stock"]
LEFT = """
    select (select count(*) from {0}.saga) as sagas, (select count(*) from {0}.inbox) as inbox,
           (select count(*) from {0}.outbox) as outbox, (select count(*) from {0}.saga_event) as history,
           (select count(*) from {0}.saga_key where n = 1) as keys, (select max(n) from {0}.saga_key) as rounds
"""
WAITING = """
    select wait_event, query from pg_stat_activity
    where application_name = 'retention' and wait_event_type = 'Lock' and wait_event in ('transactionid', 'tuple')
"""


async def test_what_is_removed_at_once_is_neither_waited_for_nor_missed_nor_done_again(laboratory: Laboratory) -> None:
    facts: list[object] = []
    sidecars = [await laboratory.sidecar(f"sidecar-{number}") for number in range(2)]
    await laboratory.participants()
    async with (
        removing(laboratory, facts) as waits,
        Shop(laboratory.setup.broker_url, laboratory.setup.namespace) as shop,
    ):
        for taken in range(WAVE, ORDERS + 1, WAVE):  # copies of the first orders come when those are long gone
            await shop.place(*GOOD[:taken], *BAD[:taken], copies=COPIES)
            await gone(laboratory, 2 * taken)
        await shop.place(*GOOD, *BAD)
        await shop.place(LAST)
        await gone(laboratory, len(GOOD + BAD) + 1)
        assert [await each.stop() for each in sidecars] == [0, 0]
    assert waits == []
    left = await one_row(laboratory, LEFT.format(laboratory.setup.namespace))
    assert (left["keys"], left["rounds"]) == (len(GOOD + BAD) + 1, 1)
    ledger = laboratory.setup.ledger
    assert {order: ledger.sequence(order) for order in GOOD + BAD} == dict.fromkeys(GOOD, DONE) | dict.fromkeys(
        BAD, UNDONE
    )
    removed = [fact for fact in facts if isinstance(fact, RowsRemoved)]
    assert removed == facts, "retention met trouble"
    assert sum(fact.amount for fact in removed if fact.kind == "sagas") == len(GOOD + BAD) + 1
    assert sum(fact.amount for fact in removed if fact.kind == "inbox") > len(GOOD + BAD) * COPIES
    assert [each.child.name for each in sidecars if "loop.troubled" in each.child.text()] == []
    deadlocks = await one_row(laboratory, "select deadlocks from pg_stat_database where datname = current_database()")
    assert deadlocks["deadlocks"] == 0


@asynccontextmanager
async def removing(laboratory: Laboratory, facts: list[object]) -> AsyncIterator[list[str]]:
    """Two loops at work as two processes would run them; gives the statements with which they waited for anybody."""
    runner, waits = AsyncioRunner(), list[str]()
    named = f"{laboratory.setup.database_url}?application_name=retention"
    databases = [Database(named, runner, namespace=laboratory.setup.namespace) for _ in range(2)]
    loops = [
        Retention(of_sagas(expiry, sagas=0, inbox=0, dead_letters=0), runner, facts.append, every=0.01, rest=0.0)
        for expiry in (Expiry(database, instances=5, rows=20) for database in databases)
    ]
    try:
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(watch(laboratory, waits))
            for loop in loops:
                tasks.create_task(loop.run())
            try:
                yield waits
            finally:
                watching.cancel()
                for loop in loops:
                    loop.stop()
    finally:
        for database in databases:
            await database.close()


async def watch(laboratory: Laboratory, waits: list[str]) -> None:
    """Look again and again for a removal that waits."""
    connection = await asyncpg.connect(laboratory.setup.database_url)
    try:
        while True:
            waits += [row["query"] for row in await connection.fetch(WAITING)]
            await asyncio.sleep(GLANCE)
    finally:
        connection.terminate()


async def gone(laboratory: Laboratory, keys: int) -> None:
    """Wait until so many orders were taken, and nothing is left of them but their keys."""

    async def nothing_left() -> bool:
        row = await one_row(laboratory, LEFT.format(laboratory.setup.namespace))
        return row["keys"] == keys and not any(row[name] for name in ("sagas", "inbox", "outbox", "history"))

    await until_async(nothing_left, timeout=90, what=f"{keys} orders to be taken, ended and removed")


async def one_row(laboratory: Laboratory, sql: str) -> asyncpg.Record:
    connection = await asyncpg.connect(laboratory.setup.database_url)
    try:
        [row] = await connection.fetch(sql)
        return row
    finally:
        await connection.close()
