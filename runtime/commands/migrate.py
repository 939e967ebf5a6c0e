"""`migrate`: the database's schema."""

from __future__ import annotations

import sys

import migrations
from messages.errors import OperationRefused
from runtime import schema
from runtime.database import connected
from runtime.exits import FAILED, OK
from runtime.printing import console
from runtime.settings import load


async def migrate(*, check: bool, sql: bool) -> int:
    """Bring the schema up to date, or say whether it is, or print what would be run."""
    settings = load().settings
    if sql:
        if settings.sqlite:
            raise OperationRefused("--sql is for PostgreSQL; an SQLite file is migrated by the command that uses it")
        sys.stdout.write(migrations.sql(settings.namespace))
        return OK
    async with connected(settings) as database:
        if check:
            wrong = await schema.problem(database)
            console().print(wrong or f"the schema is up to date (version {migrations.HEAD})")
            return OK if wrong is None else FAILED
        before = await migrations.up(database)
    if before == migrations.HEAD:
        console().print(f"the schema is up to date (version {migrations.HEAD})")
    else:
        console().print(f"the schema was brought from {before or 'nothing'} to version {migrations.HEAD}")
    return OK
