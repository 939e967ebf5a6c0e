"""The database as a command borrows it: opened, checked, and closed again."""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from messages.errors import ConfigurationError, DatabaseAway, Trouble
from outbox.unit import SqlStorage
from running import AsyncioRunner
from runtime import schema
from runtime.addresses import shown
from storage import Database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from runtime.settings import Settings

CONNECTIONS = 2


@asynccontextmanager
async def connected(settings: Settings, *, named: str = "ANTIPHON_DATABASE_URL") -> AsyncIterator[Database]:
    """The database, whatever its schema; `named` is where its address was given.

    Raises:
        ConfigurationError: the address is wrong.
    """
    async with _borrowed(settings) as database:
        with _reached(settings, named):
            yield database


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[SqlStorage]:
    """The storage over a schema that fits. Works beside a runner, and with the broker down.

    Raises:
        ConfigurationError: the address or the credentials are wrong, the schema is behind, or there is no such file: a
            command that was started in the wrong folder must not answer from an empty one.
        DatabaseAway: the database does not answer.
    """
    async with _borrowed(settings) as database:
        if (missing := schema.missing_file(database)) is not None:
            raise ConfigurationError(no_file(missing))
        with _reached(settings):
            await schema.ready(database)
            yield SqlStorage(database)


def no_file(missing: Path) -> str:
    """What to do about a database file that is not there, where nobody is to make it."""
    return (
        f"there is no database file {missing}; run this in the folder of `antiphon run`, which makes it, or name the "
        "file in ANTIPHON_DATABASE_URL"
    )


@contextmanager
def located(settings: Settings) -> Iterator[None]:
    """Have what the database answers, or that it does not, begin with its address."""
    try:
        yield
    except (ConfigurationError, Trouble) as error:
        raise type(error)(f"{shown(settings.database)}: {error}") from error


@contextmanager
def _reached(settings: Settings, named: str = "ANTIPHON_DATABASE_URL") -> Iterator[None]:
    try:
        with located(settings):
            yield
    except DatabaseAway as error:
        raise DatabaseAway(f"{error}; start it, or correct {named}") from error


@asynccontextmanager
async def _borrowed(settings: Settings) -> AsyncIterator[Database]:
    database = Database(settings.database, AsyncioRunner(), namespace=settings.namespace, pool_size=CONNECTIONS)
    try:
        yield database
    finally:
        await database.close()
