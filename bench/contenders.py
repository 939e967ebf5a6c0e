"""Who is measured: how each is started, when it is ready, and how one sees from outside that an order is done."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import urllib.error
import urllib.request
import uuid
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from bench.database import OURS
from bench.processes import Child, run_once

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.database import Connection

PATIENCE = 60.0  # seconds for a start


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where one round takes place: a database and a namespace of its own."""

    database_url: str
    broker_url: str
    namespace: str
    folder: Path


class Contender(Protocol):
    """One service that runs the ordering saga."""

    @property
    def name(self) -> str:
        """One word: as `--only` takes it."""
        ...

    @property
    def title(self) -> str:
        """As the report prints it."""
        ...

    async def start(self, place: Place) -> Child:
        """Start it as a process and wait until it takes orders.

        Raises:
            DidNotStart: it ended, or was not ready in time.
        """
        ...

    async def completed(self, connection: Connection, place: Place, orders: Sequence[str]) -> Sequence[str]:
        """Those of `orders` whose saga is committed as completed."""
        ...

    async def sagas(self, connection: Connection, place: Place) -> Sequence[tuple[str, str]]:
        """Every saga there is, as order and status."""
        ...

    async def unsent(self, connection: Connection, place: Place) -> int:
        """How many rows the outbox still has."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ByHand:
    """A hand-written service: a module of this package."""

    name: str
    title: str
    module: str

    async def start(self, place: Place) -> Child:
        """See `Contender.start`."""
        child = await Child.start(
            self.name,
            [
                *(sys.executable, "-m", self.module, "--database-url", place.database_url),
                *("--broker-url", place.broker_url, "--namespace", place.namespace),
            ],
            folder=place.folder,
        )
        await child.line("ready", PATIENCE)
        return child

    async def completed(self, connection: Connection, place: Place, orders: Sequence[str]) -> Sequence[str]:
        """See `Contender.completed`."""
        rows = await connection.fetch(
            f"select {OURS} order_id from saga where order_id = any($1) and status = 'completed'",  # noqa: S608
            list(orders),
        )
        return [row["order_id"] for row in rows]

    async def sagas(self, connection: Connection, place: Place) -> Sequence[tuple[str, str]]:
        """See `Contender.sagas`."""
        rows = await connection.fetch(f"select {OURS} order_id, status from saga")  # noqa: S608
        return [(row["order_id"], row["status"]) for row in rows]

    async def unsent(self, connection: Connection, place: Place) -> int:
        """See `Contender.unsent`."""
        return int(await connection.fetchval(f"select {OURS} count(*) from outbox"))  # noqa: S608


@dataclass(frozen=True, slots=True, kw_only=True)
class Antiphon:
    """The product as a user runs it: `antiphon migrate`, then `antiphon run`, seen through its views."""

    name: str = "antiphon"
    title: str = "Antiphon"

    async def start(self, place: Place) -> Child:
        """See `Contender.start`."""
        port = _free_port()
        settings = {
            "ANTIPHON_DATABASE_URL": place.database_url,
            "ANTIPHON_BROKER_URL": place.broker_url,
            "ANTIPHON_NAMESPACE": place.namespace,
            "ANTIPHON_HTTP_PORT": str(port),
            "ANTIPHON_LOG_LEVEL": "warning",
        }
        given = {name: value for name, value in os.environ.items() if not name.startswith("ANTIPHON_")}
        environment = {**given, **settings}
        command = _antiphon()
        await run_once("antiphon migrate", [*command, "migrate"], folder=place.folder, environment=environment)
        child = await Child.start(self.name, [*command, "run"], folder=place.folder, environment=environment)
        await child.until(lambda: _answers(f"http://127.0.0.1:{port}/readyz"), PATIENCE)
        return child

    async def completed(self, connection: Connection, place: Place, orders: Sequence[str]) -> Sequence[str]:
        """See `Contender.completed`."""
        rows = await connection.fetch(
            f"select {OURS} business_key from {place.namespace}.v_saga "  # noqa: S608
            "where saga_id = any($1) and status = 'completed'",
            [_saga_id(place.namespace, order) for order in orders],
        )
        return [row["business_key"] for row in rows]

    async def sagas(self, connection: Connection, place: Place) -> Sequence[tuple[str, str]]:
        """See `Contender.sagas`."""
        rows = await connection.fetch(
            f"select {OURS} business_key, status from {place.namespace}.v_saga"  # noqa: S608
        )
        return [(row["business_key"], row["status"]) for row in rows]

    async def unsent(self, connection: Connection, place: Place) -> int:
        """See `Contender.unsent`."""
        return int(
            await connection.fetchval(f"select {OURS} count(*) from {place.namespace}.v_outbox")  # noqa: S608
        )


CONTENDERS: dict[str, Contender] = {
    contender.name: contender
    for contender in (
        Antiphon(),
        ByHand(name="asyncpg", title="by hand: aio-pika + asyncpg", module="bench.by_hand_asyncpg"),
        ByHand(name="orm", title="by hand: aio-pika + SQLAlchemy ORM", module="bench.by_hand_orm"),
    )
}


@cache  # it is asked for at every look
def _saga_id(namespace: str, order: str) -> uuid.UUID:
    """As the documentation promises it."""
    return uuid.uuid5(uuid.uuid5(uuid.NAMESPACE_DNS, "antiphon"), f"{namespace}/PlaceOrder/{order}/1")


def _antiphon() -> list[str]:
    """The installed command of this environment, or the same from the source tree."""
    installed = Path(sys.executable).with_name("antiphon")
    return [str(installed)] if installed.exists() else [sys.executable, "-c", "from runtime.cli import main; main()"]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def _answers(url: str) -> bool:
    def ask() -> bool:
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - our own address
                return bool(answer.status == 200)
        except OSError:
            return False

    return await asyncio.to_thread(ask)
