"""What the benchmark asks of PostgreSQL: a database per round, completed orders, and how much work was done."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

import asyncpg

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from typing import TypeAlias

    Connection: TypeAlias = asyncpg.Connection[asyncpg.Record]

OURS = "/* of the benchmark */"
"""Stands in every statement of the benchmark, so that it is not counted as a contender's."""

STATEMENTS = f"""
select {OURS} sum(calls)::bigint from pg_stat_statements
where dbid = (select oid from pg_database where datname = current_database()) and position('{OURS}' in query) = 0
  and query !~* '^\\s*(begin|start transaction|commit|rollback|savepoint|release|set|reset|show)'
"""  # noqa: S608 - put together from constants

DURABLE = ("fsync", "synchronous_commit", "full_page_writes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Counted from the start of the server. `statements` is None where pg_stat_statements is not loaded.

    `commits` are transactions that wrote: each takes one transaction id. On a server that others use too they count
    as well. Statements that only frame a transaction (BEGIN, COMMIT, SET) are not counted as statements.
    """

    statements: int | None
    commits: int
    wal_bytes: int

    def since(self, before: Work) -> Work:
        """What was done after an earlier reading."""
        counted = self.statements is not None and before.statements is not None
        return Work(
            statements=(self.statements or 0) - (before.statements or 0) if counted else None,
            commits=self.commits - before.commits,
            wal_bytes=self.wal_bytes - before.wal_bytes,
        )


async def read_work(connection: Connection, *, counts_statements: bool) -> Work:
    """The counters as they stand now, exact and without delay."""
    row = await connection.fetchrow(
        f"""select {OURS} pg_snapshot_xmax(pg_current_snapshot())::text::bigint as commits,
                   pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint as wal_bytes"""
    )
    assert row is not None  # noqa: S101 - a select without from has one row
    statements = await connection.fetchval(STATEMENTS) if counts_statements else None
    return Work(statements=statements, commits=row["commits"], wal_bytes=row["wal_bytes"])


async def statements_are_counted(connection: Connection) -> bool:
    """Whether pg_stat_statements is loaded by the server; then it is made usable in this database."""
    loaded: str = await connection.fetchval("show shared_preload_libraries")
    if "pg_stat_statements" not in loaded:
        return False
    await connection.execute("create extension if not exists pg_stat_statements")
    return True


@asynccontextmanager
async def fresh_database(server_url: str, name: str) -> AsyncIterator[str]:
    """The URL of an empty database that is dropped afterwards, whoever is still connected."""
    server = await asyncpg.connect(server_url)
    try:
        await server.execute(f'drop database if exists "{name}" with (force)')
        await server.execute(f'create database "{name}"')
        try:
            yield urlunsplit(urlsplit(server_url)._replace(path=f"/{name}"))
        finally:
            await server.execute(f'drop database "{name}" with (force)')
    finally:
        await server.close()


async def durability_problems(connection: Connection) -> list[str]:
    """The settings by which the server may lose what it has committed; its figures would mean nothing."""
    settings = {name: await connection.fetchval(f"show {name}") for name in DURABLE}
    return [f"{name} is {value}" for name, value in settings.items() if value == "off"]
