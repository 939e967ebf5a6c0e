"""What stands in queues, seen from outside."""

from __future__ import annotations

from typing import TYPE_CHECKING

import aio_pika
import pytest

from messages.errors import BrokerAway, ConfigurationError
from running import AsyncioRunner
from testkit.conformance.bench import Bench, Pair, received, within, worked_off
from transport.rabbitmq import RabbitMQTransport
from transport.rabbitmq.survey import Found, survey

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiormq.abc import ExceptionType


@pytest.fixture
async def bench(rabbitmq_url: str, namespace: str) -> AsyncIterator[Bench]:
    transport = RabbitMQTransport(rabbitmq_url, runner=AsyncioRunner(), app_id="survey")
    await within(transport.connect())
    pair = Pair(near=transport, far=transport, namespace=namespace, app_id="survey")
    yield await Bench(pair=pair).declare()
    await within(transport.close())


async def test_messages_and_readers_are_counted_and_what_is_missing_is_left_out(
    bench: Bench, rabbitmq_url: str, namespace: str
) -> None:
    waiting = [bench.straight(bench.b, number) for number in range(3)]
    await bench.publish([bench.straight(bench.a, 0), *waiting])
    assert len(await bench.outcomes(4)) == 4
    await received(await bench.consume(bench.a), 1)  # handed out, so it waits no longer

    names = (bench.a, f"{namespace}.nowhere", bench.b)
    found = await within(survey(rabbitmq_url, names, runner=AsyncioRunner()))
    assert found == (
        Found(queue=bench.a, messages=0, consumers=1),
        Found(queue=bench.b, messages=3, consumers=0),
    )
    await worked_off(await bench.consume(bench.b), 3)  # a look takes nothing away


async def test_a_broker_that_is_away_is_said_to_be() -> None:
    with pytest.raises(BrokerAway, match=r"u@127\.0\.0\.1:1/"):
        await within(survey("amqp://u:hunter2@127.0.0.1:1/", ["q"], runner=AsyncioRunner()))


async def test_a_connection_that_never_stood_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forgotten it would close itself, with a warning when no loop is there any more."""
    closed = []

    class Told(aio_pika.Connection):
        async def close(self, exc: ExceptionType | None = None) -> None:
            closed.append(True)
            await super().close(exc)

    monkeypatch.setattr(aio_pika, "Connection", Told)
    with pytest.raises(BrokerAway):
        await within(survey("amqp://127.0.0.1:1/", ["q"], runner=AsyncioRunner()))
    assert closed == [True]


async def test_what_is_no_address_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="it should look like amqp://"):
        await within(survey("http://h", ["q"], runner=AsyncioRunner()))
