"""The driver starts, awaits and ends processes with a bound, and says what it saw when they do not do their part."""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import aio_pika
import pytest

from tests.crash.driver import (
    ORDERING,
    Setup,
    Shop,
    Sidecar,
    at_rest,
    finished,
    http_status,
    reserve_port,
    start_id,
    unrest,
)
from tests.crash.process import Child, ChildError
from tests.crash.views import OutboxRow, Picture, SagaRow, TimerRow

if TYPE_CHECKING:
    from pathlib import Path

SERVER = """
import http.server, os, sys
answers = iter([503, 503])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(next(answers, 200)); self.end_headers()
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", int(os.environ["ANTIPHON_HTTP_PORT"])), Handler).serve_forever()
"""
SAGA = SagaRow(saga_id="s", saga_type="PlaceOrder", business_key="o-1", status="completed", phase="completed")


@pytest.fixture
def setup(tmp_path: Path, namespace: str) -> Setup:
    return Setup(folder=tmp_path, database_url="sqlite:///nowhere.db", namespace=namespace)


def python(program: str) -> list[str]:
    return [sys.executable, "-c", program]


async def test_a_process_is_ready_when_it_says_so_over_http(setup: Setup) -> None:
    async with await Sidecar.start(setup, command=python(SERVER)) as sidecar:
        await sidecar.ready()
        assert await http_status(sidecar.port, "/readyz") == 200


async def test_a_process_that_ends_is_not_waited_for(setup: Setup) -> None:
    async with await Sidecar.start(setup, command=python("raise SystemExit('no database')")) as sidecar:
        with pytest.raises(ChildError, match=r"ended before it had been ready\nno database"):
            await sidecar.ready()


async def test_a_process_that_never_gets_ready_is_given_up(setup: Setup) -> None:
    async with await Sidecar.start(setup, command=python("import signal; signal.pause()")) as sidecar:
        with pytest.raises(ChildError, match="has not been ready within"):
            await sidecar.ready(timeout=0.1)


async def test_dying_by_a_kill_is_told_from_every_other_end(setup: Setup) -> None:
    async with await Sidecar.start(setup, command=python("pass")) as sidecar:
        with pytest.raises(ChildError, match="ended with 0 instead of being killed"):
            await sidecar.killed()
    async with await Sidecar.start(setup, command=python("import signal; signal.pause()")) as sidecar:
        sidecar.child.signal(signal.SIGKILL)
        await sidecar.killed()


async def test_no_child_outlives_its_block(setup: Setup) -> None:
    waiting = python("import signal; signal.pause()")
    async with await Child.start("sleeper", waiting, folder=setup.folder, env={}) as child:
        before = child.running
    assert (before, child.running) == (True, False)
    assert await child.ended() == -signal.SIGKILL


async def test_a_process_sees_only_the_settings_it_is_given(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTIPHON_DATABASE_URL", "postgresql://elsewhere/production")
    monkeypatch.setenv("ANTIPHON_BATCH", "1")
    env = replace(setup, settings={"SWEEP": "0.2"}).environment(LEASE="5")
    assert {name: value for name, value in env.items() if name.startswith("ANTIPHON_")} == {
        "ANTIPHON_DATABASE_URL": "sqlite:///nowhere.db",
        "ANTIPHON_MODULES": ORDERING,
        "ANTIPHON_NAMESPACE": setup.namespace,
        "ANTIPHON_LOG_FORMAT": "json",
        "ANTIPHON_LEASE": "5",
        "ANTIPHON_SWEEP": "0.2",
    }


async def test_a_command_of_the_product_is_run_to_its_end(setup: Setup) -> None:
    assert "antiphon" in (await finished("version", setup, "version")).lower()
    with pytest.raises(ChildError, match="ended with 2 instead of 0"):
        await finished("nonsense", setup, "sing")


def test_a_reserved_port_is_ours_alone_until_a_child_listens() -> None:
    with reserve_port() as one, reserve_port() as other:
        assert one.getsockname() != other.getsockname()


async def test_the_shop_places_orders_as_the_wire_contract_says(rabbitmq_url: str, namespace: str) -> None:
    async with await aio_pika.connect(rabbitmq_url) as connection:
        channel = await connection.channel()
        async with Shop(rabbitmq_url, namespace) as shop:
            with pytest.raises(aio_pika.exceptions.DeliveryError):
                await shop.place("o-1")
            queue = await channel.declare_queue(f"{namespace}.saga.PlaceOrder", exclusive=True)
            await queue.bind(f"{namespace}.events", "ordering.OrderPlaced")
            assert await shop.place("o-1", copies=2) == {"o-1": start_id("o-1")}
        copies = [await queue.get(no_ack=True) for _ in range(2)]
    assert {(copy.message_id, copy.type, copy.routing_key) for copy in copies if copy} == {
        (start_id("o-1"), "ordering.OrderPlaced", "ordering.OrderPlaced")
    }
    assert {json.loads(copy.body)["order_id"] for copy in copies if copy} == {"o-1"}


@pytest.mark.parametrize(
    ("picture", "reason"),
    [
        (Picture(), "1 orders have not ended: o-1"),
        (Picture(sagas=[replace(SAGA, status="running", phase="running")]), "have not ended"),
        (
            Picture(sagas=[SAGA], outbox=[OutboxRow(message_id="m", saga_id="s", name="n", state="new")]),
            "1 messages are not confirmed",
        ),
        (Picture(sagas=[SAGA]), ""),
        (Picture(sagas=[replace(SAGA, status="parked", phase="compensating")]), ""),
    ],
)
def test_rest_is_when_everyone_ended_and_nothing_is_on_its_way(setup: Setup, picture: Picture, reason: str) -> None:
    found = unrest(picture, ["o-1"], setup.ledger)
    assert (reason in found) if reason else (found == "")


async def test_waiting_for_rest_ends_with_what_is_still_going_on(setup: Setup) -> None:
    running = replace(SAGA, status="running", phase="running")

    async def busy() -> Picture:
        return Picture(sagas=[running], timers=[TimerRow(saga_id="s", name="reserve")])

    async def stalled() -> Picture:
        return Picture(sagas=[running])

    with pytest.raises(AssertionError, match=r"no rest within 0\.1 s: 1 orders have not ended: o-1"):
        await at_rest(busy, ["o-1"], setup.ledger, timeout=0.1)
    with pytest.raises(AssertionError, match=r"stalled.*waits for nothing"):
        await at_rest(stalled, ["o-1"], setup.ledger)
