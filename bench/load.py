"""The load: places orders over plain AMQP and watches the contender's database for their completion."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bench import wire
from bench.database import Work, read_work
from bench.frames import Outgoing
from bench.processor import ProcessorTime, used_between

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.contenders import Contender, Place
    from bench.database import Connection
    from bench.lean_amqp import Link

WATCH_LOADED = 0.01, 0.02  # seconds between two looks with few and with many orders on their way
MANY = 100  # orders; a look costs more with each of them, and each of them takes longer
WATCH_IDLE = 0.001  # and while one is; the resolution of the idle latency
STALL = 30.0  # seconds without a single completion after which a contender is taken to be stuck


class Stalled(RuntimeError):  # noqa: N818 - names the situation
    """Orders are on their way and none has been completed for a long time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Steady:
    """What happened between the two ends of a measured stretch with a fixed number of orders on their way.

    `cpu` is seconds by group of processes; groups that could not be seen are missing.
    """

    in_flight: int
    seconds: float
    sagas: int
    latencies: Sequence[float]
    cpu: Mapping[str, float]
    work: Work


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mark:
    at: float
    sagas: int
    cpu: Mapping[str, float]
    work: Work


@dataclass(slots=True, kw_only=True)
class Load:
    """Places the orders of one round and remembers every one of them."""

    link: Link
    connection: Connection
    contender: Contender
    place: Place
    processor: ProcessorTime
    counts_statements: bool
    placed: list[str] = field(default_factory=list)
    completed: int = 0
    _under_way: dict[str, float] = field(default_factory=dict)

    async def idle(self, orders: int, most: float) -> list[float]:
        """Place one order at a time, the next when the last is done; the seconds each took.

        Ends early after `most` seconds, but not before ten orders.
        """
        latencies: list[float] = []
        until = time.perf_counter() + most
        while len(latencies) < orders and (len(latencies) < min(10, orders) or time.perf_counter() < until):
            self._place(1)
            latencies += await self._await_all(WATCH_IDLE)
        return latencies

    async def steady(self, in_flight: int, warm_up: float, seconds: float) -> Steady:
        """Keep `in_flight` orders on their way: warm up, measure for `seconds`, let the rest finish.

        Orders placed all at once would travel as one wave for ever, through queues that keep their order; so the
        first ones are spread over `warm_up` seconds. Then the warm-up lasts until each of them has made room for
        another.
        """
        turnover = self.completed + in_flight
        await self._ramp(in_flight, warm_up)
        await self._keep(in_flight, 0, turnover)
        before = await self._mark()
        latencies = await self._keep(in_flight, seconds, self.completed + in_flight)
        after = await self._mark()
        await self._await_all(_watch(in_flight))
        return Steady(
            in_flight=in_flight,
            seconds=after.at - before.at,
            sagas=after.sagas - before.sagas,
            latencies=latencies,
            cpu=used_between(before.cpu, after.cpu),
            work=after.work.since(before.work),
        )

    async def _ramp(self, in_flight: int, seconds: float) -> None:
        started = time.perf_counter()
        while (elapsed := time.perf_counter() - started) < seconds:
            self._place(math.ceil(in_flight * elapsed / seconds) - len(self._under_way))
            await self._glance(_watch(in_flight))

    async def _keep(self, in_flight: int, seconds: float, completions: int) -> list[float]:
        latencies: list[float] = []
        until = time.perf_counter() + seconds
        while time.perf_counter() < until or self.completed < completions:
            latencies += await self._look(_watch(in_flight))
            self._place(in_flight - len(self._under_way))
        return latencies

    async def _await_all(self, every: float) -> list[float]:
        latencies: list[float] = []
        while self._under_way:
            latencies += await self._look(every)
        return latencies

    async def _look(self, every: float) -> list[float]:
        """Wait for the next completions and return how long each took."""
        patience = time.perf_counter() + STALL
        while time.perf_counter() < patience:
            if done := await self._glance(every):
                return done
        raise Stalled(f"none of {len(self._under_way)} orders was completed for {STALL:g} s")

    async def _glance(self, every: float) -> list[float]:
        """Wait `every` seconds and return how long each order took that was found completed then."""
        await asyncio.sleep(every)
        if self.link.lost.done():
            self.link.lost.result()
        done = await self.contender.completed(self.connection, self.place, list(self._under_way))
        now = time.perf_counter()
        latencies = [now - self._under_way.pop(order) for order in done]
        self.completed += len(latencies)
        return latencies

    def _place(self, orders: int) -> None:
        for _ in range(orders):
            order = f"order-{len(self.placed) + 1}"
            self.link.publish(self._order_placed(order))
            self.placed.append(order)
            self._under_way[order] = time.perf_counter()
        self.link.flush()

    def _order_placed(self, order: str) -> Outgoing:
        return Outgoing(
            exchange=wire.events_exchange(self.place.namespace),
            routing_key=wire.ORDER_PLACED,
            body=wire.order_placed(order),
            name=wire.ORDER_PLACED,
            message_id=f"placed-{order}",
            app_id="shop",
            headers={"schema-version": 1},
        )

    async def _mark(self) -> _Mark:
        work = await read_work(self.connection, counts_statements=self.counts_statements)
        cpu = {**self.processor.read(), "load": time.process_time()}
        return _Mark(at=time.perf_counter(), sagas=self.completed, cpu=cpu, work=work)


def _watch(in_flight: int) -> float:
    few, many = WATCH_LOADED
    return many if in_flight > MANY else few
