"""Whether the database's schema is one this program can work with. SQLite is brought up to date, PostgreSQL never."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from messages.errors import ConfigurationError
from storage.schema import schema_state

if TYPE_CHECKING:
    from storage import Database


async def ready(database: Database) -> None:
    """Make sure that the schema is not behind; on SQLite by migrating it. A newer one will do: versions only add.

    Raises:
        ConfigurationError: it is behind, with the command to run; or the address or the credentials are wrong.
        DatabaseAway: the database does not answer.
    """
    wrong = await problem(database)
    if wrong is None:
        return
    if database.postgresql:
        raise ConfigurationError(wrong)
    import migrations  # Alembic is slow to import, and most starts need none of it

    await migrations.up(database)


def missing_file(database: Database) -> Path | None:
    """The SQLite file, when it is not there: to ask it anything would make it."""
    file = None if database.postgresql else Path(str(database.engine.url.database)).absolute()
    return None if file is None or file.exists() else file


async def problem(database: Database) -> str | None:
    """What is wrong with the schema, and what to do; None when nothing is."""
    if (missing := missing_file(database)) is not None:
        return f"there is no database file {missing}; antiphon run makes it when it starts, or run: antiphon migrate"
    state = await schema_state(database)
    if state.current:
        return None
    if state.found is None and not database.postgresql:
        return "the file has no tables yet; antiphon run makes them when it starts, or run: antiphon migrate"
    if state.found is None:
        return f"the database has no schema {database.namespace!r} yet; run: antiphon migrate"
    return f"the database schema has version {state.found}, {state.needed} is needed; run: antiphon migrate"
