"""A backlog far larger than a process may hold: it is worked off in the memory of a small one."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest

from tests.crash.driver import Shop, order_body, order_placed, start_id

if TYPE_CHECKING:
    from tests.crash.driver import Sidecar
    from tests.crash.laboratory import Laboratory

ORDERS = 4_000
LINES = 150  # of an order: 10 KiB on the wire, ten times as much in a process that has read it
GROWTH = 128 * 1024  # KiB; some 75 MiB were seen, and whoever held the whole backlog would need 400
COMPLETED = frozenset({"completed"})


@pytest.mark.soak
async def test_a_backlog_is_worked_off_in_little_memory(laboratory: Laboratory) -> None:
    """With participants that are slow beside the sidecar: each writes every command to its disk."""
    sidecar = await laboratory.sidecar("sidecar")  # declares the queue
    assert await sidecar.stop() == 0
    starts = {f"o-{number}": start_id(f"o-{number}") for number in range(ORDERS)}
    async with LongOrders(laboratory.setup.broker_url, laboratory.setup.namespace) as shop:
        await shop.place(*starts)
    sidecar = await laboratory.sidecar("sidecar")
    before = peak(sidecar)
    await laboratory.participants()
    await all_ended(laboratory)
    await laboratory.judge(starts, dict.fromkeys(starts, COMPLETED))
    assert peak(sidecar) - before < GROWTH
    assert await sidecar.stop() == 0


async def all_ended(laboratory: Laboratory) -> None:
    """Wait for the end of every instance, without reading all of them again and again."""
    ended = f"select count(*) from {laboratory.setup.namespace}.v_saga where ended_at is not null"  # noqa: S608
    connection = await asyncpg.connect(laboratory.setup.database_url)
    try:
        async with asyncio.timeout(1200):
            while await connection.fetchval(ended) < ORDERS:
                await connection.execute("select pg_sleep(1)")
    finally:
        await connection.close()


class LongOrders(Shop):
    """A shop whose customers order everything."""

    async def _publish(self, order: str, message_id: str | None = None) -> None:
        assert self._events is not None
        event = order_placed(order, message_id or start_id(order))
        body = json.loads(order_body(order))
        body["lines"] *= LINES
        event.body = json.dumps(body).encode()
        event.body_size = len(event.body)
        await self._events.publish(event, "ordering.OrderPlaced", timeout=60)


def peak(sidecar: Sidecar) -> int:
    """The most memory it has had so far, in KiB."""
    status = Path(f"/proc/{sidecar.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])
