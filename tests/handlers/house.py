"""One process's message path over a real database, driven by hand: batches go in, and everything stored can be read."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID, uuid4

from handlers.decoding import Decoded, decode
from handlers.handle import Attempt, Handler, Prepared
from handlers.timers import Timers
from messages import codec
from messages.catalog.ordering import OrderLine, OrderPlaced
from messages.codec import Limits
from messages.envelope import Raw
from outbox.relay import Relay
from running import AsyncioRunner
from sagas import definition_of
from sagas.catalog.ordering import PlaceOrder
from sagas.instance import message_id, saga_id
from storage.statements import Statement
from transport.in_process import InProcessTransport
from transport.topology import Queue, Topology

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from messages import Event
    from outbox.interface import Storage
    from outbox.unit import SqlStorage
    from sagas.definition import Definition
    from sagas.instance import Instance

NAMESPACE = "antiphon"
LIMITS = Limits()
WINDOW = timedelta(days=8)


class House:
    """A handler, timers and a relay whose loops nobody runs: the test is the broker."""

    def __init__(self, storage: Storage, definition: Definition | None = None) -> None:
        self.definition = definition or definition_of(PlaceOrder)
        self.storage = storage
        self.facts: list[object] = []
        self.runner = AsyncioRunner()
        self.transport = InProcessTransport(app_id=NAMESPACE)
        self.relay = Relay(storage, self.transport.publisher, self.runner, self.facts.append)
        self.handler = Handler(
            {self.definition.version: self.definition},
            namespace=NAMESPACE,
            storage=storage,
            relay=self.relay,
            report=self.facts.append,
            inbox_window=WINDOW.total_seconds(),
        )
        self.timers = Timers(
            {self.definition.type: {self.definition.version: self.definition}},
            namespace=NAMESPACE,
            storage=storage,
            relay=self.relay,
            runner=self.runner,
            report=self.facts.append,
        )

    async def open(self, *others: Queue) -> Self:
        """Connect the transport, so that rows are born claimed; `others` are queues beside the saga's."""
        await self.transport.connect()
        events = tuple(self.definition.events)
        queue = Queue.of_saga(NAMESPACE, self.definition.type, events=events)
        await self.transport.declare(Topology(namespace=NAMESPACE, queues=(queue, *others)))
        return self

    async def take(self, *raws: Raw, wait: bool = False, token: UUID | None = None) -> Prepared:
        """One batch through the path, as the consumer does it."""
        attempt = Attempt(token=token or uuid4())
        prepared = await self.handler.handle(self.decoded(raws), attempt, wait=wait)
        await self.handler.finish(prepared, len(raws))
        return prepared

    def decoded(self, raws: Sequence[Raw]) -> list[Decoded]:
        """The batch, decoded for this saga type."""
        return [decode(raw, self.definition, LIMITS) for raw in raws]

    def id_of(self, key: str) -> UUID:
        """The instance of a key."""
        return saga_id(NAMESPACE, self.definition.type, key)

    def command_id(self, key: str, path: str, purpose: str = "do", attempt: int = 1) -> str:
        """The id under which a command of a step goes out."""
        return message_id(self.id_of(key), path, 1, attempt, purpose)

    def answer(self, key: str, event: Event, path: str, purpose: str = "do", *, attempt: int = 1) -> Raw:
        """A participant's reply, with everything that the contract asks it to echo."""
        return self.message(
            event,
            correlation_id=str(self.id_of(key)),
            headers={"causation-id": self.command_id(key, path, purpose, attempt)},
        )

    def message(self, event: Event, *, message_id: str | None = None, **properties: Any) -> Raw:  # noqa: ANN401
        """An event as it arrives."""
        return Raw(
            body=codec.encode(event),
            routing_key=event.message_name,
            message_id=message_id or str(uuid4()),
            type=event.message_name,
            content_type="application/json",
            app_id="tests",
            **properties,
        )

    async def instance(self, key: str) -> Instance:
        """The instance of a key, as stored."""
        async with self.storage.transaction() as unit:
            locked = await unit.lock([self.id_of(key)])
        return locked.instances[self.id_of(key)]


def placed(order_id: str = "o-1", **changes: object) -> OrderPlaced:
    """An order as the shop announces it."""
    line = OrderLine(sku="tea", quantity=1, unit_price=Decimal("4.50"))
    order = OrderPlaced(order_id=order_id, customer_id="c-1", lines=[line], total=Decimal("4.50"))
    return order.model_copy(update=changes)


async def rows(storage: SqlStorage, sql: str, parameters: Mapping[str, object] | None = None) -> list[Any]:
    """What a statement finds, on either database."""
    async with storage.database.read() as session:
        return list(await session.fetch(Statement.both(sql), parameters or {}))


async def kinds(storage: SqlStorage, saga: UUID) -> list[str]:
    """The kinds of an instance's history, in order."""
    found = await rows(
        storage, "select kind from v_saga_event where saga_id = :saga_id order by seq", {"saga_id": saga}
    )
    return [row.kind for row in found]


async def outbox(storage: SqlStorage) -> list[tuple[str, str]]:
    """What is to be sent: (name, state), by name."""
    found = await rows(storage, "select name, state from v_outbox order by name")
    return [(row.name, row.state) for row in found]


async def dead(storage: SqlStorage) -> list[tuple[str, str]]:
    """The dead letters: (message id, reason)."""
    return [(row.message_id, row.reason) for row in await rows(storage, "select * from v_dead_letter order by 1")]


def tally(facts: Sequence[object]) -> Counter[str]:
    """How often each kind of fact was reported."""
    return Counter(type(fact).__name__ for fact in facts)


def corrupted(raw: Raw, **changes: object) -> Raw:
    """The message with something broken in it."""
    return replace(raw, **changes)  # type: ignore[arg-type]
