"""`/livez` asks the event loop only, `/readyz` asks everything; both are served inside our loop."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import pytest

from messages.errors import ConfigurationError, DatabaseAway
from running import AsyncioRunner
from runtime.http import HttpServer, application
from runtime.readiness import Readiness


async def fine() -> None:
    return None


async def away() -> None:
    raise DatabaseAway("cannot reach postgresql://u:hunter2@h/d")


async def hangs() -> None:
    await asyncio.Event().wait()


@asynccontextmanager
async def served(readiness: Readiness) -> AsyncIterator[httpx2.AsyncClient]:
    server = HttpServer(application(readiness), host="127.0.0.1", port=0)
    server.open()
    task = asyncio.create_task(server.run())
    async with httpx2.AsyncClient(base_url=server.address) as client:
        yield client
    server.stop()
    await asyncio.wait_for(task, 10)


async def test_live_even_when_nothing_else_is() -> None:
    readiness = Readiness(AsyncioRunner())
    readiness.add("database", away)
    readiness.drain()
    async with served(readiness) as client:
        answer = await client.get("/livez")
    assert (answer.status_code, answer.json()) == (200, {"status": "alive"})


async def test_ready_when_every_check_passes() -> None:
    readiness = Readiness(AsyncioRunner())
    readiness.add("database", fine)
    async with served(readiness) as client:
        answer = await client.get("/readyz")
    assert answer.status_code == 200
    assert answer.json() == {
        "ready": True,
        "checks": {"database": {"ok": True, "detail": "ok"}, "draining": {"ok": True, "detail": "no"}},
    }


async def test_not_ready_names_what_fails_and_hides_passwords() -> None:
    readiness = Readiness(AsyncioRunner())
    readiness.add("broker", fine)
    readiness.add("database", away)
    async with served(readiness) as client:
        answer = await client.get("/readyz")
    assert answer.status_code == 503
    checks = answer.json()["checks"]
    assert checks["broker"]["ok"]
    assert checks["database"] == {"ok": False, "detail": "cannot reach postgresql://u:***@h/d"}


async def test_not_ready_while_draining() -> None:
    readiness = Readiness(AsyncioRunner())
    readiness.drain()
    async with served(readiness) as client:
        answer = await client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["checks"]["draining"] == {"ok": False, "detail": "stopping"}


async def test_a_check_that_hangs_fails_in_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.readiness.PATIENCE", 0.01)
    readiness = Readiness(AsyncioRunner())
    readiness.add("broker", hangs)
    assert "no answer" in (await readiness.findings())["broker"].detail


async def test_a_port_that_is_taken_is_a_clear_error() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"127.0.0.1:{port}.*ANTIPHON_HTTP_PORT"):
            HttpServer(application(Readiness(AsyncioRunner())), host="127.0.0.1", port=port).open()


async def test_a_server_that_was_stopped_before_it_ran_returns_and_frees_its_port() -> None:
    server = HttpServer(application(Readiness(AsyncioRunner())), host="127.0.0.1", port=0)
    server.open()
    server.stop()
    await asyncio.wait_for(server.run(), 10)
    again = HttpServer(
        application(Readiness(AsyncioRunner())), host="127.0.0.1", port=int(server.address.rpartition(":")[2])
    )
    again.open()
    again.close()
