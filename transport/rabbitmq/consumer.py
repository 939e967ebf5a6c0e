"""The way in: one queue on a channel of its own, handed out in bursts, acknowledged when settled."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from aiormq.exceptions import AMQPChannelError, ChannelNotFoundEntity

from transport.facts import ConsumerAttached, ConsumerDetached
from transport.interface import Delivery
from transport.rabbitmq.acknowledging import Ledger
from transport.rabbitmq.address import said
from transport.rabbitmq.channel import BurstChannel
from transport.rabbitmq.talking import FAREWELL, CutOff, backoff, parting, talking

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from messages.envelope import Raw
    from running import Runner
    from transport.facts import Report
    from transport.rabbitmq.acknowledging import Acknowledgement
    from transport.rabbitmq.link import Link

_DELIVERY_COUNT = "x-delivery-count"


class RabbitMQConsumer:
    """See `transport.interface.Consumer`.

    Every channel lifetime has a number of its own, drawn from `lifetimes`; what is left of an earlier one is dropped
    here and comes again. `missing` is awaited when the queue has disappeared, to declare it again; it must not raise.
    """

    def __init__(
        self,
        link: Link,
        queue: str,
        *,
        prefetch: int,
        lifetimes: Iterator[int],
        missing: Callable[[], Awaitable[None]],
        runner: Runner,
        report: Report,
        timeout: float,
    ) -> None:
        self.queue = queue
        self._link = link
        self._prefetch = prefetch
        self._lifetimes = lifetimes
        self._missing = missing
        self._runner = runner
        self._report = report
        self._timeout = timeout
        self._channel: BurstChannel | None = None
        self._generation = next(lifetimes)
        self._ledger = Ledger(prefetch)
        self._arrived: deque[Delivery] = deque()
        self._settling = asyncio.Lock()
        self._changed = asyncio.Event()
        self._cancelled = asyncio.Event()  # by the broker
        self._attached = False
        self._stopped = False
        self.closed = False
        self._keeper: asyncio.Task[None] | None = None

    @property
    def attached(self) -> bool:
        """See `Consumer.attached`."""
        channel = self._channel
        return self._attached and channel is not None and not channel.is_closed and self._link.is_up

    async def start(self) -> None:
        """Attach for the first time and stay attached from then on.

        Raises:
            CutOff, AMQPChannelError: that failed, and nothing was started.
        """
        try:
            await self._attach()
        except (CutOff, AMQPChannelError):
            await self._detach()
            raise
        self._keeper = self._runner.start(self._keep(), name=f"broker consumer {self.queue}")

    async def receive(self, limit: int) -> Sequence[Delivery]:
        """See `Consumer.receive`."""
        while not self._arrived and not self._stopped:
            self._changed.clear()
            await self._changed.wait()
        return [self._arrived.popleft() for _ in range(min(limit, len(self._arrived)))]

    async def settle(self, deliveries: Sequence[Delivery]) -> None:
        """See `Consumer.settle`."""
        async with self._settling:  # acknowledgements must leave in the order in which the ledger gave them out
            tags = [delivery.tag for delivery in deliveries if delivery.channel == self._generation]
            if tags:
                await self._acknowledge(self._ledger.settle(tags), self._timeout)

    async def stop(self) -> None:
        """See `Consumer.stop`."""
        if self._stopped:
            return
        attached, self._attached = self._attached, False
        channel = self._channel
        if attached and channel is not None and not channel.is_closed:
            await parting(self._runner, channel.basic_cancel(self._tag), self._timeout)
        self._stopped = True
        self._changed.set()

    async def close(self) -> None:
        """See `Consumer.close`."""
        self._stopped = self.closed = True
        if self._keeper is not None:
            self._keeper.cancel()
            with suppress(asyncio.CancelledError):
                await self._keeper
        async with self._settling:
            await self._acknowledge(self._ledger.flush(), FAREWELL)
        await self._detach()

    async def _acknowledge(self, acknowledgements: Sequence[Acknowledgement], seconds: float) -> None:
        channel = self._channel
        if acknowledgements and channel is not None and not channel.is_closed:
            with suppress(CutOff, AMQPChannelError):  # then they come again, and the inbox knows them
                async with talking(self._runner, seconds):
                    await channel.acknowledge(acknowledgements)

    # What the channel hears; see `inlet.Listener`.

    def delivered(self, raw: Raw, tag: int, *, redelivered: bool) -> None:
        """See `inlet.Listener`."""
        count = raw.headers.get(_DELIVERY_COUNT)
        self._arrived.append(
            Delivery(
                raw=raw,
                tag=tag,
                channel=self._generation,
                redelivered=redelivered,
                delivery_count=count if isinstance(count, int) and count > 0 else 0,
            )
        )
        self._changed.set()

    def returned(self, raw: Raw, exchange: str, reason: str) -> None:
        """Nothing is published on this channel."""

    def confirmed(self, tag: int, *, multiple: bool, taken: bool) -> None:
        """Nothing is published on this channel."""

    # Staying attached

    @property
    def _tag(self) -> str:
        return f"antiphon-{self._generation}"

    async def _attach(self) -> None:
        underlay, tap = await self._link.underlay()
        self._cancelled.clear()
        async with talking(self._runner, self._timeout):
            channel = self._channel = await BurstChannel.opened(underlay, tap, self, confirms=False)
            channel.on_consumer_cancel_callbacks.add(lambda _frame: self._cancelled.set())
            await channel.basic_qos(prefetch_count=self._prefetch)
            await channel.basic_consume(self.queue, _unused, consumer_tag=self._tag)
        if self._stopped:  # meanwhile
            raise CutOff("the consumer was stopped")
        self._attached = True
        self._report(ConsumerAttached(queue=self.queue))

    async def _keep(self) -> None:
        while not self._stopped:
            reason = await self._until_detached()
            stopped = self._stopped
            await self._detach()
            if not stopped:
                self._report(ConsumerDetached(queue=self.queue, reason=reason))
                await self._attach_again()

    async def _until_detached(self) -> str:
        channel = self._channel
        if channel is None:
            return "never attached"
        cancelled = self._runner.start(self._cancelled.wait(), name=f"broker consumer {self.queue} cancel")
        try:
            await asyncio.wait([cancelled, channel.closing], return_when=asyncio.FIRST_COMPLETED)
        finally:
            cancelled.cancel()
        return "the broker cancelled the consumer: is its queue gone?" if self._cancelled.is_set() else channel.reason

    async def _attach_again(self) -> None:
        attempt = 1
        while not self._stopped:
            await self._runner.sleep(backoff(self._runner, attempt))
            try:
                await self._attach()
            except (CutOff, AMQPChannelError) as error:
                await self._detach()
                self._report(ConsumerDetached(queue=self.queue, reason=said(error)))
                if isinstance(error, ChannelNotFoundEntity):
                    await self._missing()
                attempt += 1
            else:
                return

    async def _detach(self) -> None:
        """Give up this channel lifetime: whatever was received on it is void from here on."""
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.mute()
        self._attached = False
        self._generation = next(self._lifetimes)
        self._ledger = Ledger(self._prefetch)
        self._arrived.clear()
        self._changed.set()
        if channel is not None:
            await parting(self._runner, channel.close(), FAREWELL)


async def _unused(_message: object) -> None:
    """The library wants a callback; deliveries take the way of the `Inlet`."""
