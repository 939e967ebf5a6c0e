"""The half of a hand-written saga service that both contenders share: RabbitMQ, the relay, the process.

What differs, the database half, stands in `by_hand_asyncpg` and `by_hand_orm`, so that the figures of the two differ
by their database layer and by nothing else. It is written as a good engineer writes it who needs this one saga, happy
path, and wants it fast: handlers run concurrently, each message is one transaction (inbox, saga row, outbox), the
outbox is published from memory the moment the transaction has committed, confirms are pipelined, published rows
are deleted in bulk. Whatever goes wrong ends the process; what was left behind is published, and what was not
acknowledged is handled, when it is started again. It has no timeouts, retries, compensation, history or views.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import signal
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import aio_pika
import uvloop

from bench import wire

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from aio_pika.abc import AbstractChannel, AbstractExchange, AbstractIncomingMessage

PREFETCH = 200
ACKNOWLEDGE_EVERY = 0.005  # seconds
DELETE_EVERY = 0.2  # seconds
CONFIRM_TIMEOUT = 30  # seconds; generous, for a machine on which much else runs
IDENTITY = uuid.UUID("6a1c1a52-3c0a-5d0e-9a35-5f3a0d6f5c11")


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What an outbox row holds."""

    message_id: uuid.UUID
    order_id: str
    name: str
    body: bytes
    causation_id: str


def command(order_id: str, name: str, causation_id: str, **fields: object) -> Command:
    """A command with an id that is the same however often its message is handled."""
    return Command(
        message_id=uuid.uuid5(IDENTITY, f"{order_id}/{name}"),
        order_id=order_id,
        name=name,
        body=wire.encode({"order_id": order_id, **fields}),
        causation_id=causation_id,
    )


class Books(Protocol):
    """The database half. Each of the first two is one transaction; None means that the message was handled before."""

    async def place(self, message_id: str, order_id: str, body: bytes) -> Command | None:
        """Start the saga of an order."""
        ...

    async def advance(self, message_id: str, order_id: str, reply: str, body: bytes) -> Command | None:
        """Take a reply: keep what it brought, decide the next command. None also after the last one."""
        ...

    async def forget(self, message_ids: Sequence[uuid.UUID]) -> None:
        """Delete outbox rows that the broker has confirmed."""
        ...

    async def unsent(self) -> Sequence[Command]:
        """What is still in the outbox."""
        ...


class End:
    """Why the process ends: it was asked to, or something failed."""

    def __init__(self) -> None:
        self._reason: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def ask(self) -> None:
        """End in good order."""
        if not self._reason.done():
            self._reason.set_result(None)

    def fail(self, error: BaseException) -> None:
        """End with this error, unless the end has begun already."""
        if not self._reason.done():
            self._reason.set_exception(error)

    def watch(self, task: asyncio.Task[None]) -> None:
        """Fail if this finished task did."""
        if not task.cancelled() and (error := task.exception()):
            self.fail(error)

    async def come(self) -> None:
        """Wait for it; raises what failed."""
        await self._reason


class Relay:
    """Publishes committed commands at once, many in flight, and deletes their rows in bulk."""

    def __init__(self, exchange: AbstractExchange, books: Books, reply_to: str, end: End) -> None:
        self._end = end
        self._exchange = exchange
        self._books = books
        self._reply_to = reply_to
        self._publishing: set[asyncio.Task[None]] = set()
        self._confirmed: list[uuid.UUID] = []

    def send(self, outgoing: Command) -> None:
        """Publish without waiting for the confirm."""
        task = asyncio.create_task(self._publish(outgoing))
        self._publishing.add(task)
        task.add_done_callback(self._published)

    def _published(self, task: asyncio.Task[None]) -> None:
        self._publishing.discard(task)
        self._end.watch(task)

    async def _publish(self, outgoing: Command) -> None:
        message = aio_pika.Message(
            outgoing.body,
            content_type="application/json",
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            message_id=str(outgoing.message_id),
            correlation_id=outgoing.order_id,
            reply_to=self._reply_to,
            type=outgoing.name,
            app_id="ordering",
            headers={"schema-version": 1, "causation-id": outgoing.causation_id},
        )
        await self._exchange.publish(message, outgoing.name, mandatory=True, timeout=CONFIRM_TIMEOUT)
        self._confirmed.append(outgoing.message_id)

    async def tidy(self) -> None:
        """Delete what has been confirmed, for ever."""
        while True:
            await asyncio.sleep(DELETE_EVERY)
            await self._delete()

    async def finish(self) -> None:
        """Wait for what is in flight and delete the last rows."""
        await asyncio.gather(*self._publishing, return_exceptions=True)
        await self._delete()

    async def _delete(self) -> None:
        confirmed, self._confirmed = self._confirmed, []
        if confirmed:
            await self._books.forget(confirmed)


class Acknowledger:
    """Acknowledges many handled messages with one frame, some milliseconds later; nothing waits for it."""

    def __init__(self) -> None:
        self._undecided: dict[AbstractIncomingMessage, bool] = {}  # in order of arrival; True: handled
        self._handled = asyncio.Event()

    def arrived(self, message: AbstractIncomingMessage) -> None:
        """Called in order of delivery."""
        self._undecided[message] = False

    def handled(self, message: AbstractIncomingMessage) -> None:
        """It is committed and may be acknowledged, with every earlier one that is."""
        self._undecided[message] = True
        self._handled.set()

    async def run(self) -> None:
        """Acknowledge for ever."""
        while True:
            await self._handled.wait()
            await asyncio.sleep(ACKNOWLEDGE_EVERY)
            self._handled.clear()
            await self.flush()

    async def flush(self) -> None:
        """Acknowledge up to the first message that is not handled yet."""
        last = None
        while self._undecided and self._undecided[first := next(iter(self._undecided))]:
            del self._undecided[first]
            last = first
        if last:
            await last.ack(multiple=True)


class Service:
    """Applies messages: one transaction, then the command goes out, then the message may be acknowledged."""

    def __init__(self, books: Books, relay: Relay, acknowledger: Acknowledger, end: End) -> None:
        self._end = end
        self._books = books
        self._relay = relay
        self._acknowledger = acknowledger

    async def take(self, message: AbstractIncomingMessage) -> None:
        """Handle one delivery."""
        self._acknowledger.arrived(message)
        try:
            outgoing = await self._apply(message)
        except Exception as error:
            self._end.fail(error)
            return
        if outgoing:
            self._relay.send(outgoing)
        self._acknowledger.handled(message)

    async def _apply(self, message: AbstractIncomingMessage) -> Command | None:
        message_id, name = message.message_id or "", message.type or ""
        if name == wire.ORDER_PLACED:
            order_id = json.loads(message.body)["order_id"]
            return await self._books.place(message_id, order_id, message.body)
        return await self._books.advance(message_id, message.correlation_id or "", name, message.body)


async def declare(channel: AbstractChannel, namespace: str) -> tuple[AbstractExchange, str]:
    """The exchange commands go to and the service's own queue, which takes orders and replies."""
    events = await channel.declare_exchange(wire.events_exchange(namespace), "topic", durable=True)
    outgoing = await channel.declare_exchange(wire.commands_exchange(namespace), "topic", durable=True)
    name = wire.service_queue(namespace)
    queue = await channel.declare_queue(name, durable=True, arguments=dict(wire.queue_arguments(namespace)))
    await queue.bind(events, wire.ORDER_PLACED)
    return outgoing, name


async def serve(books: Books, broker_url: str, namespace: str) -> None:
    """Run until SIGTERM: consume on one connection, publish on another."""
    end = End()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end.ask)
    async with await aio_pika.connect(broker_url) as incoming, await aio_pika.connect(broker_url) as outgoing:
        publishing = await outgoing.channel(publisher_confirms=True, on_return_raises=True)
        exchange, queue_name = await declare(publishing, namespace)
        relay = Relay(exchange, books, queue_name, end)
        for left in await books.unsent():
            relay.send(left)
        consuming = await incoming.channel(publisher_confirms=False)
        await consuming.set_qos(prefetch_count=PREFETCH)
        queue = await consuming.get_queue(queue_name)
        acknowledger = Acknowledger()
        background = [asyncio.create_task(relay.tidy()), asyncio.create_task(acknowledger.run())]
        for task in background:
            task.add_done_callback(end.watch)
        for connection in (incoming, outgoing):
            connection.close_callbacks.add(lambda _, error: end.fail(error or ConnectionError("closed")))
        tag = await queue.consume(Service(books, relay, acknowledger, end).take)
        print("ready", flush=True)
        await end.come()
        await queue.cancel(tag)
        for task in background:
            task.cancel()
        await relay.finish()
        await acknowledger.flush()


def main(open_books: Callable[[str], AbstractAsyncContextManager[Books]], description: str) -> None:
    """Run one of the two: `--database-url URL --broker-url URL --namespace NAME`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--database-url", required=True)
    parser.add_argument("--broker-url", required=True)
    parser.add_argument("--namespace", required=True)
    given = parser.parse_args()

    async def run() -> None:
        async with open_books(given.database_url) as books:
            await serve(books, given.broker_url, given.namespace)

    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    uvloop.run(run())
