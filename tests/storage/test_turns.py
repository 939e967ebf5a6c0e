"""Transactions of SQLite take turns on one connection and share commits; one that fails harms no other."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from messages.errors import DatabaseAway, DatabaseBusy, MessageError, Trouble
from storage.sqlite import behind
from storage.statements import Statement
from storage.turns import MOST
from tests.storage.databases import SQLITE

if TYPE_CHECKING:
    from storage import Database
    from tests.storage.databases import Counter

PATIENCE = 30.0
INSERT = Statement.both("insert into turns (number) values (:number)")
NUMBERS = Statement.both("select number from turns order by 1")


pytestmark = pytest.mark.parametrize("database", [SQLITE], indirect=True)


@pytest.fixture
async def file(database: Database) -> Database:
    async with database.write() as session:
        await session.connection.execute(text("create table turns (number int primary key)"))
    return database


async def numbers(file: Database) -> list[int]:
    async with file.read() as session:
        return [row.number for row in await session.fetch(NUMBERS, {})]


async def put(file: Database, number: int, *, joins: bool = True) -> None:
    async with file.write(joins=joins) as session:
        await session.fetch(INSERT, {"number": number})


async def together(file: Database, *works: asyncio.Task[None]) -> list[BaseException | None]:
    """What became of them; all of them were there before the first one ended."""
    async with asyncio.timeout(PATIENCE):
        return await asyncio.gather(*works, return_exceptions=True)


def tasks(file: Database, *numbers: int, joins: bool = True) -> list[asyncio.Task[None]]:
    return [asyncio.create_task(put(file, number, joins=joins)) for number in numbers]


async def test_whoever_waits_joins_and_all_are_committed_at_once(file: Database, counter: Counter) -> None:
    counter.reset()
    await together(file, *tasks(file, *range(MOST)))
    assert counter.commits == 1
    assert await numbers(file) == list(range(MOST))


async def test_one_that_does_not_join_begins_when_all_before_it_is_committed(file: Database) -> None:
    first, seen = asyncio.Event(), asyncio.Event()

    async def early() -> None:
        await put(file, 1)
        first.set()

    async def late() -> None:
        async with file.write():
            await first.wait()  # who joins would wait for itself
            seen.set()

    await together(file, asyncio.create_task(early()), asyncio.create_task(late()))
    assert seen.is_set()


async def test_one_that_fails_takes_back_what_it_did_and_nothing_else(file: Database) -> None:
    async def bad(number: int) -> None:
        async with file.write(joins=True) as session:
            await session.fetch(INSERT, {"number": number})
            raise LookupError

    works = [*tasks(file, 1), asyncio.create_task(bad(2)), *tasks(file, 3), asyncio.create_task(bad(4))]
    assert [type(each) for each in await together(file, *works)] == [type(None), LookupError, type(None), LookupError]
    assert await numbers(file) == [1, 3]


async def test_a_lent_connection_may_be_rolled_back_among_others(file: Database) -> None:
    async def lent() -> None:
        async with file.write_late() as session:
            await session.connection.execute(text("insert into turns values (2)"))
            await session.connection.rollback()
            await session.connection.execute(text("insert into turns values (3)"))

    await together(file, *tasks(file, 1), asyncio.create_task(lent()), *tasks(file, 4))
    assert await numbers(file) == [1, 3, 4]


async def test_one_cancelled_while_it_waits_for_the_shared_commit_harms_nobody(file: Database) -> None:
    for ticks in range(1, 40):
        some = tasks(file, *(10 * ticks + number for number in range(5)))
        for _ in range(ticks):
            await asyncio.sleep(0)  # one turn of the loop
        some[ticks % 5].cancel()
        ended = await together(file, *some)
        assert sum(each is not None for each in ended) <= 1
    found = await numbers(file)
    assert len(found) == len(set(found)) >= 4 * 39


async def test_with_the_connection_goes_what_was_not_committed_and_whoever_waited_is_told(file: Database) -> None:
    async def killer() -> None:
        async with file.write(joins=True) as session:
            await session.fetch(INSERT, {"number": 2})
            behind(session.connection).throw_away()  # type: ignore[attr-defined]
            await session.fetch(INSERT, {"number": 3})

    ended = await together(file, *tasks(file, 1), asyncio.create_task(killer()))
    assert isinstance(ended[0], Trouble)
    assert isinstance(ended[1], DatabaseAway)
    await put(file, 4)
    assert await numbers(file) == [4]


async def test_a_shared_commit_that_is_refused_is_tried_by_each_alone_so_that_one_is_to_blame(file: Database) -> None:
    async with file.write() as session:
        for statement in (
            "create table whole (part int primary key)",
            "create table part (of int references whole (part) deferrable initially deferred)",
        ):
            await session.connection.execute(text(statement))

    async def dangling() -> None:
        async with file.write(joins=True) as session:
            await session.connection.execute(text("insert into part values (7)"))

    ended = await together(file, *tasks(file, 1), asyncio.create_task(dangling()))
    assert [type(each) for each in ended] == [DatabaseBusy, DatabaseBusy]
    again = await together(file, *tasks(file, 1), asyncio.create_task(dangling()), *tasks(file, 2))
    assert [type(each) for each in again] == [type(None), MessageError, type(None)]
    assert await numbers(file) == [1, 2]


async def test_what_another_process_commits_is_noticed_once_and_what_we_do_is_not(file: Database) -> None:
    assert not await file.others_wrote()
    await put(file, 1)
    assert not await file.others_wrote()
    with sqlite3.connect(str(file.engine.url.database)) as other:
        other.execute("insert into turns values (2)")
    other.close()
    assert await file.others_wrote()
    assert not await file.others_wrote()
