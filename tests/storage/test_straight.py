"""Single statements over asyncpg, which go past SQLAlchemy; what both ways promise is in `test_database`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from sqlalchemy import make_url

from messages.errors import CommitUnknown, ConfigurationError, DatabaseBusy, DatabaseExhausted, MessageError
from running import AsyncioRunner
from storage import Database
from storage import database as module
from storage.statements import Statement
from tests.storage.databases import ASYNCPG, opened
from tests.storage.test_database import kill, pid

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from storage.database import Session

SLEEP = Statement.both("select pg_sleep(30)")


@pytest.fixture
async def postgres(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    async with opened(ASYNCPG, request, tmp_path, pool_size=2) as database:
        yield database


async def one(session: Session) -> int:
    [row] = await session.fetch(Statement.both("select cast(:number as bigint) as number"), {"number": 1})
    return int(row.number)


async def pid_of(database: Database) -> int:
    async with database.single() as session:
        return await pid(session)


async def test_a_session_for_single_statements_has_no_connection_of_sqlalchemys(postgres: Database) -> None:
    async with postgres.single() as session:
        with pytest.raises(LookupError):
            _ = session.connection
        assert await one(session) == 1


async def test_the_same_connection_serves_again(postgres: Database) -> None:
    assert await pid_of(postgres) == await pid_of(postgres)


async def test_a_connection_that_the_server_closed_in_the_pool_is_noticed_before_it_is_used(
    postgres: Database,
) -> None:
    victim = await pid_of(postgres)
    await kill(postgres, victim)
    await asyncio.sleep(0.05)  # what the server said has arrived
    assert await pid_of(postgres) != victim


async def test_whoever_finds_every_connection_lent_waits_for_one(postgres: Database) -> None:
    async with postgres.single() as first, postgres.single():
        waiting = asyncio.create_task(pid_of(postgres))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        assert await one(first) == 1
    assert await waiting


async def test_whoever_waits_too_long_for_a_connection_is_told(
    postgres: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres.engine.pool, "_timeout", 0.05)
    async with postgres.single(), postgres.single():
        with pytest.raises(DatabaseExhausted):
            await pid_of(postgres)


async def test_a_connection_that_cannot_be_made_anew_is_told_as_any_other(postgres: Database) -> None:
    """The one in the pool is gone, and the server has none left for us."""
    role = f"few_{uuid4().hex[:8]}"
    url = make_url(postgres.engine.url).set(username=role, password=role)
    await execute(postgres, f"create role {role} login password '{role}'")
    few = Database(url.render_as_string(hide_password=False), AsyncioRunner(), pool_size=1)
    try:
        victim = await pid_of(few)
        await execute(postgres, f"alter role {role} connection limit 0")
        await kill(postgres, victim)
        await asyncio.sleep(0.05)  # what the server said has arrived
        for _ in range(2):
            with pytest.raises(DatabaseExhausted):
                await pid_of(few)
        await execute(postgres, f"alter role {role} connection limit -1")
        assert await pid_of(few) != victim
    finally:
        await few.close()
        await execute(postgres, f"drop role {role}")


async def test_a_cancelled_statement_ends_at_the_server_and_its_connection_is_not_used_again(
    postgres: Database,
) -> None:
    victim = await pid_of(postgres)

    async def sleep() -> None:
        async with postgres.single() as session:
            await session.fetch(SLEEP, {})

    task = asyncio.create_task(sleep())
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await pid_of(postgres) != victim
    assert await alive(postgres, victim) == 0


async def test_a_statement_without_an_answer_may_have_committed_and_is_cancelled(
    postgres: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = await pid_of(postgres)
    monkeypatch.setattr(module, "STATEMENT_BOUND", 0.1)
    with pytest.raises(CommitUnknown, match="no answer in time"):
        async with postgres.single() as session:
            await session.fetch(SLEEP, {})
    assert await alive(postgres, victim) == 0


@pytest.mark.parametrize(
    ("statement", "parameters", "meaning"),
    [
        ("select cast(:text as bigint)", {"text": "no number"}, MessageError),  # by the driver
        ("select cast(cast(:text as text) as bigint)", {"text": "no number"}, MessageError),  # by the server
        ("select * from nowhere", {}, ConfigurationError),
        ("select pg_cancel_backend(pg_backend_pid())", {}, DatabaseBusy),
    ],
)
async def test_what_a_statement_is_refused_for_leaves_its_connection_in_use(
    postgres: Database, statement: str, parameters: dict[str, object], meaning: type[Exception]
) -> None:
    before = await pid_of(postgres)
    with pytest.raises(meaning):
        async with postgres.single() as session:
            await session.fetch(Statement.both(statement), parameters)
    assert await pid_of(postgres) == before


async def test_what_is_raised_beside_a_statement_leaves_its_connection_in_use(postgres: Database) -> None:
    before = await pid_of(postgres)
    with pytest.raises(ZeroDivisionError):
        async with postgres.single() as session:
            await one(session)
            raise ZeroDivisionError
    assert await pid_of(postgres) == before


async def test_a_table_that_was_changed_meanwhile_does_not_fail_a_statement(postgres: Database) -> None:
    selected = Statement.both("select * from changing")
    for change in ("drop table if exists changing", "create table changing (a int)"):
        await execute(postgres, change)
    async with postgres.single() as session:
        await session.fetch(selected, {})
    await execute(postgres, "alter table changing add column b int")
    await execute(postgres, "insert into changing values (1, 2)")
    async with postgres.single() as session:
        [row] = await session.fetch(selected, {})
    assert (row.a, row.b) == (1, 2)
    await execute(postgres, "drop table changing")


async def execute(database: Database, sql: str) -> None:
    async with database.single() as session:
        await session.fetch(Statement.both(sql), {})


async def alive(database: Database, victim: int) -> int:
    """How many sessions have that number; it takes the server a moment to end one."""
    counted = Statement.both("select count(*) as n from pg_stat_activity where pid = cast(:pid as int)")
    other = Database(database.engine.url.render_as_string(hide_password=False), AsyncioRunner())
    try:
        for _ in range(100):
            async with other.single() as session:
                [row] = await session.fetch(counted, {"pid": victim})
            if not row.n:
                return 0
            await asyncio.sleep(0.05)
    finally:
        await other.close()
    return int(row.n)
