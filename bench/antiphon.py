"""Antiphon as a contender: `antiphon migrate`, then `antiphon run`, seen through its views.

With other saga types, more than one process, or a database that has long been in use where a benchmark asks for that.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import urllib.request
import uuid
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from bench import wire
from bench.database import OURS
from bench.processes import Child, run_once
from bench.services import PATIENCE, over_the_wire

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from bench.contender import Place, Running
    from bench.database import Connection


MODULES = ("messages.catalog.ordering", "sagas.catalog.ordering", "handlers.catalog.ordering")
"""The one process that is measured, out of the catalogs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SagaType:
    """A saga type that orders start, and the name of the event by which they do."""

    name: str
    event: str


PLACE_ORDER = SagaType(name="PlaceOrder", event=wire.ORDER_PLACED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Antiphon:
    """The product as a user runs it, with default settings but for addresses, log level and what is said here.

    Orders go to `types` in turn, by the number at the end of their names; `environment` says where those are defined.
    So many `processes` share the work.
    """

    name: str = "antiphon"
    title: str = "Antiphon"
    types: Sequence[SagaType] = (PLACE_ORDER,)
    environment: Mapping[str, str] = field(default_factory=dict)
    processes: int = 1

    def open(self, place: Place) -> AbstractAsyncContextManager[Running]:
        """See `bench.contender.Contender.open`."""
        return over_the_wire(self, place)

    def queues(self, namespace: str) -> Sequence[str]:
        """See `bench.services.Service.queues`."""
        return [wire.saga_queue(namespace, each.name) for each in self.types]

    def event(self, order: str) -> str:
        """See `bench.services.Service.event`."""
        return self._type_of(order).event

    async def start(self, place: Place) -> Child:
        """See `bench.services.Service.start`. A place that was in use before the round has its tables."""
        if place.since is None:
            await self.command(place, "migrate")
        port = _free_port()
        environment = {**self._environment(place), "ANTIPHON_HTTP_PORT": str(port)}
        run = [*_antiphon(), "run", "--processes", str(self.processes)]
        child = await Child.start(self.name, run, folder=place.folder, environment=environment)
        await child.until(lambda: _answers(f"http://127.0.0.1:{port}/readyz"), PATIENCE)
        return child

    async def command(self, place: Place, *words: str) -> None:
        """Run `antiphon WORDS` to its end.

        Raises:
            DidNotStart: it ended with anything but 0.
        """
        await run_once(
            f"antiphon {words[0]}",
            [*_antiphon(), *words],
            folder=place.folder,
            environment=self._environment(place),
        )

    def _environment(self, place: Place) -> Mapping[str, str]:
        given = {name: value for name, value in os.environ.items() if not name.startswith("ANTIPHON_")}
        return {
            **given,
            "ANTIPHON_DATABASE_URL": place.database_url,
            "ANTIPHON_BROKER_URL": place.broker_url,
            "ANTIPHON_NAMESPACE": place.namespace,
            "ANTIPHON_LOG_LEVEL": "warning",
            "ANTIPHON_MODULES": ",".join(MODULES),
            **self.environment,
        }

    async def completed(self, connection: Connection, place: Place, orders: Sequence[str]) -> Sequence[str]:
        """See `bench.services.Service.completed`."""
        rows = await connection.fetch(
            f"select {OURS} business_key from {place.namespace}.v_saga "  # noqa: S608
            "where saga_id = any($1) and status = 'completed'",
            [_saga_id(place.namespace, self._type_of(order).name, order) for order in orders],
        )
        return [row["business_key"] for row in rows]

    async def sagas(self, connection: Connection, place: Place) -> Sequence[tuple[str, str]]:
        """See `bench.services.Service.sagas`."""
        rows = await connection.fetch(
            f"select {OURS} business_key, status from {place.namespace}.v_saga "  # noqa: S608
            "where $1::timestamptz is null or started_at >= $1",
            place.since,
        )
        return [(row["business_key"], row["status"]) for row in rows]

    async def unsent(self, connection: Connection, place: Place) -> int:
        """See `bench.services.Service.unsent`."""
        return int(
            await connection.fetchval(f"select {OURS} count(*) from {place.namespace}.v_outbox")  # noqa: S608
        )

    def _type_of(self, order: str) -> SagaType:
        return self.types[int(order.rpartition("-")[2]) % len(self.types)]


@cache  # it is asked for at every look
def _saga_id(namespace: str, saga_type: str, order: str) -> uuid.UUID:
    """As the documentation promises it."""
    return uuid.uuid5(uuid.uuid5(uuid.NAMESPACE_DNS, "antiphon"), f"{namespace}/{saga_type}/{order}/1")


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
