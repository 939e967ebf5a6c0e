"""Between the socket and the protocol library: sees every frame before it does.

The library keeps to itself that the broker has blocked a connection and why it closed one: the tap notes it. What
messages consist of goes straight to the `Inlet` of its channel; the library never sees it, and could not lose a
connection over one message whose properties it cannot decode. Everything else passes through as it came.
"""

from __future__ import annotations

import struct
from asyncio import IncompleteReadError
from typing import TYPE_CHECKING, Any, cast

from aiormq.connection import TCPTransportFactory, TLSTransportFactory, TransportFactory
from aiormq.exceptions import ProtocolSyntaxError
from pamqp import decode

from transport.rabbitmq.frames import ALIVE, BODY, FRAME, HEADER, HEARTBEAT, METHOD

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping

    from yarl import URL

    from transport.rabbitmq.inlet import Inlet

_READ_SIZE = 256 * 1024
_FRAME_TYPES = frozenset({METHOD, HEADER, BODY, HEARTBEAT})
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

    def __init__(self, reader: asyncio.StreamReader, notice: Notice, inlets: Mapping[int, Inlet]) -> None:
        """`inlets` are looked up by channel number with every frame."""
        self._reader = reader
        self._notice = notice
        self._inlets = inlets
        self._read = b""  # from the socket, of which everything before `_done` is done with
        self._done = 0
        self._frame = b""  # for the library, which has got everything before `_at`
        self._at = 0
        self._kept = False  # something was kept from the library since it last heard anything

    def at_eof(self) -> bool:
        """See `asyncio.StreamReader.at_eof`."""
        return self._at == len(self._frame) and self._done == len(self._read) and self._reader.at_eof()

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
        while True:
            while (frame := self._split()) is not None:
                if not self._takes(frame):
                    self._kept = False
                    return frame
            if self._kept:  # or the library would take a busy connection for a dead one
                self._kept = False
                return ALIVE
            await self._fill()

    async def _fill(self) -> None:
        more = await self._reader.read(_READ_SIZE)
        rest = self._read[self._done :]
        if not more:
            raise IncompleteReadError(rest, len(rest) + 1)
        self._read, self._done = rest + more, 0

    def _split(self) -> bytes | None:
        """The next frame of what was read, if all of it is there."""
        begin = self._done
        if len(self._read) - begin < FRAME.size:
            return None
        if self._read.startswith(b"AMQP", begin):
            size = FRAME.size + 1  # the protocol header of another version
        else:
            kind, _, length = FRAME.unpack_from(self._read, begin)
            if kind not in _FRAME_TYPES:
                raise ProtocolSyntaxError(f"{self._read[begin : begin + 7]!r} does not begin an AMQP frame")
            size = FRAME.size + length + 1
        if len(self._read) - begin < size:
            return None
        self._done = begin + size
        return self._read[begin : self._done]

    def _takes(self, frame: bytes) -> bool:
        """Whether this frame is for an inlet, which has it then."""
        kind, channel, _ = FRAME.unpack_from(frame)
        if channel == 0:
            if kind == METHOD:
                self._notice.hear(frame[FRAME.size :])
            return False
        inlet = self._inlets.get(channel)
        if inlet is None or not inlet.take(kind, frame[FRAME.size : -1]):
            return False
        self._kept = True
        return True


class TappedTransport(TransportFactory):
    """Opens the socket as the library does and puts a tap on it. `inlets` are those of its channels, by number."""

    def __init__(self, notice: Notice) -> None:
        self.inlets: dict[int, Inlet] = {}
        self._notice = notice
        self._writer: asyncio.StreamWriter | None = None

    async def write(self, frames: bytes, sent: Callable[[], None], *, drain: bool) -> None:
        """Write whole frames at once, and call `sent` in the same breath; then wait until the socket takes more.

        The library would have them go through a queue and two tasks. It writes whole frames, too, so that those of both
        never mix.

        Raises:
            ConnectionError: the connection is lost; before `sent`, nothing was written.
        """
        writer = self._writer
        if writer is None or writer.is_closing():
            raise ConnectionError("the connection was lost")
        writer.write(frames)
        sent()
        if drain:
            await writer.drain()

    def abort(self) -> None:
        """Drop the socket at once, with whatever has not been sent."""
        if self._writer is not None:
            self._writer.transport.abort()

    async def create(self, url: URL, **kwargs: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:  # noqa: ANN401
        """See `TransportFactory.create`."""
        factory = TLSTransportFactory() if url.scheme == "amqps" else TCPTransportFactory()
        reader, writer = await factory.create(url, **kwargs)
        self._writer = writer
        return cast("asyncio.StreamReader", Tap(reader, self._notice, self.inlets)), writer
