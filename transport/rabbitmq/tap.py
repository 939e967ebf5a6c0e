"""Between the socket and the protocol library: sees every frame, and mends the one kind that would kill a connection.

The library keeps to itself that the broker has blocked a connection and why it closed one, and it gives up the whole
connection over one message whose properties it cannot decode (a publisher in another language that sends Latin-1, or
a timestamp of the year 30000): with a prefetch of a hundred such a message would throw out its innocent neighbours
again and again. So the tap notes the former, and on request replaces undecodable properties by a single header that
holds their bytes. The message then reaches us, without an id, and becomes a dead letter like any malformed one. So do,
asked or not, headers nested so deeply that whoever walks through them later would run out of stack.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, cast

from aiormq.connection import TCPTransportFactory, TLSTransportFactory, TransportFactory
from aiormq.exceptions import ProtocolSyntaxError
from pamqp import commands, decode
from pamqp.constants import FRAME_END_CHAR
from pamqp.header import ContentHeader

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping

    from yarl import URL

UNDECODABLE_HEADER = "undecodable-properties"
MAX_DEPTH = 64  # tables and lists within one another in the headers; what a body may have

_FRAME = struct.Struct(">BHI")
_METHOD_FRAME, _HEADER_FRAME = 1, 2
_FRAME_TYPES = frozenset({_METHOD_FRAME, _HEADER_FRAME, 3, 8})
_CLOSE = (10, 50)
_BLOCKED = (10, 60)
_UNBLOCKED = (10, 61)


class Notice:
    """What the broker has said about one connection. `on_blocked` hears of every change, with the reason or None."""

    def __init__(self, on_blocked: Callable[[str | None], None]) -> None:
        self.blocked: str | None = None
        self.closed: tuple[int, str] | None = None
        self._on_blocked = on_blocked

    def hear(self, method: bytes) -> None:
        """Take note of a method frame on channel 0."""
        kind = struct.unpack(">HH", method[:4])
        if kind == _BLOCKED:
            self._block(decode.short_str(method[4:])[1] or "no reason given")
        elif kind == _UNBLOCKED:
            self._block(None)
        elif kind == _CLOSE:
            (code,) = struct.unpack(">H", method[4:6])
            self.closed = (code, decode.short_str(method[6:])[1])

    def _block(self, reason: str | None) -> None:
        self.blocked = reason
        self._on_blocked(reason)


class Tap:
    """A stream reader that hands out whole frames, piece by piece as the library asks for them."""

    def __init__(self, reader: asyncio.StreamReader, notice: Notice, *, careful: bool) -> None:
        self._reader = reader
        self._notice = notice
        self._careful = careful
        self._frame = b""
        self._at = 0

    def at_eof(self) -> bool:
        """See `asyncio.StreamReader.at_eof`."""
        return self._at == len(self._frame) and self._reader.at_eof()

    async def read(self, size: int = -1) -> bytes:
        """See `asyncio.StreamReader.read`."""
        return await self._reader.read(size)

    async def readexactly(self, size: int) -> bytes:
        """The next `size` bytes of the current frame, or of the next one when it is used up."""
        if self._at == len(self._frame):
            self._frame, self._at = await self._next(), 0
        start, self._at = self._at, self._at + size
        return self._frame[start : self._at]

    async def _next(self) -> bytes:
        head = await self._reader.readexactly(_FRAME.size)
        if head.startswith(b"AMQP"):
            return head + await self._reader.readexactly(1)  # the protocol header of another version
        kind, channel, size = _FRAME.unpack(head)
        if kind not in _FRAME_TYPES:
            raise ProtocolSyntaxError(f"{head!r} does not begin an AMQP frame")
        rest = await self._reader.readexactly(size + 1)
        if kind == _METHOD_FRAME and channel == 0:
            self._notice.hear(rest)
        elif kind == _HEADER_FRAME and (self._careful or _may_be_deep(rest)):
            return mended(head, rest)
        return head + rest


def mended(head: bytes, rest: bytes) -> bytes:
    """A content header frame as it is, or with its properties replaced when they cannot be decoded or are too deep."""
    payload = rest[:-1]
    if not _is_readable(payload):
        kind, channel, _ = _FRAME.unpack(head)
        (body_size,) = struct.unpack(">Q", payload[4:12])
        headers: dict[str, Any] = {UNDECODABLE_HEADER: bytearray(payload[12:])}
        payload = ContentHeader(body_size=body_size, properties=commands.Basic.Properties(headers=headers)).marshal()
        return _FRAME.pack(kind, channel, len(payload)) + payload + FRAME_END_CHAR
    return head + rest


def _is_readable(payload: bytes) -> bool:
    header = ContentHeader()
    try:
        header.unmarshal(payload)
    except Exception:  # whatever the library raises here would end the connection
        return False
    return not _is_too_deep(header.properties.headers or {})


def _may_be_deep(payload: bytes) -> bool:
    """Whether there are as many marks of tables and lists in it as too deep a nest needs, which is all but never so."""
    return payload.count(b"F") + payload.count(b"A") >= MAX_DEPTH


def _is_too_deep(headers: Mapping[str, object]) -> bool:
    level: list[object] = [headers]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level for inner in _inside(outer)]
    return bool(level)


def _inside(value: object) -> list[object]:
    """The tables and lists directly in a table or list."""
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [item for item in items if isinstance(item, dict | list)]


class TappedTransport(TransportFactory):
    """Opens the socket as the library does and puts a tap on it."""

    def __init__(self, notice: Notice, *, careful: bool) -> None:
        self._notice = notice
        self._careful = careful
        self._writer: asyncio.StreamWriter | None = None

    def abort(self) -> None:
        """Drop the socket at once, with whatever has not been sent."""
        if self._writer is not None:
            self._writer.transport.abort()

    async def create(self, url: URL, **kwargs: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:  # noqa: ANN401
        """See `TransportFactory.create`."""
        factory = TLSTransportFactory() if url.scheme == "amqps" else TCPTransportFactory()
        reader, writer = await factory.create(url, **kwargs)
        self._writer = writer
        return cast("asyncio.StreamReader", Tap(reader, self._notice, careful=self._careful)), writer
