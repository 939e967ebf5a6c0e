"""Drives DBOS for the benchmark: starts participants and services, hands out orders, tells what is completed."""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import os
import signal
import sqlite3
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import psycopg
import uvloop

VARIANTS = {  # engine, participants in a process of their own, processes of the application: the machine has two cores
    "service": ("lean", True, 2),
    "inside": ("lean", False, 2),
    "configured": ("configured", True, 2),
    "sqlite": ("sqlite", False, 1),  # several would only wait for each other's locks
}
PATIENCE = 22.0  # seconds for what is in flight to complete after the stop
HERE = Path(__file__).parent
PARTICIPANTS = ("stock", "payment", "warehouse")
PACKAGES = ("dbos", "sqlalchemy", "psycopg")


class Failed(RuntimeError):  # noqa: N818 - names the situation
    """A process of the peer did not start, or ended when it should not."""


def say(message: dict[str, Any]) -> None:
    sys.stdout.buffer.write(orjson.dumps(message) + b"\n")
    sys.stdout.buffer.flush()


class Child:
    """A process that is spoken to in lines, and ends when its standard input does."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name, self.pid, self.flying = name, process.pid, 0
        self._process, self._log = process, log

    @classmethod
    async def start(cls, folder: Path, name: str, *command: str) -> Child:
        log = folder / f"{name}.log"
        with log.open("wb") as written:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *command,
                cwd=HERE,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=written,
                limit=1 << 26,
                start_new_session=True,  # signals to the group of the driver are the driver's to handle
            )
        return cls(name, process, log)

    def tell(self, line: str) -> None:
        assert self._process.stdin is not None  # noqa: S101
        self._process.stdin.write(line.encode() + b"\n")

    async def line(self) -> str:
        """The next line; raises Failed when the process has ended."""
        assert self._process.stdout is not None  # noqa: S101
        line = await self._process.stdout.readline()
        if not line.endswith(b"\n"):
            last = self._log.read_text(errors="replace").splitlines()[-15:]
            raise Failed("\n".join([f"{self.name} ended with {await self._process.wait()}", *last]))
        return line.decode().strip()

    async def lines(self) -> list[str]:
        """All lines that are there, at least one; raises as `line` does."""
        assert self._process.stdout is not None  # noqa: S101
        data = await self._process.stdout.read(1 << 16)
        return (data if data.endswith(b"\n") else data + (await self.line()).encode()).decode().split()

    async def end(self) -> None:
        if self._process.returncode is None:
            assert self._process.stdin is not None  # noqa: S101
            self._process.stdin.close()
            try:
                await asyncio.wait_for(self._process.wait(), 5)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()


class Peer:
    """Participants and services, and which orders are on their way."""

    def __init__(self, url: str, folder: Path, variant: str) -> None:
        self._url, self._folder = url, folder
        self._engine, self._apart, self._many = VARIANTS[variant]
        self._children: list[Child] = []
        self._services: list[Child] = []
        self._placed: set[str] = set()
        self._completed: set[str] = set()
        self._landed = asyncio.Event()

    async def start(self) -> dict[str, list[int]]:
        """Start every process; returns the groups."""
        options = ["--database-url", self._url, "--engine", self._engine]
        participants: list[int] = []
        if self._apart:
            child = await self._start("participants", "participants.py")
            participants.append(child.pid)
            options += ["--participants", await child.line()]
        for number in range(self._many):
            service = await self._start(f"service-{number}", "service.py", "--executor", f"service-{number}", *options)
            self._services.append(service)
            if (line := await service.line()) != "ready":  # one after the other: the first one migrates
                raise Failed(f"{service.name} said {line!r}")
        pids = [service.pid for service in self._services]
        return {"orchestrator": [os.getpid(), *pids], "participants": participants, "server": []}

    async def _start(self, name: str, *command: str) -> Child:
        self._children.append(child := await Child.start(self._folder, name, *command))
        return child

    def count(self) -> None:
        """Have it told how many statements and commits there were; with one service only."""
        self._services[0].tell("count")

    def place(self, orders: list[str]) -> None:
        """Give each order to the service that has the fewest."""
        shares: dict[Child, list[str]] = {service: [] for service in self._services}
        for order_id in orders:
            service = min(self._services, key=lambda service: service.flying)
            service.flying += 1
            shares[service].append(order_id)
        self._placed.update(orders)
        for service, share in shares.items():
            if share:
                service.tell(" ".join(share))

    async def watch(self) -> None:
        """Tell what the services complete; raises Failed when one ends."""
        await asyncio.gather(*map(self._watch, self._services))

    async def _watch(self, service: Child) -> None:
        while True:
            lines = await service.lines()
            orders = [line for line in lines if not line.startswith("{")]
            for line in lines:
                if line.startswith("{"):
                    say({"counted": orjson.loads(line)})
            if not orders:
                continue
            service.flying -= len(orders)
            self._completed.update(orders)
            say({"done": orders})
            self._landed.set()

    async def land(self) -> None:
        """Wait until nothing is in flight, for as long as is reasonable."""
        try:
            async with asyncio.timeout(PATIENCE):
                while self._placed - self._completed:
                    self._landed.clear()
                    await self._landed.wait()
        except TimeoutError:
            return

    async def settle(self) -> dict[str, Any]:
        """What is wrong with the orders placed, and how many executions were more than one."""
        ledgers: dict[str, Counter[str]] = {name: Counter() for name in PARTICIPANTS}
        for child in self._children[:1] if self._apart else self._services:
            child.tell("ledger")
            for name, seen in orjson.loads(await child.line()).items():
                ledgers[name].update(seen)
        problems = []
        if missing := self._placed - self._completed:
            problems.append(f"{len(missing)} placed orders were not completed, such as {min(missing)}")
        if unknown := self._placed - await asyncio.to_thread(self._successes):
            problems.append(f"{len(unknown)} placed orders have no successful workflow, such as {min(unknown)}")
        for name, seen in ledgers.items():
            if missed := self._placed - seen.keys():
                problems.append(f"{name} did not see {len(missed)} placed orders, such as {min(missed)}")
        return {"problems": problems, "repeated": sum(n - 1 for seen in ledgers.values() for n in seen.values())}

    def _successes(self) -> set[str]:
        if self._url.startswith("sqlite"):
            with closing(sqlite3.connect(self._url.partition("///")[2])) as file:
                return {
                    row[0] for row in file.execute("SELECT workflow_uuid FROM workflow_status WHERE status = 'SUCCESS'")
                }
        with psycopg.connect(self._url) as connection:
            rows = connection.execute("SELECT workflow_uuid FROM dbos.workflow_status WHERE status = 'SUCCESS'")
            return {row[0] for row in rows}

    async def end(self) -> None:
        await asyncio.gather(*(child.end() for child in reversed(self._children)))


async def serve(peer: Peer) -> None:
    """From start to stop; standard input that ends is a stop without a report."""
    groups = await peer.start()
    say({"ready": {"versions": {name: importlib.metadata.version(name) for name in PACKAGES}, "groups": groups}})
    loop = asyncio.get_running_loop()
    told = asyncio.StreamReader(limit=1 << 26)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(told), sys.stdin)
    watching = asyncio.create_task(peer.watch())
    obeying = asyncio.create_task(obey(peer, told))
    try:
        await asyncio.wait((watching, obeying), return_when=asyncio.FIRST_COMPLETED)
        stopped = obeying.done() and obeying.result()
        if stopped:
            await peer.land()
        if watching.done():
            await watching
    finally:
        obeying.cancel()
        watching.cancel()
        await asyncio.wait((obeying, watching))
    report = await peer.settle() if stopped else None
    await peer.end()
    if report is not None:
        say({"ended": report})


async def obey(peer: Peer, told: asyncio.StreamReader) -> bool:
    """Place what is told; returns whether it was told to stop, rather than left."""
    while line := await told.readline():
        message = orjson.loads(line)
        if "stop" in message:
            return True
        if "count" in message:
            peer.count()
        else:
            peer.place(message["place"])
    return False


async def run(given: argparse.Namespace) -> int:
    try:
        if not given.database_url.startswith("sqlite"):
            psycopg.connect(given.database_url, connect_timeout=10).close()
    except psycopg.OperationalError as error:
        say({"unavailable": f"PostgreSQL cannot be reached: {' '.join(str(error).split())}"})
        return 0
    peer = Peer(given.database_url, given.folder, given.variant)
    serving = asyncio.create_task(serve(peer))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, serving.cancel)
    try:
        await serving
    except asyncio.CancelledError:
        return 0
    except Failed as failed:
        print(failed, file=sys.stderr)
        return 1
    finally:
        await peer.end()
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(description="DBOS as a peer of the benchmark.")
    parser.add_argument("--variant", choices=sorted(VARIANTS), default="service")
    parser.add_argument("--database-url", required=True)
    parser.add_argument("--broker-url", help="not used")
    parser.add_argument("--namespace", help="not used: the database is this round's own")
    parser.add_argument("--folder", type=Path, required=True)
    sys.exit(uvloop.run(run(parser.parse_args())))


if __name__ == "__main__":
    main()
