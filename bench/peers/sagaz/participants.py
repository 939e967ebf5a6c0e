"""The three participants: each counts an order in its ledger in memory and answers; as a process or called directly."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any, cast

import lines
import orjson
import uvloop

ANSWERS = {"stock": "reservation_id", "payment": "payment_id", "warehouse": "tracking_code"}
LEDGERS: dict[str, Counter[str]] = {name: Counter() for name in ANSWERS}


def carry_out(name: str, asked: dict[str, Any]) -> dict[str, Any]:
    """Do a participant's step for one order."""
    order_id = asked["order_id"]
    LEDGERS[name][order_id] += 1
    return {ANSWERS[name]: f"{name}-{order_id}"}


def take_back(name: str, asked: dict[str, Any]) -> dict[str, Any]:
    """Undo a participant's step for one order."""
    LEDGERS[name][f"undone {asked['order_id']}"] += 1
    return {}


VERBS = {
    ("stock", "reserve"): carry_out,
    ("stock", "release"): take_back,
    ("payment", "pay"): carry_out,
    ("payment", "refund"): take_back,
    ("warehouse", "label"): carry_out,
    ("warehouse", "void"): take_back,
}


class Desk(asyncio.Protocol):
    """One connection of an orchestrator: lines `[number, participant, verb, body]`, answered by `[number, answer]`."""

    def __init__(self) -> None:
        self._unread = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        *whole, self._unread = (self._unread + data).split(b"\n")
        answers = []
        for line in whole:
            number, name, verb, asked = orjson.loads(line)
            answers.append(orjson.dumps([number, VERBS[name, verb](name, asked)]) + b"\n")
        self._transport.write(b"".join(answers))


async def serve() -> None:
    """Listen on a free port, tell it, and answer until standard input ends; `{"stop": true}` asks for the ledgers."""
    server = await asyncio.get_running_loop().create_server(Desk, "127.0.0.1", 0)
    lines.say({"port": server.sockets[0].getsockname()[1]})
    async for _ in lines.heard():
        lines.say({"ledgers": LEDGERS})


if __name__ == "__main__":
    uvloop.run(serve())
