"""Cases measured in alternating rounds, and what each costs beside the first: the same work, with more of something."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING

from bench.figures import Spread, paired_ratio
from bench.report import grid, invalid, number, round_document
from bench.rounds import Plan, Round, run_round, run_round_at, tell, turned
from bench.scale.seed import connect
from bench.summary import MICRO, Latency, summarize
from bench.wire import MESSAGES_PER_SAGA

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bench.antiphon import Antiphon
    from bench.contender import Place
    from bench.load import Steady
    from bench.servers import Servers

SERVING = ("orchestrator", "postgres", "broker")
"""Whose CPU a saga costs: what there would be without the benchmark."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """How every part measures: what a round does, how many there are, and where."""

    servers: Servers
    plan: Plan
    rounds: int | None = None

    def rounds_or(self, usual: int) -> int:
        """So many as were asked for."""
        return self.rounds or usual


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One size of what a part varies. With a place it is measured there in each round, else in an empty one each."""

    service: Antiphon
    place: Place | None = None

    async def round(self, scope: Scope, number: int) -> Round:
        """Measure it once."""
        if self.place is None:
            return await run_round(self.service, scope.servers, scope.plan, number)
        place = await begun(self.place, f"round{number}-order")
        return await run_round_at(place, self.service, scope.servers, scope.plan, number)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What one case came to: medians of the valid rounds, with the lowest and the highest where that is told.

    `cpu_us` is per saga and group of processes; `cost` how many times that of the first case they used together, round
    by round: None where it could not be seen.
    """

    title: str
    rounds: int
    sagas_per_second: Spread | None = None
    cpu_us: Mapping[str, float | None] = field(default_factory=dict)
    cost: Spread | None = None
    memory_mib: float | None = None
    idle_ms: Latency | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """All rounds of one part."""

    title: str
    cases: Sequence[Antiphon]
    rounds: Sequence[Round]

    @property
    def valid(self) -> bool:
        """Whether every round counts."""
        return not any(one.problems for one in self.rounds)

    @property
    def lines(self) -> Sequence[Line]:
        """A line for each case, in order."""
        first = self._costs(self.cases[0])
        return [self._line(case, first) for case in self.cases]

    def page(self) -> Iterator[str]:
        """The figures in a table, and what was wrong."""
        yield self.title
        yield "  CPU in microseconds per saga; cost is all of it, as a multiple of the first line's, round by round"
        heads = [
            "",
            "sagas/s",
            "(lowest",
            "highest)",
            *SERVING,
            "cost",
            "(lowest",
            "highest)",
            "MiB",
            "idle p50",
            "p99",
        ]
        yield from grid(heads, [[line.title, *_cells(line)] for line in self.lines])
        yield from (f"  {text}" for text in invalid(self.rounds))
        yield ""

    def document(self) -> dict[str, object]:
        """Lines and rounds, as JSON can hold them."""
        return {
            "title": self.title,
            "lines": [asdict(line) for line in self.lines],
            "rounds": [round_document(one) for one in self.rounds],
        }

    def _line(self, case: Antiphon, first: Mapping[int, float]) -> Line:
        found = summarize(self.rounds, contender=case.name, title=case.title)
        if not found.steady:
            return Line(title=case.title, rounds=found.rounds)
        (level,) = found.steady
        return Line(
            title=case.title,
            rounds=found.rounds,
            sagas_per_second=level.sagas_per_second,
            cpu_us={group: _per_saga(level.cpu_us[group]) for group in SERVING},
            cost=paired_ratio(self._costs(case), first),
            memory_mib=level.memory_mib,
            idle_ms=found.idle_ms,
        )

    def _costs(self, case: Antiphon) -> dict[int, float]:
        """CPU per saga by round, where all of it could be seen."""
        steady = {one.number: one.steady[0] for one in self.rounds if one.contender == case.name and one.steady}
        return {number: cost for number, level in steady.items() if (cost := _cost(level)) is not None}


async def compare(title: str, cases: Sequence[Case], scope: Scope, rounds: int) -> Comparison:
    """Measure every case in each round, beginning with another one each time."""
    done: list[Round] = []
    for number_of_round in range(rounds):
        for case in turned(cases, number_of_round):
            done.append(await case.round(scope, number_of_round + 1))
            tell(done[-1])
    return Comparison(title=title, cases=[case.service for case in cases], rounds=done)


async def begun(place: Place, orders: str) -> Place:
    """The place as a round finds it that begins now: what started before is not the round's."""
    connection = await connect(place)
    since = await connection.fetchval("select clock_timestamp()")
    await connection.close()
    return replace(place, orders=orders, since=since)


def _cost(level: Steady) -> float | None:
    known = [level.cpu[group] for group in SERVING if group in level.cpu]
    return sum(known) / level.sagas * MICRO if len(known) == len(SERVING) and level.sagas else None


def _per_saga(us_per_message: float | None) -> float | None:
    return None if us_per_message is None else us_per_message * MESSAGES_PER_SAGA


def _cells(line: Line) -> Iterator[str]:
    rate, cost, idle = line.sagas_per_second, line.cost, line.idle_ms
    yield from (number(value) for value in ((rate.median, rate.lowest, rate.highest) if rate else (None,) * 3))
    yield from (number(line.cpu_us.get(group)) for group in SERVING)
    yield from (number(value, 2) for value in ((cost.median, cost.lowest, cost.highest) if cost else (None,) * 3))
    yield number(line.memory_mib)
    yield from (number(value, 1) for value in ((idle.p50, idle.p99) if idle else (None,) * 2))
