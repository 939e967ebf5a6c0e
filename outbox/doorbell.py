"""Notices that another process has written to our SQLite file, so that its messages wait for no sweep."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from messages.errors import Trouble
from running import happens

if TYPE_CHECKING:
    from collections.abc import Callable

    from running import Runner
    from storage import Database

PAUSE = 0.05
"""Seconds between two looks, each of which takes some microseconds."""


class Doorbell:
    """One per process that runs on an SQLite file. `run` until `stop`."""

    name = "doorbell"

    def __init__(self, database: Database, runner: Runner, ring: Callable[[], None]) -> None:
        self._database = database
        self._runner = runner
        self._ring = ring
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Ring when another process has committed something, whatever it was."""
        while not await happens(self._stopping, self._runner, within=PAUSE):
            try:
                if await self._database.others_wrote():
                    self._ring()
            except Trouble:
                continue  # whoever works with the database says so

    def stop(self) -> None:
        """Look no more."""
        self._stopping.set()
