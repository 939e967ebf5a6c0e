"""Whether the database's schema is one this program can work with. SQLite is brought up to date, PostgreSQL never."""

from __future__ import annotations

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


async def problem(database: Database) -> str | None:
    """What is wrong with the schema, and what to do; None when nothing is."""
    state = await schema_state(database)
    if state.current:
        return None
    if state.found is None and not database.postgresql:
        return "the file has no tables yet; antiphon run makes them when it starts, or run: antiphon migrate"
    if state.found is None:
        return f"the database has no schema {database.namespace!r} yet; run: antiphon migrate"
    return f"the database schema has version {state.found}, {state.needed} is needed; run: antiphon migrate"
