"""What another process publishes on SQLite is noticed at once, and what we do ourselves rings no bell."""

from __future__ import annotations

import asyncio
from uuid import uuid4

from outbox.doorbell import Doorbell
from outbox.unit import SqlStorage
from running import AsyncioRunner
from storage import Database
from tests.outbox.building import command

PATIENCE = 30.0


async def test_it_rings_when_another_process_has_published(sqlite: Database) -> None:
    rung = asyncio.Event()
    bell = Doorbell(sqlite, AsyncioRunner(), rung.set)
    await SqlStorage(sqlite).publish(command(uuid4()))
    assert not await sqlite.others_wrote()
    ringing = asyncio.create_task(bell.run())
    other = Database(sqlite.engine.url.render_as_string(), AsyncioRunner())
    await SqlStorage(other).publish(command(uuid4()))
    await other.close()
    async with asyncio.timeout(PATIENCE):
        await rung.wait()
        bell.stop()
        await ringing


async def test_whoever_publishes_here_wakes_the_relay_by_himself(sqlite: Database) -> None:
    storage, woken = SqlStorage(sqlite), []
    storage.published = lambda: woken.append(True)
    await storage.publish(command(uuid4()))
    assert woken == [True]
