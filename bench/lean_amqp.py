"""A small AMQP 0-9-1 client for the load and the participants: whole bursts in one write, no work beyond the contract.

It is not a contender. It keeps the share of CPU that the benchmark itself takes small, and the same for everyone: what
is measured should be the orchestrating service, the broker and the database. One connection, one channel, no
reconnecting: a lost connection ends the process and with it the round.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast
from urllib.parse import unquote, urlsplit

from pamqp import commands, frame
from pamqp.base import Frame
from pamqp.header import ProtocolHeader

from bench import frames

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.frames import Content, Outgoing

UNASKED = (commands.Channel.Close, commands.Connection.Close, commands.Basic.Cancel)
"""What the broker sends on its own, all of them the end of us."""


class LinkLost(ConnectionError):  # noqa: N818 - names the situation
    """The broker closed the connection or the channel, with its words, or the connection broke."""


@dataclass(frozen=True, slots=True)
class Received:
    """One delivery."""

    tag: int
    content: Content
    body: bytes


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
        self._tag = 0
        self._content: Content | None = None
        self._body = b""

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

    async def call(self, request: Frame, *, channel: int = frames.CHANNEL) -> Frame:
        """Send a method that the broker answers, and wait for the answer."""
        answer = self._expect()
        self._send(request, channel=channel)
        return await answer

    async def declare(self, exchange: str, *, kind: str) -> None:
        await self.call(commands.Exchange.Declare(exchange=exchange, exchange_type=kind, durable=True))

    async def consume(self, queue: str, *, prefetch: int) -> None:
        await self.call(commands.Basic.Qos(prefetch_count=prefetch))
        await self.call(commands.Basic.Consume(queue=queue))

    def publish(self, message: Outgoing, *, answers: int = 0) -> None:
        """Put one message into the next burst. `answers` is a number kept with it until it is confirmed."""
        self._out.append(frames.publish(message))
        self._published += 1
        self.unconfirmed[self._published] = answers

    def acknowledge_through(self, tag: int) -> None:
        """Put an acknowledgement of everything up to `tag` into the next burst."""
        self._out.append(frames.acknowledge_through(tag))

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
        start, end, smallest = 0, len(data), frames.PREFIX.size
        deliveries: list[Received] = []
        waiting = len(self.unconfirmed)
        while end - start >= smallest:
            kind, _, size = frames.PREFIX.unpack_from(data, start)
            after = start + smallest + size + 1
            if after > end:
                break
            payload = data[start + smallest : after - 1]
            if kind == frames.BODY:
                self._take_body(payload, deliveries)
            elif kind == frames.HEADER:
                self._content, self._body = frames.content(payload), b""
            elif kind == frames.METHOD:
                self._take_method(payload, data[start:after])
            start = after
        self._unread = data[start:]
        confirmed = len(self.unconfirmed) < waiting
        if deliveries:
            self.on_deliveries(deliveries)
        if confirmed:
            self.on_confirms()

    def _take_body(self, payload: bytes, deliveries: list[Received]) -> None:
        self._body += payload
        if self._content and len(self._body) == self._content.size:
            deliveries.append(Received(self._tag, self._content, self._body))

    def _take_method(self, payload: bytes, whole: bytes) -> None:
        method = int.from_bytes(payload[:4], "big")
        if method == frames.DELIVER:
            self._tag = frames.delivery_tag(payload)
        elif method == frames.ACKNOWLEDGE:
            self._settle(int.from_bytes(payload[4:12], "big"), multiple=bool(payload[12]))
        elif method == frames.REJECT:
            self._fail(LinkLost("the broker rejected a message"))
        else:
            self._take_answer(whole)

    def _take_answer(self, whole: bytes) -> None:
        _, _, answer = frame.unmarshal(whole)
        if isinstance(answer, UNASKED):
            self._fail(LinkLost(f"the broker sent {answer.name}: {getattr(answer, 'reply_text', '')}"))
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
