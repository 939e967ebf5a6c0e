"""The contenders that speak the wire contract: services behind the broker, by hand here, Antiphon in `bench.antiphon`.

What they share is here: participants in processes of their own, orders placed over plain AMQP, completions read from
the contender's own tables.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import asyncpg
from pamqp import commands

from bench import wire
from bench.database import OURS
from bench.frames import Outgoing
from bench.lean_amqp import Link
from bench.processes import Child

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from bench.contender import Place, Running
    from bench.database import Connection

PATIENCE = 60.0  # seconds for a start
STARTING = 30.0  # seconds for a participant
SETTLING = 10.0  # seconds for an outbox to empty
NAMED = 3  # orders named in a problem; there may be thousands
WATCH_IDLE = 0.0005  # seconds between two looks while one order is on its way: the resolution of the idle latency
WATCH_LOADED = 0.01, 0.02  # and with few and with many
MANY = 100  # orders; a look costs more with each of them, and each of them takes longer


class Service(Protocol):
    """One service that takes orders from the broker and keeps its sagas in the database."""

    @property
    def name(self) -> str: ...

    def queues(self, namespace: str) -> Sequence[str]:
        """Those that it consumes."""
        ...

    def event(self, order: str) -> str:
        """The name of the event that starts the saga of this order."""
        ...

    async def start(self, place: Place) -> Child:
        """Start it, and wait until it takes orders.

        Raises:
            DidNotStart: it ended, or was not ready in time.
        """
        ...

    async def completed(self, connection: Connection, place: Place, orders: Sequence[str]) -> Sequence[str]:
        """Those of `orders` whose saga is committed as completed."""
        ...

    async def sagas(self, connection: Connection, place: Place) -> Sequence[tuple[str, str]]:
        """Every saga there is, as order and status; of those that the place had before the round, none."""
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
        participants = [child.pid for name, child in self.processes.items() if name in wire.COMMAND_OF]
        return {
            "orchestrator": [child.pid for name, child in self.processes.items() if name not in wire.COMMAND_OF],
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
            self.link.publish(order_placed(self.service, self.place_of, order))
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

    async def _outbox_problems(self) -> list[str]:
        """Confirmed rows may be deleted a little later, but they must be."""
        left = 0
        for _ in range(int(SETTLING / 0.1)):
            left = await self.service.unsent(self.connection, self.place_of)
            if not left:
                return []
            await asyncio.sleep(0.1)
        return [f"{left} messages still in the outbox {SETTLING:g} s after the last order was completed"]


def order_placed(service: Service, place: Place, order: str) -> Outgoing:
    """The event that starts the saga of an order."""
    name = service.event(order)
    return Outgoing(
        exchange=wire.events_exchange(place.namespace),
        routing_key=name,
        body=wire.order_placed(order),
        name=name,
        message_id=f"placed-{order}",
        app_id="shop",
        headers={"schema-version": 1},
    )


def _watch(under_way: int) -> float:
    few, many = WATCH_LOADED
    return WATCH_IDLE if under_way <= 1 else many if under_way > MANY else few


@asynccontextmanager
async def over_the_wire(service: Service, place: Place) -> AsyncIterator[Running]:
    """Start participants and service, on queues that are new; everything ends with the block."""
    async with participants(service, place) as processes, watched(service, place, processes) as running:
        yield running


@asynccontextmanager
async def watched(service: Service, place: Place, processes: dict[str, Child]) -> AsyncIterator[OverTheWire]:
    """Start the service beside the participants, among whose processes it ends."""
    processes[service.name] = await service.start(place)
    connection = await asyncpg.connect(place.database_url)
    link = await Link.open(place.broker_url)
    try:
        yield OverTheWire(service=service, place_of=place, link=link, connection=connection, processes=processes)
    finally:
        link.close()
        await connection.close()


@asynccontextmanager
async def participants(service: Service, place: Place) -> AsyncIterator[dict[str, Child]]:
    """The participants by name, on queues that are new; whatever is among them in the end ends with the block."""
    processes: dict[str, Child] = {}
    async with fresh_queues(place.broker_url, place.namespace, service.queues(place.namespace)):
        try:
            for name in wire.COMMAND_OF:
                processes[name] = await _participant(name, place)
            await asyncio.gather(*(child.line("ready", STARTING) for child in processes.values()))
            yield processes
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

    def queues(self, namespace: str) -> Sequence[str]:
        """See `Service.queues`."""
        return [wire.service_queue(namespace)]

    def event(self, _: str) -> str:
        """See `Service.event`."""
        return wire.ORDER_PLACED

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
async def fresh_queues(broker_url: str, namespace: str, consumed: Sequence[str]) -> AsyncIterator[None]:
    """The exchanges of the namespace, and nothing in them, before and after; `consumed` are queues of the service."""
    await _remove(broker_url, namespace, consumed)
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
        await _remove(broker_url, namespace, consumed)


async def _remove(broker_url: str, namespace: str, consumed: Sequence[str]) -> None:
    link = await Link.open(broker_url)
    queues = [wire.participant_queue(namespace, name) for name in wire.COMMAND_OF]
    for queue in (*queues, *consumed, wire.dead_exchange(namespace)):
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
