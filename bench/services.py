"""The contenders that speak the wire contract: Antiphon itself, and services written by hand, each behind the broker.

What they share is here: participants in processes of their own, orders placed over plain AMQP, completions read from
the contender's own tables.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import urllib.error
import urllib.request
import uuid
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import asyncpg
from pamqp import commands

from bench import wire
from bench.database import OURS
from bench.frames import Outgoing
from bench.lean_amqp import Link
from bench.processes import Child, run_once

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from bench.contender import Place, Running
    from bench.database import Connection

PATIENCE = 60.0  # seconds for a start
STARTING = 30.0  # seconds for a participant
SETTLING = 10.0  # seconds for an outbox to empty
NAMED = 3  # orders named in a problem; there may be thousands
WATCH_IDLE = 0.001  # seconds between two looks while one order is on its way: the resolution of the idle latency
WATCH_LOADED = 0.01, 0.02  # and with few and with many
MANY = 100  # orders; a look costs more with each of them, and each of them takes longer


class Service(Protocol):
    """One service that takes orders from the broker and keeps its sagas in the database."""

    @property
    def name(self) -> str: ...

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


@dataclass(slots=True, kw_only=True)
class OverTheWire:
    """See `bench.contender.Running`: a service with its participants, orders over AMQP, completions from its tables."""

    service: Service
    place_of: Place
    link: Link
    connection: Connection
    processes: dict[str, Child]
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def groups(self) -> Mapping[str, Sequence[int]]:
        """See `Running.groups`."""
        participants = [child.pid for name, child in self.processes.items() if name != self.service.name]
        return {
            "orchestrator": [self.processes[self.service.name].pid],
            "participants": participants,
            "server": [],
        }

    @property
    def observers(self) -> Sequence[int]:
        """See `Running.observers`."""
        return [self.connection.get_server_pid()]

    def place(self, orders: Sequence[str]) -> None:
        """See `Running.place`."""
        for order in orders:
            self.link.publish(self._order_placed(order))
        self.link.flush()

    async def glance(self, under_way: Sequence[str]) -> Sequence[str]:
        """See `Running.glance`."""
        await asyncio.sleep(_watch(len(under_way)))
        if self.link.lost.done():
            self.link.lost.result()
        return await self.service.completed(self.connection, self.place_of, list(under_way))

    async def end(self, placed: Sequence[str]) -> Sequence[str]:
        """See `Running.end`."""
        problems = await self._outbox_problems()
        await asyncio.gather(*(child.end() for child in self.processes.values()))
        sagas = await self.service.sagas(self.connection, self.place_of)
        ledgers = {name: json.loads(_ledger(self.place_of, name).read_text()) for name in wire.COMMAND_OF}
        return [*problems, *saga_problems(placed, sagas), *ledger_problems(placed, ledgers)]

    def _order_placed(self, order: str) -> Outgoing:
        return Outgoing(
            exchange=wire.events_exchange(self.place_of.namespace),
            routing_key=wire.ORDER_PLACED,
            body=wire.order_placed(order),
            name=wire.ORDER_PLACED,
            message_id=f"placed-{order}",
            app_id="shop",
            headers={"schema-version": 1},
        )

    async def _outbox_problems(self) -> list[str]:
        """Confirmed rows may be deleted a little later, but they must be."""
        left = 0
        for _ in range(int(SETTLING / 0.1)):
            left = await self.service.unsent(self.connection, self.place_of)
            if not left:
                return []
            await asyncio.sleep(0.1)
        return [f"{left} messages still in the outbox {SETTLING:g} s after the last order was completed"]


def _watch(under_way: int) -> float:
    few, many = WATCH_LOADED
    return WATCH_IDLE if under_way <= 1 else many if under_way > MANY else few


@asynccontextmanager
async def over_the_wire(service: Service, place: Place) -> AsyncIterator[Running]:
    """Start participants and service, on queues that are new; everything ends with the block."""
    processes: dict[str, Child] = {}
    async with _fresh_queues(place.broker_url, place.namespace):
        try:
            for name in wire.COMMAND_OF:
                processes[name] = await _participant(name, place)
            await asyncio.gather(*(child.line("ready", STARTING) for child in processes.values()))
            processes[service.name] = await service.start(place)
            connection = await asyncpg.connect(place.database_url)
            link = await Link.open(place.broker_url)
            try:
                yield OverTheWire(
                    service=service, place_of=place, link=link, connection=connection, processes=processes
                )
            finally:
                link.close()
                await connection.close()
        except BaseException as error:
            for child in processes.values():
                if not child.running:
                    error.add_note(f"{child.name}:\n{child.last_words}")
            raise
        finally:
            await asyncio.gather(*(child.end() for child in processes.values()))


@dataclass(frozen=True, slots=True, kw_only=True)
class ByHand:
    """A hand-written service: a module of this package."""

    name: str
    title: str
    module: str

    def open(self, place: Place) -> AbstractAsyncContextManager[Running]:
        """See `bench.contender.Contender.open`."""
        return over_the_wire(self, place)

    async def start(self, place: Place) -> Child:
        """See `Service.start`."""
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
        """See `Service.completed`."""
        rows = await connection.fetch(
            f"select {OURS} order_id from saga where order_id = any($1) and status = 'completed'",  # noqa: S608
            list(orders),
        )
        return [row["order_id"] for row in rows]

    async def sagas(self, connection: Connection, place: Place) -> Sequence[tuple[str, str]]:
        """See `Service.sagas`."""
        rows = await connection.fetch(f"select {OURS} order_id, status from saga")  # noqa: S608
        return [(row["order_id"], row["status"]) for row in rows]

    async def unsent(self, connection: Connection, place: Place) -> int:
        """See `Service.unsent`."""
        return int(await connection.fetchval(f"select {OURS} count(*) from outbox"))  # noqa: S608


@dataclass(frozen=True, slots=True, kw_only=True)
class Antiphon:
    """The product as a user runs it: `antiphon migrate`, then `antiphon run`, seen through its views."""

    name: str = "antiphon"
    processes: int = 1

    @property
    def title(self) -> str:
        return "Antiphon" if self.processes == 1 else f"Antiphon, {self.processes} processes"

    def open(self, place: Place) -> AbstractAsyncContextManager[Running]:
        """See `bench.contender.Contender.open`."""
        return over_the_wire(self, place)

    async def start(self, place: Place) -> Child:
        """See `Service.start`."""
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
        run = [*command, "run", "--processes", str(self.processes)]
        child = await Child.start(self.name, run, folder=place.folder, environment=environment)
        await child.until(lambda: _answers(f"http://127.0.0.1:{port}/readyz"), PATIENCE)
        return child

    async def completed(self, connection: Connection, place: Place, orders: Sequence[str]) -> Sequence[str]:
        """See `Service.completed`."""
        rows = await connection.fetch(
            f"select {OURS} business_key from {place.namespace}.v_saga "  # noqa: S608
            "where saga_id = any($1) and status = 'completed'",
            [_saga_id(place.namespace, order) for order in orders],
        )
        return [row["business_key"] for row in rows]

    async def sagas(self, connection: Connection, place: Place) -> Sequence[tuple[str, str]]:
        """See `Service.sagas`."""
        rows = await connection.fetch(
            f"select {OURS} business_key, status from {place.namespace}.v_saga"  # noqa: S608
        )
        return [(row["business_key"], row["status"]) for row in rows]

    async def unsent(self, connection: Connection, place: Place) -> int:
        """See `Service.unsent`."""
        return int(
            await connection.fetchval(f"select {OURS} count(*) from {place.namespace}.v_outbox")  # noqa: S608
        )


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


def saga_problems(placed: Sequence[str], sagas: Iterable[tuple[str, str]]) -> list[str]:
    """What contradicts that every order has exactly one saga, and that it is completed."""
    seen = Counter(order for order, _ in sagas)
    unfinished = [order for order, status in sagas if status != "completed"]
    wrong = {
        "without a saga": [order for order in placed if order not in seen],
        "with several sagas": [order for order, sagas_of_it in seen.items() if sagas_of_it > 1],
        "not completed": unfinished,
        "never placed": sorted(seen.keys() - set(placed)),
    }
    return [_problem(what, orders) for what, orders in wrong.items() if orders]


def ledger_problems(placed: Sequence[str], ledgers: Mapping[str, Mapping[str, Mapping[str, int]]]) -> list[str]:
    """What contradicts that every participant saw the command of every order, under one id, once or more."""
    problems = []
    for name, ledger in ledgers.items():
        missing = [order for order in placed if order not in ledger]
        doubled = [order for order, ids in ledger.items() if len(ids) > 1]
        if missing:
            problems.append(_problem(f"of which {name} never heard", missing))
        if doubled:
            problems.append(_problem(f"for which {name} got several commands", doubled))
    return problems


def _problem(what: str, orders: Sequence[str]) -> str:
    named = ", ".join(orders[:NAMED])
    return f"{len(orders)} orders {what}: {named}{', ...' if len(orders) > NAMED else ''}"


async def _participant(name: str, place: Place) -> Child:
    return await Child.start(
        name,
        [
            *(sys.executable, "-m", "bench.participant", "--name", name, "--broker-url", place.broker_url),
            *("--namespace", place.namespace, "--ledger", str(_ledger(place, name))),
        ],
        folder=place.folder,
    )


def _ledger(place: Place, name: str) -> Path:
    return place.folder / f"{name}.json"


@asynccontextmanager
async def _fresh_queues(broker_url: str, namespace: str) -> AsyncIterator[None]:
    """The exchanges of the namespace, and nothing in them, before and after."""
    await _remove(broker_url, namespace)
    link = await Link.open(broker_url)
    for exchange, kind in _exchanges(namespace).items():
        await link.declare(exchange, kind=kind)
    dead = wire.dead_exchange(namespace)
    await link.call(commands.Queue.Declare(queue=dead, durable=True, arguments={"x-queue-type": "quorum"}))
    await link.call(commands.Queue.Bind(queue=dead, exchange=dead))
    link.close()
    try:
        yield
    finally:
        await _remove(broker_url, namespace)


async def _remove(broker_url: str, namespace: str) -> None:
    link = await Link.open(broker_url)
    queues = [wire.participant_queue(namespace, name) for name in wire.COMMAND_OF]
    queues += [wire.service_queue(namespace), wire.saga_queue(namespace), wire.dead_exchange(namespace)]
    for queue in queues:
        await link.call(commands.Queue.Delete(queue=queue))
    for exchange in _exchanges(namespace):
        await link.call(commands.Exchange.Delete(exchange=exchange))
    link.close()


def _exchanges(namespace: str) -> dict[str, str]:
    return {
        wire.events_exchange(namespace): "topic",
        wire.commands_exchange(namespace): "topic",
        wire.dead_exchange(namespace): "fanout",
    }
