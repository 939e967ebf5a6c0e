"""A relay for the outbox of nats-outbox that publishes a whole batch at once, the moment something is committed."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import orjson
from nats_outbox.relay.base import BaseRelay

if TYPE_CHECKING:
    import asyncpg
    from nats.js import JetStreamContext

BATCH = 500
POLL = 1.0
MAX_RETRIES = 5

PENDING = """
SELECT id, event_id, subject, payload, headers, retry_count FROM outbox_events
WHERE status = 'pending' AND scheduled_at <= now() ORDER BY scheduled_at, id LIMIT $1 FOR UPDATE SKIP LOCKED
"""
PUBLISHED = """
UPDATE outbox_events SET status = 'published', published_at = now(), updated_at = now() WHERE id = any($1::bigint[])
"""
FAILED = """
UPDATE outbox_events SET status = CASE WHEN retry_count + 1 < $2 THEN 'pending' ELSE 'failed' END,
    retry_count = retry_count + 1, scheduled_at = now() + least(2 ^ (retry_count + 1), 300) * interval '1 second',
    last_error = left($3, 2000), updated_at = now()
WHERE id = $1
"""


class Relay(BaseRelay):
    """Does what the library's PollingRelay does, row for row, on a connection of its own.

    That one publishes one event after the other and sleeps between looks at the table; this one is woken.
    """

    def __init__(self, connection: asyncpg.Connection, js: JetStreamContext) -> None:
        self._connection = connection
        self._js = js
        self._woken = asyncio.Event()
        self._running = True

    def wake(self) -> None:
        """Something was committed."""
        self._woken.set()

    async def start(self) -> None:
        while self._running:
            self._woken.clear()
            if not await self._pass_on():
                try:
                    async with asyncio.timeout(POLL):
                        await self._woken.wait()
                except TimeoutError:
                    continue

    async def stop(self) -> None:
        self._running = False
        self.wake()

    async def _pass_on(self) -> int:
        async with self._connection.transaction():
            events = await self._connection.fetch(PENDING, BATCH)
            if not events:
                return 0
            ends = await asyncio.gather(*map(self._publish, events), return_exceptions=True)
            stored = [event["id"] for event, end in zip(events, ends, strict=True) if not isinstance(end, Exception)]
            await self._connection.execute(PUBLISHED, stored)
            for event, end in zip(events, ends, strict=True):
                if isinstance(end, Exception):
                    logging.warning("event %s: %r", event["event_id"], end)
                    await self._connection.execute(FAILED, event["id"], MAX_RETRIES, repr(end))
        return len(events)

    async def _publish(self, event: asyncpg.Record) -> None:
        headers = orjson.loads(event["headers"]) | {"Nats-Msg-Id": str(event["event_id"])}
        await self._js.publish(event["subject"], event["payload"].encode(), headers=headers)
