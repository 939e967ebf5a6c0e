"""A message that kills the process that takes it: supervised, it kills a few times, and then it is a dead letter.

The others that were in hand when it died are done, each once, and nobody is suspected in the end. A timer that kills
the process that fires it is fired no more.
"""

from __future__ import annotations

import asyncio
import signal
import sqlite3
from contextlib import AsyncExitStack, closing
from dataclasses import replace
from typing import TYPE_CHECKING

import asyncpg

from handlers.suspects import MOST_NOTES, SUSPICIOUS
from tests.crash.driver import BOUND, Setup, Shop, Sidecar, antiphon, finished, order_body, start_id
from tests.crash.process import GLANCE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from tests.crash.forking import Program
    from tests.crash.laboratory import Laboratory

Row = tuple[str, ...]

BEFORE, BEHIND = [f"before-{n}" for n in range(4)], [f"behind-{n}" for n in range(4)]
KILLER, DEADLY = "killer", "deadly"
INNOCENT = sorted((each,) for each in (*BEFORE, *BEHIND))
DOOMED = "doomed"
ORDERS = [*BEFORE, KILLER, DEADLY, *BEHIND]
LIVES = SUSPICIOUS + MOST_NOTES + 1
"""Processes that one killer needs: to become a suspect, to be noted, and the one that buries it."""

COMPLETED = "select business_key from v_saga where phase = 'completed' order by business_key"
LETTERS = "select consumer, reason from v_dead_letter order by consumer"
TIMER_NOTES = "select cast(count(*) as text) from suspect where consumer = 'timers' and source <> ''"  # not the crowd's
SUSPECTED = "select message_id from suspect"
BURIED = [("GrimOrder", "killed_process"), ("participant.grim", "killed_process")]


class Supervised:
    """A process that is started again whenever it was killed, as a container would be."""

    def __init__(self, setup: Setup, name: str, command: Program) -> None:
        self.lives = 0
        self._setup, self._name, self._command = setup, name, command

    async def run(self) -> None:
        """Until cancelled; whatever ends otherwise than by the signal is a failure."""
        while True:
            self.lives += 1
            async with await Sidecar.start(self._setup, self._name, command=self._command) as sidecar:
                code = await sidecar.child.ended(BOUND)
                assert code == -signal.SIGKILL, f"{self._name} ended with {code}\n{sidecar.child.tail()}"


async def buried(ask: Callable[[str], Awaitable[list[Row]]], supervised: Sequence[Supervised]) -> None:
    """Run until both are dead letters and everybody else is done."""
    innocent = sorted((each,) for each in ORDERS if each not in (KILLER, DEADLY))
    async with AsyncExitStack() as stack:
        tasks = [asyncio.create_task(each.run()) for each in supervised]
        stack.push_async_callback(_ended, tasks)
        async with asyncio.timeout(BOUND):
            while (await ask(LETTERS), await ask(COMPLETED), await ask(SUSPECTED)) != (BURIED, innocent, []):
                for task in tasks:
                    if task.done():
                        task.result()
                await asyncio.sleep(GLANCE)


async def _ended(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


class Alone:
    """Everything in one process on SQLite."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "shop.db"
        settings = {"MODULES": "tests.crash.grim", "SWEEP": "0.1"}
        self._setup = Setup(folder=folder, database_url=f"sqlite:///{self._file}", settings=settings)
        self.process = Supervised(self._setup, "everything", antiphon("run"))

    async def place(self, *orders: str) -> None:
        """Place them, in this order."""
        await finished("migrate", self._setup, "migrate")
        for each in orders:
            words = ("publish", "ordering.OrderPlaced", order_body(each), "--message-id", start_id(each))
            await finished("publish", self._setup, *words)

    async def ask(self, statement: str) -> list[Row]:
        """The answer of the database."""
        with closing(sqlite3.connect(f"file:{self._file}?mode=ro", uri=True, timeout=30)) as db:
            return list(db.execute(statement))


async def test_in_one_process_on_sqlite(tmp_path: Path) -> None:
    alone = Alone(tmp_path)
    await alone.place(*ORDERS)
    await buried(alone.ask, [alone.process])
    assert LIVES <= alone.process.lives <= 2 * LIVES


async def test_a_timer_is_fired_no_more(tmp_path: Path) -> None:
    alone = Alone(tmp_path)
    await alone.place(*BEFORE, DOOMED, *BEHIND)
    running = asyncio.create_task(alone.process.run())

    async def until(statement: str, *answer: Row) -> None:
        async with asyncio.timeout(BOUND):
            while await alone.ask(statement) != list(answer):
                if running.done():
                    running.result()
                await asyncio.sleep(GLANCE)

    try:
        await until(TIMER_NOTES, (str(MOST_NOTES + 1),))
        await until(COMPLETED, *INNOCENT)
        lives = alone.process.lives
        await alone.place("later")
        await until(COMPLETED, *INNOCENT, ("later",))
        assert alone.process.lives == lives
    finally:
        await _ended([running])
    assert await alone.ask(LETTERS) == []


async def test_on_a_broker(laboratory: Laboratory) -> None:
    setup = replace(laboratory.setup, settings={"MODULES": "tests.crash.grim"})
    connection = await asyncpg.connect(
        setup.database_url, server_settings={"search_path": setup.namespace, "application_name": "tests"}
    )

    async def ask(statement: str) -> list[Row]:
        return [tuple(row) for row in await connection.fetch(statement)]

    sidecar = Supervised(setup, "sidecar", antiphon("run"))
    participant = Supervised(setup, "participant", antiphon("participant", "grim"))
    first = await Sidecar.start(setup, "declares", command=antiphon("run"))
    async with await first.ready(), Shop(setup.broker_url, setup.namespace) as shop:
        await first.stop()
        await shop.place(*ORDERS)
    try:
        await buried(ask, [sidecar, participant])
    finally:
        await connection.close()
    assert (sidecar.lives, participant.lives) == (LIVES, LIVES)
