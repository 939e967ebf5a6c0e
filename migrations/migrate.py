"""Running Alembic from code, over a connection that `storage` has opened: a wheel has no `alembic.ini`."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from messages.errors import ConfigurationError, DatabaseBusy
from storage.engine import check_namespace
from storage.tables import REVISION

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable

    from sqlalchemy import Connection

    from storage import Database, Session

HEAD = REVISION
"""The version this program needs."""

_QUEUEING = 60  # seconds to wait for another migration of this namespace
_WAITING = 2  # seconds to wait for a table; for so long everybody else waits for it too, and gives up after five
_PAUSE = 2.0
_TRIES = 15  # in about a minute

_turns: WeakKeyDictionary[AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()


def _turn() -> asyncio.Lock:
    """Alembic keeps the running migration in module globals: within one process they go one after the other."""
    return _turns.setdefault(asyncio.get_running_loop(), asyncio.Lock())


def _config(*, output: io.StringIO | None = None, **attributes: object) -> Config:
    config = Config(output_buffer=output)
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes.update(attributes)
    return config


async def up(database: Database, revision: str = "head") -> str | None:
    """Bring the schema to that version, by default the newest; returns the version it had before.

    On PostgreSQL the namespace's schema is created when it is missing. Needs the right to create tables in it.

    Raises:
        ConfigurationError: the schema has a version that this program does not know: it was made by a newer one.
        DatabaseAway, DatabaseBusy, CommitUnknown: nothing was changed, or nobody knows; run it again.
    """
    return await _migrate(database, lambda config: command.upgrade(config, revision))


async def down(database: Database, revision: str = "base") -> str | None:
    """Take the schema back to that version, by default to nothing. Everything in the removed tables is lost.

    Raises:
        As `up`.
    """
    return await _migrate(database, lambda config: command.downgrade(config, revision))


async def check(database: Database) -> str | None:
    """The version the schema has, or None when there is none. Changes nothing."""
    async with database.read() as session:
        return await session.connection.run_sync(_version)


def sql(namespace: str, *, since: str = "base") -> str:
    """What `up` would run on PostgreSQL, as a script for an administrator, from version `since` on.

    Raises:
        ConfigurationError: the namespace has an impossible name.
    """
    output = io.StringIO()
    config = _config(namespace=check_namespace(namespace), output=output)
    command.upgrade(config, f"{since}:head", sql=True)
    return output.getvalue()


async def _migrate(database: Database, run: Callable[[Config], None]) -> str | None:
    """Try until no table is in use for longer than it is waited for.

    A change of a table waits for whoever reads it, and whoever comes later waits for the change. So it gives way soon,
    lets everybody pass, and begins anew.
    """
    async with _turn():
        for _ in range(_TRIES - 1):
            try:
                return await _migrated(database, run)
            except DatabaseBusy:
                await database.runner.sleep(_PAUSE * (1 + database.runner.random()))
        return await _migrated(database, run)


async def _migrated(database: Database, run: Callable[[Config], None]) -> str | None:
    async with database.write() as session:
        if session.postgresql:
            await _prepare(session, database.namespace)
        before = await session.connection.run_sync(_version)
        if before is not None and before not in _known():
            raise ConfigurationError(
                f"the database schema has version {before}, which this program does not know (its newest is {HEAD}); "
                "run the newer program that made it"
            )
        await session.connection.run_sync(
            lambda connection: run(_config(connection=connection, namespace=database.namespace))
        )
        return before


async def _prepare(session: Session, namespace: str) -> None:
    """Wait for whoever else migrates this namespace; a migration may take longer than any other statement."""
    for statement in (
        "set local statement_timeout = 0",
        f"set local lock_timeout = '{_QUEUEING}s'",
        "set local idle_in_transaction_session_timeout = 0",
    ):
        await session.connection.execute(text(statement))
    await session.connection.execute(
        text("select pg_advisory_xact_lock(hashtextextended(cast(:name as text), 0))"),
        {"name": f"migrate/{namespace}"},
    )
    await session.connection.execute(text(f"set local lock_timeout = '{_WAITING}s'"))
    exists = await session.connection.scalar(text("select to_regnamespace(:name) is not null"), {"name": namespace})
    if not exists:
        await session.connection.execute(text(f'create schema "{namespace}"'))


def _version(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _known() -> set[str]:
    return {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
