"""Waiting for something that may not come."""

from __future__ import annotations

import asyncio

from running import AsyncioRunner, happens

FOREVER = 3600.0


async def test_what_happens_is_not_waited_for_any_longer() -> None:
    event = asyncio.Event()
    asyncio.get_running_loop().call_soon(event.set)
    assert await happens(event, AsyncioRunner(), within=FOREVER)
    assert await happens(event, AsyncioRunner(), within=0.0)


async def test_what_does_not_happen_in_time_is_said_not_to_have() -> None:
    assert not await happens(asyncio.Event(), AsyncioRunner(), within=0.01)
