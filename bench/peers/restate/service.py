"""One service process: serves Restate services over HTTP/2 until its standard input ends, then writes its ledger."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import sys

import orjson
import participants
import restate
import uvloop
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP2Settings
from granian.server.embed import Server

import sagas

ROLES = {
    "calls": [sagas.calling],
    "inside": [sagas.inside],
    "participants": [participants.stock, participants.payment, participants.warehouse],
}

LAST_ANSWERS = 1.0  # seconds


async def input_ends() -> None:
    """Wait until the driver closes the pipe, or is gone."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()


async def serve(role: str, port: int) -> None:
    """Serve, and in the end write what the participants of this process saw."""
    server = Server(
        restate.app(ROLES[role]),
        address="127.0.0.1",
        port=port,
        interface=Interfaces.ASGI,
        http=HTTPModes.http2,
        http2_settings=HTTP2Settings(max_concurrent_streams=1000),
        websockets=False,
        log_enabled=False,
        backpressure=10_000,
    )
    serving = asyncio.create_task(server.serve())
    await input_ends()
    with contextlib.suppress(BrokenPipeError):  # where the driver is gone
        sys.stdout.buffer.write(orjson.dumps(participants.ledger) + b"\n")
        sys.stdout.buffer.flush()
    server.stop()
    await asyncio.wait([serving], timeout=LAST_ANSWERS)
    os._exit(0)  # the server would wait for every stream to be closed by the other side


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--role", choices=ROLES, required=True)
    parser.add_argument("--port", type=int, required=True)
    asked = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    uvloop.run(serve(asked.role, asked.port))


if __name__ == "__main__":
    main()
