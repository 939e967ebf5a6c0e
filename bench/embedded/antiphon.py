"""Antiphon in one process, as `antiphon run` is without any settings; the shop is in the same process.

Orders go through the door of `antiphon publish`, each in a transaction of its own. The participants are those of the
catalog, with tables of their own. Statements and commits are counted on their way into the driver's thread.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import aiosqlite

from bench import wire
from bench.antiphon import MODULES
from bench.embedded import pipe
from handlers.facts import SagaMoved
from running import AsyncioRunner
from runtime.commands.publish import checked
from runtime.engine import Engine
from runtime.loading import load_modules
from runtime.settings import Settings
from runtime.startup import Patience
from runtime.telemetry import Telemetry
from storage import sqlite, turns

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from pathlib import Path

    from handlers import Context
    from handlers.participant import Around
    from messages import Command, Event
    from runtime.loading import Known


class _Counting:
    """A connection in its thread, and what it was asked."""

    statements = commits = 0

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:  # noqa: ANN401 - as the driver has it
        if sql == "COMMIT":
            _Counting.commits += 1
        elif not sql.startswith(("BEGIN", "SAVEPOINT", "RELEASE")):
            _Counting.statements += 1
        return self._connection.execute(sql, *parameters)

    def executemany(self, sql: str, rows: Any) -> sqlite3.Cursor:  # noqa: ANN401
        _Counting.statements += 1
        return self._connection.executemany(sql, rows)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._connection, name)


def _count() -> None:
    in_thread = sqlite.in_thread

    async def counted(handle: aiosqlite.Connection, work: Callable[[Any], Any]) -> Any:  # noqa: ANN401
        return await in_thread(handle, lambda connection: work(_Counting(connection)))

    for module in (sqlite, turns):
        vars(module)["in_thread"] = counted


class Antiphon:
    """See `bench.embedded.pipe.Embedded`."""

    versions: Mapping[str, str] = {"SQLite": sqlite3.sqlite_version, "aiosqlite": aiosqlite.__version__}

    def __init__(self) -> None:
        self._ledgers: dict[str, Counter[str]] = {}
        self._placing: set[asyncio.Task[None]] = set()

    async def start(self, file: Path, done: Callable[[Sequence[str]], None]) -> None:
        """See `Embedded.start`."""
        _count()
        self._file, self._done = file, done
        self._settings = Settings.model_validate({"database_url": f"sqlite:///{file}", "log_level": "warning"})
        known = load_modules(MODULES)
        known = replace(known, participants=self._counted(known))
        self._telemetry, runner = Telemetry("warning"), AsyncioRunner()
        self._engine = Engine(
            self._settings, known, runner=runner, report=self._heard, participants=tuple(known.participants)
        )
        await self._engine.start(Patience(60.0, runner, self._telemetry))

    def _counted(self, known: Known) -> dict[str, Any]:
        return {name: each.around(self._ledger(name)) for name, each in known.participants.items()}

    def _ledger(self, name: str) -> Around:
        ledger = self._ledgers.setdefault(name, Counter())

        async def around(
            command: Command, _context: Context, proceed: Callable[[], Awaitable[Event | None]]
        ) -> Event | None:
            ledger[command.order_id] += 1  # type: ignore[attr-defined]
            return await proceed()

        return around

    def _heard(self, fact: object) -> None:
        self._telemetry(fact)
        if isinstance(fact, SagaMoved) and fact.entry.kind == "completed":
            self._done([fact.key])

    def place(self, orders: Sequence[str]) -> None:
        """See `Embedded.place`."""
        for order in orders:
            placed = checked(self._settings, wire.ORDER_PLACED, wire.order_placed(order), f"placed-{order}")
            task = asyncio.create_task(self._engine.storage.publish(placed))
            self._placing.add(task)
            task.add_done_callback(self._placing.discard)

    def counted(self) -> tuple[int, int]:
        """See `Embedded.counted`."""
        return _Counting.statements, _Counting.commits

    async def end(self) -> tuple[Sequence[str], Mapping[str, Mapping[str, int]]]:
        """See `Embedded.end`."""
        await self._engine.drain()
        await self._engine.close()
        with closing(sqlite3.connect(self._file)) as database:
            rows = database.execute("select business_key, status from v_saga").fetchall()
        return [key for key, status in rows if status == "completed"], self._ledgers


if __name__ == "__main__":
    pipe.run(Antiphon())
