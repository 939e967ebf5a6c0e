"""A small AMQP 0-9-1 client for the load and the participants: whole bursts in one write, no work beyond the contract.

It is not a contender. It keeps the share of CPU that the benchmark itself takes small, and the same for everyone: what
is measured should be the orchestrating service, the broker and the database. One connection, one channel, no
reconnecting: a lost connection ends the process and with it the round.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast
from urllib.parse import unquote, urlsplit

from pamqp import commands, frame
from pamqp.base import Frame
from pamqp.encode import field_table
from pamqp.header import ProtocolHeader

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
DELIVER = (60 << 16) | 60
CONFIRM = (60 << 16) | 80
REJECTED = (60 << 16) | 120
FRAME = struct.Struct(">BHI")
FRAME_END = b"\xce"
CHANNEL = 1
SHORT_PROPERTIES = ((0x8000, "content_type"), (0x4000, "content_encoding"))
CONTENT_TYPE, HEADERS, DELIVERY_MODE, PRIORITY = 0x8000, 0x2000, 0x1000, 0x0800
CORRELATION_ID, REPLY_TO, EXPIRATION, MESSAGE_ID = 0x0400, 0x0200, 0x0100, 0x0080
TIMESTAMP, TYPE, USER_ID, APP_ID = 0x0040, 0x0020, 0x0010, 0x0008
PERSISTENT = 2


class LinkLost(ConnectionError):  # noqa: N818 - names the situation
    """The broker closed the connection or the channel, with its words, or the connection broke."""


@dataclass(frozen=True, slots=True)
class Received:
    """One delivery, of which only what a participant needs was read."""

    tag: int
    body: bytes
    correlation_id: str
    reply_to: str
    message_id: str


class Link(asyncio.Protocol):
    """One connection with one channel in confirm mode.

    `on_deliveries` gets every burst of deliveries as it was read from the socket, `on_confirms` is called after every
    burst of confirms. Publishes and acknowledgements are collected and leave in one write with `flush`.
    """

    def __init__(self) -> None:
        self.on_deliveries: Callable[[Sequence[Received]], None] = lambda _: None
        self.on_confirms: Callable[[], None] = lambda: None
        self.server_version = ""
        self.unconfirmed: dict[int, int] = {}
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport | None = None
        self._unread = b""
        self._out: list[bytes] = []
        self._published = 0
        self._answers: deque[asyncio.Future[Frame]] = deque()
        self._half: tuple[int, bytes] | None = None
        self._header: tuple[str, str, str, int] = ("", "", "", 0)
        self._parts: list[bytes] = []

    @classmethod
    async def open(cls, url: str) -> Link:
        """Connect, log in, open the channel and ask for confirms.

        Raises:
            LinkLost: the broker refused.
            OSError: it is not there.
        """
        parts = urlsplit(url)
        link = cls()
        await asyncio.get_running_loop().create_connection(
            lambda: link, parts.hostname or "127.0.0.1", parts.port or 5672
        )
        start = link._expect()
        link._write(ProtocolHeader().marshal())
        greeting = await start
        if isinstance(greeting, commands.Connection.Start):
            link.server_version = str(greeting.server_properties["version"])
        login = f"\0{unquote(parts.username or 'guest')}\0{unquote(parts.password or 'guest')}"
        await link.call(commands.Connection.StartOk({}, "PLAIN", login, "en_US"), channel=0)
        link._send(commands.Connection.TuneOk(channel_max=8, frame_max=131072, heartbeat=0), channel=0)
        path = unquote(parts.path[1:])
        await link.call(commands.Connection.Open(virtual_host=path or "/"), channel=0)
        await link.call(commands.Channel.Open())
        await link.call(commands.Confirm.Select())
        return link

    async def call(self, request: Frame, *, channel: int = CHANNEL) -> Frame:
        """Send a method that the broker answers, and wait for the answer."""
        answer = self._expect()
        self._send(request, channel=channel)
        return await answer

    async def declare(self, exchange: str, *, kind: str) -> None:
        await self.call(commands.Exchange.Declare(exchange=exchange, exchange_type=kind, durable=True))

    async def consume(self, queue: str, *, prefetch: int) -> None:
        await self.call(commands.Basic.Qos(prefetch_count=prefetch))
        await self.call(commands.Basic.Consume(queue=queue))

    def publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        *,
        name: str,
        message_id: str,
        app_id: str,
        correlation_id: str = "",
        headers: Mapping[str, str | int],
        answers: int = 0,
    ) -> None:
        """Put one persistent message into the next burst. `answers` is a number kept with it until it is confirmed."""
        method = b"".join(
            (struct.pack(">IH", (60 << 16) | 40, 0), _short(exchange), _short(routing_key), b"\x00")  # not mandatory
        )
        flags = (
            CONTENT_TYPE
            | HEADERS
            | DELIVERY_MODE
            | MESSAGE_ID
            | TYPE
            | APP_ID
            | ((correlation_id and CORRELATION_ID) or 0)
        )
        header = b"".join(
            (
                struct.pack(">HHQH", 60, 0, len(body), flags),
                _short("application/json"),
                field_table(dict(headers)),
                bytes((PERSISTENT,)),
                _short(correlation_id) if correlation_id else b"",
                _short(message_id),
                _short(name),
                _short(app_id),
            )
        )
        self._out += (_frame(METHOD, method), _frame(HEADER, header), _frame(BODY, body))
        self._published += 1
        self.unconfirmed[self._published] = answers

    def acknowledge_through(self, tag: int) -> None:
        """Put an acknowledgement of everything up to `tag` into the next burst."""
        self._out.append(_frame(METHOD, struct.pack(">IQB", CONFIRM, tag, 1)))

    def flush(self) -> None:
        """Write everything collected, at once."""
        if self._out:
            self._write(b"".join(self._out))
            self._out.clear()

    def close(self) -> None:
        """Break the connection off; what is unacknowledged goes back to its queue."""
        if self._transport:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(LinkLost(str(exc or "closed")))

    def data_received(self, data: bytes) -> None:
        data = self._unread + data if self._unread else data
        start, end = 0, len(data)
        deliveries: list[Received] = []
        confirmed = False
        while end - start >= FRAME.size:
            kind, _, size = FRAME.unpack_from(data, start)
            after = start + FRAME.size + size + 1
            if after > end:
                break
            payload = data[start + FRAME.size : after - 1]
            if kind == BODY:
                self._take_body(payload, deliveries)
            elif kind == HEADER:
                self._header = _properties(payload)
                self._parts = []
            elif kind == METHOD:
                confirmed |= self._take_method(payload, data[start:after])
            start = after
        self._unread = data[start:]
        if deliveries:
            self.on_deliveries(deliveries)
        if confirmed:
            self.on_confirms()

    def _take_body(self, payload: bytes, deliveries: list[Received]) -> None:
        self._parts.append(payload)
        correlation_id, reply_to, message_id, size = self._header
        body = payload if len(self._parts) == 1 else b"".join(self._parts)
        if self._half is not None and len(body) == size:
            deliveries.append(Received(self._half[0], body, correlation_id, reply_to, message_id))
            self._half = None

    def _take_method(self, payload: bytes, whole: bytes) -> bool:
        """Whether it confirmed something of ours."""
        method = int.from_bytes(payload[:4], "big")
        if method == DELIVER:
            tag_at = 5 + payload[4]
            self._half = (int.from_bytes(payload[tag_at : tag_at + 8], "big"), payload)
            return False
        if method == CONFIRM:
            self._settle(int.from_bytes(payload[4:12], "big"), multiple=bool(payload[12]))
            return True
        if method == REJECTED:
            self._fail(LinkLost("the broker rejected a message"))
            return False
        self._take_answer(whole)
        return False

    def _take_answer(self, whole: bytes) -> None:
        _, _, answer = frame.unmarshal(whole)
        if isinstance(answer, commands.Channel.Close | commands.Connection.Close):
            self._fail(LinkLost(f"{answer.reply_code} {answer.reply_text}"))
        elif isinstance(answer, Frame) and self._answers:
            waiting = self._answers.popleft()
            if not waiting.done():
                waiting.set_result(answer)

    def _settle(self, tag: int, *, multiple: bool) -> None:
        if not multiple:
            self.unconfirmed.pop(tag, None)
            return
        for published in list(self.unconfirmed):
            if published > tag:
                break
            del self.unconfirmed[published]

    def _expect(self) -> asyncio.Future[Frame]:
        answer: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        self._answers.append(answer)
        return answer

    def _send(self, method: Frame, *, channel: int) -> None:
        self._write(frame.marshal(method, channel))

    def _write(self, data: bytes) -> None:
        if self._transport is None or self.lost.done():
            raise LinkLost("not connected")
        self._transport.write(data)

    def _fail(self, error: LinkLost) -> None:
        if not self.lost.done():
            self.lost.set_exception(error)
            self.lost.exception()  # seen, so that nobody is warned about it at exit
        for answer in self._answers:
            if not answer.done():
                answer.set_exception(error)


def _short(text: str) -> bytes:
    encoded = text.encode()
    return bytes((len(encoded),)) + encoded


def _frame(kind: int, payload: bytes) -> bytes:
    return FRAME.pack(kind, CHANNEL, len(payload)) + payload + FRAME_END


def _properties(payload: bytes) -> tuple[str, str, str, int]:
    """`correlation_id`, `reply_to`, `message_id` and the size of the body; everything else is stepped over."""
    _, _, size, flags = struct.unpack_from(">HHQH", payload)
    at = 14
    found = {CORRELATION_ID: "", REPLY_TO: "", MESSAGE_ID: ""}
    for flag in (
        CONTENT_TYPE,
        0x4000,
        HEADERS,
        DELIVERY_MODE,
        PRIORITY,
        CORRELATION_ID,
        REPLY_TO,
        EXPIRATION,
        MESSAGE_ID,
    ):
        if not flags & flag:
            continue
        if flag == HEADERS:
            at += 4 + int.from_bytes(payload[at : at + 4], "big")
        elif flag in (DELIVERY_MODE, PRIORITY):
            at += 1
        else:
            length = payload[at]
            if flag in found:
                found[flag] = payload[at + 1 : at + 1 + length].decode()
            at += 1 + length
    return found[CORRELATION_ID], found[REPLY_TO], found[MESSAGE_ID], size
