"""A process's own standard input and output as JSON lines; what is said within one turn of the loop leaves together."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LINE_LIMIT = 1 << 24


async def heard() -> AsyncIterator[dict[str, Any]]:
    """Every line of standard input until its end."""
    reader = asyncio.StreamReader(limit=LINE_LIMIT)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield orjson.loads(line)


def say(said: object) -> None:
    """Write one line to standard output."""
    sys.stdout.buffer.write(orjson.dumps(said) + b"\n")
    sys.stdout.buffer.flush()


class Gathered:
    """Order ids that are told as one line `{key: [...]}` at the end of the loop's turn."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._ids: list[str] = []

    def add(self, order_id: str) -> None:
        if not self._ids:
            asyncio.get_running_loop().call_soon(self._tell)
        self._ids.append(order_id)

    def _tell(self) -> None:
        ids, self._ids = self._ids, []
        say({self._key: ids})
