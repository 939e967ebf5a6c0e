"""A broker inside the event loop: the seam's promises without a server, for one process.

Nothing is kept here that would have to survive: the outbox row is the durable copy. So a publication is `CONFIRMED`
only when every queue it was routed to has had it settled by a consumer; until then its row stays leased, and after a
crash everything unsettled is published again and the inboxes decide.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field, replace
from itertools import count
from types import coroutine
from typing import TYPE_CHECKING

from messages.codec import headers_of
from messages.envelope import Raw
from messages.errors import BrokerAway, ConfigurationError, TopologyMismatch
from transport.interface import Delivery, Outcome, Publication, Verdict
from transport.mailbox import Mailbox

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from messages.envelope import Envelope
    from transport.topology import Topology

CAPACITY = 10_000  # messages that wait in one queue


class InProcessTransport:
    """See `transport.interface.Transport`. Everything happens in the event loop that uses it.

    Args:
        app_id: Who we say we are in every message.
        max_body: Bytes; a longer one ends `REFUSED`.
        capacity: How many messages wait in a queue before publications to it end `NACKED`.
    """

    def __init__(self, *, app_id: str, max_body: int = 1024 * 1024, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._queues: dict[str, _Queue] = {}
        self._topologies: dict[str, Topology] = {}
        self._consumers: list[InProcessConsumer] = []
        self._lifetimes = count(1)
        self._open = False
        self._publisher = InProcessPublisher(self, app_id=app_id, max_body=max_body)

    @property
    def publisher(self) -> InProcessPublisher:
        """See `Transport.publisher`."""
        return self._publisher

    @property
    def connected(self) -> bool:
        """See `Transport.connected`."""
        return self._open

    async def connect(self) -> None:
        """See `Transport.connect`. Always possible, also again after `close`."""
        self._open = True
        self._publisher.reopen()

    async def declare(self, topology: Topology) -> None:
        """See `Transport.declare`. What was declared before stays, as it does on a broker.

        Raises:
            TopologyMismatch: a command would be taken by two queues.
            BrokerAway: not connected.
        """
        self._require_open()
        known = self._topologies.get(topology.namespace)
        try:
            merged = topology if known is None else known.joined(topology)
        except ConfigurationError as error:
            raise TopologyMismatch(str(error)) from None
        self._topologies[topology.namespace] = merged
        for queue in merged.queues:
            self._queues.setdefault(queue.name, _Queue(capacity=self._capacity))

    async def consume(self, queue: str, *, prefetch: int) -> InProcessConsumer:
        """See `Transport.consume`.

        Raises:
            ConfigurationError: no such queue was declared.
            BrokerAway: not connected.
        """
        self._require_open()
        if queue not in self._queues:
            raise ConfigurationError(f"queue {queue} cannot be consumed: it was not declared")
        consumer = InProcessConsumer(self._queues[queue], channel=next(self._lifetimes), prefetch=prefetch)
        self._consumers.append(consumer)
        return consumer

    async def close(self) -> None:
        """See `Transport.close`. What waits in the queues is forgotten: its outbox rows are the durable copies."""
        self._open = False
        for consumer in self._consumers:
            await consumer.close()
        self._consumers.clear()
        for queue in self._queues.values():
            queue.waiting.clear()
        self._publisher.close()

    def targets(self, publication: Publication) -> list[_Queue]:
        """The queues that take it: by name from the default exchange, else by their bindings."""
        if not publication.exchange:
            queue = self._queues.get(publication.routing_key)
            return [] if queue is None else [queue]
        names = (
            name
            for topology in self._topologies.values()
            for name in topology.bound_to(publication.exchange, publication.routing_key)
        )
        return [self._queues[name] for name in dict.fromkeys(names)]

    def _require_open(self) -> None:
        if not self._open:
            raise BrokerAway("the in-process transport is not connected")


class InProcessPublisher:
    """See `transport.interface.Publisher`."""

    def __init__(self, transport: InProcessTransport, *, app_id: str, max_body: int) -> None:
        self._transport = transport
        self._app_id = app_id
        self._max_body = max_body
        self._outcomes: Mailbox[Outcome] = Mailbox()
        self._pending: dict[int, Publication] = {}
        self._order = count(1)

    @property
    def holds(self) -> bool:
        """See `Publisher.holds`: a confirm waits for every consumer's settling."""
        return True

    @property
    def ready(self) -> bool:
        """See `Publisher.ready`."""
        return self._transport.connected

    async def publish(self, publications: Sequence[Publication]) -> None:
        """See `Publisher.publish`."""
        if not self.ready:
            raise BrokerAway("the in-process transport is not connected")
        for publication in publications:
            self._pending[publication.ticket] = publication
            self._route(publication)

    async def outcomes(self) -> Sequence[Outcome]:
        """See `Publisher.outcomes`."""
        return await self._outcomes.take()

    def reopen(self) -> None:
        """Begin anew after a `close`; what was published before has ended."""
        if self._outcomes.closed:
            self._outcomes = Mailbox()

    def close(self) -> None:
        """End everything unsettled as unknown."""
        for ticket in list(self._pending):
            self._end(ticket, Verdict.UNKNOWN, "the transport was closed")
        self._outcomes.close()

    def _route(self, publication: Publication) -> None:
        ticket = publication.ticket
        size = len(publication.message.body)
        if size > self._max_body:
            self._end(ticket, Verdict.REFUSED, f"the body has {size} bytes, {self._max_body} are allowed")
            return
        targets = self._transport.targets(publication)
        if not targets:
            reason = f"no queue takes {publication.routing_key!r} from exchange {publication.exchange!r}"
            self._end(ticket, Verdict.RETURNED, reason)
        elif any(queue.full for queue in targets):
            self._end(ticket, Verdict.NACKED, "queue full")
        else:
            self._enqueue(publication, targets)

    def _enqueue(self, publication: Publication, targets: Sequence[_Queue]) -> None:
        raw = raw_of(publication.message, publication.routing_key, self._app_id)
        left = len(targets)

        def settled() -> None:
            nonlocal left
            left -= 1
            if not left:
                self._end(publication.ticket, Verdict.CONFIRMED, "")

        for queue in targets:
            queue.add(_Item(raw=raw, position=next(self._order), settled=settled, handed_out=publication.attempts))

    def _end(self, ticket: int, verdict: Verdict, reason: str) -> None:
        if self._pending.pop(ticket, None) is not None:
            self._outcomes.put(Outcome(ticket=ticket, verdict=verdict, reason=reason))


class InProcessConsumer:
    """See `transport.interface.Consumer`. Competing consumers share a queue, each takes what it has room for."""

    def __init__(self, queue: _Queue, *, channel: int, prefetch: int) -> None:
        self._queue = queue
        self._channel = channel
        self._prefetch = prefetch
        self._tags = count(1)
        self._unsettled: dict[int, _Item] = {}
        self._stopped = False
        self._changed = asyncio.Event()
        queue.listeners.append(self._changed.set)

    @property
    def attached(self) -> bool:
        """See `Consumer.attached`."""
        return not self._stopped

    async def receive(self, limit: int) -> Sequence[Delivery]:
        """See `Consumer.receive`. No more than `prefetch` deliveries are unsettled at a time.

        It lets others run first, as waiting for a socket would: a consumer that never waits would starve the loop.
        """
        await _others()
        while not self._stopped:
            room = min(limit, self._prefetch - len(self._unsettled), len(self._queue.waiting))
            if room > 0:
                return [self._deliver(self._queue.waiting.popleft()) for _ in range(room)]
            self._changed.clear()
            await self._changed.wait()
        return []

    async def settle(self, deliveries: Sequence[Delivery]) -> None:
        """See `Consumer.settle`."""
        for delivery in deliveries:
            if delivery.channel == self._channel:
                item = self._unsettled.pop(delivery.tag, None)
                if item is not None:
                    item.settled()
        self._changed.set()

    async def stop(self) -> None:
        """See `Consumer.stop`. Nothing is on its way here, so nothing is left to receive."""
        self._stopped = True
        self._queue.ignore(self._changed.set)
        self._changed.set()

    async def close(self) -> None:
        """See `Consumer.close`. What is unsettled goes back to the head of the queue, in its old order."""
        await self.stop()
        self._queue.put_back(list(self._unsettled.values()))
        self._unsettled.clear()

    def _deliver(self, item: _Item) -> Delivery:
        tag = next(self._tags)
        self._unsettled[tag] = item
        return Delivery(
            raw=item.raw,
            tag=tag,
            channel=self._channel,
            redelivered=item.handed_out > 0,
            delivery_count=item.handed_out,
        )


@coroutine
def _others() -> Generator[None, None, None]:
    """Let every other task that is ready run once."""
    yield


@dataclass(slots=True, kw_only=True)
class _Item:
    """A message in one queue. `position` keeps the order of publishing through redeliveries."""

    raw: Raw
    position: int
    settled: Callable[[], None]
    handed_out: int = 0


@dataclass(slots=True, kw_only=True)
class _Queue:
    """First in, first out."""

    capacity: int
    waiting: deque[_Item] = field(default_factory=deque)
    listeners: list[Callable[[], None]] = field(default_factory=list)

    @property
    def full(self) -> bool:
        return len(self.waiting) >= self.capacity

    def add(self, item: _Item) -> None:
        self.waiting.append(item)
        self._tell()

    def put_back(self, items: list[_Item]) -> None:
        for item in items:
            item.handed_out += 1
        self.waiting = deque(sorted([*items, *self.waiting], key=lambda item: item.position))
        self._tell()

    def ignore(self, listener: Callable[[], None]) -> None:
        if listener in self.listeners:
            self.listeners.remove(listener)

    def _tell(self) -> None:
        for listener in self.listeners:
            listener()


def raw_of(message: Envelope | Raw, routing_key: str, app_id: str) -> Raw:
    """What was published as it arrives: what AMQP would carry, with its second's precision of time."""
    timestamp = message.timestamp and message.timestamp.replace(microsecond=0)
    if isinstance(message, Raw):
        return replace(message, routing_key=routing_key, timestamp=timestamp)
    return Raw(
        body=message.body,
        routing_key=routing_key,
        message_id=message.message_id,
        type=message.name,
        content_type="application/json",
        correlation_id=message.correlation_id,
        reply_to=message.reply_to,
        app_id=app_id,
        timestamp=timestamp,
        headers=headers_of(message),
    )
