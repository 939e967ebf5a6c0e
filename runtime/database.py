"""The database as a command borrows it: opened, checked, and closed again."""

from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from messages.errors import ConfigurationError
from outbox.unit import SqlStorage
from running import AsyncioRunner
from runtime import schema
from storage import Database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from runtime.settings import Settings

CONNECTIONS = 2


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[Database]:
    """The database, whatever its schema.

    Raises:
        ConfigurationError: the address is wrong.
    """
    database = Database(settings.database, AsyncioRunner(), namespace=settings.namespace, pool_size=CONNECTIONS)
    try:
        yield database
    finally:
        await database.close()


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[SqlStorage]:
    """The storage over a schema that fits. Works beside a runner, and with the broker down.

    Raises:
        ConfigurationError: the address or the credentials are wrong, the schema is behind, or there is no such file: a
            command that was started in the wrong folder must not answer from an empty one.
        DatabaseAway: the database does not answer.
    """
    async with connected(settings) as database:
        _refuse_a_missing_file(database)
        await schema.ready(database)
        yield SqlStorage(database)


def _refuse_a_missing_file(database: Database) -> None:
    file = None if database.postgresql else database.engine.url.database
    if file is not None and not Path(file).exists():
        raise ConfigurationError(
            f"there is no database file {Path(file).absolute()}; run this in the folder of `antiphon run`, which makes "
            "it, or name the file in ANTIPHON_DATABASE_URL"
        )
