"""Declaring a topology on the broker, and what to say when something stands in the way."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from aiormq.exceptions import (
    AMQPChannelError,
    ChannelAccessRefused,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
)

from messages.errors import BrokerAway, TopologyMismatch
from transport.facts import TopologyUnverified
from transport.rabbitmq.address import said
from transport.rabbitmq.talking import FAREWELL, CutOff, parting, talking
from transport.topology import (
    DEAD_QUEUE_ARGUMENTS,
    QUEUE_ARGUMENTS,
    commands_exchange,
    dead_exchange,
    dead_queue,
    events_exchange,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiormq.abc import AbstractChannel
    from aiormq.connection import Connection
    from pamqp.common import FieldTable

    from running import Runner
    from transport.facts import Report
    from transport.topology import Queue, Topology

_INEQUIVALENT = re.compile(
    r"inequivalent arg '(?P<argument>[^']+)' for (?P<kind>\w+) '(?P<name>[^']+)' in vhost '[^']*': "
    r"received (?P<wanted>.+?) but current is (?P<found>.+)"
)


class Declaration:
    """One pass over a topology: everything is tried, and all that is wrong is told together."""

    def __init__(self, connection: Connection, topology: Topology, *, runner: Runner, timeout: float) -> None:
        self._connection = connection
        self._topology = topology
        self._runner = runner
        self._timeout = timeout
        self._channel: AbstractChannel | None = None
        self._problems: list[str] = []
        self._unverified: list[str] = []

    async def carry_out(self, report: Report) -> None:
        """Declare what is missing, verify what exists.

        Raises:
            TopologyMismatch: something exists otherwise, or is missing and may not be declared by this user.
            BrokerAway: the connection was lost meanwhile.
        """
        namespace = self._topology.namespace
        try:
            for name in (events_exchange(namespace), commands_exchange(namespace)):
                await self._exchange(name, "topic")
            await self._exchange(dead_exchange(namespace), "fanout")
            await self._queue(dead_queue(namespace), dict(DEAD_QUEUE_ARGUMENTS))
            await self._bind(dead_queue(namespace), dead_exchange(namespace), "")
            for queue in self._topology.queues:
                await self._consumed(queue)
        except CutOff as error:
            raise BrokerAway(f"the connection was lost while declaring queues: {error}") from None
        finally:
            await self._close()
        if self._problems:
            raise TopologyMismatch("; ".join(self._problems))
        if self._unverified:
            report(TopologyUnverified(names=tuple(self._unverified)))

    async def missing(self) -> tuple[str, ...]:
        """The exchanges and queues that do not exist. Changes nothing, and sees no bindings: AMQP cannot ask for them.

        Raises:
            BrokerAway: the connection was lost meanwhile.
        """
        namespace = self._topology.namespace
        exchanges = (events_exchange(namespace), commands_exchange(namespace), dead_exchange(namespace))
        queues = (dead_queue(namespace), *(queue.name for queue in self._topology.queues))
        try:
            absent = [f"exchange {name}" for name in exchanges if not await self._exists(_passive_exchange(name))]
            absent += [f"queue {name}" for name in queues if not await self._exists(_passive_queue(name))]
        except CutOff as error:
            raise BrokerAway(f"the connection was lost while looking for queues: {error}") from None
        finally:
            await self._close()
        return tuple(absent)

    async def _exists(self, verify: Callable[[AbstractChannel], Awaitable[object]]) -> bool:
        try:
            await self._ask(verify)
        except ChannelNotFoundEntity:
            return False
        except AMQPChannelError:
            return True  # in use by someone else alone, or not ours to see: it is there
        return True

    async def _consumed(self, queue: Queue) -> None:
        arguments: FieldTable = {**QUEUE_ARGUMENTS, "x-dead-letter-exchange": dead_exchange(self._topology.namespace)}
        await self._queue(queue.name, arguments)
        for binding in sorted(queue.bindings, key=lambda binding: (binding.exchange, binding.routing_key)):
            await self._bind(queue.name, binding.exchange, binding.routing_key)

    async def _exchange(self, name: str, kind: str) -> None:
        await self._ensure(
            f"exchange {name}",
            lambda channel: channel.exchange_declare(name, exchange_type=kind, durable=True),
            _passive_exchange(name),
        )

    async def _queue(self, name: str, arguments: FieldTable) -> None:
        await self._ensure(
            f"queue {name}",
            lambda channel: channel.queue_declare(name, durable=True, arguments=arguments),
            _passive_queue(name),
        )

    async def _ensure(
        self,
        what: str,
        declare: Callable[[AbstractChannel], Awaitable[object]],
        verify: Callable[[AbstractChannel], Awaitable[object]],
    ) -> None:
        try:
            await self._ask(declare)
        except ChannelAccessRefused:
            await self._verify(what, verify)
        except ChannelPreconditionFailed as error:
            self._problems.append(difference(said(error)))
        except AMQPChannelError as error:
            self._problems.append(f"{what}: {said(error)}")

    async def _verify(self, what: str, verify: Callable[[AbstractChannel], Awaitable[object]]) -> None:
        try:
            await self._ask(verify)
        except ChannelNotFoundEntity:
            self._problems.append(
                f"{what} is missing and this user may not declare it; declare it as an administrator, or grant the "
                "user the right to configure it"
            )
        except AMQPChannelError as error:
            self._problems.append(f"{what}: {said(error)}")
        else:
            self._unverified.append(what)

    async def _bind(self, queue: str, exchange: str, routing_key: str) -> None:
        """Bind; what may not be bound counts as unverified, what is missing has been told before."""
        try:
            await self._ask(lambda channel: channel.queue_bind(queue, exchange, routing_key=routing_key))
        except ChannelAccessRefused:
            self._unverified.append(f"binding of {queue} to {routing_key or 'everything'} of {exchange}")
        except ChannelNotFoundEntity as error:
            if not self._problems:
                self._problems.append(f"queue {queue}: {said(error)}")

    async def _ask(self, question: Callable[[AbstractChannel], Awaitable[object]]) -> None:
        """Ask on an open channel: every refusal closes the one it was asked on."""
        async with talking(self._runner, self._timeout):
            if self._channel is None or self._channel.is_closed:
                self._channel = await self._connection.channel(publisher_confirms=False)
            await question(self._channel)

    async def _close(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None and not channel.is_closed:
            await parting(self._runner, channel.close(), FAREWELL)


def _passive_exchange(name: str) -> Callable[[AbstractChannel], Awaitable[object]]:
    return lambda channel: channel.exchange_declare(name, passive=True)


def _passive_queue(name: str) -> Callable[[AbstractChannel], Awaitable[object]]:
    return lambda channel: channel.queue_declare(name, passive=True)


def difference(text: str) -> str:
    """The broker's complaint about other arguments, as a difference and its remedy."""
    found = _INEQUIVALENT.search(text)
    if found is None:
        return f"{text}; delete what exists, or choose another namespace"
    kind, name, argument = found["kind"], found["name"], found["argument"]
    return (
        f"{kind} {name} exists with {argument} = {_value(found['found'])}, needed is {_value(found['wanted'])}; "
        f"let it run empty and delete it, so that it is declared anew, or choose another namespace"
    )


def _value(text: str) -> str:
    quoted = re.search(r"'([^']*)'", text)
    return quoted.group(1) if quoted else text
