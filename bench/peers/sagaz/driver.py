"""The peer sagaz in the benchmark: starts its processes, hands orders to them and tells what is done."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from contextlib import AsyncExitStack, suppress
from importlib.metadata import version
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import lines
import orjson
import uvloop
from children import Child

if TYPE_CHECKING:
    from collections.abc import Iterable

VARIANTS = ("inside", "calls", "inside-batched", "calls-batched")
LIBRARIES = ("sagaz", "asyncpg", "uvloop", "orjson")
WORKERS = 2
BATCHING_WORKERS = 1  # the more sagas wait in one process, the larger its batches

PATIENCE = 22.0  # for what is on its way when told to stop; the harness gives 30 s for everything


class Unavailable(RuntimeError):  # noqa: N818 - names the situation
    """A server that this peer needs cannot be reached."""


class Service:
    """The orchestrating processes, and the participants' own where there is one."""

    def __init__(self, workers: list[Child], desk: Child | None) -> None:
        self.placed: set[str] = set()
        self.done: set[str] = set()
        self.problems: list[str] = []
        self.ledgers: list[dict[str, dict[str, int]]] = []
        self._workers = workers
        self._desk = desk
        self._moved = asyncio.Event()
        self._next = cycle(workers)

    @classmethod
    async def start(cls, variant: str, database_url: str, folder: Path, stack: AsyncExitStack) -> Service:
        desk, given = None, ["--database-url", database_url]
        if variant.startswith("calls"):
            desk = await Child.start("participants", "participants.py", (), folder)
            stack.push_async_callback(desk.end)
            given += ["--port", str(orjson.loads(await desk.line())["port"])]
        if batched := variant.endswith("batched"):
            given.append("--batched")
        workers = []
        for number in range(BATCHING_WORKERS if batched else WORKERS):
            workers.append(await Child.start(f"worker-{number}", "worker.py", given, folder))
            stack.push_async_callback(workers[-1].end)
            await workers[-1].line()
        return cls(workers, desk)

    def ready(self) -> dict[str, Any]:
        """What the harness is told."""
        groups = {"orchestrator": [worker.pid for worker in self._workers]}
        if self._desk:
            groups["participants"] = [self._desk.pid]
        return {"versions": {name: version(name) for name in LIBRARIES}, "groups": groups}

    def place(self, order_ids: Iterable[str]) -> None:
        """Hand out orders, to each process in its turn."""
        shares: dict[Child, list[str]] = {}
        for order_id in order_ids:
            shares.setdefault(next(self._next), []).append(order_id)
            self.placed.add(order_id)
        for worker, share in shares.items():
            worker.tell({"place": share})

    async def listen(self, worker: Child) -> None:
        """Pass on what an orchestrating process says, until it tells its ledgers."""
        while "ledgers" not in (said := orjson.loads(line := await worker.line())):
            if done := said.get("done"):
                self.done.update(done)
                self._moved.set()
                sys.stdout.buffer.write(line)
                sys.stdout.buffer.flush()
            self.problems += [f"{order_id} failed" for order_id in said.get("failed", ())]
        self.ledgers.append(said["ledgers"])

    def outstanding(self) -> set[str]:
        return self.placed - self.done

    def hang_up(self) -> None:
        """Let all processes end, at the same time."""
        for child in (*self._workers, *([self._desk] if self._desk else [])):
            child.hang_up()

    async def drain(self) -> None:
        """Wait for what is still on its way, though not for ever."""
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while self.outstanding():
                    self._moved.clear()
                    await self._moved.wait()

    async def serve(self) -> None:
        """Run until all processes were asked for their ledgers."""
        async with asyncio.TaskGroup() as listening:
            for worker in self._workers:
                listening.create_task(self.listen(worker))

    async def close(self, database_url: str) -> dict[str, Any]:
        """Look after what was placed once all is told; the answer is what the harness is told at the end."""
        if self._desk:
            self._desk.tell({"stop": True})
            self.ledgers.append(orjson.loads(await self._desk.line())["ledgers"])
        link = await asyncpg.connect(database_url)
        stored = await link.fetch("SELECT saga_id FROM sagas WHERE status = 'completed'")
        await link.close()
        for order_ids, what in (
            (self.outstanding(), "were never done"),
            (self.placed - {row[0] for row in stored}, "are not completed in the database"),
        ):
            if order_ids:
                self.problems.append(f"{len(order_ids)} orders {what}, such as {min(order_ids)}")
        return {"problems": self.problems, "repeated": self._repeated()}

    def _repeated(self) -> int:
        repeated = 0
        for name in ("stock", "payment", "warehouse"):
            seen = dict.fromkeys(self.placed, 0)
            for ledger in self.ledgers:
                for order_id, times in ledger[name].items():
                    seen[order_id] = seen.get(order_id, 0) + times
            repeated += sum(times > 1 for times in seen.values())
            if missed := [order_id for order_id, times in seen.items() if not times]:
                self.problems.append(f"{name} did not see {len(missed)} orders, such as {missed[0]}")
        return repeated

    def stop(self) -> None:
        """Ask the orchestrating processes for their ledgers, which ends `serve`."""
        for worker in self._workers:
            worker.tell({"stop": True})


async def reachable(database_url: str) -> None:
    """Raise Unavailable if PostgreSQL is not there."""
    try:
        await (await asyncpg.connect(database_url, timeout=10)).close()
    except (OSError, TimeoutError, asyncpg.PostgresError) as why:
        raise Unavailable(f"PostgreSQL cannot be reached: {why}") from why


async def converse(service: Service, database_url: str) -> None:
    """Do what the harness says until it says stop, or says nothing more."""
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(service.serve())
        lines.say({"ready": service.ready()})
        async for said in lines.heard():
            if "stop" in said:
                await service.drain()
                service.stop()
                await serving
                lines.say({"ended": await service.close(database_url)})
                return
            service.place(said["place"])
        serving.cancel()


async def run(given: argparse.Namespace) -> None:
    """The whole of it; whatever happens, no process is left behind."""
    task = asyncio.current_task()
    assert task  # noqa: S101 - we run in one
    for wanted in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(wanted, task.cancel)
    async with AsyncExitStack() as stack:
        with suppress(asyncio.CancelledError):
            await reachable(given.database_url)
            service = await Service.start(given.variant, given.database_url, given.folder, stack)
            stack.callback(service.hang_up)
            await converse(service, given.database_url)


def main() -> None:
    """Take the arguments that every peer takes; 1 is the exit code where something broke."""
    parser = argparse.ArgumentParser(description="The peer sagaz.")
    parser.add_argument("--variant", choices=VARIANTS, required=True)
    parser.add_argument("--database-url", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    for unused in ("--broker-url", "--namespace", "--node-modules"):
        parser.add_argument(unused)
    try:
        uvloop.run(run(parser.parse_args()))
    except Unavailable as why:
        lines.say({"unavailable": str(why)})
    except Exception as broken:
        while isinstance(broken, ExceptionGroup):
            broken = broken.exceptions[0]
        sys.exit(f"{type(broken).__name__}: {broken}")


if __name__ == "__main__":
    main()
