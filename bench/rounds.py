"""One round: one contender, from fresh database and fresh queues to the check that it did what it was timed for."""

from __future__ import annotations

import tempfile
import uuid
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import asyncpg

from bench.contender import Unavailable
from bench.load import Load, Stalled, Steady
from bench.processes import DidNotStart
from bench.processor import ProcessorTime

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from bench.contender import Contender, Place
    from bench.ground import Ground


_Any = TypeVar("_Any")


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
    """What one contender did in one round; with any problem its figures do not count.

    `unavailable` says why it cannot be had here, and is no problem.
    """

    contender: str
    number: int
    orders: int = 0
    idle: Sequence[float] = ()
    steady: Sequence[Steady] = ()
    problems: Sequence[str] = ()
    unavailable: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)


async def run_round(contender: Contender, ground: Ground, plan: Plan, number: int) -> Round:
    """Start the contender, measure, stop it, check. One that fails is reported, not raised."""
    async with new_place(ground, contender.name) as place:
        return await run_round_at(place, contender, ground, plan, number)


@asynccontextmanager
async def new_place(ground: Ground, name: str) -> AsyncIterator[Place]:
    """An empty database and a folder, gone with the block, and a namespace that nobody else has."""
    namespace = f"bench_{name}_{uuid.uuid4().hex[:8]}"
    with tempfile.TemporaryDirectory(prefix="antiphon-bench-") as folder:
        async with ground.place(namespace, Path(folder)) as place:
            yield place


async def run_round_at(place: Place, contender: Contender, ground: Ground, plan: Plan, number: int) -> Round:
    """As `run_round`, at a place that is there already."""
    try:
        return await _measure(contender, ground, place, plan=plan, number=number)
    except Unavailable as error:
        return Round(contender=contender.name, number=number, unavailable=str(error))
    except FAILURES as error:
        return Round(contender=contender.name, number=number, problems=in_words(error))


FAILURES = (DidNotStart, Stalled, ConnectionError, asyncpg.PostgresError)
"""What makes a round invalid, and is no fault of the benchmark."""


def in_words(failure: BaseException) -> list[str]:
    """What went wrong, and the last words of the processes that ended of it."""
    return [str(failure), *getattr(failure, "__notes__", ())]


async def _measure(contender: Contender, ground: Ground, place: Place, *, plan: Plan, number: int) -> Round:
    async with contender.open(place) as running, ground.meter(place, running) as meter:
        shared = {name: pids for name, pids in ground.processes().items() if pids}
        load = Load(
            running=running,
            meter=meter,
            processor=ProcessorTime({**shared, **running.groups}, without=[*meter.own, *running.observers]),
            orders=place.orders,
        )
        await load.idle(min(10, plan.idle_orders), plan.idle_seconds)  # connections, plans, caches are warm now
        idle = await load.idle(plan.idle_orders, plan.idle_seconds)
        steady = [await load.steady(many, plan.warm_up, plan.seconds) for many in plan.in_flight]
        problems = await running.end(load.placed)
    return Round(
        contender=contender.name,
        number=number,
        orders=len(load.placed),
        idle=idle,
        steady=steady,
        problems=problems,
        versions=running.versions,
    )


def turned(contenders: Sequence[_Any], number: int) -> list[_Any]:
    """Each round begins with another one, so that none always runs on the coldest or the fullest server."""
    turn = number % len(contenders)
    return [*contenders[turn:], *contenders[:turn]]


def tell(one: Round) -> None:
    """Print what one round measured, for whoever waits."""
    rates = ", ".join(f"{level.sagas / level.seconds:.0f} sagas/s at {level.in_flight}" for level in one.steady)
    print(
        f"round {one.number} {one.contender}: {rates or 'nothing measured'}{' INVALID' if one.problems else ''}",
        flush=True,
    )
