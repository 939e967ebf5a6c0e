"""How a driver of our own speaks through its pipe: in the words of `bench/peers/README.md`."""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import uvloop

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


class Embedded(Protocol):
    """What runs the ordering saga in this process. `versions` are of what it is made of."""

    versions: Mapping[str, str]

    async def start(self, file: Path, done: Callable[[Sequence[str]], None]) -> None:
        """Be ready for orders; `done` is to be called with those that are durably completed."""
        ...

    def place(self, orders: Sequence[str]) -> None:
        """Have these committed, each by itself, and begun."""
        ...

    def counted(self) -> tuple[int, int]:
        """Statements and commits so far."""
        ...

    async def end(self) -> tuple[Sequence[str], Mapping[str, Mapping[str, int]]]:
        """Stop: the orders that are completed in the file, and by participant how often it saw which order."""
        ...


def run(contender: Embedded) -> None:
    """Be a driver until standard input ends."""
    parser = argparse.ArgumentParser(description="A contender in one process.")
    parser.add_argument("--folder", type=Path, required=True)
    given = parser.parse_args()
    uvloop.run(_serve(contender, given.folder / "orders.db"))


async def _serve(contender: Embedded, file: Path) -> None:
    await contender.start(file, lambda orders: _say(done=list(orders)))
    gc.collect()
    gc.freeze()  # as `antiphon run` does
    gc.set_threshold(50_000, 20, 20)
    groups: Mapping[str, Sequence[int]] = {"orchestrator": [os.getpid()], "participants": [], "server": []}
    _say(ready={"versions": contender.versions, "groups": groups})
    told = asyncio.StreamReader(limit=1 << 26)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(told), sys.stdin)
    loop.add_signal_handler(signal.SIGTERM, told.feed_eof)
    placed: list[str] = []
    while line := await told.readline():
        word = json.loads(line)
        if "stop" in word:
            completed, ledgers = await contender.end()
            _say(ended={"problems": problems(placed, completed, ledgers), "repeated": 0})
            return
        if "count" in word:
            statements, commits = contender.counted()
            _say(counted={"statements": statements, "commits": commits})
        else:
            placed += word["place"]
            contender.place(word["place"])


def problems(
    placed: Sequence[str], completed: Sequence[str], ledgers: Mapping[str, Mapping[str, int]]
) -> Sequence[str]:
    """What contradicts that every order has exactly one completed saga, and that each participant saw it once."""
    wanted = sorted(placed)
    problems = [] if sorted(completed) == wanted else [f"{len(completed)} sagas are completed of {len(wanted)} orders"]
    return problems + [
        f"{name} did not see every order once" for name, seen in ledgers.items() if seen != dict.fromkeys(wanted, 1)
    ]


def _say(**word: object) -> None:
    sys.stdout.write(json.dumps(word) + "\n")
    sys.stdout.flush()
