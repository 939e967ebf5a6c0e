"""Fixtures: a migrated, empty database for each test, on SQLite and on PostgreSQL over both drivers."""

from __future__ import annotations

import shutil
import zlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from sqlalchemy import event, text

import migrations
from outbox.optimistic import Optimistic
from outbox.unit import SqlStorage
from running import AsyncioRunner
from storage import Database
from storage.sqlite import in_thread
from storage.straight import Straight

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping
    from pathlib import Path

    import aiosqlite
    from sqlalchemy import Executable

SQLITE, ASYNCPG, PSYCOPG = "sqlite", "asyncpg", "psycopg"


@pytest.fixture(scope="session")
def empty_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file, to be copied."""
    return tmp_path_factory.mktemp("sqlite") / "empty.db"


@pytest.fixture(scope="session")
def own_namespace() -> str:
    """A PostgreSQL schema of this run's own."""
    return f"n{uuid4().hex[:12]}"


def address_of(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database of that kind; SQLite's is a file of the test's own."""
    if kind == SQLITE:
        return f"sqlite:///{tmp_path / 'antiphon.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url.replace("postgresql://", "postgresql+psycopg://") if kind == PSYCOPG else url


_TOUCHED = """
    select string_agg(quote_ident(relname), ', ') from pg_class c
    where relnamespace = cast(:namespace as regnamespace) and relkind = 'r' and relname <> 'alembic_version'
      and (pg_relation_size(c.oid) > 0
           or exists (select 1 from pg_depend d join pg_sequence s on s.seqrelid = d.objid
                      where d.refobjid = c.oid and pg_sequence_last_value(s.seqrelid) is not null))
"""


async def empty(database: Database) -> None:
    """Bring the database to the newest version, without rows.

    Only what was written to is truncated: to truncate every table takes longer than most tests.
    """
    if await migrations.check(database) != migrations.HEAD:
        await migrations.up(database)
    async with database.write() as session:
        touched = await session.connection.scalar(text(_TOUCHED), {"namespace": database.namespace})
        if touched:
            await session.connection.execute(text(f"truncate {touched} restart identity cascade"))


@asynccontextmanager
async def opened(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, *, pool_size: int = 10
) -> AsyncIterator[Database]:
    """An empty database, closed after the block."""
    if kind == SQLITE:
        await copy_empty(request.getfixturevalue("empty_sqlite"), tmp_path / "antiphon.db")
    database = Database(
        address_of(kind, request, tmp_path),
        AsyncioRunner(),
        namespace=request.getfixturevalue("own_namespace"),
        pool_size=pool_size,
    )
    try:
        if kind != SQLITE:
            await empty(database)
        yield database
    finally:
        await database.close()


async def copy_empty(template: Path, file: Path) -> None:
    """A migrated SQLite file."""
    if not template.exists():  # noqa: ASYNC240 - a test's file
        database = Database(f"sqlite:///{template}", AsyncioRunner())
        await migrations.up(database)
        await database.close()
    shutil.copy(template, file)


def on_every_database(metafunc: pytest.Metafunc) -> None:
    """As `pytest_generate_tests`: on SQLite, and on PostgreSQL over each driver."""
    _parametrize(metafunc, [ASYNCPG, PSYCOPG])


def on_both_databases(metafunc: pytest.Metafunc) -> None:
    """As `pytest_generate_tests`, for what leaves SQL, locks and types to the storage: half of it over each driver.

    With `--both-drivers` all of it over each.
    """
    half = (ASYNCPG, PSYCOPG)[zlib.crc32(metafunc.function.__name__.encode()) % 2]
    _parametrize(metafunc, [ASYNCPG, PSYCOPG] if metafunc.config.getoption("--both-drivers") else [half])


def _parametrize(metafunc: pytest.Metafunc, drivers: list[str]) -> None:
    chosen = {mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")}
    for fixture, kinds in (("database", [SQLITE, *drivers]), ("postgresql", drivers)):
        if fixture in metafunc.fixturenames and fixture not in chosen:
            metafunc.parametrize(fixture, kinds, indirect=True)


@pytest.fixture
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    """Each kind of database in turn."""
    async with opened(request.param, request, tmp_path) as database:
        yield database


@pytest.fixture
async def postgresql(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    """PostgreSQL, for what only a server can do: many writers at once, lost connections."""
    async with opened(request.param, request, tmp_path) as database:
        yield database


@pytest.fixture
async def sqlite(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    """An SQLite file."""
    async with opened(SQLITE, request, tmp_path) as database:
        yield database


@pytest.fixture
def storage(database: Database) -> SqlStorage:
    """The storage on each kind of database in turn."""
    return storage_on(database)


def storage_on(database: Database) -> SqlStorage:
    """The storage as a sidecar has it."""
    return SqlStorage(database, Optimistic(database) if database.postgresql else None)


class Counter:
    """Statements, commits and ways into the thread of a connection (of SQLite), as the driver got them."""

    def __init__(self) -> None:
        self.statements: list[str] = []
        self.commits = 0
        self.hops = 0

    def reset(self) -> None:
        """Begin anew."""
        self.statements.clear()
        self.commits = self.hops = 0


@pytest.fixture
def counter(database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter]:
    """Counts what the database is asked, from now on."""
    counted = Counter()
    if not database.postgresql:
        _count_on_sqlite(counted, monkeypatch)
        yield counted
        return
    engine = database.engine.sync_engine

    def statement(_connection: object, _cursor: object, sql: str, *_rest: object) -> None:
        counted.statements.append(sql)

    def commit(_connection: object) -> None:
        counted.commits += 1

    directly = Straight.rows

    async def watched(
        straight: Straight, clause: Executable, parameters: Mapping[str, object], *, within: float
    ) -> object:
        counted.statements.append(str(clause))
        return await directly(straight, clause, parameters, within=within)

    monkeypatch.setattr(Straight, "rows", watched)
    event.listen(engine, "before_cursor_execute", statement)
    event.listen(engine, "commit", commit)
    yield counted
    event.remove(engine, "before_cursor_execute", statement)
    event.remove(engine, "commit", commit)


def _count_on_sqlite(counted: Counter, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a stand-in for the connection in whatever is run in its thread."""

    class Watched:
        def __init__(self, connection: sqlite3.Connection) -> None:
            self._connection = connection

        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:  # noqa: ANN401 - as the driver has it
            if sql == "COMMIT":
                counted.commits += 1
            elif not sql.startswith("PRAGMA"):  # of a connection that is opened just now
                counted.statements.append(sql)
            return self._connection.execute(sql, *parameters)

        def executemany(self, sql: str, rows: Any) -> sqlite3.Cursor:  # noqa: ANN401
            counted.statements.append(sql)
            return self._connection.executemany(sql, rows)

        def __getattr__(self, name: str) -> Any:  # noqa: ANN401
            return getattr(self._connection, name)

    async def watched(handle: aiosqlite.Connection, work: Callable[[Any], Any]) -> object:
        counted.hops += 1
        return await in_thread(handle, lambda connection: work(Watched(connection)))

    for module in ("sqlite", "turns"):
        monkeypatch.setattr(f"storage.{module}.in_thread", watched)
