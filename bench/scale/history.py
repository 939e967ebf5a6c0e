"""A long history: the usual orders, the commands of operators and the removal of what is old, beside all that ended."""

from __future__ import annotations

import asyncio
import statistics
import time
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from bench.antiphon import Antiphon
from bench.processor import ProcessorTime, used_between
from bench.report import grid, number
from bench.rounds import FAILURES, in_words, new_place
from bench.scale import seed
from bench.scale.compare import Case, Comparison, compare
from bench.services import fresh_queues
from bench.summary import MICRO, MILLI

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bench.contender import Place
    from bench.database import Connection
    from bench.scale.compare import Scope

WEEK = timedelta(days=7)  # younger than anything that a sidecar with default settings removes
LETTERS = 10_000  # dead letters, or as many as there are instances
TIMES = 5  # that each command is run
COMMANDS = (
    "sagas list",
    "sagas list --status parked",
    "sagas list --status running",
    "sagas show ID",
    "sagas show KEY",
    "dead list",
)
"""What operators ask, where `ID` and `KEY` stand for those of the newest instance."""
REMOVED = 20_000  # instances that are made old enough to go, or half of those there are
REMOVAL = 300.0  # seconds it may take


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """How what is too old went, while a process had nothing else to do; `cpu` is seconds by group."""

    instances: int = 0
    rows: int = 0
    seconds: float = 0.0
    cpu: Mapping[str, float] = field(default_factory=dict)
    problems: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The comparison of an empty database with a full one; the milliseconds of each command in either; a removal."""

    rows: int
    comparison: Comparison
    commands_ms: Mapping[str, Sequence[float]]
    removal: Removal

    @property
    def valid(self) -> bool:
        """Whether all figures count."""
        return self.comparison.valid and not self.removal.problems

    def page(self) -> Iterator[str]:
        """Three tables."""
        yield from self.comparison.page()
        yield f"Commands, ms from the shell's point of view: without history, and with {self.rows:,} rows of it"
        yield from grid(
            ["", "without", "with"],
            [[name, *(number(each) for each in found)] for name, found in self.commands_ms.items()],
        )
        yield ""
        removal, cpu = self.removal, self.removal.cpu.get("postgres")
        yield "Retention, by one process that has nothing else to do"
        yield from grid(
            ["", "instances", "rows of history", "seconds", "rows/s", "postgres us/row"],
            [
                [
                    *("", number(removal.instances), number(removal.rows), number(removal.seconds, 1)),
                    number(removal.rows / removal.seconds if removal.seconds else None),
                    number(cpu / removal.rows * MICRO if cpu is not None and removal.rows else None, 1),
                ]
            ],
        )
        yield from (f"  INVALID: {problem}" for problem in removal.problems)
        yield ""

    def document(self) -> dict[str, object]:
        """As JSON can hold it."""
        return {
            "rows": self.rows,
            "comparison": self.comparison.document(),
            "commands_ms": self.commands_ms,
            "removal": asdict(self.removal),
        }


async def history(scope: Scope, rows: int) -> History:
    """Measure beside so many rows of history, and beside none."""
    async with AsyncExitStack() as stack:
        cases: list[Case] = []
        for title, wanted in (("no history", 0), (f"{rows:,} rows", rows)):
            service = Antiphon(name=f"history_{wanted}", title=title)
            place = await stack.enter_async_context(new_place(scope.servers, service.name))
            await _plant(service, place, wanted)
            cases.append(Case(service=service, place=place))
        title = f"History, {scope.plan.in_flight[0]} orders in flight"
        compared = await compare(title, cases, scope, scope.rounds_or(3))
        commands = await _commands(cases)
        removal = await _removal(scope, cases[-1])
    return History(rows=rows, comparison=compared, commands_ms=commands, removal=removal)


async def _plant(service: Antiphon, place: Place, rows: int) -> None:
    if not rows:
        await service.command(place, "migrate")
        return
    of = await seed.completed(service, place)
    instances = rows // len(of["saga_event"])
    times = {**dict.fromkeys(of, instances), "dead_letter": min(instances, LETTERS)}
    copies = seed.Copies(of=of, times=times, past=WEEK)
    await seed.plant(place, copies)
    print(f"{copies.rows['saga_event']} rows of history in {place.namespace}", flush=True)


# -- commands


async def _commands(cases: Sequence[Case]) -> dict[str, Sequence[float]]:
    """The median of each in each case, in alternation; of the newest instance where one is to be shown."""
    took: dict[tuple[str, int], list[float]] = {}
    shown = [await _newest(case) for case in cases]
    for _ in range(TIMES):
        for number_of_case, case in enumerate(cases):
            for name in COMMANDS:
                words = [shown[number_of_case].get(word, word) for word in name.split()]
                began = time.perf_counter()
                assert case.place is not None  # noqa: S101 - `history` has given each one
                await case.service.command(case.place, *words)
                took.setdefault((name, number_of_case), []).append((time.perf_counter() - began) * MILLI)
    return {name: [statistics.median(took[name, one]) for one in range(len(cases))] for name in COMMANDS}


async def _newest(case: Case) -> Mapping[str, str]:
    assert case.place is not None  # noqa: S101 - `history` has given each one
    connection = await seed.connect(case.place)
    row = await connection.fetchrow("select saga_id, key from saga order by started_at desc limit 1")
    await connection.close()
    assert row is not None  # noqa: S101 - the rounds have left some
    return {"ID": str(row["saga_id"]), "KEY": row["key"]}


# -- removal


async def _removal(scope: Scope, case: Case) -> Removal:
    """Make some instances old, and let a process remove them."""
    assert case.place is not None  # noqa: S101 - `history` has given each one
    try:
        return await _removed(scope, case.service, case.place)
    except (*FAILURES, TimeoutError) as error:
        return Removal(problems=in_words(error) if str(error) else [f"it took longer than {REMOVAL:g} s"])


async def _removed(scope: Scope, service: Antiphon, place: Place) -> Removal:
    connection = await seed.connect(place)
    try:
        there = int(await connection.fetchval("select count(*) from saga"))
        aged = [row["saga_id"] for row in await connection.fetch(_AGE, min(REMOVED, there // 2))]
        rows = int(await connection.fetchval(_HISTORY, aged))
        await connection.execute("vacuum (analyze) saga")
        async with fresh_queues(place.broker_url, place.namespace, service.queues(place.namespace)):
            starting = asyncio.create_task(service.start(place))
            try:
                begun, ended = await _watched(scope, connection, len(aged))
            finally:
                await (await starting).end()
        left = await connection.fetchval(_HISTORY, aged)
        stayed = await connection.fetchval("select count(*) from saga")
    finally:
        await connection.close()
    problems = [f"{left} rows of history without an instance"] if left else []
    if stayed != there - len(aged):
        problems.append(f"of {there} instances {stayed} stayed when {len(aged)} were to go")
    return Removal(
        instances=begun.old,
        rows=round(rows * begun.old / len(aged)),
        seconds=ended.at - begun.at,
        cpu=used_between(begun.cpu, ended.cpu),
        problems=problems,
    )


_AGE = """
    update saga set ended_at = ended_at - interval '40 days' where saga_id in (
        select saga_id from saga where ended_at is not null order by ended_at limit $1
    ) returning saga_id
"""
_HISTORY = "select count(*) from saga_event where saga_id = any($1)"
_OLD = "select count(*) from saga where ended_at < now() - interval '30 days'"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mark:
    at: float
    old: int
    cpu: Mapping[str, float]


async def _watched(scope: Scope, connection: Connection, aged: int) -> tuple[_Mark, _Mark]:
    """From the first step of the removal, when the process has started and what it has to do is warm, to the last."""
    shared = {name: pids for name, pids in scope.servers.processes().items() if pids}
    meter = ProcessorTime(shared, without=[connection.get_server_pid()])
    begun = None
    async with asyncio.timeout(REMOVAL):
        while True:
            mark = _Mark(at=time.perf_counter(), old=int(await connection.fetchval(_OLD)), cpu=meter.read())
            if mark.old < aged:
                begun = begun or mark
            if begun and not mark.old:
                return begun, mark
            await asyncio.sleep(seed.LOOK)
