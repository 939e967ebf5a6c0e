"""The engine: every long-running part of a process, built from the settings, started and drained in order.

The composition root: the one place that names a concrete database and a concrete broker.
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import TYPE_CHECKING, Literal

from handlers.consumer import SagaConsumer
from handlers.handle import Handler
from handlers.timers import Timers
from messages.codec import Limits
from messages.errors import ConfigurationError
from outbox.relay import Relay
from outbox.unit import SqlStorage
from runtime.supervise import DOWN_TOO_LONG, Supervised
from storage import Database
from transport.in_process import InProcessTransport
from transport.rabbitmq import RabbitMQTransport
from transport.topology import Queue, Topology, saga_queue

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from handlers.work import Definitions
    from running import Runner
    from runtime.loading import Known
    from runtime.readiness import Readiness
    from runtime.settings import Settings
    from runtime.startup import Patience
    from runtime.supervise import Component
    from transport.interface import Transport

Part = Literal["consumer", "relay", "timers"]
PARTS: tuple[Part, ...] = ("consumer", "relay", "timers")

SPARE_CONNECTIONS = 4
"""Database connections beyond one per loop: for probes, and while one that broke is being replaced."""


def transport_for(settings: Settings, runner: Runner, report: Callable[[object], None]) -> Transport:
    """The broker that the settings name, not yet connected.

    Raises:
        ConfigurationError: the address is wrong.
    """
    if settings.in_process:
        return InProcessTransport(app_id=settings.namespace, max_body=settings.max_body)
    return RabbitMQTransport(
        settings.broker,
        runner=runner,
        app_id=settings.namespace,
        report=report,
        max_body=settings.max_body,
        confirm_timeout=settings.confirm_timeout,
    )


def topology_of(settings: Settings, known: Known, *, sagas: bool, participants: Collection[str]) -> Topology:
    """What a process needs on the broker.

    Raises:
        ConfigurationError: names that cannot be, or a command that two participants take.
    """
    queues = []
    if sagas:
        queues += [
            Queue.of_saga(settings.namespace, saga_type, events=known.events_of(saga_type)) for saga_type in known.sagas
        ]
    queues += [
        Queue.of_participant(settings.namespace, name, commands=known.participants[name].commands)
        for name in participants
    ]
    return Topology(namespace=settings.namespace, queues=tuple(queues))


class Engine:
    """The parts of one process, built and not yet started."""

    def __init__(
        self,
        settings: Settings,
        known: Known,
        *,
        runner: Runner,
        report: Callable[[object], None],
        parts: Collection[Part] = PARTS,
        participants: Collection[str] = (),
    ) -> None:
        """`parts` says which loops run the sagas; `participants` are hosted beside them, or alone."""
        self.parts = tuple(part for part in PARTS if part in parts)
        self.participants = tuple(participants)
        self.saga_types = tuple(known.sagas) if {"consumer", "timers"} & set(parts) else ()
        self._settings = settings
        self._known = known
        self._runner = runner
        self._report = report
