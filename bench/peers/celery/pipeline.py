"""Confirms that nobody waits for: a task's message is acknowledged once the broker has confirmed what the task sent.

Celery's own `confirm_publish` blocks the task until the confirm is there. Here the worker goes on with the next
message. It publishes on the connection that it consumes from: they are lost together, and then the message comes again.
"""

from __future__ import annotations

import fcntl
import socket
import termios
from collections import deque
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from amqp.exceptions import RecoverableConnectionError
from celery import Celery, bootsteps
from celery.worker.request import Request
from kombu import Producer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from celery.worker.consumer import Consumer
    from kombu import Connection, Message, Queue


BURST = 64  # messages that are sent together at most


class Pipelined(Producer):  # type: ignore[misc]
    """Publishes without waiting, and acknowledges messages as the confirms arrive."""

    def __init__(self, connection: Connection, queues: Iterable[Queue]) -> None:
        channel = connection.channel()
        # or every publish looks for a Connection.Blocked first, and so handles further messages inside of this one
        channel.connection.client_properties["capabilities"]["connection.blocked"] = False
        channel.confirm_select()
        channel.events["basic_ack"].add(self._confirmed)
        channel.events["basic_nack"].add(self._refused)
        super().__init__(channel, auto_declare=False)
        for queue in queues:
            self.maybe_declare(queue)  # declaring one later would wait for an answer, with the same consequence
        self._socket = channel.connection.sock
        self._held = 0
        self._sent = 0
        self._unconfirmed: dict[int, None] = {}
        self._waiting: deque[tuple[int, Message]] = deque()

    def publish(self, *args: object, **options: object) -> None:
        """Send and remember."""
        self._hold()
        super().publish(*args, **{**options, "declare": None})  # all are declared
        self._sent += 1
        self._unconfirmed[self._sent] = None

    def _hold(self) -> None:
        if not self._held:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        self._held += 1

    def flush(self) -> None:
        """Let go what is held."""
        if self._held:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
            self._held = 0

    def flush_between_bursts(self) -> None:
        """Let it go when nothing more has arrived that would be answered at the same time."""
        if self._held and (self._held >= BURST or not any(fcntl.ioctl(self._socket, termios.FIONREAD, bytes(4)))):
            self.flush()

    def acknowledge(self, message: Message) -> None:
        """Acknowledge it as soon as all that was sent until now is confirmed."""
        self._waiting.append((self._sent, message))
        if not self._unconfirmed:
            self._settle()

    def _confirmed(self, number: int, multiple: bool) -> None:
        if multiple:
            for confirmed in [each for each in self._unconfirmed if each <= number]:
                del self._unconfirmed[confirmed]
        else:
            self._unconfirmed.pop(number, None)
        self._settle()

    def _refused(self, number: int, multiple: bool) -> None:
        raise RecoverableConnectionError(f"the broker refused message {number}")

    def _settle(self) -> None:
        oldest = next(iter(self._unconfirmed), self._sent + 1)
        last = None
        while self._waiting and self._waiting[0][0] < oldest:
            last = self._waiting.popleft()[1]
        if last is not None:
            self._hold()
            last.ack(multiple=True)


class PipelinedCelery(Celery):  # type: ignore[misc]
    """An application whose worker publishes through a `Pipelined`."""

    pipeline: Pipelined | None = None

    def producer_or_acquire(self, producer: Producer | None = None) -> AbstractContextManager[Producer]:
        """The worker's producer, where there is one."""
        if producer is None and self.pipeline is not None:
            return nullcontext(self.pipeline)
        return super().producer_or_acquire(producer)  # type: ignore[no-any-return]


class Publishing(bootsteps.StartStopStep):  # type: ignore[misc]
    """Opens the producer for each connection of the consumer."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, parent: Consumer) -> None:
        """Once connected."""
        pipeline = parent.app.pipeline = Pipelined(parent.connection, parent.app.amqp.queues.values())
        parent.hub.on_tick.add(pipeline.flush_between_bursts)


class LateRequest(Request):  # type: ignore[misc]
    """A request that is acknowledged after the confirms; needs a pool that executes in the order of arrival: solo."""

    def acknowledge(self) -> None:
        """Hand the message to the pipeline."""
        if not self.acknowledged:
            self.acknowledged = True
            self._app.pipeline.acknowledge(self.message)
