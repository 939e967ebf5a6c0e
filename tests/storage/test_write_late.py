"""A transaction that begins with its first statement: nothing is held before, and only its owner ends it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from storage.statements import Statement

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from storage import Database

PATIENCE = 30.0
INSERT = text("insert into late (number) values (:number)")


@pytest.fixture
async def late(database: Database) -> AsyncIterator[Database]:
    async with database.write() as session:
        await session.connection.execute(text("drop table if exists late"))
        await session.connection.execute(text("create table late (number int primary key)"))
    yield database


async def write(database: Database, number: int) -> None:
    async with asyncio.timeout(PATIENCE), database.write() as session:
        await session.connection.execute(INSERT, {"number": number})


async def numbers(database: Database) -> list[int]:
    async with database.read() as session:
        return [row.number for row in await session.fetch(Statement.both("select number from late order by 1"), {})]


async def test_others_write_until_it_begins(late: Database) -> None:
    async with late.write_late() as session:
        await write(late, 1)
        await session.connection.execute(INSERT, {"number": 2})
        assert await numbers(late) == [1]
    assert await numbers(late) == [1, 2]


async def test_once_begun_writers_of_sqlite_come_after_it_in_order(late: Database) -> None:
    order: list[int] = []

    async def one(number: int) -> None:
        async with late.write_late() as session:
            await session.connection.execute(INSERT, {"number": number})
            order.append(number)
            await asyncio.sleep(0)

    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*(one(number) for number in range(8)))
    assert await numbers(late) == list(range(8))
    assert sorted(order) == list(range(8))


async def test_what_is_raised_inside_takes_everything_back_and_lets_others_write(late: Database) -> None:
    with pytest.raises(LookupError):
        async with late.write_late() as session:
            await session.connection.execute(INSERT, {"number": 1})
            raise LookupError
    await write(late, 2)
    assert await numbers(late) == [2]


async def test_whoever_borrows_it_cannot_commit_but_may_roll_back(late: Database) -> None:
    with pytest.raises(RuntimeError, match="remove the commit"):
        async with late.write_late() as session:
            await session.connection.execute(INSERT, {"number": 1})
            await session.connection.commit()
    async with late.write_late() as session:
        await session.connection.execute(INSERT, {"number": 2})
        await session.connection.rollback()
        await session.connection.execute(INSERT, {"number": 3})
    await write(late, 4)
    assert await numbers(late) == [3, 4]


async def test_a_cancelled_one_lets_others_write(late: Database) -> None:
    begun = asyncio.Event()

    async def for_ever() -> None:
        async with late.write_late() as session:
            await session.connection.execute(INSERT, {"number": 1})
            begun.set()
            await asyncio.Event().wait()

    async with asyncio.timeout(PATIENCE):
        task = asyncio.create_task(for_ever())
        await begun.wait()
        task.cancel()
        await asyncio.wait([task])
    await write(late, 1)
    assert await numbers(late) == [1]


async def test_nothing_done_is_nothing_committed(late: Database) -> None:
    async with late.write_late():
        pass
    assert await numbers(late) == []
