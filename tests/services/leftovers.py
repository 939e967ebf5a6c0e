"""What tests leave on a broker, and its removal.

AMQP cannot list what there is, and a broker given by URL need not have a management API; so every name that a test
declares in its namespace stands here. Where there is the API, a test that left anything else behind fails.
"""

from __future__ import annotations

import aio_pika

_SAGAS = ("A", "B", "PlaceOrder", "Test", "Tiny")
_PARTICIPANTS = ("audit", "p", "payment", "rival", "stock", "warehouse", "worker")
_LEDGERS = ("payment", "stock", "warehouse")

QUEUES = (
    "dead",
    *(f"saga.{name}" for name in _SAGAS),
    *(f"participant.{name}" for name in _PARTICIPANTS),
    *(f"ledger.{name}" for name in _LEDGERS),
)
EXCHANGES = ("events", "commands", "dead")


async def remove(broker_url: str, namespace: str) -> None:
    """Delete the queues and exchanges of a namespace; to delete what is not there is no error."""
    async with await aio_pika.connect(broker_url) as connection:
        channel = await connection.channel(publisher_confirms=False)
        for queue in QUEUES:
            await channel.queue_delete(f"{namespace}.{queue}")
        for exchange in EXCHANGES:
            await channel.exchange_delete(f"{namespace}.{exchange}")
