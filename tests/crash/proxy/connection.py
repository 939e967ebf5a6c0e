"""One connection through the proxy: two pumps, one for each direction, that carry bytes and act where a rule says."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import socket
import struct
from typing import TYPE_CHECKING

from tests.crash.proxy.faults import Fate, Moment
from tests.crash.proxy.wire import Direction, WireError

if TYPE_CHECKING:
    from tests.crash.proxy.rules import Rule
    from tests.crash.proxy.server import Proxy
    from tests.crash.proxy.wire import Event, Parser, Unit

CHUNK = 1 << 16
RESET_AT_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: on, zero seconds


def reset(writer: asyncio.StreamWriter) -> None:
    """Close a socket so that its peer sees a reset, not an orderly end."""
    connected = writer.get_extra_info("socket")
    if connected is not None and connected.fileno() >= 0:
        with contextlib.suppress(OSError):
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
    writer.transport.abort()


class Connection:
    """A client's connection and its twin to the server."""

    def __init__(
        self,
        proxy: Proxy,
        number: int,
        parser: Parser,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self.proxy, self.number, self.parser = proxy, number, parser
        self.open = asyncio.Event()  # cleared while this connection is a black hole
        self.open.set()
        self._writers = (client[1], server[1])
        for writer in self._writers:
            writer.transport.set_write_buffer_limits(high=0)  # so that `drain` means: the kernel has it
        self._pumps = (
            Pump(self, Direction.C2S, source=client[0], sink=server[1], back=client[1]),
            Pump(self, Direction.S2C, source=server[0], sink=client[1], back=server[1]),
        )

    async def run(self) -> None:
        """Forward both ways until both have ended."""
        async with asyncio.TaskGroup() as group:
            for pump in self._pumps:
                group.create_task(pump.run())

    def reset(self) -> None:
        """Reset both sides."""
        for writer in self._writers:
            reset(writer)

    def close(self) -> None:
        """Close both sides in order: each can still read what was sent to it."""
        for writer in self._writers:
            writer.close()


class Pump:
    """One direction of a connection, and the place an action stands on (`faults.Line`)."""

    def __init__(
        self,
        connection: Connection,
        direction: Direction,
        *,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        back: asyncio.StreamWriter,
    ) -> None:
        self._connection, self._proxy, self._direction = connection, connection.proxy, direction
        self._source, self._sink, self._back = source, sink, back
        self._swallowed: set[int] = set()
        self._ended = False

    # Carrying.

    async def run(self) -> None:
        """Forward until the source ends. A source that breaks takes the connection with it."""
        try:
            while data := await self._source.read(CHUNK):
                if not self._ended:  # what comes after the end is read and forgotten
                    await self._carry(data)
            await self.opened()
            self.leave_receiver()
        except OSError:
            self._connection.close()
        except WireError as error:
            self._proxy.complaints.append(f"connection {self._connection.number}: {error}")
            self._connection.reset()

    async def _carry(self, data: bytes) -> None:
        for unit in self._connection.parser.feed(self._direction, data):
            await self.opened()
            if unit.answer:
                self._back.write(unit.answer)
            await self._carry_unit(unit)
            if self._ended:
                return
        await self._sink.drain()

    async def _carry_unit(self, unit: Unit) -> None:
        events = [dataclasses.replace(event, connection=self._connection.number) for event in unit.events]
        due = [(rule, event) for event in events for rule in self._proxy.seen_on_wire(event)]
        fate = await self._act([pair for pair in due if pair[0].side == "before"])
        if self._is_swallowed(unit, fate):
            return
        if fate is Fate.FORWARD and not self._ended and not self._sink.is_closing():
            self._sink.write(unit.data)
            fate = await self._act_after([pair for pair in due if pair[0].side == "after"])
        self._ended = self._ended or fate is Fate.END

    async def _act(self, due: list[tuple[Rule, Event]]) -> Fate:
        """Carry the rules out in order, until one of them decides over the bytes."""
        for rule, event in due:
            rule.fires()
            moment = Moment(event=event, side=rule.side, line=self)
            for action in rule.actions:
                fate = await action(moment)
                if fate is not Fate.FORWARD:
                    return fate
        return Fate.FORWARD

    async def _act_after(self, due: list[tuple[Rule, Event]]) -> Fate:
        if not due:
            return Fate.FORWARD
        await self._sink.drain()
        return await self._act(due)

    def _is_swallowed(self, unit: Unit, fate: Fate) -> bool:
        if unit.group is None:
            return fate is Fate.SWALLOW
        if fate is Fate.SWALLOW:
            self._swallowed.add(unit.group)
        return unit.group in self._swallowed

    # What actions may do here.

    def cut(self, *, gently: bool) -> None:
        """See `faults.Line`."""
        self._ended = True
        if gently:
            self._sink.close()
            reset(self._back)
        else:
            self._connection.reset()

    def black_hole(self) -> None:
        """See `faults.Line`."""
        self._connection.open.clear()

    def send(self, data: bytes) -> None:
        """See `faults.Line`."""
        self._sink.write(data)

    def answer(self, data: bytes) -> None:
        """See `faults.Line`."""
        self._back.write(data)

    def leave_receiver(self) -> None:
        """See `faults.Line`."""
        self._ended = True
        if not self._sink.is_closing() and self._sink.can_write_eof():
            self._sink.write_eof()

    async def opened(self) -> None:
        """See `faults.Line`."""
        await self._connection.open.wait()
        await self._proxy.opened()

    async def healed(self) -> None:
        """See `faults.Line`."""
        await self._proxy.healed()
