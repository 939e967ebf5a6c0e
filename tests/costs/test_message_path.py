"""What a message may cost, in things that can be counted: no clock is asked, so a busy machine changes nothing.

Each budget is what was counted, with a little room. Whoever exceeds one has made the path of every message dearer, and
makes it cheaper again or says here why it has to be so; whoever gets far below one lowers it.
"""

from __future__ import annotations

import gc
import sys
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

import migrations
import sagas
from handlers.handle import Attempt
from messages.catalog.ordering import PaymentCompleted, ShippingLabelCreated, StockReserved
from outbox.unit import SqlStorage
from running import AsyncioRunner
from storage import Database
from storage.statements import Statement
from tests.handlers.house import House, placed
from tests.storage.databases import ASYNCPG, opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from types import FrameType

    from messages import Event
    from messages.envelope import Raw
    from tests.services.private import PrivatePostgres
    from tests.storage.databases import Counter

BATCH = 50
MESSAGES = 4  # of a saga: the order and three replies

ROOT = Path(sagas.__file__).parent.parent
OURS = tuple(f"{ROOT / name}/" for name in ("messages", "sagas", "storage", "transport", "outbox", "handlers"))

STATEMENTS = 2  # of a batch: one that looks, and one that writes everything and commits
CALLS_OF_OURS = 270  # Python functions per message; 249 were counted
CALLS_OF_ALL = 840  # with those of drivers and libraries, and those in C; 780 were counted
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


class Orders:
    """Batches of as many orders as a batch has, one stage of the process after the other."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._number = 0

    def stages(self) -> Sequence[Sequence[Raw]]:
        """The messages of new orders: those that start, then the replies, stage by stage."""
        keys = [f"o-{self._number + number}" for number in range(BATCH)]
        self._number += BATCH
        replies: Sequence[tuple[str, type[Event], str]] = (
            ("reserve", StockReserved, "reservation_id"),
            ("pay", PaymentCompleted, "payment_id"),
            ("label", ShippingLabelCreated, "tracking_code"),
        )
        starts = [self._house.message(placed(key)) for key in keys]
        answered = [
            [self._house.answer(key, event(**{"order_id": key, field: f"x-{key}"}), step) for key in keys]
            for step, event, field in replies
        ]
        return [starts, *answered]

    async def run(self) -> None:
        """Let new orders go through all their stages."""
        for stage in self.stages():
            await self.take(stage)

    async def take(self, stage: Sequence[Raw]) -> None:
        """One batch through the path, up to its commit; what it sends counts as confirmed."""
        prepared = await self._house.handler.handle(self._house.decoded(stage), Attempt(token=uuid4()))
        assert len(prepared.claimed) in (BATCH, 0)
        self._house.relay.give_back([(row.outbox_id, row.token) for row in prepared.claimed])


class Calls:
    """Counts the calls of functions while it is entered: those of our own packages, and all of them."""

    def __init__(self) -> None:
        self.ours = self.all = 0

    def __enter__(self) -> Calls:
        sys.setprofile(self._count)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _count(self, frame: FrameType, event: str, _: Any) -> None:  # noqa: ANN401 - as setprofile gives it
        if event == "call":
            self.ours += frame.f_code.co_filename.startswith(OURS)
            self.all += 1
        elif event == "c_call":
            self.all += 1


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
