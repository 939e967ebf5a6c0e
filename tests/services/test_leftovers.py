"""What a test declared is gone after it, and nothing else is."""

from __future__ import annotations

import aio_pika
import pytest
from aio_pika.exceptions import ChannelNotFoundEntity

from tests.services import leftovers


async def test_a_namespace_is_removed_and_no_other(rabbitmq_url: str, namespace: str) -> None:
    other = f"{namespace}x"
    async with await aio_pika.connect(rabbitmq_url) as connection:
        channel = await connection.channel()
        for name in leftovers.EXCHANGES:
            await channel.declare_exchange(f"{namespace}.{name}", durable=True)
        for name in leftovers.QUEUES:
            await channel.declare_queue(f"{namespace}.{name}", durable=True)
        await channel.declare_queue(f"{other}.dead", durable=True)

        for _ in range(2):  # the second time nothing is there
            await leftovers.remove(rabbitmq_url, namespace)

        await channel.get_queue(f"{other}.dead")
        await leftovers.remove(rabbitmq_url, other)
        for name in leftovers.QUEUES:
            asking = await connection.channel()
            with pytest.raises(ChannelNotFoundEntity):
                await asking.get_queue(f"{namespace}.{name}")
        for name in leftovers.EXCHANGES:
            asking = await connection.channel()
            with pytest.raises(ChannelNotFoundEntity):
                await asking.get_exchange(f"{namespace}.{name}")
