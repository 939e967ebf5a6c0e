"""One round: one contender, from fresh database and fresh queues to the check that it did what it was timed for."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import uuid
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
from pamqp import commands

from bench import wire
from bench.contenders import Place
from bench.database import fresh_database, statements_are_counted
from bench.lean_amqp import Link, LinkLost
from bench.load import Load, Stalled, Steady
from bench.processes import Child, DidNotStart
from bench.processor import ProcessorTime

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

    from bench.contenders import Contender
    from bench.servers import Servers

STARTING = 30.0  # seconds for a participant
SETTLING = 10.0  # seconds for an outbox to empty
NAMED = 3  # orders named in a problem; there may be thousands


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What every round does."""

    in_flight: Sequence[int] = (50, 200)
    seconds: float = 5.0
    warm_up: float = 2.0
    idle_orders: int = 100
    idle_seconds: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What one contender did in one round; with any problem its figures do not count."""

    contender: str
    number: int
    orders: int = 0
    idle: Sequence[float] = ()
    steady: Sequence[Steady] = ()
    problems: Sequence[str] = ()


async def run_round(contender: Contender, servers: Servers, plan: Plan, number: int) -> Round:
    """Start participants and contender, measure, stop them, check. A contender that fails is reported, not raised."""
    namespace = f"bench_{contender.name}_{uuid.uuid4().hex[:8]}"
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="antiphon-bench-")))
        database_url = await stack.enter_async_context(fresh_database(servers.database_url, namespace))
        place = Place(database_url=database_url, broker_url=servers.broker_url, namespace=namespace, folder=folder)
        await stack.enter_async_context(_fresh_queues(servers.broker_url, namespace))
        children: list[Child] = []
        stack.push_async_callback(_end, children)
        try:
            return await _measure(contender, servers, place, plan=plan, number=number, children=children)
        except (DidNotStart, Stalled, LinkLost, asyncpg.PostgresError) as error:
            words = [f"{child.name}:\n{child.last_words}" for child in children if not child.running]
            return Round(contender=contender.name, number=number, problems=[str(error), *words])


async def _measure(
    contender: Contender, servers: Servers, place: Place, *, plan: Plan, number: int, children: list[Child]
) -> Round:
    for name in wire.COMMAND_OF:
        children.append(await _participant(name, place))  # noqa: PERF401 - ended even if the next does not start
    await asyncio.gather(*(child.line("ready", STARTING) for child in children))
    service = await contender.start(place)
    participants = [child.pid for child in children]
    children.append(service)
    connection = await asyncpg.connect(place.database_url)
    link = await Link.open(place.broker_url)
    try:
        groups = {"orchestrator": [service.pid], "participants": participants, **servers.processes()}
        load = Load(
            link=link,
            connection=connection,
            contender=contender,
            place=place,
            processor=ProcessorTime(
                {name: pids for name, pids in groups.items() if pids}, without=[connection.get_server_pid()]
            ),
            counts_statements=await statements_are_counted(connection),
        )
        await load.idle(min(10, plan.idle_orders), plan.idle_seconds)  # connections, plans and caches are warm now
        idle = await load.idle(plan.idle_orders, plan.idle_seconds)
        steady = [await load.steady(many, plan.warm_up, plan.seconds) for many in plan.in_flight]
        problems = await _outbox_problems(load)
        await _end(children)
        sagas = await contender.sagas(connection, place)
    finally:
        link.close()
        await connection.close()
    ledgers = {name: json.loads(_ledger(place, name).read_text()) for name in wire.COMMAND_OF}
    problems += [*saga_problems(load.placed, sagas), *ledger_problems(load.placed, ledgers)]
    return Round(
        contender=contender.name, number=number, orders=len(load.placed), idle=idle, steady=steady, problems=problems
    )


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


async def _outbox_problems(load: Load) -> list[str]:
    """Confirmed rows may be deleted a little later, but they must be."""
    left = 0
    for _ in range(int(SETTLING / 0.1)):
        left = await load.contender.unsent(load.connection, load.place)
        if not left:
            return []
        await asyncio.sleep(0.1)
    return [f"{left} messages still in the outbox {SETTLING:g} s after the last order was completed"]


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


async def _end(children: Sequence[Child]) -> None:
    await asyncio.gather(*(child.end() for child in children))


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
