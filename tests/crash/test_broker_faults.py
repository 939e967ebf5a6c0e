"""What RabbitMQ can do to a sidecar at work: it lives through it, and nothing is lost or doubled.

One sidecar suffers everything here, one thing after the other; what every single thing does to a connection, and what
the library makes of it, is in `tests/transport`.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import aio_pika
import pytest

from tests.crash.driver import Setup, Shop, finished, order_body, order_placed, start_id
from tests.crash.laboratory import Laboratory

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.services.private import PrivateRabbitMQ

pytestmark = pytest.mark.long(45)  # one after the other, on one broker that is started for them

COMPLETED = {"completed"}
USER = "sidecar"
LIMIT = 2


class Broker:
    """A virtual host on a broker of the test's own, with a user for the sidecar."""

    def __init__(self, server: PrivateRabbitMQ) -> None:
        self.server = server
        self.url = server.vhost()
        self.vhost = unquote(urlsplit(self.url).path[1:])

    @property
    def users_url(self) -> str:
        """The same virtual host as the sidecar's user."""
        return self.url.replace("guest:guest", f"{USER}:{USER}")

    async def ctl(self, *words: str) -> None:
        """`rabbitmqctl`."""
        await asyncio.to_thread(self.server.rabbitmqctl, *words)

    async def allow(self, rights: str) -> None:
        """Give the sidecar's user the right to everything that this pattern names, and to nothing else."""
        await self.ctl("set_permissions", "-p", self.vhost, USER, rights, rights, rights)

    async def limit(self, queue: str, what: str, most: int) -> None:
        """Set a policy for one queue."""
        pattern = f"^{queue.replace('.', '[.]')}$"
        await self.ctl("set_policy", "-p", self.vhost, what, pattern, f'{{"{what}":{most}}}', "--apply-to", "queues")


async def test_a_sidecar_lives_through_whatever_its_broker_does(
    private_rabbitmq: PrivateRabbitMQ, fresh_database: Callable[[], str], namespace: str, tmp_path: Path
) -> None:
    broker = Broker(private_rabbitmq)
    await broker.ctl("add_user", USER, USER)
    await broker.allow(".*")
    setup = Setup(folder=tmp_path, database_url=fresh_database(), broker_url=broker.users_url, namespace=namespace)
    starts: dict[str, str] = {}

    async def place(when: str, number: int = 5) -> None:
        async with Shop(broker.url, namespace) as shop:
            starts.update(await shop.place(*[f"{when}-{each}" for each in range(number)]))

    async with Laboratory(setup=setup) as laboratory:
        participants = await laboratory.participants(broker.url)
        sidecar = await laboratory.sidecar("sidecar", CONFIRM_TIMEOUT="2")

        # The memory alarm: nothing can be published, and the broker tells only who tries to.
        await place("alarm")
        await broker.ctl("set_vm_memory_high_watermark", "0.00001")
        try:
            words = ("publish", "ordering.OrderPlaced", order_body("blocked"), "--message-id", start_id("blocked"))
            await finished("publish", setup, *words)
            starts["blocked"] = start_id("blocked")
            await sidecar.unready()
            await sidecar.child.says("consuming.paused")
        finally:
            await broker.ctl("set_vm_memory_high_watermark", "absolute", "1GB")
        await sidecar.child.says("consuming.resumed")

        # Its rights are taken away, and its connections closed, while it works.
        await place("forbidden")
        await broker.allow("^$")
        await broker.ctl("close_all_connections", "--vhost", broker.vhost, "closed by the test")
        await place("meanwhile")
        await sidecar.unready()
        await broker.allow(".*")

        # The queue of a participant that is not there is full.
        await sidecar.ready()
        await laboratory.judge(starts, dict.fromkeys(starts, COMPLETED))
        await participants.kill()
        await broker.limit(f"{namespace}.ledger.stock", "max-length", 2)
        async with asyncio.timeout(60):  # a policy takes a moment to be in force
            for attempt in itertools.count():
                await place(f"full-{attempt}")
                if "nacked" in sidecar.child.text():
                    break
        await laboratory.participants(broker.url)

        # The broker is killed.
        await laboratory.judge(starts, dict.fromkeys(starts, COMPLETED))
        await asyncio.to_thread(private_rabbitmq.settle)
        await place("killed")
        await asyncio.to_thread(private_rabbitmq.kill)
        await sidecar.unready()
        await asyncio.to_thread(private_rabbitmq.start)
        await place("afterwards")
        await laboratory.judge(starts, dict.fromkeys(starts, COMPLETED))
        assert await sidecar.stop() == 0
    await broker.ctl("delete_user", USER)


async def test_a_message_that_is_given_back_too_often_is_kept_by_the_broker(
    private_rabbitmq: PrivateRabbitMQ, fresh_database: Callable[[], str], namespace: str, tmp_path: Path
) -> None:
    """Whoever takes it dies of it. It goes to the queue of dead letters, whole, and to no other end."""
    broker = Broker(private_rabbitmq)
    queue = f"{namespace}.saga.PlaceOrder"
    setup = Setup(folder=tmp_path, database_url=fresh_database(), broker_url=broker.url, namespace=namespace)
    async with Laboratory(setup=setup) as laboratory:
        sidecar = await laboratory.sidecar("sidecar")  # which declares the queues
        assert await sidecar.stop() == 0
    await broker.limit(queue, "delivery-limit", LIMIT)
    deadly = order_placed("deadly", "m-deadly")
    async with await aio_pika.connect(broker.url) as connection:
        channel = await connection.channel()
        await channel.default_exchange.publish(deadly, queue, timeout=30)
        for _ in range(LIMIT + 1):
            taker = await connection.channel()
            taken = await (await taker.declare_queue(queue, passive=True)).get(timeout=30)
            assert taken is not None
            await taker.close()
        letters = await channel.declare_queue(f"{namespace}.dead", passive=True)
        async with asyncio.timeout(30), letters.iterator() as arriving:
            async for letter in arriving:
                assert (letter.message_id, letter.body) == ("m-deadly", deadly.body)
                assert letter.headers["x-first-death-reason"] == "delivery_limit"
                await letter.ack()
                break
