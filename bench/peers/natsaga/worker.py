"""An orchestrating process: starts a saga per order, takes the replies in and passes the commands on."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import asyncpg
import lines
import nats
import uvloop
from listener import Listener
from natsaga.listener import SagaListener
from natsaga.orchestrator import SagaOrchestrator
from natsaga.timeout_checker import TimeoutChecker
from ordering import REPLIES, OrderSaga, placed, saga_id
from relay import Relay
from sessions import POOL, pooled, straight

if TYPE_CHECKING:
    import uuid
    from collections.abc import Callable

    from nats.js import JetStreamContext
    from sessions import Straight
    from sqlalchemy.ext.asyncio import AsyncSession


STRAIGHT_TURNS = 16
"""How many transactions may follow one another before the loop looks after everything else."""


class Orchestrator(SagaOrchestrator):
    """Tells when something was committed that the relay should pass on, and when a saga is through."""

    def __init__(
        self, sessions: Callable[[], AsyncSession | Straight], turns: int, committed: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__(sessions)
        self.register(OrderSaga)
        self._committed = committed
        self._last = OrderSaga.num_steps() - 1
        self._turn = asyncio.Semaphore(turns)
        self._done = lines.Gathered("done")
        self._failed = lines.Gathered("failed")
        self._running: set[asyncio.Task[None]] = set()

    def place(self, order_id: str) -> None:
        task = asyncio.create_task(self._begin(order_id))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _begin(self, order_id: str) -> None:
        try:
            async with self._turn:
                await asyncio.sleep(0)
                await self.start(OrderSaga, placed(order_id), saga_id=saga_id(order_id))
        except Exception:
            logging.exception("order %s", order_id)
            self._failed.add(order_id)
        self._committed()

    async def on_step_success(self, saga_id: uuid.UUID, step_index: int, result: dict[str, Any]) -> None:
        async with self._turn:
            await asyncio.sleep(0)
            await super().on_step_success(saga_id, step_index, result)
        if step_index == self._last:
            self._done.add(str(saga_id))
        else:
            self._committed()


async def open_tuned(database_url: str, js: JetStreamContext, stack: AsyncExitStack) -> Orchestrator:
    """The library's orchestrator between the relay and the listener of this folder."""
    connection = await asyncpg.connect(database_url)
    stack.push_async_callback(connection.close)
    relay = Relay(connection, js)
    orchestrator = Orchestrator(straight(database_url, stack), STRAIGHT_TURNS, relay.wake)
    await Listener(js, orchestrator).open()
    relaying = asyncio.create_task(relay.start())
    relaying.add_done_callback(ended_early)

    async def stop() -> None:
        await relay.stop()
        await relaying

    stack.push_async_callback(stop)
    return orchestrator


async def open_library(database_url: str, js: JetStreamContext, stack: AsyncExitStack) -> Orchestrator:
    """The library's orchestrator with its own listener; its own relay is a process of its own."""
    orchestrator = Orchestrator(pooled(database_url, stack), POOL)
    listener = SagaListener(js, orchestrator, REPLIES)
    await listener.subscribe_all()
    stack.push_async_callback(listener.stop)
    return orchestrator


def ended_early(relaying: asyncio.Task[None]) -> None:
    """A relay that breaks takes its process along."""
    if not relaying.cancelled() and (broken := relaying.exception()):
        raise SystemExit(f"the relay broke: {broken!r}")


async def serve(given: argparse.Namespace) -> None:
    """Take `{"place": [...]}` until standard input ends."""
    async with AsyncExitStack() as stack:
        link = await nats.connect(given.nats_url)
        stack.push_async_callback(link.close)
        opened = open_library if given.library else open_tuned
        orchestrator = await opened(given.database_url, link.jetstream(), stack)
        await stack.enter_async_context(TimeoutChecker(pooled(given.database_url, stack), orchestrator))
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)
        lines.say({"ready": True})
        async for said in lines.heard():
            for order_id in said["place"]:
                orchestrator.place(order_id)


def main() -> None:
    """`python worker.py --database-url URL --nats-url URL [--library]`."""
    parser = argparse.ArgumentParser(description="An orchestrating process of the peer natsaga.")
    parser.add_argument("--database-url", required=True)
    parser.add_argument("--nats-url", required=True)
    parser.add_argument("--library", action="store_true")
    logging.basicConfig(level=logging.WARNING)
    uvloop.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
