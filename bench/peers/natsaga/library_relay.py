"""The relay of nats-outbox as it comes, in a process of its own: looks at the outbox, publishes one after the other."""

from __future__ import annotations

import asyncio
import logging
import sys

import lines
import nats
import uvloop
from nats_outbox.publishers.nats_publisher import NatsPublisher
from nats_outbox.relay.polling import PollingRelay
from nats_outbox.settings import OutboxSettings
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

POLL = 0.005
BATCH = 100


async def serve(database_url: str, nats_url: str) -> None:
    """Pass on until standard input ends."""
    address = database_url.replace("postgresql://", "postgresql+asyncpg://", 1)
    settings = OutboxSettings(database_url=address, nats_url=nats_url, polling_interval=POLL, batch_size=BATCH)
    engine = create_async_engine(address)
    link = await nats.connect(nats_url)
    relay = PollingRelay(
        async_sessionmaker(engine, expire_on_commit=False), await NatsPublisher.from_nats_client(link), settings
    )
    relaying = asyncio.create_task(relay.start())
    lines.say({"ready": True})
    async for _ in lines.heard():
        continue
    await relay.stop()
    await relaying
    await link.close()
    await engine.dispose()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    uvloop.run(serve(*sys.argv[1:]))
