"""The load: keeps orders on their way with one contender and measures how they fare."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bench.processor import ProcessorTime, used_between

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.contender import Running
    from bench.database import Work
    from bench.ground import Meter

CALM = 0.8  # of the shortest time that any took: until then nobody looks, for each look takes from the processor
STALL = 30.0  # seconds without a single completion after which a contender is taken to be stuck


class Stalled(RuntimeError):  # noqa: N818 - names the situation
    """Orders are on their way and none has been completed for a long time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Steady:
    """What happened between the two ends of a measured stretch with a fixed number of orders on their way.

    `cpu` is seconds by group of processes; groups that could not be seen are missing. `memory_mib` is what the
    orchestrating processes held at the end.
    """

    in_flight: int
    seconds: float
    sagas: int
    latencies: Sequence[float]
    cpu: Mapping[str, float]
    work: Work
    memory_mib: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mark:
    at: float
    sagas: int
    cpu: Mapping[str, float]
    work: Work


@dataclass(slots=True, kw_only=True)
class Load:
    """Places the orders of one round, called `orders` with a number behind, and remembers every one of them."""

    running: Running
    meter: Meter
    processor: ProcessorTime
    orders: str = "order"
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
            await asyncio.sleep(CALM * min(latencies, default=0.0))
            latencies += await self._await_all()
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
        memory = self.processor.memory("orchestrator")
        await self._await_all()
        return Steady(
            in_flight=in_flight,
            seconds=after.at - before.at,
            sagas=after.sagas - before.sagas,
            latencies=latencies,
            cpu=used_between(before.cpu, after.cpu),
            work=after.work.since(before.work),
            memory_mib=memory,
        )

    async def _ramp(self, in_flight: int, seconds: float) -> None:
        started = time.perf_counter()
        while (elapsed := time.perf_counter() - started) < seconds:
            self._place(math.ceil(in_flight * elapsed / seconds) - len(self._under_way))
            await self._glance()

    async def _keep(self, in_flight: int, seconds: float, completions: int) -> list[float]:
        latencies: list[float] = []
        until = time.perf_counter() + seconds
        while time.perf_counter() < until or self.completed < completions:
            self._place(in_flight - len(self._under_way))
            latencies += await self._look()
        return latencies

    async def _await_all(self) -> list[float]:
        latencies: list[float] = []
        while self._under_way:
            latencies += await self._look()
        return latencies

    async def _look(self) -> list[float]:
        """Wait for the next completions and return how long each took."""
        patience = time.perf_counter() + STALL
        while time.perf_counter() < patience:
            if done := await self._glance():
                return done
        raise Stalled(f"none of {len(self._under_way)} orders was completed for {STALL:g} s")

    async def _glance(self) -> list[float]:
        """How long each order took that was found completed just now."""
        done = await self.running.glance(list(self._under_way))
        now = time.perf_counter()
        latencies = [now - self._under_way.pop(order) for order in done]
        self.completed += len(latencies)
        return latencies

    def _place(self, orders: int) -> None:
        named = [f"{self.orders}-{len(self.placed) + 1 + number}" for number in range(orders)]
        if named:
            self._under_way |= dict.fromkeys(named, time.perf_counter())
            self.placed += named
            self.running.place(named)

    async def _mark(self) -> _Mark:
        work = await self.meter.read()
        cpu = self.processor.read()
        cpu["load"] = cpu.get("load", 0.0) + time.process_time()
        return _Mark(at=time.perf_counter(), sagas=self.completed, cpu=cpu, work=work)
