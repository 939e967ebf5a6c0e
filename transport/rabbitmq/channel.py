"""An AMQP channel for bursts: one write for many frames, and deliveries and confirms without a task for each.

The client library's channel takes one lock, one future and one queue slot per message out and starts one task per
message in, and it finds a returned message by its id alone, so that two copies of one id in flight are confused. This
one leaves opening, closing and calls to the library and hands what arrives to a `Listener` as it is read.
"""

from __future__ import annotations

import asyncio
from itertools import count
from typing import TYPE_CHECKING, Protocol

import pamqp.frame
from aiormq import spec
from aiormq.abc import ChannelFrame, DeliveredMessage
from aiormq.channel import Channel
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

from transport.rabbitmq.address import said

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aiormq.abc import ConfirmationFrameType
    from aiormq.connection import Connection


class Listener(Protocol):
    """Who hears what arrives on a channel. Called in the order of arrival; must not block and not raise."""

    def delivered(self, message: DeliveredMessage) -> None:
        """A message for our consumer."""

    def returned(self, message: DeliveredMessage) -> None:
        """A mandatory message that no queue takes; its confirm follows."""

    def confirmed(self, tag: int, *, multiple: bool, taken: bool) -> None:
        """The broker has taken responsibility for a publication, or (not `taken`) could not."""


class BurstChannel(Channel):
    """A channel whose traffic goes to a `Listener`."""

    def __init__(self, connection: Connection, number: int, listener: Listener, *, confirms: bool) -> None:
        super().__init__(connection, number, publisher_confirms=confirms, frame_buffer=None, on_return_raises=False)
        self._listener = listener

    @classmethod
    async def opened(cls, connection: Connection, listener: Listener, *, confirms: bool) -> BurstChannel:
        """Open a channel under the lowest free number. The caller bounds it."""
        number = next(number for number in count(1) if number not in connection.channels)
        channel = cls(connection, number, listener, confirms=confirms)
        connection.channels[number] = channel
        await channel.open()
        return channel

    def framed_message(
        self, exchange: str, routing_key: str, properties: spec.Basic.Properties, body: bytes
    ) -> tuple[bytes, int]:
        """The frames of one mandatory publication, and the bytes of the largest that cannot be split.

        Raises:
            Exception: whatever the library raises for a value that has no AMQP form.
        """
        publish = spec.Basic.Publish(exchange=exchange, routing_key=routing_key, mandatory=True)
        header = pamqp.frame.marshal(ContentHeader(properties=properties, body_size=len(body)), self.number)
        size = self.max_content_size
        parts = (ContentBody(body[start : start + size]) for start in range(0, len(body), size))
        frames = [pamqp.frame.marshal(publish, self.number), header]
        frames += [pamqp.frame.marshal(part, self.number) for part in parts]
        return b"".join(frames), len(header)

    async def send(self, payload: bytes, sent: Callable[[], None], *, drain: bool) -> None:
        """Put frames on their way in one write, and call `sent` in the same breath.

        When this raises without having called `sent`, nothing was written. It ends with the channel.
        """
        await self.create_task(self._send(payload, sent, drain=drain))

    async def acknowledge(self, tags: Sequence[tuple[int, bool]]) -> None:
        """Acknowledge (tag, multiple) pairs in one write."""
        frames = (spec.Basic.Ack(delivery_tag=tag, multiple=multiple) for tag, multiple in tags)
        payload = b"".join(pamqp.frame.marshal(frame, self.number) for frame in frames)
        await self.send(payload, lambda: None, drain=False)

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

    async def _send(self, payload: bytes, sent: Callable[[], None], *, drain: bool) -> None:
        drained = self.create_future() if drain else None
        await self.write_queue.put(ChannelFrame(payload=payload, should_close=False, drain_future=drained))
        sent()
        if drained is not None:
            await drained

    async def _on_deliver_frame(self, frame: spec.Basic.Deliver) -> None:
        self._listener.delivered(await self._content(frame))

    async def _on_return_frame(self, frame: spec.Basic.Return) -> None:
        self._listener.returned(await self._content(frame))

    async def _on_confirm_frame(self, frame: ConfirmationFrameType) -> None:
        tag = frame.delivery_tag or 0
        multiple = bool(getattr(frame, "multiple", False))
        self._listener.confirmed(tag, multiple=multiple, taken=isinstance(frame, spec.Basic.Ack))

    async def _content(self, frame: spec.Basic.Deliver | spec.Basic.Return) -> DeliveredMessage:
        header = await self._get_frame()
        if not isinstance(header, ContentHeader):
            raise TypeError(f"a content header should follow {frame!r}, not {header!r}")  # ends the channel
        return await self._read_content(frame, header)
