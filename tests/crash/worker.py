"""A small message worker to be killed: inbox and effect in one transaction, then a confirmed publication, then the ack.

    python worker.py DATABASE_URL BROKER_URL QUEUE

It takes from QUEUE, writes to the table `handled` and publishes to `QUEUE.out`. It is as correct as a hand-written
worker without an outbox can be, so what it does at each crash point is known, and the proxy can be tested on it.
"""

from __future__ import annotations

import asyncio
import sys

import aio_pika
import asyncpg


async def handle(
    database: asyncpg.Connection, channel: aio_pika.abc.AbstractChannel, queue: str, message_id: str
) -> None:
    """Record the message once, and publish what follows from it in any case."""
    async with database.transaction():
        await database.execute("insert into handled (message_id) values ($1) on conflict do nothing", message_id)
        await database.execute("update tally set n = (select count(*) from handled)")
    reply = aio_pika.Message(b"{}", message_id=f"reply-{message_id}", delivery_mode=2)
    await channel.default_exchange.publish(reply, f"{queue}.out", timeout=30)


async def work(database_url: str, broker_url: str, queue: str) -> None:
    """Handle messages one after the other, for ever."""
    database = await asyncpg.connect(database_url)
    broker = await aio_pika.connect(broker_url)
    channel = await broker.channel()
    await channel.set_qos(prefetch_count=1)
    source = await channel.declare_queue(queue, passive=True)
    async with source.iterator() as deliveries:
        print("ready", flush=True)
        async for delivery in deliveries:
            await handle(database, channel, queue, delivery.message_id or "")
            await delivery.ack()


if __name__ == "__main__":
    asyncio.run(work(*sys.argv[1:4]))
