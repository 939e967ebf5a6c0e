"""`python -m bench`: measure the contenders in alternating rounds and print what was seen."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg

from bench.antiphon import Antiphon
from bench.chart import chart
from bench.contenders import CONTENDERS
from bench.embedded.contenders import EMBEDDED
from bench.ground import Files
from bench.report import conditions, document, page
from bench.rounds import Plan, Round, run_round, tell, turned
from bench.servers import NotDurable, Servers, known_conditions, open_servers
from bench.summary import summarize
from tests.services.binaries import NotInstalledError
from tests.services.private import ServerError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.contender import Contender
    from bench.ground import Ground
    from bench.report import Conditions


def main() -> int:
    """Exit code 0 when every round of every contender was valid, else 1."""
    given = _arguments()
    plan = Plan(in_flight=given.in_flight, seconds=given.seconds, warm_up=given.warm_up, idle_orders=given.idle_orders)
    among = EMBEDDED if given.embedded else CONTENDERS
    if unknown := [name for name in given.only or () if name not in among]:
        print(f"--only {', '.join(unknown)}: not one of {', '.join(among)}", file=sys.stderr)
        return 2
    contenders = [_in_processes(among[name], given.processes) for name in given.only or among]
    try:
        if given.embedded:
            return _written(given, *asyncio.run(_embedded(contenders, plan, given.rounds)))
        with open_servers() as servers:
            return _written(given, *asyncio.run(_on_servers(contenders, servers, plan, given.rounds)))
    except (NotInstalledError, ServerError, NotDurable, asyncpg.PostgresError, OSError) as error:
        print(error, file=sys.stderr)
        return 1


def _written(given: argparse.Namespace, report: dict[str, object], picture: str, invalid: bool) -> int:
    if given.json:
        given.json.write_text(json.dumps(report, indent=2) + "\n")
    if given.chart:
        given.chart.write_text(picture)
    return 1 if invalid else 0


async def _embedded(contenders: Sequence[Contender], plan: Plan, rounds: int) -> tuple[dict[str, object], str, bool]:
    files = Files()
    return await _run(contenders, files, conditions(files.origin), plan=plan, rounds=rounds)


async def _on_servers(
    contenders: Sequence[Contender], servers: Servers, plan: Plan, rounds: int
) -> tuple[dict[str, object], str, bool]:
    return await _run(contenders, servers, await known_conditions(servers), plan=plan, rounds=rounds)


async def _run(
    contenders: Sequence[Contender], ground: Ground, known: Conditions, *, plan: Plan, rounds: int
) -> tuple[dict[str, object], str, bool]:
    """The whole report, its picture, and whether any round was invalid."""
    done: list[Round] = []
    for number in range(rounds):
        for contender in turned(contenders, number):
            done.append(await run_round(contender, ground, plan, number + 1))
            tell(done[-1])
    summaries = [summarize(done, contender=one.name, title=one.title) for one in contenders]
    print("\n" + page(known, summaries, done))
    return document(known, plan, summaries, done), chart(known, summaries), any(one.problems for one in done)


def _in_processes(contender: Contender, processes: int) -> Contender:
    """Antiphon in so many processes; the others are what they are."""
    if processes == 1 or not isinstance(contender, Antiphon):
        return contender
    return replace(contender, processes=processes, title=f"{contender.title}, {processes} processes")


def _arguments() -> argparse.Namespace:
    default = Plan()
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Measure Antiphon beside hand-written services."
    )
    parser.add_argument("--rounds", type=_at_least_one, default=3, help="rounds per contender (default 3)")
    parser.add_argument("--seconds", type=float, default=default.seconds, help="measured stretch (default 5)")
    parser.add_argument("--warm-up", type=float, default=default.warm_up, help="seconds before it (default 2)")
    parser.add_argument(
        "--in-flight", type=_numbers, default=default.in_flight, help="orders in flight, a comma list (default 50,200)"
    )
    parser.add_argument(
        "--idle-orders", type=_at_least_one, default=default.idle_orders, help="one at a time (default 100)"
    )
    parser.add_argument("--only", type=lambda names: names.split(","), help=f"a comma list of {', '.join(CONTENDERS)}")
    parser.add_argument(
        "--embedded", action="store_true", help=f"in one process on SQLite, without servers: {', '.join(EMBEDDED)}"
    )
    parser.add_argument("--processes", type=_at_least_one, default=1, help="of Antiphon, as its option (default 1)")
    parser.add_argument("--json", type=Path, help="also write everything to this file")
    parser.add_argument("--chart", type=Path, help="also draw it, as SVG, into this file")
    return parser.parse_args()


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be at least 1")
    return number


def _numbers(text: str) -> list[int]:
    return [_at_least_one(word) for word in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
