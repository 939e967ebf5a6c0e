"""The peer's driver: starts everything, places the orders it is told, and tells which are done."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import orjson
import uvloop
from child import Child, Ledger
from ingress import Ingress
from private_server import CannotRun, RestateServer, free_ports

ROLES = {"calls": ["calls", "participants"], "inside": ["inside"]}
STEPS = ("stock", "payment", "warehouse")
PATIENCE = 12.0  # seconds for what is in flight when told to stop


def say(**what: Any) -> None:  # noqa: ANN401 - any JSON value
    """Write a line for the harness."""
    sys.stdout.buffer.write(orjson.dumps(what) + b"\n")
    sys.stdout.buffer.flush()


class Orders:
    """What is known of the orders of this round."""

    def __init__(self) -> None:
        self.placed: set[str] = set()
        self.open: set[str] = set()
        self.problems: list[str] = []
        self._told: list[str] = []
        self._settled: asyncio.Event | None = None

    def done(self, order: str) -> None:
        """One is completed; those of the same turn of the loop are told in one line."""
        if not self._told:
            asyncio.get_running_loop().call_soon(self._tell)
        self._told.append(order)
        self.open.discard(order)
        if self._settled is not None and not self.open:
            self._settled.set()

    def fail(self, problem: str) -> None:
        print(problem, file=sys.stderr)
        self.problems.append(problem)

    async def settle(self) -> None:
        """Wait for those on their way."""
        if self.open:
            self._settled = asyncio.Event()
            try:
                await asyncio.wait_for(self._settled.wait(), PATIENCE)
            except TimeoutError:
                self.problems.append(f"{len(self.open)} orders were not completed, such as {min(self.open)}")
        await asyncio.sleep(0)  # lets the last line out

    def compare(self, ledgers: list[Ledger]) -> int:
        """Compare with what the participants saw; returns the executions too many."""
        repeated = 0
        for name in STEPS:
            seen: dict[str, int] = {}
            for ledger in ledgers:
                seen |= ledger.get(name, {})
            if missing := self.placed - seen.keys():
                self.problems.append(f"{name} never saw {len(missing)} orders, such as {min(missing)}")
            repeated += sum(seen.values()) - len(seen)
        return repeated

    def _tell(self) -> None:
        say(done=self._told)
        self._told = []


async def run(variant: str, node_modules: Path, folder: Path) -> None:
    """Start everything, drive, and end everything whatever happens."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - a coroutine runs in one
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    told = asyncio.StreamReader(limit=2**24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(told), sys.stdin)
    children: list[Child] = []
    try:
        server = await RestateServer.start(node_modules, folder)
    except CannotRun as e:
        say(unavailable=str(e))
        return
    try:
        for role, port in zip(ROLES[variant], free_ports(len(ROLES[variant])), strict=True):
            children.append(await Child.start(role, port, folder))
            await server.register(port)
        packages = json.loads((node_modules / "@restatedev/restate-server/package.json").read_text())
        say(
            ready={
                "versions": {"restate-sdk": version("restate-sdk"), "restate-server": packages["version"]},
                "groups": {
                    "orchestrator": [children[0].pid],
                    "participants": [child.pid for child in children[1:]],
                    "server": [server.pid],
                },
            }
        )
        orders = Orders()
        if not await drive(told, orders, server.ingress):
            return
        repeated = orders.compare([await child.end() for child in children])
        children.clear()
        await server.end()
        say(ended={"problems": orders.problems, "repeated": repeated})
    finally:
        for process in (*children, server):
            await process.kill()


async def drive(told: asyncio.StreamReader, orders: Orders, port: int) -> bool:
    """Place what the harness says until it says stop; returns False when it went away instead."""
    ingress = Ingress(port, orders.done, orders.fail)
    try:
        while line := await told.readline():
            what = orjson.loads(line)
            if what.get("stop"):
                await orders.settle()
                return True
            for order in what.get("place", ()):
                orders.placed.add(order)
                orders.open.add(order)
                ingress.place(order)
        return False
    finally:
        ingress.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variant", choices=ROLES, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--node-modules", type=Path, required=True)
    for unused in ("--database-url", "--broker-url", "--namespace"):
        parser.add_argument(unused)
    asked = parser.parse_args()
    with contextlib.suppress(asyncio.CancelledError):
        uvloop.run(run(asked.variant, asked.node_modules, asked.folder.resolve()))


if __name__ == "__main__":
    main()
