"""The parts that compare sizes: instances that wait, saga types, processes."""

from __future__ import annotations

from contextlib import AsyncExitStack
from datetime import timedelta
from typing import TYPE_CHECKING

from bench.antiphon import Antiphon, SagaType
from bench.rounds import new_place
from bench.scale import ordering, seed
from bench.scale.compare import Case, Comparison, compare

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.contender import Place
    from bench.scale.compare import Scope

DAY, FAR = timedelta(days=1), timedelta(days=60)


async def waiting(scope: Scope, sizes: Sequence[int]) -> Comparison:
    """The usual orders beside so many instances that wait, each size in a database of its own, seeded once."""
    cases = []
    async with AsyncExitStack() as stack:
        for size in sizes:
            place = await stack.enter_async_context(new_place(scope.servers, f"waiting_{size}"))
            service = Antiphon(name=f"waiting_{size}", title=f"{size:,} waiting")
            await _plant_waiting(service, place, size)
            cases.append(Case(service=service, place=place))
        return await compare(_titled("Instances that wait", scope), cases, scope, scope.rounds_or(5))


async def _plant_waiting(service: Antiphon, place: Place, size: int) -> None:
    of = await seed.waiting(service, place)
    await seed.plant(place, seed.Copies(of=of, times=dict.fromkeys(of, size), past=DAY, ahead=FAR))
    print(f"{size} instances wait in {place.namespace}", flush=True)


async def types(scope: Scope, sizes: Sequence[int]) -> Comparison:
    """The same number of orders in flight, dealt out to so many saga types."""
    cases = [Case(service=_of_types(size)) for size in sizes]
    return await compare(_titled("Saga types", scope), cases, scope, scope.rounds_or(3))


def _of_types(size: int) -> Antiphon:
    numbers = range(1, size + 1)
    return Antiphon(
        name=f"types_{size}",
        title=f"{size} type{_s(size)}",
        types=[SagaType(name=ordering.name_of(each), event=ordering.event_of(each)) for each in numbers],
        environment={"ANTIPHON_MODULES": ordering.__name__, ordering.VARIABLE: str(size)},
    )


async def processes(scope: Scope, sizes: Sequence[int]) -> Comparison:
    """The same number of orders in flight, shared by so many processes."""
    cases = [
        Case(service=Antiphon(name=f"processes_{size}", title=f"{size} process{_s(size) and 'es'}", processes=size))
        for size in sizes
    ]
    return await compare(_titled("Processes", scope), cases, scope, scope.rounds_or(3))


def _s(size: int) -> str:
    return "" if size == 1 else "s"


def _titled(what: str, scope: Scope) -> str:
    return f"{what}, {scope.plan.in_flight[0]} orders in flight"
