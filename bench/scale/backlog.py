"""A backlog: orders that came while no process ran, and how it is worked off."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from pamqp import commands

from bench.antiphon import Antiphon
from bench.lean_amqp import Link
from bench.load import STALL, Stalled
from bench.processor import ProcessorTime, used_between
from bench.report import grid, number
from bench.rounds import FAILURES, in_words, new_place
from bench.scale.compare import SERVING
from bench.scale.seed import connect
from bench.services import order_placed, participants, watched
from bench.summary import MICRO
from bench.wire import COMMAND_OF, participant_queue

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bench.contender import Place
    from bench.database import Connection
    from bench.frames import Outgoing
    from bench.scale.compare import Scope

BURST = 500  # orders written to the broker at once
LOOK = 0.25  # seconds between two looks


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """How a backlog was worked off: in how many seconds from the start of the process, which was `ready` and had
    completed the `first` order after so many; all that were waiting are started before any reply is read.

    `cpu` is seconds by group of processes, for all of it. `longest` is the greatest number of messages seen in each
    queue and of rows in the outbox. With a problem the figures do not count.
    """

    orders: int
    seconds: float = 0.0
    ready: float = 0.0
    first: float = 0.0
    cpu: Mapping[str, float] = field(default_factory=dict)
    memory_mib: float | None = None
    longest: Mapping[str, int] = field(default_factory=dict)
    problems: Sequence[str] = ()

    @property
    def valid(self) -> bool:
        """Whether the figures count."""
        return not self.problems

    def page(self) -> Iterator[str]:
        """The figures in two lines, and what was wrong."""
        yield f"A backlog of {self.orders:,} orders, from the start of the process to the last one completed"
        heads = [
            "",
            "seconds",
            "ready after",
            "first after",
            "sagas/s",
            *(f"{group} us/saga" for group in SERVING),
            "highest MiB",
        ]
        used = (number(self.cpu[group] / self.orders * MICRO if group in self.cpu else None) for group in SERVING)
        rate = number(self.orders / self.seconds if self.seconds else None)
        yield from grid(
            heads,
            [
                [
                    "",
                    number(self.seconds, 1),
                    number(self.ready, 1),
                    number(self.first, 1),
                    rate,
                    *used,
                    number(self.memory_mib),
                ]
            ],
        )
        yield "  highest: " + ", ".join(f"{count:,} in {name}" for name, count in self.longest.items())
        yield from (f"  INVALID: {problem}" for problem in self.problems)
        yield ""

    def document(self) -> dict[str, object]:
        """As JSON can hold it."""
        return asdict(self)


async def backlog(scope: Scope, orders: int) -> Backlog:
    """Publish so many orders while no process runs, then start one. A failure is reported, not raised."""
    service = Antiphon(name="backlog")
    async with new_place(scope.servers, service.name) as place:
        try:
            return await _work_off(scope, service, place, [f"order-{one + 1}" for one in range(orders)])
        except FAILURES as error:
            return Backlog(orders=orders, problems=in_words(error))


async def _work_off(scope: Scope, service: Antiphon, place: Place, orders: Sequence[str]) -> Backlog:
    async with participants(service, place) as processes:
        await (await service.start(place)).end()  # it has declared its queues
        link, connection = await Link.open(place.broker_url), await connect(place)
        try:
            await _publish(link, [order_placed(service, place, order) for order in orders])
            seen = Watch(place=place, service=service, link=link, connection=connection)
            await seen.look()
            shared = {name: pids for name, pids in scope.servers.processes().items() if pids}
            ours = [connection.get_server_pid()]
            before, began = ProcessorTime(shared, without=ours).read(), time.perf_counter()
            async with watched(service, place, processes) as running:
                ready = time.perf_counter() - began
                meter = ProcessorTime({**shared, **running.groups}, without=[*ours, *running.observers])
                first = await seen.until_done(len(orders), meter) - began
                seconds, used = time.perf_counter() - began, meter.read()
                problems = await running.end(orders)
        finally:
            link.close()
            await connection.close()
    return Backlog(
        orders=len(orders),
        seconds=seconds,
        ready=ready,
        first=first,
        cpu=used_between({**dict.fromkeys(used, 0.0), **before}, used),
        memory_mib=seen.memory_mib,
        longest=dict(seen.longest),
        problems=problems,
    )


async def _publish(link: Link, orders: Sequence[Outgoing]) -> None:
    for begin in range(0, len(orders), BURST):
        for order in orders[begin : begin + BURST]:
            link.publish(order)
        link.flush()
        while link.unconfirmed:
            if link.lost.done():
                link.lost.result()
            await asyncio.sleep(0.001)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How many orders are completed, and how many messages wait where."""

    done: int = 0
    waiting: Mapping[str, int] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Watch:
    """Looks on while a backlog is worked off, and remembers the most of everything."""

    place: Place
    service: Antiphon
    link: Link
    connection: Connection
    memory_mib: float | None = None
    longest: Counter[str] = field(default_factory=Counter)

    async def until_done(self, orders: int, meter: ProcessorTime) -> float:
        """When the first order was seen completed, on the clock of `time.perf_counter`.

        Raises:
            Stalled: nothing moved for a long time.
        """
        first, seen, patience = 0.0, Look(), time.perf_counter() + STALL
        while seen.done < orders:
            before, seen = seen, await self.look()
            now = time.perf_counter()
            first = first or (now if seen.done else 0.0)
            self.memory_mib = max(meter.memory("orchestrator") or 0.0, self.memory_mib or 0.0) or None
            if seen != before:
                patience = now + STALL
            elif now > patience:
                raise Stalled(f"{seen.done} of {orders} orders are completed, and nothing moved for {STALL:g} s")
            await asyncio.sleep(LOOK)
        return first

    async def look(self) -> Look:
        """Count what waits where, and how many orders are completed."""
        namespace = self.place.namespace
        queues = [*self.service.queues(namespace), *(participant_queue(namespace, each) for each in COMMAND_OF)]
        waiting = {"the outbox": await self.service.unsent(self.connection, self.place)}
        for queue in queues:
            answer = await self.link.call(commands.Queue.Declare(queue=queue, passive=True))
            if isinstance(answer, commands.Queue.DeclareOk):
                waiting[queue.removeprefix(f"{namespace}.")] = answer.message_count or 0
        self.longest |= Counter(waiting)  # the greater of both
        done = await self.connection.fetchval("select count(*) from v_saga where ended_at is not null")
        return Look(done=int(done), waiting=waiting)
