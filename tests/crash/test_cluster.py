"""Three RabbitMQ nodes: the one that leads every queue is killed under load, another takes over, and it comes back."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.crash.driver import Setup, Shop
from tests.crash.laboratory import Laboratory, before
from tests.crash.proxy.amqp import AmqpParser
from tests.services.cluster import PrivateCluster

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ORDERS = 60
WORDS = ("", "~payment=fail", "~warehouse=fail", "~payment=transient:1")


@pytest.mark.soak
async def test_the_leader_of_the_queues_may_die_and_come_back(
    fresh_database: Callable[[], str], namespace: str, tmp_path: Path
) -> None:
    """Everybody is connected through one address, which leads to a node that lives, as a load balancer's does."""
    with PrivateCluster() as cluster:
        first = cluster.nodes[0].url
        setup = Setup(folder=tmp_path, database_url=fresh_database(), broker_url=first, namespace=namespace)
        async with before(first, AmqpParser) as balancer:
            setup = replace(setup, broker_url=balancer.through(first))
            async with Laboratory(setup=setup) as laboratory:
                sidecars = [await laboratory.sidecar(f"sidecar-{number}") for number in range(2)]
                await laboratory.participants()
                starts: dict[str, str] = {}
                for dying, heir in ((0, 1), (1, 2)):
                    async with Shop(cluster.nodes[heir].url, namespace) as shop:
                        orders = [f"o-{dying}-{number}{WORDS[number % 4]}" for number in range(ORDERS)]
                        starts |= await shop.place(*orders)
                    await balancer.seen("amqp.c2s.publish_done", balancer.count("amqp.c2s.publish_done") + 20)
                    balancer.upstream = ("127.0.0.1", cluster.nodes[heir].port)
                    cluster.nodes[dying].kill()
                    allowed = {order: {"compensated" if "=fail" in order else "completed"} for order in starts}
                    await laboratory.judge(starts, allowed)
                    cluster.nodes[dying].launch()
                    await asyncio.to_thread(cluster.nodes[dying].await_start)
                assert [await each.stop() for each in sidecars] == [0, 0]
