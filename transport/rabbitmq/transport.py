"""`RabbitMQTransport`: two connections, one publisher, any number of consumers."""

from __future__ import annotations

from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Any

from aiormq.exceptions import AMQPChannelError

from messages.errors import AntiphonError, BrokerAway, ConfigurationError, TopologyMismatch
from transport.facts import unheard
from transport.rabbitmq.address import Address, said
from transport.rabbitmq.consumer import RabbitMQConsumer
from transport.rabbitmq.declaring import Declaration
from transport.rabbitmq.link import Link, quieten_client_library
from transport.rabbitmq.publisher import RabbitMQPublisher
from transport.rabbitmq.talking import CutOff

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from running import Runner
    from transport.facts import Report
    from transport.topology import Topology

MAX_BODY = 1024 * 1024


class RabbitMQTransport:
    """See `transport.interface.Transport`.

    Publishing and consuming have a connection each, because a broker that is short of memory stops reading from
    publishers' connections, acknowledgements included.

    Args:
        url: `amqp://` or `amqps://`, as people paste it.
        runner: Clock, chance and tasks.
        app_id: Who we say we are in every message; with the message id the identity of a message where the broker does
            not vouch for the user.
        report: Who hears the facts of `transport.facts`. Must not block and not raise.
        max_body: Bytes; a longer one ends `REFUSED` without being sent.
        connect_timeout: Seconds for one attempt to connect.
        confirm_timeout: Seconds after which a publication without an answer ends `UNKNOWN`.
        answer_timeout: Seconds for every other answer of the broker.

    Raises:
        ConfigurationError: `url` is not a broker's URL.
    """

    def __init__(
        self,
        url: str,
        *,
        runner: Runner,
        app_id: str,
        report: Report = unheard,
        max_body: int = MAX_BODY,
        connect_timeout: float = 10.0,
        confirm_timeout: float = 5.0,
        answer_timeout: float = 10.0,
    ) -> None:
        quieten_client_library()
        address = Address.parse(url)
        self._runner = runner
        self._report = report
        self._answer_timeout = answer_timeout
        self._outward = Link(address, "publish", name=app_id, runner=runner, report=report, timeout=connect_timeout)
        self._inward = Link(address, "consume", name=app_id, runner=runner, report=report, timeout=connect_timeout)
        self._publisher = RabbitMQPublisher(
            self._outward,
            app_id=app_id,
            max_body=max_body,
            confirm_timeout=confirm_timeout,
            runner=runner,
            report=report,
        )
        self._consumers: list[RabbitMQConsumer] = []
        self._topologies: dict[str, Topology] = {}
        self._lifetimes = count(1)
        self._started = False

    @property
    def publisher(self) -> RabbitMQPublisher:
        """See `Transport.publisher`."""
        return self._publisher

    @property
    def connected(self) -> bool:
        """See `Transport.connected`."""
        return self._started and self._outward.is_up and self._inward.is_up

    async def connect(self) -> None:
        """See `Transport.connect`. After `BrokerAway` it may be called again."""
        if self._started:
            return
        try:
            await self._outward.connect()
            await self._inward.connect()
            await self._publisher.start()
        except (CutOff, AMQPChannelError) as error:
            await self._hang_up()
            raise BrokerAway(f"the broker gave no channel to publish on: {said(error)}") from None
        except BaseException:
            await self._hang_up()
            raise
        self._started = True

    async def declare(self, topology: Topology) -> None:
        """See `Transport.declare`. Arguments of a queue that exists are compared by the broker, one at a time.

        Raises:
            TopologyMismatch: see there; also when two queues declared by this transport would take one command.
            BrokerAway: not connected.
        """
        if not self.connected:
            raise BrokerAway("not connected to the broker: nothing can be declared")
        known = self._topologies.get(topology.namespace)
        try:
            merged = topology if known is None else known.joined(topology)
        except ConfigurationError as error:
            raise TopologyMismatch(str(error)) from None
        await self._carry_out(topology)
        self._topologies[topology.namespace] = merged

    async def missing(self, topology: Topology) -> tuple[str, ...]:
        """Which of its exchanges and queues do not exist, in words; declares nothing.

        Raises:
            BrokerAway: not connected.
        """
        if not self.connected:
            raise BrokerAway("not connected to the broker: nothing can be looked for")
        underlay, _ = await self._inward.underlay()
        return await Declaration(underlay, topology, runner=self._runner, timeout=self._answer_timeout).missing()

    async def consume(self, queue: str, *, prefetch: int) -> RabbitMQConsumer:
        """See `Transport.consume`.

        Raises:
            ConfigurationError: the broker refuses: the queue is missing or this user may not read it.
            BrokerAway: not connected.
        """
        if not self.connected:
            raise BrokerAway(f"not connected to the broker: {queue} cannot be consumed")
        consumer = RabbitMQConsumer(
            self._inward,
            queue,
            prefetch=prefetch,
            lifetimes=self._lifetimes,
            missing=self._declare_again,
            runner=self._runner,
            report=self._report,
            timeout=self._answer_timeout,
        )
        try:
            await consumer.start()
        except AMQPChannelError as error:
            raise ConfigurationError(f"queue {queue} cannot be consumed: {said(error)}") from None
        except CutOff as error:
            raise BrokerAway(f"the connection was lost before {queue} could be consumed: {error}") from None
        self._consumers = [*(each for each in self._consumers if not each.closed), consumer]
        return consumer

    async def close(self) -> None:
        """See `Transport.close`."""
        self._started = False
        await self._together(*(consumer.close() for consumer in self._consumers))
        self._consumers.clear()
        await self._publisher.close()
        await self._hang_up()

    async def _hang_up(self) -> None:
        await self._together(self._outward.close(), self._inward.close())

    async def _together(self, *farewells: Coroutine[Any, Any, None]) -> None:
        for task in [self._runner.start(farewell, name="broker farewell") for farewell in farewells]:
            await task

    async def _declare_again(self) -> None:
        """A queue of ours has disappeared while we run: without it replies are lost, so put it back if we may."""
        for topology in list(self._topologies.values()):
            with suppress(AntiphonError, CutOff):  # the consumer reports that it is detached, and comes again
                await self._carry_out(topology)

    async def _carry_out(self, topology: Topology) -> None:
        underlay, _ = await self._inward.underlay()
        declaration = Declaration(underlay, topology, runner=self._runner, timeout=self._answer_timeout)
        await declaration.carry_out(self._report)
