"""What a message may cost, in things that can be counted: no clock is asked, so a busy machine changes nothing.

Each budget is what was counted, with a little room. Whoever exceeds one has made the path of every message dearer, and
makes it cheaper again or says here why it has to be so; whoever gets far below one lowers it.
"""

from __future__ import annotations

import gc
import sys
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

import migrations
from outbox.unit import SqlStorage
from running import AsyncioRunner
from storage import Database
from storage.statements import Statement
from tests.costs.batches import BATCH, MESSAGES, Calls, Orders
from tests.handlers.house import House
from tests.storage.databases import ASYNCPG, opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.services.private import PrivatePostgres
    from tests.storage.databases import Counter

STATEMENTS = 2  # of a batch: one that looks, and one that writes everything and commits
CALLS_OF_OURS = 270  # Python functions per message; 249 were counted
CALLS_OF_ALL = 840  # with those of drivers and libraries, and those in C; 824 were counted
LONE_CALLS_OF_OURS = 450  # for a message by itself; 435 were counted
LONE_CALLS_OF_ALL = 1_340  # 1 317 were counted
LEFT_BEHIND = 8  # blocks of memory per message; 3 were counted, in caches that are still filling up
WAL = 18_000  # bytes per saga; 15 500 were counted


@pytest.fixture
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    """The driver that a user gets who asks for none."""
    async with opened(ASYNCPG, request, tmp_path) as database:
        yield database


@pytest.fixture
async def house(storage: SqlStorage) -> AsyncIterator[House]:
    house = await House(storage).open()
    yield house
    await house.transport.close()


async def test_a_batch_is_two_statements_and_no_transaction_around_them(house: House, counter: Counter) -> None:
    orders = Orders(house)
    await orders.run()
    for stage in orders.stages():
        counter.reset()
        await orders.take(stage)
        assert (len(counter.statements), counter.commits) == (STATEMENTS, 0)


async def test_a_message_takes_no_more_calls_than_it_is_allowed(house: House) -> None:
    orders = Orders(house)
    await orders.run()  # statements are prepared and classes compiled now
    stages = orders.stages()
    with Calls() as calls:
        for stage in stages:
            await orders.take(stage)
    messages = MESSAGES * BATCH
    assert calls.ours / messages < CALLS_OF_OURS
    assert calls.all / messages < CALLS_OF_ALL


async def test_a_message_by_itself_takes_no_more_calls_than_it_is_allowed(house: House) -> None:
    orders = Orders(house, batch=1)
    for _ in range(3):
        await orders.run()
    stages = orders.stages()
    with Calls() as calls:
        for stage in stages:
            await orders.take(stage)
    assert calls.ours / MESSAGES < LONE_CALLS_OF_OURS
    assert calls.all / MESSAGES < LONE_CALLS_OF_ALL


async def test_a_message_leaves_nothing_in_memory(house: House) -> None:
    orders = Orders(house)
    blocks = []
    for _ in range(10):
        await orders.run()
        gc.collect()
        blocks.append(sys.getallocatedblocks())
    least = min(later - earlier for earlier, later in pairwise(blocks[4:]))
    assert least / (MESSAGES * BATCH) < LEFT_BEHIND


async def test_a_saga_writes_no_more_to_the_log_of_the_database_than_it_is_allowed(
    private_postgres: PrivatePostgres,
) -> None:
    """On a server of its own, whose log is one for all; the first touch of a page after a checkpoint writes it whole,
    so the cheapest of some runs counts."""
    private_postgres.psql("create database costs")
    database = Database(private_postgres.database_url("costs"), AsyncioRunner())
    try:
        await migrations.up(database)
        storage = SqlStorage(database)
        orders, written = Orders(await House(storage).open()), []
        for _ in range(5):
            before = await position(storage)
            await orders.run()
            written.append(await position(storage) - before)
    finally:
        await database.close()
    assert min(written) / BATCH < WAL


async def position(storage: SqlStorage) -> int:
    """Where the write-ahead log stands, in bytes."""
    async with storage.database.read() as session:
        [row] = await session.fetch(
            Statement.both("select cast(pg_current_wal_insert_lsn() - '0/0' as bigint) as bytes"), {}
        )
    return int(row.bytes)
