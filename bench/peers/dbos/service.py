"""One process of the DBOS application: takes order ids from standard input, tells completed ones on standard output.

`ledger` on standard input is answered with the ledger of the steps carried out here (variant `inside`). The process
ends at SIGTERM, at the end of standard input, and with 1 when a saga raised; what was pending is recovered by the next
launch with the same executor id.
"""

from __future__ import annotations

import argparse
import gc
import os
import queue
import signal
import socket
import sys
import threading
import traceback
from typing import Any

import orjson
import sqlalchemy as sa
from dbos import DBOS, SetWorkflowID
from engine import ENGINES
from ordering import ordering, reach_participants
from participants import Ledger

WORKERS = 16  # threads that carry sagas, with a connection to the database each


class Line(threading.local):
    """A keep-alive connection to the participants, one for each thread that uses it."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, request: dict[str, Any]) -> dict[str, str]:
        self._socket.sendall(orjson.dumps(request) + b"\n")
        answer = b""
        while not answer.endswith(b"\n"):
            received = self._socket.recv(65536)
            if not received:
                raise ConnectionError("the participants have hung up")
            answer += received
        return orjson.loads(answer)


def order_of(order_id: str) -> dict[str, Any]:
    """The body of the order."""
    return {
        "order_id": order_id,
        "customer_id": "customer-7",
        "lines": [
            {"sku": "kettle", "quantity": 1, "unit_price": "34.90"},
            {"sku": "tea-250g", "quantity": 3, "unit_price": "8.50"},
        ],
        "total": "60.40",
    }


def carry(placed: queue.SimpleQueue[str]) -> None:
    """Run one saga after the other; each is told as soon as DBOS has committed its outcome."""
    try:
        while True:
            order_id = placed.get()
            with SetWorkflowID(order_id):
                ordering(order_of(order_id))
            os.write(1, order_id.encode() + b"\n")
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


class Counts:
    """Statements and commits of an engine."""

    def __init__(self, engine: sa.Engine) -> None:
        self.statements = self.commits = 0
        sa.event.listen(engine, "before_cursor_execute", self._statement)
        sa.event.listen(engine, "commit", self._commit)

    def _statement(self, *_: object) -> None:
        self.statements += 1

    def _commit(self, _: object) -> None:
        self.commits += 1

    def told(self) -> bytes:
        return orjson.dumps({"statements": self.statements, "commits": self.commits}) + b"\n"


def launch(url: str, engine: sa.Engine, executor: str) -> None:
    """Start DBOS on this database, without telemetry."""
    DBOS(
        config={
            "name": "ordering",
            "executor_id": executor,
            "application_version": "1",
            "log_level": "WARNING",
            "enable_otlp": False,
            "system_database_url": url,
            "system_database_engine": engine,
        }
    )
    DBOS.launch()


def main() -> None:
    parser = argparse.ArgumentParser(description="One process of the DBOS application.")
    parser.add_argument("--database-url", required=True)
    parser.add_argument("--executor", required=True, help="who this is to DBOS; recovers what it left pending")
    parser.add_argument("--engine", choices=sorted(ENGINES), required=True)
    parser.add_argument("--participants", type=int, help="their port; without it the steps are carried out here")
    given = parser.parse_args()
    ledger = Ledger()
    reach_participants(Line(given.participants).ask if given.participants else ledger.handle)
    engine = ENGINES[given.engine](given.database_url, WORKERS + 4)
    launch(given.database_url, engine, given.executor)
    counts = Counts(engine) if given.engine == "sqlite" else None
    placed: queue.SimpleQueue[str] = queue.SimpleQueue()
    for _ in range(WORKERS):
        threading.Thread(target=carry, args=(placed,), daemon=True).start()
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    os.write(1, b"ready\n")
    for line in sys.stdin:
        if line == "count\n" and counts is not None:
            os.write(1, counts.told())
        elif line == "ledger\n":
            sys.stdout.buffer.write(ledger.told())
            sys.stdout.buffer.flush()
        else:
            for order_id in line.split():
                placed.put(order_id)
    os._exit(0)


if __name__ == "__main__":
    main()
