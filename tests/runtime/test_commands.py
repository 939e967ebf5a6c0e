"""The commands that end: migrate, publish, dead; for people and as JSON."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import uuid
from typing import TYPE_CHECKING

import aio_pika
import pytest

from tests.crash.laboratory import before
from tests.crash.proxy.faults import call, cut
from tests.crash.proxy.postgres import PostgresParser
from tests.runtime.shop import SAGA
from tests.runtime.test_bad_input import assert_told

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.runtime.conftest import Command, Settings
    from tests.runtime.processes import Process


def test_migrate_brings_the_schema_up_once(antiphon: Command, fresh_database: Callable[[], str]) -> None:
    url = fresh_database()
    check = antiphon("migrate", "--check", database_url=url)
    assert (check.returncode, "antiphon migrate" in check.stdout) == (1, True)
    first, second = antiphon("migrate", database_url=url), antiphon("migrate", database_url=url)
    assert (first.returncode, second.returncode) == (0, 0)
    assert "brought from nothing" in first.stdout
    assert "is up to date" in second.stdout
    assert antiphon("migrate", "--check", database_url=url).returncode == 0


def test_migrate_checks_without_making_a_file(antiphon: Command, folder: Path) -> None:
    check = antiphon("migrate", "--check")
    assert check.returncode == 1
    assert f"there is no database file {folder / 'antiphon.db'}; " in check.stdout
    assert "antiphon migrate" in check.stdout
    assert list(folder.iterdir()) == []


def test_migrate_shows_the_sql_without_a_connection(antiphon: Command) -> None:
    shown = antiphon("migrate", "--sql", database_url="postgresql://nobody@127.0.0.1:1/x", namespace="shop")
    assert shown.returncode == 0
    assert "create view v_saga as" in shown.stdout
    refused = antiphon("migrate", "--sql")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "SQLite" in refused.stderr


ORDER = '{"order_id": "o-1", "customer_id": "c-1", "lines": [], "total": "1"}'


@pytest.mark.parametrize("command", [("sagas", "list"), ("dead", "list"), ("publish", "ordering.OrderPlaced", ORDER)])
def test_a_command_in_the_wrong_folder_makes_no_empty_database(
    antiphon: Command, folder: Path, command: tuple[str, ...]
) -> None:
    done = antiphon(*command, database_url="sqlite:///nowhere.db")
    assert done.returncode == 78
    assert f"there is no database file {folder / 'nowhere.db'}" in done.stderr
    assert not (folder / "nowhere.db").exists()


def test_publish_commits_one_message_under_its_id(antiphon: Command, folder: Path) -> None:
    (folder / "shop.py").write_text(SAGA)
    message_id = str(uuid.uuid4())
    assert antiphon("migrate").returncode == 0
    for _ in range(2):
        done = antiphon("publish", "tiny.Asked", '{"order_id": "1"}', "--message-id", message_id, modules="shop")
        assert (done.returncode, done.stdout.strip()) == (0, message_id)
    other = antiphon("publish", "tiny.Do", "-", stdin='{"order_id": "1"}', modules="shop")
    assert uuid.UUID(other.stdout.strip())
    lag = {each["check"]: each for each in json.loads(antiphon("doctor", "--json", modules="shop").stdout)["checks"]}
    assert lag["lag"]["detail"].startswith("2 messages in the outbox")


def test_publish_takes_bytes_as_they_are_and_refuses_those_that_are_no_text(antiphon: Command, folder: Path) -> None:
    (folder / "shop.py").write_text(SAGA)
    (folder / "latin").write_bytes('{"order_id": "M\u00fcller"}'.encode("latin-1"))
    (folder / "utf").write_bytes('{"order_id": "M\u00fcller"}'.encode())
    assert antiphon("migrate").returncode == 0
    command = [sys.executable, "-m", "runtime", "publish", "tiny.Asked", "-"]
    plain = {name: value for name, value in os.environ.items() if not name.startswith("ANTIPHON_")}
    for file, code, told in (("latin", 1, "antiphon: the body is not "), ("utf", 0, "")):
        with (folder / file).open("rb") as stdin:
            done = subprocess.run(
                command,
                cwd=folder,
                stdin=stdin,
                env={**plain, "ANTIPHON_MODULES": "shop"},
                capture_output=True,
                check=False,
            )
        assert (done.returncode, done.stderr[: len(told)].decode()) == (code, told), done.stderr
        assert b"Traceback" not in done.stderr


async def test_publish_says_how_to_go_on_when_nobody_knows_whether_it_was_kept(
    antiphon: Command, servers: Settings
) -> None:
    deciding: set[int] = set()
    message = ("publish", "tiny.Asked", '{"order_id": "1"}')
    async with before(servers["database_url"], PostgresParser) as wire:
        wire.rule(
            "pg.s2c.SELECT",
            call(lambda seen: deciding.add(seen.connection)),
            when=lambda seen: "insert into outbox" in seen.text("statement"),
        )
        wire.rule("pg.s2c.COMMIT", cut(), when=lambda seen: seen.connection in deciding)
        through = {**servers, "database_url": wire.through(servers["database_url"])}
        lost = await asyncio.to_thread(antiphon, *message, **through)
        wire.assert_fired()
    assert_told(lost, 69, "nobody knows whether message ", "publish it once more with --message-id ")
    remedy = lost.stderr.partition("once more with ")[2].partition(":")[0].split()
    again = antiphon(*message, *remedy, **servers)
    assert (again.returncode, again.stdout.split()) == (0, remedy[1:])
    lag = {
        each["check"]: each["detail"] for each in json.loads(antiphon("doctor", "--json", **servers).stdout)["checks"]
    }
    assert lag["lag"].startswith("1 message in the outbox")


async def test_a_message_nobody_can_process_is_listed_and_shown(
    antiphon: Command, started: Callable[..., Process], servers: Settings
) -> None:
    run = started("run", **servers)
    run.until("process.ready")
    connection = await aio_pika.connect(servers["broker_url"])
    async with connection:
        exchange = await (await connection.channel()).get_exchange(f"{servers['namespace']}.events")
        message = aio_pika.Message(
            b'{"order_id": 17}', message_id="odd-1", content_type="application/json", headers={"shop": "\x1b[31mred"}
        )
        await exchange.publish(message, "tiny.Asked")
    line = run.until("message.dead_lettered")
    assert (line["message_id"], line["reason"], line["name"]) == ("odd-1", "malformed", "tiny.Asked")

    [letter] = json.loads(antiphon("dead", "list", "--json", **servers).stdout)
    assert (letter["message_id"], letter["reason"], letter["status"]) == ("odd-1", "malformed", "open")
    assert "odd-1" not in antiphon("dead", "list", **servers).stderr
    shown = antiphon("dead", "show", str(letter["dead_letter_id"]), **servers).stdout
    for text in ("malformed", "order_id", "tiny.Asked", '"order_id": 17'):
        assert text in shown
    assert "\x1b" not in shown
    raw = json.loads(antiphon("dead", "show", str(letter["dead_letter_id"]), "--json", **servers).stdout)["raw"]
    assert raw["body"] == '{"order_id": 17}'

    examined = antiphon("doctor", **servers)
    assert examined.returncode == 1
    assert "1 message was dead-lettered" in examined.stdout
