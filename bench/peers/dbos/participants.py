"""The participants of the ordering saga as a process of its own: counts what it is asked to do, and answers.

Requests and answers are lines of JSON over keep-alive TCP connections on loopback. The ledger is told on standard
output when a line with `ledger` arrives on standard input; at its end, or at SIGTERM, the process ends.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections import Counter
from typing import TYPE_CHECKING

import orjson
import uvloop

if TYPE_CHECKING:
    from collections.abc import Mapping

ANSWERS = {"stock": "reservation_id", "payment": "payment_id", "warehouse": "tracking_code"}


class Ledger:
    """How often each participant was asked to do, and to undo, its part of each order."""

    def __init__(self) -> None:
        self._done = {name: Counter[str]() for name in ANSWERS}
        self._undone = {name: Counter[str]() for name in ANSWERS}

    def handle(self, request: Mapping[str, str]) -> dict[str, str]:
        """Carry out one request: nothing but counting."""
        name, order_id = request["to"], request["order_id"]
        if "undo" in request:
            self._undone[name][order_id] += 1
            return {}
        self._done[name][order_id] += 1
        return {ANSWERS[name]: f"{name}-{order_id}"}

    def told(self) -> bytes:
        return orjson.dumps(self._done) + b"\n"


class Connection(asyncio.Protocol):
    """Answers each line with a line, in order."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        answers = [orjson.dumps(self._ledger.handle(orjson.loads(line))) for line in lines]
        if answers:
            self._transport.write(b"\n".join(answers) + b"\n")  # type: ignore[attr-defined]


async def serve() -> None:
    """Tell the port, then answer until standard input ends."""
    loop = asyncio.get_running_loop()
    ledger = Ledger()
    server = await loop.create_server(lambda: Connection(ledger), "127.0.0.1", 0, backlog=1024)
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)

    def asked() -> None:
        line = sys.stdin.buffer.readline()
        if not line:
            loop.remove_reader(sys.stdin)
            ended.set()
        else:
            sys.stdout.buffer.write(ledger.told())
            sys.stdout.buffer.flush()

    loop.add_reader(sys.stdin, asked)
    print(server.sockets[0].getsockname()[1], flush=True)
    await ended.wait()
    server.close()


if __name__ == "__main__":
    uvloop.run(serve())
