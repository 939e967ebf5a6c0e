"""The services themselves: where they are looked for, that each test has its own, that nothing stays behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import aio_pika
import psycopg
import pytest

from tests.services import containers
from tests.services.binaries import NotInstalledError, install
from tests.services.discovery import (
    BROKER_VARIABLE,
    DATABASE_VARIABLE,
    UnreachableError,
    offer_postgres,
    offer_rabbitmq,
)
from tests.services.private import free_port
from tests.services.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.services.private import PrivatePostgres, PrivateRabbitMQ

ROOT = Path(__file__).parents[2]

OWNER = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a run in the background was born deaf to it
from tests.services.keeping import POSTGRES, ask, kept
from tests.services.private import PrivatePostgres

with kept(), PrivatePostgres() as server:
    print(ask(POSTGRES).url, server.url, flush=True)
    input()
"""


def test_each_fresh_database_is_empty_and_another_one(fresh_database: Callable[[], str]) -> None:
    first, second = fresh_database(), fresh_database()
    assert first != second
    for url in (first, second):
        with psycopg.connect(url) as connection:
            found = connection.execute("select count(*) from pg_tables where schemaname = 'public'").fetchone()
        assert found == (0,)


def test_the_workers_database_can_be_written(postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as connection:
        connection.execute("create temporary table probe (n int)")
        connection.execute("insert into probe values (1)")


async def test_the_workers_vhost_takes_quorum_queues(rabbitmq_url: str, namespace: str) -> None:
    async with await aio_pika.connect(rabbitmq_url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(f"{namespace}.q", durable=True, arguments={"x-queue-type": "quorum"})
        await channel.default_exchange.publish(aio_pika.Message(b"hello"), queue.name)
        message = await queue.get(timeout=10)
        assert message is not None
        assert message.body == b"hello"
        await message.ack()
        await queue.delete(if_unused=False, if_empty=False)


def test_a_database_given_by_url_is_not_replaced_by_another_when_it_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DATABASE_VARIABLE, f"postgresql://postgres@127.0.0.1:{free_port()}/postgres")
    with ExitStack() as ending, pytest.raises(UnreachableError, match=DATABASE_VARIABLE):
        offer_postgres(ending)


def test_a_broker_given_by_url_is_not_replaced_by_another_when_it_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BROKER_VARIABLE, f"amqp://guest:guest@127.0.0.1:{free_port()}/")
    with ExitStack() as ending, pytest.raises(UnreachableError, match=BROKER_VARIABLE):
        offer_rabbitmq(ending)


def test_a_docker_client_without_an_engine_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{free_port()}")
    assert not containers.engine_answers()


def test_a_killed_postgres_comes_back_with_what_was_committed(private_postgres: PrivatePostgres) -> None:
    url = private_postgres.database()
    database = url.rpartition("/")[2]
    private_postgres.psql("create table kept as select 42 as answer", database=database)
    private_postgres.kill()
    assert not private_postgres.running
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url, connect_timeout=5)
    private_postgres.start()
    assert private_postgres.psql("select answer from kept", database=database) == [(42,)]


async def test_a_killed_broker_comes_back_with_confirmed_messages(private_rabbitmq: PrivateRabbitMQ) -> None:
    async with await aio_pika.connect(private_rabbitmq.url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue("kept", durable=True, arguments={"x-queue-type": "quorum"})
        message = aio_pika.Message(b"still here", delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        await channel.default_exchange.publish(message, queue.name)
    private_rabbitmq.settle()
    private_rabbitmq.restart(graceful=False)
    async with await aio_pika.connect(private_rabbitmq.url) as connection:
        queue = await (await connection.channel()).get_queue("kept")
        async with asyncio.timeout(30), queue.iterator(no_ack=True) as messages:
            found = await anext(messages)
    assert found.body == b"still here"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_server_outlives_a_test_run_that_is_stopped(number: signal.Signals) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANTIPHON_TEST_")}
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with owner:
        assert owner.stdout is not None
        urls = owner.stdout.readline().split()
        assert len(urls) == 2
        assert all(map(_answers, urls))
        owner.send_signal(number)
        owner.wait(timeout=60)
        until(lambda: not any(map(_answers, urls)), timeout=60, what=f"the servers to stop after {number.name}")


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True


def test_where_nothing_can_be_installed_the_reader_is_told_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no apt-get on it
    with pytest.raises(NotInstalledError, match="apt-get install postgresql rabbitmq-server"):
        install("postgresql")
