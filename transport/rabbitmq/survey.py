"""A look at queues from outside: how many messages wait in each, and how many read it. Declares and changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import aio_pika
from aiormq.exceptions import AMQPChannelError

from messages.errors import BrokerAway
from transport.rabbitmq.address import Address
from transport.rabbitmq.talking import FAREWELL, CutOff, parting, talking

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aio_pika.abc import AbstractConnection

    from running import Runner


ANSWER = 10.0
"""Seconds for each answer of the broker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A queue as it stands: messages that wait to be handed out, and how many consumers take them."""

    queue: str
    messages: int
    consumers: int


async def survey(url: str, queues: Iterable[str], *, runner: Runner) -> tuple[Found, ...]:
    """What stands in the queues, on a connection of its own. Left out is what is not there or not ours to see.

    `url` is as `RabbitMQTransport` takes it.

    Raises:
        BrokerAway: the broker cannot be asked, or not any more.
    """
    address = Address.parse(url)
    connection = aio_pika.Connection(address.url)
    try:
        try:
            async with talking(runner, ANSWER):
                await connection.connect()
            found = [await _look(connection, queue, runner) for queue in queues]
        finally:  # also one that never stood: forgotten without a farewell it says one when no loop may be there
            await parting(runner, connection.close(), FAREWELL)
    except CutOff as error:
        raise BrokerAway(f"{address.shown}: {error}") from None
    return tuple(each for each in found if each is not None)


async def _look(connection: AbstractConnection, queue: str, runner: Runner) -> Found | None:
    """One question on a channel of its own: a refusal closes the channel it was asked on."""
    try:
        async with talking(runner, ANSWER), connection.channel(publisher_confirms=False) as channel:
            told = (await channel.declare_queue(queue, passive=True)).declaration_result
    except AMQPChannelError:
        return None
    return Found(queue=queue, messages=told.message_count or 0, consumers=told.consumer_count or 0)
