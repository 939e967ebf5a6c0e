"""A lean HTTP/1.1 client of the ingress: keep-alive connections, one saga at a time on each."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

import orjson

if TYPE_CHECKING:
    from collections.abc import Callable

HEAD_ENDS = b"\r\n\r\n"
LENGTH = b"content-length: "
STATUS = slice(9, 12)


def request(order_id: str) -> bytes:
    """Start the saga of an order and wait for its result; its idempotency key is the order's id."""
    body = orjson.dumps(
        {
            "order_id": order_id,
            "customer_id": "customer-7",
            "lines": [
                {"sku": "kettle", "quantity": 1, "unit_price": "34.90"},
                {"sku": "tea-250g", "quantity": 3, "unit_price": "8.50"},
            ],
            "total": "60.40",
        }
    )
    return (
        "POST /Ordering/place HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"idempotency-key: {order_id}\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode() + body


class Connection(asyncio.Protocol):
    """One connection; carries one request at a time."""

    def __init__(self, ingress: Ingress) -> None:
        self.order = ""
        self._ingress = ingress
        self._transport: asyncio.Transport
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def send(self, order: str) -> None:
        """Start a saga."""
        self.order = order
        self._transport.write(request(order))

    def close(self) -> None:
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        data = self._received = self._received + data
        ends = data.find(HEAD_ENDS)
        if ends < 0:
            return
        at = data.find(LENGTH, 0, ends)
        length = int(data[at + len(LENGTH) : data.index(b"\r", at)]) if at > 0 else 0
        if len(data) < ends + len(HEAD_ENDS) + length:
            return
        self._received = b""
        if data[STATUS] == b"200":
            self._ingress.completed(self)
        else:
            self._ingress.fail(f"order {self.order} was answered {data[:300]!r}")

    def connection_lost(self, exc: Exception | None) -> None:
        self._ingress.lost(self)


class Ingress:
    """Starts sagas and tells of those that are completed, and of problems."""

    def __init__(self, port: int, done: Callable[[str], None], fail: Callable[[str], None]) -> None:
        self.fail = fail
        self._port = port
        self._done = done
        self._idle: list[Connection] = []
        self._all: set[Connection] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._closed = False

    def place(self, order: str) -> None:
        """Start the saga of an order at once."""
        if self._idle:
            self._idle.pop().send(order)
            return
        task = asyncio.get_running_loop().create_task(self._open(order))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    def completed(self, connection: Connection) -> None:
        order, connection.order = connection.order, ""
        self._idle.append(connection)
        self._done(order)

    def lost(self, connection: Connection) -> None:
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if connection.order and not self._closed:
            self.fail(f"the ingress closed the connection of order {connection.order}")

    def close(self) -> None:
        self._closed = True
        for task in self._opening:
            task.cancel()
        for connection in self._all:
            connection.close()

    async def _open(self, order: str) -> None:
        try:
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: Connection(self), "127.0.0.1", self._port
            )
        except OSError as e:
            self.fail(f"order {order} could not be placed: {e}")
            return
        self._all.add(connection)
        connection.send(order)
