"""`python -m bench.scale`: measure Antiphon as there is more of everything, and print what was seen."""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import asyncpg

from bench.report import about
from bench.rounds import Plan
from bench.scale.backlog import backlog
from bench.scale.compare import Scope
from bench.scale.history import history
from bench.scale.sizes import processes, types, waiting
from bench.servers import NotDurable, known_conditions, open_servers
from tests.services.binaries import NotInstalledError
from tests.services.private import ServerError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

    from bench.servers import Servers

BYTES_PER_ROW, BYTES_PER_INSTANCE = 1_000, 5_000
"""Of disk, for a row of history and for an instance that waits, each with its share of all else and of what is written
while it is seeded."""


class Found(Protocol):
    """What a part has found."""

    @property
    def valid(self) -> bool:
        """Whether its figures count."""
        ...

    def page(self) -> Iterator[str]:
        """For people."""
        ...

    def document(self) -> dict[str, object]:
        """For programs."""
        ...


class NoRoom(RuntimeError):  # noqa: N818 - names the situation
    """The disk is too small for what was asked for; ask for less."""


PARTS: Mapping[str, Callable[[Scope, argparse.Namespace], Awaitable[Found]]] = {
    "waiting": lambda scope, given: waiting(scope, given.waiting),
    "types": lambda scope, given: types(scope, given.types),
    "backlog": lambda scope, given: backlog(scope, given.backlog),
    "history": lambda scope, given: history(scope, given.history_rows),
    "processes": lambda scope, given: processes(scope, given.processes),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 when every figure counts, else 1."""
    given = _parser().parse_args(arguments)
    try:
        _make_sure_of_room(given)
        with open_servers() as servers:
            report, valid = asyncio.run(_run(servers, given))
    except (NotInstalledError, ServerError, NotDurable, NoRoom, asyncpg.PostgresError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    if given.json:
        given.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0 if valid else 1


async def _run(servers: Servers, given: argparse.Namespace) -> tuple[dict[str, object], bool]:
    known = await known_conditions(servers)
    plan = Plan(
        in_flight=[given.in_flight], seconds=given.seconds, warm_up=given.warm_up, idle_orders=given.idle_orders
    )
    scope = Scope(servers=servers, plan=plan, rounds=given.rounds)
    found = {name: await PARTS[name](scope, given) for name in given.only}
    print("\n" + "\n".join([*about(known), "", *(line for one in found.values() for line in one.page())]))
    report = {"conditions": asdict(known), "plan": asdict(plan)}
    return report | {name: one.document() for name, one in found.items()}, all(one.valid for one in found.values())


def _make_sure_of_room(given: argparse.Namespace) -> None:
    """Half of what is free has to be enough, as far as the servers use this disk."""
    wanted = given.history_rows * BYTES_PER_ROW if "history" in given.only else 0
    if "waiting" in given.only:
        wanted += sum(given.waiting) * BYTES_PER_INSTANCE
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if wanted * 2 > free:
        raise NoRoom(
            f"this takes about {wanted / 2**30:.0f} GiB of disk, and {free / 2**30:.0f} GiB are free in "
            f"{tempfile.gettempdir()}; lower --history-rows or --waiting"
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.scale", description="Measure Antiphon as there is more of everything."
    )
    parser.add_argument("--only", type=_parts, default=list(PARTS), help=f"a comma list of {', '.join(PARTS)}")
    parser.add_argument("--rounds", type=_positive, help="rounds per size (default: 5 for waiting, else 3)")
    parser.add_argument("--seconds", type=float, default=16.0, help="measured stretch (default 16)")
    parser.add_argument("--warm-up", type=float, default=2.0, help="seconds before it (default 2)")
    parser.add_argument("--in-flight", type=_positive, default=200, help="orders in flight (default 200)")
    parser.add_argument("--idle-orders", type=_positive, default=50, help="one at a time (default 50)")
    parser.add_argument("--waiting", type=_sizes, default=[100, 10_000, 1_000_000], help="instances, a comma list")
    parser.add_argument("--types", type=_sizes, default=[1, 3, 10], help="saga types, a comma list")
    parser.add_argument("--backlog", type=_positive, default=100_000, help="orders (default 100000)")
    parser.add_argument("--history-rows", type=_positive, default=10_000_000, help="rows (default 10000000)")
    parser.add_argument("--processes", type=_sizes, default=[1, 2, 4], help="processes, a comma list")
    parser.add_argument("--json", type=Path, help="also write everything to this file")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be at least 1")
    return number


def _sizes(text: str) -> list[int]:
    return [_positive(word) for word in text.split(",")]


def _parts(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not one of {', '.join(PARTS)}")
    return names


if __name__ == "__main__":
    sys.exit(main())
