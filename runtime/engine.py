"""The engine: every long-running part of a process, built from the settings, started and drained in order.

The composition root: the one place that names a concrete database and a concrete broker.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING, Literal

from handlers.consumer import UNDER_WAY, SagaConsumer
from handlers.dead_letters import DeadLetterImport
from handlers.handle import Handler
from handlers.held import HeldMessages
from handlers.participant_consumer import CONCURRENCY, ParticipantConsumer
from handlers.retention import DAILY, NEVER, Retention, of_participants, of_sagas
from handlers.saga_types import SagaType
from handlers.suspects import Suspects
from handlers.timers import Timers
from handlers.watchdog import Watchdog
from messages.errors import ConfigurationError
from outbox.doorbell import Doorbell
from outbox.optimistic import Optimistic
from outbox.pressure import Pressure
from outbox.relay import Relay
from outbox.unit import SqlStorage
from runtime import definitions, schema
from runtime.addresses import shown
from runtime.database import located
from runtime.durations import written
from runtime.supervise import DOWN_TOO_LONG, Supervised
from sagas.watching import Here
from storage import Database, runner_lock
from storage.retention import Expiry
from storage.schema import schema_state
from transport.in_process import InProcessTransport
from transport.topology import Queue, Topology, participant_queue, saga_queue

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

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
"""Database connections beyond those at work: for probes, and while one that broke is being replaced."""


def transport_for(settings: Settings, runner: Runner, report: Callable[[object], None]) -> Transport:
    """The broker that the settings name, not yet connected.

    Raises:
        ConfigurationError: the address is wrong.
    """
    if settings.in_process:
        return InProcessTransport(app_id=settings.namespace, max_body=settings.max_body)
    from transport.rabbitmq import RabbitMQTransport  # slow to import, and in one process there is no need for it

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


def untaken(topology: Topology, known: Known) -> str | None:
    """What is wrong with a topology that stands alone, and what to do: commands that nobody takes. None: nothing."""
    commands = topology.untaken(known.commands)
    if not commands:
        return None
    return (
        f"no participant takes {', '.join(commands)}, and with the in-process broker nobody else can; add a module "
        "with its participant to ANTIPHON_MODULES, or name a RabbitMQ in ANTIPHON_BROKER_URL"
    )


@contextmanager
def _alone_on_this_host(settings: Settings) -> Iterator[None]:
    """The lock of a PostgreSQL database whose messages go through one process: as far as the host reaches.

    Raises:
        ConfigurationError: another process on this host runs it.
    """
    digest = sha256(f"{settings.database}\n{settings.namespace}".encode()).hexdigest()[:16]
    with ExitStack() as held:
        try:
            held.enter_context(runner_lock(Path(gettempdir()) / f"antiphon-{os.getuid()}-{digest}"))
        except ConfigurationError as error:
            raise ConfigurationError(
                "another process runs this database with the in-process broker, which takes one runner; stop that "
                "process, or name a RabbitMQ in ANTIPHON_BROKER_URL to run several"
            ) from error
        yield


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
        self._topology = topology_of(settings, known, sagas=bool(self.saga_types), participants=participants)
        self._refuse_gaps()
        self._refuse_forgetting()
        self._loops: list[tuple[Supervised, asyncio.Task[None]]] = []
        self._held = ExitStack()
        self._stage = "not started"
        busy = (UNDER_WAY + 1) * len(known.sagas) + len(PARTS) + 1 + len(self.participants) * CONCURRENCY
        self.database = Database(
            settings.database,
            runner,
            namespace=settings.namespace,
            pool_size=busy + SPARE_CONNECTIONS,
            planned_once=not self.participants,  # whose handlers ask on the same connections whatever they like
        )
        self.storage = SqlStorage(self.database, Optimistic(self.database) if self.database.postgresql else None)
        self.transport = transport_for(settings, runner, report)
        self._suspects = Suspects(self.storage, runner)
        self.relay = self._relay()
        self.storage.published = self.relay.look
        self._pressure = self._gauge()
        self._consumers: list[SagaConsumer | ParticipantConsumer | DeadLetterImport] = [
            *(self._saga_consumers() if "consumer" in parts else ()),
            *([self._dead_letter_import()] if "consumer" in parts and not settings.in_process else ()),
            *(self._participant_consumer(name) for name in self.participants),
        ]

    # -- life

    async def start(self, patience: Patience) -> None:
        """Reach the database and the broker, make sure that everything fits, and start the loops.

        Raises:
            ConfigurationError: an address, the credentials, the schema, a definition or the topology is wrong.
            Trouble: the database or the broker was not there in time.
        """
        self._hold_alone()
        self._stage = "waiting for the database"
        await patience.reach("database", shown(self._settings.database), self._reach_database)
        self._stage = "waiting for the broker"
        await patience.reach("broker", shown(self._settings.broker), self._reach_broker)
        self._stage = "running"
        self._start_loops()

    async def drain(self) -> None:
        """Take nothing new, finish what was begun, send what it emitted. Bounded by whoever calls."""
        self._stage = "stopping"
        await self._stop([loop for loop in self._loops if loop[0].name != self.relay.name])
        await self._stop(self._loops)

    async def close(self) -> None:
        """Let go of everything, drained or not."""
        for _, task in self._loops:
            task.cancel()
        if self._loops:
            await asyncio.wait([task for _, task in self._loops])
        await self.transport.close()
        await self._suspects.leave()
        await self.database.close()
        self._held.close()

    @property
    def unfinished(self) -> tuple[str, ...]:
        """The names of the loops that are still at work."""
        return tuple(loop.name for loop, task in self._loops if not task.done())

    # -- readiness

    def add_checks(self, readiness: Readiness) -> None:
        """What has to be right for this process to be ready."""
        readiness.add("database", self._check_database)
        readiness.add("schema", self._check_schema)
        readiness.add("broker", self._check_broker)
        readiness.add("consumers", self._check_consumers)
        readiness.add("loops", self._check_loops)

    async def _check_database(self) -> str | None:
        await schema_state(self.database)
        return None

    async def _check_schema(self) -> str | None:
        return await schema.problem(self.database)

    async def _check_broker(self) -> str | None:
        if not self.transport.connected:
            return "not connected"
        return None if self.transport.publisher.ready else "connected, but it takes no messages now"

    async def _check_consumers(self) -> str | None:
        detached = [consumer.name for consumer in self._consumers if not consumer.attached]
        return f"not attached: {', '.join(detached)}" if detached else None

    async def _check_loops(self) -> str | None:
        if self._stage != "running":
            return self._stage
        down = [loop.name for loop, _ in self._loops if loop.down_for > DOWN_TOO_LONG]
        return f"down: {', '.join(down)}" if down else None

    # -- the stages of the start

    def _refuse_gaps(self) -> None:
        """In process nobody else can fill in for a part or a participant that is missing."""
        if not self._settings.in_process:
            return
        missing = [part for part in PARTS if part not in self.parts]
        if missing:
            raise ConfigurationError(
                f"the in-process broker needs every part in this process, and --only leaves out {', '.join(missing)}; "
                "drop --only, or name a RabbitMQ in ANTIPHON_BROKER_URL"
            )
        if (gap := untaken(self._topology, self._known)) is not None:
            raise ConfigurationError(gap)

    def _refuse_forgetting(self) -> None:
        """A participant has to remember a command for as long as its saga may ask again, or have it undone."""
        settings = self._settings
        versions = [each for of_type in self._known.sagas.values() for each in of_type.values()]
        if not self.participants or not versions:
            return
        longest = max(versions, key=lambda each: each.deadline)
        least = longest.deadline.total_seconds() + settings.inbox_window
        if settings.retention_participants < least:
            raise ConfigurationError(
                f"ANTIPHON_RETENTION_PARTICIPANTS: {written(settings.retention_participants)} is shorter than the "
                f"deadline of {longest.type} and ANTIPHON_INBOX_WINDOW together ({written(least)}); what a saga asks "
                "for again would be done twice; set it to never, or to longer than any saga may take, parked ones "
                "included"
            )

    def _hold_alone(self) -> None:
        """An SQLite file takes one runner, and so does a database whose messages go through one process."""
        if self._settings.sqlite:
            self._held.enter_context(runner_lock(str(self.database.engine.url.database)))
        elif self._settings.in_process:
            self._held.enter_context(_alone_on_this_host(self._settings))

    async def _reach_database(self) -> None:
        with located(self._settings):
            await schema.ready(self.database)
        if self.saga_types:
            known = [each for versions in self._known.sagas.values() for each in versions.values()]
            await definitions.settle(self.database, known)

    async def _reach_broker(self) -> None:
        await self.transport.connect()
        await self.transport.declare(self._topology)
        if self._settings.in_process:
            await self._take_over()

    async def _take_over(self) -> None:
        """Hand over what an earlier process left behind before any timer looks: among it are replies.

        On a broker they would wait in the saga's queue, and a last timeout would line up behind them.
        """
        if self._settings.sqlite:
            await self.storage.end_leases()  # we hold the file alone, so whoever claimed them is no more
        await self.relay.catch_up()

    def _start_loops(self) -> None:
        components: list[Component] = [*self._consumers]
        if "consumer" in self.parts:
            components.append(self._held_messages())
        if "timers" in self.parts:
            components.append(self._timers())
        components += self._retention()
        if "relay" in self.parts:
            components.append(self.relay)
            if self._settings.sqlite:
                components.append(Doorbell(self.database, self._runner, self.relay.look))
        if self._pressure is not None:
            components.append(self._pressure)
        if self.parts:
            components.append(self._watchdog())
        for component in components:
            loop = Supervised(component, self._runner, self._report)
            self._loops.append((loop, self._runner.start(loop.run(), name=component.name)))

    async def _stop(self, loops: Sequence[tuple[Supervised, asyncio.Task[None]]]) -> None:
        for loop, _ in loops:
            loop.stop()
        if loops:
            await asyncio.wait([task for _, task in loops])

    # -- the parts

    def _relay(self) -> Relay:
        relay = Relay(
            self.storage,
            self.transport.publisher,
            self._runner,
            self._report,
            lease=self._settings.lease,
            confirm_timeout=self._settings.confirm_timeout,
            sweep=self._settings.sweep,
            patience=self._settings.inbox_window,
        )
        if "relay" not in self.parts:
            relay.stop()  # rows are then born unclaimed, for the process that has one
        return relay

    def _gauge(self) -> Pressure | None:
        if "consumer" not in self.parts or self._settings.in_process:
            return None
        publisher = self.transport.publisher
        return Pressure(self.storage, publisher, self._runner, self._report, sweep=self._settings.sweep)

    def _saga_consumers(self) -> list[SagaConsumer]:
        return [self._saga_consumer(saga_type, versions) for saga_type, versions in self._known.sagas.items()]

    def _saga_consumer(self, saga_type: str, versions: Definitions) -> SagaConsumer:
        handler = Handler(
            versions,
            namespace=self._settings.namespace,
            storage=self.storage,
            relay=self.relay,
            report=self._report,
            limits=self._settings.limits,
            inbox_window=self._settings.inbox_window,
        )
        return SagaConsumer(
            handler,
            self.transport,
            self._runner,
            self._report,
            queue=saga_queue(self._settings.namespace, saga_type),
            limits=self._settings.limits,
            batch=self._settings.batch,
            prefetch=self._settings.prefetch,
            suspects=self._suspects,
            pressure=self._pressure,
        )

    def _participant_consumer(self, name: str) -> ParticipantConsumer:
        return ParticipantConsumer(
            self._known.participants[name],
            self.storage,
            self.transport,
            self.relay,
            self._runner,
            report=self._report,
            namespace=self._settings.namespace,
            queue=participant_queue(self._settings.namespace, name),
            limits=self._settings.limits,
            suspects=self._suspects,
        )

    def _held_messages(self) -> HeldMessages:
        return HeldMessages(
            [SagaType(versions, self._settings.namespace) for versions in self._known.sagas.values()],
            storage=self.storage,
            relay=self.relay,
            runner=self._runner,
            report=self._report,
            limits=self._settings.limits,
            sweep=self._settings.sweep,
            suspects=self._suspects,
        )

    def _dead_letter_import(self) -> DeadLetterImport:
        return DeadLetterImport(
            self.storage,
            self.transport,
            self._runner,
            self._report,
            namespace=self._settings.namespace,
            limits=self._settings.limits,
        )

    def _timers(self) -> Timers:
        return Timers(
            self._known.sagas,
            namespace=self._settings.namespace,
            storage=self.storage,
            relay=self.relay,
            runner=self._runner,
            report=self._report,
            sweep=self._settings.sweep,
            batch=self._settings.batch,
            suspects=self._suspects,
        )

    def _retention(self) -> list[Retention]:
        """What removes old rows: of the sagas with the timers, of participants where they are hosted."""
        expiry, settings = Expiry(self.database), self._settings
        loops = []
        if "timers" in self.parts:
            kinds = of_sagas(
                expiry,
                sagas=settings.retention_sagas,
                inbox=settings.inbox_window,
                dead_letters=settings.retention_dead_letters,
            )
            loops.append(Retention(kinds, self._runner, self._report))
        if self.participants and settings.retention_participants != NEVER:
            kinds = of_participants(expiry, age=settings.retention_participants)
            loops.append(Retention(kinds, self._runner, self._report, name="retention.participants", every=DAILY))
        return loops

    def _watchdog(self) -> Watchdog:
        here = Here(versions=self._known.sagas, takers=self._known.takers)
        interval = self._settings.watchdog_interval
        return Watchdog(here, storage=self.storage, runner=self._runner, report=self._report, interval=interval)
