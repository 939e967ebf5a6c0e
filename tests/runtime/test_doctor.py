"""`doctor`: everything that is wrong is told with its place and its remedy, and nothing is changed."""

from __future__ import annotations

import json
import signal
import socket
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from tests.runtime.shop import PARTICIPANT, SAGA

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.runtime.conftest import Command, Settings
    from tests.runtime.processes import Ended, Process


def problems(done: Ended) -> dict[str, str]:
    """The problems that were found, by check."""
    findings = json.loads(done.stdout)
    assert done.returncode == (0 if findings["ok"] else 1)
    return {each["check"]: each["problem"] for each in findings["checks"] if each["problem"]}


def details(done: Ended) -> dict[str, str]:
    """What was found to be well, by check."""
    return {each["check"]: each["detail"] for each in json.loads(done.stdout)["checks"] if not each["problem"]}


def test_doctor_finds_a_set_up_well(antiphon: Command, folder: Path) -> None:
    (folder / "shop.py").write_text(SAGA + PARTICIPANT)
    assert antiphon("migrate", modules="shop").returncode == 0
    done = antiphon("doctor", "--json", modules="shop")
    findings = json.loads(done.stdout)
    assert done.returncode == 0, done.stdout
    assert findings["ok"]
    assert [each["check"] for each in findings["checks"]] == [
        "settings",
        "modules",
        "database",
        "schema",
        "definitions",
        "instances",
        "lag",
        "retention",
        "broker",
        "commands",
    ]


def test_doctor_tells_every_problem_with_its_remedy_and_changes_nothing(
    antiphon: Command, folder: Path, fresh_database: Callable[[], str], rabbitmq_url: str, namespace: str
) -> None:
    (folder / "shop.py").write_text(SAGA)
    settings = {
        "modules": "shop",
        "database_url": fresh_database(),
        "broker_url": rabbitmq_url,
        "namespace": namespace,
    }
    for _ in range(2):
        done = antiphon("doctor", **settings)
        assert done.returncode == 1
        assert "problem  schema" in done.stdout
        assert "antiphon migrate" in done.stdout
        assert f"queue {namespace}.saga.Tiny" in done.stdout
        assert "ok       broker" in done.stdout


def test_doctor_reports_wrong_settings_without_a_traceback(antiphon: Command) -> None:
    done = antiphon("doctor", leese="3")
    assert done.returncode == 1
    assert "ANTIPHON_LEESE" in done.stdout
    assert "Traceback" not in done.stderr


def test_doctor_in_the_wrong_folder_names_the_file_and_makes_none(antiphon: Command, folder: Path) -> None:
    found = problems(antiphon("doctor", "--json"))
    assert set(found) == {"database"}
    assert f"there is no database file {folder / 'antiphon.db'}; " in found["database"]
    assert "ANTIPHON_DATABASE_URL" in found["database"]
    assert list(folder.iterdir()) == []


def test_doctor_names_where_it_found_nobody_and_what_to_do(antiphon: Command) -> None:
    away = {
        "database_url": "postgresql://postgres:hunter2@127.0.0.1:1/orders",
        "broker_url": "amqp://guest:hunter2@127.0.0.1:1/",
    }
    found = problems(antiphon("doctor", "--json", **away))
    assert set(found) == {"database", "broker"}
    assert found["database"].startswith("postgresql://postgres:***@127.0.0.1:1/orders: ")
    assert found["database"].endswith("; start it, or correct ANTIPHON_DATABASE_URL")
    assert found["broker"].startswith("guest@127.0.0.1:1/: ")
    assert found["broker"].endswith("; start it, or correct ANTIPHON_BROKER_URL")
    assert "hunter2" not in str(found)


def test_doctor_names_the_address_of_a_server_that_never_answers(antiphon: Command) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        where = f"127.0.0.1:{silent.getsockname()[1]}"
        found = problems(
            antiphon("doctor", "--json", database_url=f"postgresql://u:hunter2@{where}/d?connect_timeout=1")
        )
    assert found["database"] == (
        f"postgresql://u:***@{where}/d?connect_timeout=1: the database cannot be reached (no answer in time); "
        "start it, or correct ANTIPHON_DATABASE_URL"
    )


def test_doctor_goes_on_after_an_address_that_cannot_be_used(antiphon: Command) -> None:
    found = problems(
        antiphon("doctor", "--json", database_url="postgresql://h/d?foo=1", broker_url="amqp://127.0.0.1:1/")
    )
    assert set(found) == {"database", "broker"}
    assert "a parameter that is unknown here: foo; known ones are " in found["database"]


def test_doctor_finds_ids_that_nobody_removes(antiphon: Command, folder: Path) -> None:
    (folder / "shop.py").write_text(SAGA + PARTICIPANT)
    assert antiphon("migrate", modules="shop").returncode == 0
    assert details(antiphon("doctor", "--json", modules="shop"))["retention"] == "nothing to remove yet"
    insert = (
        "insert into inbox values ('Tiny', 'shop', ?, x'', '', 'applied', strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', ?))"
    )
    with closing(sqlite3.connect(folder / "antiphon.db")) as database, database:
        database.execute(insert, ("young", "-192 hours"))
    well = details(antiphon("doctor", "--json", modules="shop"))
    assert well["retention"] == "the oldest id in the inbox is 8 d 0 h old"
    with closing(sqlite3.connect(folder / "antiphon.db")) as database, database:
        database.execute(insert, ("old", "-250 hours"))
    found = problems(antiphon("doctor", "--json", modules="shop"))
    assert found == {
        "retention": "the inbox remembers an id for 10 d 10 h, and ANTIPHON_INBOX_WINDOW is 8 d 0 h; "
        "is a process with timers running?"
    }


def test_doctor_misses_participants_where_nobody_else_can_take_their_commands(antiphon: Command, folder: Path) -> None:
    (folder / "shop.py").write_text(SAGA)
    assert antiphon("migrate", modules="shop").returncode == 0
    found = problems(antiphon("doctor", "--json", modules="shop"))
    assert set(found) == {"commands"}
    assert found["commands"].startswith("no participant takes tiny.Do, ")
    assert "ANTIPHON_MODULES" in found["commands"]


def test_doctor_finds_queues_that_nobody_reads(
    antiphon: Command, started: Callable[..., Process], servers: Settings, folder: Path
) -> None:
    (folder / "shop.py").write_text(SAGA + PARTICIPANT)
    sagas, worker = started("run", **servers), started("participant", "worker", **servers)
    for process in (sagas, worker):
        process.until("process.ready")
    well = antiphon("doctor", "--json", **servers)
    assert problems(well) == {}
    assert details(well)["topology"] == "2 queues, all there"
    assert details(well)["consumers"] == "2 queues are read, 0 messages wait"

    worker.send(signal.SIGTERM)
    assert worker.ended() == 0
    antiphon("publish", "tiny.Asked", '{"order_id": "4711"}', **servers)
    sagas.until("saga.command_sent")
    sagas.send(signal.SIGTERM)
    assert sagas.ended() == 0  # and what it had sent is confirmed
    found = problems(antiphon("doctor", "--json", **servers))
    namespace = servers["namespace"]
    assert found == {
        "consumers": f"nobody reads the queue {namespace}.saga.Tiny; start antiphon run\n"
        f"nobody reads the queue {namespace}.participant.worker, where 1 message waits; "
        "start antiphon participant worker"
    }
