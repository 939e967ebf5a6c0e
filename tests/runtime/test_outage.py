"""A database or broker that goes away while a process runs makes it unready; it works on when they are back."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import httpx2
import pytest

from tests.runtime.shop import PARTICIPANT, SAGA
from tests.services.private import PrivateRabbitMQ

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.runtime.conftest import Command, Settings
    from tests.runtime.processes import Process
    from tests.services.private import PrivatePostgres

BOUND = 90.0
GLANCE = 0.05  # seconds between two looks at a process that cannot tell us of its change


async def until(client: httpx2.AsyncClient, *, ready: bool) -> dict[str, dict[str, object]]:
    """Wait until the process says that it is, or is not, ready; its checks."""
    async with asyncio.timeout(BOUND):
        while True:
            answer = await client.get("/readyz", timeout=BOUND)
            if (answer.status_code == 200) is ready:
                return dict(answer.json()["checks"])
            await asyncio.sleep(GLANCE)


@pytest.fixture(params=["database", "broker"])
def losable(request: pytest.FixtureRequest) -> tuple[str, Settings, PrivatePostgres | PrivateRabbitMQ]:
    """What is lost, the settings of both servers, and the one that the test may kill."""
    if request.param == "database":
        postgres: PrivatePostgres = request.getfixturevalue("private_postgres")
        urls = {"database_url": postgres.url, "broker_url": request.getfixturevalue("rabbitmq_url")}
        return request.param, urls, postgres
    rabbitmq: PrivateRabbitMQ = request.getfixturevalue("private_rabbitmq")
    urls = {"database_url": request.getfixturevalue("postgres_url"), "broker_url": rabbitmq.url}
    return request.param, urls, rabbitmq


async def test_unready_while_it_is_away_and_at_work_again_afterwards(
    antiphon: Command,
    started: Callable[..., Process],
    folder: Path,
    losable: tuple[str, Settings, PrivatePostgres | PrivateRabbitMQ],
    namespace: str,
) -> None:
    (folder / "shop.py").write_text(SAGA + PARTICIPANT)
    lost, urls, server = losable
    settings = {"modules": "shop", "namespace": namespace, **urls}
    assert antiphon("migrate", **settings).returncode == 0
    run = started("run", **settings)
    worker = started("participant", "worker", **settings)
    address = run.until("http.listening")["address"]
    worker.until("process.ready")
    run.until("process.ready")
    antiphon("publish", "tiny.Asked", '{"order_id": "before"}', **settings)
    run.until("saga.completed", key="before")
    async with httpx2.AsyncClient(base_url=str(address)) as client:
        await until(client, ready=True)
        if isinstance(server, PrivateRabbitMQ):
            await asyncio.to_thread(server.settle)  # or a queue declared just now comes back without a leader
        server.kill()
        checks = await until(client, ready=False)
        assert not checks[lost]["ok"], checks
        assert (await client.get("/livez")).status_code == 200
        server.start()
        await until(client, ready=True)
    published = antiphon("publish", "tiny.Asked", '{"order_id": "after"}', **settings)
    assert published.returncode == 0, published.stderr
    run.until("saga.completed", key="after")
    for process in (run, worker):
        process.send(signal.SIGTERM)
        assert process.ended() == 0
        assert process.stderr == ""
