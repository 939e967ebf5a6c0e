"""One destination that takes nothing, or takes its time, costs the others nothing: counted in rows and publications."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import aio_pika

from messages.errors import DatabaseBusy
from outbox.breaker import FIRST_PAUSE, THRESHOLD
from outbox.facts import CircuitClosed, CircuitOpened
from outbox.in_flight import MAX_ROWS
from outbox.interface import Changes
from outbox.pressure import Backlog
from outbox.relay import Relay
from running import AsyncioRunner
from storage.statements import Statement
from tests.outbox.building import command, put
from tests.outbox.test_relay import BOUND, TAKEN, House, drained
from transport.in_process import InProcessTransport
from transport.rabbitmq import RabbitMQTransport
from transport.topology import Queue, Topology

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from outbox.interface import ClaimedRow, Destination, Outgoing
    from outbox.unit import SqlStorage
    from transport.interface import Publication, Publisher, Transport

DEAD, SLOW, HEALTHY = "gone.DoThis", "slow.DoThat", "stock.ReserveStock"
MANY = 5_000
NEVER = 3600.0
SWEPT = 0.02


def to(name: str, saga: UUID | None = None) -> Outgoing:
    """A command for the participant of that name."""
    made = command(saga or uuid4())
    return replace(made, envelope=replace(made.envelope, name=name), routing_key=name)


class Counting:
    """Everything of the publisher it wraps, and how many publications it got, by routing key."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self.published: Counter[str] = Counter()

    async def publish(self, publications: Sequence[Publication]) -> None:
        """See `transport.interface.Publisher`."""
        self.published.update(each.routing_key for each in publications)
        await self._publisher.publish(publications)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._publisher, name)


class Busy:
    """Everything of the storage it wraps, but that it refuses probes while told to."""

    def __init__(self, storage: SqlStorage) -> None:
        self._storage = storage
        self.refusing = False
        self.refused = 0

    async def claim_probe(self, destination: Destination, *, token: UUID, lease: float) -> Sequence[ClaimedRow]:
        """See `outbox.interface.Storage`."""
        if self.refusing:
            self.refused += 1
            raise DatabaseBusy("not now")
        return await self._storage.claim_probe(destination, token=token, lease=lease)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._storage, name)


class Clock(AsyncioRunner):
    """A clock that stands still until the test sets it."""

    ahead = 0.0

    def monotonic(self) -> float:
        """See `running.Runner`."""
        return self.ahead


class Post(House):
    """A relay whose publications are counted and whose clock can be set."""

    def __init__(self, storage: SqlStorage, *, sweep: float = SWEPT, transport: Transport | None = None) -> None:
        super().__init__(storage)
        self.transport = transport or InProcessTransport(app_id="tests")  # type: ignore[assignment]
        self.publisher = Counting(self.transport.publisher)
        self.clock = Clock()
        self.relay = Relay(storage, self.publisher, self.clock, self.facts.append, sweep=sweep)

    def told(self, kind: type) -> list[Any]:
        """The facts of that kind."""
        return [fact for fact in self.facts if isinstance(fact, kind)]

    async def opened(self) -> None:
        """Wait until a circuit has opened."""

        async def told() -> bool:
            return bool(self.told(CircuitOpened))

        await self.until(told)

    async def closed(self) -> None:
        """Let time pass until a circuit has closed."""

        async def told() -> bool:
            self.clock.ahead += 1
            return bool(self.told(CircuitClosed))

        await self.until(told)

    async def tried(self, name: str) -> int:
        """How many rows for that name were ever published, as the table has it."""
        rows = await self._rows("select count(*) as n from outbox where name = :name and attempts > 0", name)
        return int(rows[0].n)

    async def left(self, name: str) -> dict[str, int]:
        """How many rows for that name there are, by state."""
        rows = await self._rows("select state, count(*) as n from outbox where name = :name group by state", name)
        return {row.state: row.n for row in rows}

    async def _rows(self, sql: str, name: str) -> Sequence[Any]:
        async with self.storage.database.read() as session:
            return await session.fetch(Statement.both(sql), {"name": name})


@asynccontextmanager
async def tripped(post: Post) -> AsyncIterator[Post]:
    """A relay that has learnt that the dead one is dead, from as many rows as that takes."""
    async with post.running(TAKEN):
        await post.commit(*(to(DEAD) for _ in range(THRESHOLD)))
        await post.opened()

        async def written() -> bool:
            return await post.left(DEAD) == {"returned": THRESHOLD}

        await post.until(written)
        yield post


async def test_five_thousand_rows_for_a_dead_one_hold_up_nobody_behind_them(storage: SqlStorage) -> None:
    await put(storage, *(to(DEAD) for _ in range(MANY)))
    await put(storage, *(to(HEALTHY) for _ in range(300)))
    post = Post(storage, sweep=NEVER)  # there is one round, and what wakes it
    async with post.running(TAKEN):
        consumer = await post.transport.consume(TAKEN.name, prefetch=1000)
        await drained(consumer, 300)
        await post.opened()
    assert post.publisher.published[DEAD] <= MAX_ROWS / 2
    assert post.publisher.published[HEALTHY] == 300
    assert sum((await post.left(DEAD)).values()) == MANY


async def test_on_a_broker_too(storage: SqlStorage, rabbitmq_url: str, namespace: str) -> None:
    queue = Queue.of_participant(namespace, "stock", commands=(HEALTHY,))
    exchange = f"{namespace}.commands"
    await put(storage, *(replace(to(DEAD), exchange=exchange) for _ in range(MANY)))
    await put(storage, *(replace(to(HEALTHY), exchange=exchange) for _ in range(300)))
    transport = RabbitMQTransport(rabbitmq_url, runner=AsyncioRunner(), app_id="tests")
    post = Post(storage, sweep=NEVER, transport=transport)
    await transport.connect()
    await transport.declare(Topology(namespace=namespace, queues=(queue,)))
    relaying = asyncio.create_task(post.relay.run())
    try:
        consumer = await transport.consume(queue.name, prefetch=1000)
        await drained(consumer, 300)
        await post.opened()
    finally:
        post.relay.stop()
        await asyncio.wait_for(relaying, BOUND)
        await transport.close()
    assert post.publisher.published[DEAD] <= MAX_ROWS / 2
    assert sum((await post.left(DEAD)).values()) == MANY


async def test_a_full_queue_is_no_backlog_of_anybody_elses(
    storage: SqlStorage, rabbitmq_url: str, namespace: str
) -> None:
    full = f"{namespace}.full"
    await put(storage, *(replace(to(DEAD), exchange="", routing_key=full) for _ in range(MANY)))
    transport = RabbitMQTransport(rabbitmq_url, runner=AsyncioRunner(), app_id="tests")
    post = Post(storage, transport=transport)
    await transport.connect()
    async with await aio_pika.connect(rabbitmq_url) as connection:
        channel = await connection.channel()
        limits: dict[str, Any] = {"x-max-length": 1, "x-overflow": "reject-publish"}
        queue = await channel.declare_queue(full, durable=True, arguments=limits)
        await channel.default_exchange.publish(aio_pika.Message(b"{}"), queue.name)
        relaying = asyncio.create_task(post.relay.run())
        try:
            await post.opened()

            async def not_counted() -> bool:
                return await storage.backlog() == Backlog()

            await post.until(not_counted)
        finally:
            post.relay.stop()
            await asyncio.wait_for(relaying, BOUND)
            await transport.close()
            await queue.delete(if_unused=False, if_empty=False)
    assert sum((await post.left(DEAD)).values()) == MANY


async def test_while_a_circuit_is_open_its_rows_are_neither_claimed_nor_published(storage: SqlStorage) -> None:
    async with tripped(Post(storage)) as post:
        await put(storage, *(to(DEAD) for _ in range(MANY)))
        published, tried = post.publisher.published[DEAD], await post.tried(DEAD)
        consumer = await post.transport.consume(TAKEN.name, prefetch=100)
        for _ in range(20):  # each goes with a sweep or a transaction of its own
            await put(storage, to(HEALTHY))
            await post.commit(to(HEALTHY))
            await drained(consumer, 2)
        assert (post.publisher.published[DEAD], await post.tried(DEAD)) == (published, tried)
        assert (await post.left(DEAD))["new"] == MANY


async def test_what_was_never_published_can_be_withdrawn_and_what_came_back_too(storage: SqlStorage) -> None:
    async with tripped(Post(storage)) as post:
        mine = [to(DEAD), to(DEAD)]
        assert await post.commit(*mine) == [], "they are born unclaimed"
        async with storage.transaction() as unit:
            gone = await unit.withdraw([each.envelope.message_id for each in mine])
        assert len(gone) == 2
        assert await post.left(DEAD) == {"returned": THRESHOLD}
    assert [fact.routing_key for fact in post.told(CircuitOpened)] == [DEAD]


async def test_a_row_that_was_claimed_before_the_circuit_opened_goes_back_as_it_was(storage: SqlStorage) -> None:
    post = Post(storage)
    async with post.running(TAKEN):
        lease = post.relay.lease()
        async with storage.transaction() as unit:
            rows = await unit.save(
                Changes(
                    consumer="tests", outgoing=[to(DEAD)], claim=(lease.token, lease.seconds), claim_limit=lease.limit
                )
            )
        assert len(rows) == 1
        await post.commit(*(to(DEAD) for _ in range(THRESHOLD)))
        await post.opened()
        await post.relay.publish(rows, lease.until)

        async def given_back() -> bool:
            return (await post.left(DEAD)).get("new") == 1

        await post.until(given_back)
        assert post.publisher.published[DEAD] == THRESHOLD


async def test_a_probe_that_arrives_lets_all_the_others_follow_at_once(storage: SqlStorage) -> None:
    async with tripped(Post(storage)) as post:
        await put(storage, *(to(DEAD) for _ in range(600)))

        async def probed_thrice() -> bool:
            post.clock.ahead += 1
            return post.publisher.published[DEAD] >= THRESHOLD + 3

        await post.until(probed_thrice)
        assert not post.told(CircuitClosed)
        revived = Queue.of_participant("antiphon", "gone", commands=(DEAD,))
        await post.transport.declare(Topology(namespace="antiphon", queues=(revived,)))
        consumer = await post.transport.consume(revived.name, prefetch=2000)
        await post.closed()
        found = await drained(consumer, THRESHOLD + 600)
        assert len({each.raw.message_id for each in found}) == THRESHOLD + 600
        await post.gone()
    (closed,) = post.told(CircuitClosed)
    assert (closed.routing_key, closed.after >= FIRST_PAUSE) == (DEAD, True)


async def test_a_dead_one_that_nothing_waits_for_any_more_is_forgotten(storage: SqlStorage) -> None:
    async with tripped(Post(storage)) as post:
        async with storage.database.write() as session:
            await session.fetch(Statement.both("delete from outbox"), {})
        await post.closed()


async def test_a_probe_that_the_database_had_no_time_for_is_made_up_for(storage: SqlStorage) -> None:
    busy = Busy(storage)
    async with tripped(Post(busy)) as post:  # type: ignore[arg-type]
        busy.refusing = True

        async def refused() -> bool:
            post.clock.ahead += 1
            return bool(busy.refused)

        await post.until(refused)
        busy.refusing = False
        revived = Queue.of_participant("antiphon", "gone", commands=(DEAD,))
        await post.transport.declare(Topology(namespace="antiphon", queues=(revived,)))
        await post.closed()


async def test_a_path_keeps_its_order_also_behind_a_dead_destination(storage: SqlStorage) -> None:
    async with tripped(Post(storage)) as post:
        saga = uuid4()
        consumer = await post.transport.consume(TAKEN.name, prefetch=100)
        assert await post.commit(to(DEAD, saga), to(HEALTHY, saga)) == []
        await post.commit(to(HEALTHY, saga))
        await post.commit(last := to(HEALTHY))
        (delivery,) = await drained(consumer, 1)
        assert delivery.raw.message_id == last.envelope.message_id
        assert await post.left(HEALTHY) in ({"new": 2}, {"new": 2, "claimed": 1})


async def test_those_who_take_their_time_leave_room_for_the_next(storage: SqlStorage) -> None:
    """In process a row is in flight until its consumer has settled it, and these never do."""
    slow = [f"{SLOW}{number}" for number in range(4)]
    for name in slow:
        await put(storage, *(to(name) for _ in range(MAX_ROWS)))
    await put(storage, *(to(HEALTHY) for _ in range(50)))
    queues = [Queue.of_participant("antiphon", f"slow{number}", commands=(name,)) for number, name in enumerate(slow)]
    post = Post(storage, sweep=NEVER)
    async with post.running(TAKEN, *queues):
        consumer = await post.transport.consume(TAKEN.name, prefetch=100)
        await drained(consumer, 50)
        assert sum(post.publisher.published[name] for name in slow) < MAX_ROWS
        assert all(post.publisher.published[name] for name in slow)
