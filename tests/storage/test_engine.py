from __future__ import annotations

import asyncio
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from messages.errors import ConfigurationError
from running import AsyncioRunner
from storage import Database
from storage.engine import check_namespace, create, normalised

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("pasted", "url"),
    [
        ("postgres://u:p@h:5432/d", "postgresql+asyncpg://u:p@h:5432/d"),
        (" postgresql://u:p@h/d ", "postgresql+asyncpg://u:p@h/d"),
        ("postgresql+asyncpg://h/d", "postgresql+asyncpg://h/d"),
        ("postgresql+psycopg://h/d?sslmode=require", "postgresql+psycopg://h/d?sslmode=require"),
        ("sqlite:///a.db", "sqlite+aiosqlite:///a.db"),
        ("sqlite:////var/lib/a.db", "sqlite+aiosqlite:////var/lib/a.db"),
    ],
)
def test_addresses_as_people_paste_them_get_their_driver(pasted: str, url: str) -> None:
    assert normalised(pasted).render_as_string(hide_password=False) == url


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "orders.db",
        "mysql://u:hunter2@h/d",
        "postgresql+psycopg2://u:hunter2@h/d",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///file:x?mode=memory",
        "sqlite://a.db",
        "sqlite:///a.db?mode=ro",
        "postgresql://u:hunter2@h:port/d",
    ],
)
def test_an_address_that_cannot_work_is_refused_without_its_password(wrong: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        normalised(wrong)
    assert "hunter2" not in str(refused.value)


def test_the_parameters_of_hosted_databases_are_understood() -> None:
    engine = create("postgres://u:p@h/d?sslmode=require&channel_binding=require&connect_timeout=3&application_name=a")
    assert engine.url.query == {}
    create("postgresql+psycopg://u:p@h/d?sslmode=require&application_name=a&options=-c%20geqo%3Doff")
    create("postgresql+asyncpg://u:p@h/d?ssl=verify-full")


def test_credentials_may_stand_among_the_parameters() -> None:
    url = create("postgresql:///d?host=/run/postgresql&user=u&password=p").url
    assert (url.username, url.password, url.query) == ("u", "p", {"host": "/run/postgresql"})


@pytest.mark.parametrize("driver", ["postgresql", "postgresql+psycopg"])
@pytest.mark.parametrize("query", ["sslmode=bogus", "sslmode=verify-full&sslrootcert=/nowhere"])
async def test_tls_that_cannot_work_is_a_configuration_error(postgres_url: str, driver: str, query: str) -> None:
    with pytest.raises(ConfigurationError):
        database = Database(f"{postgres_url.replace('postgresql', driver, 1)}?{query}", AsyncioRunner())
        async with database.read():
            pass


@pytest.mark.parametrize("query", ["sslmod=require", "connect_timeout=soon", "connect_timeout=0"])
def test_a_parameter_that_is_unknown_or_impossible_is_named(query: str) -> None:
    with pytest.raises(ConfigurationError, match=query.partition("=")[0]):
        create(f"postgresql://u:p@h/d?{query}")


@pytest.mark.parametrize("name", ["", "Shop", "1shop", "shop-1", "s" * 32, 'x"; drop'])
def test_a_namespace_is_a_plain_name(name: str) -> None:
    with pytest.raises(ConfigurationError):
        check_namespace(name)
    with pytest.raises(ConfigurationError):
        create("postgresql://h/d", namespace=name)


async def test_every_postgresql_session_has_its_limits_and_its_schema(postgresql: Database) -> None:
    wanted = {
        "statement_timeout": "15s",
        "lock_timeout": "5s",
        "idle_in_transaction_session_timeout": "15s",
        "tcp_keepalives_idle": "30",
        "tcp_keepalives_interval": "5",
        "tcp_user_timeout": "20000",
        "search_path": f'"{postgresql.namespace}"',
        "default_transaction_isolation": "read committed",
        "TimeZone": "UTC",
        "application_name": "antiphon",
    }
    async with postgresql.read() as session:
        for name, value in wanted.items():
            assert (await session.connection.execute(text(f"show {name}"))).scalar_one() == value


async def test_further_schemas_come_after_the_namespace(postgres_url: str) -> None:
    database = Database(postgres_url, AsyncioRunner(), namespace="shop", schemas=["public"])
    async with database.read() as session:
        assert (await session.connection.execute(text("show search_path"))).scalar_one() == '"shop", "public"'
    await database.close()


async def test_an_sqlite_file_is_its_owners_durable_and_shared_by_readers(tmp_path: Path) -> None:
    file = tmp_path / "a b.db"
    database = Database(f"sqlite:///{file}", AsyncioRunner())
    async with database.write() as session:
        found = [
            (await session.connection.execute(text(f"pragma {name}"))).scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        ]
        await session.connection.execute(text("create table t (a)"))
    assert found == ["wal", 2, 1, 10000]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    await database.close()


async def test_a_second_connection_keeps_the_locks_of_the_first_so_that_no_other_process_deletes_the_log(
    tmp_path: Path,
) -> None:
    file = tmp_path / "a.db"
    database = Database(f"sqlite:///{file}", AsyncioRunner())
    async with database.write() as session:
        await session.connection.execute(text("create table t (a)"))
    async with database.read() as first, database.read() as second:  # two connections of one process
        assert (await first.connection.execute(text("select count(*) from t"))).scalar_one() == 0
        assert (await second.connection.execute(text("select count(*) from t"))).scalar_one() == 0
    other = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('insert into t values (1)'); c.commit()"
    for _ in range(2):
        await asyncio.to_thread(subprocess.run, [sys.executable, "-c", other, str(file)], check=True)
    async with database.write() as session:
        await session.connection.execute(text("insert into t values (2)"))
    assert (tmp_path / "a.db-wal").exists()
    async with database.read() as session:
        assert (await session.connection.execute(text("select count(*) from t"))).scalar_one() == 3
    await database.close()
    with closing(sqlite3.connect(file)) as afterwards:
        assert afterwards.execute("select count(*) from t").fetchone() == (3,)


async def test_an_sqlite_file_in_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/nowhere/a.db", AsyncioRunner())
    with pytest.raises(ConfigurationError, match=r"nowhere/a\.db"):
        async with database.read():
            pass
    await database.close()


async def test_a_file_that_is_no_database_is_a_configuration_error(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("not a database" * 100)
    database = Database(f"sqlite:///{file}", AsyncioRunner())
    with pytest.raises(ConfigurationError, match="not a database"):
        async with database.write():
            pass
    await database.close()
