"""Lost connections, full turns, cancelled tasks: what the caller is told, and that the pool stays clean."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from messages.errors import (
    CommitUnknown,
    ConfigurationError,
    DatabaseAway,
    DatabaseBusy,
    MessageError,
)
from running import AsyncioRunner
from storage import Database, Session
from storage.statements import Statement
from tests.storage.databases import ASYNCPG, PSYCOPG, opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

_NOTE = Statement.both("insert into definition_message (name, role, type, version) values (:name, 'event', 't', 1)")
_NOTED = Statement.both("select name from definition_message order by name")


async def note(session: Session, name: str) -> None:
    await session.fetch(_NOTE, {"name": name})


async def noted(database: Database) -> list[str]:
    async with database.read() as session:
        return [row.name for row in await session.fetch(_NOTED, {})]


async def pid(session: Session) -> int:
    [row] = await session.fetch(Statement.both("select pg_backend_pid() as pid"), {})
    return int(row.pid)


async def kill(database: Database, victim: int) -> None:
    """End one of our own connections from the server's side, and wait until it is gone."""
    other = Database(database.engine.url.render_as_string(hide_password=False), AsyncioRunner())
    async with asyncio.timeout(30), other.single() as session:
        await session.fetch(Statement.both("select pg_terminate_backend(cast(:pid as int))"), {"pid": victim})
        alive = Statement.both("select 1 from pg_stat_activity where pid = cast(:pid as int)")
        while await session.fetch(alive, {"pid": victim}):
            pass
    await other.close()


async def test_leaving_the_block_commits_and_an_exception_rolls_back(database: Database) -> None:
    async with database.write() as session:
        await note(session, "kept")
    with pytest.raises(ZeroDivisionError):
        async with database.write() as session:
            await note(session, "lost")
            raise ZeroDivisionError
    assert await noted(database) == ["kept"]


async def test_a_single_statement_commits_by_itself(database: Database) -> None:
    async with database.single() as session:
        await note(session, "kept")
    assert await noted(database) == ["kept"]


async def test_a_cancelled_transaction_leaves_nothing_and_harms_nobody(database: Database) -> None:
    started = asyncio.Event()

    async def work() -> None:
        async with database.write() as session:
            await note(session, "lost")
            started.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await started.wait()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()
    async with database.write() as session:
        await note(session, "kept")
    assert await noted(database) == ["kept"]


async def test_transactions_cancelled_at_any_moment_leave_the_pool_usable(database: Database) -> None:
    async def work(name: str) -> None:
        async with database.write() as session:
            await note(session, name)
            await note(session, f"{name} again")

    for ticks in range(40):
        task = asyncio.create_task(work(f"c{ticks}"))
        for _ in range(ticks):
            await asyncio.sleep(0)  # one turn of the loop
        task.cancel()
        await asyncio.wait([task])
    async with asyncio.TaskGroup() as tasks:
        for number in range(15):
            tasks.create_task(work(f"kept-{number:02}"))
    names = await noted(database)
    kept = [name for name in names if name.startswith("kept")]
    assert len(kept) == 30
    whole = {name.removesuffix(" again") for name in names}
    assert len(names) == 2 * len(whole)
    if database.postgresql:
        async with database.read() as session:
            idle = text(
                "select count(*) from pg_stat_activity where state like 'idle in transaction%' "
                "and datname = current_database() and pid <> pg_backend_pid()"
            )
            assert (await session.connection.execute(idle)).scalar_one() == 0


async def test_writers_of_sqlite_take_turns_and_readers_wait_for_none(sqlite: Database) -> None:
    order: list[int] = []

    async def write(number: int) -> None:
        async with sqlite.write() as session:
            order.append(number)
            await note(session, f"{number:03}")

    async with sqlite.write() as session:
        await note(session, "open")
        writers = [asyncio.create_task(write(number)) for number in range(30)]
        assert await noted(sqlite) == []
    await asyncio.gather(*writers)
    assert order == list(range(30))
    assert len(await noted(sqlite)) == 31


async def test_two_processes_may_write_to_one_sqlite_file(sqlite: Database) -> None:
    other = Database(sqlite.engine.url.render_as_string(), AsyncioRunner())

    async def write(database: Database, name: str) -> None:
        async with database.write() as session:
            await note(session, name)

    await asyncio.gather(*(write((sqlite, other)[number % 2], f"{number}") for number in range(20)))
    assert len(await noted(other)) == 20
    await other.close()


async def test_a_connection_lost_before_commit_means_nothing_was_committed(postgresql: Database) -> None:
    with pytest.raises(DatabaseAway):
        async with postgresql.write() as session:
            await note(session, "lost")
            await kill(postgresql, await pid(session))
            await note(session, "never")
    assert await noted(postgresql) == []


async def test_a_connection_lost_in_the_pool_is_trouble_once(postgresql: Database) -> None:
    async with postgresql.write() as session:
        victim = await pid(session)
    await kill(postgresql, victim)
    failures = 0
    for _ in range(3):
        try:
            async with postgresql.write() as session:
                await note(session, f"after {failures}")
                break
        except DatabaseAway:
            failures += 1
    assert failures <= 1
    assert len(await noted(postgresql)) == 1


async def test_a_connection_lost_while_committing_is_a_commit_nobody_knows(postgresql: Database) -> None:
    with pytest.raises(CommitUnknown):
        async with postgresql.write() as session:
            await note(session, "lost")
            await kill(postgresql, await pid(session))
    assert await noted(postgresql) == []


async def test_a_single_statement_that_lost_its_connection_may_have_committed(postgresql: Database) -> None:
    with pytest.raises(CommitUnknown):
        async with postgresql.single() as session:
            await kill(postgresql, await pid(session))
            await note(session, "lost")


async def test_a_commit_that_the_database_refuses_is_the_messages_fault(postgresql: Database) -> None:
    async with postgresql.write() as session:
        await session.connection.execute(
            text("create temporary table unique_later (a int unique deferrable initially deferred) on commit drop")
        )
    with pytest.raises(MessageError):
        async with postgresql.write() as session:
            await session.connection.execute(
                text("create temporary table unique_later (a int unique deferrable initially deferred)")
            )
            await session.connection.execute(text("insert into unique_later values (1), (1)"))


@pytest.mark.parametrize(
    ("sql", "error"),
    [
        ("select 1 / 0", MessageError),
        ("select cast('a' as int)", MessageError),
        ("insert into definition_message (name, role, type, version) values (null, 'x', 'x', 1)", MessageError),
        ("select * from no_such_table", ConfigurationError),
        ("select no_such_column from saga", ConfigurationError),
        ("set local statement_timeout = 20; select pg_sleep(10)", DatabaseBusy),
        ("do $$ begin raise exception sqlstate '40001'; end $$", DatabaseBusy),
        ("do $$ begin raise exception sqlstate '40P01'; end $$", DatabaseBusy),
        ("do $$ begin raise exception sqlstate '53100'; end $$", DatabaseBusy),
        ("do $$ begin raise exception sqlstate '54000'; end $$", MessageError),
        ("do $$ begin raise exception sqlstate '08006'; end $$", DatabaseAway),
        ("do $$ begin raise exception sqlstate '57P01'; end $$", DatabaseAway),
        ("do $$ begin raise exception sqlstate '25006'; end $$", DatabaseAway),
        ("do $$ begin raise exception sqlstate '42501'; end $$", ConfigurationError),
    ],
)
async def test_what_postgresql_says_is_understood(postgresql: Database, sql: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        async with postgresql.write() as session:
            for statement in sql.split("; ", 1) if sql.startswith("set") else [sql]:
                await session.fetch(Statement.both(statement.replace(":", "\\:")), {})
    assert await noted(postgresql) == []


async def test_a_plan_that_a_migration_made_stale_is_trouble_once(postgresql: Database) -> None:
    everything = Statement.both("select * from changing")
    async with postgresql.write() as session:
        await session.connection.execute(text("create table if not exists changing (a int)"))
    try:
        for _ in range(8):  # psycopg prepares a statement it has seen a few times
            async with postgresql.write() as session:
                await session.fetch(everything, {})
        async with postgresql.write() as session:
            await session.connection.execute(text("alter table changing add column b int"))
        failures = 0
        for _ in range(2):
            try:
                async with postgresql.write() as session:
                    await session.fetch(everything, {})
            except DatabaseBusy:
                failures += 1
        assert failures <= 1
    finally:
        async with postgresql.write() as session:
            await session.connection.execute(text("drop table changing"))


async def test_a_mistake_in_the_program_stays_what_it_is(database: Database) -> None:
    with pytest.raises(Exception, match="syntax") as raised:
        async with database.write() as session:
            await session.fetch(Statement.both("selekt 1"), {})
    assert not isinstance(raised.value, (MessageError, DatabaseBusy, DatabaseAway, ConfigurationError))


@pytest.mark.parametrize("value", ["\ud800", "\x00"])
async def test_text_that_no_column_takes_is_the_messages_fault(postgresql: Database, value: str) -> None:
    with pytest.raises(MessageError):
        async with postgresql.write() as session:
            await note(session, value)


async def test_text_that_sqlite_does_not_take_is_the_messages_fault(sqlite: Database) -> None:
    with pytest.raises(MessageError):
        async with sqlite.write() as session:
            await note(session, "\ud800")
    with pytest.raises(MessageError):
        async with sqlite.write() as session:
            await session.fetch(
                Statement.both("insert into definition_message values ('n', 'event', 't', :version)"),
                {"version": 2**70},
            )


async def test_a_missing_table_on_sqlite_says_to_migrate(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/a.db", AsyncioRunner())
    with pytest.raises(ConfigurationError, match="antiphon migrate"):
        await noted(database)
    await database.close()


async def test_a_missing_schema_says_to_migrate(postgres_url: str) -> None:
    for address in (postgres_url, postgres_url.replace("postgresql://", "postgresql+psycopg://")):
        database = Database(address, AsyncioRunner(), namespace="nothing_here")
        with pytest.raises(ConfigurationError, match="antiphon migrate"):
            await noted(database)
        await database.close()


@pytest.mark.parametrize("driver", ["postgresql", "postgresql+psycopg"])
async def test_a_database_that_nobody_answers_for_is_away(driver: str) -> None:
    database = Database(f"{driver}://nobody:hunter2@127.0.0.1:1/none", AsyncioRunner())
    with pytest.raises(DatabaseAway) as away:
        async with database.read():
            pass
    assert "hunter2" not in str(away.value)
    await database.close()


@pytest.mark.parametrize("driver", ["postgresql", "postgresql+psycopg"])
async def test_a_host_that_has_no_address_is_away(driver: str) -> None:
    database = Database(f"{driver}://nobody@no-such-host.invalid/none", AsyncioRunner())
    with pytest.raises(DatabaseAway):
        async with database.read():
            pass
    await database.close()


@pytest.mark.parametrize("driver", ["postgresql", "postgresql+psycopg"])
async def test_a_database_that_does_not_exist_is_a_configuration_error(postgres_url: str, driver: str) -> None:
    address = postgres_url.rpartition("/")[0].replace("postgresql", driver, 1) + "/no_such_database"
    database = Database(address, AsyncioRunner())
    with pytest.raises(ConfigurationError, match="no_such_database"):
        async with database.read():
            pass
    await database.close()


@pytest.mark.parametrize("kind", [ASYNCPG, PSYCOPG])
async def test_a_pool_that_is_empty_for_too_long_is_busy(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    async with opened(kind, request, tmp_path, pool_size=1) as database:
        database.engine.pool._timeout = 0  # type: ignore[attr-defined]
        async with database.read():
            with pytest.raises(DatabaseBusy):
                async with database.read():
                    pass


class ImpatientRunner(AsyncioRunner):
    """Gives everything up as soon as it has to wait, once it was told to."""

    impatient = False

    def timeout(self, seconds: float | None) -> AbstractAsyncContextManager[object]:
        return super().timeout(0 if self.impatient else seconds)


@pytest.fixture(params=[ASYNCPG, PSYCOPG, "sqlite"])
async def impatient(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Database, ImpatientRunner]]:
    async with opened(request.param, request, tmp_path) as database:
        runner = ImpatientRunner()
        database.runner = runner
        yield database, runner


async def test_a_statement_that_takes_too_long_is_given_up_and_rolled_back(
    impatient: tuple[Database, ImpatientRunner],
) -> None:
    database, runner = impatient
    with pytest.raises(DatabaseAway):
        async with database.write() as session:
            await note(session, "lost")
            runner.impatient = True
            await note(session, "never")
    runner.impatient = False
    async with database.write() as session:
        await note(session, "kept")
    assert await noted(database) == ["kept"]


async def test_a_commit_that_takes_too_long_is_unknown(impatient: tuple[Database, ImpatientRunner]) -> None:
    database, runner = impatient
    with pytest.raises(CommitUnknown):
        async with database.write() as session:
            await note(session, "who knows")
            runner.impatient = True
    runner.impatient = False
    async with database.write() as session:
        await note(session, "kept")
    assert set(await noted(database)) - {"who knows"} == {"kept"}
