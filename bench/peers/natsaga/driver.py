"""The peer natsaga in the benchmark: starts its processes, hands orders to them and tells what is done."""

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
import nats
import orjson
import schema
import uvloop
from children import Child
from nats_server import NatsServer, Unavailable
from ordering import ANSWERS, declare, saga_id

if TYPE_CHECKING:
    from collections.abc import Iterable

VARIANTS = ("tuned", "library")
LIBRARIES = ("natsaga", "nats-outbox", "nats-py", "sqlalchemy", "asyncpg", "uvloop")
WORKERS = 4

PATIENCE = 22.0  # for what is on its way when told to stop; the harness gives 30 s for everything


class Service:
    """The NATS server, the orchestrating processes and the participants' own."""

    def __init__(self, server: NatsServer, orchestrators: list[Child], desk: Child) -> None:
        self.orders: dict[str, str] = {}
        self.done: set[str] = set()
        self.problems: list[str] = []
        self._server = server
        self._orchestrators = orchestrators
        self._workers = [child for child in orchestrators if child.name.startswith("worker")]
        self._desk = desk
        self._moved = asyncio.Event()
        self._next = cycle(self._workers)

    @classmethod
    async def start(cls, variant: str, database_url: str, folder: Path, stack: AsyncExitStack) -> Service:
        await schema.create(database_url)
        server = await NatsServer.start(folder)
        stack.push_async_callback(server.end)
        link = await nats.connect(server.url)
        await declare(link.jetstream())
        await link.close()

        async def child(name: str, module: str, *given: str) -> Child:
            started = await Child.start(name, module, given, folder)
            stack.push_async_callback(started.end)
            await started.line()
            return started

        desk = await child("participants", "participants.py", server.url)
        given = ("--database-url", database_url, "--nats-url", server.url)
        if variant == "library":  # a second listener would be refused
            orchestrators = [
                await child("relay", "library_relay.py", database_url, server.url),
                await child("worker", "worker.py", *given, "--library"),
            ]
        else:
            orchestrators = [await child(f"worker-{number}", "worker.py", *given) for number in range(WORKERS)]
        return cls(server, orchestrators, desk)

    def ready(self) -> dict[str, Any]:
        """What the harness is told."""
        groups = {
            "orchestrator": [child.pid for child in self._orchestrators],
            "participants": [self._desk.pid],
            "server": [self._server.pid],
        }
        versions = {name: version(name) for name in LIBRARIES} | {"nats-server": self._server.version}
        return {"versions": versions, "groups": groups}

    def place(self, order_ids: Iterable[str]) -> None:
        """Hand out orders, to each process in its turn."""
        shares: dict[Child, list[str]] = {}
        for order_id in order_ids:
            shares.setdefault(next(self._next), []).append(order_id)
            self.orders[str(saga_id(order_id))] = order_id
        for worker, share in shares.items():
            worker.tell({"place": share})

    async def listen(self, worker: Child) -> None:
        """Pass on what an orchestrating process says; whichever took the last reply in says that a saga is done."""
        while True:
            said = orjson.loads(await worker.line())
            if done := [self.orders[saga] for saga in said.get("done", ()) if self.orders[saga] not in self.done]:
                self.done.update(done)
                self._moved.set()
                lines.say({"done": done})
            self.problems += [f"{order_id} failed" for order_id in said.get("failed", ())]

    def outstanding(self) -> set[str]:
        return set(self.orders.values()) - self.done

    def hang_up(self) -> None:
        """Let all processes end, at the same time."""
        for child in (*self._orchestrators, self._desk):
            child.hang_up()

    async def drain(self) -> None:
        """Wait for what is still on its way, though not for ever."""
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while self.outstanding():
                    self._moved.clear()
                    await self._moved.wait()

    async def serve(self) -> None:
        """Run until cancelled."""
        async with asyncio.TaskGroup() as listening:
            for worker in self._workers:
                listening.create_task(self.listen(worker))

    async def close(self, database_url: str) -> dict[str, Any]:
        """Look after what was placed once all is told; the answer is what the harness is told at the end."""
        self._desk.tell({"stop": True})
        ledgers = orjson.loads(await self._desk.line())["ledgers"]
        link = await asyncpg.connect(database_url)
        stored = await link.fetch("SELECT id::text FROM saga_state WHERE status = 'completed'")
        await link.close()
        placed = set(self.orders.values())
        for order_ids, what in (
            (self.outstanding(), "were never done"),
            (placed - {self.orders[row[0]] for row in stored}, "are not completed in the database"),
            *((placed - ledgers[name].keys(), f"were not seen by {name}") for name in ANSWERS),
        ):
            if order_ids:
                self.problems.append(f"{len(order_ids)} orders {what}, such as {min(order_ids)}")
        repeated = sum(times > 1 for ledger in ledgers.values() for times in ledger.values())
        return {"problems": self.problems, "repeated": repeated}


async def converse(service: Service, database_url: str) -> None:
    """Do what the harness says until it says stop, or says nothing more."""
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(service.serve())
        lines.say({"ready": service.ready()})
        async for said in lines.heard():
            if "stop" in said:
                await service.drain()
                lines.say({"ended": await service.close(database_url)})
                break
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
            service = await Service.start(given.variant, given.database_url, given.folder, stack)
            stack.callback(service.hang_up)
            await converse(service, given.database_url)


def main() -> None:
    """Take the arguments that every peer takes; 1 is the exit code where something broke."""
    parser = argparse.ArgumentParser(description="The peer natsaga.")
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
