"""What a burst costs on the wire to the broker, which pays for every write."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from running import AsyncioRunner
from testkit.conformance.bench import Bench, Pair, worked_off
from transport.rabbitmq import RabbitMQTransport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from transport import Delivery

BURST = 50


class Writes:
    """Counts what is written to sockets, as the event loop gets it."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        write = asyncio.StreamWriter.write

        def counted(writer: asyncio.StreamWriter, data: bytes) -> None:
            self.sizes.append(len(data))
            write(writer, data)

        monkeypatch.setattr(asyncio.StreamWriter, "write", counted)


@pytest.fixture
async def bench(rabbitmq_url: str, namespace: str) -> AsyncIterator[Bench]:
    near, far = (RabbitMQTransport(rabbitmq_url, runner=AsyncioRunner(), app_id="costs") for _ in range(2))
    await near.connect()
    await far.connect()
    yield await Bench(pair=Pair(near=near, far=far, namespace=namespace, app_id="costs")).declare()
    await near.close()
    await far.close()


async def test_a_burst_of_messages_is_one_write_and_so_is_its_acknowledgement(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer = await bench.consume(bench.p)
    await bench.publish([bench.command(0)])  # whatever a first message opens is open now
    await worked_off(consumer, 1)
    writes = Writes()
    writes.watch(monkeypatch)
    await bench.publish([bench.command(number) for number in range(1, BURST + 1)])
    assert len(writes.sizes) == 1
    deliveries: list[Delivery] = []
    while len(deliveries) < BURST:
        deliveries += await consumer.receive(BURST)
    writes.sizes.clear()
    await consumer.settle(deliveries)
    assert len(writes.sizes) == 1
    assert writes.sizes[0] < 64  # one acknowledgement for all of them
