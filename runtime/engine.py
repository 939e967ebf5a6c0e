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
from handlers.handle import Handler
from handlers.participant_consumer import CONCURRENCY, ParticipantConsumer
from handlers.timers import Timers
from messages.codec import Limits
from messages.errors import ConfigurationError
from outbox.relay import Relay
from outbox.unit import SqlStorage
from runtime import definitions, schema
from runtime.addresses import shown
from runtime.database import located
from runtime.supervise import DOWN_TOO_LONG, Supervised
from storage import Database, runner_lock
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
        self._loops: list[tuple[Supervised, asyncio.Task[None]]] = []
        self._held = ExitStack()
        self._stage = "not started"
        busy = UNDER_WAY * len(known.sagas) + len(PARTS) + len(self.participants) * CONCURRENCY
        self.database = Database(
            settings.database, runner, namespace=settings.namespace, pool_size=busy + SPARE_CONNECTIONS
        )
        self.storage = SqlStorage(self.database)
        self.transport = transport_for(settings, runner, report)
        self.relay = self._relay()
        self._consumers: list[SagaConsumer | ParticipantConsumer] = [
            *(self._saga_consumers() if "consumer" in parts else ()),
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
        if "timers" in self.parts:
            components.append(self._timers())
        if "relay" in self.parts:
            components.append(self.relay)
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
        )
        if "relay" not in self.parts:
            relay.stop()  # rows are then born unclaimed, for the process that has one
        return relay

    def _saga_consumers(self) -> list[SagaConsumer]:
        return [self._saga_consumer(saga_type, versions) for saga_type, versions in self._known.sagas.items()]

    def _saga_consumer(self, saga_type: str, versions: Definitions) -> SagaConsumer:
        handler = Handler(
            versions, namespace=self._settings.namespace, storage=self.storage, relay=self.relay, report=self._report
        )
        return SagaConsumer(
            handler,
            self.transport,
            self._runner,
            self._report,
            queue=saga_queue(self._settings.namespace, saga_type),
            limits=Limits(max_body=self._settings.max_body),
            batch=self._settings.batch,
            prefetch=self._settings.prefetch,
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
            limits=Limits(max_body=self._settings.max_body),
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
        )
