"""Whoever writes to an SQLite file keeps to its own transaction, whatever code that is not ours does with a connection.

That code may fail before its first statement, give up waiting, leave a statement behind or have everything rolled back.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, StatementError

from messages.errors import DatabaseAway, Trouble
from storage.statements import Statement
from storage.turns import LONGEST
from tests.storage.databases import SQLITE

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from storage import Database
    from tests.storage.databases import Counter

PATIENCE = 30.0
INSERT = Statement.both("insert into turns (number) values (:number)")
NUMBERS = Statement.both("select number from turns order by 1")
TABLE = "create table turns (number int primary key)"
UNLUCKY = 13
TRIGGER = f"""
    create trigger unlucky before insert on turns when new.number = {UNLUCKY}
    begin select raise(rollback, 'out of stock'); end
"""


@pytest.fixture
async def file(sqlite: Database) -> Database:
    await prepare(sqlite, TABLE, TRIGGER)
    return sqlite


async def prepare(file: Database, *statements: str) -> None:
    async with file.write() as session:
        for statement in statements:
            await session.connection.execute(text(statement))


async def numbers(file: Database) -> list[int]:
    async with file.read() as session:
        return [row.number for row in await session.fetch(NUMBERS, {})]


async def put(file: Database, number: int) -> None:
    async with file.write(joins=True) as session:
        await session.fetch(INSERT, {"number": number})


async def together(*works: Coroutine[Any, Any, None] | asyncio.Task[None]) -> list[BaseException | None]:
    """What became of them; they begin in this order."""
    async with asyncio.timeout(PATIENCE):
        return await asyncio.gather(*works, return_exceptions=True)


async def without_parameter(file: Database, half: asyncio.Event, go: asyncio.Event) -> None:
    """A lent connection whose first statement cannot be run at all, while somebody else is half way."""
    await half.wait()
    try:
        async with file.write_late() as session:
            await session.connection.execute(text("insert into turns values (:numbr)"), {"number": 9})
    finally:
        go.set()


async def test_a_first_statement_that_cannot_be_run_leaves_the_transaction_under_way_alone(file: Database) -> None:
    half, go = asyncio.Event(), asyncio.Event()

    async def under_way() -> None:
        async with file.write() as session:
            await session.fetch(INSERT, {"number": 1})
            half.set()
            await go.wait()
            await session.fetch(INSERT, {"number": 2})

    ended = await together(under_way(), without_parameter(file, half, go))
    assert [type(each) for each in ended] == [type(None), StatementError]
    assert await numbers(file) == [1, 2]


async def test_a_first_statement_that_cannot_be_run_leaves_the_savepoint_under_way_alone(file: Database) -> None:
    half, go = asyncio.Event(), asyncio.Event()

    async def under_way() -> None:
        async with file.write(joins=True) as session:
            await session.fetch(INSERT, {"number": 1})
            half.set()
            await go.wait()
            await session.fetch(INSERT, {"number": 2})
            raise LookupError

    ended = await together(put(file, 10), under_way(), without_parameter(file, half, go))
    assert [type(each) for each in ended] == [type(None), LookupError, StatementError]
    assert await numbers(file) == [10]


async def test_who_gave_up_waiting_for_its_first_statement_waits_anew_with_the_next(file: Database) -> None:
    half, go = asyncio.Event(), asyncio.Event()
    seen: list[int] = []

    async def under_way() -> None:
        async with file.write() as session:
            await session.fetch(INSERT, {"number": 1})
            half.set()
            await go.wait()
            seen.extend(row.number for row in await session.fetch(NUMBERS, {}))

    async def impatient() -> None:
        await half.wait()
        async with file.write_late() as session:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await session.connection.execute(text("insert into turns values (2)"))
            go.set()
            await session.connection.execute(text("insert into turns values (3)"))
            raise LookupError

    ended = await together(under_way(), impatient())
    assert [type(each) for each in ended] == [type(None), LookupError]
    assert seen == [1]
    assert await numbers(file) == [1]


async def rolled_back_by_a_trigger(file: Database, *followers: Coroutine[Any, Any, None]) -> list[BaseException | None]:
    """One is done and waits for its commit, the next one is rolled back with it and goes on, and others follow."""
    inside, queued, go = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def first() -> None:
        async with file.write(joins=True) as session:
            await session.fetch(INSERT, {"number": 1})
            inside.set()
            await go.wait()

    async def forgiving() -> None:
        await inside.wait()
        async with file.write_late() as session:
            queued.set()
            await session.connection.execute(text("insert into turns values (2)"))
            with pytest.raises(IntegrityError):
                await session.connection.execute(text("insert into turns values (:number)"), {"number": UNLUCKY})
            await session.fetch(INSERT, {"number": 3})

    works = [asyncio.create_task(first()), asyncio.create_task(forgiving())]
    async with asyncio.timeout(PATIENCE):
        await queued.wait()
    works.extend(asyncio.create_task(each) for each in followers)
    go.set()
    return await together(*works)


async def test_who_waits_for_a_commit_that_the_database_rolled_back_is_told(file: Database) -> None:
    ended = await rolled_back_by_a_trigger(file)
    assert isinstance(ended[0], Trouble)
    assert isinstance(ended[1], DatabaseAway)
    assert await numbers(file) == []


async def test_who_follows_on_what_the_database_rolled_back_is_committed_alone(file: Database) -> None:
    ended = await rolled_back_by_a_trigger(file, put(file, 4))
    assert isinstance(ended[0], Trouble)
    assert isinstance(ended[1], DatabaseAway)
    assert ended[2] is None
    assert await numbers(file) == [4]


async def test_one_that_the_database_rolled_back_is_told_why_and_whoever_has_not_begun_goes_on(file: Database) -> None:
    inside, go = asyncio.Event(), asyncio.Event()

    async def bystander() -> None:
        async with file.write_late() as session:
            inside.set()
            await go.wait()
            await session.connection.execute(text("insert into turns values (5)"))

    async def unlucky() -> None:
        await inside.wait()
        try:
            async with file.write_late() as session:
                await session.connection.execute(text("insert into turns values (:number)"), {"number": UNLUCKY})
        finally:
            go.set()

    ended = await together(bystander(), unlucky())
    assert [type(each) for each in ended] == [type(None), IntegrityError]
    assert "out of stock" in str(ended[1])
    assert await numbers(file) == [5]


async def test_a_turn_handed_on_passes_over_one_that_was_cancelled_just_now(file: Database) -> None:
    queued = asyncio.Event()

    async def waits() -> None:
        queued.set()
        await put(file, 2)

    works: list[asyncio.Task[None]] = []

    async def cancels() -> None:
        async with file.write(joins=True) as session:
            await session.fetch(INSERT, {"number": 1})
            works.extend((asyncio.create_task(waits()), asyncio.create_task(put(file, 3))))
            await queued.wait()
            works[0].cancel()

    ended = [*await together(cancels()), *await together(*works)]
    assert [type(each) for each in ended] == [type(None), asyncio.CancelledError, type(None)]
    await put(file, 4)
    assert await numbers(file) == [1, 3, 4]


async def test_what_is_streamed_first_on_a_lent_connection_is_taken_back_with_it(file: Database) -> None:
    async def streams() -> None:
        async with file.write_late() as session:
            result = await session.connection.stream(text("insert into turns values (2) returning number"))
            assert [row.number async for row in result] == [2]
            raise LookupError

    assert [type(each) for each in await together(streams())] == [LookupError]
    assert await numbers(file) == []


async def test_a_statement_left_behind_never_runs_and_the_turn_goes_to_the_next(file: Database) -> None:
    half, queued, go = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def under_way() -> None:
        async with file.write() as session:
            await session.fetch(INSERT, {"number": 1})
            half.set()
            await go.wait()

    left: list[asyncio.Task[None]] = []

    async def leaves() -> None:
        await half.wait()
        async with file.write_late() as session:

            async def statement() -> None:
                queued.set()
                await session.connection.execute(text("insert into turns values (2)"))

            left.append(asyncio.create_task(statement()))
            await queued.wait()
        go.set()

    assert await together(under_way(), leaves()) == [None, None]
    assert [type(each) for each in await together(*left)] == [DatabaseAway]
    assert await together(put(file, 5)) == [None]
    assert await numbers(file) == [1, 5]


@pytest.mark.parametrize("database", [SQLITE], indirect=True)
async def test_nobody_joins_a_commit_whose_first_has_waited_for_long(
    database: Database, counter: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    await prepare(database, TABLE)
    clock = 0.0
    monkeypatch.setattr(database.runner, "monotonic", lambda: clock)
    counter.reset()

    async def slow() -> None:
        nonlocal clock
        async with database.write(joins=True) as session:
            await session.fetch(INSERT, {"number": 2})
            clock += 2 * LONGEST

    async def late() -> None:
        async with database.write(joins=True) as session:
            assert counter.commits == 1
            await session.fetch(INSERT, {"number": 3})

    assert await together(put(database, 1), slow(), late(), put(database, 4)) == [None] * 4
    assert counter.commits == 2
    assert await numbers(database) == [1, 2, 3, 4]
