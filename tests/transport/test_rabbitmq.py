from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from running import AsyncioRunner
from testkit.conformance.bench import Pair
from testkit.conformance.transport import TransportConformance
from transport.rabbitmq import RabbitMQTransport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class TestRabbitMQ(TransportConformance):
    @pytest.fixture
    async def pair(self, rabbitmq_url: str, namespace: str) -> AsyncIterator[Pair]:
        near, far = (RabbitMQTransport(rabbitmq_url, runner=AsyncioRunner(), app_id="conformance") for _ in range(2))
        await near.connect()
        await far.connect()
        yield Pair(near=near, far=far, namespace=namespace, app_id="conformance")
        await near.close()
        await far.close()
