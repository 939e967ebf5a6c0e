"""`antiphon run` as a process: it becomes ready, does its work, is unready while it stops, and leaves nothing."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import httpx2

from tests.runtime.shop import PARTICIPANT, SAGA

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.runtime.conftest import Command, Settings
    from tests.runtime.processes import Process


async def test_a_life_from_start_to_stop(antiphon: Command, started: Callable[..., Process], servers: Settings) -> None:
    run = started("run", **servers)
    address = run.until("http.listening")["address"]
    ready = run.until("process.ready")
    assert ready["sagas"] == "Tiny"
    async with httpx2.AsyncClient(base_url=str(address)) as client:
        assert (await client.get("/livez")).status_code == 200
        answer = await client.get("/readyz")
        assert answer.status_code == 200, answer.text
        assert set(answer.json()["checks"]) == {"database", "schema", "broker", "consumers", "loops", "draining"}

    published = antiphon("publish", "tiny.Asked", '{"order_id": "4711"}', **servers)
    assert published.returncode == 0, published.stderr
    line = run.until("saga.started", key="4711")
    assert line["message_id"] == published.stdout.strip()
    sent = run.until("saga.command_sent", step="work")
    assert (sent["step_number"], sent["step_total"], sent["message"]) == (1, 1, "tiny.Do")

    shown = json.loads(antiphon("sagas", "show", "4711", "--json", **servers).stdout)
    assert shown["saga"]["status"] == "running"
    assert [event["kind"] for event in shown["events"]][:2] == ["started", "command_sent"]
    listed = json.loads(antiphon("sagas", "list", "--json", **servers).stdout)
    assert [saga["business_key"] for saga in listed] == ["4711"]

    run.send(signal.SIGTERM)
    run.until("process.stopping", signal="SIGTERM")
    assert run.ended() == 0
    assert run.lines[-1]["event"] == "process.stopped"
    assert run.stderr == ""


def test_what_people_see_of_an_instance(antiphon: Command, started: Callable[..., Process], servers: Settings) -> None:
    run = started("run", **servers)
    run.until("process.ready")
    antiphon("publish", "tiny.Asked", "-", stdin='{"order_id": "4711"}', **servers)
    run.until("saga.command_sent")
    shown = antiphon("sagas", "show", "4711", **servers).stdout
    assert shown.startswith("Tiny 4711  running")
    for text in ("waiting for  tiny.Done", "Steps", "What happened", "command sent", "tiny.Do", "Timers"):
        assert text in shown
    assert "4711" in antiphon("sagas", "list", **servers).stdout


def test_a_saga_is_only_taken_by_a_process_with_its_consumer(
    antiphon: Command, started: Callable[..., Process], servers: Settings
) -> None:
    """Two processes share the work: one consumes and times, the other relays."""
    relay = started("run", "--only", "relay", **servers)
    rest = started("run", "--only", "consumer,timers", **servers)
    relay.until("process.ready")
    rest.until("process.ready")
    antiphon("publish", "tiny.Asked", '{"order_id": "1"}', **servers)
    rest.until("saga.started", key="1")
    for process in (relay, rest):
        process.send(signal.SIGINT)
        assert process.ended() == 0
    assert not any(line["event"].startswith("saga.") for line in relay.lines)


def test_a_definition_that_changed_under_its_version_is_refused_and_the_difference_named(
    antiphon: Command, started: Callable[..., Process], servers: Settings, folder: Path
) -> None:
    run = started("run", **servers)
    run.until("process.ready")
    run.send(signal.SIGTERM)
    assert run.ended() == 0
    changed = SAGA.replace("def work(", "def toiling(")  # another length: Python tells sources apart by second and size
    (folder / "shop.py").write_text(changed)
    done = antiphon("run", **servers)
    assert done.returncode == 78
    assert "saga Tiny version 1" in done.stderr
    assert "toil" in done.stderr
    assert "version=2" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_stop_while_waiting_for_the_broker_ends_with_0(started: Callable[..., Process], folder: Path) -> None:
    (folder / "shop.py").write_text(SAGA)
    run = started("run", modules="shop", broker_url="amqp://u:p@127.0.0.1:1/")
    run.until("dependency.away", dependency="broker")
    run.send(signal.SIGTERM)
    assert run.ended() == 0


async def test_alive_and_unready_while_the_broker_is_away(started: Callable[..., Process], folder: Path) -> None:
    (folder / "shop.py").write_text(SAGA)
    run = started("run", modules="shop", broker_url="amqp://u:hunter2@127.0.0.1:1/")
    address = run.until("http.listening")["address"]
    run.until("dependency.away", dependency="broker")
    async with httpx2.AsyncClient(base_url=str(address)) as client:
        assert (await client.get("/livez")).status_code == 200
        answer = await client.get("/readyz")
    assert answer.status_code == 503
    assert not answer.json()["checks"]["broker"]["ok"]
    assert answer.json()["checks"]["loops"]["detail"] == "waiting for the broker"
    assert "hunter2" not in answer.text + str(run.lines)


def test_an_sqlite_file_takes_one_runner(antiphon: Command, started: Callable[..., Process], folder: Path) -> None:
    (folder / "shop.py").write_text(SAGA)
    settings = {"modules": "shop", "broker_url": "amqp://u:p@127.0.0.1:1/", "http_port": "0"}
    run = started("run", **settings)
    run.until("dependency.away")
    done = antiphon("run", **settings)
    assert done.returncode == 78
    assert f"{folder / 'antiphon.db'} is in use" in done.stderr
    assert antiphon("sagas", "list", **settings).returncode == 0


def test_in_one_process_the_participants_run_beside_the_sagas(
    antiphon: Command, started: Callable[..., Process], folder: Path
) -> None:
    (folder / "shop.py").write_text(SAGA + PARTICIPANT)
    run = started("run", modules="shop")
    assert run.until("process.ready")["participants"] == "worker"
    antiphon("publish", "tiny.Asked", '{"order_id": "4711"}', modules="shop")
    completed = run.until("saga.completed", key="4711")
    run.send(signal.SIGTERM)
    assert run.ended() == 0
    moves = [line for line in run.lines if line["event"].startswith("saga.")]
    assert all({"saga_id", "saga_type", "key", "message_id"} <= line.keys() for line in moves)
    assert completed["message_id"] not in {line["message_id"] for line in moves if line["event"] == "saga.started"}
    shown = json.loads(antiphon("sagas", "show", "4711", "--json", modules="shop").stdout)
    assert shown["saga"]["status"] == "completed"
    assert shown["outbox"] == []


def test_a_handler_that_would_end_the_process_fails_like_any_other(
    antiphon: Command, started: Callable[..., Process], folder: Path
) -> None:
    (folder / "shop.py").write_text(SAGA + PARTICIPANT)
    run = started("run", modules="shop")
    run.until("process.ready")
    antiphon("publish", "tiny.Asked", '{"order_id": "leave"}', modules="shop")
    letter = run.until("message.dead_lettered")
    assert letter["reason"] == "handler_raised"
    assert "do (" in letter["error"] and letter["error"].endswith("raised SystemExit: enough")
    antiphon("publish", "tiny.Asked", '{"order_id": "4711"}', modules="shop")
    run.until("saga.completed", key="4711")
    run.send(signal.SIGTERM)
    assert run.ended() == 0


def test_a_participant_runs_as_a_process_of_its_own(
    antiphon: Command, started: Callable[..., Process], servers: Settings, folder: Path
) -> None:
    (folder / "shop.py").write_text(SAGA + PARTICIPANT)
    sagas, worker = started("run", **servers), started("participant", "worker", **servers)
    assert sagas.until("process.ready")["participants"] == "none"
    ready = worker.until("process.ready")
    assert (ready["participants"], ready["sagas"]) == ("worker", "none")
    antiphon("publish", "tiny.Asked", '{"order_id": "4711"}', **servers)
    sagas.until("saga.completed", key="4711")
    for process in (sagas, worker):
        process.send(signal.SIGTERM)
        assert process.ended() == 0


def test_a_drain_that_runs_out_of_time_ends_with_75_and_says_what_was_left(
    antiphon: Command, started: Callable[..., Process], folder: Path
) -> None:
    (folder / "shop.py").write_text(SAGA + PARTICIPANT)
    run = started("run", modules="shop", drain_timeout="500ms")
    run.until("process.ready")
    antiphon("publish", "tiny.Asked", '{"order_id": "hang"}', modules="shop")
    run.until("handler.hangs")
    run.send(signal.SIGTERM)
    assert "participant.worker" in run.until("process.drain_timed_out")["unfinished"]
    assert run.ended() == 75


def test_a_second_signal_stops_at_once(antiphon: Command, started: Callable[..., Process], folder: Path) -> None:
    (folder / "shop.py").write_text(SAGA + PARTICIPANT)
    run = started("run", modules="shop", drain_timeout="1h")
    run.until("process.ready")
    antiphon("publish", "tiny.Asked", '{"order_id": "hang"}', modules="shop")
    run.until("handler.hangs")
    run.send(signal.SIGTERM)
    run.until("process.stopping")
    run.send(signal.SIGINT)
    assert run.ended() == 75


def test_what_a_killed_process_had_begun_is_finished_by_the_next(
    antiphon: Command, started: Callable[..., Process], folder: Path
) -> None:
    (folder / "shop.py").write_text(SAGA + PARTICIPANT)
    first = started("run", modules="shop", lease="3")
    first.until("process.ready")
    antiphon("publish", "tiny.Asked", '{"order_id": "hang"}', modules="shop")
    first.until("handler.hangs")
    first.kill()
    (folder / "shop.py").write_text(SAGA + PARTICIPANT.replace('"hang"', '"never"'))
    second = started("run", modules="shop", lease="3")
    second.until("saga.completed", key="hang")


def test_the_in_process_broker_takes_one_runner_on_postgresql_too(
    antiphon: Command, started: Callable[..., Process], folder: Path, fresh_database: Callable[[], str]
) -> None:
    (folder / "shop.py").write_text(SAGA + PARTICIPANT)
    settings = {"modules": "shop", "database_url": fresh_database(), "http_port": "0"}
    assert antiphon("migrate", **settings).returncode == 0
    run = started("run", **settings)
    run.until("process.ready")
    done = antiphon("run", **settings)
    assert done.returncode == 78
    assert "takes one runner" in done.stderr
    antiphon("publish", "tiny.Asked", '{"order_id": "4711"}', **settings)
    run.until("saga.completed", key="4711")
