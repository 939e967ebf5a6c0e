"""A database with dead letters, on SQLite and on PostgreSQL, and the commands that work on it."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text

from outbox.interface import Changes, DeadLetter
from outbox.unit import SqlStorage
from running import AsyncioRunner
from storage import Database
from tests.runtime.shop import PARTICIPANT, SAGA
from tests.storage.databases import copy_empty, empty

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.runtime.conftest import Command
    from tests.runtime.processes import Ended

NAMESPACE = "shop"


class Office:
    """A database with letters, and the commands that work on it."""

    def __init__(self, antiphon: Command, folder: Path, url: str) -> None:
        self._antiphon = antiphon
        self.folder = folder
        self.settings = {"modules": "shop", "database_url": url, "namespace": NAMESPACE}

    def dead(self, *arguments: str, stdin: str = "") -> Ended:
        """Run a command on dead letters."""
        return self._antiphon("dead", *arguments, stdin=stdin, **self.settings)

    def sagas(self, *arguments: str) -> Ended:
        """Run a command on instances."""
        return self._antiphon("sagas", *arguments, **self.settings)

    def ask(self, *arguments: str) -> Any:  # noqa: ANN401
        """What a command says as JSON."""
        done = self.dead(*arguments, "--json")
        assert done.stderr == "" or done.stderr.startswith("job "), done.stderr
        return json.loads(done.stdout)

    def keep(self, *letters: DeadLetter) -> list[int]:
        """Have these dead-lettered, and return the ids of all letters there are, oldest first."""
        return asyncio.run(self._keep(letters))

    def rows(self, sql: str) -> list[dict[str, Any]]:
        """What a statement finds."""
        return asyncio.run(self._rows(sql))

    async def clear(self) -> None:
        """Have a migrated database without rows."""
        database = self._database()
        try:
            await empty(database)
        finally:
            await database.close()

    async def _keep(self, letters: Sequence[DeadLetter]) -> list[int]:
        database = self._database()
        try:
            for letter in letters:
                async with SqlStorage(database).transaction() as unit:
                    await unit.save(Changes(consumer=letter.consumer, dead_letters=[letter]))
        finally:
            await database.close()
        return [row["dead_letter_id"] for row in await self._rows("select * from v_dead_letter order by 1")]

    async def _rows(self, sql: str) -> list[dict[str, Any]]:
        database = self._database()
        try:
            async with database.read() as session:
                return [dict(row) for row in (await session.connection.execute(text(sql))).mappings()]
        finally:
            await database.close()

    def change(self, sql: str) -> None:
        """Carry out a statement."""
        asyncio.run(self._change(sql))

    async def _change(self, sql: str) -> None:
        database = self._database()
        try:
            async with database.write() as session:
                await session.connection.execute(text(sql))
        finally:
            await database.close()

    def _database(self) -> Database:
        return Database(self.settings["database_url"], AsyncioRunner(), namespace=self.settings["namespace"])


@pytest.fixture
def small(antiphon: Command, folder: Path, empty_sqlite: Path) -> Office:
    """An office on SQLite: nothing but a migrated database, and a saga with its participant."""
    (folder / "shop.py").write_text(SAGA + PARTICIPANT)
    asyncio.run(copy_empty(empty_sqlite, folder / "antiphon.db"))
    return Office(antiphon, folder, f"sqlite:///{folder / 'antiphon.db'}")


@pytest.fixture
def large(antiphon: Command, folder: Path, postgres_url: str) -> Office:
    """The same on PostgreSQL."""
    (folder / "shop.py").write_text(SAGA + PARTICIPANT)
    made = Office(antiphon, folder, postgres_url)
    asyncio.run(made.clear())
    return made


@pytest.fixture(params=["small", "large"])
def office(request: pytest.FixtureRequest) -> Office:
    """Each in turn."""
    made: Office = request.getfixturevalue(request.param)
    return made
