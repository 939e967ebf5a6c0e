"""Whatever is wrong with the set-up: one clear message with its remedy and an exit code, never a traceback."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
import pytest

from tests.runtime.shop import PARTICIPANT, SAGA

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.runtime.conftest import Command
    from tests.runtime.processes import Ended


def assert_told(done: Ended, code: int, *texts: str) -> None:
    assert "Traceback" not in done.stderr + done.stdout
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith("antiphon: ")
    for text in texts:
        assert text in done.stderr
    assert "hunter2" not in done.stderr + done.stdout


def test_an_unknown_setting(antiphon: Command) -> None:
    assert_told(antiphon("run", databse_url="x"), 78, "ANTIPHON_DATABSE_URL", "did you mean ANTIPHON_DATABASE_URL?")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("database_url", "mysql://u:hunter2@h/d"),
        ("broker_url", "http://u:hunter2@h"),
        ("broker_url", "amqp://u:hun#ter2@h"),
    ],
)
def test_a_bad_address(antiphon: Command, name: str, value: str) -> None:
    assert_told(antiphon("run", **{name: value}), 78, f"ANTIPHON_{name.upper()}", "write ")


@pytest.mark.parametrize("name", ["Shop", "1st", "a" * 32, "a-b", "é"])
def test_a_bad_namespace(antiphon: Command, name: str) -> None:
    assert_told(antiphon("sagas", "list", namespace=name), 78, "ANTIPHON_NAMESPACE", repr(name), "write a lower-case")


def test_a_missing_module(antiphon: Command, folder: Path) -> None:
    assert_told(antiphon("run", modules="shop.sagas"), 78, "no module named shop.sagas", str(folder))


def test_a_module_that_cannot_be_imported(antiphon: Command, folder: Path) -> None:
    (folder / "shop.py").write_text("import nothing_of_that_name\n")
    assert_told(antiphon("run", modules="shop"), 78, "nothing_of_that_name", f"{folder / 'shop.py'}:1")


def test_modules_without_a_saga_leave_nothing_to_run(antiphon: Command, folder: Path) -> None:
    (folder / "empty.py").write_text("")
    assert_told(antiphon("run", modules="empty"), 78, "ANTIPHON_MODULES: empty defines no saga", "name the modules")
    assert list(folder.glob("antiphon.db*")) == []


def test_a_class_that_is_wrong(antiphon: Command, folder: Path) -> None:
    (folder / "shop.py").write_text(SAGA.replace("success=Done", "sucess=Done"))
    assert_told(antiphon("run", modules="shop"), 78, "Tiny", "shop.py:", "sucess")


def test_parts_that_do_not_exist_are_a_usage_error(antiphon: Command) -> None:
    done = antiphon("run", "--only", "consumer,tmers")
    assert done.returncode == 2
    assert "'--only': tmers: the parts are consumer, http, relay, timers" in done.stderr


def test_a_process_without_a_part_on_the_in_process_broker(antiphon: Command, folder: Path) -> None:
    (folder / "shop.py").write_text(SAGA)
    assert_told(antiphon("run", "--only", "consumer", modules="shop"), 78, "relay, timers", "ANTIPHON_BROKER_URL")


def test_a_command_that_nobody_takes_on_the_in_process_broker(antiphon: Command, folder: Path) -> None:
    (folder / "shop.py").write_text(SAGA)
    assert_told(antiphon("run", modules="shop"), 78, "no participant takes tiny.Do", "ANTIPHON_MODULES")


def test_a_participant_that_would_forget_what_its_saga_may_ask_for_again(antiphon: Command, folder: Path) -> None:
    (folder / "shop.py").write_text(SAGA + PARTICIPANT)
    done = antiphon("run", modules="shop", retention_participants="14d")
    told = "14d is shorter than the deadline of Tiny and ANTIPHON_INBOX_WINDOW together (15d)"
    assert_told(done, 78, "ANTIPHON_RETENTION_PARTICIPANTS", told, "set it to never")


def test_a_participant_that_does_not_exist(antiphon: Command, folder: Path) -> None:
    (folder / "shop.py").write_text(SAGA)
    done = antiphon("participant", "stok", modules="shop", broker_url="amqp://localhost")
    assert_told(done, 78, "no participant is called 'stok'")


def test_a_participant_as_a_process_on_the_in_process_broker(antiphon: Command) -> None:
    assert_told(antiphon("participant", "stock"), 78, "antiphon run", "ANTIPHON_BROKER_URL")


def test_a_schema_that_is_missing(antiphon: Command, folder: Path, fresh_database: Callable[[], str]) -> None:
    (folder / "shop.py").write_text(SAGA)
    settings = {"modules": "shop", "database_url": fresh_database(), "broker_url": "amqp://localhost", "http_port": "0"}
    assert_told(antiphon("run", **settings), 78, "antiphon migrate")
    assert_told(antiphon("sagas", "list", **settings), 78, "antiphon migrate")


def test_wrong_credentials_of_the_database(antiphon: Command, folder: Path, postgres_url: str) -> None:
    (folder / "shop.py").write_text(SAGA)
    wrong = (
        postgres_url.replace("://", "://nobody_of_that_name:hunter2@", 1)
        if "@" not in postgres_url
        else ("postgresql://nobody_of_that_name:hunter2@" + postgres_url.partition("@")[2])
    )
    done = antiphon("run", modules="shop", database_url=wrong, broker_url="amqp://localhost", http_port="0")
    assert_told(done, 78, "database")


def test_wrong_credentials_of_the_broker(antiphon: Command, folder: Path, rabbitmq_url: str) -> None:
    (folder / "shop.py").write_text(SAGA)
    wrong = "amqp://nobody_of_that_name:hunter2@" + rabbitmq_url.partition("@")[2]
    done = antiphon("run", modules="shop", broker_url=wrong, http_port="0")
    assert_told(done, 78, "nobody_of_that_name")


@pytest.fixture
def stranger(postgres_server: str) -> Iterator[str]:
    """A user of the server who may do nothing."""
    name = f"stranger_{uuid4().hex[:12]}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"create role {name} login password 'hunter2'".encode())
        yield name
        connection.execute(f"drop role {name}".encode())


def test_a_user_of_the_database_without_rights(
    antiphon: Command, fresh_database: Callable[[], str], stranger: str
) -> None:
    url = fresh_database()
    weak = f"postgresql://{stranger}:hunter2@{urlsplit(url).netloc.rpartition('@')[2]}{urlsplit(url).path}"
    where = weak.replace("hunter2", "***")
    done = antiphon("migrate", database_url=weak)
    assert_told(
        done, 78, f"{where}: ", "permission denied for database", "; grant this user the right, or name another"
    )
    assert antiphon("migrate", database_url=url).returncode == 0
    done = antiphon("sagas", "list", database_url=weak)
    assert_told(done, 78, f"{where}: this user may not use the schema 'antiphon'; grant it usage")


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("missing", ["database", "broker"])
def test_a_dependency_that_never_comes_is_waited_for_and_given_up(
    antiphon: Command, folder: Path, missing: str
) -> None:
    (folder / "shop.py").write_text(SAGA)
    nowhere = f"127.0.0.1:{unused_port()}"
    settings = {"modules": "shop", "http_port": "0", "startup_timeout": "1", "log_format": "json"}
    settings["broker_url"] = f"amqp://u:hunter2@{nowhere}/"
    if missing == "database":
        settings["database_url"] = f"postgresql://u:hunter2@{nowhere}/d"
    done = antiphon("run", **settings)
    assert_told(done, 69, f"the {missing} did not answer within 1 s", "ANTIPHON_STARTUP_TIMEOUT")
    assert '"dependency.away"' in done.stdout


@pytest.mark.parametrize("command", [("sagas", "list"), ("dead", "list"), ("migrate",)])
def test_a_command_names_the_database_that_is_away_and_what_to_do(antiphon: Command, command: tuple[str, ...]) -> None:
    url = f"postgresql://u:hunter2@127.0.0.1:{unused_port()}/d"
    where = url.replace("hunter2", "***")
    assert_told(antiphon(*command, database_url=url), 69, f"antiphon: {where}: ", "correct ANTIPHON_DATABASE_URL")


def test_a_command_names_the_database_that_has_no_schema(antiphon: Command, fresh_database: Callable[[], str]) -> None:
    url = fresh_database()
    assert_told(antiphon("sagas", "list", database_url=url), 78, f"{url}: ", "run: antiphon migrate")


@pytest.mark.parametrize("kind", ["database", "broker"])
def test_a_server_that_never_answers_is_named(antiphon: Command, folder: Path, kind: str) -> None:
    (folder / "shop.py").write_text(SAGA + PARTICIPANT)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        patience = {"database": "?connect_timeout=1", "broker": ""}[kind]  # for one attempt
        where = f"127.0.0.1:{silent.getsockname()[1]}/x{patience}"
        scheme = {"database": "postgresql", "broker": "amqp"}[kind]
        settings = {f"{kind}_url": f"{scheme}://u:hunter2@{where}", "startup_timeout": "1", "http_port": "0"}
        done = antiphon("run", modules="shop", **settings)
    text = f"the {kind} did not answer within 1 s: {scheme}://u:***@{where}: no answer in time; start it, "
    assert_told(done, 69, text, f"correct ANTIPHON_{kind.upper()}_URL", "ANTIPHON_STARTUP_TIMEOUT")


def test_a_port_that_is_taken(antiphon: Command, folder: Path) -> None:
    (folder / "shop.py").write_text(SAGA)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        done = antiphon("run", modules="shop", broker_url="amqp://localhost", http_port=port)
    assert_told(done, 78, port, "ANTIPHON_HTTP_PORT")


def test_a_broken_database_file(antiphon: Command, folder: Path) -> None:
    (folder / "antiphon.db").write_text("this is a diary, not a database " * 100)
    where = f"sqlite:///{folder / 'antiphon.db'}: "
    assert_told(antiphon("sagas", "list"), 78, where, "not a database", "check the database address")


@pytest.mark.parametrize(
    ("name", "body", "texts"),
    [
        ("tiny.Askd", "{}", ["no message is called 'tiny.Askd'", "tiny.Asked"]),
        ("tiny.Asked", "{}", ["order_id"]),
        ("tiny.Asked", "not json", ["not JSON"]),
        ("tiny.Asked", "[]", ["object"]),
    ],
)
def test_a_message_that_is_wrong_is_not_published(
    antiphon: Command, folder: Path, name: str, body: str, texts: list[str]
) -> None:
    (folder / "shop.py").write_text(SAGA)
    done = antiphon("publish", name, body, modules="shop")
    assert_told(done, 1, *texts)
    assert done.stdout == ""


def test_an_instance_or_dead_letter_that_does_not_exist(antiphon: Command) -> None:
    assert antiphon("migrate").returncode == 0
    assert_told(antiphon("sagas", "show", "4711"), 1, "'4711'", "antiphon sagas list")
    assert_told(antiphon("dead", "show", "4711"), 1, "the id 4711", "antiphon dead list")
