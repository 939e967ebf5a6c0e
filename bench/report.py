"""What a run says: a page of text for people, a document for programs, and the conditions it was measured under."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench import wire
from bench.summary import GROUPS, Level, Summary

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bench.load import Steady
    from bench.rounds import Plan, Round

LIBRARIES = ("aio-pika", "aiormq", "asyncpg", "sqlalchemy", "pydantic", "uvloop")
UNKNOWN = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """The machine, the versions and the servers of a run."""

    processor: str
    processors: int
    memory_gib: float
    system: str
    load_average: float
    servers: str
    versions: Mapping[str, str]


def conditions(servers: str, **versions: str) -> Conditions:
    """As they are now: the load average is the one before the run."""
    libraries = {name: importlib.metadata.version(name) for name in LIBRARIES}
    return Conditions(
        processor=_processor(),
        processors=os.cpu_count() or 0,
        memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        system=platform.platform(),
        load_average=round(os.getloadavg()[0], 2),
        servers=servers,
        versions={"Python": sys.version.split()[0], **versions, **libraries},
    )


def document(known: Conditions, plan: Plan, summaries: Sequence[Summary], rounds: Sequence[Round]) -> dict[str, object]:
    """Everything, as JSON can hold it: rounds without their single latencies, which the summaries condense."""
    return {
        "conditions": asdict(known),
        "plan": asdict(plan),
        "messages_per_saga": wire.MESSAGES_PER_SAGA,
        "summaries": [asdict(one) for one in summaries],
        "rounds": [round_document(one) for one in rounds],
    }


def round_document(one: Round) -> dict[str, object]:
    """One round, without its single latencies."""
    return {
        "contender": one.contender,
        "number": one.number,
        "orders": one.orders,
        "problems": list(one.problems),
        "unavailable": one.unavailable,
        "steady": [_without_latencies(level) for level in one.steady],
    }


def page(known: Conditions, summaries: Sequence[Summary], rounds: Sequence[Round]) -> str:
    """The run on one page."""
    return "\n".join([*about(known), "", *_idle(summaries), *_steady(summaries), *_absent(summaries), *invalid(rounds)])


def about(known: Conditions) -> Iterator[str]:
    """The machine and the servers, in three lines."""
    yield f"{known.processors} x {known.processor}, {known.memory_gib} GiB, {known.system}"
    yield f"{known.servers}; load average before the run {known.load_average}"
    yield ", ".join(f"{name} {version}" for name, version in known.versions.items())


def _idle(summaries: Sequence[Summary]) -> Iterator[str]:
    yield "One order at a time, ms from published to completed"
    yield from grid(
        ["", "p50", "p99", "orders"],
        [
            [one.title, number(one.idle_ms.p50, 1), number(one.idle_ms.p99, 1), str(one.idle_ms.orders)]
            for one in summaries
            if one.idle_ms
        ],
    )
    yield ""


def _steady(summaries: Sequence[Summary]) -> Iterator[str]:
    levels = [(one.title, level) for one in summaries for level in one.steady]
    for in_flight in dict.fromkeys(level.in_flight for _, level in levels):
        these = [(title, level) for title, level in levels if level.in_flight == in_flight]
        yield f"{in_flight} orders in flight"
        yield from grid(
            ["", "sagas/s", "(lowest", "highest)", "Antiphon is", "p50 ms", "p99 ms"],
            [[title, *_speed(level)] for title, level in these],
        )
        yield ""
        yield "  per message: SQL statements, commits, bytes of WAL, microseconds of CPU by process (and its MiB)"
        yield from grid(
            ["", "statements", "commits", "WAL", *GROUPS, "all CPU", "MiB"],
            [[title, *_costs(level)] for title, level in these],
        )
        yield ""


def _speed(level: Level) -> Iterator[str]:
    rate, ratio = level.sagas_per_second, level.product_is_faster_by
    yield from (number(rate.median), number(rate.lowest), number(rate.highest))
    yield f"{ratio.median:.2f} x" if ratio else ""
    yield from (number(level.latency_ms.p50), number(level.latency_ms.p99))


def _costs(level: Level) -> Iterator[str]:
    yield from (number(level.statements, 2), number(level.commits, 2), number(level.wal_bytes))
    yield from (number(level.cpu_us[group]) for group in GROUPS)
    yield number(level.all_cpu_us)
    yield number(level.memory_mib)


def _absent(summaries: Sequence[Summary]) -> Iterator[str]:
    for one in summaries:
        if one.versions:
            yield f"{one.title}: {', '.join(f'{name} {version}' for name, version in one.versions.items())}"
        if one.unavailable:
            yield f"{one.title} cannot be had here: {one.unavailable}"


def invalid(rounds: Sequence[Round]) -> Iterator[str]:
    """What was wrong with rounds that do not count."""
    for one in rounds:
        for problem in one.problems:
            yield f"INVALID: {one.contender}, round {one.number}: {problem}"


def grid(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Columns as wide as they need: words to the left, figures to the right."""
    lines = [heads, *rows]
    first, *others = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    for name, *cells in lines:
        yield "  ".join(
            ["", name.ljust(first), *(cell.rjust(width) for cell, width in zip(cells, others, strict=True))]
        )


def number(value: float | None, digits: int = 0) -> str:
    """A figure, or `-` for one that could not be seen."""
    return UNKNOWN if value is None else f"{value:.{digits}f}"


def _without_latencies(level: Steady) -> dict[str, object]:
    return {name: value for name, value in asdict(level).items() if name != "latencies"}


def _processor() -> str:
    known = Path("/proc/cpuinfo")
    for line in known.read_text().splitlines() if known.exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
