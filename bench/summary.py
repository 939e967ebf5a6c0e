"""From measured rounds to the figures that are reported: medians, spreads, ratios, costs per message. Pure."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench import wire
from bench.figures import Spread, paired_ratio, per, percentile, spread

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.load import Steady
    from bench.rounds import Round

PRODUCT = "antiphon"
GROUPS = ("orchestrator", "postgres", "broker", "server", "participants", "load")
MICRO, MILLI = 1e6, 1e3


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Milliseconds from an order's publication to its committed completion."""

    p50: float
    p99: float
    orders: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One number of orders in flight. Costs are per message that the orchestrating service took in; None: not seen.

    `product_is_faster_by` compares within each round; None for the product itself and where it did not run.
    """

    in_flight: int
    sagas_per_second: Spread
    product_is_faster_by: Spread | None
    latency_ms: Latency
    cpu_us: Mapping[str, float | None]
    statements: float | None
    commits: float | None
    wal_bytes: float | None
    memory_mib: float | None

    @property
    def all_cpu_us(self) -> float | None:
        """Of all processes together, if all could be seen."""
        known = [used for used in self.cpu_us.values() if used is not None]
        return sum(known) if len(known) == len(self.cpu_us) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One contender over all its valid rounds; `unavailable` says why there are none."""

    contender: str
    title: str
    rounds: int
    invalid: int
    idle_ms: Latency | None
    steady: Sequence[Level]
    versions: Mapping[str, str]
    unavailable: str


def summarize(rounds: Sequence[Round], *, contender: str, title: str) -> Summary:
    """The figures of one contender; rounds with a problem are only counted."""
    valid = _valid(rounds, contender)
    idle = [latency for one in valid for latency in one.idle]
    levels = dict.fromkeys(level.in_flight for one in valid for level in one.steady)
    return Summary(
        contender=contender,
        title=title,
        rounds=len(valid),
        invalid=sum(one.contender == contender and bool(one.problems) for one in rounds),
        idle_ms=_latency(idle) if idle else None,
        steady=[_level(rounds, contender, in_flight) for in_flight in levels],
        versions=valid[-1].versions if valid else {},
        unavailable=next((one.unavailable for one in rounds if one.contender == contender and one.unavailable), ""),
    )


def _level(rounds: Sequence[Round], contender: str, in_flight: int) -> Level:
    measured = _measured(rounds, contender, in_flight)
    product = {} if contender == PRODUCT else _measured(rounds, PRODUCT, in_flight)
    levels = list(measured.values())
    return Level(
        in_flight=in_flight,
        sagas_per_second=spread(list(_rates(measured).values())),
        product_is_faster_by=paired_ratio(_rates(product), _rates(measured)),
        latency_ms=_latency([latency for level in levels for latency in level.latencies]),
        cpu_us={group: _cpu(levels, group) for group in GROUPS},
        statements=_median([per(level.work.statements, _messages(level)) for level in levels]),
        commits=_median([per(level.work.commits, _messages(level)) for level in levels]),
        wal_bytes=_median([per(level.work.wal_bytes, _messages(level)) for level in levels]),
        memory_mib=_median([level.memory_mib for level in levels]),
    )


def _valid(rounds: Sequence[Round], contender: str) -> list[Round]:
    return [one for one in rounds if one.contender == contender and not one.problems and not one.unavailable]


def _measured(rounds: Sequence[Round], contender: str, in_flight: int) -> dict[int, Steady]:
    """By the number of the round."""
    return {
        one.number: level for one in _valid(rounds, contender) for level in one.steady if level.in_flight == in_flight
    }


def _rates(measured: Mapping[int, Steady]) -> dict[int, float]:
    return {number: level.sagas / level.seconds for number, level in measured.items()}


def _cpu(levels: Sequence[Steady], group: str) -> float | None:
    seconds = _median([per(level.cpu.get(group), _messages(level)) for level in levels])
    return None if seconds is None else seconds * MICRO


def _messages(level: Steady) -> int:
    return level.sagas * wire.MESSAGES_PER_SAGA


def _latency(seconds: Sequence[float]) -> Latency:
    return Latency(p50=percentile(seconds, 0.50) * MILLI, p99=percentile(seconds, 0.99) * MILLI, orders=len(seconds))


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None
