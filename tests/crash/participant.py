"""Participants of the ordering process over plain AMQP, with none of Antiphon's code: one process, one book for each.

    python -m tests.crash.participant --broker URL --folder DIR [--namespace NAME] [--seed N] [--mix JSON] NAME...

They take commands, do what the script says, write it down before they acknowledge, and answer to `reply_to`. The
process says `ready` when it consumes, survives a broker that goes away, and ends at SIGTERM; started again with the
same folder it goes on where it was killed, and sends what it still owes.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import signal
import time
import uuid
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import aio_pika
from aio_pika.abc import DeliveryMode, ExchangeType

from tests.crash.ledger import Book, Command
from tests.crash.script import EVERY_TRADE, TRADES, Script, Word

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractExchange, AbstractIncomingMessage
    from aiormq.abc import FieldTable

    from tests.crash.ledger import Reply

PREFETCH = 50
BOUND = 10.0  # seconds for anything asked of the broker
PAUSE = 0.2  # seconds between two attempts to reach it
AWAY = (OSError, aio_pika.exceptions.AMQPError, TimeoutError)


class Participant:
    """One participant on one connection."""

    def __init__(self, book: Book, script: Script, namespace: str, broken: asyncio.Future[Exception]) -> None:
        self.name, self._book, self._script, self._namespace = book.participant, book, script, namespace
        self._broken = broken
        self._late: set[asyncio.Task[None]] = set()
        self._channel: AbstractChannel | None = None
        self._events: AbstractExchange | None = None

    async def attach(self, connection: AbstractConnection) -> None:
        """Declare, send what is owed, and begin to consume."""
        channel = await connection.channel(on_return_raises=True)
        await channel.set_qos(prefetch_count=PREFETCH)
        events = await channel.declare_exchange(f"{self._namespace}.events", ExchangeType.TOPIC, durable=True)
        commands = await channel.declare_exchange(f"{self._namespace}.commands", ExchangeType.TOPIC, durable=True)
        queue = await channel.declare_queue(
            f"{self._namespace}.ledger.{self.name}", durable=True, arguments=queue_arguments(self._namespace)
        )
        for command in EVERY_TRADE[self.name].commands:
            await queue.bind(commands, command)
        self._channel, self._events = channel, events
        for reply in self._book.unsent():
            self._send_when_due(reply)
        await queue.consume(self._take)

    async def detach(self) -> None:
        """Forget the late replies of a lost connection; the book knows them."""
        for task in self._late:
            task.cancel()
        await asyncio.gather(*self._late, return_exceptions=True)

    async def _take(self, message: AbstractIncomingMessage) -> None:
        """Handle one command. What goes wrong with the broker heals by redelivery; anything else ends the process."""
        try:
            await self._handle(message)
        except AWAY as error:
            print(f"away: {error!r}", flush=True)
        except Exception as error:
            if not self._broken.done():
                self._broken.set_result(error)

    async def _handle(self, message: AbstractIncomingMessage) -> None:
        command = read_command(message)
        behaviour = self._script.behaviour(command.order_id, self.name, EVERY_TRADE[self.name].purpose(command.name))
        reply = self._book.take(command, behaviour)
        if reply is not None and (reply.due_at or 0) <= time.time():
            await self._send(reply)
        elif reply is not None:
            self._send_when_due(reply)
        await message.ack()

    def _send_when_due(self, reply: Reply) -> None:
        task = asyncio.create_task(self._wait_and_send(reply))
        self._late.add(task)
        task.add_done_callback(self._late.discard)

    async def _wait_and_send(self, reply: Reply) -> None:
        await asyncio.sleep(max(0.0, (reply.due_at or 0) - time.time()))
        try:
            await self._send(reply)
        except AWAY as error:
            print(f"away: {error!r}", flush=True)

    async def _send(self, reply: Reply) -> None:
        """Straight to where the command says; an event for everyone if it does not say."""
        try:
            for prelude in preludes(reply):
                await self._publish(prelude)
            await asyncio.gather(*[self._publish(reply) for _ in range(copies(reply))])
        except aio_pika.exceptions.DeliveryError as error:
            print(f"returned: {reply.name} to {reply.reply_to!r}: {error!r}", flush=True)
            return  # it stays owed
        self._book.sent(reply)
        if reply.word == Word.ECHO:
            self._send_when_due(replace(reply, due_at=time.time() + reply.number, word=Word.OK))

    async def _publish(self, reply: Reply) -> None:
        assert self._channel is not None
        assert self._events is not None
        if reply.reply_to:
            await self._channel.default_exchange.publish(self._message(reply), reply.reply_to, timeout=BOUND)
        else:
            await self._events.publish(self._message(reply), reply.name, mandatory=False, timeout=BOUND)

    def _message(self, reply: Reply) -> aio_pika.Message:
        return aio_pika.Message(
            reply.body,
            message_id=reply.reply_id,
            type=reply.name,
            content_type="application/json",
            correlation_id=reply.correlation_id or None,
            app_id=f"ledger.{self.name}",
            delivery_mode=DeliveryMode.PERSISTENT,
            headers={"causation-id": reply.message_id, "schema-version": 1},
        )


def copies(reply: Reply) -> int:
    """How often a reply is sent at once."""
    return max(1, int(reply.number)) if reply.word == Word.TIMES else 1


def preludes(reply: Reply) -> Sequence[Reply]:
    """What a participant says before its true answer, under an id that is always the same."""
    prelude = replace(reply, reply_id=_other(reply.reply_id, "prelude"))
    match reply.word:
        case Word.CONTRADICT:
            trade = next(trade for trade in TRADES.values() if trade.done == reply.name)
            return [replace(prelude, name=trade.failures[0])]
        case Word.MALFORMED:
            return [replace(prelude, body=b'{"order_id": ')]
        case Word.STRANGER:
            elsewhere = _other(reply.correlation_id, "another saga")
            return [replace(prelude, correlation_id=elsewhere, message_id=_other(reply.message_id, "its command"))]
        case Word.UNKNOWN:
            return [replace(prelude, message_id=_other(reply.message_id, "never sent"))]
        case _:
            return []


def _other(name: str, what: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{what}/{name}"))


def queue_arguments(namespace: str) -> FieldTable:
    """A queue as the wire contract has it."""
    return {
        "x-queue-type": "quorum",
        "x-delivery-limit": 1000,
        "x-dead-letter-exchange": f"{namespace}.dead",
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }


def read_command(message: AbstractIncomingMessage) -> Command:
    """What arrived, believed as it stands: an orchestrator that sends nonsense is to fail loudly."""
    headers = {name: str(value) for name, value in message.headers.items()}
    return Command(
        message_id=message.message_id or "",
        name=message.type or message.routing_key or "",
        body=message.body,
        body_hash=hashlib.sha256(message.body).hexdigest(),
        idempotency_key=headers.get("idempotency-key", ""),
        compensates=headers.get("compensates", ""),
        correlation_id=message.correlation_id or "",
        reply_to=message.reply_to or "",
        redelivered=bool(message.redelivered),
    )


async def session(broker: str, participants: list[Participant]) -> None:
    """Serve on one connection until it is lost."""
    connection = await aio_pika.connect(broker, timeout=BOUND)
    lost = asyncio.Event()
    connection.close_callbacks.add(lambda *_: lost.set())
    try:
        for participant in participants:
            await participant.attach(connection)
        print("ready", flush=True)
        await lost.wait()
    finally:
        for participant in participants:
            await participant.detach()
        await connection.close()


async def serve(broker: str, participants: list[Participant]) -> None:
    """Serve for ever, whatever becomes of the connection."""
    while True:
        try:
            await session(broker, participants)
        except AWAY as error:
            print(f"away: {error!r}", flush=True)
        await asyncio.sleep(PAUSE)


async def run(arguments: argparse.Namespace) -> None:
    """Serve until SIGTERM, or until something happens that never should."""
    loop = asyncio.get_running_loop()
    broken: asyncio.Future[Exception] = loop.create_future()
    script = Script(seed=arguments.seed, mix=json.loads(arguments.mix))
    books = [Book(name, arguments.folder / f"{name}.ledger") for name in arguments.names]
    participants = [Participant(book, script, arguments.namespace, broken) for book in books]
    serving = asyncio.create_task(serve(arguments.broker, participants))
    loop.add_signal_handler(signal.SIGTERM, serving.cancel)
    broken.add_done_callback(lambda _: serving.cancel())
    await asyncio.gather(serving, return_exceptions=True)
    for book in books:
        book.close()
    if broken.done():
        raise RuntimeError("a command that no participant can handle") from broken.result()


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="participants with a ledger, for the crash tests")
    parser.add_argument("--broker", required=True)
    parser.add_argument("--folder", required=True, type=Path)
    parser.add_argument("--namespace", default="antiphon")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--mix", default="{}")
    parser.add_argument("names", nargs="+", choices=list(EVERY_TRADE))
    return parser.parse_args()


def main() -> None:
    """The entry point."""
    asyncio.run(run(parsed()))


if __name__ == "__main__":
    main()
