"""Calls to the participants' process over one connection that stays open: many at once, told apart by number."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import Any, cast

import orjson


class Caller(asyncio.Protocol):
    """The calling end; calls made within one turn of the loop leave in one write."""

    def __init__(self) -> None:
        self._numbers = count()
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._out: list[bytes] = []
        self._unread = b""
        self._loop = asyncio.get_running_loop()

    @classmethod
    async def open(cls, port: int) -> Caller:
        return (await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port))[1]

    def ask(self, name: str, verb: str, asked: dict[str, Any]) -> asyncio.Future[dict[str, Any]]:
        """Call a participant; the answer is to be awaited."""
        number = next(self._numbers)
        answer = self._waiting[number] = self._loop.create_future()
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(orjson.dumps([number, name, verb, asked]) + b"\n")
        return answer

    def _flush(self) -> None:
        out, self._out = self._out, []
        self._transport.write(b"".join(out))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        *whole, self._unread = (self._unread + data).split(b"\n")
        for line in whole:
            number, answer = orjson.loads(line)
            waiting = self._waiting.pop(number)
            if not waiting.done():  # its step may have timed out
                waiting.set_result(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(ConnectionError(f"the participants are gone: {exc}"))
