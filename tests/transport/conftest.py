"""Leave nothing on a broker that was given: every quorum queue holds file handles, and a thousand stop a broker."""

from __future__ import annotations

from typing import TYPE_CHECKING

import aio_pika
import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture(autouse=True)
async def swept(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    if not {"rabbitmq_url", "namespace"} <= set(request.fixturenames):
        yield
        return
    url, namespace = request.getfixturevalue("rabbitmq_url"), request.getfixturevalue("namespace")
    yield
    await sweep(url, namespace)


async def sweep(url: str, namespace: str) -> None:
    """Delete what the tests of this folder declare in a namespace; deleting what is not there is no error."""
    connection = await aio_pika.connect(url)
    try:
        channel = await connection.channel()
        for queue in ("saga.A", "saga.B", "participant.p", "participant.rival", "dead"):
            await channel.queue_delete(f"{namespace}.{queue}")
        for exchange in ("events", "commands", "dead"):
            await channel.exchange_delete(f"{namespace}.{exchange}")
    finally:
        await connection.close()
