"""The PostgreSQL and the RabbitMQ that the benchmark runs on: given ones, or private ones of its own.

Given by `ANTIPHON_TEST_DATABASE_URL` and `ANTIPHON_TEST_BROKER_URL`; private ones are durable and count statements
where PostgreSQL's contrib modules are installed.
"""

from __future__ import annotations

import os
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import asyncpg

from bench.contender import Place
from bench.database import durability_problems, fresh_database, read_work, statements_are_counted
from bench.lean_amqp import Link
from bench.processor import listeners
from bench.report import Conditions, conditions
from tests.services.private import PrivatePostgres, PrivateRabbitMQ

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping
    from pathlib import Path

    from bench.contender import Running
    from bench.database import Connection, Work
    from bench.ground import Meter


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """Where they are, in words and as URLs: the maintenance database and one vhost."""

    database_url: str
    broker_url: str
    origin: str

    def processes(self) -> dict[str, frozenset[int]]:
        """The server processes on this machine; empty sets when they are somewhere else."""
        return {"postgres": _local(self.database_url, 5432), "broker": _local(self.broker_url, 5672)}

    @asynccontextmanager
    async def place(self, namespace: str, folder: Path) -> AsyncIterator[Place]:
        """See `bench.ground.Ground.place`."""
        async with fresh_database(self.database_url, namespace) as url:
            yield Place(database_url=url, broker_url=self.broker_url, namespace=namespace, folder=folder)

    @asynccontextmanager
    async def meter(self, place: Place, running: Running) -> AsyncIterator[Meter]:
        """See `bench.ground.Ground.meter`."""
        connection = await asyncpg.connect(place.database_url)
        try:
            yield ServerMeter(connection, counts_statements=await statements_are_counted(connection))
        finally:
            await connection.close()


class ServerMeter:
    """What PostgreSQL has counted; see `bench.ground.Meter`."""

    def __init__(self, connection: Connection, *, counts_statements: bool) -> None:
        self._connection = connection
        self._counts_statements = counts_statements
        self.own = [connection.get_server_pid()]

    async def read(self) -> Work:
        """See `Meter.read`."""
        return await read_work(self._connection, counts_statements=self._counts_statements)


class NotDurable(RuntimeError):  # noqa: N818 - names the situation
    """The given PostgreSQL does not keep what it has committed, so its figures would mean nothing."""


async def known_conditions(servers: Servers) -> Conditions:
    """What a run on these servers is measured under.

    Raises:
        NotDurable: the database server may lose what it has committed.
    """
    database = await asyncpg.connect(servers.database_url)
    problems = await durability_problems(database)
    postgresql = str(await database.fetchval("show server_version")).split()[0]
    await database.close()
    if problems:
        raise NotDurable(f"the given PostgreSQL may lose what it has committed: {', '.join(problems)}; use another")
    broker = await Link.open(servers.broker_url)
    broker.close()
    return conditions(servers.origin, PostgreSQL=postgresql, RabbitMQ=broker.server_version)


class ManySchedulers(PrivateRabbitMQ):
    """With as many schedulers as the machine has processors, as in production; the tests' own has one."""

    def _environment(self) -> dict[str, str]:
        arguments = "-kernel inet_dist_use_interface {127,0,0,1}"
        return {**super()._environment(), "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": arguments}


@contextmanager
def open_servers(environment: Mapping[str, str] = os.environ) -> Iterator[Servers]:
    """The given servers, or private ones that end with the block."""
    database_url = environment.get("ANTIPHON_TEST_DATABASE_URL", "")
    broker_url = environment.get("ANTIPHON_TEST_BROKER_URL", "")
    with _postgres(database_url) as database, _rabbitmq(broker_url) as broker:
        origin = f"PostgreSQL {'given' if database_url else 'private'}, RabbitMQ {'given' if broker_url else 'private'}"
        yield Servers(database_url=database, broker_url=broker, origin=origin)


@contextmanager
def _postgres(given: str) -> Iterator[str]:
    if given:
        yield given
        return
    with PrivatePostgres(durable=True) as server:
        if server.psql("select 1 from pg_available_extensions where name = 'pg_stat_statements'"):
            server.psql("alter system set shared_preload_libraries = 'pg_stat_statements'")
            server.restart()
        yield server.url


@contextmanager
def _rabbitmq(given: str) -> Iterator[str]:
    if given:
        yield given
        return
    with ManySchedulers() as server:
        yield server.url


def _local(url: str, default_port: int) -> frozenset[int]:
    parts = urlsplit(url)
    if parts.hostname not in ("127.0.0.1", "localhost", "::1"):
        return frozenset()
    return listeners(parts.port or default_port)
