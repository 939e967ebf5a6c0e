"""An orchestrating process: runs one saga per order it is given, all at once, and tells which are done."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging

import lines
import ordering
import uvloop
from calls import Caller
from ordering import OrderSaga, placed
from participants import LEDGERS
from sagaz import SagaConfig
from saving import Batched, Storage


class Orders:
    """The sagas of this process; a saga object that is through is used again, since making one is slow."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._config = SagaConfig(storage=storage, metrics=False, logging=False)
        self._idle: list[OrderSaga] = []
        self._running: set[asyncio.Task[None]] = set()
        self._done = lines.Gathered("done")
        self._failed = lines.Gathered("failed")

    def place(self, order_id: str) -> None:
        task = asyncio.create_task(self._carry_out(order_id))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _carry_out(self, order_id: str) -> None:
        saga = self._idle.pop() if self._idle else OrderSaga(config=self._config)
        try:
            await saga.run(placed(order_id), saga_id=order_id)
        except Exception:
            logging.exception("order %s", order_id)
            self._failed.add(order_id)
            return
        self._idle.append(saga)
        (self._failed if order_id in self._storage.unsaved else self._done).add(order_id)


async def serve(storage: Storage, port: int | None) -> None:
    """Take `{"place": [...]}` until standard input ends; `{"stop": true}` asks for the ledgers of steps in here."""
    if port is not None:
        ordering.caller = await Caller.open(port)
    async with storage:  # opens the pool and makes the tables
        orders = Orders(storage)
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)
        lines.say({"ready": True})
        async for said in lines.heard():
            for order_id in said.get("place", ()):
                orders.place(order_id)
            if "stop" in said:
                lines.say({"ledgers": LEDGERS})


def main() -> None:
    """`python worker.py --database-url URL [--port PORT] [--batched]`: without a port the steps run inside."""
    parser = argparse.ArgumentParser(description="An orchestrating process of the peer sagaz.")
    parser.add_argument("--database-url", required=True)
    parser.add_argument("--port", type=int)
    parser.add_argument("--batched", action="store_true")
    given = parser.parse_args()
    uvloop.run(serve((Batched if given.batched else Storage)(given.database_url), given.port))


if __name__ == "__main__":
    main()
