"""An AMQP channel for bursts: one write for many frames, and deliveries and confirms without a task for each.

The client library's channel takes one lock, one future and one queue slot per message out and starts one task per
message in, and it finds a returned message by its id alone, so that two copies of one id in flight are confused. This
one leaves opening, closing and calls to the library; messages and confirms take the way of its `Inlet`, and what it
sends goes straight to the socket.
"""

from __future__ import annotations

import asyncio
from itertools import count
from typing import TYPE_CHECKING

from aiormq.channel import Channel

from transport.rabbitmq import frames
from transport.rabbitmq.address import said
from transport.rabbitmq.inlet import Inlet

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Self

    from aiormq.connection import Connection

    from transport.rabbitmq.inlet import Listener
    from transport.rabbitmq.tap import TappedTransport


class BurstChannel(Channel):
    """A channel whose messages go to a `Listener`."""

    def __init__(
        self, connection: Connection, number: int, tap: TappedTransport, inlet: Inlet, *, confirms: bool
    ) -> None:
        super().__init__(connection, number, publisher_confirms=confirms, frame_buffer=None, on_return_raises=False)
        self._tap = tap
        self._inlet = tap.inlets[number] = inlet  # in the place of whatever had the number before

    @classmethod
    async def opened(cls, connection: Connection, tap: TappedTransport, listener: Listener, *, confirms: bool) -> Self:
        """Open a channel under the lowest free number. The caller bounds it. `tap` is that of the connection."""
        number = next(number for number in count(1) if number not in connection.channels)
        channel = cls(connection, number, tap, Inlet(listener), confirms=confirms)
        connection.channels[number] = channel
        await channel.open()
        return channel

    def mute(self) -> None:
        """Whatever still arrives on this channel is nobody's."""
        self._inlet.mute()

    async def send(self, payload: bytes, sent: Callable[[], None], *, drain: bool) -> None:
        """Put frames on their way in one write, and call `sent` in the same breath.

        Raises:
            ConnectionError: channel or connection is closed; before `sent`, nothing was written.
        """
        if self.is_closed:
            raise ConnectionError("the channel was closed")
        await self._tap.write(payload, sent, drain=drain)

    async def acknowledge(self, tags: Sequence[tuple[int, bool]]) -> None:
        """Acknowledge (tag, multiple) pairs in one write."""
        await self.send(frames.acknowledgements(self.number, tags), lambda: None, drain=False)

    async def ended(self) -> None:
        """Wait until the channel is closed."""
        await asyncio.wait([self.closing])

    @property
    def failure(self) -> BaseException | None:
        """What closed it: an `AMQPChannelError` when the broker did so over something we asked; None while open."""
        closing = self.closing
        if not closing.done():
            closing.cancel()  # it is an observer of our own
            return None
        return asyncio.CancelledError() if closing.cancelled() else closing.exception()

    @property
    def reason(self) -> str:
        """Why it closed, in words."""
        return said(self.failure) if self.is_closed else "open"
