"""Plays Celery's part in the benchmark: starts the workers, places orders, tells which ones are completed."""

from __future__ import annotations

import argparse
import gc
import json
import os
import selectors
import signal
import socket
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from settings import WORKER_OPTIONS
from workers import PARTICIPANTS, DidNotStart, Workers

if TYPE_CHECKING:
    from kombu import Message

READ = 1 << 20
LINES = [
    {"sku": "kettle", "quantity": 1, "unit_price": "34.90"},
    {"sku": "tea-250g", "quantity": 3, "unit_price": "8.50"},
]


def say(word: dict[str, Any]) -> None:
    """Write one line to the harness."""
    sys.stdout.write(json.dumps(word) + "\n")
    sys.stdout.flush()


class Desk:
    """Places orders and receives completed ones, on one connection."""

    def __init__(self) -> None:
        import saga
        from kombu import Consumer
        from pipeline import Pipelined

        self.placed: set[str] = set()
        self.completed: set[str] = set()
        self._place = saga.place
        self._queues = saga.app.amqp.queues
        self._exchange = saga.NAMESPACE
        self._connection = saga.app.connection_for_write(transport_options={"confirm_publish": False})
        self._producer = Pipelined(self._connection, self._queues.values())
        self._news: list[Message] = []
        channel = self._connection.channel()
        channel.basic_qos(0, 1000, False)
        completed = self._queues[f"{saga.NAMESPACE}.completed"]
        self._consumer = Consumer(channel, [completed], on_message=self._news.append)
        self._consumer.consume()

    def serve(self) -> bool:
        """Until told to stop; False when the harness has gone instead."""
        arrived = b""
        with selectors.DefaultSelector() as selector:
            broker = self._connection.connection.sock
            selector.register(broker, selectors.EVENT_READ)
            selector.register(sys.stdin, selectors.EVENT_READ)
            self._take_in()
            while True:
                for key, _ in selector.select():
                    if key.fileobj is broker:
                        self._take_in()
                        continue
                    read = os.read(sys.stdin.fileno(), READ)
                    *lines, arrived = (arrived + read).split(b"\n")
                    for line in lines:
                        word = json.loads(line)
                        if "stop" in word:
                            return True
                        self._start(word["place"])
                    if not read:
                        return False

    def _start(self, order_ids: list[str]) -> None:
        for order_id in order_ids:
            self.placed.add(order_id)
            order = {"order_id": order_id, "customer_id": "customer-7", "lines": LINES, "total": "60.40"}
            self._place(order, self._producer)
        self._producer.flush()

    def _take_in(self) -> None:
        """Read what the broker has sent, report the completed orders, and acknowledge them together."""
        try:
            while True:
                self._connection.drain_events(timeout=0)
        except (TimeoutError, BlockingIOError):
            pass
        if not self._news:
            return
        completed = dict.fromkeys(json.loads(each.body)[0][0]["order_id"] for each in self._news)
        done = [order_id for order_id in completed if order_id not in self.completed]
        self.completed.update(done)
        say({"done": done})
        self._news[-1].ack(multiple=True)
        self._news.clear()

    def close(self) -> None:
        """Delete the queues and their exchange."""
        self._consumer.cancel()
        for name in self._queues:
            self._connection.default_channel.queue_delete(name)
        self._connection.default_channel.exchange_delete(self._exchange)
        self._connection.release()


def problems(desk: Desk, workers: Workers) -> tuple[list[str], int]:
    """What was wrong, and how many executions were repeated; once the workers have ended."""
    found = []
    repeated = 0
    if missing := desk.placed - desk.completed:
        found.append(f"{len(missing)} orders were not completed, one of them {min(missing)}")
    for participant in PARTICIPANTS:
        ledger = workers.ledger(participant)
        if missing := desk.placed - ledger.keys():
            found.append(f"{participant} did not see {len(missing)} orders, one of them {min(missing)}")
        repeated += sum(times > 1 for times in ledger.values())
    return found, repeated


def run(given: argparse.Namespace) -> None:
    """From starting to ending."""
    workers = Workers(given.variant, given.namespace, given.folder)
    desk = None
    try:
        desk = Desk()  # declares the queues, before the workers use them
        workers.start()
        versions = {name: version(name) for name in ("celery", "kombu", "amqp")}
        groups = {"orchestrator": workers.pids(), "participants": [], "server": []}
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)
        say({"ready": {"versions": versions, "groups": groups}})
        told = desk.serve()
        workers.check()
        workers.end()
        if told:
            found, repeated = problems(desk, workers)
            say({"ended": {"problems": found, "repeated": repeated}})
    finally:
        workers.end()
        if desk is not None:
            desk.close()


def reachable(broker_url: str) -> bool:
    """Whether somebody listens there."""
    parts = urlsplit(broker_url)
    try:
        socket.create_connection((parts.hostname, parts.port or 5672), timeout=5).close()
    except OSError:
        return False
    return True


def _end(*_: object) -> None:
    sys.exit(0)


def main() -> int:
    """As the harness calls it."""
    parser = argparse.ArgumentParser(description="Celery's part in the benchmark.")
    parser.add_argument("--variant", choices=sorted(WORKER_OPTIONS), required=True)
    for name in ("--database-url", "--broker-url", "--namespace"):
        parser.add_argument(name, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    given = parser.parse_args()
    if not reachable(given.broker_url):
        say({"unavailable": "Celery needs the message broker, and nothing listens at the broker's address."})
        return 0
    os.environ.update(
        PEER_VARIANT=given.variant,
        PEER_NAMESPACE=given.namespace,
        PEER_BROKER_URL=given.broker_url,
        PEER_FOLDER=str(given.folder.resolve()),
    )
    signal.signal(signal.SIGTERM, _end)
    try:
        run(given)
    except DidNotStart as failed:
        print(failed, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
