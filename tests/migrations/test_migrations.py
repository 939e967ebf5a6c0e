"""The migrations make exactly the schema that the tables and views describe, up, down and up again, and once."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

import migrations
from messages.errors import ConfigurationError
from migrations.migrate import _config
from running import AsyncioRunner
from storage import Database
from storage.door import door
from storage.schema import SchemaState, schema_is_current, schema_state
from storage.tables import CHANGED_MEANWHILE, STORAGE_PARAMETERS, metadata
from storage.views import POSTGRESQL_VIEWS, SQLITE_VIEWS, VIEWS
from tests.storage.databases import ASYNCPG, PSYCOPG, SQLITE, address_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path


@pytest.fixture(params=[SQLITE, ASYNCPG, PSYCOPG])
async def bare(
    request: pytest.FixtureRequest, tmp_path: Path, fresh_database: Callable[[], str]
) -> AsyncIterator[Database]:
    """A database without any table."""
    if request.param == SQLITE:
        address = address_of(SQLITE, request, tmp_path)
    else:
        address = fresh_database()
        if request.param == PSYCOPG:
            address = address.replace("postgresql://", "postgresql+psycopg://")
    database = Database(address, AsyncioRunner(), namespace="shop")
    yield database
    await database.close()


async def _names(database: Database) -> set[str]:
    async with database.read() as session:
        found: set[str] = await session.connection.run_sync(
            lambda connection: {*inspect(connection).get_table_names(), *inspect(connection).get_view_names()}
        )
    return found


async def test_up_down_and_up_again(bare: Database) -> None:
    assert await migrations.check(bare) is None
    assert await migrations.up(bare) is None
    assert await migrations.check(bare) == migrations.HEAD
    everything = {*metadata.tables, *VIEWS, "alembic_version"}
    assert await _names(bare) == everything
    assert await migrations.down(bare) == migrations.HEAD
    assert await _names(bare) == {"alembic_version"}
    assert await migrations.up(bare) is None
    assert await _names(bare) == everything
    assert await migrations.up(bare) == migrations.HEAD


async def test_the_tables_are_those_of_the_metadata(bare: Database) -> None:
    await migrations.up(bare)
    async with bare.read() as session:
        differences = await session.connection.run_sync(_differences)
    assert differences == []


def _differences(connection: Connection) -> list[object]:
    on_postgresql = connection.dialect.name == "postgresql"  # on SQLite a counting column looks like a plain one
    context = MigrationContext.configure(
        connection, opts={"compare_type": True, "compare_server_default": on_postgresql}
    )
    return list(compare_metadata(context, metadata))


async def test_the_views_and_the_door_are_those_the_program_describes(fresh_database: Callable[[], str]) -> None:
    database = Database(fresh_database(), AsyncioRunner(), namespace="shop")
    try:
        await migrations.up(database)
        migrated = await _described(database)
        async with database.write() as session:
            connection = session.connection
            await connection.execute(text("drop schema shop cascade"))
            await connection.execute(text("create schema shop"))
            await connection.run_sync(metadata.create_all)
            for statement in (*POSTGRESQL_VIEWS, *door("shop"), CHANGED_MEANWHILE):
                await connection.exec_driver_sql(statement)
            for table, parameters in STORAGE_PARAMETERS.items():
                await connection.execute(text(f"alter table {table} set ({parameters})"))
        assert migrated == await _described(database)
        assert len(migrated) == len(VIEWS) + len(metadata.tables) + 3
    finally:
        await database.close()


async def _described(database: Database) -> dict[str, object]:
    async with database.read() as session:
        rows = await session.connection.execute(
            text("""
                select relname, pg_get_viewdef(oid) as described from pg_class
                where relkind = 'v' and relnamespace = 'shop'::regnamespace
                union all
                select relname, coalesce(array_to_string(reloptions, ' '), '') || ' ' || obj_description(oid)
                from pg_class
                where relkind = 'r' and relnamespace = 'shop'::regnamespace and relname <> 'alembic_version'
                union all
                select proname, pg_get_functiondef(oid) || array_to_string(proacl, ' ') from pg_proc
                where pronamespace = 'shop'::regnamespace
            """)
        )
        return {row.relname: row.described for row in rows}


async def test_sqlites_views_are_those_the_program_describes(sqlite: Database) -> None:
    async with sqlite.read() as session:
        rows = await session.connection.execute(text("select name, sql from sqlite_master where type = 'view'"))
        found = {row.name: " ".join(row.sql.split()) for row in rows}
    wanted = {name: " ".join(sql.split()) for name, sql in zip(VIEWS, SQLITE_VIEWS, strict=True)}
    assert {name: sql.lower() for name, sql in found.items()} == {name: sql.lower() for name, sql in wanted.items()}


async def test_two_that_migrate_at_once_in_one_process_both_succeed(bare: Database) -> None:
    before = await asyncio.gather(migrations.up(bare), migrations.up(bare), migrations.up(bare))
    assert before.count(None) == 1
    assert await schema_is_current(bare)


_MIGRATE = """
import asyncio, sys
import migrations
from running import AsyncioRunner
from storage import Database
async def main():
    database = Database(sys.argv[1], AsyncioRunner(), namespace="shop")
    print("ready", flush=True)
    sys.stdin.readline()
    print(await migrations.up(database))
    await database.close()
asyncio.run(main())
"""


@pytest.mark.parametrize("bare", [SQLITE, ASYNCPG], indirect=True)
async def test_two_processes_that_migrate_at_once_both_succeed(bare: Database) -> None:
    address = bare.engine.url.render_as_string(hide_password=False)
    pipe = asyncio.subprocess.PIPE
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-W", "error", "-c", _MIGRATE, address, stdin=pipe, stdout=pipe
        )
        for _ in range(2)
    ]
    async with asyncio.timeout(100):
        for process in processes:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"ready\n"
        outputs = await asyncio.gather(*(process.communicate(b"go\n") for process in processes))
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(output.decode().strip() for output, _ in outputs) == [migrations.HEAD, "None"]
    assert await schema_is_current(bare)


async def test_the_script_for_an_administrator_makes_the_same_schema(fresh_database: Callable[[], str]) -> None:
    database = Database(fresh_database(), AsyncioRunner(), namespace="shop")
    try:
        await migrations.up(database)
        migrated = await _described(database)
        async with database.write() as session:
            await session.connection.execute(text("drop schema shop cascade"))
        async with database.engine.connect() as connection:
            raw = await connection.get_raw_connection()
            assert raw.driver_connection is not None
            await raw.driver_connection.execute(migrations.sql("shop"))
        assert migrated == await _described(database)
        assert await migrations.check(database) == migrations.HEAD
    finally:
        await database.close()


async def test_a_script_refuses_a_namespace_that_is_no_name() -> None:
    with pytest.raises(ConfigurationError, match="namespace"):
        migrations.sql("shop; drop table x")


async def test_namespaces_in_one_database_do_not_see_each_other(fresh_database: Callable[[], str]) -> None:
    address = fresh_database()
    shop, bank = (Database(address, AsyncioRunner(), namespace=name) for name in ("shop", "bank"))
    try:
        await migrations.up(shop)
        assert await schema_state(bank) == SchemaState(found=None)
        await migrations.up(bank)
        await migrations.down(shop)
        assert await schema_is_current(bank)
    finally:
        await shop.close()
        await bank.close()


async def test_a_schema_of_a_newer_program_is_left_alone(bare: Database) -> None:
    await migrations.up(bare)
    async with bare.write() as session:
        await session.connection.execute(text("update alembic_version set version_num = '9999'"))
    for run in (migrations.up, migrations.down):
        with pytest.raises(ConfigurationError, match="9999"):
            await run(bare)
    assert (await schema_state(bare)).current


async def test_a_schema_that_is_behind_is_not_current() -> None:
    assert not SchemaState(found=None).current
    assert not SchemaState(found="0000").current


def test_the_newest_version_is_the_one_the_tables_say() -> None:
    assert ScriptDirectory.from_config(_config()).get_heads() == [migrations.HEAD]
