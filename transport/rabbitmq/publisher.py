"""The way out: bursts in one write, mandatory and persistent, each publication answered by exactly one outcome."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiormq.exceptions import (
    AMQPChannelError,
    ChannelAccessRefused,
    ChannelLockedResource,
    ChannelNotFoundEntity,
)

from messages.errors import BrokerAway
from transport.facts import PublicationsSuspected
from transport.interface import Outcome, Publication, Verdict
from transport.mailbox import Mailbox
from transport.rabbitmq import frames
from transport.rabbitmq.address import said
from transport.rabbitmq.channel import BurstChannel
from transport.rabbitmq.in_flight import InFlight, unknown
from transport.rabbitmq.talking import CutOff, backoff, talking

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from messages.envelope import Raw
    from running import Runner
    from transport.facts import Report
    from transport.rabbitmq.link import Link

WRITE_SIZE = 256 * 1024  # bytes put on their way at once: large enough to be cheap, small enough to let heartbeats by
_NO_LIMIT = 128 * 1024  # bytes of a frame, where the broker names none: what it names by default


@dataclass(frozen=True, slots=True)
class _Framed:
    publication: Publication
    payload: bytes


class RabbitMQPublisher:
    """See `transport.interface.Publisher`.

    When the broker closes the channel over a bad message, all unanswered ones are suspects: they are published again,
    one by one, on a new channel, so that the bad one ends `REFUSED` and the others as they deserve. Until that is done
    the publisher is not ready. When the connection is lost they end `UNKNOWN`.
    """

    def __init__(
        self, link: Link, *, app_id: str, max_body: int, confirm_timeout: float, runner: Runner, report: Report
    ) -> None:
        self._link = link
        self._app_id = app_id
        self._max_body = max_body
        self._timeout = confirm_timeout
        self._runner = runner
        self._report = report
        self._outcomes: Mailbox[Outcome] = Mailbox()
        self._accepted: dict[int, Publication] = {}  # by ticket, in order: what has no outcome yet
        self._in_flight = InFlight(self._arrive)
        self._channel: BurstChannel | None = None
        self._writing = asyncio.Lock()
        self._written = asyncio.Event()
        self._progress = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def holds(self) -> bool:
        """See `Publisher.holds`: a broker confirms within the confirm timeout, whatever its consumers do."""
        return False

    @property
    def ready(self) -> bool:
        """See `Publisher.ready`."""
        channel = self._channel
        return channel is not None and not channel.is_closed and self._link.is_up and not self._link.blocked

    async def publish(self, publications: Sequence[Publication]) -> None:
        """See `Publisher.publish`."""
        if not self.ready:
            raise BrokerAway(self._why_not())
        async with self._writing:
            channel = self._channel
            if channel is None or not self.ready:
                raise BrokerAway(self._why_not())
            self._accepted.update((publication.ticket, publication) for publication in publications)
            await self._write(channel, publications)

    async def outcomes(self) -> Sequence[Outcome]:
        """See `Publisher.outcomes`."""
        return await self._outcomes.take()

    async def start(self) -> None:
        """Open the first channel and keep one open from then on.

        Raises:
            CutOff, AMQPChannelError: that failed.
        """
        self._channel = await self._open()
        self._tasks = [
            self._runner.start(self._keep(), name="broker publisher"),
            self._runner.start(self._expire(), name="broker publisher confirm timeout"),
        ]

    async def close(self) -> None:
        """End everything unanswered as unknown; `outcomes` is empty after those. The channel ends with its link."""
        for task in self._tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        self._channel = None
        self._give_up_all("the transport was closed")
        self._outcomes.close()

    # What the channel hears; see `inlet.Listener`.

    def delivered(self, raw: Raw, tag: int, *, redelivered: bool) -> None:
        """Nothing is consumed on this channel."""

    def returned(self, raw: Raw, exchange: str, reason: str) -> None:
        """See `inlet.Listener`."""
        text = f"no queue takes {raw.routing_key!r} from exchange {exchange!r} ({reason or 'NO_ROUTE'})"
        self._in_flight.returned((raw.message_id or "", exchange, raw.routing_key), text)

    def confirmed(self, tag: int, *, multiple: bool, taken: bool) -> None:
        """See `inlet.Listener`."""
        self._in_flight.confirmed(tag, multiple=multiple, taken=taken)

    # Writing

    async def _write(self, channel: BurstChannel, publications: Sequence[Publication]) -> None:
        """Write the burst. What a closed channel leaves unwritten is left to `_keep`, like the unanswered."""
        left = self._framed(channel, publications)
        try:
            for chunk in _chunks(left):
                drained = await self._write_chunk(channel, chunk)
                left = left[len(chunk) :]
                if not drained:
                    break
        except (CutOff, AMQPChannelError):
            pass
        finally:
            if not channel.is_closed:  # cancelled, or the broker does not read: nobody else would end these
                self._give_up((one.publication for one in left), "it could not be written in time")

    async def _write_chunk(self, channel: BurstChannel, chunk: list[_Framed]) -> bool:
        """Write these together; whether the socket has taken them. Raises only when nothing was written."""
        written = False

        def sent() -> None:
            nonlocal written
            written = True
            deadline = self._runner.monotonic() + self._timeout
            self._in_flight.add((one.publication for one in chunk), deadline=deadline)
            self._written.set()

        try:
            async with talking(self._runner, self._timeout):
                await channel.send(b"".join(one.payload for one in chunk), sent, drain=True)
        except (CutOff, AMQPChannelError):
            if not written:
                raise
            return False
        return True

    def _framed(self, channel: BurstChannel, publications: Iterable[Publication]) -> list[_Framed]:
        framed = []
        for publication in publications:
            try:
                framed.append(_Framed(publication, self._payload(channel, publication)))
            except Exception as error:  # whatever the library raises for a value that has no AMQP form
                self._end(publication, Verdict.REFUSED, f"it cannot be put into AMQP frames: {error}")
        return framed

    def _payload(self, channel: BurstChannel, publication: Publication) -> bytes:
        body = publication.message.body
        if len(body) > self._max_body:
            raise ValueError(f"the body has {len(body)} bytes, {self._max_body} are allowed")
        return frames.publication(
            channel.number,
            publication.message,
            app_id=self._app_id,
            exchange=publication.exchange,
            routing_key=publication.routing_key,
            max_frame=channel.connection.connection_tune.frame_max or _NO_LIMIT,
        )

    # Keeping a channel

    async def _open(self) -> BurstChannel:
        underlay, tap = await self._link.underlay()
        self._in_flight = InFlight(self._arrive)
        async with talking(self._runner, self._timeout):
            return await BurstChannel.opened(underlay, tap, self, confirms=True)

    async def _keep(self) -> None:
        while True:
            if self._channel is None:
                self._channel = await self._reopened()
            await self._channel.ended()
            failure, reason = self._channel.failure, self._channel.reason
            async with self._writing:  # so that no burst is half accounted for
                self._channel = None
            if isinstance(failure, AMQPChannelError) and self._link.is_up:
                self._report(PublicationsSuspected(count=len(self._accepted), reason=reason))
                self._channel = await self._publish_one_by_one()
            else:
                self._give_up_all(f"the connection was lost: {reason}")

    async def _reopened(self) -> BurstChannel:
        attempt = 1
        while True:
            try:
                return await self._open()
            except (CutOff, AMQPChannelError):
                await self._runner.sleep(backoff(self._runner, attempt))
                attempt += 1

    async def _publish_one_by_one(self) -> BurstChannel | None:
        """Find the bad one among all unanswered ones. The channel to go on with, if there is one."""
        channel: BurstChannel | None = None
        for suspect in list(self._accepted.values()):
            try:
                if channel is None or channel.is_closed:
                    channel = await self._open()
                await self._publish_alone(channel, suspect)
            except (CutOff, AMQPChannelError) as error:
                self._give_up_all(f"the connection was lost: {said(error)}")
                return None
        return None if channel is None or channel.is_closed else channel

    async def _publish_alone(self, channel: BurstChannel, suspect: Publication) -> None:
        """Publish it and see to it that it is ended.

        Raises:
            CutOff, AMQPChannelError: the connection was lost; it may not be ended.
        """
        for framed in self._framed(channel, [suspect]):
            await self._write_chunk(channel, [framed])
            with suppress(CutOff):
                async with talking(self._runner, self._timeout):
                    await self._answered(channel, suspect)
        if suspect.ticket in self._accepted:
            failure = channel.failure
            if failure is not None and not isinstance(failure, AMQPChannelError):
                raise CutOff(channel.reason)
            self._end(suspect, *_blame(failure))

    async def _answered(self, channel: BurstChannel, suspect: Publication) -> None:
        """Wait until it is ended or the channel is closed."""
        closing = channel.closing
        while suspect.ticket in self._accepted and not closing.done():
            self._progress.clear()
            progress = self._runner.start(self._progress.wait(), name="broker publisher suspect")
            await asyncio.wait([progress, closing], return_when=asyncio.FIRST_COMPLETED)
            progress.cancel()

    async def _expire(self) -> None:
        while True:
            deadline = self._in_flight.expire(self._runner.monotonic())
            if deadline is None:
                self._written.clear()
                await self._written.wait()
            else:
                await self._runner.sleep(max(0.01, deadline - self._runner.monotonic()))

    # Ending

    def _arrive(self, outcome: Outcome) -> None:
        """The only way out for an outcome: one per accepted publication, whoever comes first."""
        if self._accepted.pop(outcome.ticket, None) is not None:
            self._outcomes.put(outcome)
            self._progress.set()

    def _end(self, publication: Publication, verdict: Verdict, reason: str) -> None:
        self._arrive(Outcome(ticket=publication.ticket, verdict=verdict, reason=reason))

    def _give_up(self, publications: Iterable[Publication], reason: str) -> None:
        for publication in publications:
            self._arrive(unknown(publication, reason))

    def _give_up_all(self, reason: str) -> None:
        self._give_up(list(self._accepted.values()), reason)

    def _why_not(self) -> str:
        if self._outcomes.closed:
            return "the transport is closed"
        if self._link.blocked:
            return "the broker takes no publications now (memory or disk alarm)"
        return "not connected to the broker" if not self._link.is_up else "the publishing channel is being reopened"


def _chunks(framed: list[_Framed]) -> Iterator[list[_Framed]]:
    chunk: list[_Framed] = []
    size = 0
    for one in framed:
        if chunk and size + len(one.payload) > WRITE_SIZE:
            yield chunk
            chunk, size = [], 0
        chunk.append(one)
        size += len(one.payload)
    if chunk:
        yield chunk


def _blame(error: AMQPChannelError | None) -> tuple[Verdict, str]:
    """What it means that the broker closed the channel over this one message, or (None) did not answer."""
    if error is None:
        return Verdict.UNKNOWN, "the broker did not confirm in time"
    if isinstance(error, ChannelNotFoundEntity):
        return Verdict.RETURNED, f"its exchange does not exist: {said(error)}"
    if isinstance(error, ChannelAccessRefused | ChannelLockedResource):
        return Verdict.NACKED, f"the broker does not let us: {said(error)}"
    return Verdict.REFUSED, f"the broker refuses this message: {said(error)}"
