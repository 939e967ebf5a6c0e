"""One participant of the ordering saga as a process of its own: takes its command, answers success, keeps a ledger.

It speaks the wire contract over plain AMQP and knows nothing of any contender. A reply's id is derived from the
command's id, so a repeated command gets the same reply. A command is acknowledged, many at a time, only after the
broker has confirmed the reply. At SIGTERM it writes the ledger, `{order id: {message id: copies}}`, and ends.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop
from pamqp import commands

from bench import wire
from bench.frames import Outgoing
from bench.lean_amqp import Link

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.frames import Content
    from bench.lean_amqp import Received

PREFETCH = 500


class Desk:
    """Answers bursts of commands with bursts of replies."""

    def __init__(self, link: Link, name: str) -> None:
        self.ledger: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._link = link
        self._name = name
        self._reply, self._field = wire.REPLY_OF[name]
        self._seen = self._settled = 0
        link.on_deliveries = self._answer
        link.on_confirms = self._acknowledge

    def _answer(self, burst: Sequence[Received]) -> None:
        for command in burst:
            order_id = json.loads(command.body)["order_id"]
            self.ledger[order_id][command.content.message_id] += 1
            self._link.publish(self._reply_to(command.content, order_id), answers=command.tag)
        self._seen = burst[-1].tag
        self._link.flush()

    def _reply_to(self, command: Content, order_id: str) -> Outgoing:
        return Outgoing(
            exchange="",
            routing_key=command.reply_to,
            body=wire.encode({"order_id": order_id, self._field: f"{self._name}-{order_id}"}),
            name=self._reply,
            message_id=f"{command.message_id}:reply",
            app_id=self._name,
            correlation_id=command.correlation_id,
            headers={"schema-version": 1, "causation-id": command.message_id},
        )

    def _acknowledge(self) -> None:
        oldest = next(iter(self._link.unconfirmed.values()), self._seen + 1)
        if oldest - 1 > self._settled:
            self._settled = oldest - 1
            self._link.acknowledge_through(self._settled)
            self._link.flush()


async def declare(link: Link, namespace: str, name: str) -> str:
    """The queue of this participant, bound to its command; returns the queue's name."""
    queue = wire.participant_queue(namespace, name)
    await link.declare(wire.commands_exchange(namespace), kind="topic")
    await link.call(commands.Queue.Declare(queue=queue, durable=True, arguments=dict(wire.queue_arguments(namespace))))
    await link.call(
        commands.Queue.Bind(queue=queue, exchange=wire.commands_exchange(namespace), routing_key=wire.COMMAND_OF[name])
    )
    return queue


async def serve(name: str, broker_url: str, namespace: str) -> Mapping[str, Mapping[str, int]]:
    """Answer commands until SIGTERM; returns the ledger."""
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    link = await Link.open(broker_url)
    desk = Desk(link, name)
    await link.consume(await declare(link, namespace, name), prefetch=PREFETCH)
    print("ready", flush=True)
    stopping = asyncio.create_task(stopped.wait())
    await asyncio.wait((stopping, link.lost), return_when=asyncio.FIRST_COMPLETED)
    if not stopped.is_set():
        link.lost.result()
    link.close()
    return desk.ledger


def main() -> None:
    """`python -m bench.participant --name stock --broker-url URL --namespace NAME --ledger FILE`."""
    parser = argparse.ArgumentParser(description="One participant of the ordering saga, for the benchmark.")
    parser.add_argument("--name", choices=sorted(wire.COMMAND_OF), required=True)
    parser.add_argument("--broker-url", required=True)
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--ledger", type=Path, required=True)
    given = parser.parse_args()
    ledger = uvloop.run(serve(given.name, given.broker_url, given.namespace))
    given.ledger.write_text(json.dumps(ledger))


if __name__ == "__main__":
    main()
