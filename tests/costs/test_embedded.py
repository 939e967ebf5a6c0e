"""What a message may cost in one process on SQLite, in things that can be counted.

The budgets are as those of `tests.costs.test_message_path`. A way is one into the thread of SQLite's driver and back,
which costs as much as several statements.
"""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from handlers.catalog.ordering import payment
from messages.catalog.ordering import MakePayment
from tests.costs.batches import BATCH, MESSAGES, Calls, Orders
from tests.handlers.desk import Desk, asked
from tests.handlers.house import House
from tests.storage.databases import SQLITE, opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from messages.envelope import Raw
    from outbox.unit import SqlStorage
    from storage import Database
    from tests.storage.databases import Counter

START = (13, 6)  # statements of a batch of orders, BEGIN included, and ways: keys 3, inbox, save, commit
REPLIES = ((13, 4), (13, 4), (8, 4))  # of a batch of replies: instances, inbox, save, commit
COMMAND = (8, 4)  # of a command whose handler runs one statement: look, its own, save, commit
CALLS_OF_OURS = 260  # Python functions per message; 241 were counted
CALLS_OF_ALL = 650  # with those of libraries, and those in C; 606 were counted; what the thread does is not seen
WRITTEN = 29_000  # bytes of the log of SQLite per saga, in batches; 26 200 were counted
COMMANDS = 32  # at once


@pytest.fixture
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    """An SQLite file."""
    async with opened(SQLITE, request, tmp_path) as database:
        yield database


@pytest.fixture
async def house(storage: SqlStorage) -> AsyncIterator[House]:
    house = await House(storage).open()
    yield house
    await house.transport.close()


@pytest.fixture
async def desk(storage: SqlStorage) -> Desk:
    """The payment service, whose relay rests."""
    desk = Desk(payment, storage)
    assert payment.prepare is not None
    await desk.answering.store.set_up(payment.prepare)
    await desk.take(command(0))  # connections are open now
    return desk


def command(number: int) -> Raw:
    """To pay for an order of that number."""
    return asked(MakePayment(order_id=f"o-{number}", amount=Decimal("60.40")), key=f"s/{number}/do")


async def test_a_batch_is_one_commit_and_a_handful_of_ways(house: House, counter: Counter) -> None:
    orders = Orders(house)
    await orders.run()
    counted = []
    for stage in orders.stages():
        counter.reset()
        await orders.take(stage)
        counted.append((len(counter.statements), counter.hops))
        assert counter.commits == 1
    assert counted == [START, *REPLIES]


async def test_a_command_is_one_commit_and_a_handful_of_ways(desk: Desk, counter: Counter) -> None:
    counter.reset()
    await desk.take(command(1))
    assert (len(counter.statements), counter.hops, counter.commits) == (*COMMAND, 1)


async def test_commands_at_once_are_one_commit(desk: Desk, counter: Counter) -> None:
    await asyncio.gather(*(desk.take(command(number)) for number in range(1, COMMANDS + 1)))  # so many read at once
    counter.reset()
    await asyncio.gather(*(desk.take(command(number)) for number in range(COMMANDS + 1, 2 * COMMANDS + 1)))
    assert counter.hops < COMMANDS * COMMAND[1]  # the commit is for all, and some connections are opened to read
    assert counter.commits <= COMMANDS / 4


async def test_a_message_takes_no_more_calls_than_it_is_allowed(house: House) -> None:
    orders = Orders(house)
    await orders.run()
    stages = orders.stages()
    with Calls() as calls:
        for stage in stages:
            await orders.take(stage)
    messages = MESSAGES * BATCH
    assert calls.ours / messages < CALLS_OF_OURS
    assert calls.all / messages < CALLS_OF_ALL


async def test_a_saga_writes_no_more_than_it_is_allowed(house: House, database: Database, tmp_path: Path) -> None:
    """To the log: what goes on into the file is the same pages once more, and fewer."""
    orders = Orders(house)
    async with database.write() as session:
        await session.directly(lambda direct: direct.rows("pragma wal_autocheckpoint = 0", {}))
    await orders.run()
    log = tmp_path / "antiphon.db-wal"
    before = log.stat().st_size
    await orders.run()
    assert (log.stat().st_size - before) / BATCH < WRITTEN
